"""What a test may ask of an audit, and the texts of what fails.

Conventions: only the models of the request are shown, in its order, whatever else the run
holds. Texts of prompts and names are shown without control characters.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from harness.errors import UsageError
from harness.pytest_plugin.worst import worst_cases
from harness.report.escape import plain
from harness.report.sections import interval, number
from harness.stats.assessment import Assessment
from harness.stats.language import LanguageVerdict
from harness.stats.pairs import CELL_KEYS
from harness.stats.phrases import expectation_text
from harness.stats.verdicts import Outcome, Verdict
from harness.store import RunStore

N_WORST = 3
"""Cases that a failure shows of each attribute."""


class ProbeFailed(AssertionError):
    """A verdict is not the one that is asked for; the text has figures and cases."""


@dataclass(frozen=True)
class Audit:
    """An audited suite.

    Attributes:
        folder: The run directory.
        model_ids: Of the models that were asked for, in order.
        assessment: What the statistics say of the run.
    """

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
        """Verdicts on a probe, on all probes where it is left out.

        Args:
            probe: Name in the suite.
            keys: Further fields of `Verdict`, such as ``dataset=`` or ``attribute=``.
        """
        wanted = ({"probe": probe} if probe else {}) | keys
        return [
            v
            for v in self.assessment.verdicts
            if v.model_id in self.model_ids and all(getattr(v, k) == x for k, x in wanted.items())
        ]

    def require(
        self, probe: str, verdict: Outcome = "holds", *, strict: bool = False, **keys: str | None
    ) -> None:
        """Ask that every verdict on a probe is the one given, binding or not.

        Where it is not shown the test is skipped, or fails if `strict`.

        Args:
            probe: Name in the suite.
            verdict: ``holds`` or ``fails``.
            strict: Whether an inconclusive verdict fails.
            keys: As of `verdicts`.

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
        """Raise what is wrong with some verdicts, or skip where they are not conclusive.

        Raises:
            ProbeFailed: A verdict is another one than `wanted`.
        """
        __tracebackhide__ = True
        wrong = [v for v in verdicts if v.verdict not in (wanted, "inconclusive")]
        unclear = [v for v in verdicts if v.verdict == "inconclusive"]
        if wrong or (unclear and strict):
            raise ProbeFailed(self.explained([*wrong, *unclear]))
        if unclear:
            reasons = "; ".join(f"{_cell(v)}: {v.reason}" for v in unclear)
            pytest.skip(f"inconclusive: {plain(reasons)}")

    def explained(self, verdicts: Sequence[Verdict]) -> str:
        """Figures and worst cases of each verdict, as a failure shows them."""
        lines: list[str] = []
        for verdict in verdicts:
            lines += self._of_verdict(verdict)
        return "\n".join([*lines, f"run: {plain(str(self.folder))}"])

    def _of_verdict(self, v: Verdict) -> Iterator[str]:
        yield plain(f"{v.model} on {v.dataset} ({v.split}, {v.prompt_type}), {_cell(v)}")
        yield plain(f"  {expectation_text(v)}: {v.verdict}. {v.reason}")
        row = self._row(v)
        yield (
            f"  Dice {number(row['reference_dice'], 3)} -> {interval(row, 'dice', '', 3)}, "
            f"change {interval(row, 'relative_change', '_percent', 1)} %, "
            f"{interval(row, 'change', '_points', 1)} points, agreement "
            f"{number(row['agreement'], 3)}; {row['n_samples']} samples, {row['n_clusters']} "
            f"clusters; p {number(v.p_value, 4)} ({number(v.p_adjusted, 4)} corrected)"
        )
        yield from (f"  {line}" for line in worst_cases(RunStore(self.folder), v, count=N_WORST))

    def _row(self, verdict: Verdict) -> dict[str, Any]:
        same = [pl.col(k).eq_missing(pl.lit(getattr(verdict, k))) for k in CELL_KEYS]
        found: dict[str, Any] = self.summary.filter(*same).row(0, named=True)
        return found


def _cell(verdict: Verdict) -> str:
    return f"{verdict.probe} of {verdict.attribute or 'the whole prompt'}"
