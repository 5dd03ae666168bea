"""Recipes: seeds crossed with clusters."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from harness.stats.assessment import assess
from harness.stats.bootstrap import cluster_draws, ratio_inference
from harness.stats.inference import PIVOT_LEVELS
from harness.stats.pairs import ModelFacts, assessed
from harness.stats.seeds import seed_effects, with_seeds

SEEDS = ("m@1", "m@2", "m@3")
RECIPE = ModelFacts("m-seeds@9", "m (3 seeds)", ("inside",), False, 0.5, seeds=SEEDS)


@pytest.fixture(scope="module")
def run(synthetic):
    models = [ModelFacts(seed, "m", ("inside",), False, 0.5) for seed in SEEDS]
    return synthetic({"inside": 60}, n_words=10, models=models)


def summary(run, models, suite, scores=None):
    return assess(
        run.plan,
        run.scores if scores is None else scores,
        models=models,
        not_applicable=run.not_applicable,
        suite=suite,
    )


def probes(found):
    return found.summary.filter(pl.col("probe") != "out_of_distribution")


def test_a_recipe_stands_in_place_of_its_seeds(run, quick_suite):
    found = summary(run, [RECIPE], quick_suite())

    assert set(found.summary["model_id"]) == {"m-seeds@9"}
    assert {v.model_id for v in found.verdicts} == {"m-seeds@9"}
    assert {v.model_id for v in found.language} == {"m-seeds@9"}
    rows = probes(found)
    assert rows["n_seeds"].to_list() == [3] * rows.height
    assert rows["n_samples"].to_list() == [60] * rows.height
    assert rows["seed_share"].is_between(0, 1).all()


def test_the_figure_is_that_of_all_seeds_together(run, quick_suite):
    """Mean Dice over seeds and samples: the plain definition."""
    pooled = probes(summary(run, [RECIPE], quick_suite()))
    single = probes(summary(run, run.models, quick_suite()))

    keys = ["probe", "attribute"]
    means = single.group_by(keys, maintain_order=True).agg(
        pl.col("dice", "reference_dice").mean(), deviation=pl.col("dice").std()
    )
    both = pooled.join(means, on=keys, nulls_equal=True, suffix="_plain")
    changed = both.filter(pl.col("probe") != "original")
    expected = 100 * (changed["dice_plain"] / changed["reference_dice_plain"] - 1)
    np.testing.assert_allclose(both["dice"], both["dice_plain"])
    np.testing.assert_allclose(changed["relative_change_percent"], expected)
    np.testing.assert_allclose(both["seed_deviation_dice"], both["deviation"], rtol=1e-6)


def test_one_model_three_times_has_its_own_interval(run, quick_suite):
    """Seeds that do not differ add nothing."""
    own = run.scores.filter(pl.col("model_id") == "m@1")
    thrice = pl.concat([own.with_columns(model_id=pl.lit(seed)) for seed in SEEDS])

    pooled = probes(summary(run, [RECIPE], quick_suite(), thrice))
    single = probes(summary(run, run.models[:1], quick_suite(), own))

    for column in ("dice_low", "relative_change_low_percent", "relative_change_high_percent"):
        np.testing.assert_allclose(pooled[column], single[column])
    assert pooled["seed_share"].to_list() == pytest.approx([0] * pooled.height, abs=1e-12)


def test_seeds_that_differ_widen_and_are_told(run, quick_suite):
    """One seed listens, two do not: the change is less than what seeds differ by."""
    mean = pl.col("n_gt")
    moved = {"m@1": 0.2, "m@2": 0.6, "m@3": 1.0}
    own = run.scores.filter(pl.col("model_id") == "m@1")
    originals = run.plan.filter(pl.col("probe") == "original")["case_id"].implode()
    is_original = pl.col("case_id").is_in(originals)
    scores = pl.concat(
        [
            own.with_columns(
                model_id=pl.lit(seed),
                tp=pl.when(is_original).then(0.6 * mean).otherwise(factor * mean).cast(pl.UInt32),
                n_pred=mean,
                tp_original=mean,
                n_pred_original=mean,
            )
            for seed, factor in moved.items()
        ]
    ).cast(run.scores.schema)

    row = probes(summary(run, [RECIPE], quick_suite(), scores)).filter(probe="empty_prompt")

    (note,) = row["notes"].item()
    assert note.startswith("3 seeds, 100 % of the variance is theirs: they differ by more (66.")
    assert note.endswith("%) than the change itself")
    assert row["relative_change_low_percent"].item() < -100 + 1e-9
    assert row["relative_change_high_percent"].item() > 100


def test_single_models_beside_a_recipe_keep_their_figures(run, quick_suite):
    recipe = replace(RECIPE, seeds=SEEDS[:2])
    both = probes(summary(run, [recipe, run.models[2]], quick_suite()))
    alone = probes(summary(run, run.models[2:], quick_suite()))

    own = both.filter(pl.col("model_id") == "m@3")
    assert own.equals(alone, null_equal=True)
    assert own["n_seeds"].to_list() == [0] * own.height


def test_recipes_of_a_run_take_the_place_of_their_seeds():
    entry = {"name": "m", "trained_on": [], "control": False, "threshold": 0.5}
    manifest = {"models": [entry | {"model_id": seed} for seed in (*SEEDS, "n@1")]}
    recipe = {"model_id": "m-seeds@9", "name": "m (3 seeds)", "seeds": [*SEEDS]}

    assert [m.model_id for m in assessed(manifest)] == [*SEEDS, "n@1"]
    found = assessed(manifest | {"recipes": [recipe]})
    assert [(m.model_id, m.seeds) for m in found] == [("m-seeds@9", SEEDS), ("n@1", ())]
    # One that is not evaluated yet is no recipe yet.
    assert assessed(manifest | {"recipes": [recipe | {"seeds": ["m@1", "m@7"]}]}) == assessed(
        manifest
    )


def test_seed_effects_add_up_to_nothing():
    rng = np.random.default_rng(0)
    effects = seed_effects(rng.random(5), 1 + rng.random(5))
    assert effects.sum() == pytest.approx(0)
    assert np.isnan(seed_effects(np.zeros(3), np.zeros(3))).all()


def made(n, n_clusters, n_seeds, share, *, seed):
    """Problems of known mean 1 with a share of the squared error that is the seeds'."""
    rng = np.random.default_rng(seed)
    clusters = rng.standard_normal((n_clusters, 1, n))
    noise = rng.standard_normal((n_clusters, n_seeds, n))
    own = 1 / n_clusters + 1 / (n_clusters * n_seeds)
    spread = np.sqrt(n_seeds * own * share / (1 - share))
    seeds = spread * rng.standard_normal((1, n_seeds, n))
    return 1 + clusters + noise + seeds  # (G, S, P)


