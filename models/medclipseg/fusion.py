"""MedCLIPSeg's probabilistic adapters between two towers, and its mask head.

Conventions: T image tokens ``(N, T, V)``, class token first; L text tokens ``(N, L, W)``;
C is the adapters' width. A draw is a function of a shape that returns standard normal
numbers for *one* row, which all N rows of a call share; without one the means are used.

Quirks that change results, kept on purpose:

- A value is drawn in evaluation too; a key's variance enters by its expected effect, as a
  penalty on the scores, weighted by `beta`.
- No mask: the image attends to the text's padding, and the padding to the image.
- The text attends to the image that has already been changed.
- The gate mixes with the query itself, before its projection. Only means are normalised.

Source: MedCLIPSeg, CVPR 2026.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, softplus

Draw = Callable[[tuple[int, ...]], Tensor]
_LEAST_VARIANCE = 1e-6


class Attention(nn.Module):
    """One head of attention whose keys and values are normal distributions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, 2 * width)
        self.v_proj = nn.Linear(width, 2 * width)
        self.out_proj = nn.Linear(width, width)
        self.norm_k = nn.LayerNorm(width)
        self.norm_v = nn.LayerNorm(width)
        self.gate = nn.Parameter(torch.zeros(()))

    def forward(self, query: Tensor, context: Tensor, *, beta: float, draw: Draw | None) -> Tensor:
        """``(N, Q, C)`` attends to ``(N, K, C)``."""
        asked = self.q_proj(query)
        key_mean, key_raw = self.k_proj(context).chunk(2, dim=-1)
        value, value_raw = self.v_proj(context).chunk(2, dim=-1)
        key_variance = softplus(key_raw) + _LEAST_VARIANCE
        width = query.shape[-1]
        scores = asked @ self.norm_k(key_mean).transpose(1, 2) / width**0.5
        doubt = asked.square() @ key_variance.transpose(1, 2) / width
        weights = (scores - beta * doubt.sqrt()).softmax(dim=-1)
        value = self.norm_v(value)
        if draw is not None:
            noise = draw((1, *value.shape[1:])).to(value)
            value = value + (softplus(value_raw) + _LEAST_VARIANCE).sqrt() * noise
        share = self.gate.sigmoid()
        mixed: Tensor = share * self.out_proj(weights @ value) + (1 - share) * query
        return mixed


class TwoWay(nn.Module):
    """Image to text, then text to the changed image; names are the published keys'."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cross_attn_img_to_txt = Attention(width)
        self.cross_attn_txt_to_img = Attention(width)


class FusionAdapter(nn.Module):
    """What one layer adds to the tokens of both towers."""

    def __init__(self, vision: int, text: int, width: int) -> None:
        super().__init__()
        self.proj_vis_down = nn.Sequential(nn.Linear(vision, width, bias=False))
        self.proj_txt_down = nn.Linear(text, width, bias=False)
        self.proj_vis_up = nn.Linear(width, vision, bias=False)
        self.proj_txt_up = nn.Linear(width, text, bias=False)
        self.two_way = TwoWay(width)

    def forward(
        self, image: Tensor, text: Tensor, *, beta: float, draw: Draw | None
    ) -> tuple[Tensor, Tensor]:
        """Tokens of both -> the increments of both."""
        seen, read = self.proj_vis_down(image), self.proj_txt_down(text)
        seen = self.two_way.cross_attn_img_to_txt(seen, read, beta=beta, draw=draw)
        read = self.two_way.cross_attn_txt_to_img(read, seen, beta=beta, draw=draw)
        return self.proj_vis_up(seen), self.proj_txt_up(read)


class Upscale(nn.Module):
    """Twice the side."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.ConvTranspose2d(width, width, 2, stride=2)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, maps: Tensor) -> Tensor:
        """``(N, C, h, w)`` -> ``(N, C, 2h, 2w)``."""
        maps = self.conv2(gelu(self.conv1(maps)))
        normed: Tensor = self.norm(maps.permute(0, 2, 3, 1))
        return normed.permute(0, 3, 1, 2)


def mask_head(width: int) -> nn.Sequential:
    """From the text's vector to the vector that scores every place."""
    layers = [nn.Linear(width, width) for _ in range(3)]
    return nn.Sequential(layers[0], nn.GELU(), layers[1], nn.GELU(), layers[2])
