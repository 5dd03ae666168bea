"""CLIP's ResNet towers as CRIS uses them.

Conventions: pixels ``(N, 3, S, S)``; the three maps are ``(N, C, side, side)`` with sides
S / 8, S / 16 and S / 32. Token ids are ``(N, L)`` int64 at the full context length.

Source: the towers are open_clip's own classes (OpenAI's RN50 with QuickGELU); the
attention pool is changed as arXiv 2111.15174 describes it.
"""

from typing import Any, NamedTuple

import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from torch import Tensor, nn
from torch.nn.functional import interpolate, relu, scaled_dot_product_attention


class AttentionPool(nn.Module):
    """CLIP's attention pool without its mean token: every place keeps its own output."""

    def __init__(self, *, side: int, width: int, heads: int, outputs: int) -> None:
        """Build the layers.

        Args:
            side: Side of the map that the positions were learnt at.
            width: Channels of the incoming map.
            heads: Attention heads.
            outputs: Channels of the outgoing map.
        """
        super().__init__()
        self.positional_embedding = nn.Parameter(torch.randn(side**2 + 1, width) / width**0.5)
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.c_proj = nn.Linear(width, outputs)
        self.connect = nn.Sequential(
            nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        )
        self._side, self._heads = side, heads
        for layer in (self.q_proj, self.k_proj, self.v_proj, self.c_proj):
            nn.init.normal_(layer.weight, std=width**-0.5)

    def forward(self, maps: Tensor) -> Tensor:
        """``(N, width, side, side)`` -> ``(N, outputs, side, side)``."""
        residual = self.connect(maps)
        n, _, height, width = maps.shape
        places = (maps + self._positions(maps)).flatten(2).transpose(1, 2)  # (N, side^2, width)
        query, key, value = (
            layer(places).reshape(n, height * width, self._heads, -1).transpose(1, 2)
            for layer in (self.q_proj, self.k_proj, self.v_proj)
        )
        attended = scaled_dot_product_attention(query, key, value)
        pooled: Tensor = self.c_proj(attended.transpose(1, 2).flatten(2))
        return relu(pooled.transpose(1, 2).reshape(n, -1, height, width) + residual)

    def _positions(self, maps: Tensor) -> Tensor:
        """The table without its first row, the mean token's, at the map's size."""
        table = self.positional_embedding[1:].transpose(0, 1).reshape(-1, self._side, self._side)
        if maps.shape[2:] == table.shape[1:]:
            return table
        size = (maps.shape[2], maps.shape[3])
        return interpolate(table[None], size=size, mode="bicubic", align_corners=False)


def build_backbone(
    *, vision: dict[str, Any], text: dict[str, Any], embed_dim: int, vision_heads: int
) -> Any:
    """CLIP with the changed pool; its state dict has the published keys.

    Args:
        vision: Keywords of open_clip's vision configuration: layers, width, image size.
        text: Keywords of its text configuration.
        embed_dim: Width of the sentence vector and channels of the deepest map.
        vision_heads: Heads of the attention pool.
    """
    backbone = CLIP(embed_dim, CLIPVisionCfg(**vision), CLIPTextCfg(**text), quick_gelu=True)
    backbone.visual.attnpool = AttentionPool(
        side=vision["image_size"] // 32,
        width=vision["width"] * 32,
        heads=vision_heads,
        outputs=embed_dim,
    )
    return backbone


def image_maps(backbone: Any, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """V3, V4 and V5: the second and third stage, and the fourth through the pool."""
    visual = backbone.visual
    v3 = visual.layer2(visual.layer1(visual.stem(pixels)))
    v4 = visual.layer3(v3)
    return v3, v4, visual.attnpool(visual.layer4(v4))


class Sentence(NamedTuple):
    """`words` ``(N, L, C)`` are last states, not projected; `state` ``(N, D)`` is the sentence."""

    words: Tensor
    state: Tensor


def read_text(backbone: Any, input_ids: Tensor) -> Sentence:
    """The text tower on full-length ids; the sentence stands at the first largest id."""
    states = backbone.token_embedding(input_ids) + backbone.positional_embedding
    words = backbone.ln_final(backbone.transformer(states, attn_mask=backbone.attn_mask))
    rows = torch.arange(len(words), device=words.device)
    return Sentence(words, words[rows, input_ids.argmax(dim=1)] @ backbone.text_projection)
