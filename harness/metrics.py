"""From pixel counts to overlap scores, one value for each case, and the signature of a number.

Conventions: counts are pixels, integers >= 0 of any shape; NaN stands for a count
that is not known and gives NaN. ``tp`` counts the pixels that both masks share.
Scores are float64, dimensionless, in [0, 1], higher is better. Nothing here
averages: the order of averages changes a result and belongs to `harness.stats`.
"""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness.errors import MaskShapeError, RunError

Scores = NDArray[np.float64]

METRIC_VERSION = 1
"""Raised whenever a change of code changes a score: part of every signature."""

EMPTY_SCORES: Mapping[str, float] = MappingProxyType({"one": 1.0, "zero": 0.0, "nan": np.nan})
"""Score of a case in which both masks are empty, by the suite's `empty` rule."""


REFUSAL_PIXELS = 10
"""However small a picture, a mask of at most so many pixels counts as empty."""


class MetricSettings(Protocol):
    """What a signature needs to know of a suite's metric."""

    @property
    def resolution(self) -> str:
        """``model`` or ``native``: the size at which masks are compared."""

    @property
    def empty(self) -> str:
        """A key of `EMPTY_SCORES`."""


def dice(tp: ArrayLike, n_pred: ArrayLike, n_gt: ArrayLike, *, empty: float) -> Scores:
    """Dice overlap ``2 tp / (n_pred + n_gt)`` of a predicted and a true mask.

    Args:
        tp: Pixels in both masks.
        n_pred: Pixels of the predicted mask, same shape.
        n_gt: Pixels of the true mask, same shape.
        empty: Score of a case in which both masks are empty. The reference
            says 1; NaN says "undefined", so that no mean can absorb it unseen.

    Returns:
        Scores of the same shape. A case in which one mask alone is empty scores 0.

    Raises:
        MaskShapeError: The three shapes differ.
        RunError: A count is negative, or an overlap is larger than a mask.

    References:
        L. R. Dice, Ecology 26(3):297-302, 1945. doi:10.2307/1932409

    Example:
        >>> dice([1, 0, 0], [2, 3, 0], [1, 0, 0], empty=1.0).round(3)
        array([0.667, 0.   , 1.   ])
    """
    shared, predicted, true = _counts("dice", tp, n_pred, n_gt)
    return _ratio(2 * shared, predicted + true, empty)


def iou(tp: ArrayLike, n_pred: ArrayLike, n_gt: ArrayLike, *, empty: float) -> Scores:
    """Intersection over union ``tp / (n_pred + n_gt - tp)``, also called Jaccard index.

    Args:
        tp: Pixels in both masks.
        n_pred: Pixels of the predicted mask, same shape.
        n_gt: Pixels of the true mask, same shape.
        empty: Score of a case in which both masks are empty.

    Returns:
        Scores of the same shape; ``dice / (2 - dice)`` wherever a mask has a pixel.

    Raises:
        MaskShapeError: The three shapes differ.
        RunError: A count is negative, or an overlap is larger than a mask.

    References:
        P. Jaccard, New Phytologist 11(2):37-50, 1912.
        doi:10.1111/j.1469-8137.1912.tb05611.x

    Example:
        >>> iou([1, 0, 0], [2, 3, 0], [1, 0, 0], empty=1.0)
        array([0.5, 0. , 1. ])
    """
    shared, predicted, true = _counts("iou", tp, n_pred, n_gt)
    return _ratio(shared, predicted + true - shared, empty)


