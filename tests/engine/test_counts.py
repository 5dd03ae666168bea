"""Masks are cut strictly above the threshold and resized as the reference does."""

import math

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.engine.counts import area, is_finite, overlap, resize_mask
from harness.model.features import binarise


@given(
    st.floats(0.05, 0.95),
    st.lists(st.floats(-20, 20, allow_nan=False), min_size=1, max_size=20),
)
def test_thresholding_logits_is_thresholding_probabilities(threshold, values):
    logits = torch.tensor(values, dtype=torch.float64)
    cut = math.log(threshold / (1 - threshold))
    clear = (logits - cut).abs() > 1e-9
    same = binarise(logits, threshold) == (torch.sigmoid(logits) > threshold)
    assert bool(same[clear].all())


def test_a_logit_at_the_threshold_is_background():
    assert not binarise(torch.tensor([0.0]), 0.5).any()


def test_resizing_by_nearest_repeats_and_drops_pixels():
    mask = np.array([[True, False], [False, True]])
    assert resize_mask(mask, 4, 2).tolist() == [[True, False]] * 2 + [[False, True]] * 2
    assert (resize_mask(resize_mask(mask, 6, 6), 2, 2) == mask).all()


masks = hnp.array_shapes(min_dims=2, max_dims=4, min_side=1, max_side=6).flatmap(
    lambda shape: st.tuples(hnp.arrays(bool, shape), hnp.arrays(bool, shape))
)


@given(masks)
def test_counts_are_sums_of_pixels(pair):
    first, second = map(torch.from_numpy, pair)
    assert torch.equal(area(first), first.sum(dim=(-2, -1)))
    assert torch.equal(overlap(first, second), (first & second).sum(dim=(-2, -1)))
    turned = first.transpose(-2, -1)  # not contiguous
    assert torch.equal(area(turned), area(first))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_mask_is_finite_when_all_its_logits_are(bad):
    logits = torch.zeros(4, 3, 5)
    logits[1, 2, 4] = bad
    logits[2] = 3e38  # finite, but its sum is not
    logits[3, 0, 0], logits[3, 0, 1] = bad, -bad
    assert is_finite(logits).tolist() == [True, False, True, False]
    assert is_finite(logits[:1]).tolist() == [True]
