"""VLSM-Adapter: small adapters in or beside a frozen CLIPSeg.

Conventions: as in `adapter`. Layers count from 0. An adapter is
``x + relu(W2 relu(W1 x + b1) + b2)``.

Two kinds, each with adapters for vision (V), vision and text (VL), or both and the
condition (VLC). The hyper-parameters of a checkpoint do not say which it is: its keys do.

- dense: adapters lie inside the residual branches of a tower's layers 0 to 8, behind the
  attention and behind the feed-forward part.
- shallow: the towers stay; adapters lie on the skip connections to the decoder, and for the
  text on the states that stand at the end-of-text token after the same layers.

Quirks that change results, kept on purpose:

- The second ReLU: an adapter can only add what is not negative.
- Of the dense kind layer 9, whose output the decoder reads first, has no adapter.
- The shallow kind's text states are taken before the final norm, and each brings its own
  identity into the sum. The adapter of the condition acts before they are added.
- The shallow kind's files hold CLIP's tensors twice, below ``clip`` and ``clipseg.clip``;
  where they differ ``clip`` counts, as in the original.
- Nothing is normalised to unit length.

What finetuning trains is the adapters alone, as in the original.

Source: M. Dhakal et al., MICCAI 2024, arXiv 2405.06196.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

from pydantic import Field, model_validator
from torch import Tensor, nn

from harness.errors import CheckpointError
from harness.models import Picture, TokenCounts, device_of, read_settings, without_prefix

from .adapter import ClipSeg, ImageFeatures, Settings, TextFeatures
from .towers import at, text_states, vision_states

_DENSE = ("v_attn_adapters", "v_out_adapters", "l_attn_adapters", "l_out_adapters")
_SHALLOW = ("vision_extract_adapters", "text_extract_adapters")
_CONDITION = "cond_adapter"


class AdapterSettings(Settings):
    """CLIPSeg's settings, and the adapters of a model without a checkpoint."""

    kind: Literal["dense", "shallow"]
    parts: Literal["V", "VL", "VLC"]
    adapter_width: int = Field(ge=1)
    condition_width: int = Field(ge=1)

    @model_validator(mode="after")
    def _has_layers(self) -> Self:
        is_read = self.kind == "shallow" and "L" in self.parts
        if is_read and max(self.extract_layers) >= self.text_layers:
            raise ValueError(
                f"a shallow text adapter reads layer {max(self.extract_layers)}, 'text_layers' is "
                f"{self.text_layers}: take 'parts: V' or 'kind: dense'"
            )
        if is_read and self.projection_dim != self.text_hidden_size:
            raise ValueError(
                "a shallow text adapter's output is added to the condition: 'projection_dim', "
                f"{self.projection_dim}, must be 'text_hidden_size', {self.text_hidden_size}"
            )
        return self


class Width(NamedTuple):
    """An adapter's width outside and inside."""

    outside: int
    inside: int


class Plan(NamedTuple):
    """Which adapters there are: widths by list, and of the condition's one.

    `repeats_clip` says that the state dict holds CLIP a second time.
    """

    lists: Mapping[str, Sequence[Width]]
    condition: Width | None
    repeats_clip: bool


class Adapter(nn.Module):
    """``x + relu(W2 relu(W1 x + b1) + b2)`` on the last axis."""

    def __init__(self, width: Width) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width.outside, width.inside)
        self.fc2 = nn.Linear(width.inside, width.outside)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape."""
        added: Tensor = self.fc2(self.fc1(x).relu()).relu()
        return x + added


class Network(nn.Module):
    """CLIPSeg and its adapters; the state dict has the original's keys."""

    def __init__(self, clipseg: Any, plan: Plan) -> None:
        """Wrap `clipseg`, transformers' model."""
        super().__init__()
        self.clipseg = clipseg
        if plan.repeats_clip:
            self.clip = clipseg.clip
        for name, widths in plan.lists.items():
            self.add_module(name, nn.ModuleList(map(Adapter, widths)))
        if plan.condition is not None:
            self.add_module(_CONDITION, Adapter(plan.condition))

    def adapters(self, name: str) -> Sequence[Any]:
        """One list; empty where the variant has none."""
        return list(getattr(self, name, ()))

    def parts(self) -> list[nn.Module]:
        """Everything but CLIPSeg."""
        own = (*_DENSE, *_SHALLOW, _CONDITION)
        return [module for name, module in self.named_children() if name in own]


