"""CRIS's vision-language decoder and its text-to-pixel projector.

Conventions: a map is ``(N, C, h, w)``; the decoder works on its h * w tokens, row by
row, ``(N, h * w, C)``. Words are the text tower's last states ``(N, L, C)``, not
projected; `ignored` ``(N, L)`` is true at words that nothing may attend to. Dropout
acts in training only.

Source: arXiv 2111.15174, section 3.3 (decoder) and 3.4 (projector).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import fold

from .neck import unit


def waves(length: int, width: int) -> Tensor:
    """Sines and cosines of a position, interleaved, ``(length, width)``."""
    rates = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
    angles = torch.arange(length)[:, None] * rates  # (length, width / 2)
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)


def plane_waves(height: int, width: int, channels: int) -> Tensor:
    """Positions of a plane, ``(height * width, channels)``: the column first, then the row."""
    columns = waves(width, channels // 2).expand(height, -1, -1)
    rows = waves(height, channels // 2)[:, None].expand(-1, width, -1)
    return torch.cat([columns, rows], dim=2).flatten(0, 1)


class _Layer(nn.Module):
    """Self-attention, attention to the words, feed-forward; names are the published keys'."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.multihead_attn = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.self_attn_norm = nn.LayerNorm(width)
        self.cross_attn_norm = nn.LayerNorm(width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.norm3 = nn.LayerNorm(width)
        self.ffn = nn.Sequential(
            nn.Linear(width, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.LayerNorm(hidden),
            nn.Linear(hidden, width),
        )
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, tokens: Tensor, places: Tensor, words: Tensor, orders: Tensor, ignored: Tensor | None
    ) -> Tensor:
        calm = self.norm1(tokens)
        where = calm + places
        attended, _ = self.self_attn(where, where, calm, need_weights=False)
        tokens = tokens + self.dropout(self.self_attn_norm(attended))
        attended, _ = self.multihead_attn(
            self.norm2(tokens) + places,
            words + orders,
            words,
            key_padding_mask=ignored,
            need_weights=False,
        )
        tokens = tokens + self.dropout(self.cross_attn_norm(attended))
        updated: Tensor = tokens + self.dropout(self.ffn(self.norm3(tokens)))
        return updated


class Decoder(nn.Module):
    """Lets every place of the image attend to every word."""

    def __init__(
        self, *, layers: int, width: int, heads: int, hidden: int, words: int, dropout: float
    ) -> None:
        """Build the layers.

        Args:
            layers: How many.
            width: Channels of maps and words; a multiple of 4 and of `heads`.
            heads: Attention heads.
            hidden: Width of the feed-forward part.
            words: Length of the texts.
            dropout: Probability, in training.
        """
        super().__init__()
        self.layers = nn.ModuleList(_Layer(width, heads, hidden, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.register_buffer("_orders", waves(words, width), persistent=False)
        self._places: dict[tuple[int, int, torch.device], Tensor] = {}

    def forward(self, maps: Tensor, words: Tensor, ignored: Tensor | None) -> Tensor:
        """``(N, C, h, w)`` with words ``(N, L, C)`` -> ``(N, C, h, w)``."""
        height, width = maps.shape[2:]
        places = self._places_of(height, width, maps)
        tokens = maps.flatten(2).transpose(1, 2)  # (N, h * w, C)
        for layer in self.layers:
            tokens = layer(tokens, places, words, self._orders, ignored)
        calm: Tensor = self.norm(tokens)
        return calm.transpose(1, 2).reshape(maps.shape)

    def _places_of(self, height: int, width: int, maps: Tensor) -> Tensor:
        key = (height, width, maps.device)
        if key not in self._places:
            self._places[key] = plane_waves(height, width, maps.shape[1]).to(maps.device)
        return self._places[key]


class Projector(nn.Module):
    """Scores every pixel with a 3 x 3 kernel made of the sentence."""

    def __init__(self, *, sentence: int, width: int) -> None:
        """Build the layers: `sentence` is its vector's width, `width` the channels of a score."""
        super().__init__()
        self.vis = nn.Sequential(
            nn.Upsample(scale_factor=2, mode="bilinear"),
            unit(2 * width, 2 * width, 3),
            nn.Upsample(scale_factor=2, mode="bilinear"),
            unit(2 * width, width, 3),
            nn.Conv2d(width, width, 1),
        )
        self.txt = nn.Linear(sentence, 9 * width + 1)

    def kernels(self, sentence: Tensor) -> Tensor:
        """``(N, D)`` -> kernels channel by channel, row by row, and last the bias."""
        kernels: Tensor = self.txt(sentence)
        return kernels

    def forward(self, maps: Tensor, kernels: Tensor) -> Tensor:
        """Maps ``(N, 2 width, h, w)``, their kernels ``(N, 9 width + 1)`` -> ``(N, 4h, 4w)``."""
        seen: Tensor = self.vis(maps)
        n, channels, height, width = seen.shape
        # A convolution with one group an image is slow in every library: instead all nine products
        # of a place with its image's kernel at once, and then their sums along the diagonals.
        weight = kernels[:, :-1].reshape(n, channels, 9).flip(2).transpose(1, 2)
        with torch.autocast(seen.device.type, enabled=False):  # rounded once, as a convolution is
            products = torch.bmm(weight.float(), seen.float().flatten(2))  # (N, 9, h * w)
            scores = fold(products, (height, width), kernel_size=3, padding=1)
        return scores.squeeze(1) + kernels[:, -1, None, None]