def coverage(cells, *, count=400):
    """Share of problems whose interval holds the true mean 1."""
    n_clusters, n_seeds, size = cells.shape
    draws = cluster_draws("d", [str(k) for k in range(n_clusters)], count=count, seed=0)
    means = cells.mean(axis=1)
    solved = ratio_inference(means, np.ones_like(means), draws=draws)
    effects = cells.mean(axis=0) - cells.mean(axis=(0, 1))
    error = np.sqrt((effects**2).sum(axis=0) / (n_seeds * (n_seeds - 1)))
    found = with_seeds(solved, error, np.full(size, n_seeds)).intervals
    return float(np.mean((found.low <= 1) & (found.high >= 1)))


@pytest.mark.parametrize("n_seeds", [3, 5])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
def test_intervals_cover_whatever_the_seeds_share(n_seeds, share):
    assert coverage(made(800, 30, n_seeds, share, seed=1)) >= 0.94


def test_limits_and_p_values_are_read_off_one_distribution():
    means = made(4, 30, 3, 0.5, seed=2).mean(axis=1)
    draws = cluster_draws("d", [str(k) for k in range(30)], count=400, seed=0)
    solved = ratio_inference(means, np.ones_like(means), draws=draws)

    wider = with_seeds(solved, np.array([0.0, 0.3, 0.3, 0.3]), np.array([3, 3, 5, 0]))

    i, own = wider.intervals, solved.intervals
    high = PIVOT_LEVELS.searchsorted(0.025)
    np.testing.assert_allclose(i.high, i.estimate - wider.pivot[high] * i.standard_error)
    assert i.high[0] == pytest.approx(own.high[0])
    assert i.high[1] - i.estimate[1] > 4.3 * 0.3 > i.high[2] - i.estimate[2] > 2.77 * 0.3
    assert (i.low[3], i.high[3], i.bca_low[3]) == (own.low[3], own.high[3], own.bca_low[3])
    assert np.isnan(i.bca_low[:3]).all()
    assert (np.diff(wider.pivot, axis=0) >= -1e-12).all()


def test_rows_away_say_that_they_know_nothing_of_seeds(synthetic, quick_suite):
    models = [ModelFacts(seed, "m", ("inside",), False, 0.5) for seed in SEEDS[:2]]
    made = synthetic({"inside": 40, "outside": 40}, models=models)
    recipe = replace(RECIPE, seeds=SEEDS[:2])
    away = summary(made, [recipe], quick_suite()).summary.filter(probe="out_of_distribution")
    assert "what 2 seeds vary is not in these limits" in away["notes"][0].to_list()
    alone = summary(made, models[:1], quick_suite()).summary.filter(probe="out_of_distribution")
    assert not any("vary" in note for note in alone["notes"][0])
