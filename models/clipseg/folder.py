"""Any ``CLIPSegForImageSegmentation`` of a hub: its folder says the architecture.

Conventions: as in `adapter`.

A folder's ``config.json`` decides widths, depths, heads, activations, the layers that the
decoder reads and how it upsamples; ``preprocessor_config.json`` the size of pictures, else
the size at which positions were learnt. What a card says besides is held against them. How
pixels are standardised is the published model's, and a folder that says otherwise is
refused when it is loaded.

Without such files (a plain file of weights, random numbers) it is the published model.
"""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from harness.cards import load_model_card
from harness.errors import CardError, CheckpointError, choose
from harness.files.canonical import read_object
from harness.model.tokenizers import ClipTokenizer
from harness.models import read_settings
from harness.weights.loading import load_into
from harness.weights.pretrained import beside, read_configuration

from .adapter import ClipSeg, Settings, _configuration


class ClipSegFolder(ClipSeg):
    """CLIPSeg in the configuration of its folder."""

    def __init__(self, settings: Mapping[str, Any], *, weights: Path | None) -> None:
        """Build the model.

        Args:
            settings: Any of `Settings`, to be held against the folder.
            weights: A folder in the hub's format, or None.
        """
        for name in settings:
            choose(name, Settings.model_fields, kind="setting", where="settings", error=CardError)
        self._said, self._seed = dict(settings), torch.initial_seed()
        published = load_model_card(Path(__file__).with_name("card.yaml")).card.settings
        chosen = read_settings(Settings, {**published, **self._said})
        self._build(chosen, _configuration(chosen))
        if weights is not None:
            self.configure(weights)
            load_into(self.module, weights)

    def _build(self, settings: Settings, configuration: Any) -> None:
        """Take an architecture; the module waits, since the folder may say another one."""
        self.settings = settings
        self.input_size = (settings.input_size, settings.input_size)
        self._tokenizer = ClipTokenizer(
            context_length=settings.context_length, vocabulary_size=settings.vocabulary_size
        )
        self._configuration = configuration
        self.__dict__.pop("module", None)

    @cached_property
    def module(self) -> Any:
        """Transformers' ``CLIPSegForImageSegmentation``, built when it is needed."""
        from transformers import CLIPSegForImageSegmentation

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed)
            return CLIPSegForImageSegmentation(self._configuration)

    def configure(self, place: Path) -> None:
        """Take the architecture of a folder, where it has a configuration."""
        file = beside(place, "config.json")
        if file is None:
            return
        from transformers import CLIPSegForImageSegmentation

        config = read_configuration(CLIPSegForImageSegmentation, file.parent)
        found = _settings_of(config, _picture_size(place) or config.vision_config.image_size)
        for name, value in self._said.items():
            theirs = list(found[name]) if isinstance(found[name], tuple) else found[name]
            if value != theirs:
                raise CardError(
                    f"settings.{name}: found {value!r}, {file.parent} says {theirs!r}. They must "
                    "be equal. Correct the card, or leave the key to the folder."
                )
        try:
            chosen = read_settings(Settings, found)
        except CardError as problem:
            raise CheckpointError(
                f"{file}: no CLIPSeg that can be computed here ({problem}). Give the folder of "
                "another model."
            ) from None
        self._build(chosen, config)


def _settings_of(config: Any, input_size: int) -> dict[str, Any]:
    vision, text = config.vision_config, config.text_config
    return {
        "input_size": input_size,
        "position_size": vision.image_size,
        "patch_size": vision.patch_size,
        "vision_hidden_size": vision.hidden_size,
        "vision_intermediate_size": vision.intermediate_size,
        "vision_layers": vision.num_hidden_layers,
        "vision_heads": vision.num_attention_heads,
        "text_hidden_size": text.hidden_size,
        "text_intermediate_size": text.intermediate_size,
        "text_layers": text.num_hidden_layers,
        "text_heads": text.num_attention_heads,
        "context_length": text.max_position_embeddings,
        "vocabulary_size": text.vocab_size,
        "projection_dim": config.projection_dim,
        "reduce_dim": config.reduce_dim,
        "extract_layers": list(config.extract_layers),
        "conditional_layer": config.conditional_layer,
        "decoder_heads": config.decoder_num_attention_heads,
        "decoder_intermediate_size": config.decoder_intermediate_size,
        "use_complex_transposed_convolution": config.use_complex_transposed_convolution,
        "initialisation": "published",
    }


def _picture_size(place: Path) -> int | None:
    """The side of pictures that a folder's processor makes; None where it says none."""
    file = beside(place, "preprocessor_config.json")
    if file is None:
        return None
    repair = "Download the file of the hub's folder again."
    content = read_object(file, error=CheckpointError, missing=repair, repair=repair)
    size = content.get("size")
    if not isinstance(size, dict):
        size = {"height": size, "width": size}
    sides = {size.get("height"), size.get("width")}
    (side, *others) = sides
    if others or type(side) is not int or side < 1:
        raise CheckpointError(
            f"{file}: size is {content.get('size')!r}. CLIPSeg sees square pictures of one size, "
            "height and width. Give the folder of such a model."
        )
    return side
