"""Computes, writes and counts what a run has shown."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import polars as pl

    from harness.runs.store import RunStore
    from harness.stats.assessment import Assessment
    from harness.suite.schema import Suite

# Above this share of failed cases a run counts as incomplete.
TOLERATED_FAILURES = 0.01


class Summarised(NamedTuple):
    """A run's summary and verdicts, and the files that hold them.

    `is_whole`: no case is missing, and at most `TOLERATED_FAILURES` of them failed.
    """

    assessment: "Assessment"
    paths: tuple[Path, ...]
    is_whole: bool


def summarise(
    store: "RunStore", *, suite: "Suite | None" = None, out: Path | None = None
) -> Summarised:
    """Compute a run's summary and verdicts from its counts, and write them.

    Args:
        store: The run, locked.
        suite: With the rules of the statistics; the run's own when None.
        out: Folder of the result; the run's own when None.
    """
    from harness.auditing.curve import threshold_curve
    from harness.report.files import write_assessment
    from harness.report.markdown import record_lines
    from harness.stats.assessment import assess
    from harness.stats.flips import disagreement_lines
    from harness.stats.pairs import assessed

    suite, folder, manifest = suite or store.suite(), out or store.folder, store.manifest
    scores = store.scores_scan()
    found = assess(
        store.plan_scan(),
        scores,
        models=assessed(manifest),
        not_applicable=store.not_applicable(),
        suite=suite,
        cluster_kinds=manifest.get("cluster_kinds", {}),
        texts=store.texts(),
    )
    curve = None
    if (curves := store.curves()) is not None:
        curve = threshold_curve(store.plan_scan(), scores, curves, suite.statistics)
    margins = suite.statistics.margins.model_dump().values()
    annotators = disagreement_lines(manifest.get("inter_annotator_dice", {}), margins)
    masks = [*record_lines(manifest), *annotators]
    paths = write_assessment(found, folder, title=suite.title, masks=masks, curve=curve)
    return Summarised(found, tuple(paths), _count(store, scores))


def _count(store: "RunStore", scores: "pl.LazyFrame") -> bool:
    """Write the counts of a run to its manifest; whether it is whole."""
    import polars as pl

    from harness.runs.store import DONE

    skipped = store.not_applicable()
    is_done = pl.col("status") == DONE
    n_scores, done = scores.select(pl.len(), is_done.sum().alias("done")).collect().row(0)
    n_cases = store.plan_scan().select(pl.len()).collect().item()
    planned = n_cases * len(store.manifest.get("models", []))
    store.update(
        status="complete" if done == planned else "incomplete",
        counts={
            "planned": planned,
            "done": done,
            "failed": n_scores - done,
            "missing": planned - n_scores,
            "not_applicable": skipped.to_dicts(),
        },
    )
    return bool(n_scores == planned and n_scores - done <= TOLERATED_FAILURES * planned)


def note_answers(store: "RunStore", entry: dict[str, Any]) -> str:
    """Of a model that does not always answer: how often it did not, beside its empty masks.

    The counts and a sentence go to `entry`, the model's record; empty where it always answered.
    """
    import polars as pl

    from harness.runs.store import DONE, NO_ANSWER

    done = store.scores_scan().filter(
        pl.col("model_id") == entry["model_id"], pl.col("status") == DONE
    )
    is_silent = (pl.col("error") == NO_ANSWER).fill_null(False)
    is_empty = (pl.col("n_pred") == 0) & ~is_silent
    counted = done.select(silent=is_silent.sum(), empty=is_empty.sum(), n=pl.len()).collect()
    silent, empty, n = counted.row(0)
    if not silent:
        return ""
    sentence = (
        f"{silent} of {n} cases have no answer: nothing that the model gave is a mask, and an "
        f"empty one is scored. {empty} more are answers with an empty mask."
    )
    entry["answers"] = {"cases": n, "no_answer": silent, "empty": empty}
    entry["notes"] = [*entry["notes"], sentence]
    return sentence
