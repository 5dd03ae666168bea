"""What absent prompts are answered: rates whose limits do not collapse, and the verdict on them."""

import math
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.stats.assessment import assess
from harness.stats.inference import estimate_of, p_greater, p_less
from harness.stats.intervals import share_inference, share_limit
from harness.stats.refusal import judge_refusal, mcc, rates, recovered
from harness.suite.schema import Statistics

ENDS = np.array([0.975, 0.025])


def limits_of(events, sizes):
    found = estimate_of(share_inference(np.asarray(events, float), np.asarray(sizes, float)), 0)
    return found.low, found.high


@given(st.integers(20, 300), st.data())
def test_single_samples_have_wilson_limits_with_students_t(size, data):
    from scipy.stats import t

    events = data.draw(st.integers(1, size - 1))
    hits = (np.arange(size) < events).astype(float)
    share, z = events / size, t.ppf(0.975, size - 1)
    # The variance over clusters has one degree of freedom less.
    n = size - 1
    middle, half = share + z**2 / (2 * n), z * math.sqrt(share * (1 - share) / n + z**2 / 4 / n**2)
    wanted = [(middle - half) / (1 + z**2 / n), (middle + half) / (1 + z**2 / n)]
    assert limits_of(hits, np.ones(size)) == pytest.approx(wanted)


@given(st.integers(2, 200), st.floats(1, 9))
def test_where_all_agree_limits_are_exact_for_the_clusters(clusters, size):
    from scipy.stats import binom

    sizes = np.full(clusters, size)
    low, high = limits_of(np.zeros(clusters), sizes)
    assert low == 0
    assert binom.cdf(0, clusters, high) == pytest.approx(0.025)
    low, high = limits_of(sizes, sizes)
    assert high == 1
    assert binom.sf(clusters - 1, clusters, low) == pytest.approx(0.025)


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(1, 6)), min_size=2, max_size=40))
def test_limits_are_ordered_and_hold_the_share(rows):
    events, sizes = np.array([(min(e, n), n) for e, n in rows], float).T
    share, limit = share_limit(events, sizes)
    values = limit(np.linspace(0.001, 0.999, 99))
    assert (np.diff(values) <= 1e-12).all()
    assert ((values >= 0) & (values <= 1)).all()
    assert limit(np.array([0.975]))[0] <= share <= limit(np.array([0.025]))[0]


@given(st.lists(st.integers(1, 8), min_size=2, max_size=99), st.integers(1, 3), st.integers(1, 8))
def test_a_few_refusals_exclude_no_rate_that_none_would_not(sizes, holding, most):
    sizes = np.array(sizes, float)
    events = np.where(np.arange(len(sizes)) < holding, np.minimum(sizes, most), 0.0)
    assert limits_of(events, sizes)[1] >= limits_of(np.zeros(len(sizes)), sizes)[1]
    assert limits_of(sizes - events, sizes)[0] <= limits_of(sizes, sizes)[0]


def test_p_values_and_limits_do_not_contradict_each_other():
    found = estimate_of(share_inference(np.r_[np.ones(30), np.zeros(10)], np.ones(40)), 0)
    assert p_greater(found, found.low) == pytest.approx(0.025, abs=1e-4)
    assert p_less(found, found.high) == pytest.approx(0.025, abs=1e-4)
    everything = estimate_of(share_inference(np.ones(40), np.ones(40)), 0)
    assert p_greater(everything, 0.8) == pytest.approx(0.8**40, abs=2e-4)
    assert p_less(everything, 0.8) > 0.99


def test_a_share_of_nothing_is_undefined():
    assert math.isnan(estimate_of(share_inference(np.zeros(3), np.zeros(3)), 0).value)


def clustered(rng, clusters, rate, correlation):
    """Answers of unequal clusters: one to some twenty samples each."""
    sizes = np.maximum(1, np.round(rng.lognormal(0.8, 0.7, clusters))).astype(int)
    if rate in (0, 1):
        return sizes * float(rate), sizes.astype(float)
    scale = (1 - correlation) / correlation
    chance = rng.beta(rate * scale, (1 - rate) * scale, clusters)
    return rng.binomial(sizes, chance).astype(float), sizes.astype(float)


def coverage(clusters, rate, correlation, *, runs, seed=0):
    rng = np.random.default_rng(seed)
    covered = 0
    for _ in range(runs):
        _, limit = share_limit(*clustered(rng, clusters, rate, correlation))
        low, high = limit(ENDS)
        covered += low <= rate <= high
    return covered / runs


