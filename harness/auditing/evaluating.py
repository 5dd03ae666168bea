"""Evaluates a plan with one model, here or elsewhere, and keeps account of what it did."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.auditing.choices import Models
from harness.auditing.faster import FasterWay
from harness.auditing.listener import Listener
from harness.engine.cluster import ClusterOptions

if TYPE_CHECKING:
    from harness.engine.executors import Executor, ModelSource
    from harness.engine.pool import Pool
    from harness.engine.shard_worker import Job
    from harness.engine.two_speed import TwoSpeeds
    from harness.model.loading import LoadedModel
    from harness.model.wrapping import WrappedFunction
    from harness.plan.build import Plan
    from harness.runs.store import RunStore
    from harness.suite.schema import Suite


@dataclass(frozen=True)
class Conditions:
    """How models are loaded and run.

    A batch size of None is the model's usual one; without a cluster this process runs them.
    `fresh` moves an existing run aside first.
    `thresholds` counts every case at further thresholds.
    `workers` are processes of this machine that evaluate; None chooses by the model's size.
    `recipes` holds the places of models that are checkpoints of one recipe.
    `registration` is a file of `harness.plan.registration` that the run is held against.
    """

    device: str = "auto"
    dtype: str = "auto"
    backend: str = "torch"
    batch_size: int | None = None
    random_weights: bool = False
    kept_masks: int = 2
    thresholds: bool = False
    fresh: bool = False
    cluster: ClusterOptions | None = None
    workers: int | None = 1
    recipes: tuple[tuple[int, ...], ...] = ()
    registration: Path | None = None

    def source(self, name: "str | WrappedFunction", file: Path | None) -> "ModelSource":
        """How one of the models is loaded, here or elsewhere."""
        from harness.engine.executors import ModelSource

        how = self.device, self.dtype, self.random_weights, self.backend
        return ModelSource(name, file, *how)


USUAL = Conditions()

_ROWS_TO_REPEAT = 100_000
"""Rows of a plan among which a picture is looked for that can be read."""


class Begun(NamedTuple):
    """A model of a run, loaded and recorded; `batch_size` is what memory has left of it."""

    executor: "Executor"
    entry: dict[str, Any]
    batch_size: int


def evaluate_models(
    store: "RunStore",
    models: Models,
    plan: "Plan",
    suite: "Suite",
    *,
    root: Path,
    how: Conditions,
    looked: "dict[int, LoadedModel]",
    listener: Listener,
) -> list[str]:
    """Run models, one after the other; returns their ids.

    Where processes of this machine evaluate, those that are done with one begin the next. `looked`
    are models that were loaded before, by their places among `models`; each is taken out of it.
    """
    from harness.engine.pool import ended_by_errors

    opened: dict[int, tuple[ExitStack, Begun]] = {}

    def begun(place: int) -> tuple[ExitStack, Begun]:
        if place not in opened:
            stack = ExitStack()
            executor = _executor(
                models[place],
                plan,
                suite,
                root=root,
                conditions=how,
                loaded=looked.pop(place, None),
                behind=partial(behind, place),
            )
            opened[place] = stack, _recorded(store, stack.enter_context(executor), how)
        return opened[place]

    def behind(place: int) -> "Pool | None":
        """The model that follows, at work; a model that is given twice waits for itself."""
        if place + 1 == len(models):
            return None
        this, following = opened[place][1], begun(place + 1)[1]
        is_other = following.entry["model_id"] != this.entry["model_id"]
        return _at_work(store, following) if is_other else None

    def evaluated(place: int) -> str:
        stack, model = begun(place)
        with stack:
            _evaluate(store, model, plan, suite, how=how, listener=listener)
        del opened[place]  # one at a time fits in memory
        return str(model.entry["model_id"])

    with ended_by_errors():
        return [evaluated(place) for place in range(len(models))]


def _recorded(store: "RunStore", executor: "Executor", how: Conditions) -> Begun:
    """A model, in the run's record."""
    from harness.auditing.record import model_entry

    entry = executor.ask(model_entry)
    entry["batch_size"], halved = _chosen_size(store, executor, entry["model_id"], how.batch_size)
    if how.thresholds:
        entry["thresholds"] = "kept"
    store.add_model(entry)
    return Begun(executor, entry, halved)


