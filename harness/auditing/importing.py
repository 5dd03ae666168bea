"""Scores masks that another program made for a plan: the run of a model that never ran here."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.auditing.listener import SILENT, Listener
from harness.records import BY_CONTENT, Reading

if TYPE_CHECKING:
    import polars as pl

    from harness.data.answers import Answers
    from harness.engine.imported import Imported
    from harness.plan.build import Plan, PlannedSet
    from harness.plan.files import Origin
    from harness.runs.store import RunStore
    from harness.suite.schema import Suite

MISSING = "missing.csv"
_SHOWN = 5


@dataclass(frozen=True)
class Predictions:
    """Masks of another program.

    `folder` holds them (`harness.data.answers`), `name` is what figures call whatever made them,
    `reading` the rule for their foreground, `trained_on` the data sets it was trained on.
    """

    folder: Path
    name: str
    reading: Reading = BY_CONTENT
    trained_on: Sequence[str] = ()
    control: bool = False


def import_predictions(
    plan: Path,
    predictions: Predictions,
    *,
    root: Path | None = None,
    out: Path | None = None,
    kept_masks: int = 2,
    fresh: bool = False,
    listener: Listener = SILENT,
    runs: Path = Path("runs"),
) -> "RunStore":
    """Score predictions for the cases of a plan, for all of them or for a part.

    An earlier import of the same name is replaced; models that the run holds stay.

    Args:
        plan: A plan's file or folder, or a run directory, which then takes the predictions.
        predictions: What is scored.
        root: Data root; the plan's own when None.
        out: Run directory; as for `run_models` when None.
        kept_masks: Cases a probe whose masks are kept for the report.
        fresh: Move an existing run aside first.
        listener: Hears notes and progress.
        runs: Folder of runs that have no `out`.

    Returns:
        The run; it is not summarised yet.

    Raises:
        RunError: Data, suite or perturbations are not those of the plan.
        DataError: No answer is one of the plan's.
    """
    from harness.auditing.running import open_run, removed_if_empty
    from harness.data.answers import opened
    from harness.files.writing import refuse_unwritable
    from harness.plan.repeats import with_answers
    from harness.runs.store import RunStore

    origin, out = _origin(plan, out)
    refuse_unwritable(out or runs, is_folder=True)
    root = root or origin.data_root
    with opened(predictions.folder, predictions.reading) as answers:
        suite, sets, made = _rebuilt(origin, root, plan, listener)
        _refuse_strangers(answers, made.cases, listener)
        made = with_answers(made, answers.n_repeats)
        store = RunStore(out or runs / f"{suite.name}-{made.sha256[:8]}")
        if fresh and (aside := store.set_aside()):
            listener.note(f"the earlier run was moved to {aside}")
        with removed_if_empty(store), store.locked(), _interrupted(store):
            open_run(store, made, suite, sets, root=root, limit=origin.limit, listener=listener)
            imported = _imported(store, predictions, answers, suite, root)
            _score(store, predictions, imported, suite, root, kept_masks, listener)
    return store


@contextmanager
def _interrupted(store: "RunStore") -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        store.update(status="interrupted")
        raise


def _origin(plan: Path, out: Path | None) -> "tuple[Origin, Path | None]":
    """What a plan was made from; a run directory is a plan, and takes the predictions itself."""
    from harness.plan.files import Origin, read_origin
    from harness.runs.store import RunStore

    if not (plan / "run.json").is_file():
        return read_origin(plan), out
    store = RunStore(plan)
    manifest = store.manifest
    origin = Origin(
        store.suite(), Path(manifest["data_root"]), manifest["limit"], manifest["plan_sha256"]
    )
    return origin, out or plan


def _rebuilt(
    origin: "Origin", root: Path, where: Path, listener: Listener
) -> "tuple[Suite, list[PlannedSet], Plan]":
    """The plan, made again from its suite and data: nothing of the file need be believed."""
    from harness.auditing.samples import read_sets
    from harness.errors import RunError
    from harness.plan.build import build_plan
    from harness.suite.schema import with_tolerances

    sets = read_sets(origin.suite, root, limit=origin.limit, listener=listener)
    suite = with_tolerances(origin.suite, [planned.card for planned in sets])
    made = build_plan(suite, sets)
    if made.sha256 != origin.plan_sha256:
        raise RunError(
            f"{where}: from its suite and the data in {root} comes the plan {made.sha256[:12]}, "
            f"the file says {origin.plan_sha256[:12]}. Predictions are scored on the data that "
            "were asked about. Give the right --data-root; or write the plan anew (`vlsm-harness "
            "plan`) and answer what `--diff` shows."
        )
    return suite, sets, made


def _refuse_strangers(answers: "Answers", cases: "pl.DataFrame", listener: Listener) -> None:
    """Say which answers are for no case; refuse where none is for one."""
    from harness.errors import DataError

    known = set(cases["case_id"])
    lost = [answer.where for (case, _), answer in answers.found.items() if case not in known]
    lost += answers.strange
    if len(lost) == len(answers.found) + len(answers.strange):
        example = cases["case_id"][0]
        found = f"the first is {lost[0]}" if lost else "the folder has none"
        raise DataError(
            f"{answers.folder}: none of {len(lost)} answers is for a case of the plan ({found}). "
            f"An answer is named by its case id, such as '{example}.png'. Name them so: "
            "`vlsm-harness plan SUITE --export FOLDER` lists the names. A program that keeps "
            "numbers as 64-bit floats rounds case ids: keep them as text."
        )
    if lost:
        listener.note(
            f"note: {len(lost)} of {len(answers.found) + len(answers.strange)} files or entries "
            f"are for no case of the plan and are left out: {', '.join(lost[:_SHOWN])}"
            + (" ..." if len(lost) > _SHOWN else ".")
        )


def _imported(
    store: "RunStore",
    predictions: Predictions,
    answers: "Answers",
    suite: "Suite",
    root: Path,
) -> "Imported":
    """The predictions with the answer of each case; the run's plan holds one row an answer."""
    from dataclasses import replace

    from harness.data.readings import readings_of
    from harness.engine.imported import Imported, network_size
    from harness.plan.repeats import answered_keys

    cases = store.plan_cases()
    found = Imported(
        model_id=f"{predictions.name}@{answers.sha256()[:12]}",
        answers=answers,
        keys=answered_keys(cases),
    )
    if suite.metric.resolution == "native":
        return found
    size = network_size(found, cases, root=root, readings=readings_of(store.manifest))
    return replace(found, size=size)


