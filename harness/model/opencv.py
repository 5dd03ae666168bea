"""Pictures as OpenCV resizes them, for models whose training read them with it.

Conventions: no antialiasing, values rounded to whole numbers in 0 to 255. OpenCV computes
with fixed-point weights, so that single values may differ by one.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from harness.model.contract import Picture


def standardise_as_opencv(
    image: Picture,
    size: tuple[int, int],
    *,
    method: Literal["bilinear", "bicubic"],
    mean: Sequence[float],
    std: Sequence[float],
    order: Literal["RGB", "BGR"] = "RGB",
) -> Tensor:
    """Resize a picture (aspect not kept) and standardise it.

    Args:
        image: ``(H, W, 3)`` uint8 RGB, or a PIL image of any mode.
        size: Height and width wanted.
        method: ``INTER_LINEAR`` or ``INTER_CUBIC``.
        mean: Per channel in the order that the model sees, of values in [0, 1].
        std: Same.
        order: Of the channels that the model sees.

    Returns:
        float32 ``(3, *size)``.
    """
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    values = torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1).float()[None]
    if values.shape[2:] != size:
        values = interpolate(values, size=size, mode=method, align_corners=False, antialias=False)
    whole = values[0].round().clamp(0, 255) / 255
    if order == "BGR":
        whole = whole.flip(0)
    centre, spread = (torch.tensor(v, dtype=torch.float32).view(3, 1, 1) for v in (mean, std))
    return (whole - centre) / spread