def _at_work(store: "RunStore", model: Begun) -> "Pool | None":
    """The processes that evaluate a model, with their first shards; None where this one does."""
    from harness.engine.pool import Pool

    if not isinstance(model.executor, Pool):
        return None
    model.executor.begin(store, model.batch_size)
    return model.executor


def _evaluate(
    store: "RunStore",
    model: Begun,
    plan: "Plan",
    suite: "Suite",
    *,
    how: Conditions,
    listener: Listener,
) -> None:
    """Run one model."""
    from harness.auditing.record import spoken_notes, write_texts
    from harness.auditing.summarising import note_answers

    executor, entry, batch_size = model
    model_id = entry["model_id"]
    for note in entry["notes"]:
        listener.note(f"note: {model_id}: {note}")
    _at_work(store, model)
    write_texts(store, executor, model_id, plan.scan(), listener=listener)
    done, total = sum(store.settled_shards(model_id).values()), plan.n_cases
    if done:
        listener.remark(f"{model_id}: continues, {done} of {total} cases are there.")
    if "repeat_noise" not in entry and entry["card"].get("kind") == "callable":
        entry["repeat_noise"] = _repeat_noise(store, executor, model_id, plan, listener)
        store.add_model(entry)
    with listener.progress(model_id, total, unit="cases", done=done) as go:
        executor.execute(
            store,
            batch_size=batch_size,
            advance=FasterWay(entry, total - done, listener, go),
            halved=lambda n: _keep_halved(store, model_id, n, listener),
        )
    entry["hardware"]["workers"] = executor.machines()
    # What a function returns is known once it was called.
    entry["notes"] = list(dict.fromkeys([*entry["notes"], *executor.ask(spoken_notes)]))
    _add_sampling_noise(store, entry, plan, suite, listener=listener)
    _add_speeds(store, entry, how.dtype, listener=listener)
    if sentence := note_answers(store, entry):
        listener.note(f"note: {model_id}: {sentence}")
    store.add_model(entry)


def _add_sampling_noise(
    store: "RunStore",
    entry: dict[str, Any],
    plan: "Plan",
    suite: "Suite",
    *,
    listener: Listener,
) -> None:
    """Of a model that samples: how far its scores would move if it were asked again."""
    from harness.engine.repeats import sampling_noise

    counts = store.table("repeats", entry["model_id"])
    if counts is None:
        return
    noise = sampling_noise(counts, plan.scan(), empty=suite.metric.empty)
    entry["sampling_noise"] = noise._asdict()
    sentence = noise.sentence(entry["card"].get("samples", 1))
    entry["notes"] = [*entry["notes"], sentence]
    listener.note(f"note: {entry['model_id']}: {sentence}")


def _add_speeds(
    store: "RunStore", entry: dict[str, Any], dtype: str, *, listener: Listener
) -> None:
    """Of a model of two speeds: what was computed again, and what the checks found."""
    from harness.engine.two_speed import speed_record, speed_sentence
    from harness.model.precision import tolerance_of

    shards, tolerance = store.table("speeds", entry["model_id"]), tolerance_of(dtype)
    if shards is None or tolerance is None:
        return
    entry["two_speed"] = speed_record(shards, tolerance)
    sentence = speed_sentence(entry["two_speed"])
    entry["notes"] = [*entry["notes"], sentence]
    listener.note(f"note: {entry['model_id']}: {sentence}")


