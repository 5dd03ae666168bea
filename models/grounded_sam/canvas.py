"""Two pictures in one tensor: what the detector sees, and what the segmenter sees.

The segmenter's keeps the aspect of the picture; the detector's is what its processor makes.
They stand one below the other, each in its upper left corner::

    rows 0 to D - 1        the detector's, at most D x W
    rows D to D + S - 1    the segmenter's, its longer side S

Everything else is zero. No pixel of a picture is: standardised with ImageNet's mean a
channel is zero at 123.675, 116.28 and 103.53 of 255, which no whole number is. So the
sizes of pictures that are not padded otherwise can be read off the tensor again.

Conventions: sizes are ``(height, width)`` in pixels, int64 ``(N, 2)`` for N pictures.
"""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from harness.models import Picture


class Canvas:
    """Lays out and takes apart the pixels of one picture or of many."""

    def __init__(
        self, detecting: Callable[[], Any], size: tuple[int, int], *, segmenter_side: int
    ) -> None:
        """Lay pictures out.

        Args:
            detecting: Makes the detector's own processor of pictures, when it is needed.
            size: Height and width that its pictures have at most.
            segmenter_side: S.
        """
        self._detecting, self.detector_size = detecting, size
        self.segmenter_side = segmenter_side
        self.size = (size[0] + segmenter_side, max(size[1], segmenter_side))

    @cached_property
    def _processors(self) -> tuple[Any, Any]:
        from transformers import SamImageProcessor

        side = self.segmenter_side
        return (
            self._detecting(),
            SamImageProcessor(
                size={"longest_edge": side}, pad_size={"height": side, "width": side}
            ),
        )

    def lay_out(self, image: Picture) -> Tensor:
        """One picture of any size and mode -> ``(3, *size)``, by the models' own processors."""
        # As arrays, pictures three pixels high would be taken for channels first.
        picture = image if isinstance(image, Image.Image) else Image.fromarray(np.asarray(image))
        canvas = torch.zeros(3, *self.size)
        for processor, top in zip(self._processors, (0, self.detector_size[0]), strict=True):
            pixels = processor(picture.convert("RGB"), return_tensors="pt").pixel_values[0]
            height, width = pixels.shape[1:]
            canvas[:, top : top + height, :width] = pixels
        return canvas

    def detector_pixels(self, pixels: Tensor) -> Tensor:
        """``(N, 3, D, W)``, padding included."""
        height, width = self.detector_size
        return pixels[:, :, :height, :width]

    def segmenter_pixels(self, pixels: Tensor) -> Tensor:
        """``(N, 3, S, S)``, padding included."""
        return pixels[:, :, self.detector_size[0] :, : self.segmenter_side]


def seen_sizes(pixels: Tensor) -> Tensor:
    """Height and width of what is not padding, ``(N, 3, H, W)`` -> ``(N, 2)``.

    Zeros alone are taken for a picture that fills its place.
    """
    is_seen = (pixels != 0).any(dim=1)  # (N, H, W)
    heights, widths = is_seen.any(dim=2).sum(dim=1), is_seen.any(dim=1).sum(dim=1)
    sizes = torch.stack([heights, widths], dim=1)
    # No picture is all padding; zeros stand for one where memory or speed is measured.
    return torch.where(sizes == 0, sizes.new_tensor(pixels.shape[-2:]), sizes)
