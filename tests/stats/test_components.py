"""Shares of variance against the balanced analysis of variance, and on data of known variances."""

import numpy as np
import polars as pl
import pytest

from harness.stats.components import shares, variance_shares, varied_changes


def crossed(n_images, n_words, *, spreads, seed=0, repeats=1):
    """Values of every (image, word), with the factors' levels."""
    rng = np.random.default_rng(seed)
    image, word, _ = np.meshgrid(range(n_images), range(n_words), range(repeats), indexing="ij")
    image, word = image.ravel(), word.ravel()
    value = rng.normal(0, spreads[0], n_images)[image] + rng.normal(0, spreads[1], n_words)[word]
    return value + rng.normal(0, spreads[2], len(image)), image, word


def test_a_balanced_table_gives_the_textbook_components():
    value, image, word = crossed(8, 5, spreads=(1.0, 2.0, 0.5))
    table = value.reshape(8, 5)
    total = table.mean()
    rest = table - table.mean(1, keepdims=True) - table.mean(0, keepdims=True) + total
    ms_rest = (rest**2).sum() / (7 * 4)
    of_images = (5 * table.mean(1).var(ddof=1) - ms_rest) / 5
    of_words = (8 * table.mean(0).var(ddof=1) - ms_rest) / 8
    whole = of_images + of_words + ms_rest
    assert shares(value, [image, word]) == pytest.approx([of_images / whole, of_words / whole])


def test_statsmodels_mean_squares_lead_to_the_same_shares():
    import pandas as pd
    from statsmodels.formula.api import ols
    from statsmodels.stats.anova import anova_lm

    value, image, word = crossed(10, 6, spreads=(0.5, 1.0, 1.0), seed=3)
    frame = pd.DataFrame({"value": value, "image": image, "word": word})
    found = anova_lm(ols("value ~ C(image) + C(word)", frame).fit())
    mean_sq = found["sum_sq"] / found["df"]
    parts = np.array(
        [
            (mean_sq["C(image)"] - mean_sq["Residual"]) / 6,
            (mean_sq["C(word)"] - mean_sq["Residual"]) / 10,
            mean_sq["Residual"],
        ]
    ).clip(0)
    assert shares(value, [image, word]) == pytest.approx(list(parts[:2] / parts.sum()))


def test_unequal_numbers_are_unbiased():
    rng = np.random.default_rng(1)
    found = []
    for seed in range(60):
        value, image, word = crossed(40, 12, spreads=(1.0, 0.7, 1.0), seed=seed)
        kept = rng.random(len(value)) < 0.2 + 0.6 * (word / 12)
        found.append(shares(value[kept], [image[kept], word[kept]]))
    whole = 1 + 0.49 + 1
    assert np.mean(found, axis=0) == pytest.approx([1 / whole, 0.49 / whole], abs=0.04)


def test_a_factor_with_one_level_has_no_share():
    value, image, _ = crossed(6, 4, spreads=(1, 1, 1))
    alone = shares(value, [image, np.zeros(len(value), int)])
    assert np.isnan(alone[1])
    assert 0 <= alone[0] <= 1
    assert all(np.isnan(shares(value, [np.zeros(len(value), int)] * 2)))


def test_without_variance_there_are_no_shares():
    _, image, word = crossed(3, 3, spreads=(1, 1, 1))
    assert all(np.isnan(shares(np.full(9, 0.3), [image, word])))


def test_only_cells_with_words_or_several_prompts_are_taken_apart():
    cases = pl.DataFrame(
        [
            {"cell": c, "sample": s, "word": w, "prompt_index": i, "dice": d, "reference": 0.5}
            for c, s, w, i, d in [
                (0, 0, 0, 0, 0.1), (0, 1, 0, 0, 0.2),
                (1, 0, 1, 0, 0.1), (1, 0, 2, 0, 0.4), (1, 1, 1, 0, 0.1), (1, 1, 2, 0, 0.4),
                (2, 0, 0, 0, 0.3), (2, 0, 0, 1, None), (2, 1, 0, 1, 0.3), (2, 1, 0, 0, 0.1),
            ]
        ],
        schema_overrides={"cell": pl.UInt32},
    )  # fmt: skip
    changes = varied_changes(cases)
    found = variance_shares(changes)
    assert found["cell"].to_list() == [1, 2]
    assert found["variance_words"][0] == pytest.approx(1.0)
    assert found["variance_prompt_index"][0] is None or np.isnan(found["variance_prompt_index"][0])
    assert changes.filter(pl.col("cell") == 2).height == 3
