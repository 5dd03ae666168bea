"""Plans a suite and evaluates it with models: what `run`, the demo and the pytest plugin share."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.auditing.choices import Models
from harness.auditing.faster import FasterWay
from harness.auditing.listener import SILENT, Listener
from harness.auditing.overlap import note_overlaps
from harness.engine.cluster import ClusterOptions

if TYPE_CHECKING:
    import polars as pl

    from harness.engine.executors import Executor, ModelSource
    from harness.engine.shard_worker import Job
    from harness.engine.two_speed import TwoSpeeds
    from harness.model.loading import LoadedModel
    from harness.model.wrapping import WrappedFunction
    from harness.plan.build import Plan, PlannedSet
    from harness.records import Sample
    from harness.runs.store import RunStore
    from harness.suite.schema import Suite


@dataclass(frozen=True)
class Conditions:
    """How models are loaded and run.

    A batch size of None is the model's usual one; without a cluster this process runs them.
    `fresh` moves an existing run aside first.
    `thresholds` counts every case at further thresholds.
    `loaded` is the next model to be evaluated, where it was loaded before.
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
    loaded: "LoadedModel | None" = None
    recipes: tuple[tuple[int, ...], ...] = ()
    registration: Path | None = None

    def source(self, name: "str | WrappedFunction", file: Path | None) -> "ModelSource":
        """How one of the models is loaded, here or elsewhere."""
        from harness.engine.executors import ModelSource

        how = self.device, self.dtype, self.random_weights, self.backend
        return ModelSource(name, file, *how)


def run_models(
    suite: "Suite",
    models: Models,
    *,
    root: Path,
    out: Path | None,
    limit: int | None = None,
    conditions: Conditions = Conditions(),
    listener: Listener = SILENT,
    runs: Path = Path("runs"),
) -> "RunStore":
    """Plan a suite and evaluate every case that has no score yet.

    Args:
        suite: What to run.
        models: Cards with their checkpoints.
        root: Folder above the datasets' own.
        out: Run directory; one in `runs` that the plan names, where it is None.
        limit: At most so many images per dataset.
        conditions: How models are loaded and run.
        listener: Hears notes and progress.
        runs: Folder of runs that have no `out`.

    Returns:
        The run; it is not summarised yet. Its manifest's ``evaluated`` names these models.
    """
    from harness.auditing.samples import read_sets
    from harness.plan.build import build_plan
    from harness.plan.registration import differences, read_registration, record
    from harness.runs.store import RunStore
    from harness.suite.schema import with_tolerances

    # Before the data: reading and planning may take minutes, and a misfit file is known at once.
    held = read_registration(conditions.registration) if conditions.registration else None
    _refuse_speeds(suite, conditions)
    first = _look_at(models, conditions)
    sets = read_sets(suite, root, limit=limit, listener=listener)
    suite = with_tolerances(suite, [planned.card for planned in sets])
    plan = build_plan(suite, sets)
    store = RunStore(out or runs / f"{suite.name}-{plan.sha256[:8]}")
    if conditions.fresh and (aside := store.set_aside()):
        listener.note(f"the earlier run was moved to {aside}")
    with removed_if_empty(store), store.locked():
        open_run(store, plan, suite, sets, root=root, limit=limit, listener=listener)
        if held is not None:
            differs, began = differences(held, plan, suite, limit=limit), bool(store.part_names())
            _keep_registration(store, record(held, differs), began=began, listener=listener)
        _warn_of_rungs(models, suite, sets, listener)
        try:
            done = []
            for model in models:
                how, first = replace(conditions, loaded=first), None
                done.append(
                    _evaluate(store, model, plan, suite, root=root, how=how, listener=listener)
                )
            note_overlaps(store, done, sets, root, listener)
            store.update(evaluated=done, recipes=_recipes(store, done, conditions.recipes))
        except KeyboardInterrupt:
            store.update(status="interrupted")
            raise
    return store