def _score(
    store: "RunStore",
    predictions: Predictions,
    imported: "Imported",
    suite: "Suite",
    root: Path,
    kept_masks: int,
    listener: Listener,
) -> None:
    from harness.engine.imported import execute_imported

    cases = store.plan_cases()
    _replace_earlier(store, predictions.name, imported.model_id, listener)
    entry = _entry(predictions, imported)
    for note in entry["notes"]:
        listener.note(f"note: {imported.model_id}: {note}")
    store.add_model(entry)
    done = sum(store.settled_shards(imported.model_id).values())
    title = f"masks of {predictions.name}"
    with listener.progress(title, cases.height, unit="cases", done=done) as advance:
        execute_imported(
            store,
            imported,
            root=root,
            metric=suite.metric,
            advance=advance,
            kept_masks=kept_masks,
        )
    store.update(evaluated=[imported.model_id])
    _tell_missing(store, imported, cases, listener)
    _tell_failed(store, imported, listener)


def _replace_earlier(store: "RunStore", name: str, model_id: str, listener: Listener) -> None:
    for known in store.manifest.get("models", []):
        if known["name"] == name and known.get("imported") and known["model_id"] != model_id:
            place = store.drop_model(known["model_id"])
            listener.note(
                f"note: the earlier import of {name} ({known['model_id']}) is replaced; its counts "
                f"are now in {place}."
            )


def _entry(predictions: Predictions, imported: "Imported") -> dict[str, Any]:
    """The line in ``run.json``; what only a model that ran here has is empty."""
    from harness.stats.pairs import IMPORTED

    notes = [
        f"{IMPORTED}: another program made these masks. That they answer these pictures and "
        "prompts, and with which weights, threshold and precision, is said by whoever made them."
    ]
    if imported.size is not None:
        height, width = imported.size
        notes.append(
            f"its masks have {height} x {width} pixels whatever their picture has; true masks are "
            "brought to that size, as for a network's logits."
        )
    return {
        "model_id": imported.model_id,
        "name": predictions.name,
        "imported": {
            "answers": len(imported.answers.found),
            "repeats": imported.answers.n_repeats,
            "rule": predictions.reading.rule,
        },
        "card": {"name": predictions.name, "title": IMPORTED},
        "weights_sha256": None,
        "random_weights": False,
        "notes": notes,
        "threshold": None,
        "trained_on": list(predictions.trained_on),
        "control": predictions.control,
        "device": "elsewhere",
        "precision": None,
        "batch_size": None,
        "shard_size": None,
        "hardware": {},
    }


def _tell_missing(
    store: "RunStore", imported: "Imported", cases: "pl.DataFrame", listener: Listener
) -> None:
    """Name the cases without an answer; all of them stand in ``missing.csv`` of the run."""
    import polars as pl

    is_missing = pl.Series([case not in imported for case in cases["case_id"]], dtype=pl.Boolean)
    keys = [imported.keys[case] for case in cases["case_id"]]
    missing = cases.select(
        pl.Series("case_id", [str(case) for case, _ in keys]),
        pl.Series("repeat", [repeat for _, repeat in keys]),
        *("dataset", "split", "image", "prompt"),
    ).filter(is_missing)
    path = store.folder / MISSING
    if missing.is_empty():
        path.unlink(missing_ok=True)
        return
    store.ledger.write({MISSING: missing.write_csv().encode()})
    has_repeats = imported.answers.n_repeats > 1
    shown = missing.head(_SHOWN).select("case_id", "repeat").iter_rows()
    named = ", ".join(f"{case}-{repeat}" if has_repeats else case for case, repeat in shown)
    more = " ..." if missing.height > _SHOWN else ""
    listener.note(
        f"note: {missing.height} of {cases.height} cases have no answer: {named}{more} All of them "
        f"stand in {path}. Answer them and give the same command again."
    )


def _tell_failed(store: "RunStore", imported: "Imported", listener: Listener) -> None:
    import polars as pl

    from harness.runs.store import FAILED

    mine = pl.col("model_id") == imported.model_id
    failed = store.scores_scan().filter(mine, pl.col("status") == FAILED).collect()
    if failed.height:
        listener.note(
            f"note: {failed.height} answers could not be scored. The first: {failed['error'][0]}"
        )
