"""Checks of a run against a baseline: shown not to be worse, or failed.

Original Dice is always compared, as a share of the baseline's: a model that got worse looks
steadier. Of probes the relative change is compared, in points of the own original Dice, and where a
changed prompt names another target the Dice gained with it.

Conventions: clusters are paired by name, and resampled together. With two runs of one plan a case
counts where both runs have it; otherwise sums over clusters are compared, and the error of random
words is added, which takes at least 10 of them. Non-inferiority holds and fails as a *minimum* does
(`harness.stats.verdicts`), on 95 % limits; Holm's correction is within (dataset, rule).
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from harness.gate.absolute import Tested, decide, place_of, smallest_of, with_figure
from harness.gate.audited import Audited
from harness.gate.baseline import Baseline, Drift
from harness.gate.checks import Check, Place, Rule, State
from harness.records import Meaning
from harness.stats.bootstrap import Draws, Ratios, cluster_draws, ratio_inference
from harness.stats.columns import why_too_low
from harness.stats.comparison.contrast import difference_inference
from harness.stats.inference import (
    PIVOT_LEVELS,
    Estimate,
    Floats,
    deciding_test,
    estimate_of,
)
from harness.stats.intervals import MINIMUM_WORDS
from harness.stats.relative import SUM_KEYS, matched_sums
from harness.stats.verdicts import blocked_because, short, with_limits
from harness.suite.expectations import Figure
from harness.suite.gate_rules import Gate
from harness.suite.schema import Statistics

Key = tuple[str | None, ...]


_COUNTS: Mapping[Figure, str] = {"named_gain": "n_named", "refusal_rate": "n_refused"}
"""Samples behind each figure."""


@dataclass(frozen=True, slots=True)
class Compared:
    """One figure of both models over the clusters that both have.

    `new` and `old` hold sums, a row a cluster in the same order; `new_size` and `old_size` count
    all clusters of each. `word_error` is of words that were drawn anew, percent; NaN where they are
    too few to know.
    """

    cell: Mapping[str, Any]
    of: Figure
    new: pl.DataFrame
    old: pl.DataFrame
    word_error: float
    new_size: int
    old_size: int

    @property
    def n_lost(self) -> int:
        """Clusters that only one of the two has."""
        return self.new_size + self.old_size - 2 * self.new.height

    @property
    def clusters(self) -> tuple[str, ...]:
        """Names, in order."""
        return tuple(self.new["cluster"])


class Comparisons(NamedTuple):
    """Checks against a baseline, and the most clusters that one of them had to leave out."""

    checks: list[Check]
    n_lost: int


def comparisons(run: Audited, baseline: Baseline, drift: Drift) -> Comparisons:
    """Every comparison that the suite asks for; `drift` says how the two plans differ."""
    settings, gate = run.suite.statistics, run.suite.gate
    compared = list(_compared(run, baseline, drift, gate))
    tests = [_tested(one, settings=settings, gate=gate) for one in compared]
    checks = decide(tests, sentence=lambda one, check: _sentence(one, check, gate))
    n_lost = max((one.n_lost for one in compared), default=0)
    return Comparisons([_able(check, gate) for check in checks], n_lost)


def pairing(drift: Drift, *, by_case: bool) -> str:
    """How the two were paired, in a sentence."""
    if by_case:
        return "paired case by case: both ran the same plan"
    if drift.kind == "cases":
        return "paired by cluster: both ran the same plan, and the baseline's file holds sums"
    if drift.kind == "draw":
        return "paired by cluster: the plans are two draws of one design with different seeds"
    return (
        "paired by cluster although prompts drifted (--allow-drift): a difference may be one of "
        f"the prompts ({'; '.join(drift.reasons)})"
    )


def is_by_case(baseline: Baseline, drift: Drift) -> bool:
    """Whether the two can be paired case by case."""
    return baseline.run is not None and drift.kind == "cases"


def _compared(run: Audited, baseline: Baseline, drift: Drift, gate: Gate) -> Iterator[Compared]:
    new, old = run.sums, baseline.sums
    if baseline.run is not None and is_by_case(baseline, drift):
        new, old = matched_sums(run.estimates.pairs, baseline.run.estimates.pairs)
    before, now = _by_key(old), _by_key(new)
    cells: dict[Key, Mapping[str, Any]] = {
        tuple(cell[k] for k in SUM_KEYS): cell for cell in baseline.cells.iter_rows(named=True)
    }
    for cell in run.cells.sort(SUM_KEYS, nulls_last=False).iter_rows(named=True):
        key = tuple(cell[k] for k in SUM_KEYS)
        if key not in cells:
            continue  # the drift names what only one of the two has
        ours, theirs = now.get(key, new.clear()), before.get(key, old.clear())
        n_named = float(ours["n_named"].sum()) + float(theirs["n_named"].sum())
        n_refused = float(ours["n_refused"].sum()) + float(theirs["n_refused"].sum())
        for figure in _figures(cell, gate, n_named=n_named, n_refused=n_refused):
            word = 0.0
            if drift.kind != "cases" and figure == "relative_change":
                word = _of_words(cell, cells[key])
            yield _pair(cell, figure, ours, theirs, word)


def _of_words(new: Mapping[str, Any], old: Mapping[str, Any]) -> float:
    """The error of a difference that comes of two draws of words."""
    if any(0 < cell["n_words"] < MINIMUM_WORDS for cell in (new, old)):
        return math.nan
    return math.hypot(new["word_error"], old["word_error"])


def _by_key(sums: pl.DataFrame) -> dict[Key, pl.DataFrame]:
    return {key: rows for key, rows in sums.group_by(SUM_KEYS, maintain_order=True)}


def _figures(
    cell: Mapping[str, Any], gate: Gate, *, n_named: float, n_refused: float
) -> Iterator[Figure]:
    """Which figures of a row may not get worse."""
    rule, meaning = gate.non_inferiority, cell["meaning"]
    covered = rule.covers(cell["dataset"], cell["probe"], cell["attribute"])
    if n_refused > 0 and covered:
        yield "refusal_rate"
    if meaning == Meaning.ORIGINAL:
        yield "dice"
    elif covered:
        if meaning == Meaning.CHANGED and n_named > 0:
            yield "named_gain"
        if meaning in rule.meanings:
            yield "relative_change"


def _pair(
    cell: Mapping[str, Any], of: Figure, new: pl.DataFrame, old: pl.DataFrame, word_error: float
) -> Compared:
    """The clusters of both that hold a sample, in the order of their names."""
    count = _COUNTS.get(of, "n")
    ours, theirs = (rows.filter(pl.col(count) > 0).sort("cluster") for rows in (new, old))
    both = set(ours["cluster"]) & set(theirs["cluster"])
    kept = pl.col("cluster").is_in(sorted(both))
    sizes = ours.height, theirs.height
    return Compared(cell, of, ours.filter(kept), theirs.filter(kept), word_error, *sizes)


def _tested(one: Compared, *, settings: Statistics, gate: Gate) -> Tested:
    place = place_of(one.cell)
    rule: Rule = "original_dice" if one.of == "dice" else "non_inferiority"
    unit = _UNITS.get(one.of, one.of)
    margin = _margin(one.of, gate)
    asked = _asked(one.of, margin)
    n_clusters = len(one.clusters)
    lacking = _lacking(one) or _too_few(one, settings)
    if lacking:
        state, reason = lacking
        return _undecided(Check(rule, place, asked, state, reason, n_clusters=n_clusters), unit)
    draws = _draws(one, settings)
    blocked = _why_too_low(one, draws, settings)
    if blocked:
        state, reason = blocked
        return _undecided(Check(rule, place, asked, state, reason, n_clusters=n_clusters), unit)
    found = _with_words(_difference(one, draws), one.word_error)
    smallest = smallest_of(found, n_clusters=n_clusters, n_words=one.cell["n_words"] or 2)
    check = Check(rule, place, asked, "open", "", n_clusters=n_clusters)
    check = with_figure(check, found, unit, smallest)
    return Tested(check, unit, found, deciding_test(found, (-margin, math.inf), "minimum"))


_UNITS: Mapping[Figure, Figure] = {"dice": "relative_change", "refusal_rate": "points"}
"""The unit in which two models' figures differ, by a figure that has it."""


