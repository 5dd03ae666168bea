"""Small models whose behaviour the tests know: one listens, one breaks on demand."""

import functools
import re
import time
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from harness.models import TokenCounts, standardise


class Maps(NamedTuple):
    maps: torch.Tensor


class Words(NamedTuple):
    vector: torch.Tensor


@functools.cache
def _direction(word: str) -> np.ndarray:
    return np.random.default_rng(zlib.crc32(word.encode())).normal(0, 0.4, 8)


class Toy:
    """Convolution maps mixed by a bag of hashed words; every word moves the mask a little."""

    def __init__(self, settings: Mapping[str, Any], *, weights: Path | None) -> None:
        self.input_size = tuple(settings.get("input_size", (24, 32)))
        self.bad_text = settings.get("bad_text")
        self.memory = settings.get("memory")
        self.fault = settings.get("fault")
        self.delay_s = settings.get("delay_s", 0.0)
        self.limit = settings.get("limit", 12)
        self.glitch = settings.get("glitch")  # a file: while it exists, logits are NaN
        self.rough = settings.get("rough")  # logits by which mixed precision is off, by brightness
        self.module = torch.nn.Conv2d(3, 8, 5, padding=2)
        self.images_encoded = self.texts_encoded = self.pairs_decoded = 0
        self.batches: list[tuple[int, float]] = []

    def preprocess(self, image: Any) -> torch.Tensor:
        return standardise(image, self.input_size, mean=(0.5,) * 3, std=(0.25,) * 3)

    def count_tokens(self, texts: Sequence[str]) -> TokenCounts:
        counts = tuple(len(text.split()) for text in texts)
        return TokenCounts(counts, tuple(count > self.limit for count in counts))

    def encode_images(self, pixels: torch.Tensor) -> Maps:
        self.images_encoded += len(pixels)
        return Maps(torch.tanh(self.module(pixels)))

    def encode_texts(self, texts: Sequence[str]) -> Words:
        self.texts_encoded += len(texts)
        rows = []
        for text in texts:
            vector = np.full(8, 0.3)
            for word in text.replace(",", "").split():
                vector += _direction(word)
            if text == self.bad_text:
                vector[0] = np.nan
            rows.append(vector)
        return Words(torch.tensor(np.array(rows), dtype=torch.float32))

    def decode(self, image_features: Maps, text_features: Words) -> torch.Tensor:
        n = len(text_features.vector)
        time.sleep(self.delay_s)
        if self.fault:
            raise RuntimeError(self.fault)
        if self.memory is not None and n > self.memory:
            raise torch.OutOfMemoryError("CUDA out of memory (pretended)")
        self.pairs_decoded += n
        self.batches.append((n, float(image_features.maps.sum())))
        logits = torch.einsum("nchw,nc->nhw", image_features.maps, text_features.vector)
        if self.rough and torch.is_autocast_enabled("cpu"):
            dark = image_features.maps.mean((1, 2, 3)) < self.rough["dark"]
            off = torch.where(dark, self.rough["off_in_the_dark"], self.rough["off"])
            logits = logits.float() + off[:, None, None]
        return logits * torch.nan if self.glitch and Path(self.glitch).exists() else logits


class Box:
    """Level 1 only: the same arithmetic behind `predict`."""

    def __init__(self, settings: Mapping[str, Any], *, weights: Path | None) -> None:
        self._toy = Toy(settings, weights=weights)
        self.input_size = self._toy.input_size
        self.module = self._toy.module

    def preprocess(self, image: Any) -> torch.Tensor:
        return self._toy.preprocess(image)

    def count_tokens(self, texts: Sequence[str]) -> TokenCounts:
        return self._toy.count_tokens(texts)

    def predict(self, pixels: torch.Tensor, texts: Sequence[str]) -> torch.Tensor:
        return self._toy.decode(self._toy.encode_images(pixels), self._toy.encode_texts(texts))


class Prompts(NamedTuple):
    codes: torch.Tensor


class Spotter:
    """Finds what is bright. Sees nothing, or the rest, where a pattern stands in its prompt."""

    def __init__(self, settings: Mapping[str, Any], *, weights: Path | None) -> None:
        self.input_size = (40, 40)
        self.patterns = [settings.get("nothing"), settings.get("rest"), settings.get("bad")]
        self.module = torch.nn.Conv2d(3, 1, 1)
        self.images_encoded = self.texts_encoded = self.pairs_decoded = 0

    def preprocess(self, image: Any) -> torch.Tensor:
        return standardise(image, self.input_size, mean=(0.5,) * 3, std=(0.25,) * 3)

    def count_tokens(self, texts: Sequence[str]) -> TokenCounts:
        counts = tuple(len(text.split()) for text in texts)
        return TokenCounts(counts, (False,) * len(counts))

    def encode_images(self, pixels: torch.Tensor) -> Maps:
        self.images_encoded += len(pixels)
        return Maps(torch.where(pixels.mean(1) > -0.1, 9.0, -9.0))

    def encode_texts(self, texts: Sequence[str]) -> Prompts:
        self.texts_encoded += len(texts)
        found = [
            [bool(pattern and re.search(pattern, text)) for pattern in self.patterns]
            for text in texts
        ]
        return Prompts(torch.tensor(found))

    def decode(self, image_features: Maps, text_features: Prompts) -> torch.Tensor:
        self.pairs_decoded += len(text_features.codes)
        nothing, rest, bad = text_features.codes[:, :, None, None].unbind(1)
        logits = torch.where(rest, -image_features.maps, image_features.maps)
        logits = torch.where(nothing, torch.full_like(logits, -9.0), logits)
        return torch.where(bad, torch.full_like(logits, torch.nan), logits)
