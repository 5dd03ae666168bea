"""Verdicts on expectations: one record each, with its reason in one sentence.

Conventions: a record has the summary row's keys, the region that is accepted, the figure
with its limits in the same unit, the p-value of the one test that decides, and a reason.
Limits are 95 % (``low90``, ``high90``: 90 %) and unadjusted; ``p_adjusted`` is
corrected within (model, dataset, kind of expectation), and it is what decides:

- *invariance* holds when the two one-sided tests of equivalence reject (the 90 % interval
  lies within the margin), fails when the 95 % interval lies wholly outside;
- *direction*, *minimum* and *refusal* hold or fail when the 95 % interval lies wholly on one side;
- anything else, and whatever allows no verdict, is inconclusive.

A record that does not bind (`Verdict.binding`) answers a question: after a changed meaning
"invariance fails" says that the words move the mask, which is no fault. In sentences percent
and points have one decimal, fractions three.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from harness.stats.inference import TestName
from harness.suite.expectations import ASKED, UNITS, Correction, Figure, Kind, Margins

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
        holds_at: The margin from which on it holds, or the bound up to which (direction below a
            bound: from which on) it does, all else as it is; NaN where no margin would do.
        fails_at: The margin below which it fails, or the bound beyond which.
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
    holds_at: float = math.nan
    fails_at: float = math.nan
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
        *("standard_error", "flips_at", "holds_at", "fails_at"),
        *("smallest_effect", "unseen_share"),
    )
    known |= {k: math.nan for k in figures if known.get(k) is None}
    ends = {"accepted_low": -math.inf, "accepted_high": math.inf}
    known |= {k: v for k, v in ends.items() if known.get(k) is None}
    return Verdict(**known)


_SAYS: dict[Figure, str] = {
    "relative_change": "Dice changes by",
    "points": "Dice changes by",
    "dice": "Dice after the change is",
    "agreement": "mask agreement",
    "named_gain": "Dice on the new target minus Dice on the old one:",
    "refusal_rate": "refusal rate",
}
MOST_EMPTY = 0.2
"""Share of originals with an empty mask above which a model gets no verdict."""


def amount(value: float, of: Figure) -> str:
    """One figure with its unit.

    Example:
        >>> amount(-0.04, "relative_change"), amount(0.95, "agreement")
        ('0.0 %', '0.950')
    """
    unit = UNITS[of]
    digits = 3 if unit == "fraction" else 1
    text = f"{value:.{digits}f}"
    text = text.removeprefix("-") if float(text) == 0 else text
    text = f"+{text}" if of == "named_gain" and float(text) > 0 else text
    return text + {"percent": " %", "points": " points", "fraction": ""}[unit]


def with_limits(value: float, low: float, high: float, of: Figure) -> str:
    """A figure with its limits, such as ``-1.7 % [-5.5, 0.5]``."""
    ends = [amount(x, of).split(" ")[0] for x in (low, high)]
    return f"{amount(value, of)} [{', '.join(ends)}]"


def bound_text(verdict: Verdict) -> str:
    """What is asked for, such as ``within 2 %``, ``below -10 %``, ``at least 0.95``."""
    if verdict.kind == "invariance":
        return f"within {short(verdict.accepted_high, verdict.of)}"
    if verdict.kind in ("minimum", "refusal"):
        return f"at least {short(verdict.accepted_low, verdict.of)}"
    if math.isinf(verdict.accepted_low):
        return f"below {short(verdict.accepted_high, verdict.of)}"
    return f"above {short(verdict.accepted_low, verdict.of)}"


def expectation_text(verdict: Verdict) -> str:
    """An expectation in a few words, such as ``invariance of relative_change within 2 %``."""
    return f"{verdict.kind} of {verdict.of} {bound_text(verdict)}"


_ANSWERS = {"holds": "yes", "fails": "no", "inconclusive": "open"}


def answer_text(expectation: str | None, verdict: str | None) -> str:
    """What was asked and the answer, such as ``unmoved: yes``; a dash where nothing was.

    Example:
        >>> answer_text("refusal of refusal_rate at least 0.8", "fails"), answer_text(None, None)
        ('refuses: no', '-')
    """
    if not expectation or verdict not in _ANSWERS:
        return "-"
    return f"{ASKED[expectation.split()[0]]}: {_ANSWERS[verdict]}"


def short(value: float, of: Figure) -> str:
    """A margin without needless decimals: ``2 %``."""
    return f"{value:g}" + {"percent": " %", "points": " points", "fraction": ""}[UNITS[of]]


def reason_of(verdict: Verdict, *, alpha: float) -> str:
    """The sentence of a verdict that rests on a test."""
    figure = with_limits(verdict.estimate, verdict.low, verdict.high, verdict.of)
    start = f"{_SAYS[verdict.of]} {figure}"
    start = start[0].upper() + start[1:]
    only = " for these words only" if verdict.for_these_words_only else ""
    if verdict.kind == "invariance":
        return f"{start}{only}: {_of_invariance(verdict, alpha)}."
    bound = bound_text(verdict)
    ends: dict[Outcome, str] = {
        "holds": f"shown to be {bound}",
        "fails": f"shown not to be {bound}",
        "inconclusive": f"not shown to be {bound}, nor the contrary" + _correction(verdict, alpha),
    }
    return f"{start}{only}: {ends[verdict.verdict]}."


def _of_invariance(verdict: Verdict, alpha: float) -> str:
    bound = bound_text(verdict)
    if verdict.verdict == "fails":
        return f"shown to go beyond {short(verdict.accepted_high, verdict.of)}"
    if verdict.verdict == "holds":
        smallest = f", and even within {amount(verdict.flips_at, verdict.of)}"
        return f"shown to stay {bound}{smallest}{_unseen(verdict)}"
    could = f"a change of {amount(verdict.smallest_effect, verdict.of)} would have been seen"
    return (
        f"neither shown to stay {bound} nor to go beyond it{_correction(verdict, alpha)}; "
        f"{could} in 4 of 5 studies like this"
    )


def _unseen(verdict: Verdict) -> str:
    """What no interval can exclude: clusters of a rare kind that are not among these."""
    share = verdict.unseen_share
    if not share > verdict.accepted_high / 100:
        return ""
    return (
        f"; up to {100 * share:.1f} % of clusters could lose their mask without appearing in this "
        "sample"
    )


def _correction(verdict: Verdict, alpha: float) -> str:
    """A hint where it was the number of tests that decided."""
    bites = verdict.p_value <= alpha < verdict.p_adjusted
    return f" after correction for {verdict.n_family} tests" if bites else ""


COVERAGE = "coverage.json"
FEW = 50
"""Clusters up to which the simulated coverage stands beside a verdict."""


@lru_cache(maxsize=1)
def _simulated() -> Mapping[str, Any]:
    text = Path(__file__).with_name(COVERAGE).read_text(encoding="utf-8")
    found: Mapping[str, Any] = json.loads(text)
    return found


def simulated_coverage(n_clusters: int, of: str = "change") -> tuple[float, float] | None:
    """What 95 % intervals cover at a number of clusters, by simulation.

    Of two simulated numbers of clusters around it the one that covers less counts.

    `of` is ``change`` of Dice or ``refusal`` rate. Percent in the worst and in the best design;
    None outside of what was simulated.

    Example:
        >>> simulated_coverage(24), simulated_coverage(24, "refusal")
        ((83.6, 95.8), (94.5, 97.1))
    """
    least = []
    for design, figures in _simulated()[of].items():
        sizes = sorted(map(int, figures))
        below = [n for n in sizes if n <= n_clusters][-1:]
        above = [n for n in sizes if n >= n_clusters][:1]
        if not below or not above:
            return None
        if not design.startswith(("0 %", "100 %")):  # which every interval covers by nature
            least.append(min(figures[str(n)] for n in (*below, *above)))
    return min(least), max(least)


def coverage_note(n_clusters: int) -> str:
    """What must be known beside verdicts that rest on few clusters; empty where they are many."""
    if not 0 < n_clusters <= FEW:
        return ""
    change, refusal = (simulated_coverage(n_clusters, of) for of in ("change", "refusal"))
    if change is None:
        return (
            f"{n_clusters} clusters are fewer than were simulated: 95 % intervals may cover far "
            "less (reports/statistics.md)."
        )
    shares = f"{change[0]:g} to {change[1]:g} % (changes of Dice"
    shares += f"; refusal rates {refusal[0]:g} to {refusal[1]:g} %)" if refusal else ")"
    return (
        f"{n_clusters} clusters are few: in simulated studies 95 % intervals held the truth in "
        f"{shares}, least where whole clusters lose their mask (reports/statistics.md)."
    )


def blocked_because(
    reason: str = "",
    *,
    n_clusters: int | None = None,
    needed: int = 0,
    empty_share: float | None = None,
    named: bool = False,
    defined: bool = True,
) -> str:
    """Why no verdict is allowed, as a sentence; empty where one is.

    `named`: the clusters are those with a named target; `defined`: the figure has a standard error.
    """
    if reason:
        return f"No verdict: {reason}."
    if n_clusters is not None and n_clusters < needed:
        kind = "clusters with a named target" if named else "clusters"
        return f"No verdict: {n_clusters} {kind}, and {needed} are needed."
    if empty_share is not None and empty_share > MOST_EMPTY:
        return (
            f"No verdict: the mask is empty for {100 * empty_share:.0f} % of the original prompts, "
            f"and at most {100 * MOST_EMPTY:.0f} % are allowed."
        )
    return "" if defined else "No verdict: the figure has no standard error."
