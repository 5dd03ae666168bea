"""Plans a suite and evaluates it with models: what `run`, the demo and the pytest plugin share."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.auditing.choices import Models
from harness.auditing.evaluating import USUAL, Conditions, evaluate_models, refuse_speeds
from harness.auditing.listener import SILENT, Listener
from harness.auditing.overlap import note_overlaps
from harness.files.writing import refuse_unwritable

if TYPE_CHECKING:
    import polars as pl

    from harness.model.loading import LoadedModel
    from harness.plan.build import Plan, PlannedSet
    from harness.records import Sample
    from harness.runs.store import RunStore
    from harness.suite.schema import Suite


def run_models(
    suite: "Suite",
    models: Models,
    *,
    root: Path | None,
    out: Path | None,
    limit: int | None = None,
    conditions: Conditions = USUAL,
    listener: Listener = SILENT,
    runs: Path = Path("runs"),
) -> "RunStore":
    """Plan a suite and evaluate every case that has no score yet.

    Args:
        suite: What to run.
        models: Cards with their checkpoints.
        root: Folder above the datasets' own; `harness.auditing.samples.choose_root` where None.
        out: Run directory; one in `runs` that the plan names, where it is None.
        limit: At most so many images per dataset.
        conditions: How models are loaded and run.
        listener: Hears notes and progress.
        runs: Folder of runs that have no `out`.

    Returns:
        The run; it is not summarised yet. Its manifest's ``evaluated`` names these models.
    """
    from harness.auditing.samples import choose_root, read_sets, sets_of
    from harness.plan.build import build_plan
    from harness.plan.registration import differences, read_registration, record
    from harness.runs.store import RunStore
    from harness.suite.schema import with_tolerances

    # Before the data: reading and planning may take minutes, and these are known at once.
    refuse_unwritable(out or runs, is_folder=True)
    held = read_registration(conditions.registration) if conditions.registration else None
    looked = _look_at(models, suite, conditions)
    root = choose_root(root, sets_of(suite), listener=listener)
    sets = read_sets(suite, root, limit=limit, listener=listener)
    suite = with_tolerances(suite, [planned.card for planned in sets])
    _prepare_processes(looked, suite, sets, conditions)
    plan = build_plan(suite, sets)
    store = RunStore(out or runs / f"{suite.name}-{plan.sha256[:8]}")
    if conditions.fresh and (aside := store.set_aside()):
        listener.note(f"the earlier run was moved to {aside}")
    with removed_if_empty(store), store.locked():
        open_run(store, plan, suite, sets, root=root, limit=limit, listener=listener)
        if held is not None:
            found = record(held, differences(held, plan, suite, limit=limit))
            _keep_registration(store, found, began=bool(store.part_names()), listener=listener)
        _warn_of_rungs(models, suite, sets, listener)
        try:
            done = evaluate_models(
                store,
                models,
                plan,
                suite,
                root=root,
                how=conditions,
                looked=looked,
                listener=listener,
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


KEPT_BYTES = 1 << 28
"""Of weights of small models that are held from the first look at them until their evaluation."""


def _look_at(models: Models, suite: "Suite", conditions: Conditions) -> "dict[int, LoadedModel]":
    """Load every model once, to see that it can be; some stay for their evaluation, by place.

    The first does, and small ones that ship: where programs of strangers are loaded between, those
    of another might find modules that are not their own. For a cluster, whose devices this process
    may lack, files are looked for and no more.
    """
    from harness.cards import load_model_card, model_names
    from harness.engine.executors import ModelSource
    from harness.engine.pool import is_small
    from harness.model.adapters import find_files

    refuse_speeds(suite, conditions)
    kept: dict[int, LoadedModel] = {}
    room, shipped = KEPT_BYTES, model_names()
    for place, (name, file) in reversed(list(enumerate(models))):
        if conditions.cluster is not None:
            source = ModelSource(name, file).anywhere()  # a function is refused
            card = load_model_card(str(source.name))
            find_files(card, file, random_weights=conditions.random_weights)
            continue
        loaded = conditions.source(name, file).load()
        is_kept = name in shipped and is_small(loaded) and _size(loaded) < room
        if is_kept or place == 0:
            kept[place], room = loaded, room - _size(loaded) if is_kept else room
        del loaded  # one at a time fits in memory
    return kept


def _size(model: "LoadedModel") -> int:
    return sum(p.numel() * p.element_size() for p in model.adapter.module.parameters())


def _prepare_processes(
    looked: "Mapping[int, LoadedModel]",
    suite: "Suite",
    sets: "list[PlannedSet]",
    conditions: Conditions,
) -> None:
    """Start what other processes are forked off while this one plans, if they are to come."""
    from harness.engine.pool import prepare, usual_workers

    workers = conditions.workers
    if workers is None and looked:
        # Some probes give a sample one variant, others one an attribute or word.
        n_cases = 2 * sum(len(planned.samples) for planned in sets) * len(suite.probes)
        workers = usual_workers(looked[0], n_cases)
    if workers is not None and workers > 1 and conditions.cluster is None:
        prepare()


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
        origins={
            planned.card.name: {"source": planned.card.source, "licence": planned.card.licence}
            for planned in sets
        },
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
