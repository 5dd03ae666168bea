"""Every verdict, judged again on either side of where it is said to flip, is another there."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from harness.stats.estimate import estimate
from harness.stats.flips import Flip, flip_from, holm_levels, holm_reach, in_disagreements
from harness.stats.inference import adjust
from harness.stats.judge import decide_verdicts
from harness.stats.language import from_record
from harness.stats.listening import language_verdicts
from harness.stats.verdicts import ALPHA
from harness.suite.schema import Statistics, Suite
from tests.stats.test_listening import Scenes
from tests.stats.test_refusal import judged

NEAR = 1e-6


def suite_of(margins=None, expect=None, correction="holm"):
    """Of two probes that keep the meaning and may have a margin of their own."""
    probes = [
        {"name": name, "perturbation": name}
        | ({"expect": [{"kind": "invariance", "margin": expect[name]}]} if expect else {})
        for name in ("synonym", "typo")
    ]
    statistics = {"draws": 300, "correction": correction, "margins": margins or {}}
    return Suite.model_validate(
        {"name": "s", "title": "s", "probes": probes, "statistics": statistics}
    )


def judge(found, suite):
    verdicts = decide_verdicts(found.named, found.solved, suite=suite)
    (verdict,) = language_verdicts(found.named, found.solved, verdicts, settings=suite.statistics)
    return verdict, verdicts


def curves_of(verdict):
    return {curve.of: curve for curve in verdict.flips}


def edges(curve):
    """Margins beside both ends, those that are none left out."""
    ends = [end for end in (curve.low_to, curve.high_from) if 0 < end < math.inf]
    return [margin for end in ends for margin in (end * (1 - NEAR), end * (1 + NEAR))]


def said(verdict):
    """What a verdict says of each curve."""
    states = {name: "heard" for name in verdict.heard}
    states |= {name: "unheard" for name in verdict.unheard}
    states |= {name: "cannot tell" for name in verdict.unclear}
    return states | {"language": verdict.language, "steadiness": verdict.steadiness}


share = st.floats(0, 1).map(lambda x: round(1 - x**3, 3))


@st.composite
def scenes(draw):
    """Attributes that change, with named targets or without, and wording that does not."""
    made = Scenes(draw(st.integers(20, 28)), seed=draw(st.integers(0, 99)))
    is_named = draw(st.booleans())
    for name in draw(st.lists(st.sampled_from(["antonym", "swap"]), min_size=1, unique=True)):
        for attribute in draw(
            st.lists(st.sampled_from("abc"), min_size=1, max_size=2, unique=True)
        ):
            follows = draw(share) if is_named else None
            made.probe(name, attribute, stays=draw(share), follows=follows, agree=draw(share))
    for name in draw(st.sampled_from([["typo"], ["typo", "synonym"]])):
        made.probe(name, None, meaning="preserved", stays=draw(st.floats(0.85, 1)))
    return made


def estimated(made, suite):
    arguments = made.arguments()
    return estimate(arguments["plan"], arguments["scores"], models=arguments["models"], suite=suite)


@settings(max_examples=6)
@given(scenes())
def test_listening_flips_where_it_says(made):
    """Of the verdict and of every attribute: judged again, with the margin of all of them moved."""
    found = estimated(made, suite_of())
    verdict, _ = judge(found, suite_of())
    curves = curves_of(verdict)
    assert set(said(verdict)) >= set(curves) - {"refusal"}
    for name, curve in curves.items():
        assert curve.at(curve.judged_at) == said(verdict)[name]
        for margin in edges(curve) if name != "steadiness" else ():
            again, _ = judge(found, suite_of({"changed": margin}))
            assert said(again)[name] == curve.at(margin), (name, margin, curve)


@settings(max_examples=6)
@given(scenes(), st.sampled_from(["holm", "none", "benjamini_hochberg"]))
def test_expectations_and_steadiness_flip_where_they_say(made, correction):
    """The margin of one probe is moved, which is what its edges speak of."""
    suite = suite_of(correction=correction)
    found = estimated(made, suite)
    verdict, verdicts = judge(found, suite)
    kept = {v.probe: v for v in verdicts if v.meaning == "preserved"}
    margins = dict.fromkeys(("synonym", "typo"), suite.statistics.margins.preserved)
    curve = curves_of(verdict)["steadiness"]
    for name, one in kept.items():
        for margin in edges(Flip("", "percent", 3.0, "", one.fails_at, "", one.holds_at)):
            expect = margins | {name: margin}
            again, others = judge(found, suite_of(expect=expect, correction=correction))
            outcome = next(v.verdict for v in others if v.probe == name)
            is_beyond = "holds" if margin >= one.holds_at else "inconclusive"
            assert outcome == ("fails" if margin <= one.fails_at else is_beyond)
            if len(kept) == 1:
                assert again.steadiness == curve.at(margin)
    assert curve.low_to == max(v.fails_at for v in kept.values())
    assert curve.high_from == max(v.holds_at for v in kept.values())


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 1)), min_size=1, max_size=4),
       st.sampled_from([0.0, 0.1, 0.5]))  # fmt: skip
def test_refusal_flips_where_it_says(probes, missed):
    events = {f"p{k}": np.arange(40 - 25 * few) < n for k, (n, few) in enumerate(probes)}
    found = judged(events, missed=missed)
    if found.flip is None:
        assert found.refusal == "cannot tell"
        return
    assert found.flip.at(0.8) == found.refusal
    for bound in edges(found.flip):
        again = judged(events, missed=missed, settings=Statistics(least_refusal=min(bound, 1.0)))
        assert again.refusal == found.flip.at(bound)


@given(st.lists(st.lists(st.floats(0, 10), min_size=4, max_size=4), min_size=4, max_size=4),
       st.floats(0, 10))  # fmt: skip
def test_holms_reach_is_his_procedure(steps, margin):
    """Each test's p-value rises with the margin, past one level after the other."""
    reach = np.sort(np.array(steps), axis=1)
    assume(not (np.abs(reach - margin) < 1e-9).any())
    levels = holm_levels(4)
    p_values = [min((level for level, end in zip(levels, own, strict=True) if margin < end),
                    default=1.0) for own in reach]  # fmt: skip
    rejected = [p <= ALPHA + 1e-12 for p in adjust(p_values, "holm")]
    assert (margin < holm_reach(reach)).tolist() == rejected