def _margin(of: Figure, gate: Gate) -> float:
    rule = gate.non_inferiority
    return rule.refusal_margin if of == "refusal_rate" else rule.margin


def _lacking(one: Compared) -> tuple[State, str] | None:
    """What becomes of a figure that one of the two does not have at all."""
    if one.of == "refusal_rate" and one.old_size == 0:
        return "void", "Nothing to compare with: the baseline says nothing of refusal here."
    if one.old_size == 0:
        return "void", "Nothing to compare with: the baseline has no Dice here."
    if one.new_size == 0:
        return "open", "Not shown: this run has no Dice here, and the baseline has."
    return None


def _too_few(one: Compared, settings: Statistics) -> tuple[State, str] | None:
    """Why a comparison cannot tell: clusters or words are too few."""
    blocked = blocked_because(n_clusters=len(one.clusters), needed=settings.minimum_clusters)
    if blocked:
        repair = "Run more images, or leave the place out of gate.non_inferiority."
        return "unable", f"{blocked} {repair}"
    if math.isnan(one.word_error):
        return "unable", (
            f"No verdict: the words were drawn anew, and fewer than {MINIMUM_WORDS} do not say how "
            "much words vary. Run the baseline's seed, or more words."
        )
    return None


def _asked(of: Figure, margin: float) -> str:
    if of == "dice":
        return f"original Dice at most {short(margin, 'relative_change')} below the baseline's"
    if of == "refusal_rate":
        return f"a refusal rate at most {short(margin, 'points')} below the baseline's"
    if of == "named_gain":
        return f"the named target followed at most {short(margin, of)} less than by the baseline"
    return f"a change of Dice at most {short(margin, of)} worse than the baseline's"


