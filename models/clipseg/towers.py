"""CLIPSeg's two CLIP towers layer by layer, so that something may act between the layers.

Conventions: layers count from 0; T tokens of an image, class token first; L tokens of a
text; `vision` and `text` are transformers' ``vision_model`` and ``text_model``.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Layer = Callable[[int, Any, Tensor, Tensor | None], Tensor]
"""Runs one layer: its number, the layer, its input and the attention mask."""


def plainly(_: int, layer: Any, hidden: Tensor, mask: Tensor | None) -> Tensor:
    """The layer as it is."""
    output: Tensor = layer(hidden, attention_mask=mask)
    return output


def vision_states(
    vision: Any,
    pixels: Tensor,
    *,
    depth: int,
    enter: Callable[[Tensor], Tensor] = lambda tokens: tokens,
    run: Layer = plainly,
) -> list[Tensor]:
    """Outputs ``(N, T, hidden)`` of the first `depth` layers.

    Args:
        vision: The tower.
        pixels: ``(N, 3, S, S)``.
        depth: How many layers.
        enter: Acts on the tokens with their positions, before the first norm.
        run: Runs each layer.
    """
    hidden = vision.pre_layrnorm(enter(vision.embeddings(pixels, interpolate_pos_encoding=True)))
    states = []
    for number, layer in enumerate(vision.encoder.layers[:depth]):
        hidden = run(number, layer, hidden, None)
        states.append(hidden)
    return states


def text_states(text: Any, tokens: Tensor, *, run: Layer = plainly) -> list[Tensor]:
    """Outputs ``(N, L, hidden)`` of all layers, without the final norm.

    Args:
        text: The tower.
        tokens: Embeddings ``(N, L, hidden)`` without positions.
        run: Runs each layer.
    """
    length = tokens.shape[1]
    hidden = tokens + text.embeddings.position_embedding.weight[:length]
    mask = torch.full((length, length), -torch.inf, device=tokens.device, dtype=hidden.dtype)
    mask = mask.triu(1)[None, None]
    states = []
    for number, layer in enumerate(text.encoder.layers):
        hidden = run(number, layer, hidden, mask)
        states.append(hidden)
    return states


def at(states: Tensor, places: Tensor) -> Tensor:
    """``(N, L, C)`` at one place of each row, ``(N, C)``."""
    return states[torch.arange(len(states), device=states.device), places]