@pytest.mark.parametrize("clusters", [20, 50, 100])
@pytest.mark.parametrize("rate", [0.02, 0.3, 0.98])
def test_limits_cover(clusters, rate):
    # A rare answer can be missed on one side only: 97.5 % is the aim there.
    assert 0.925 <= coverage(clusters, rate, 0.2, runs=1000) <= 0.985


@pytest.mark.parametrize("rate", [0, 1])
def test_limits_hold_a_rate_without_exception_and_leave_room_for_some(rate):
    assert coverage(20, rate, 0.2, runs=20) == 1
    low, high = limits_of(*clustered(np.random.default_rng(0), 20, rate, 0.2))
    assert high - low == pytest.approx(1 - 0.025 ** (1 / 20))


@pytest.mark.slow
@pytest.mark.parametrize("clusters", [20, 50, 100])
@pytest.mark.parametrize("rate", [0.02, 0.3, 0.98])
@pytest.mark.parametrize("correlation", [0.01, 0.1, 0.3])
def test_limits_cover_closely(clusters, rate, correlation):
    assert 0.93 <= coverage(clusters, rate, correlation, runs=6000, seed=1) <= 0.98


def matrix(tp, fn, tn, fp):
    """The definition."""
    scale = math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    return (tp * tn - fp * fn) / scale if scale else 0.0


# Rates are shares of counts: numbers too small for a float's full precision are none.
@given(*[st.integers(1, 50)] * 2, *[st.floats(0, 1, allow_subnormal=False)] * 2)
def test_mcc_agrees_with_its_definition(n_absent, n_present, refused, missed):
    tn, fn = refused * n_absent, missed * n_present
    wanted = matrix(n_present - fn, fn, tn, n_absent - tn)
    assert mcc(refused, missed, n_absent, n_present) == pytest.approx(wanted, abs=1e-6)


def test_mcc_needs_both_kinds_of_prompts():
    assert math.isnan(mcc(1.0, 0.0, 10, 0))
    assert mcc(0.0, 0.0, 10, 10) == mcc(1.0, 1.0, 10, 10) == 0


def test_recovered_limits_of_a_difference_are_the_known_ones():
    value, low, high = recovered(lambda a, b: a - b, [(0.5, 0.4, 0.7), (0.2, 0.1, 0.5)], [1, -1])
    assert value == pytest.approx(0.3)
    assert low == pytest.approx(0.3 - math.hypot(0.1, 0.3))
    assert high == pytest.approx(0.3 + math.hypot(0.2, 0.1))


# ---- verdicts ----

ROW = {"split": "test", "expected_mask": "empty", "absent_kind": None, "aligned_share": 0.5}
ROW |= {f"{name}{end}": 0.5 for name in ("false_positive_area",) for end in ("", "_low", "_high")}


def judged(probes, *, missed=0.0, clusters=40, settings=None):
    """The verdict on probes whose clusters refuse as given, beside originals of a miss rate."""
    units, rows = [], []
    originals = (np.arange(clusters) < missed * clusters).astype(float)
    for cell, (name, refused) in enumerate({"original": None, **probes}.items()):
        events = originals if refused is None else np.asarray(refused, float)
        kind = ("missed", "n_missed") if refused is None else ("refused", "n_refused")
        for unit, event in enumerate(events):
            own = dict.fromkeys(("missed", "n_missed", "refused", "n_refused"), 0.0)
            units.append(
                {"cell": cell, "unit": unit} | own | dict(zip(kind, (event, 1.0), strict=True))
            )
        n = 0 if refused is None else len(events)
        rows.append(
            ROW | {"cell": cell, "probe": name, "n_samples_refusal": n, "n_clusters_refusal": n}
        )
    frame = pl.DataFrame(units, schema_overrides={"cell": pl.UInt32, "unit": pl.UInt32})
    solved = rates(frame, n_cells=len(rows))
    for row in rows:
        one = estimate_of(solved["refusal_rate"], row["cell"])
        row |= {
            "refusal_rate": one.value,
            "refusal_rate_low": one.low,
            "refusal_rate_high": one.high,
        }
    return judge_refusal(rows, solved, frame, settings or Statistics())


def test_a_model_that_paints_whatever_it_is_asked_for_hallucinates():
    found = judged({"absent": np.zeros(40)})
    assert found.refusal == "hallucinates"
    reason = "it hallucinates what is not there (refusal rate 0.000 [0.000, 0.088])"
    assert found.refusal_reason == reason
    assert [one.is_below for one in found.refusals] == [True]


