"""The towers of MedCLIPSeg's four kinds, block by block.

Conventions: image tokens ``(N, T, V)``, class token first; text tokens ``(N, L, W)``; ids
and mask ``(N, L)`` int64; joint vectors are D wide and not normalised. Every tower has
`enter` (the input of block 0), `block` and `leave`; names of weights are the published keys'.

| kind | image | text | length |
|---|---|---|---|
| unimedclip | CLIP's ViT with QuickGELU | BERT | 256 |
| biomedclip | timm's ViT | BERT | 256 |
| clip (ViT-B/16), pubmedclip (ViT-B/32) | CLIP's ViT, values of the last block | CLIP's | 77 |
"""

from typing import Any

import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from open_clip.transformer import QuickGELU, VisionTransformer
from torch import Tensor, nn

from .settings import Settings


class ClipVision(VisionTransformer):  # type: ignore[misc]  # open_clip is skipped by the checker
    """open_clip's tower, taken apart; `reads_values` as CLIP's own kinds do."""

    reads_values = False

    def enter(self, pixels: Tensor) -> Tensor:
        """Patches, class token and positions, normed."""
        tokens: Tensor = self._embeds(pixels)
        return tokens

    def block(self, number: int, tokens: Tensor) -> Tensor:
        """One block; of the last one, where values are read, the value path alone."""
        block: Any = self.transformer.resblocks[number]
        if not self.reads_values or number + 1 < len(self.transformer.resblocks):
            output: Tensor = block(tokens)
            return output
        attention = block.attn
        width = tokens.shape[-1]
        values = nn.functional.linear(
            block.ln_1(tokens),
            attention.in_proj_weight[2 * width :],
            attention.in_proj_bias[2 * width :],
        )
        projected: Tensor = attention.out_proj(values)
        return projected

    def leave(self, tokens: Tensor) -> Tensor:
        """Every token in the joint space, ``(N, T, D)``."""
        joint: Tensor = self.ln_post(tokens) @ self.proj
        return joint


class TimmVision(nn.Module):
    """BiomedCLIP's image tower."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        from timm.models.vision_transformer import VisionTransformer as TimmTransformer

        width = settings.vision_hidden_size
        self.trunk: Any = TimmTransformer(
            img_size=settings.input_size,
            patch_size=settings.patch_size,
            embed_dim=width,
            depth=settings.layers,
            num_heads=settings.vision_heads,
            mlp_ratio=settings.vision_intermediate_size / width,
            num_classes=0,
        )
        self.head = nn.ModuleDict({"proj": nn.Linear(width, settings.projection_dim, bias=False)})

    def enter(self, pixels: Tensor) -> Tensor:
        """Patches, class token and positions."""
        tokens: Tensor = self.trunk._pos_embed(self.trunk.patch_embed(pixels))
        return tokens

    def block(self, number: int, tokens: Tensor) -> Tensor:
        """One block."""
        output: Tensor = self.trunk.blocks[number](tokens)
        return output

    def leave(self, tokens: Tensor) -> Tensor:
        """Every token in the joint space, ``(N, T, D)``."""
        joint: Tensor = self.head["proj"](self.trunk.norm(tokens))
        return joint


class BertText(nn.Module):
    """BERT without pooler, and the projection of its first token."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        from transformers import BertConfig, BertModel

        width, joint = settings.text_hidden_size, settings.projection_dim
        self.transformer: Any = BertModel(
            BertConfig(
                vocab_size=settings.vocabulary_size,
                hidden_size=width,
                intermediate_size=settings.text_intermediate_size,
                num_hidden_layers=settings.layers,
                num_attention_heads=settings.text_heads,
                max_position_embeddings=settings.text_positions,
            ),
            add_pooling_layer=False,
        )
        between = (width + joint) // 2
        self.proj = nn.Sequential(
            nn.Linear(width, between, bias=False), nn.GELU(), nn.Linear(between, joint, bias=False)
        )

    def enter(self, ids: Tensor) -> Tensor:
        """Words, positions and type, normed."""
        tokens: Tensor = self.transformer.embeddings(input_ids=ids)
        return tokens

    def block(self, number: int, tokens: Tensor, mask: Tensor) -> Tensor:
        """One block; padding is hidden from every token."""
        hidden = torch.zeros(mask.shape, device=tokens.device, dtype=tokens.dtype)
        hidden = hidden.masked_fill(mask == 0, torch.finfo(tokens.dtype).min)[:, None, None]
        output: Tensor = self.transformer.encoder.layer[number](tokens, hidden)
        return output

    def leave(self, tokens: Tensor, ids: Tensor) -> Tensor:
        """The joint vector of the first token, ``(N, D)``."""
        joint: Tensor = self.proj(tokens[:, 0])
        return joint


class ClipText(nn.Module):
    """CLIP's text tower; its token embedding has its key elsewhere."""

    def __init__(self, clip: CLIP) -> None:
        super().__init__()
        self.transformer = clip.transformer
        self.positional_embedding = clip.positional_embedding
        self.ln_final = clip.ln_final
        self.text_projection = clip.text_projection
        # In a tuple, so that it is no part of this module.
        self._tokens = (clip.token_embedding,)
        self._mask = (clip.attn_mask,)

    def enter(self, ids: Tensor) -> Tensor:
        """Tokens and positions."""
        tokens: Tensor = self._tokens[0](ids) + self.positional_embedding
        return tokens

    def block(self, number: int, tokens: Tensor, mask: Tensor) -> Tensor:
        """One block; every token sees those before it."""
        causal = self._mask[0].to(tokens.device)
        output: Tensor = self.transformer.resblocks[number](tokens, attn_mask=causal)
        return output

    def leave(self, tokens: Tensor, ids: Tensor) -> Tensor:
        """The joint vector of the first end-of-text, ``(N, D)``."""
        rows = torch.arange(len(tokens), device=tokens.device)
        joint: Tensor = self.ln_final(tokens)[rows, ids.argmax(dim=1)] @ self.text_projection
        return joint


def clip_vision(settings: Settings) -> ClipVision:
    """CLIP's ViT with QuickGELU."""
    return ClipVision(
        image_size=settings.input_size,
        patch_size=settings.patch_size,
        width=settings.vision_hidden_size,
        layers=settings.layers,
        heads=settings.vision_heads,
        mlp_ratio=settings.vision_intermediate_size / settings.vision_hidden_size,
        output_dim=settings.projection_dim,
        act_layer=QuickGELU,
    )


def whole_clip(settings: Settings) -> CLIP:
    """CLIP with both towers, the image's one as it is read here."""
    vision = CLIPVisionCfg(
        layers=settings.layers,
        width=settings.vision_hidden_size,
        head_width=settings.vision_hidden_size // settings.vision_heads,
        mlp_ratio=settings.vision_intermediate_size / settings.vision_hidden_size,
        patch_size=settings.patch_size,
        image_size=settings.input_size,
    )
    text = CLIPTextCfg(
        context_length=settings.context_length,
        vocab_size=settings.vocabulary_size,
        width=settings.text_hidden_size,
        heads=settings.text_heads,
        layers=settings.layers,
        mlp_ratio=settings.text_intermediate_size / settings.text_hidden_size,
    )
    clip = CLIP(settings.projection_dim, vision, text, quick_gelu=True)
    clip.visual = clip_vision(settings)
    clip.visual.reads_values = True
    return clip
