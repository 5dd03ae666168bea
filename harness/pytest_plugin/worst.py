"""The cases of a failed verdict that say most: both prompts as a word diff, Dice of both.

Conventions: *worst* is what speaks most against the expectation: the deepest falls where Dice
should stay or rise, the highest Dice where it should fall; one case a sample.
"""

from collections.abc import Iterator
from typing import Any

import polars as pl

from harness.metrics import EMPTY_SCORES, agreement, dice
from harness.prompts.word_diff import word_edits
from harness.report.escape import plain
from harness.stats.verdicts import Verdict
from harness.store import RunStore

_KEYS = ("dataset", "split", "prompts", "prompt_type", "probe", "attribute")
_READ = ("case_id", "original_case_id", "image", "sample_id", "prompt", "original_prompt")
_COUNTS = ("tp", "n_pred", "n_gt", "tp_original", "n_pred_original")


def worst_cases(store: RunStore, verdict: Verdict, *, count: int) -> Iterator[str]:
    """Lines on the worst cases behind a verdict.

    Args:
        store: The run.
        verdict: Of the run.
        count: At most so many cases.
    """
    rows = _cases(store, verdict)
    # Where the figure is too high, high cases are the worst.
    too_high = verdict.estimate > verdict.accepted_high
    order = rows.sort("change", "case_id", descending=[too_high, False]).unique(
        "sample_id", keep="first", maintain_order=True
    )
    if order.height:
        yield "worst cases:" if order.height > count else "cases:"
    for row in order.head(count).iter_rows(named=True):
        yield from _lines(row)


def _cases(store: RunStore, verdict: Verdict) -> pl.DataFrame:
    """Cases of the cell with Dice before and after."""
    same = [pl.col(k).eq_missing(pl.lit(getattr(verdict, k))) for k in _KEYS]
    cases = store.plan_scan().filter(*same).select(_READ)
    done = store.scores_scan().filter(
        pl.col("model_id") == verdict.model_id, pl.col("status") == "done"
    )
    counts = done.select("case_id", *_COUNTS)
    original = counts.select(
        original_case_id="case_id", tp_before="tp", n_before="n_pred", gt_before="n_gt"
    )
    rows = cases.join(counts, on="case_id").join(original, on="original_case_id").collect()
    empty = EMPTY_SCORES[store.suite().metric.empty]
    after = dice(rows["tp"], rows["n_pred"], rows["n_gt"], empty=empty)
    before = dice(rows["tp_before"], rows["n_before"], rows["gt_before"], empty=empty)
    kept = agreement(rows["tp_original"], rows["n_pred"], rows["n_pred_original"])
    figures = {"after": after, "before": before, "kept": kept, "change": after - before}
    found = rows.with_columns(pl.Series(k, v) for k, v in figures.items())
    return found.filter(pl.col("change").is_not_nan())


def _lines(row: dict[str, Any]) -> Iterator[str]:
    yield plain(
        f"{row['image']} (sample {row['sample_id']}): Dice {row['before']:.3f} -> "
        f"{row['after']:.3f}, agreement {row['kept']:.3f}"
    ).join(("  ", ""))
    original, variant = marked_words(row["original_prompt"], row["prompt"])
    yield f"    original: {plain(original) or '(empty)'}"
    yield f"    variant:  {plain(variant) or '(empty)'}"


def marked_words(original: str, text: str) -> tuple[str, str]:
    """Both texts, what was removed and what was added between marks.

    Example:
        >>> marked_words("one small polyp", "one large polyp")
        ('one [-small-] polyp', 'one {+large+} polyp')
    """
    before, after, place = "", "", 0
    for edit in word_edits(original, text):
        same = original[place : edit.start]
        before += same + (f"[-{edit.old}-]" if edit.old else "")
        after += same + (f"{{+{edit.new}+}}" if edit.new else "")
        place = edit.end
    return before + original[place:], after + original[place:]
