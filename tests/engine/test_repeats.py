"""The repeat noise of a sampling model, against its definition and against real repetitions."""

import math

import numpy as np
import polars as pl
import pytest

from harness.engine.repeats import REPEAT_SCHEMA, RepeatNoise, sampling_noise


def counts_of(first, second, *, size=10_000):
    """Counts that give these Dice scores (0 to 1): mask and truth have `size` pixels each."""
    rows = [
        (n, round(a * size), size, round(b * size), size, size)
        for n, (a, b) in enumerate(zip(first, second, strict=True))
    ]
    return pl.DataFrame(rows, schema=REPEAT_SCHEMA, orient="row")


def plan_of(pairs):
    return pl.DataFrame(
        pairs, schema={"case_id": pl.UInt64, "original_case_id": pl.UInt64}, orient="row"
    ).lazy()


def test_the_noise_is_half_the_distance_of_the_halves():
    """One case: halves at 60 and 64 points; an answer from both is uncertain by 2."""
    found = sampling_noise(counts_of([0.60], [0.64]), plan_of([(0, 0)]), empty="one")

    assert found.score_sd == pytest.approx(2.0)
    assert math.isnan(found.change_sd)


def test_a_change_has_the_noise_of_its_difference():
    """Both halves move together, as under common noise: the change is sure."""
    counts = counts_of([0.5, 0.4], [0.6, 0.5])
    found = sampling_noise(counts, plan_of([(0, 0), (1, 0)]), empty="one")

    assert found.score_sd == pytest.approx(5.0)
    assert found.change_sd == pytest.approx(0.0, abs=1e-9)


def test_it_estimates_what_a_repetition_shows():
    """Scores of means of samples: their spread over repetitions is what the halves say."""
    rng = np.random.default_rng(0)
    samples = 0.5 + 0.1 * rng.standard_normal((4000, 30))
    halves = samples[:, :15].mean(1), samples[:, 15:].mean(1)
    found = sampling_noise(counts_of(*halves, size=10**7), plan_of([(0, 0)]), empty="one")

    assert found.score_sd == pytest.approx(100 * 0.1 / math.sqrt(30), rel=0.05)


def test_an_interval_over_pictures_contains_the_noise():
    """Fresh noise for every picture: the spread of scores is that of pictures and noise together.

    The standard error from one run is that of the mean over repetitions of everything.
    """
    rng = np.random.default_rng(1)
    pictures, noise, n = 0.08, 0.06, 50
    runs = rng.normal(0, pictures, (2000, n)) + rng.normal(0, noise, (2000, n))
    claimed = (runs.std(axis=1, ddof=1) / math.sqrt(n)).mean()

    assert claimed == pytest.approx(runs.mean(axis=1).std(), rel=0.05)
    assert claimed > 1.1 * pictures / math.sqrt(n)


def test_a_single_sample_says_that_nothing_was_measured():
    sentence = RepeatNoise(0, math.nan, math.nan).sentence(1)

    assert sentence.endswith(
        "mean of 1 samples, too few to measure how far a repetition would differ."
    )


def test_the_sentence_has_both_figures():
    sentence = RepeatNoise(12, 0.412, 0.2).sentence(30)

    assert "mean of 30 samples" in sentence
    assert "would move by 0.41 points" in sentence
    assert "by 0.2 (standard deviations over 12 cases" in sentence
