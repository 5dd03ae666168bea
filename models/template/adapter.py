"""How a small network is wrapped, in stages: copy this folder and change it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from harness.models import Picture, TokenCounts, device_of, standardise
from harness.weights.loading import load_into

from .network import LENGTH, Network, word_numbers


class ImageFeatures(NamedTuple):
    """`maps` ``(N, C, H, W)``."""

    maps: Tensor


class TextFeatures(NamedTuple):
    """`vectors` ``(N, C)``."""

    vectors: Tensor


class MyModel:
    """Each image and each text is encoded once; only `decode` runs for every pair."""

    def __init__(self, settings: Mapping[str, Any], *, weights: Path | None) -> None:
        self.input_size = (settings["side"], settings["side"])
        self.module = Network(settings["channels"])
        if weights is not None:
            load_into(self.module, weights)

    def preprocess(self, image: Picture) -> Tensor:
        """One picture of any size -> ``(3, H, W)``."""
        return standardise(image, self.input_size, mean=(0.5,) * 3, std=(0.25,) * 3)

    def count_tokens(self, texts: Sequence[str]) -> TokenCounts:
        """Words and the start."""
        counts = tuple(1 + len(text.split()) for text in texts)
        return TokenCounts(counts, tuple(n > LENGTH for n in counts))

    def encode_images(self, pixels: Tensor) -> ImageFeatures:
        """All that can be done without a text."""
        return ImageFeatures(self.module.see(pixels))

    def encode_texts(self, texts: Sequence[str]) -> TextFeatures:
        """All that can be done without an image."""
        return TextFeatures(self.module.read(word_numbers(texts).to(device_of(self.module))))

    def decode(self, image_features: ImageFeatures, text_features: TextFeatures) -> Tensor:
        """N images with N texts -> logits ``(N, H, W)``."""
        return self.module.fuse(image_features.maps, text_features.vectors)
