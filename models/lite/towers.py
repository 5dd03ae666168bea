"""The two pretrained towers, read from files that Python packages carry.

Conventions: the image tower is timm's EfficientNet-Lite0 with TensorFlow's padding and
an epsilon of 1e-3 in batch norm, which is what ``efficientnet-lite-pytorch`` computes; its
keys are renamed one by one. The sentence encoder is transformers' BERT without a pooler;
its bundle is a folder in the hub's format, or a zip of one. Files are read as data.

Sources: M. Tan, Q. Le, ICML 2019, arXiv 1905.11946 (EfficientNet; Lite leaves out
squeeze-and-excitation and swish); W. Wang et al., NeurIPS 2020, arXiv 2002.10957 (MiniLM);
N. Reimers, I. Gurevych, EMNLP 2019, arXiv 1908.10084.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import timm
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from harness.errors import CardError, CheckpointError
from harness.weights.loading import fill, read_tensors
from harness.weights.packages import read_member
from harness.weights.pretrained import configured

ENCODER = "tf_efficientnet_lite0"
STRIDES = (4, 8, 16, 32)
CHANNELS = (24, 40, 112, 320)
# Blocks of each stage; the published files number them through.
_STAGES = (1, 2, 2, 3, 3, 4, 1)
_BLOCK = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
# The first stage does not expand.
_FIRST_BLOCK = {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}
_STEM = {"_conv_stem": "conv_stem", "_bn0": "bn1"}
# What ImageNet's classifier has behind the last stage.
_CLASSIFIER = ("_conv_head.", "_bn1.", "_fc.")
# What of a configuration leaves the shapes as they are and changes the numbers.
_DECIDES = ("num_attention_heads", "hidden_act", "layer_norm_eps", "position_embedding_type")
_UNUSED = ("pooler.dense.weight", "pooler.dense.bias", "embeddings.position_ids")


def image_tower() -> nn.Module:
    """EfficientNet-Lite0: pixels ``(N, 3, S, S)`` -> maps of `CHANNELS` at `STRIDES`."""
    tower: nn.Module = timm.create_model(ENCODER, features_only=True, out_indices=(1, 2, 3, 4))
    return tower


def text_tower(changes: Mapping[str, Any]) -> nn.Module:
    """BERT without a pooler; `changes` are what differs from its configuration's defaults."""
    config = configured(BertConfig, changes, key="text")
    tower: nn.Module = BertModel(config, add_pooling_layer=False)
    return tower


def load_image_tower(tower: nn.Module, file: Path) -> None:
    """Fill the image tower from a file in the keys of efficientnet-lite-pytorch, or in timm's.

    Raises:
        CheckpointError: The file cannot be read safely, or a key of it is unknown.
    """
    tensors = read_tensors(file)
    if "_conv_stem.weight" in tensors:
        tensors = renamed(tensors, where=str(file))
    fill(tower, tensors, where=str(file))


def renamed(tensors: Mapping[str, Tensor], *, where: str) -> dict[str, Tensor]:
    """Tensors under timm's keys, without the classifier; every key must be known."""
    names = {key: _timm_key(key) for key in tensors if not key.startswith(_CLASSIFIER)}
    strange = sorted(key for key, name in names.items() if name is None)
    if strange:
        raise CheckpointError(
            f"{where}: {len(strange)} keys are not those of an EfficientNet-Lite0, first "
            f"{strange[0][:120]!r}. A file of efficientnet-lite-pytorch is needed. Give another."
        )
    return {name: tensors[key] for key, name in names.items() if name is not None}


def _timm_key(key: str) -> str | None:
    """``_blocks.4._bn0.bias`` -> ``blocks.2.1.bn1.bias``; None where there is none."""
    head, *rest = key.split(".")
    if head != "_blocks":
        return ".".join([_STEM[head], *rest]) if head in _STEM and len(rest) == 1 else None
    match rest:
        case [number, part, leaf] if number.isdecimal() and len(number) < 3:
            stage, place = _stage(int(number))
            name = (_BLOCK if stage else _FIRST_BLOCK).get(part)
            if name is not None and stage < len(_STAGES):
                return f"blocks.{stage}.{place}.{name}.{leaf}"
    return None


def _stage(number: int) -> tuple[int, int]:
    """Of a block that is numbered through: its stage, and its place there."""
    for stage, length in enumerate(_STAGES):
        if number < length:
            return stage, number
        number -= length
    return len(_STAGES), number


def load_text_tower(tower: nn.Module, bundle: Path) -> None:
    """Fill the sentence encoder from a folder in the hub's format or a zip of one.

    Raises:
        CheckpointError: The bundle cannot be read, or does not fit.
        CardError: Its configuration says something else than the card.
    """
    _check_configuration(tower, bundle)
    content = read_member(bundle, "model.safetensors")
    try:
        tensors = safetensors.torch.load(content)
    except SafetensorError as problem:
        raise CheckpointError(
            f"{bundle}: 'model.safetensors' is not a whole safetensors file "
            f"({str(problem)[:120]}). Install the package again, or copy the folder again."
        ) from None
    kept = {key: value for key, value in tensors.items() if key not in _UNUSED}
    fill(tower, kept, where=f"{bundle}: model.safetensors")


def _check_configuration(tower: Any, bundle: Path) -> None:
    content = read_member(bundle, "config.json")
    try:
        said = json.loads(content)
        theirs = {key: said[key] for key in _DECIDES if key in said}
    except (ValueError, RecursionError, TypeError) as problem:
        raise CheckpointError(
            f"{bundle}: 'config.json' is not a configuration ({type(problem).__name__}). A JSON "
            "object is needed. Install the package again, or copy the folder again."
        ) from None
    ours = {"position_embedding_type": "absolute"} | tower.config.to_dict()
    for key, value in theirs.items():
        if value != ours[key]:
            raise CardError(
                f"settings.text.{key}: the card has {ours[key]!r}, {bundle} was trained with "
                f"{value!r}. They must be equal. Correct the card."
            )


def mean_of_tokens(states: Tensor, mask: Tensor) -> Tensor:
    """Token states ``(N, L, D)`` and mask ``(N, L)`` -> their mean, of length 1, ``(N, D)``."""
    weights = mask.to(states.dtype)[..., None]  # (N, L, 1)
    mean = (states * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)
    return torch.nn.functional.normalize(mean, dim=-1)
