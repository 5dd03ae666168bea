"""A model whose language use is known by construction: it reads some words and drops the others."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from harness.models import TokenCounts, load_model

ATTRIBUTES = ("number", "size", "color", "shape", "class")


def kept(text: str, reads: Sequence[str]) -> str:
    """What is left of a phantom prompt when only the class and these attributes are read.

    The five words before the comma are number, size, color, shape and class; the location
    stands behind it.
    """
    described, comma, place = text.partition(", located in ")
    words = dict(zip(ATTRIBUTES, described.split(), strict=False))
    read = " ".join(word for name, word in words.items() if name in {*reads, "class"})
    return read + comma + place if "location" in reads else read


class Reader:
    """Another model behind a filter of its prompts."""

    def __init__(self, settings: Mapping[str, Any], *, weights: Path | None) -> None:
        self._inner = load_model(settings["inner"], device="cpu").raw
        self._reads = settings["reads"]
        self.input_size = self._inner.input_size
        self.module = self._inner.module

    def _kept(self, texts: Sequence[str]) -> list[str]:
        return [kept(text, self._reads) for text in texts]

    def preprocess(self, image: Any) -> torch.Tensor:
        return self._inner.preprocess(image)

    def count_tokens(self, texts: Sequence[str]) -> TokenCounts:
        return self._inner.count_tokens(self._kept(texts))

    def encode_images(self, pixels: torch.Tensor) -> Any:
        return self._inner.encode_images(pixels)

    def encode_texts(self, texts: Sequence[str]) -> Any:
        return self._inner.encode_texts(self._kept(texts))

    def decode(self, image_features: Any, text_features: Any) -> torch.Tensor:
        return self._inner.decode(image_features, text_features)

    def text_embedding(self, texts: Sequence[str]) -> torch.Tensor:
        return self._inner.text_embedding(self._kept(texts))
