"""Pixel counts of masks: plain sums, on the device where the masks are.

Conventions: masks are bool ``(N, H, W)``; counts are int64 ``(N,)`` pixels.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor


def overlap(first: Tensor, second: Tensor) -> Tensor:
    """Pixels that are foreground in both masks, one count a pair."""
    return area(torch.logical_and(first, second))


def area(masks: Tensor) -> Tensor:
    """Foreground pixels of each mask ``(..., H, W)``, int64 ``(...)``."""
    if masks.device.type != "cpu":
        return masks.sum(dim=(-2, -1))
    # numpy counts bytes that are not zero; torch would first widen each to eight.
    rows = masks.numpy().reshape(-1, masks.shape[-2] * masks.shape[-1])
    counts = torch.tensor([np.count_nonzero(row) for row in rows], dtype=torch.int64)
    return counts.reshape(masks.shape[:-2])


def is_finite(logits: Tensor) -> Tensor:
    """Whether every logit of a mask is a finite number, ``(N, H, W)`` -> bool ``(N,)``."""
    if logits.device.type != "cpu":
        return torch.isfinite(logits).flatten(1).all(dim=1)  # nothing that waits for the device
    # A sum is finite only if its terms are, and many times cheaper to look at. It may
    # overflow where they are finite, so that only a suspicion is looked into.
    finite = torch.isfinite(logits.sum(dim=(-2, -1)))
    return finite if finite.all() else torch.isfinite(logits).flatten(1).all(dim=1)


def resize_mask(mask: NDArray[np.bool_], height: int, width: int) -> NDArray[np.bool_]:
    """Nearest-neighbour resize of a mask, the reference's rule for ground truth."""
    if mask.shape == (height, width):
        return mask
    picture = Image.fromarray(mask.astype(np.uint8) * 255)
    return np.asarray(picture.resize((width, height), Image.Resampling.NEAREST)) > 127