class VlsmAdapter:
    """VLSM-Adapter on CLIPSeg; `module` is a `Network`."""

    def __init__(self, settings: Mapping[str, Any], *, weights: Path | None) -> None:
        """Build the model.

        Args:
            settings: The card's settings, all of `AdapterSettings`.
            weights: CLIPSeg's own, where finetuning starts, or None.
        """
        self.settings = read_settings(AdapterSettings, settings)
        own = AdapterSettings.model_fields.keys() - Settings.model_fields.keys()
        base = {key: value for key, value in settings.items() if key not in own}
        self._clipseg = ClipSeg(base, weights=weights)
        self.input_size = self._clipseg.input_size
        self.module: Any = Network(self._clipseg.module, planned(self.settings))

    def fit_to(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Take the adapters that a checkpoint has."""
        first = [f"{name}.0.fc1.weight" for name in (*_DENSE, *_SHALLOW)]
        own = without_prefix(shapes, *first)
        if own:
            self.module = Network(self._clipseg.module, found(own, self.settings))

    def preprocess(self, image: Picture) -> Tensor:
        """``(H, W, 3)`` uint8 -> ``(3, S, S)``, as CLIPSeg's."""
        return self._clipseg.preprocess(image)

    def count_tokens(self, texts: Sequence[str]) -> TokenCounts:
        """As CLIPSeg's."""
        return self._clipseg.count_tokens(texts)

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """As CLIPSeg's."""
        return self._clipseg.tokenize(texts)

    def encode_tokens(self, input_ids: Tensor, attention_mask: Tensor) -> TextFeatures:
        """Ids and mask ``(N, L)`` -> the adapted condition, at the length that matters."""
        ids = input_ids.to(device_of(self.module))
        ends = ids.argmax(dim=1)
        ids = ids[:, : int(ends.max()) + 1 if len(ends) else 1]
        clip = self.module.clipseg.clip
        tokens = clip.text_model.embeddings.token_embedding(ids)
        states = text_states(clip.text_model, tokens, run=self._layer("l"))
        condition = clip.text_projection(at(clip.text_model.final_layer_norm(states[-1]), ends))
        if hasattr(self.module, _CONDITION):
            condition = self.module.cond_adapter(condition)
        skips = self.module.adapters("text_extract_adapters")
        for adapter, layer in zip(skips, self.settings.extract_layers[: len(skips)], strict=True):
            condition = condition + adapter(at(states[layer], ends))
        return TextFeatures(condition)

    def encode_texts(self, texts: Sequence[str]) -> TextFeatures:
        """N texts -> their adapted conditions, not normalised."""
        return self.encode_tokens(*self.tokenize(texts))

    def text_embedding(self, texts: Sequence[str]) -> Tensor:
        """The vector that modulates the decoder, ``(N, D)``."""
        return self.encode_texts(texts).embedding

    def encode_images(self, pixels: Tensor) -> ImageFeatures:
        """``(N, 3, S, S)`` -> everything up to the point where the text enters."""
        layers = self.settings.extract_layers
        states = vision_states(
            self.module.clipseg.clip.vision_model,
            pixels,
            depth=max(layers) + 1,
            run=self._layer("v"),
        )
        activations = [states[layer] for layer in layers]
        for place, adapter in enumerate(self.module.adapters("vision_extract_adapters")):
            activations[place] = adapter(activations[place])
        return self._clipseg.enter(activations)

    def _layer(self, tower: str) -> Any:
        """Runs a tower's layer with the adapters that it has."""
        attention, output = (
            self.module.adapters(f"{tower}_{place}_adapters") for place in ("attn", "out")
        )

        def run(number: int, layer: Any, hidden: Tensor, mask: Tensor | None) -> Tensor:
            attended, _ = layer.self_attn(layer.layer_norm1(hidden), attention_mask=mask)
            hidden = hidden + (attention[number](attended) if number < len(attention) else attended)
            changed: Tensor = layer.mlp(layer.layer_norm2(hidden))
            return hidden + (output[number](changed) if number < len(output) else changed)

        return run

    def decode(self, image_features: ImageFeatures, text_features: TextFeatures) -> Tensor:
        """N images with N texts -> logits ``(N, S, S)``."""
        return self._clipseg.decode(image_features, text_features)

    def decoder_modules(self) -> Sequence[nn.Module]:
        """The adapters: what the original trains."""
        parts: list[nn.Module] = self.module.parts()
        return parts


def planned(settings: AdapterSettings) -> Plan:
    """The adapters that the settings ask for."""
    inside, depth = settings.adapter_width, max(settings.extract_layers)
    vision = Width(settings.vision_hidden_size, inside)
    text = Width(settings.text_hidden_size, inside)
    is_dense = settings.kind == "dense"
    names, count = (_DENSE, depth) if is_dense else (_SHALLOW, len(settings.extract_layers))
    widths = {name: vision if name.startswith("v") else text for name in names}
    lists = {
        name: [width] * (count if name.startswith("v") else min(count, settings.text_layers))
        for name, width in widths.items()
        if name.startswith("v") or "L" in settings.parts
    }
    condition = Width(settings.projection_dim, settings.condition_width)
    return Plan(lists, condition if "C" in settings.parts else None, repeats_clip=not is_dense)


def found(shapes: Mapping[str, tuple[int, ...]], settings: AdapterSettings) -> Plan:
    """The adapters that a checkpoint's keys say.

    Raises:
        CheckpointError: A list has more adapters than the tower has layers.
    """
    lists = {}
    for name in (*_DENSE, *_SHALLOW):
        layers = settings.vision_layers if name.startswith("v") else settings.text_layers
        limit = layers if name in _DENSE else sum(n < layers for n in settings.extract_layers)
        widths: list[Width] = []
        while (width := _width(shapes, f"{name}.{len(widths)}")) is not None:
            widths.append(width)
        if len(widths) > limit:
            raise CheckpointError(
                f"the checkpoint has {len(widths)} adapters in {name!r}, the model has {limit} "
                "places for them. Give the card whose settings it was trained with."
            )
        if widths:
            lists[name] = widths
    repeats = any(key.startswith("clip.") for key in shapes)
    return Plan(lists, _width(shapes, _CONDITION), repeats)


def _width(shapes: Mapping[str, tuple[int, ...]], name: str) -> Width | None:
    shape = shapes.get(f"{name}.fc1.weight", ())
    return Width(shape[1], shape[0]) if len(shape) == 2 else None