def _repeat_noise(
    store: "RunStore", executor: "Executor", model_id: str, plan: "Plan", listener: Listener
) -> dict[str, float] | None:
    """How far equal calls of a function differ, measured on the first picture and prompts."""
    from harness.data.readings import readings_of
    from harness.engine.repeats import repeat_noise

    root = Path(store.manifest["data_root"])
    first = plan.scan().select("image", "dataset", "prompt").head(_ROWS_TO_REPEAT).collect()
    found = executor.ask(repeat_noise, first, root, readings_of(store.manifest))
    if found is not None and found["pixels_percent"] > 0:
        listener.note(
            f"note: {model_id}: equal calls give other masks ({found['pixels_percent']:.2g} % of "
            "their pixels differ). Agreement and changes hold that noise: an edit that does "
            "nothing seems to do as much."
        )
    return found


def _chosen_size(
    store: "RunStore", executor: "Executor", model_id: str, asked: int | None
) -> tuple[int, int]:
    """The batch size of a model in this run, and what out of memory has left of it."""
    from harness.engine.batches import usual_batch_size

    known: dict[str, Any] = next(
        (m for m in store.manifest.get("models", []) if m["model_id"] == model_id), {}
    )
    size = asked or known.get("batch_size") or executor.ask(usual_batch_size)
    return size, min(size, known.get("halved_to", size))


@contextmanager
def _executor(
    name_and_file: "tuple[str | WrappedFunction, Path | None]",
    plan: "Plan",
    suite: "Suite",
    *,
    root: Path,
    conditions: Conditions,
    loaded: "LoadedModel | None",
    behind: "Callable[[], Pool | None]",
) -> "Iterator[Executor]":
    from harness.engine.executors import Local
    from harness.engine.pool import Pool, is_small, nobody, usual_workers

    source = conditions.source(*name_and_file)
    if conditions.cluster is not None:
        from harness.engine.ray_executor import connect

        with connect(conditions.cluster, _job(source, plan, suite, root, conditions)) as executor:
            yield executor
        return
    model = loaded or source.load()
    one = Local(model, root, suite.metric, conditions.kept_masks)
    workers = conditions.workers
    if workers is None:
        n_cases = plan.n_cases
        workers = usual_workers(model, n_cases) if isinstance(source.name, str) else 1
    if workers == 1:
        yield one
        return
    job = _job(source, plan, suite, root, conditions)
    # Two models at once fit in memory where the first is small.
    yield Pool(**vars(one), job=job, workers=workers, behind=behind if is_small(model) else nobody)


def _job(
    source: "ModelSource", plan: "Plan", suite: "Suite", root: Path, conditions: Conditions
) -> "Job":
    """What other processes need to know."""
    from harness.engine.shard_worker import Job
    from harness.engine.shards import distinct_texts

    return Job(
        source.anywhere(),
        root.resolve(),
        suite.metric,
        distinct_texts(plan.scan()),
        kept_masks=conditions.kept_masks,
        thresholds=conditions.thresholds,
        speeds=_speeds(plan, suite, conditions),
    )


def refuse_speeds(suite: "Suite", conditions: Conditions) -> None:
    """Two speeds count nothing but masks at the model's threshold; else a `UsageError`."""
    from harness.engine.two_speed import refuse_further_counts
    from harness.model.precision import tolerance_of

    if tolerance_of(conditions.dtype) is not None:
        refuse_further_counts(thresholds=conditions.thresholds, columns=suite.metric.columns)


def _speeds(plan: "Plan", suite: "Suite", conditions: Conditions) -> "TwoSpeeds | None":
    """Where two speeds need float32, if they are asked for."""
    from harness.engine.two_speed import TwoSpeeds
    from harness.model.precision import tolerance_of

    tolerance = tolerance_of(conditions.dtype)
    if tolerance is None:
        return None
    return TwoSpeeds.of(plan.scan(), tolerance, suite.statistics.refusal_area)


def _keep_halved(store: "RunStore", model_id: str, size: int, listener: Listener) -> None:
    entries = store.manifest["models"]
    for entry in entries:
        if entry["model_id"] == model_id:
            entry["halved_to"] = size
    store.update(models=entries)
    listener.note(f"out of memory: going on with batches of {size}.")