def _undecided(check: Check, of: Figure) -> Tested:
    nan = math.nan
    nothing = Estimate(nan, nan, nan, nan, nan, nan, nan, np.empty(0), 0)
    return Tested(check, of, nothing, None)


def _draws(one: Compared, settings: Statistics) -> Draws:
    dataset = f"{one.cell['dataset']}/{one.cell['split']}"
    return cluster_draws(dataset, one.clusters, count=settings.draws, seed=settings.seed)


def _why_too_low(one: Compared, draws: Draws, settings: Statistics) -> tuple[State, str] | None:
    """What becomes of a figure whose original Dice may be next to nothing."""
    if one.of in _COUNTS:
        return None
    column = "dice" if one.of == "dice" else "reference"
    dice = [_column(rows, column) for rows in (one.new, one.old)]
    counts = [_column(rows, "n") for rows in (one.new, one.old)]
    found = ratio_inference(np.hstack(dice), np.hstack(counts), draws=draws).intervals
    new, old = why_too_low(found, slice(None), settings.dice_floor)
    if old:
        return "void", f"Nothing to compare with: in the baseline's run, {old}."
    if new and one.of != "dice":
        return "open", f"Not shown: in this run, {new}; in the baseline's it was not."
    return None


def _difference(one: Compared, draws: Draws) -> Estimate:
    """The figure of the new model minus that of the old one, in percent or points."""
    if one.of == "dice":
        # Clusters may hold other numbers of samples in the two: compare means, as sums per n.
        scale = _column(one.new, "n").sum() / _column(one.old, "n").sum()
        new, old = _column(one.new, "dice"), _column(one.old, "dice") * scale
        return estimate_of(ratio_inference(new, old, draws=draws), 0).scaled(100, offset=1)
    if one.of == "named_gain":
        sides = [
            Ratios(_column(s, "dice_named") - _column(s, "own_named"), _column(s, "n_named"))
            for s in (one.new, one.old)
        ]
    elif one.of == "refusal_rate":
        sides = [Ratios(_column(s, "refused"), _column(s, "n_refused")) for s in (one.new, one.old)]
    else:
        sides = [Ratios(_column(s, "dice"), _column(s, "reference")) for s in (one.new, one.old)]
    return estimate_of(difference_inference(*sides, draws=draws), 0).scaled(100)


def _column(rows: pl.DataFrame, name: str) -> Floats:
    return rows[name].to_numpy().reshape(-1, 1)


def _with_words(found: Estimate, word_error: float) -> Estimate:
    """The words' own error beside the clusters'; limits move with the whole."""
    if word_error == 0:
        return found
    wider = replace(found, error=math.hypot(found.error, word_error), word_error=word_error)
    if found.error == 0:
        # Clusters that do not vary have no pivot of their own.
        from scipy.special import ndtri

        wider = replace(wider, pivot=np.asarray(ndtri(PIVOT_LEVELS)))
    low, high, low90, high90 = map(wider.limit, (0.975, 0.025, 0.95, 0.05))
    return replace(wider, low=low, high=high, low90=low90, high90=high90)


def _able(check: Check, gate: Gate) -> Check:
    """An open check is incomplete where a regression that matters could not be seen."""
    place: Place = check.place
    limit = gate.largest_unseen(place.dataset, place.probe, place.attribute or None)
    if check.state != "open" or not check.smallest_effect > limit:
        return check
    unit = " points" if check.unit == "points" else " %"
    note = (
        f" A loss of {check.smallest_effect:.1f}{unit} is the smallest that 4 of 5 studies like "
        f"this one would show, and {limit:g}{unit} must be seen (max_drop): more clusters are "
        "needed."
    )
    return replace(check, state="unable", reason=check.reason + note)


def _sentence(one: Tested, check: Check, gate: Gate) -> str:
    figure = with_limits(one.found.value, one.found.low, one.found.high, one.of)
    margin = short(_margin("refusal_rate" if one.of == "points" else one.of, gate), one.of)
    starts: Mapping[Figure, str] = {
        "relative_change": "The change of Dice differs from the baseline's by",
        "named_gain": "Dice gained with the named target differs from the baseline's by",
        "points": "The refusal rate differs from the baseline's by",
    }
    start = starts[one.of]
    if check.rule == "original_dice":
        start = "Dice of the original prompts differs from the baseline's by"
    ends: Mapping[State, str] = {
        "holds": f"shown to be at most {margin} worse",
        "fails": f"shown to be more than {margin} worse",
        "open": f"not shown to be at most {margin} worse",
    }
    return f"{start} {figure}: {ends[check.state]}."
