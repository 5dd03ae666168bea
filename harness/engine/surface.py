"""Distances between the contours of two masks, by distance transforms.

Conventions: masks are bool ``(H, W)``. The *contour* of a mask are its pixels with at least one
of their four neighbours outside the mask; outside the picture is outside the mask. Distances are
Euclidean, between centres of pixels, in pixels of the masks as they are compared (those of the
metric's resolution; a pixel is 1 x 1, whatever it measures in millimetres). Each contour pixel of
one mask has its distance to the nearest contour pixel of the other.

Where one mask is empty there is no distance (NaN), and no contour pixel lies near another (NSD
0); where both are, nothing is defined (NaN).

References:
    S. Nikolov et al., Clinically applicable segmentation of head and neck anatomy, J. Med.
    Internet Res. 23(7):e26151, 2021. doi:10.2196/26151
    L. Maier-Hein et al., Metrics reloaded, Nat. Methods 21:195-212, 2024.
    doi:10.1038/s41592-023-02151-z
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


class Distances(NamedTuple):
    """Distance of each contour pixel to the other contour, pixels.

    Attributes:
        predicted: From the predicted mask's contour to the true one's, ``(P,)``.
        true: The other way round, ``(T,)``. Where a mask is empty its own distances are none,
            and the other's are infinite.
    """

    predicted: NDArray[np.float64]
    true: NDArray[np.float64]

    @property
    def hausdorff(self) -> float:
        """The largest distance; NaN where a mask is empty."""
        return self._percentile(100)

    @property
    def hd95(self) -> float:
        """The larger of the two directions' 95th percentiles (linear); NaN as above."""
        return self._percentile(95)

    def _percentile(self, level: float) -> float:
        if not (self.predicted.size and self.true.size):
            return math.nan
        return float(max(np.percentile(own, level) for own in self))

    def nsd(self, tolerance: float) -> float:
        """Normalised surface Dice: share of both contours' pixels within `tolerance` pixels."""
        whole = np.concatenate(self)
        return float(np.mean(whole <= tolerance)) if whole.size else math.nan


def contour(mask: Mask) -> Mask:
    """Pixels of a mask with one of their four neighbours outside it."""
    padded = np.pad(mask, 1)
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inside


def surface_distances(predicted: Mask, true: Mask) -> Distances:
    """Distances between the contours of two masks of one shape.

    Memory grows with the pixels, not with their pairs.
    """
    edges = contour(predicted), contour(true)
    either = edges[0] | edges[1]
    rows, columns = (np.flatnonzero(either.any(axis=k)) for k in (1, 0))
    if rows.size:
        # No shortest way leaves the box around both contours.
        box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        edges = edges[0][box], edges[1][box]
    to_predicted, to_true = map(_distance_to, edges)
    return Distances(to_true[edges[0]], to_predicted[edges[1]])


def _distance_to(edge: Mask) -> NDArray[np.float64]:
    """Distance of each pixel to the nearest one of an edge; infinite without any."""
    from scipy.ndimage import distance_transform_edt

    if not edge.any():
        return np.full(edge.shape, np.inf)
    return np.asarray(distance_transform_edt(~edge))