def agreement(tp_original: ArrayLike, n_pred: ArrayLike, n_pred_original: ArrayLike) -> Scores:
    """Dice between the masks for a changed prompt and for its original; needs no ground truth.

    Args:
        tp_original: Pixels in both predicted masks.
        n_pred: Pixels of the mask for the changed prompt, same shape.
        n_pred_original: Pixels of the mask for the original prompt, same shape.

    Returns:
        Scores of the same shape. Two empty masks agree (1) whatever the suite's
        rule for Dice says: the mask did not move. They are counted apart.

    Raises:
        MaskShapeError: The three shapes differ.
        RunError: A count is negative, or an overlap is larger than a mask.

    References:
        L. R. Dice, Ecology 26(3):297-302, 1945. doi:10.2307/1932409

    Example:
        >>> agreement([4, 0], [4, 0], [4, 0])
        array([1., 1.])
    """
    shared, changed, original = _counts("agreement", tp_original, n_pred, n_pred_original)
    return _ratio(2 * shared, changed + original, 1.0)


METRICS: Mapping[str, Callable[..., Scores]] = MappingProxyType(
    {"dice": dice, "iou": iou, "agreement": agreement}
)


ABOVE_HALF = ">127"
"""The rule for masks of more than half of 8 bits: what runs that name none were read by."""


def combined_rule(rules: Mapping[str, str]) -> str:
    """The rules for the masks of several datasets as one; each by name where they differ.

    Example:
        >>> combined_rule({"a": ">127", "b": ">127"}), combined_rule({"a": ">127", "b": "auto"})
        ('>127', 'a>127,b:auto')
    """
    if len(set(rules.values())) <= 1:
        return next(iter(rules.values()), ABOVE_HALF)
    parts = sorted(rules.items())
    return ",".join(name + (":" if rule[0].isalpha() else "") + rule for name, rule in parts)


ELSEWHERE = "thr:elsewhere"
"""In place of a threshold where masks come from another program."""


def signature(metric: MetricSettings, threshold: float, foreground: str = ABOVE_HALF) -> str:
    """What fixes the meaning of a number; numbers of different signatures are never compared.

    Args:
        metric: Resolution and rule for empty masks.
        threshold: Probability above which a pixel belongs to the mask, in (0, 1); NaN where masks
            were made elsewhere, by whatever rule.
        foreground: The rule for the true masks: ``>127``, ``auto`` (what each file holds),
            ``nonzero``, ``=2``, ``g:auto`` and so on; see `harness.data.foreground`.

    Returns:
        Fields divided by ``|``: metric, resolution, threshold, score of two empty
        masks, rule for the true masks, version.

    Example:
        >>> from types import SimpleNamespace
        >>> signature(SimpleNamespace(resolution="model", empty="one"), 0.5)
        'dice|res:model|thr:0.5|empty:1|gt:>127|v:1'
    """
    empty = f"{EMPTY_SCORES[metric.empty]:g}"
    cut = ELSEWHERE if math.isnan(threshold) else f"thr:{threshold:g}"
    fields = ["dice", f"res:{metric.resolution}", cut, f"empty:{empty}"]
    return "|".join([*fields, f"gt:{foreground}", f"v:{METRIC_VERSION}"])


def _counts(name: str, *counts: ArrayLike) -> list[Scores]:
    arrays = [np.asarray(c, dtype=np.float64) for c in counts]
    if len({a.shape for a in arrays}) > 1:
        shapes = ", ".join(str(a.shape) for a in arrays)
        raise MaskShapeError(
            f"{name}: the counts have the shapes {shapes}. They must be one shape. "
            "Give one overlap and two mask sizes for each case."
        )
    shared, first, second = arrays
    wrong = (shared < 0) | (shared > np.minimum(first, second))
    if wrong.any():
        at = np.flatnonzero(wrong)[0]
        sizes = f"{shared.flat[at]:g} shared by masks of {first.flat[at]:g} and {second.flat[at]:g}"
        raise RunError(
            f"{name}: {int(wrong.sum())} of {wrong.size} cases have impossible counts, the first "
            f"{sizes} pixels. An overlap lies between 0 and the smaller mask. "
            "The scores are damaged: run again with --fresh."
        )
    return arrays


def _ratio(part: Scores, whole: Scores, empty: float) -> Scores:
    scores = np.where(whole == 0, empty, part / np.where(whole == 0, 1, whole))
    return np.where(np.isnan(part), np.nan, scores)