def test_a_model_that_paints_nothing_refuses():
    found = judged({"absent": np.ones(40)})
    assert found.refusal == "refuses"
    assert (
        found.refusal_reason == "it refuses what is not there (refusal rate 1.000 [0.912, 1.000])"
    )


def test_a_model_that_never_paints_says_nothing_by_it():
    found = judged({"absent": np.ones(40)}, missed=0.5)
    assert found.refusal == "cannot tell"
    assert found.refusal_reason == (
        "whether it refuses what is not there is undecided (refusal rate 1.000 [0.912, 1.000]; "
        "nothing is painted for 50 % of the prompts whose target is there, and at most 20 % are "
        "allowed)"
    )


def test_few_clusters_and_a_rate_at_the_bound_decide_nothing():
    assert judged({"absent": np.ones(19)}, clusters=19).refusal == "cannot tell"
    assert judged({"absent": np.arange(40) < 32}).refusal == "cannot tell"


def test_one_kind_that_is_not_refused_is_enough():
    kinds = {f"kind{k}": np.ones(40) for k in range(9)}
    found = judged(kinds | {"near": np.arange(40) < 16})
    assert found.refusal == "hallucinates"
    assert found.refusal_reason == (
        "it hallucinates some of what is not there (near 0.400 [0.258, 0.561]; in all refusal rate "
        "0.940 [0.911, 0.960])"
    )


def test_nothing_asked_is_nothing_said():
    found = judged({})
    assert (found.refusal, found.refusal_reason, found.refusals) == ("not asked", "", ())


@pytest.mark.parametrize(("rate", "share"), [(0.8, (0, 0.05)), (0.3, (0.99, 1)), (0.97, (0.75, 1))])
def test_level_and_power_of_the_verdict(rate, share):
    """At the bound a verdict either way is an error; 40 clusters show 30 % and 97 %."""
    rng = np.random.default_rng(1)
    runs = [judged({"absent": rng.random(40) < rate}).refusal for _ in range(250)]
    decided = np.mean([verdict != "cannot tell" for verdict in runs])
    assert share[0] <= decided <= share[1]
    wrong = {0.8: (), 0.3: ("refuses",), 0.97: ("hallucinates",)}[rate]
    assert not set(runs) & set(wrong)


# ---- from counts ----


@pytest.fixture
def summary(synthetic, quick_suite):
    """A function that assesses a run whose probe `swap color` asks for what is absent."""

    def make(change, **statistics):
        run = synthetic({"inside": 40})
        absent = (pl.col("probe") == "swap") & (pl.col("attribute") == "color")
        mask = pl.when(absent).then(pl.lit("empty")).otherwise("expected_mask")
        plan = run.plan.with_columns(
            expected_mask=mask, attribute=pl.when(~absent).then("attribute")
        )
        known = plan.select("case_id", "original_case_id", "probe", "sample_id", "expected_mask")
        scores = run.scores.join(known, on="case_id", maintain_order="left")
        scores = change(scores).select(run.scores.columns)
        parts = run.arguments | {"plan": plan, "scores": scores}
        return assess(**parts, suite=quick_suite(**statistics))

    return make


def absent_row(found, model="m"):
    own = found.summary.filter(
        pl.col("model") == model, pl.col("expected_mask") == "empty", pl.col("n_cases") > 0
    )
    return SimpleNamespace(**own.row(0, named=True))


def is_absent():
    return pl.col("expected_mask") == "empty"


def painted(pixels):
    """A change that paints so many pixels for what is absent, on the original's mask."""
    of = {"n_pred": pixels, "tp_original": pixels, "tp": 0}
    return lambda scores: scores.with_columns(
        pl.when(is_absent())
        .then(pl.min_horizontal(pl.lit(v), "n_pred_original"))
        .otherwise(k)
        .alias(k)
        for k, v in of.items()
    )