def test_a_curve_survives_its_file_with_ends_that_are_none():
    verdict = Scenes().probe("antonym", "size", stays=0.5).verdict()
    assert [curve.of for curve in verdict.flips] == ["language", "size"]
    assert verdict.flips[0].low_to == math.inf  # the mask has moved, whatever the margin
    assert verdict.record()["flips"][0]["low_to"] is None
    assert from_record(verdict.record()).flips == verdict.flips
    old = {k: v for k, v in verdict.record().items() if k != "flips"}
    assert from_record(old).flips == ()


def test_what_allows_no_verdict_has_no_curve():
    few = Scenes(12).probe("antonym", "size", stays=0.5).probe("typo", None, meaning="preserved",
                                                               stays=0.9)  # fmt: skip
    assert few.verdict().flips == ()
    assert judged({"absent": np.ones(19)}, clusters=19).flip is None


@pytest.mark.parametrize(
    ("curve", "text"),
    [
        (Flip("size", "percent", 2, "heard", 88.31, "unheard", 91.0), "to 88"),
        (Flip("size", "percent", 2, "heard", 0.0, "unheard", 1.24), "from 1.2"),
        (Flip("size", "percent", 2, "heard", 0.0, "unheard", 9.96), "open to 10"),
        (Flip("size", "percent", 2, "heard", math.inf, "unheard", math.inf), "always"),
        (Flip("size", "percent", 2, "heard", 0.4, "unheard", math.inf), "open from 0.4"),
        (Flip("size", "percent", 2, "heard", 0.0, "unheard", math.inf), "open"),
        (Flip("steadiness", "percent", 3, "brittle", 1.66, "steady", 4.1), "open, 1.7 to 4.1"),
        (Flip("refusal", "fraction", 0.8, "refuses", 0.9, "hallucinates", math.inf), "to 90"),
    ],
)
def test_the_next_flip_is_said_shortly(curve, text):
    assert curve.text() == text
    assert flip_from({k: getattr(curve, k) for k in curve.__slots__}) == curve


def test_a_margin_in_disagreements_of_annotators():
    """The words of `harness/stats/README.md`: 5 % where annotators reach 0.917 is 0.6 of it."""
    assert in_disagreements(5, 0.917) == pytest.approx(0.6024, abs=1e-4)
    assert in_disagreements(2, 0.0) == 0.02
    assert in_disagreements(2, 1.0) == math.inf
