"""Meta's own names of SAM 3's weights, and what they are in transformers' ``Sam3Model``.

Finetuned files of Meta's code hold the detector's weights as they are, or behind
``detector.`` beside a tracker. A name here is that of a module; its leaf (``weight``,
``bias``) follows. ``#`` stands for a number, which stays, and ``#+1`` for the next one.

What is not a plain renaming:

- Attention holds query, key and value in one block of rows (``in_proj_weight``, the image
  tower's ``qkv``), which become three weights; code that adds to them first takes them
  apart, so that names of three are understood as well.
- The image tower's positions begin with one of a class token, which is not used.
- The text projection is kept turned.
- Point prompts, rotation tables and the tracker's second neck have no counterpart.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from harness.errors import CheckpointError
from harness.models import Translation

_TRUNK, _NECK = "backbone.vision_backbone.trunk", "backbone.vision_backbone.convs.#"
_TEXT, _TEXT_LAYER = (
    "backbone.language_backbone.encoder",
    "backbone.language_backbone.encoder.transformer.resblocks.#",
)
_OUR_TEXT = "text_encoder.text_model"
_OUR_TEXT_LAYER = f"{_OUR_TEXT}.encoder.layers.#"
_OUR_NECK = "vision_encoder.neck.fpn_layers.#"

_MODULES = {
    f"{_TRUNK}.patch_embed.proj": "vision_encoder.backbone.embeddings.patch_embeddings.projection",
    f"{_TRUNK}.ln_pre": "vision_encoder.backbone.layer_norm",
    f"{_TRUNK}.blocks.#.norm1": "vision_encoder.backbone.layers.#.layer_norm1",
    f"{_TRUNK}.blocks.#.norm2": "vision_encoder.backbone.layers.#.layer_norm2",
    f"{_TRUNK}.blocks.#.attn.proj": "vision_encoder.backbone.layers.#.attention.o_proj",
    f"{_TRUNK}.blocks.#.mlp.fc1": "vision_encoder.backbone.layers.#.mlp.fc1",
    f"{_TRUNK}.blocks.#.mlp.fc2": "vision_encoder.backbone.layers.#.mlp.fc2",
    f"{_NECK}.dconv_2x2": f"{_OUR_NECK}.scale_layers.0",
    f"{_NECK}.dconv_2x2_0": f"{_OUR_NECK}.scale_layers.0",
    # Between the two stands an activation.
    f"{_NECK}.dconv_2x2_1": f"{_OUR_NECK}.scale_layers.2",
    f"{_NECK}.conv_1x1": f"{_OUR_NECK}.proj1",
    f"{_NECK}.conv_3x3": f"{_OUR_NECK}.proj2",
    f"{_TEXT}.token_embedding": f"{_OUR_TEXT}.embeddings.token_embedding",
    f"{_TEXT}.ln_final": f"{_OUR_TEXT}.final_layer_norm",
    f"{_TEXT_LAYER}.ln_1": f"{_OUR_TEXT_LAYER}.layer_norm1",
    f"{_TEXT_LAYER}.ln_2": f"{_OUR_TEXT_LAYER}.layer_norm2",
    f"{_TEXT_LAYER}.mlp.c_fc": f"{_OUR_TEXT_LAYER}.mlp.fc1",
    f"{_TEXT_LAYER}.mlp.c_proj": f"{_OUR_TEXT_LAYER}.mlp.fc2",
    "backbone.language_backbone.resizer": "text_projection",
    "geometry_encoder.label_embed": "geometry_encoder.label_embed",
    "geometry_encoder.cls_embed": "geometry_encoder.cls_embed",
    "geometry_encoder.boxes_direct_project": "geometry_encoder.boxes_direct_project",
    "geometry_encoder.boxes_pool_project": "geometry_encoder.boxes_pool_project",
    "geometry_encoder.boxes_pos_enc_project": "geometry_encoder.boxes_pos_enc_project",
    "geometry_encoder.final_proj": "geometry_encoder.final_proj",
    "geometry_encoder.norm": "geometry_encoder.prompt_layer_norm",
    "geometry_encoder.img_pre_norm": "geometry_encoder.vision_layer_norm",
    "geometry_encoder.encode_norm": "geometry_encoder.output_layer_norm",
    "transformer.decoder.layers.#.linear1": "detr_decoder.layers.#.mlp.fc1",
    "transformer.decoder.layers.#.linear2": "detr_decoder.layers.#.mlp.fc2",
    "transformer.decoder.layers.#.norm1": "detr_decoder.layers.#.vision_cross_attn_layer_norm",
    "transformer.decoder.layers.#.catext_norm": "detr_decoder.layers.#.text_cross_attn_layer_norm",
    "transformer.decoder.layers.#.norm2": "detr_decoder.layers.#.self_attn_layer_norm",
    "transformer.decoder.layers.#.norm3": "detr_decoder.layers.#.mlp_layer_norm",
    "transformer.decoder.query_embed": "detr_decoder.query_embed",
    "transformer.decoder.reference_points": "detr_decoder.reference_points",
    "transformer.decoder.presence_token": "detr_decoder.presence_token",
    "transformer.decoder.norm": "detr_decoder.output_layer_norm",
    "transformer.decoder.presence_token_out_norm": "detr_decoder.presence_layer_norm",
    "transformer.decoder.bbox_embed.layers.#": "detr_decoder.box_head.layer#+1",
    "transformer.decoder.presence_token_head.layers.#": "detr_decoder.presence_head.layer#+1",
    "transformer.decoder.ref_point_head.layers.#": "detr_decoder.ref_point_head.layer#+1",
    "transformer.decoder.boxRPB_embed_x.layers.#": "detr_decoder.box_rpb_embed_x.layer#+1",
    "transformer.decoder.boxRPB_embed_y.layers.#": "detr_decoder.box_rpb_embed_y.layer#+1",
    "segmentation_head.pixel_decoder.conv_layers.#": "mask_decoder.pixel_decoder.conv_layers.#",
    "segmentation_head.pixel_decoder.norms.#": "mask_decoder.pixel_decoder.norms.#",
    "segmentation_head.mask_predictor.mask_embed.layers.#": "mask_decoder.mask_embedder.layers.#",
    "segmentation_head.instance_seg_head": "mask_decoder.instance_projection",
    "segmentation_head.semantic_seg_head": "mask_decoder.semantic_projection",
    "segmentation_head.cross_attn_norm": "mask_decoder.prompt_cross_attn_norm",
    "dot_prod_scoring.prompt_mlp.layers.#": "dot_product_scoring.text_mlp.layer#+1",
    "dot_prod_scoring.prompt_mlp.out_norm": "dot_product_scoring.text_mlp_out_norm",
    "dot_prod_scoring.prompt_proj": "dot_product_scoring.text_proj",
    "dot_prod_scoring.hs_proj": "dot_product_scoring.query_proj",
}
for _meta, _ours in {
    "geometry_encoder.encode.#": "geometry_encoder.layers.#",
    "transformer.encoder.layers.#": "detr_encoder.layers.#",
}.items():
    _MODULES |= {f"{_meta}.linear{n}": f"{_ours}.mlp.fc{n}" for n in (1, 2)}
    _MODULES |= {f"{_meta}.norm{n}": f"{_ours}.layer_norm{n}" for n in (1, 2, 3)}

_ATTENTION = {
    f"{_TRUNK}.blocks.#.attn": "vision_encoder.backbone.layers.#.attention",
    f"{_TEXT_LAYER}.attn": f"{_OUR_TEXT_LAYER}.self_attn",
    "geometry_encoder.encode.#.self_attn": "geometry_encoder.layers.#.self_attn",
    "geometry_encoder.encode.#.cross_attn_image": "geometry_encoder.layers.#.cross_attn",
    "transformer.encoder.layers.#.self_attn": "detr_encoder.layers.#.self_attn",
    "transformer.encoder.layers.#.cross_attn_image": "detr_encoder.layers.#.cross_attn",
    "transformer.decoder.layers.#.self_attn": "detr_decoder.layers.#.self_attn",
    "transformer.decoder.layers.#.ca_text": "detr_decoder.layers.#.text_cross_attn",
    "transformer.decoder.layers.#.cross_attn": "detr_decoder.layers.#.vision_cross_attn",
    "segmentation_head.cross_attend_prompt": "mask_decoder.prompt_cross_attn",
}
_WITHOUT_COUNTERPART = [
    r"backbone\.vision_backbone\.trunk\.blocks\.\d+\.attn\.freqs_cis",
    r"backbone\.vision_backbone\.sam2_convs\..+",
    r"geometry_encoder\.points_(direct|pool|pos_enc)_project\.(weight|bias)",
]
_PARAMETERS = {
    f"{_TRUNK}.pos_embed": "vision_encoder.backbone.embeddings.position_embeddings",
    f"{_TEXT}.positional_embedding": f"{_OUR_TEXT}.embeddings.position_embedding.weight",
    f"{_TEXT}.text_projection": "text_encoder.text_projection.weight",
}
_TRACKER = "tracker"


class _Rule(NamedTuple):
    """A pattern of Meta's keys and what they become: three names share a block of rows."""

    pattern: re.Pattern[str]
    ours: Sequence[str]


