"""CRIS's neck: three scales of the image, and the sentence vector that enters first.

Conventions: h = w is the side of the middle scale V4 (input / 16); feature maps are
``(N, C, side, side)``; s is the sentence vector after `project`, ``(N, C5, 1, 1)``.
All upsampling is bilinear with ``align_corners=False``. A *unit* is convolution
without bias, batch norm, ReLU.

`forward` follows the paper's text. `visual` and `fuse` are the same sum in two steps:
what contains no text, and the rest. They use that a convolution over concatenated maps
is a sum of convolutions over each, and that a 1 x 1 convolution without bias commutes
with upsampling; they differ from `forward` by rounding only.

Source: Z. Wang et al., "CRIS: CLIP-Driven Referring Image Segmentation", CVPR 2022,
arXiv 2111.15174, section 3.2 and equation 1 to 4.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d, interpolate


def unit(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    """Convolution without bias that keeps the size, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


def upsample(maps: Tensor) -> Tensor:
    """Twice the side."""
    return interpolate(maps, scale_factor=2, mode="bilinear", align_corners=False)


def coordinates(maps: Tensor) -> Tensor:
    """Two ramps from -1 to 1, ``(N, 2, h, w)``: along the width, then along the height."""
    n, _, height, width = maps.shape
    ramps = [
        torch.linspace(-1, 1, size, device=maps.device, dtype=maps.dtype)
        for size in (width, height)
    ]
    across = ramps[0].expand(height, width)
    down = ramps[1][:, None].expand(height, width)
    return torch.stack([across, down]).expand(n, -1, -1, -1)


class _CoordinateUnit(nn.Module):
    """A unit that sees where it is; the name of its part is that of the published keys."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = unit(inputs + 2, outputs, 3)

    def forward(self, maps: Tensor) -> Tensor:
        output: Tensor = self.conv1(torch.cat([maps, coordinates(maps)], dim=1))
        return output


class VisualTerms(NamedTuple):
    """The neck's terms that contain no text.

    `deep` ``(N, C5, h/2, h/2)``; `middle` and `shallow` ``(N, C4, h, h)`` are the shares of
    the visual maps in the two concatenating convolutions, before their batch norms.
    """

    deep: Tensor
    middle: Tensor
    shallow: Tensor


class Neck(nn.Module):
    """Fuses V3, V4, V5 and the sentence into one map ``(N, C4, h, h)``."""

    def __init__(
        self, inputs: tuple[int, int, int], outputs: tuple[int, int, int], *, sentence: int
    ) -> None:
        """Build the layers.

        Args:
            inputs: Channels of V3, V4 and V5.
            outputs: Channels C3, C4, C5 the scales are brought to.
            sentence: Width of the sentence vector.
        """
        super().__init__()
        c3, c4, c5 = outputs
        self.txt_proj = nn.Sequential(
            nn.Linear(sentence, c5, bias=False), nn.BatchNorm1d(c5), nn.ReLU()
        )
        self.f1_v_proj = unit(inputs[2], c5, 1)
        self.norm_layer = nn.Sequential(nn.BatchNorm2d(c5), nn.ReLU())
        self.f2_v_proj = unit(inputs[1], c4, 3)
        self.f2_cat = unit(c4 + c5, c4, 1)
        self.f3_v_proj = unit(inputs[0], c3, 3)
        self.f3_cat = unit(c3 + c4, c4, 1)
        self.f4_proj5 = unit(c5, c4, 3)
        self.f4_proj4 = unit(c4, c4, 3)
        self.f4_proj3 = unit(c4, c4, 3)
        self.aggr = unit(3 * c4, c4, 1)
        self.coordconv = nn.Sequential(_CoordinateUnit(c4, c4), unit(c4, c4, 3))

    def project(self, sentence: Tensor) -> Tensor:
        """The sentence vector ``(N, D)`` -> its factor s, ``(N, C5, 1, 1)``."""
        factor: Tensor = self.txt_proj(sentence)
        return factor[:, :, None, None]

    def forward(self, maps: tuple[Tensor, Tensor, Tensor], sentence: Tensor) -> Tensor:
        """Plainly: V3 ``(N, , 2h, 2h)``, V4 ``(N, , h, h)``, V5 ``(N, , h/2, h/2)`` and text."""
        v3, v4, v5 = maps
        f5 = self.norm_layer(self.f1_v_proj(v5) * self.project(sentence))
        f4 = self.f2_cat(torch.cat([self.f2_v_proj(v4), upsample(f5)], dim=1))
        pooled = avg_pool2d(self.f3_v_proj(v3), 2)
        f3 = self.f3_cat(torch.cat([pooled, f4], dim=1))
        return self._gather(f3, f4, f5)

    def visual(self, maps: tuple[Tensor, Tensor, Tensor]) -> VisualTerms:
        """Everything of `forward` that needs no text."""
        v3, v4, v5 = maps
        return VisualTerms(
            deep=self.f1_v_proj(v5),
            middle=_share(self.f2_cat, self.f2_v_proj(v4), first=True),
            shallow=_share(self.f3_cat, avg_pool2d(self.f3_v_proj(v3), 2), first=True),
        )

    def fuse(self, terms: VisualTerms, factor: Tensor) -> Tensor:
        """The rest of `forward`, from the visual terms and the factor s of `project`."""
        f5 = self.norm_layer(terms.deep * factor)
        f4 = self.f2_cat[1:](terms.middle + upsample(_share(self.f2_cat, f5, first=False)))
        f3 = self.f3_cat[1:](terms.shallow + _share(self.f3_cat, f4, first=False))
        return self._gather(f3, f4, f5)

    def _gather(self, f3: Tensor, f4: Tensor, f5: Tensor) -> Tensor:
        q5, q4, q3 = upsample(self.f4_proj5(f5)), self.f4_proj4(f4), self.f4_proj3(f3)
        gathered: Tensor = self.coordconv(self.aggr(torch.cat([q3, q4, q5], dim=1)))
        return gathered


def _share(concatenating: nn.Sequential, maps: Tensor, *, first: bool) -> Tensor:
    """What one of two concatenated maps adds to the 1 x 1 convolution over both."""
    weight: Tensor = concatenating.get_parameter("0.weight")
    width = maps.shape[1]
    return conv2d(maps, weight[:, :width] if first else weight[:, -width:])