def _keep_registration(
    store: "RunStore", found: dict[str, Any], *, began: bool, listener: Listener
) -> None:
    """Put into the record what was registered and what differs, and say so."""
    from harness.plan.registration import SEAL, sentence

    before = store.manifest.get("registration")
    if began and (before is None or before[SEAL] != found[SEAL]):
        found["differs"].append("time: cases were evaluated before the run named it")
    elif before is not None:
        found["differs"] += [text for text in before["differs"] if text.startswith("time:")]
    store.update(registration=found)
    listener.note(sentence(found))


def _recipes(
    store: "RunStore", done: list[str], chosen: tuple[tuple[int, ...], ...]
) -> list[dict[str, Any]]:
    """Recipes of a run: those it had, and those of these models.

    Raises:
        UsageError: Two checkpoints of a recipe are one and the same model.
    """
    import hashlib

    from harness.errors import UsageError

    names = {entry["model_id"]: entry["name"] for entry in store.manifest["models"]}
    found = {recipe["model_id"]: recipe for recipe in store.manifest.get("recipes", [])}
    for places in chosen:
        seeds = sorted({done[place] for place in places})
        if len(seeds) < len(places):
            raise UsageError(
                f"{names[seeds[0]]}: found {len(places)} checkpoints that are {len(seeds)} "
                "different models. The seeds of a recipe differ. Leave out the copies."
            )
        name = f"{names[seeds[0]]} ({len(seeds)} seeds)"
        digest = hashlib.sha256("\n".join(seeds).encode()).hexdigest()[:12]
        key = f"{names[seeds[0]]}-seeds@{digest}"
        found[key] = {"model_id": key, "name": name, "seeds": seeds}
    return list(found.values())


def _look_at(models: Models, conditions: Conditions) -> "LoadedModel | None":
    """Load every model once, to see that it can be; the first stays for its evaluation.

    For a cluster, whose devices this process may lack, files are looked for and no more.
    """
    from harness.cards import load_model_card
    from harness.engine.executors import ModelSource
    from harness.model.adapters import find_files

    loaded = None
    for name, file in reversed(models):
        loaded = None  # one at a time fits in memory
        if conditions.cluster is None:
            loaded = conditions.source(name, file).load()
        else:
            source = ModelSource(name, file).anywhere()  # a function is refused
            card = load_model_card(str(source.name))
            find_files(card, file, random_weights=conditions.random_weights)
    return loaded


@contextmanager
def removed_if_empty(store: "RunStore") -> Iterator[None]:
    """Remove the folder again if an error ends the run before anything was evaluated."""
    import shutil

    from harness.errors import HarnessError

    was_there = store.folder.exists()
    try:
        yield
    except HarnessError:
        if not was_there and not any(store.folder.glob("scores/*.parquet")):
            shutil.rmtree(store.folder, ignore_errors=True)
        raise


def open_run(
    store: "RunStore",
    plan: "Plan",
    suite: "Suite",
    sets: "list[PlannedSet]",
    *,
    root: Path,
    limit: int | None,
    listener: Listener,
) -> None:
    """Create the run of a plan, or continue it."""
    from harness.auditing.record import environment
    from harness.auditing.samples import span_counts
    from harness.data import cluster_kind
    from harness.data.layout import content_hashes, digest_of
    from harness.data.readings import data_lines, kept_readings, mask_counts

    masks = [
        {"dataset": planned.card.name, "split": planned.entry.split} | mask_counts(planned.samples)
        for planned in sets
    ]
    spans = span_counts(sets)
    for line in data_lines({"masks": masks, "spans": spans}):
        listener.remark(line)

    shown = content_hashes(s for planned in sets for s in planned.samples)
    store.open(
        plan,
        suite,
        data=_data_table(shown),
        say=lambda note: listener.note(f"note: {note}"),
        status="running",
        data_root=str(root),
        data_sha256=digest_of(shown),
        limit=limit,
        readings=kept_readings({planned.card.name: planned.card.reading for planned in sets}),
        masks=masks,
        spans=spans,
        cluster_kinds={planned.card.name: cluster_kind(planned.card) for planned in sets},
        modalities={planned.card.name: planned.card.modality for planned in sets},
        inter_annotator_dice={
            planned.card.name: planned.card.inter_annotator_dice
            for planned in sets
            if planned.card.inter_annotator_dice is not None
        },
        private_sets=sorted({planned.card.name for planned in sets if planned.card.private}),
        environment=environment(),
    )


