"""Models that draw random numbers in evaluation too, as one answer that never changes.

An adapter whose ``decode`` takes a ``generator`` gives one sample a call. `Sampled` makes it
look like any other: its answer is the mean of the sigmoids of N samples, as logits.

Conventions: noise is a function of the picture's id in the plan (its content) and the number of the
sample. So batches, order, interruption and executor change nothing, and all prompts of a
picture meet the same noise, which would otherwise look like an effect of the prompt.
Different pictures meet independent noise: the spread between pictures, from which intervals
are made, contains it. `halves` give two answers from disjoint samples: what lies between
them is the noise that a repetition would show.
"""

import hashlib
import inspect
from collections import namedtuple
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from harness.model.contract import Features, Picture, TokenCounts
from harness.model.features import select

_EDGE = 1e-7  # a mean of sigmoids this near to 0 or 1 is that of float32's rounding
_SEED = "noise_seed"


def is_sampled(adapter: Any) -> bool:
    """Whether an adapter's ``decode`` gives one random sample a call."""
    decode = getattr(adapter, "decode", None)
    return decode is not None and "generator" in inspect.signature(decode).parameters


def noise_seed(name: str) -> int:
    """The seed of a picture's noise, from its id in the plan."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")


class Halves(NamedTuple):
    """Means of the sigmoids ``(N, h, w)`` of the first and the second half of the samples."""

    first: Tensor
    second: Tensor


class Sampled:
    """A model that samples, as a staged adapter without chance."""

    def __init__(self, adapter: Any, *, samples: int) -> None:
        """Wrap `adapter`; `samples` is the number that an answer is the mean of."""
        self.adapter, self.samples = adapter, samples
        self.input_size: tuple[int, int] = adapter.input_size
        self.module: torch.nn.Module = adapter.module
        self._kind: Any = None

    def preprocess(self, image: Picture) -> Tensor:
        """The wrapped model's own."""
        pixels: Tensor = self.adapter.preprocess(image)
        return pixels

    def count_tokens(self, texts: Sequence[str]) -> TokenCounts:
        """The wrapped model's own."""
        counts: TokenCounts = self.adapter.count_tokens(texts)
        return counts

    def encode_images(self, pixels: Tensor) -> Features:
        """The wrapped model's features, with seeds of 0: see `seeded`."""
        found = self.adapter.encode_images(pixels)
        if self._kind is None:
            self._kind = namedtuple("SampledFeatures", [*found._fields, _SEED])  # type: ignore[misc]
        seeds = torch.zeros(len(pixels), dtype=torch.int64, device=found[0].device)
        features: Features = self._kind(*found, seeds)
        return features

    def encode_texts(self, texts: Sequence[str]) -> Features:
        """The wrapped model's own."""
        features: Features = self.adapter.encode_texts(texts)
        return features

    def decode(self, image_features: Any, text_features: Any) -> Tensor:
        """Logits ``(N, h, w)`` of the mean of all samples' sigmoids."""
        return self.together(self.halves(image_features, text_features))

    def together(self, halves: Halves) -> Tensor:
        """Logits of the mean over both halves."""
        n = (self.samples + 1) // 2
        mean = (n * halves.first + (self.samples - n) * halves.second) / self.samples
        return mean.clamp(_EDGE, 1 - _EDGE).logit()

    def halves(self, image_features: Any, text_features: Any) -> Halves:
        """Both halves' means; of a single sample the second one repeats the first."""
        *own, seeds = image_features
        images = self._features(own)
        parts: list[tuple[Tensor, Halves]] = []
        for seed in torch.unique(seeds).tolist():
            rows = (seeds == seed).nonzero().flatten()
            pair = select(images, rows), select(text_features, rows)
            parts.append((rows, self._halves_of(*pair, seed=seed)))
        order = torch.cat([rows for rows, _ in parts]).argsort()
        return Halves(
            torch.cat([half.first for _, half in parts])[order],
            torch.cat([half.second for _, half in parts])[order],
        )

    def _features(self, leaves: Sequence[Tensor]) -> Features:
        bare = namedtuple("BareFeatures", self._kind._fields[:-1])  # type: ignore[misc]
        features: Features = bare(*leaves)
        return features

    def _halves_of(self, images: Features, texts: Features, *, seed: int) -> Halves:
        """Of pairs that share their noise."""

        def mean(numbers: range) -> Tensor:
            total: Any = 0
            for number in numbers:
                generator = np.random.default_rng([seed, number])
                logits = self.adapter.decode(images, texts, generator=generator)
                total = total + logits.float().sigmoid()
            found: Tensor = total / len(numbers)
            return found

        n = (self.samples + 1) // 2
        first = mean(range(n))
        return Halves(first, mean(range(n, self.samples)) if self.samples > 1 else first)


def seeded(adapter: Any, features: Features, names: Sequence[str]) -> Features:
    """Image features whose noise is that of the pictures of these ids, one a row.

    Those of a model that does not sample are given back as they are.
    """
    if not isinstance(adapter, Sampled):
        return features
    seeds = torch.tensor([noise_seed(n) for n in names], dtype=torch.int64)
    named: Any = features
    changed: Features = named._replace(**{_SEED: seeds.to(features[0].device)})
    return changed