def _rules() -> Iterable[_Rule]:
    def rule(meta: str, *ours: str) -> _Rule:
        pattern = (
            re.escape(meta).replace(r"\#", r"(?P<n>\d+)").replace("LEAF", "(?P<leaf>weight|bias)")
        )
        return _Rule(re.compile(rf"^(?P<prefix>(?:\w+\.)*){pattern}$"), ours)

    for meta, ours in _MODULES.items():
        yield rule(f"{meta}.LEAF", f"{ours}.LEAF")
    for meta, ours in _ATTENTION.items():
        three = [f"{ours}.{name}_proj.LEAF" for name in "qkv"]
        yield rule(f"{meta}.{'qkv.' if meta.startswith(_TRUNK) else 'in_proj_'}LEAF", *three)
        for name, one in zip("qkv", three, strict=True):
            yield rule(f"{meta}.{name}_proj.LEAF", one)
        # The text tower is CLIP's, and keeps CLIP's name.
        out = "out_proj" if meta.startswith(_TEXT) else "o_proj"
        yield rule(f"{meta}.out_proj.LEAF", f"{ours}.{out}.LEAF")
    for meta, ours in _PARAMETERS.items():
        yield rule(meta, ours)
    for pattern in _WITHOUT_COUNTERPART:
        yield _Rule(re.compile(rf"^(?P<prefix>(?:\w+\.)*){pattern}$"), ())


