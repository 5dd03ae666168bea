"""Verdicts: what the statistics say of each expectation, one record each.

Conventions: a record has the summary row's keys, the region that is accepted, the figure
with its limits in the same unit, the p-value of the one test that decides, and a reason in
one sentence. Limits are 95 % (``low90``, ``high90``: 90 %) and unadjusted; ``p_adjusted`` is
corrected within (model, dataset, kind of expectation), and it is what decides:

- *invariance* holds when the two one-sided tests of equivalence reject (the 90 % interval
  lies within the margin), fails when the 95 % interval lies wholly outside;
- *direction* and *minimum* hold or fail when the 95 % interval lies wholly on one side;
- anything else, and whatever allows no verdict, is inconclusive.

A record that does not bind (`Verdict.binding`) answers a question: after a changed meaning
"invariance fails" says that the words move the mask, which is no fault.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from harness.stats.significance import TestName
from harness.suite.expectations import Correction, Figure, Kind, Margins

Outcome = Literal["holds", "fails", "inconclusive"]

VERDICTS_VERSION = 1
"""Raised whenever a field of a record changes its name or meaning."""

ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is said of one expectation on one row of the summary.

    Attributes:
        model_id: Key of the model.
        model: What tables call it.
        dataset: As in the summary, like the next six.
        split: Annotation file.
        prompts: Source of the prompts.
        prompt_type: Rung of the originals.
        probe: Name in the suite.
        attribute: None where the whole prompt is changed.
        perturbation: The probe's rule.
        meaning: What the rule does to the meaning.
        kind: Of expectation.
        of: The figure that is tested; `harness.suite.expectations.UNITS` has its unit.
        accepted_low: Lower end of the accepted region, ``-inf`` where there is none.
        accepted_high: Upper end, ``inf`` where there is none.
        binding: Whether a failure is a fault (see `harness.suite.expectations.binding`).
        verdict: The outcome.
        reason: One sentence in plain English.
        test: The test that decides, `none` where no verdict is allowed.
        p_value: Of that test; NaN without one.
        p_adjusted: The same, corrected for `n_family` tests.
        n_family: Tests of this kind on this model and dataset.
        estimate: The figure, with its limits.
        low: Lower 95 % limit.
        high: Upper 95 % limit.
        low90: Lower 90 % limit.
        high90: Upper 90 % limit.
        standard_error: Linearised standard error.
        flips_at: The smallest margin (invariance), or the bound, at which the verdict would be
            another: one that holds no longer does below it, one that fails no longer does
            above it, an inconclusive invariance holds from it on. Corrected like the verdict.
        smallest_effect: The smallest true change that data like these would show in 4 of 5
            studies (80 % power, two-sided 5 %), in the unit of the figure.
        unseen_share: Where no variant lost more than half of its Dice: the share of clusters that
            may do so and yet be absent from data like these (5 %); NaN where one did.
        n_samples: Behind the figure.
        n_clusters: Behind the figure.
        for_these_words_only: Words were too few to speak of others.
    """

    model_id: str
    model: str
    dataset: str
    split: str
    prompts: str
    prompt_type: str
    probe: str
    attribute: str | None
    perturbation: str
    meaning: str
    kind: Kind
    of: Figure
    accepted_low: float
    accepted_high: float
    binding: bool
    verdict: Outcome
    reason: str
    test: TestName = "none"
    p_value: float = math.nan
    p_adjusted: float = math.nan
    n_family: int = 0
    estimate: float = math.nan
    low: float = math.nan
    high: float = math.nan
    low90: float = math.nan
    high90: float = math.nan
    standard_error: float = math.nan
    flips_at: float = math.nan
    smallest_effect: float = math.nan
    unseen_share: float = math.nan
    n_samples: int = 0
    n_clusters: int = 0
    for_these_words_only: bool = False

    def record(self) -> dict[str, Any]:
        """Plain values for JSON: what is not finite becomes None.

        Example:
            >>> keys = dict(model_id="m@1", model="m", dataset="d", split="test")
            >>> keys |= dict(prompts="released", prompt_type="p6", probe="antonym")
            >>> keys |= dict(attribute="size", perturbation="antonym", meaning="changed")
            >>> rule = dict(kind="invariance", of="relative_change", binding=False)
            >>> rule |= dict(accepted_low=-2.0, accepted_high=2.0)
            >>> found = Verdict(**keys, **rule, verdict="inconclusive", reason="12 clusters")
            >>> found.record()["p_value"] is None
            True
        """
        return {k: _finite(v) for k, v in asdict(self).items()}


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def signature(margins: Margins, correction: Correction, *, clusters: int, draws: int) -> str:
    """What fixes the meaning of a verdict, beside the metric's own signature.

    Example:
        >>> signature(Margins(), "holm", clusters=20, draws=10_000)
        'verdict|margins:preserved=3,changed=2,removed=2,destroyed=2|holm|clusters:20|draws:10000|v:1'
    """
    texts = ",".join(f"{k}={v:g}" for k, v in margins.model_dump().items())
    fields = ["verdict", f"margins:{texts}", correction, f"clusters:{clusters}", f"draws:{draws}"]
    return "|".join([*fields, f"v:{VERDICTS_VERSION}"])


def from_record(record: Mapping[str, Any]) -> Verdict:
    """The verdict of a record that was read from a run directory."""
    known = {k: v for k, v in record.items() if k in Verdict.__slots__}
    figures = (
        *("p_value", "p_adjusted", "estimate", "low", "high", "low90", "high90"),
        *("standard_error", "flips_at", "smallest_effect", "unseen_share"),
    )
    known |= {k: math.nan for k in figures if known.get(k) is None}
    ends = {"accepted_low": -math.inf, "accepted_high": math.inf}
    known |= {k: v for k, v in ends.items() if known.get(k) is None}
    return Verdict(**known)
