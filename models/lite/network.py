"""Fusion and decoder: where the text meets the picture.

Conventions: the pyramid is four maps ``(N, C_k, H_k, W_k)`` at strides 4, 8, 16 and 32;
`W` is the decoder's width, `D` the text's; logits are ``(N, S, S)`` for pixels of side S. Of a text
each fusion reads leaves of its own: `vector` ``(N, D)``, or `tokens` ``(N, L, D)`` and `mask`.
Two coordinates, x and y from -1 to 1, stand beside the channels of each map, so that a text
can name a place.

Sources: E. Perez et al., AAAI 2018, arXiv 1709.07871 (FiLM); A. Vaswani et al., NeurIPS 2017,
arXiv 1706.03762; T.-Y. Lin et al., CVPR 2017, arXiv 1612.03144 (feature pyramid).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

_HIDDEN = 256


class Film(nn.Module):
    """Scales and shifts every channel of every level by the sentence's vector."""

    def __init__(self, channels: Sequence[int], *, width: int, text_width: int) -> None:
        super().__init__()
        self.read = nn.Sequential(
            nn.LayerNorm(text_width), nn.Linear(text_width, _HIDDEN), nn.ReLU()
        )
        self.scales = nn.ModuleList(nn.Linear(_HIDDEN, 2 * count) for count in channels)

    def modulate(self, maps: Sequence[Tensor], text: Any) -> list[Tensor]:
        """The maps under the text, before the decoder narrows them."""
        hidden = self.read(text.vector)
        modulated = []
        for features, layer in zip(maps, self.scales, strict=True):
            scale, shift = layer(hidden)[:, :, None, None].chunk(2, dim=1)  # (N, C, 1, 1)
            modulated.append((1 + scale) * features + shift)
        return modulated

    def attend(self, level: int, state: Tensor, text: Any) -> Tensor:
        """Nothing more enters behind the modulation."""
        return state


class Cross(nn.Module):
    """The cells of the two coarsest levels attend to the tokens."""

    LEVELS = (2, 3)

    def __init__(
        self, channels: Sequence[int], *, width: int, text_width: int, heads: int = 4
    ) -> None:
        super().__init__()
        self.read = nn.Linear(text_width, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in self.LEVELS)
        self.attentions = nn.ModuleList(
            nn.MultiheadAttention(width, heads, batch_first=True) for _ in self.LEVELS
        )
        self.mixers = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.ReLU())
            for _ in self.LEVELS
        )
        self.outs = nn.ModuleList(nn.Linear(2 * width, width) for _ in self.LEVELS)

    def modulate(self, maps: Sequence[Tensor], text: Any) -> list[Tensor]:
        """The text enters later."""
        return list(maps)

    def attend(self, level: int, state: Tensor, text: Any) -> Tensor:
        """``(N, W, h, w)`` -> the same, every cell having read the tokens."""
        if level not in self.LEVELS:
            return state
        place = self.LEVELS.index(level)
        longest = int(text.mask.sum(dim=1).max())
        tokens = self.read(text.tokens[:, :longest])
        cells = state.flatten(2).transpose(1, 2)  # (N, h w, W)
        read, _ = self.attentions[place](
            self.norms[place](cells),
            tokens,
            tokens,
            key_padding_mask=text.mask[:, :longest] == 0,
            need_weights=False,
        )
        cells = cells + read
        cells = cells + self.outs[place](self.mixers[place](cells))
        mixed: Tensor = cells.transpose(1, 2).unflatten(2, state.shape[2:])
        return mixed


class Deaf(nn.Module):
    """No fusion: the control."""

    def modulate(self, maps: Sequence[Tensor], text: Any) -> list[Tensor]:
        """The maps as they are."""
        return list(maps)

    def attend(self, level: int, state: Tensor, text: Any) -> Tensor:
        """The state as it is."""
        return state


Fusion = Film | Cross | Deaf


class Decoder(nn.Module):
    """A feature pyramid from the coarsest level to stride 4, under a fusion."""

    def __init__(self, channels: Sequence[int], *, width: int, fusion: Fusion) -> None:
        super().__init__()
        self.fusion = fusion
        self.laterals = nn.ModuleList(nn.Conv2d(count + 2, width, 1) for count in channels)
        self.norms = nn.ModuleList(nn.GroupNorm(8, width) for _ in channels)
        # The finest level has the most cells: it is narrowed at once.
        widths = [width // 2, *[width] * (len(channels) - 1)]
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, out, 3, padding=1), nn.GroupNorm(8, out), nn.ReLU())
            for out in widths
        )
        self.head = nn.Conv2d(width // 2, 1, 1)

    def modulated(self, maps: Sequence[Tensor], text: Any) -> list[Tensor]:
        """The maps with their coordinates, under the text: the first that both decide."""
        located = [torch.cat([features, _coordinates(features)], dim=1) for features in maps]
        return self.fusion.modulate(located, text)

    def forward(self, maps: Sequence[Tensor], text: Any, *, side: int) -> Tensor:
        """The pyramid and the texts, paired -> logits ``(N, side, side)``."""
        modulated = self.modulated(maps, text)
        state: Tensor | None = None
        for level in reversed(range(len(modulated))):
            own = self.laterals[level](modulated[level])
            if state is not None:
                own = own + interpolate(state, size=own.shape[2:], mode="nearest")
            own = torch.relu(self.norms[level](own))
            state = self.blocks[level](self.fusion.attend(level, own, text))
        assert state is not None, "a pyramid has levels"
        logits = interpolate(self.head(state), size=(side, side), mode="bilinear")
        return logits.squeeze(1)


def _coordinates(features: Tensor) -> Tensor:
    """X and y of each cell, ``(N, 2, h, w)``."""
    n, _, height, width = features.shape
    x = torch.linspace(-1, 1, width, device=features.device, dtype=features.dtype)
    y = torch.linspace(-1, 1, height, device=features.device, dtype=features.dtype)
    grid = torch.stack([x.expand(height, width), y[:, None].expand(height, width)])
    return grid.expand(n, -1, -1, -1)


class Network(nn.Module):
    """The two towers and the decoder between them; the control has no text tower."""

    def __init__(self, image: nn.Module, text: nn.Module | None, decoder: Decoder) -> None:
        super().__init__()
        self.image = image
        if text is not None:
            self.text = text
        self.decoder = decoder