_RULES = tuple(_rules())


class _Found(NamedTuple):
    """What stands before Meta's own name in a key, and the names it becomes."""

    prefix: str
    ours: Sequence[str]


def _find(key: str) -> _Found | None:
    for rule in _RULES:
        if match := rule.pattern.match(key):
            said = match.groupdict()
            number = said.get("n") or "0"
            names = (
                name.replace("#+1", str(int(number) + 1))
                .replace("#", number)
                .replace("LEAF", said.get("leaf") or "")
                for name in rule.ours
            )
            return _Found(said["prefix"], list(names))
    return None


def translate(tensors: Mapping[str, Tensor]) -> Translation | None:
    """Tensors under Meta's names as those of ``Sam3Model``; None where they have other names.

    Raises:
        CheckpointError: Some of them belong to no SAM 3.
    """
    found = {key: _find(key) for key in tensors}
    prefixes = Counter(
        one.prefix for one in found.values() if one and _TRACKER not in one.prefix.split(".")
    )
    if not prefixes or not are_metas(tensors):
        return None
    prefix = prefixes.most_common(1)[0][0]
    ours: dict[str, Tensor] = {}
    left_out, strange = [], []
    for key, value in tensors.items():
        one = found[key]
        if one is not None and one.prefix == prefix and not set(one.ours) & set(ours):
            ours |= _split(one.ours, key, value)
            left_out += [key] * (not one.ours)
        elif key.startswith(prefix) and not key.startswith(f"{_TRACKER}."):
            strange.append(key)
        else:
            left_out.append(key)
    if strange:
        raise CheckpointError(
            f"the checkpoint has Meta's names of SAM 3, and {len(strange)} tensors that are not "
            f"among them, first {strange[0][:120]!r}. Every tensor must have its place, or the "
            "answer is another model's. Give the file of an unchanged SAM 3, or a card and adapter "
            "of the changed one."
        )
    return Translation(ours, left_out)


def are_metas(keys: Iterable[str]) -> bool:
    """Whether there are names of Meta's detector among these."""
    return any(map(_only_metas, keys))


def _only_metas(key: str) -> bool:
    """Whether a name is Meta's and not one of transformers', which has a few of the same."""
    one = _find(key)
    return one is not None and key.removeprefix(one.prefix) not in one.ours


def _split(ours: Sequence[str], key: str, value: Tensor) -> dict[str, Tensor]:
    if len(ours) == 3:
        if value.ndim == 0 or len(value) % 3:
            raise CheckpointError(
                f"the tensor {key[:120]!r} has the shape {tuple(value.shape)}. Query, key and "
                "value are three equal blocks of its rows. Copy the file again."
            )
        return dict(zip(ours, value.chunk(3), strict=True))
    if key.endswith(f"{_TRUNK}.pos_embed") and value.ndim == 3:
        return {ours[0]: value[:, 1:]}
    if key.endswith(f"{_TEXT}.text_projection") and value.ndim == 2:
        return {ours[0]: value.T}
    return {name: value for name in ours}
