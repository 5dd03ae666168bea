"""Overlap scores against their definition, the reference's numbers and torchmetrics."""

import json
import math
import re
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import MaskShapeError, RunError
from harness.metrics import EMPTY_SCORES, agreement, dice, iou, signature
from harness.suite.schema import Metric

SIDE = 5
masks = st.frozensets(st.integers(0, SIDE * SIDE - 1))
pairs = st.lists(st.tuples(masks, masks), min_size=1, max_size=8)
empties = st.sampled_from([0.0, 1.0])


def counts(pairs):
    """Arrays (tp, n_pred, n_gt) of pairs of pixel sets."""
    return tuple(
        np.array(c) for c in zip(*((len(p & t), len(p), len(t)) for p, t in pairs), strict=True)
    )


@given(pairs, empties)
def test_dice_agrees_with_its_definition(pairs, empty):
    expected = [2 * len(p & t) / (len(p) + len(t)) if p or t else empty for p, t in pairs]

    np.testing.assert_allclose(dice(*counts(pairs), empty=empty), expected, rtol=1e-15)


@given(pairs, empties)
def test_iou_agrees_with_its_definition(pairs, empty):
    expected = [len(p & t) / len(p | t) if p or t else empty for p, t in pairs]

    np.testing.assert_allclose(iou(*counts(pairs), empty=empty), expected, rtol=1e-15)


@given(pairs)
def test_iou_follows_from_dice(pairs):
    d = dice(*counts(pairs), empty=1.0)

    np.testing.assert_allclose(iou(*counts(pairs), empty=1.0), d / (2 - d), rtol=1e-14)


@given(pairs, empties)
def test_scores_are_symmetric_bounded_and_alike_one_by_one(pairs, empty):
    tp, n_pred, n_gt = counts(pairs)

    together = dice(tp, n_pred, n_gt, empty=empty)

    np.testing.assert_array_equal(together, dice(tp, n_gt, n_pred, empty=empty))
    single = [float(dice(*c, empty=empty)) for c in zip(tp, n_pred, n_gt, strict=True)]
    np.testing.assert_array_equal(together, single)
    assert ((together >= 0) & (together <= 1)).all()


@given(masks)
def test_a_mask_agrees_with_itself_even_when_empty(mask):
    n = len(mask)

    assert agreement(n, n, n) == 1.0


def test_an_unknown_count_gives_nan_and_not_the_score_of_empty_masks():
    scores = dice([math.nan, 0], [0, 0], [0, 0], empty=1.0)

    assert np.isnan(scores[0])
    assert scores[1] == 1.0
    assert np.isnan(dice(0, 0, 0, empty=EMPTY_SCORES["nan"]))


@given(st.lists(st.tuples(masks, masks), min_size=2, max_size=4))
@settings(max_examples=25)
def test_torchmetrics_gives_the_same_counts_and_scores(pairs):
    torch = pytest.importorskip("torch")
    from torchmetrics.functional.classification import binary_stat_scores
    from torchmetrics.functional.segmentation import dice_score

    def tensor(sets):
        flat = torch.zeros(len(sets), SIDE * SIDE, dtype=torch.long)
        for row, pixels in enumerate(sets):
            flat[row, list(pixels)] = 1
        return flat.reshape(len(sets), 1, SIDE, SIDE)

    predicted, true = (tensor(side) for side in zip(*pairs, strict=True))
    tp, n_pred, n_gt = counts(pairs)
    stats = binary_stat_scores(predicted, true, multidim_average="samplewise").numpy()
    np.testing.assert_array_equal(stats[:, 0], tp)
    np.testing.assert_array_equal(stats[:, 0] + stats[:, 1], n_pred)
    np.testing.assert_array_equal(stats[:, 4], n_gt)
    theirs = dice_score(
        predicted, true, num_classes=1, include_background=True, average="none",
        aggregation_level="samplewise",
    )  # fmt: skip
    # torchmetrics calls a pair of empty masks undefined; ours is asked to, too.
    ours = dice(tp, n_pred, n_gt, empty=math.nan)
    np.testing.assert_allclose(theirs.flatten().numpy(), ours, rtol=1e-6)


def test_the_reference_scored_binary_masks_alike(shared_reference):
    golden = json.loads((shared_reference / "golden" / "dice.json").read_text())
    checked = 0
    for case in golden["cases"]:
        predicted, true = np.array(case["pred"]), np.array(case["gt"])
        if predicted.ndim == 2 and np.isin(true, (0, 1)).all():
            tp = (predicted * true).sum(), predicted.sum(), true.sum()
            assert dice(*tp, empty=1.0) == pytest.approx(case["dice"][0][0], abs=1e-7)
            assert iou(*tp, empty=1.0) == pytest.approx(case["iou"][0][0], abs=1e-7)
            checked += 1
    for case in golden["seeded_cases"]:
        tp = case["intersection"], case["pred_sum"], case["gt_sum"]
        assert dice(*tp, empty=1.0) == pytest.approx(case["dice"][0][0], abs=1e-6)
        checked += 1
    assert checked >= 20


def test_unequal_shapes_are_named():
    message = (
        "dice: the counts have the shapes (2,), (2,), (3,). They must be one shape. "
        "Give one overlap and two mask sizes for each case."
    )
    with pytest.raises(MaskShapeError, match="^" + re.escape(message) + "$"):
        dice([1, 1], [1, 1], [1, 1, 1], empty=1.0)


@pytest.mark.parametrize("counts", [(9, 4, 12), (-1, 4, 12), (0, -4, 12)])
def test_impossible_counts_are_refused(counts):
    message = (
        f"iou: 1 of 2 cases have impossible counts, the first {counts[0]} shared by masks of "
        f"{counts[1]} and 12 pixels. An overlap lies between 0 and the smaller mask. "
        "The scores are damaged: run again with --fresh."
    )
    with pytest.raises(RunError, match="^" + re.escape(message) + "$"):
        iou(*zip((1, 2, 3), counts, strict=True), empty=1.0)


@pytest.mark.parametrize(
    ("metric", "threshold", "expected"),
    [
        (Metric(), 0.5, "dice|res:model|thr:0.5|empty:1|gt:>127|v:1"),
        (Metric(empty="nan"), 0.35, "dice|res:model|thr:0.35|empty:nan|gt:>127|v:1"),
        (
            SimpleNamespace(resolution="native", empty="zero"),
            0.5,
            "dice|res:native|thr:0.5|empty:0|gt:>127|v:1",
        ),
    ],
)
def test_the_signature_holds_what_changes_a_number(metric, threshold, expected):
    assert signature(metric, threshold) == expected