def _data_table(shown: "list[tuple[Sample, bytes]]") -> "pl.DataFrame":
    """What each sample shows, by which a continued run knows its data."""
    import hashlib

    import polars as pl

    rows = [
        (s.dataset, s.split, s.sample_id, hashlib.sha256(content).hexdigest())
        for s, content in shown
    ]
    names = ("dataset", "split", "sample_id", "sha256")
    return pl.DataFrame(rows, schema=dict.fromkeys(names, pl.String), orient="row")


def _warn_of_rungs(
    models: Models, suite: "Suite", sets: "list[PlannedSet]", listener: Listener
) -> None:
    from harness.cards import load_model_card

    for name, _ in models:
        card = load_model_card(name).card if isinstance(name, str) else name.card
        trained = card.prompt_type
        asked = sorted({planned.prompt_type for planned in sets})
        if trained and asked != [trained]:
            listener.note(
                f"warning: {card.name} was trained with {trained} prompts, the suite "
                f"{suite.name!r} uses {', '.join(asked)}."
            )


def _evaluate(
    store: "RunStore",
    name_and_file: "tuple[str | WrappedFunction, Path | None]",
    plan: "Plan",
    suite: "Suite",
    *,
    root: Path,
    how: Conditions,
    listener: Listener,
) -> str:
    """Run one model; returns its id."""
    from harness.auditing.record import model_entry, spoken_notes, write_texts
    from harness.auditing.summarising import note_answers

    with _executor(name_and_file, plan, suite, root=root, conditions=how) as executor:
        entry = executor.ask(model_entry)
        model_id = entry["model_id"]
        for note in entry["notes"]:
            listener.note(f"note: {model_id}: {note}")
        entry["batch_size"], halved = _chosen_size(store, executor, model_id, how.batch_size)
        if how.thresholds:
            entry["thresholds"] = "kept"
        store.add_model(entry)
        write_texts(store, executor, model_id, plan.cases, listener=listener)
        done, total = sum(store.settled_shards(model_id).values()), plan.cases.height
        if done:
            listener.remark(f"{model_id}: continues, {done} of {total} cases are there.")
        if "repeat_noise" not in entry and entry["card"].get("kind") == "callable":
            entry["repeat_noise"] = _repeat_noise(store, executor, model_id, plan, listener)
            store.add_model(entry)
        with listener.progress(model_id, total, unit="cases", done=done) as go:
            executor.execute(
                store,
                batch_size=halved,
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
    return str(model_id)


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
    noise = sampling_noise(counts, plan.cases, empty=suite.metric.empty)
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
    found = executor.ask(repeat_noise, plan.cases, root, readings_of(store.manifest))
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
) -> "Iterator[Executor]":
    from harness.engine.executors import Local
    from harness.engine.pool import Pool, usual_workers

    source = conditions.source(*name_and_file)
    if conditions.cluster is not None:
        from harness.engine.ray_executor import connect

        with connect(conditions.cluster, _job(source, plan, suite, root, conditions)) as executor:
            yield executor
        return
    model = conditions.loaded or source.load()
    one = Local(model, root, suite.metric, conditions.kept_masks)
    workers = conditions.workers
    if workers is None:
        n_cases = plan.cases.height
        workers = usual_workers(model, n_cases) if isinstance(source.name, str) else 1
    if workers == 1:
        yield one
        return
    job = _job(source, plan, suite, root, conditions)
    yield Pool(**vars(one), job=job, workers=workers)


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
        distinct_texts(plan.cases),
        kept_masks=conditions.kept_masks,
        thresholds=conditions.thresholds,
        speeds=_speeds(plan, suite, conditions),
    )


def _refuse_speeds(suite: "Suite", conditions: Conditions) -> None:
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
    return TwoSpeeds.of(plan.cases, tolerance, suite.statistics.refusal_area)


def _keep_halved(store: "RunStore", model_id: str, size: int, listener: Listener) -> None:
    entries = store.manifest["models"]
    for entry in entries:
        if entry["model_id"] == model_id:
            entry["halved_to"] = size
    store.update(models=entries)
    listener.note(f"out of memory: going on with batches of {size}.")
