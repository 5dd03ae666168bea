"""Distances between contours: hand-made figures, plain loops, laws, and another library."""

import math
import tracemalloc

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.engine.surface import contour, surface_distances

pairs = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9).flatmap(
    lambda shape: st.tuples(hnp.arrays(bool, shape), hnp.arrays(bool, shape))
)
filled = pairs.filter(lambda pair: pair[0].any() and pair[1].any())


def mask(*rows):
    return np.array([[c == "#" for c in row] for row in rows])


def slow_contour(one):
    """Pixels of the mask with a 4-neighbour that is outside it, or outside the picture."""
    height, width = one.shape
    found = []
    for r, c in np.argwhere(one).tolist():
        around = [(r - 1, c), (r + 1, c), (r, c - 1), (r, c + 1)]
        inside = [0 <= i < height and 0 <= j < width and one[i, j] for i, j in around]
        if not all(inside):
            found.append((r, c))
    return found


def slow_percentile(values, share):
    """Linear between order statistics."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def slow_figures(first, second, tolerance):
    """Hausdorff distance, hd95 and nsd: every pair of contour pixels."""
    ours, theirs = slow_contour(first), slow_contour(second)
    if not ours and not theirs:
        return math.nan, math.nan, math.nan
    if not ours or not theirs:
        return math.nan, math.nan, 0.0
    there = [min(math.dist(p, q) for q in theirs) for p in ours]
    back = [min(math.dist(p, q) for p in ours) for q in theirs]
    near = sum(d <= tolerance for d in there + back) / len(there + back)
    hd95 = max(slow_percentile(there, 0.95), slow_percentile(back, 0.95))
    return max(there + back), hd95, near


def figures(first, second, tolerance=1.0):
    found = surface_distances(first, second)
    return found.hausdorff, found.hd95, found.nsd(tolerance)


@given(pairs, st.sampled_from([0.0, 1.0, 1.5, 3.0]))
def test_figures_are_those_of_plain_loops(pair, tolerance):
    first, second = pair
    assert np.argwhere(contour(first)).tolist() == [list(p) for p in slow_contour(first)]
    expected = slow_figures(first, second, tolerance)
    assert figures(first, second, tolerance) == pytest.approx(expected, nan_ok=True)


@given(filled, st.floats(0, 5))
def test_laws(pair, tolerance):
    first, second = pair
    found = figures(first, second, tolerance)
    hausdorff, hd95, nsd = found
    assert 0 <= hd95 <= hausdorff < math.hypot(*first.shape)
    assert 0 <= nsd <= 1
    assert figures(second, first, tolerance) == pytest.approx(found), "symmetric"
    assert figures(first, first, tolerance) == (0, 0, 1), "nothing between a mask and itself"
    assert nsd <= figures(first, second, tolerance + 1)[2], "a larger tolerance forgives more"
    turned = figures(first.T, second.T, tolerance)
    assert turned == pytest.approx(found)


@given(filled, st.integers(1, 3), st.integers(1, 3))
def test_figures_do_not_depend_on_the_place(pair, down, right):
    """Both masks moved together, with background around them."""
    first, second = (np.pad(one, 1) for one in pair)
    moved = [np.pad(one, ((down, 0), (right, 2))) for one in (first, second)]
    assert figures(*moved) == pytest.approx(figures(first, second))


def test_figures_of_two_masks_by_hand():
    """A 3 x 3 square, all but its centre contour, beside one pixel two columns to its right."""
    square = mask("......", "###...", "###...", "###...", "......")
    point = mask("......", "......", "....#.", "......", "......")
    assert contour(square).sum() == 8
    # From the square: 2 (nearest column: 2, sqrt 5 twice), middle column sqrt 10 twice,
    # far column 4 and sqrt 17 twice. From the point: 2.
    found = surface_distances(square, point)
    ours = sorted([2, 5**0.5, 5**0.5, 10**0.5, 10**0.5, 4, 17**0.5, 17**0.5])
    assert sorted(found.predicted) == pytest.approx(ours)
    assert found.true.tolist() == [2]
    assert found.hausdorff == pytest.approx(17**0.5)
    assert found.hd95 == pytest.approx(17**0.5), "place 6.65 of 0 to 7: both neighbours are equal"
    assert found.nsd(2) == pytest.approx(2 / 9)
    assert found.nsd(2.5) == pytest.approx(4 / 9)


def test_hd95_is_the_larger_of_two_percentiles_and_not_that_of_the_union():
    line = mask("#" * 21)
    ends = mask("#" + "." * 20)
    found = surface_distances(line, ends)
    assert found.hausdorff == 20
    assert found.hd95 == pytest.approx(19), "95 % of 0 to 20; with the one 0 of the other: 18.95"


def test_one_empty_mask_has_no_distance_and_two_have_nothing():
    empty, full = np.zeros((4, 4), dtype=bool), np.ones((4, 4), dtype=bool)
    for pair in ((empty, full), (full, empty)):
        hausdorff, hd95, nsd = figures(*pair)
        assert math.isnan(hausdorff)
        assert math.isnan(hd95)
        assert nsd == 0
    assert all(map(math.isnan, figures(empty, empty)))


def test_the_hausdorff_distance_is_that_of_torchmetrics():
    """On 60 small square pairs: its memory grows with the pairs of contour pixels, and on other
    shapes it mixes up rows and columns."""
    from torchmetrics.functional.segmentation import hausdorff_distance

    rng = np.random.default_rng(0)
    for k in range(60):
        shape = (int(rng.integers(8, 33)),) * 2
        first, second = (rng.random(shape) < rng.uniform(0.02, 0.9) for _ in range(2))
        if k % 2:  # blobs instead of noise
            first, second = (np.cumsum(one, axis=0) % 5 > 2 for one in (first, second))
        first[0, 0] = second[-1, -1] = True
        tensors = [torch.from_numpy(one)[None, None].long() for one in (first, second)]
        expected = float(hausdorff_distance(*tensors, num_classes=1).squeeze())
        assert surface_distances(first, second).hausdorff == pytest.approx(expected)


def test_memory_grows_with_the_pixels_and_not_with_their_pairs():
    """A noisy pair of 224 x 224 pixels: all its pairs of contour pixels would take 8 GiB."""
    rng = np.random.default_rng(0)
    first, second = rng.random((2, 224, 224)) < 0.5
    surface_distances(first, second)  # what is imported stays
    tracemalloc.start()
    found = surface_distances(first, second)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.hausdorff >= 1
    assert peak < 8 * 2**20
