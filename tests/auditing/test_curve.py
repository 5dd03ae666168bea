"""Refusal against Dice over thresholds, against plain loops."""

import numpy as np
import polars as pl
import pytest

from harness.auditing.curve import threshold_curve
from harness.runs.store import THRESHOLDS
from harness.suite.schema import Statistics

PIXELS, N = 64 * 64, 40


@pytest.fixture
def frames():
    """Originals with a target and a prompt for what is absent each, in 40 clusters."""
    rng = np.random.default_rng(0)
    plan, scores, curves = [], [], []
    for cluster in range(N):
        for probe, mask in (("original", "own"), ("absent", "empty")):
            keys = {"dataset": "d", "prompts": "released", "prompt_type": "p6", "split": "test"}
            case = len(plan)
            plan.append(
                keys | {"case_id": case, "probe": probe, "expected_mask": mask}
                | {"cluster_id": f"c{cluster}"}
            )  # fmt: skip
            scores.append(
                {"model_id": "m", "case_id": case, "n_gt": 500, "height": 64, "width": 64}
            )
            painted = np.sort(rng.integers(0, 600, len(THRESHOLDS)))[::-1]
            painted[rng.integers(0, 19) :] = 0 if probe == "absent" else 20
            hit = np.minimum(painted, 500) // 2
            curves.append(
                {"model_id": "m", "case_id": case, "n_pred": painted.tolist(), "tp": hit.tolist()}
            )
    return [pl.LazyFrame(rows) for rows in (plan, scores, curves)], plan, curves


def test_each_threshold_has_the_means_of_its_own_counts(frames):
    lazy, plan, curves = frames
    found = threshold_curve(*lazy, Statistics())
    assert found["threshold"].to_list() == list(THRESHOLDS)
    for place, row in enumerate(found.iter_rows(named=True)):
        absent = [
            c["n_pred"][place] <= 10
            for c, p in zip(curves, plan, strict=True)
            if p["probe"] == "absent"
        ]
        dice = [
            2 * c["tp"][place] / (c["n_pred"][place] + 500)
            for c, p in zip(curves, plan, strict=True)
            if p["probe"] == "original"
        ]
        assert row["refusal_rate"] == pytest.approx(np.mean(absent))
        assert row["refusal_rate_low"] <= np.mean(absent) <= row["refusal_rate_high"]
        assert row["dice"] == pytest.approx(np.mean(dice))
        assert row["miss_rate"] == 0
    assert found["refusal"][0] == "hallucinates"
    assert found["chosen"].sum() == 2


def test_a_validation_split_chooses_where_there_is_one(frames):
    lazy, *_ = frames
    first = pl.col("case_id") < 20
    split = pl.when(first).then(pl.lit("val")).otherwise(pl.lit("test"))
    found = threshold_curve(lazy[0].with_columns(split=split), *lazy[1:], Statistics())
    own = threshold_curve(lazy[0].filter(first), *lazy[1:], Statistics())
    best = own.sort("dice", descending=True)["threshold"][0]
    assert found.filter(pl.col("chosen") > 0)["threshold"].to_list() == [best]
    assert set(found["n_choices"]) == {1}
