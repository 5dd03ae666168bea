"""The image-only control: a segmentation network that cannot read its prompt.

Conventions: pixels are standardised with ImageNet's mean and deviation; logits
have the size of the input. Nothing is downloaded here: a pretrained encoder enters
through the card's `weights`, as a file of the encoder alone.

The paper's baselines are three cards of this adapter. Their checkpoints hold the
library's own keys behind ``net.``; versions 0.3.3 (of the paper's time) and 0.6.0 of
segmentation_models_pytorch have the same keys, and the same logits from them.

Sources: O. Ronneberger et al., MICCAI 2015, arXiv 1505.04597; Z. Zhou et al., DLMIA
2018, arXiv 1807.10165; L.-C. Chen et al., ECCV 2018, arXiv 1802.02611.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import segmentation_models_pytorch as smp
import torch
from pydantic import Field

from harness.cards import Strict
from harness.models import Note, Picture, TokenCounts, device_of, read_settings, standardise
from harness.weights.loading import fill, read_tensors

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# What ImageNet's classifiers have behind their encoder.
_CLASSIFIER = ("fc.", "classifier.", "last_linear.")
_UNTRAINED = Note(
    "only the encoder is pretrained: the masks mean nothing yet. Finetune the model, or give a "
    "finetuned file with --checkpoint."
)


class Settings(Strict):
    """The architecture.

    `encoder` is a name of segmentation_models_pytorch, `input_size` the side in pixels,
    `decoder_channels` the widths of a U-Net's decoder, deepest first; the library's when None.
    """

    architecture: Literal["unet", "unetplusplus", "deeplabv3plus", "fpn"] = "unet"
    encoder: str = "resnet18"
    decoder_channels: tuple[int, ...] | None = None
    input_size: int = Field(default=352, ge=32, multiple_of=32)


def _decoder(settings: Settings) -> dict[str, Any]:
    """Keywords of the decoder; without widths of its own the library's defaults hold."""
    if settings.decoder_channels is None:
        return {}
    return {"decoder_channels": settings.decoder_channels}


class ImageFeatures(NamedTuple):
    """The finished logits, ``(N, H, W)``: nothing is left for the text to change."""

    logits: torch.Tensor


class TextFeatures(NamedTuple):
    """A constant, ``(N, 1)``: the text is not read."""

    nothing: torch.Tensor


class ImageOnly:
    """A U-Net (or relative) that answers every prompt with the same mask."""

    def __init__(self, settings: Mapping[str, Any], *, weights: Path | None) -> None:
        """Build the network.

        Args:
            settings: The card's settings.
            weights: A file of weights for the whole network or for its encoder alone,
                or None.
        """
        self.settings = read_settings(Settings, settings)
        self.input_size = (self.settings.input_size, self.settings.input_size)
        self.module: torch.nn.Module = smp.create_model(
            self.settings.architecture,
            self.settings.encoder,
            encoder_weights=None,
            classes=1,
            **_decoder(self.settings),
        )
        self.notes: tuple[Note, ...] = ()
        if weights is not None:
            self._load(weights)

    def _load(self, weights: Path) -> None:
        tensors = read_tensors(weights)
        if any(".segmentation_head." in f".{key}" for key in tensors):
            fill(self.module, tensors, where=str(weights))
            return
        kept = {k: v for k, v in tensors.items() if not k.startswith(_CLASSIFIER)}
        encoder: torch.nn.Module = self.module.get_submodule("encoder")
        fill(encoder, kept, where=str(weights))
        self.notes = (_UNTRAINED,)

    def preprocess(self, image: Picture) -> torch.Tensor:
        """``(H, W, 3)`` uint8 -> ``(3, h, w)``, standardised."""
        return standardise(image, self.input_size, mean=_MEAN, std=_STD)

    def count_tokens(self, texts: Sequence[str]) -> TokenCounts:
        """Zeros: no text is read, so none is cut."""
        return TokenCounts((0,) * len(texts), (False,) * len(texts))

    def encode_images(self, pixels: torch.Tensor) -> ImageFeatures:
        """``(N, 3, H, W)`` -> the logits; this is the whole network."""
        return ImageFeatures(self.module(pixels).squeeze(1))

    def encode_texts(self, texts: Sequence[str]) -> TextFeatures:
        """The same feature for every text."""
        return TextFeatures(torch.zeros(len(texts), 1, device=device_of(self.module)))

    def decode(self, image_features: ImageFeatures, text_features: TextFeatures) -> torch.Tensor:
        """The image's logits, ``(N, H, W)``, whatever the text."""
        return image_features.logits
