"""Checks of one run against its suite's own rules.

Conventions: each rule is decided by the one test that decides expectations (`harness.stats`), on
95 % intervals of the cluster bootstrap. Holm's correction is within (dataset, rule); that of
expectations is the verdicts' own. A rule that selects nothing is incomplete: an open gate
must not come of a name that does not occur.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from harness.gate.audited import Audited
from harness.gate.checks import Check, Place, Rule, State
from harness.records import Meaning
from harness.stats.inference import Adjusted, Decision, Estimate, adjust_families, deciding_test
from harness.stats.judge import decide_verdicts, figure_of, why_blocked
from harness.stats.language import LanguageVerdict
from harness.stats.listening import language_verdicts
from harness.stats.power import degrees_of_freedom, smallest_effect
from harness.stats.refusal import asks_absent
from harness.stats.verdicts import (
    ALPHA,
    Verdict,
    blocked_because,
    expectation_text,
    short,
    with_limits,
)
from harness.suite.expectations import UNITS, Figure
from harness.suite.gate_rules import among

Row = Mapping[str, Any]

_STATES: Mapping[str, State] = {"holds": "holds", "fails": "fails", "inconclusive": "open"}
_STARTS: Mapping[Rule, str] = {
    "max_drop": "Dice changes by",
    "min_dice": "Mean Dice is",
    "must_refuse": "The refusal rate is",
}
_HEARD: Mapping[str, State] = {"heard": "holds", "unheard": "fails", "unclear": "open"}


@dataclass(frozen=True, slots=True)
class Tested:
    """A rule at one place with its figure, before its family is known.

    The state of `check` is that of a rule that may not be decided; `decision` is None where none
    may.
    """

    check: Check
    of: Figure
    found: Estimate
    decision: Decision | None


def absolute_checks(run: Audited) -> list[Check]:
    """Every rule of the suite that needs no baseline, at every place it speaks of."""
    figures = run.estimates
    verdicts = decide_verdicts(figures.named, figures.solved, suite=run.suite)
    language = language_verdicts(
        figures.named,
        figures.solved,
        verdicts,
        units=figures.sums.units,
        settings=run.suite.statistics,
        by_seed=figures.by_seed,
    )
    return [
        *completeness(run),
        *(_of_verdict(v) for v in verdicts if v.binding),
        *decide(list(_drops(run)), sentence=_sentence),
        *decide(list(_dices(run)), sentence=_sentence),
        *decide(list(_refusals(run)), sentence=_sentence),
        *_listening(run, language),
        *_unselected(run, language),
    ]


def completeness(run: Audited) -> Iterator[Check]:
    """Whether the run holds its plan, and its plan the suite."""
    asked = "every case of the whole suite"
    reason = f"{run.n_done} of {run.n_planned} cases have a score"
    whole = run.n_done == run.n_planned and run.limit is None
    if run.limit is not None:
        reason += f"; the run was cut to {run.limit} images per dataset (--limit)"
    yield Check("completeness", Place(), asked, "holds" if whole else "unable", f"{reason}.")


def place_of(row: Row) -> Place:
    """The dataset, probe and attribute of a row of the summary."""
    keys = ("dataset", "split", "prompts", "prompt_type", "probe", "attribute")
    return Place(**{key: row[key] or "" for key in keys})


def with_figure(check: Check, found: Estimate, of: Figure, smallest: float) -> Check:
    """A check with its figure and limits."""
    return replace(
        check,
        estimate=found.value,
        low=found.low,
        high=found.high,
        unit=UNITS[of],
        smallest_effect=smallest,
    )


def smallest_of(found: Estimate, *, n_clusters: int, n_words: int) -> float:
    """The true change that data like these would show in 4 of 5 studies."""
    freedom = degrees_of_freedom(
        found.error, found.word_error, n_clusters=n_clusters, n_words=n_words
    )
    return float(smallest_effect(found.error, freedom))


def decide(tests: Sequence[Tested], *, sentence: Callable[[Tested, Check], str]) -> list[Check]:
    """The checks of tests, corrected by Holm's method within (rule, dataset).

    `sentence` says a test's outcome once its check has p-value and state.
    """
    keyed = [
        ((t.check.rule, t.check.place.dataset), t.decision.p_value if t.decision else math.nan)
        for t in tests
    ]
    adjusted = adjust_families(keyed, "holm")
    return [_check(one, own, sentence) for one, own in zip(tests, adjusted, strict=True)]


def _check(one: Tested, own: Adjusted, sentence: Callable[[Tested, Check], str]) -> Check:
    if one.decision is None:
        return one.check
    check = replace(
        one.check,
        state=one.decision.outcome if own.p_value <= ALPHA else "open",
        p_value=one.decision.p_value,
        p_adjusted=own.p_value,
        n_family=len(own.family),
    )
    return replace(check, reason=sentence(one, check) + _of_draws(one, check))


def _of_draws(one: Tested, check: Check) -> str:
    """A hint where nothing but the number of draws keeps a p-value from being smaller."""
    if check.state != "open" or check.p_value > 2.001 * one.found.least_p:
        return ""
    return (
        f" All draws agree, but {one.found.n_draws:.0f} of them are too few for {check.n_family} "
        "tests: raise statistics.draws."
    )


def _of_verdict(verdict: Verdict) -> Check:
    return Check(
        "expectation",
        place_of(verdict.record()),
        expectation_text(verdict),
        _STATES[verdict.verdict],
        verdict.reason,
        estimate=verdict.estimate,
        low=verdict.low,
        high=verdict.high,
        unit=UNITS[verdict.of],
        p_value=verdict.p_value,
        p_adjusted=verdict.p_adjusted,
        n_family=verdict.n_family,
        smallest_effect=verdict.smallest_effect,
        n_clusters=verdict.n_clusters,
    )


def _drops(run: Audited) -> Iterator[Tested]:
    changed = pl.col("probe") != "original"
    for rule in run.suite.gate.max_drop:
        for row in _rows(run).filter(changed).iter_rows(named=True):
            if rule.covers(row["dataset"], row["probe"], row["attribute"], row["meaning"]):
                found = figure_of(run.estimates.solved, row["cell"], "relative_change")
                blocked = why_blocked(row, "relative_change", found, run.suite.statistics)
                asked = f"a drop of at most {short(rule.at_most, 'relative_change')}"
                bare = _bare("max_drop", asked, row, blocked)
                yield _tested(bare, row, found, "relative_change", at_least=-rule.at_most)


def _dices(run: Audited) -> Iterator[Tested]:
    needed = run.suite.statistics.minimum_clusters
    originals = _rows(run).filter(pl.col("probe") == "original")
    for rule in run.suite.gate.min_dice:
        for row in originals.iter_rows(named=True):
            if among(row["dataset"], rule.datasets):
                found = figure_of(run.estimates.solved, row["cell"], "dice")
                n_clusters, reason = row["n_clusters"], row["reason"] or ""
                blocked = blocked_because(reason, n_clusters=n_clusters, needed=needed)
                asked = f"Dice of at least {short(rule.at_least, 'dice')}"
                bare = _bare("min_dice", asked, row, blocked)
                yield _tested(bare, row, found, "dice", at_least=rule.at_least)


def _refusals(run: Audited) -> Iterator[Tested]:
    asked = [row for row in _rows(run).iter_rows(named=True) if row["n_samples_refusal"]]
    for rule in run.suite.gate.must_refuse:
        for row in filter(asks_absent, asked):
            if among(row["dataset"], rule.datasets) and among(row["probe"], rule.probes):
                found = figure_of(run.estimates.solved, row["cell"], "refusal_rate")
                blocked = why_blocked(row, "refusal_rate", found, run.suite.statistics)
                asks = f"a refusal rate of at least {short(rule.at_least, 'refusal_rate')}"
                bare = _bare("must_refuse", asks, row, blocked)
                bare = replace(bare, n_clusters=row["n_clusters_refusal"] or 0)
                yield _tested(bare, row, found, "refusal_rate", at_least=rule.at_least)


def _rows(run: Audited) -> pl.DataFrame:
    return run.estimates.named.filter(pl.col("n_cases") > 0)


def _bare(rule: Rule, asked: str, row: Row, blocked: str) -> Check:
    """A check without a figure; its reason is what allows no test, if anything does not."""
    n_clusters = row["n_clusters"] or 0
    return Check(rule, place_of(row), asked, "open", blocked, n_clusters=n_clusters)


def _tested(bare: Check, row: Row, found: Estimate, of: Figure, *, at_least: float) -> Tested:
    smallest = smallest_of(found, n_clusters=bare.n_clusters, n_words=row["n_words"] or 0)
    check = with_figure(bare, found, of, smallest)
    accepted = (at_least, float("inf"))
    decision = None if bare.reason else deciding_test(found, accepted, "minimum")
    return Tested(check, of, found, decision)


def _sentence(one: Tested, check: Check) -> str:
    figure = with_limits(one.found.value, one.found.low, one.found.high, one.of)
    start = _STARTS[check.rule]
    ends: Mapping[State, str] = {
        "holds": f"shown to be {check.asked}",
        "fails": f"shown not to be {check.asked}",
        "open": f"neither shown to be {check.asked} nor to be worse",
    }
    return f"{start} {figure}: {ends[check.state]}."


def _listening(run: Audited, language: Sequence[LanguageVerdict]) -> Iterator[Check]:
    """One check an attribute and (dataset, prompts, prompt type) whose evidence has it."""
    for rule in run.suite.gate.must_listen:
        for verdict in language:
            for attribute in rule.attributes:
                evidence = [e for e in verdict.evidence if e.attribute == attribute]
                if evidence and among(verdict.dataset, rule.datasets):
                    yield _heard(verdict, attribute)


def _heard(verdict: LanguageVerdict, attribute: str) -> Check:
    lists = {"heard": verdict.heard, "unheard": verdict.unheard, "unclear": verdict.unclear}
    state = next(name for name, names in lists.items() if attribute in names)
    own = [e for e in verdict.evidence if e.attribute == attribute]
    telling = [e for e in own if e.state == state] or own
    best = min(telling, key=lambda e: (bool(e.blocked), e.p_heard if e.p_heard == e.p_heard else 2))
    place = Place(
        dataset=verdict.dataset,
        prompts=verdict.prompts,
        prompt_type=verdict.prompt_type,
        attribute=attribute,
    )
    return Check(
        "must_listen",
        place,
        "the mask follows the word",
        _HEARD[state],
        f"{attribute} is {state}: {best.probe} on {best.split}: {best.reason}",
        p_adjusted=best.p_heard,
        n_clusters=best.n_clusters,
    )


def _unselected(run: Audited, language: Sequence[LanguageVerdict]) -> Iterator[Check]:
    """A rule that speaks of nothing in the run checks nothing."""
    gate, rows = run.suite.gate, _rows(run)
    changed = rows.filter(pl.col("meaning") != Meaning.ORIGINAL)
    keys = [
        (r["dataset"], r["probe"], r["attribute"], r["meaning"])
        for r in changed.iter_rows(named=True)
    ]
    heard = {(v.dataset, e.attribute) for v in language for e in v.evidence}
    missing = [
        f"max_drop[{n}]"
        for n, drop in enumerate(gate.max_drop)
        if not any(drop.covers(*key) for key in keys)
    ]
    missing += [
        f"min_dice[{n}]"
        for n, least in enumerate(gate.min_dice)
        if not any(among(dataset, least.datasets) for dataset in rows["dataset"])
    ]
    missing += [
        f"must_listen[{n}] {attribute}"
        for n, must in enumerate(gate.must_listen)
        for attribute in must.attributes
        if not any(a == attribute and among(d, must.datasets) for d, a in heard)
    ]
    absent = [r for r in rows.iter_rows(named=True) if r["n_samples_refusal"] and asks_absent(r)]
    missing += [
        f"must_refuse[{n}]"
        for n, must in enumerate(gate.must_refuse)
        if not any(
            among(r["dataset"], must.datasets) and among(r["probe"], must.probes) for r in absent
        )
    ]
    for name in missing:
        yield Check(
            "completeness",
            Place(),
            f"gate.{name} checks something",
            "unable",
            f"The rule gate.{name} selects nothing in this run: no such probe, dataset or "
            "attribute was evaluated.",
        )
