"""An audit as tests see it, and the message of a failed verdict with its worst cases.

Conventions: only the models of the request are shown, in its order, whatever else the run
holds. Texts of prompts and names are shown without control characters. *Worst* is what speaks
most against the expectation: the deepest falls where Dice should stay or rise, the highest Dice
where it should fall, the largest mask where there should be none; one case a sample.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from harness.commands.peek import sides
from harness.errors import UsageError
from harness.metrics import EMPTY_SCORES, agreement, dice
from harness.report.escape import plain
from harness.report.sheet import interval, number
from harness.runs.store import DONE, RunStore
from harness.stats.assessment import Assessment
from harness.stats.coding import PLAN_KEYS
from harness.stats.language import LanguageVerdict
from harness.stats.pairs import CELL_KEYS
from harness.stats.verdicts import Outcome, Verdict, expectation_text

N_WORST = 3
"""Cases that a failure shows of each attribute."""


class ProbeFailed(AssertionError):
    """A verdict is not the one that is required; the message has figures and cases."""


@dataclass(frozen=True)
class Audit:
    """An audited suite: its run directory, and its assessment for the requested models."""

    folder: Path
    model_ids: tuple[str, ...]
    assessment: Assessment = field(repr=False)

    @classmethod
    def read(cls, folder: Path, model_ids: Sequence[str]) -> "Audit":
        """The audit in a run directory that was summarised."""
        return cls(folder, tuple(model_ids), Assessment.read(folder))

    @cached_property
    def summary(self) -> pl.DataFrame:
        """The rows of the summary, models in any order."""
        return self.assessment.summary.filter(pl.col("model_id").is_in(self.model_ids))

    @cached_property
    def language(self) -> tuple[LanguageVerdict, ...]:
        """Whether each model uses its prompt, a verdict a dataset."""
        return tuple(v for v in self.assessment.language if v.model_id in self.model_ids)

    def verdicts(self, probe: str | None = None, **keys: str | None) -> list[Verdict]:
        """Verdicts on a probe, or on all; `keys` are fields of `Verdict` such as ``dataset=``."""
        wanted = ({"probe": probe} if probe else {}) | keys
        return [
            v
            for v in self.assessment.verdicts
            if v.model_id in self.model_ids and all(getattr(v, k) == x for k, x in wanted.items())
        ]

    def require(
        self, probe: str, verdict: Outcome = "holds", *, strict: bool = False, **keys: str | None
    ) -> None:
        """Require that every verdict on a probe is ``holds`` or ``fails``, binding or not.

        Where that is not shown the test is skipped, or fails if `strict`; `keys` are as of
        `verdicts`.

        Raises:
            ProbeFailed: A verdict is another one.
            UsageError: There is no verdict on such a probe.
        """
        __tracebackhide__ = True
        found = self.verdicts(probe, **keys)
        if not found:
            known = ", ".join(sorted({repr(v.probe) for v in self.verdicts()})) or "none"
            raise UsageError(
                f"{self.folder}: no verdict on the probe {probe!r} with {keys}. A probe of the "
                f"suite that applies is needed. Those with verdicts: {known}."
            )
        self.judge(found, wanted=verdict, strict=strict)

    def judge(self, verdicts: Sequence[Verdict], *, wanted: Outcome, strict: bool) -> None:
        """Raise if a verdict is not `wanted`; skip if one is inconclusive, or raise if `strict`."""
        __tracebackhide__ = True
        wrong = [v for v in verdicts if v.verdict not in (wanted, "inconclusive")]
        unclear = [v for v in verdicts if v.verdict == "inconclusive"]
        if wrong or (unclear and strict):
            lines = [line for v in (*wrong, *unclear) for line in self._explain(v)]
            raise ProbeFailed("\n".join([*lines, f"run: {plain(str(self.folder))}"]))
        if unclear:
            reasons = "; ".join(f"{_cell(v)}: {v.reason}" for v in unclear)
            pytest.skip(f"inconclusive: {plain(reasons)}")

    def _explain(self, v: Verdict) -> Iterator[str]:
        same = [pl.col(k).eq_missing(pl.lit(getattr(v, k))) for k in CELL_KEYS]
        row: dict[str, Any] = self.summary.filter(*same).row(0, named=True)
        yield plain(f"{v.model} on {v.dataset} ({v.split}, {v.prompt_type}), {_cell(v)}")
        yield plain(f"  {expectation_text(v)}: {v.verdict}. {v.reason}")
        yield (
            f"  Dice {number(row['reference_dice'], 3)} -> {interval(row, 'dice', '', 3)}, "
            f"change {interval(row, 'relative_change', '_percent', 1)} %, "
            f"{interval(row, 'change', '_points', 1)} points, agreement "
            f"{number(row['agreement'], 3)}; {row['n_samples']} samples, {row['n_clusters']} "
            f"clusters; p {number(v.p_value, 4)} ({number(v.p_adjusted, 4)} corrected)"
        )
        if v.kind == "refusal":
            yield (
                f"  refusal rate {interval(row, 'refusal_rate', '', 3)}, "
                f"{number(100 * row['false_positive_area'], 2)} % of the picture painted, "
                f"{number(100 * row['aligned_share'], 0)} % of it on the original's mask; "
                f"{row['n_samples_refusal']} samples, {row['n_clusters_refusal']} clusters"
            )
        yield from (f"  {line}" for line in _worst_cases(RunStore(self.folder), v))


def _cell(verdict: Verdict) -> str:
    return f"{verdict.probe} of {verdict.attribute or 'the whole prompt'}"


def _worst_cases(store: RunStore, verdict: Verdict) -> Iterator[str]:
    """Lines on the worst cases behind a verdict: both prompts as a word diff, Dice of both."""
    rows = _cases(store, verdict)
    # Where the figure is too high, high cases are the worst.
    too_high = verdict.estimate > verdict.accepted_high
    figure = "n_pred" if verdict.kind == "refusal" else "change"
    descending = [too_high or verdict.kind == "refusal", False]
    order = rows.sort(figure, "case_id", descending=descending).unique(
        "sample_id", keep="first", maintain_order=True
    )
    if order.height:
        yield "worst cases:" if order.height > N_WORST else "cases:"
    for row in order.head(N_WORST).iter_rows(named=True):
        yield from _lines(row)


def _cases(store: RunStore, verdict: Verdict) -> pl.DataFrame:
    """Cases of the verdict's cell with Dice ``before`` and ``after``, ``change`` and ``kept``."""
    same = [pl.col(k).eq_missing(pl.lit(getattr(verdict, k))) for k in PLAN_KEYS]
    scored = store.scores_scan().filter(
        pl.col("model_id") == verdict.model_id, pl.col("status") == DONE
    )
    columns = ("case_id", "tp", "n_pred", "n_gt", "tp_original", "n_pred_original")
    original = scored.select("case_id", "tp", "n_pred", "n_gt")
    rows = (
        store.plan_scan()
        .filter(*same)
        .join(scored.select(columns), on="case_id")
        .join(original, left_on="original_case_id", right_on="case_id", suffix="_before")
        .collect()
    )
    empty = EMPTY_SCORES[store.suite().metric.empty]
    after = dice(rows["tp"], rows["n_pred"], rows["n_gt"], empty=empty)
    before = dice(rows["tp_before"], rows["n_pred_before"], rows["n_gt_before"], empty=empty)
    kept = agreement(rows["tp_original"], rows["n_pred"], rows["n_pred_original"])
    figures = {"after": after, "before": before, "kept": kept, "change": after - before}
    cases = rows.with_columns(pl.Series(k, v) for k, v in figures.items())
    return cases.filter(pl.col("change").is_not_nan())


def _lines(row: dict[str, Any]) -> Iterator[str]:
    yield plain(
        f"{row['image']} (sample {row['sample_id']}): Dice {row['before']:.3f} -> "
        f"{row['after']:.3f}, agreement {row['kept']:.3f}, {row['n_pred']:,} pixels"
    ).join(("  ", ""))
    original, variant = sides(row)
    yield f"    original: {plain(original.plain) or '(empty)'}"
    yield f"    variant:  {plain(variant.plain) or '(empty)'}"
