"""How firm ranks are: against plain definitions, laws, and studies whose answer is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from harness.auditing.subjects import subjects_of
from harness.stats.bootstrap import Ratios, cluster_draws
from harness.stats.comparison.common import ORIGINAL, STEADINESS, Figure
from harness.stats.comparison.compare import compare
from harness.stats.comparison.ranking import (
    DATASET_SCHEMA,
    OVERALL_SCHEMA,
    Resampled,
    firmness,
    kendall_tau,
    rank_1_shares,
    resample,
    share_not_better,
)

few = st.integers(0, 4).map(float)  # so that ties are common
tables = st.tuples(st.integers(1, 12), st.integers(1, 5)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=few)
)


@given(tables)
def test_first_places_agree_with_counting_them(drawn):
    counted = [0.0] * drawn.shape[1]
    for row in drawn.tolist():
        first = [k for k, value in enumerate(row) if value == max(row)]
        for k in first:
            counted[k] += 1 / len(first) / len(drawn)
    np.testing.assert_allclose(rank_1_shares(drawn), counted)
    assert rank_1_shares(drawn).sum() == pytest.approx(1)


@given(tables, st.randoms())
def test_other_names_permute_the_shares(drawn, random):
    order = list(range(drawn.shape[1]))
    random.shuffle(order)
    np.testing.assert_allclose(rank_1_shares(drawn)[order], rank_1_shares(drawn[:, order]))


@given(tables)
def test_a_twin_shares_its_first_places(drawn):
    both = rank_1_shares(np.hstack([drawn, drawn[:, :1]]))
    assert both[0] == both[-1]
    np.testing.assert_allclose(rank_1_shares(drawn[:, [0, 0]]), [0.5, 0.5])


@given(tables)
def test_not_being_better_is_counted_and_its_reverse_is_the_rest(drawn):
    one, other = drawn[:, 0], drawn[:, -1]
    pairs = list(zip(one.tolist(), other.tolist(), strict=True))
    counted = sum(0.5 if a == b else float(a < b) for a, b in pairs) / len(pairs)
    assert share_not_better(one, other) == pytest.approx(counted)
    assert share_not_better(one, other) + share_not_better(other, one) == pytest.approx(1)


def test_resamples_in_which_a_figure_is_undefined_count_for_nobody():
    drawn = np.array([[0.9, 0.8], [np.nan, 0.9], [0.7, 0.8]])
    assert rank_1_shares(drawn).tolist() == [0.5, 0.5]
    assert share_not_better(drawn[:, 0], drawn[:, 1]) == 0.5
    assert np.isnan(rank_1_shares(np.full((2, 2), np.nan))).all()
    assert np.isnan(share_not_better(np.full(2, np.nan), np.ones(2)))


def plain_tau(one, other):
    """Concordant less discordant pairs, over those untied in each."""
    n = len(one)
    pairs = [(i, j) for i in range(n) for j in range(i)]
    signs = [(np.sign(one[i] - one[j]), np.sign(other[i] - other[j])) for i, j in pairs]
    below = (sum(a != 0 for a, _ in signs) * sum(b != 0 for _, b in signs)) ** 0.5
    return sum(a * b for a, b in signs) / below if below else float("nan")


rankings = st.integers(2, 7).flatmap(
    lambda n: st.tuples(*[arrays(np.float64, n, elements=few)] * 2)
)


@given(rankings)
def test_tau_agrees_with_counting_pairs_and_has_its_laws(pair):
    one, other = pair
    tau = kendall_tau(one, other)
    np.testing.assert_allclose(tau, plain_tau(one, other), atol=1e-12)
    np.testing.assert_allclose(kendall_tau(other, one), tau, atol=1e-12)
    np.testing.assert_allclose(kendall_tau(one, -other), -tau, atol=1e-12)


def figure(columns):
    """Clusters of one sample each; columns are models."""
    ones = np.ones((len(columns), 1))
    sides = tuple(Ratios(column[:, None], ones) for column in columns.T)
    keys = {"dataset": "d"}
    units = np.arange(len(columns))
    return Figure(ORIGINAL, keys, None, units, sides, (), len(columns), (), (), False)


def test_resamples_agree_with_a_plain_loop():
    values = np.random.default_rng(0).random((6, 3))
    draws = cluster_draws("d/test", list("abcdef"), count=20, seed=1)
    found = resample(figure(values), draws)
    np.testing.assert_allclose(found.estimate, values.mean(axis=0))
    weights = [row for _, block in draws.blocks() for row in block]
    slow = [
        [sum(w * v for w, v in zip(row, column, strict=True)) / 6 for column in values.T]
        for row in weights
    ]
    np.testing.assert_allclose(found.drawn, slow)


def shares_of_studies(gap, *, n_studies=60, size=40):
    """Rank-1 share of the better of two models that err together, study by study."""
    rng = np.random.default_rng(5)
    shares = []
    for study in range(n_studies):
        scene = rng.normal(0, 0.1, size)
        pair = [0.7 + shift + scene + rng.normal(0, 0.05, size) for shift in (gap, 0.0)]
        names = [f"{study}-{k}" for k in range(size)]
        draws = cluster_draws("d/test", names, count=300, seed=0)
        shares.append(rank_1_shares(resample(figure(np.column_stack(pair)), draws).drawn)[0])
    return np.array(shares)


def test_the_first_place_is_sure_where_the_gap_is_and_open_between_equals():
    """A gap of 4.5 standard errors; and none: there any share is as likely as any other."""
    assert np.mean(shares_of_studies(0.05) > 0.95) > 0.95
    equal = shares_of_studies(0.0)
    assert abs(equal.mean() - 0.5) < 0.1
    assert 0.5 < np.mean((equal > 0.2) & (equal < 0.8)) < 0.75


def test_a_data_set_that_turns_the_order_is_named():
    def one(name, *values):
        return Resampled(name, np.array(values), np.tile(values, (10, 1)))

    sets = [one("p", 0.9, 0.5, 0.4), one("q", 0.5, 0.6, 0.4), one("r", 0.5, 0.6, 0.7)]
    found = firmness(ORIGINAL, sets, ["a", "b", "c"])
    assert [row["model"] for row in found.overall] == ["a", "b", "c"]
    assert [row["rank_1_share"] for row in found.overall] == [1, 0, 0]
    first = {row["dataset"]: (row["first"], row["first_without"]) for row in found.datasets}
    assert first == {"p": (["a"], ["b"]), "q": (["b"], ["a"]), "r": (["c"], ["a"])}
    taus = [row["tau_others"] for row in found.datasets]
    others = ((0.5, 0.6, 0.55), (0.7, 0.55, 0.55), (0.7, 0.55, 0.4))
    wanted = [plain_tau(s.estimate, o) for s, o in zip(sets, others, strict=True)]
    np.testing.assert_allclose(taus, wanted)
    assert found.datasets[0]["tau_whole"] == pytest.approx(plain_tau(others[0], (1.9, 1.7, 1.5)))


def test_sets_of_one_data_set_weigh_as_one():
    def one(name, *values):
        return Resampled(name, np.array(values), np.tile(values, (2, 1)))

    sets = [one("p", 0.2, 0.4), one("p", 0.6, 0.4), one("q", 0.5, 0.3)]
    (first, _) = firmness(ORIGINAL, sets, ["a", "b"]).overall
    assert (first["model"], first["value"], first["n_datasets"]) == ("a", 0.45, 2)


def compared(run):
    return compare(subjects_of([str(run)], [], rules={}))


def test_one_data_set_says_nothing_of_others(compared_run):
    found = compared(compared_run())
    assert found.overall.height == found.datasets.height == 0
    assert found.ranks["rank_1_share"].sum() == pytest.approx(2), "one a figure"
    of_ranks = found.differences["figure"] != "relative_change"
    assert found.differences.filter(of_ranks)["not_better_share"].is_between(0, 1).all()
    assert found.differences.filter(~of_ranks)["not_better_share"].is_nan().all()


def test_two_data_sets_have_a_ranking_over_both(compared_run):
    found = compared(compared_run(("a", "b", "c"), sets=("inside", "outside")))
    assert dict(found.overall.schema) == OVERALL_SCHEMA
    assert dict(found.datasets.schema) == DATASET_SCHEMA
    assert set(found.overall["figure"]) == {ORIGINAL, STEADINESS}
    own = found.overall.filter(figure=ORIGINAL)
    by_set = found.ranks.filter(figure=ORIGINAL).group_by("model").agg(mean="value").sort("model")
    wanted = {model: np.mean(values) for model, values in by_set.iter_rows()}
    assert dict(own.select("model", "value").iter_rows()) == pytest.approx(wanted)
    assert own["rank_1_share"].sum() == pytest.approx(1)
    assert set(found.datasets["dataset"]) == {"inside", "outside"}


def test_few_clusters_have_no_shares(compared_run):
    found = compared(compared_run(size=30, sets=("inside", "outside")))
    assert found.ranks["rank_1_share"].is_nan().all()
    assert found.differences["not_better_share"].is_nan().all()
    assert found.overall.is_empty()
