"""Classes, ranks and means of rows."""

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.leaderboard.standing import (
    CLASSES,
    NOTHING,
    Limits,
    Spread,
    classify,
    mean_limits,
    ranks,
    spread_of_changes,
)
from harness.stats.language import LanguageVerdict


def verdict(language, steadiness, dataset="a", **lists):
    return LanguageVerdict(
        model_id="m@1", model="m", dataset=dataset, prompts="released", prompt_type="p6",
        language=language, steadiness=steadiness, reason="", named_targets=True, **lists,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("said", "label"),
    [
        ([("listening", "steady")], "listening and steady"),
        ([("listening", "brittle")], "listening and brittle"),
        ([("listening", "cannot tell")], "cannot tell"),
        ([("deaf", "steady")], "unmoved"),
        ([("deaf", "brittle")], "unmoved"),
        ([("unmoved here", "cannot tell")], "unmoved"),
        ([("moved here", "steady")], "cannot tell"),
        ([("cannot tell", "steady")], "cannot tell"),
        ([("deaf", "steady"), ("listening", "steady")], "listening and steady"),
        ([("listening", "steady"), ("deaf", "brittle")], "listening and brittle"),
        ([("listening", "steady"), ("listening", "cannot tell")], "cannot tell"),
        ([("deaf", "steady"), ("cannot tell", "steady")], "cannot tell"),
        ([("deaf", "steady"), ("unmoved here", "steady")], "unmoved"),
        ([], "cannot tell"),
    ],
)
def test_the_class_of_a_model(said, label):
    verdicts = [verdict(*one, dataset=name) for one, name in zip(said, "abc", strict=False)]
    found = classify(verdicts, ["a", "b"])
    assert found.label == label
    assert label in CLASSES


def test_sets_that_do_not_decide_are_not_asked():
    verdicts = [verdict("deaf", "steady"), verdict("listening", "brittle", "b")]
    assert classify(verdicts, ["a"]).label == "unmoved"


def test_what_is_heard_anywhere_is_heard():
    first = verdict("listening", "steady", heard=("size",), unheard=("color", "shape"))
    found = classify([first, verdict("listening", "steady", "b", heard=("color",))], ["a", "b"])
    assert (found.heard, found.unheard) == (("color", "size"), ("shape",))


shares = st.floats(0, 1)
limits = st.tuples(shares, shares, shares).map(lambda v: Limits(*(sorted(v)[i] for i in (1, 0, 2))))


@given(st.lists(limits, min_size=1, max_size=8))
def test_ranks_agree_with_their_definition(rows):
    found = ranks(rows)
    for row, place in zip(rows, found, strict=True):
        above = [other for other in rows if other.low > row.high]
        assert place == len(above) + 1
    assert min(found) == 1


@given(st.lists(limits, min_size=1, max_size=8))
def test_the_interval_of_a_mean_is_no_wider_than_the_widest(parts):
    found = mean_limits(parts)
    assert found.low <= found.estimate <= found.high
    widest = max(p.high - p.low for p in parts)
    assert found.high - found.low <= widest + 1e-9
    assert mean_limits(parts[:1]) == pytest.approx(parts[0])


def test_the_mean_covers_the_truth_as_often_as_its_parts():
    """Three sets of other sizes and spreads, four thousand times: near 95 %."""
    rng = np.random.default_rng(0)
    truths, errors = np.array([0.5, 0.7, 0.9]), np.array([0.01, 0.05, 0.02])
    hits = 0
    for _ in range(4000):
        found = rng.normal(truths, errors)
        parts = [Limits(m, m - 1.96 * e, m + 1.96 * e) for m, e in zip(found, errors, strict=True)]
        mean = mean_limits(parts)
        hits += mean.low <= truths.mean() <= mean.high
    assert 0.94 < hits / 4000 < 0.96


def test_an_undefined_part_leaves_the_mean_undefined():
    found = mean_limits([Limits(0.5, 0.4, 0.6), Limits(math.nan, math.nan, math.nan)])
    assert all(math.isnan(value) for value in found)
    assert math.isnan(mean_limits([]).estimate)


def test_a_spread_leaves_out_what_is_undefined():
    rows = pl.DataFrame({"relative_change_percent": [-10.0, None, math.nan, 4.0]})
    assert spread_of_changes(rows) == Spread(-3.0, -10.0, 4.0, 2)
    assert spread_of_changes(rows[1:3]) == NOTHING