def test_a_mask_of_ten_pixels_in_a_small_picture_is_a_refusal(summary):
    ten, eleven = (absent_row(summary(painted(n))) for n in (10, 11))
    assert (ten.refusal_rate, eleven.refusal_rate) == (1, 0)
    assert ten.refusal_rate_low > 0.8
    assert 0 < eleven.refusal_rate_high < 0.2
    assert ten.false_positive_area == pytest.approx(10 / 64**2)
    assert (ten.aligned_share, ten.elsewhere_share) == (1, 0)
    assert ten.n_samples_refusal == ten.n_samples_present == 40
    assert ten.n_clusters_refusal == 20
    assert (ten.mcc, eleven.mcc) == (1, 0)
    assert eleven.mcc_low < 0 < eleven.mcc_high
    assert ten.dice_mcc == pytest.approx(ten.reference_dice)
    assert ten.expectation == "refusal of refusal_rate at least 0.8"


def test_the_area_of_a_refusal_is_the_suites(summary):
    wide = absent_row(summary(painted(40), refusal_area=0.01))
    assert wide.refusal_rate == 1


def test_an_empty_own_mask_asks_for_what_is_absent(summary):
    """Slices without a target: the originals themselves are to be refused."""

    def change(scores):
        bare = pl.col("sample_id").is_in([f"s{k:04d}" for k in range(0, 40, 2)])
        n_pred = pl.when(bare & (pl.col("sample_id") < "s0020")).then(0).otherwise("n_pred")
        tp_original = pl.when(n_pred == 0).then(0).otherwise("tp_original")
        return scores.with_columns(
            n_gt=pl.when(bare).then(0).otherwise("n_gt"),
            tp=pl.when(bare).then(0).otherwise("tp"),
            n_pred=n_pred,
            n_pred_original=pl.when(n_pred == 0).then(0).otherwise("n_pred_original"),
            tp_original=tp_original,
        )

    found = summary(change)
    (own,) = found.summary.filter(pl.col("model") == "m", pl.col("probe") == "original").rows(
        named=True
    )
    assert own["n_samples_refusal"] == own["n_samples_present"] == 20
    assert own["refusal_rate"] == pytest.approx(0.5)
    assert own["miss_rate"] == own["originals_empty_share"] == 0
    assert own["mcc"] == pytest.approx(matrix(20, 0, 10, 10))
    verdict = next(v for v in found.language if v.model == "m")
    assert verdict.refusal == "hallucinates"
    assert {one.probe for one in verdict.refusals} == {"original", "swap"}


def test_a_tiny_target_is_not_missed_by_a_tiny_mask(summary):
    def change(scores):
        return scores.with_columns(n_gt=pl.lit(6), n_pred=pl.lit(6), tp=pl.lit(6)).with_columns(
            n_pred_original=pl.lit(6), tp_original=pl.lit(6)
        )

    own = summary(change).summary.filter(pl.col("probe") == "original")
    assert own["miss_rate"].to_list() == [0, 0]


def test_limits_of_unequal_clusters_are_the_formula_s():
    """By hand: the variance of a ratio of sums, and Satterthwaite's degrees of freedom and 20."""
    from scipy.stats import t

    events = np.array([0.0] * 28 + [3.0, 5.0])
    sizes = np.array([1.0, 4.0] * 14 + [3.0, 8.0])
    share, total = events.sum() / sizes.sum(), sizes.sum()
    squares = [(e - share * s) ** 2 for e, s in zip(events, sizes, strict=True)]
    freedom = sum(squares) ** 2 / sum(q**2 for q in squares) + 20
    assert 21 < freedom < 29
    n = share * (1 - share) / (sum(squares) / total**2 * 30 / 29)
    z = t.ppf(0.975, freedom)
    middle, half = share + z**2 / (2 * n), z * math.sqrt(share * (1 - share) / n + z**2 / 4 / n**2)
    wanted = [(middle - half) / (1 + z**2 / n), (middle + half) / (1 + z**2 / n)]
    assert limits_of(events, sizes) == pytest.approx(wanted)


def test_an_area_has_limits_where_it_varies_and_within_the_possible(summary):
    """The same in every picture, it says nothing of pictures to come; a few large ones reach 0."""
    same = absent_row(summary(painted(40)))
    assert same.false_positive_area == pytest.approx(40 / 64**2)
    assert math.isnan(same.false_positive_area_low)
    assert math.isnan(same.false_positive_area_high)

    def rarely(scores):
        once = pl.col("sample_id") == pl.col("sample_id").min()
        return scores.with_columns(
            pl.when(is_absent()).then(pl.when(once).then(k).otherwise(0)).otherwise(k).alias(k)
            for k in ("n_pred", "tp_original", "tp")
        )

    rare = absent_row(summary(rarely))
    assert rare.false_positive_area > 0
    assert rare.false_positive_area_low == 0
