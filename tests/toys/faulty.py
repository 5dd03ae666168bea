"""A small model that keeps the contract, and breaks it in one named way when asked to."""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from harness.models import TokenCounts, standardise

CONTEXT = 10


class Maps(NamedTuple):
    maps: torch.Tensor


class Words(NamedTuple):
    vector: torch.Tensor


class Network(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = torch.nn.Conv2d(3, 8, 5, padding=2)
        self.table = torch.nn.EmbeddingBag(64, 8, mode="mean", padding_idx=0)
        self.norm = torch.nn.BatchNorm2d(8)
        self.drop = torch.nn.Dropout(0.5)
        self.register_buffer("seen", torch.zeros(1))


class Faulty:
    """Convolution maps weighted by a bag of hashed words, up to CONTEXT words."""

    input_size = (24, 32)

    def __init__(self, settings: Mapping[str, Any], *, weights: object) -> None:
        self.fault = settings.get("fault", "")
        self.module = Network()
        self.calls = 0

    def preprocess(self, image: Any) -> torch.Tensor:
        if self.fault == "grey pictures raise" and getattr(image, "mode", "RGB") == "L":
            raise ValueError("not RGB")
        if self.fault == "picture changed" and isinstance(image, np.ndarray):
            image[0, 0] = 255 - image[0, 0]
        size = (32, 24) if self.fault == "axes swapped" else self.input_size
        mean = (0.4,) * 3 if self.fault == "array is not image" and hasattr(image, "mode") else 0.5
        mean = mean if isinstance(mean, tuple) else (0.5,) * 3
        pixels = standardise(image, size, mean=mean, std=(0.25,) * 3)
        faults = {
            "double pixels": lambda: pixels.double(),
            "endless pixels": lambda: pixels / (pixels.std() if pixels.std() > 1e-6 else 0.0),
            "numpy pixels": lambda: pixels.numpy(),
        }
        return faults.get(self.fault, lambda: pixels)()

    def count_tokens(self, texts: Sequence[str]) -> Any:
        counts = tuple(len(text.split()) for text in texts)
        cut = tuple(n > CONTEXT for n in counts)
        faults = {
            "list of counts": list(counts),
            "one count": TokenCounts(counts[:1], cut[:1]),
            "broken counts": TokenCounts(tuple(map(float, counts)), cut),
            "broken truths": TokenCounts(counts, tuple(map(str, cut))),
            "counts after cutting": TokenCounts(tuple(min(n, CONTEXT) for n in counts), cut),
            "no tokens": TokenCounts((0,) * len(texts), (False,) * len(texts)),
            "cut unsaid": TokenCounts(counts, (False,) * len(texts)),
        }
        return faults.get(self.fault, TokenCounts(counts, cut))

    def tokenize(self, texts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        ids = torch.zeros(len(texts), CONTEXT, dtype=torch.int64)
        for row, text in enumerate(texts):
            words = text.replace(",", "").split()
            if self.fault == "long texts raise" and len(words) > 2 * CONTEXT:
                raise IndexError("index out of range in self")
            limit = None if self.fault == "never cut" else CONTEXT
            numbers = [1 + zlib.crc32(word.encode()) % 63 for word in words[:limit]]
            if self.fault == "never cut" and len(numbers) > CONTEXT:
                numbers[CONTEXT - 1] = 1 + sum(numbers[CONTEXT - 1 :]) % 63
            ids[row, : len(numbers[:CONTEXT])] = torch.tensor(numbers[:CONTEXT], dtype=torch.int64)
        mask = (ids > 0).long()
        if self.fault == "mask off by one":
            mask[:, 0] = 0
        return ids, mask[:, 1:] if self.fault == "mask too short" else mask

    def encode_tokens(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        vector = self.module.table(input_ids)
        if self.fault == "tokens differ from texts":
            vector = vector + 1
        if self.fault == "ragged texts":
            vector = vector[:, None].expand(-1, int(attention_mask.sum(1).max()), -1)
        if self.fault == "text drowned":
            vector = torch.ones_like(vector)
        return Words(vector + 0.1)

    def encode_texts(self, texts: Sequence[str]) -> Any:
        if self.fault == "texts raise":
            raise KeyError("vocabulary")
        fault, self.fault = self.fault, self.fault.replace("tokens differ from texts", "")
        words = self.encode_tokens(*self.tokenize(texts))
        self.fault = fault
        return words

    def text_embedding(self, texts: Sequence[str]) -> torch.Tensor:
        vector = self.encode_texts(texts).vector
        faults = {
            "embedding without rows": lambda: vector.mean(0),
            "embedding not finite": lambda: vector * torch.nan,
            "embedding stuck": lambda: vector * 0,
        }
        return faults.get(self.fault, lambda: vector)()

    def encode_images(self, pixels: torch.Tensor) -> Any:
        maps = torch.tanh(self.module.convolution(pixels))
        if self.fault == "neighbours matter":
            maps = maps - maps.mean(0, keepdim=True)
        if self.fault == "neighbours matter a little":
            maps = maps + 3e-4 * len(pixels)
        if self.fault == "dropout":
            maps = torch.nn.functional.dropout(maps, 0.5, training=True)
        if self.fault == "running statistics":
            self.module.seen += 1
        if self.fault == "training mode":
            self.module.train()
        return [maps] if self.fault == "list of features" else Maps(maps)

    def decode(self, image_features: Any, text_features: Any) -> Any:
        self.calls += 1
        vector = text_features.vector
        if self.fault == "prompt dropped":
            vector = torch.ones_like(vector)
        if vector.dim() == 3:
            vector = vector.mean(1)
        if self.fault == "rows mixed up":
            vector = vector.flip(0)
        logits = torch.einsum("nchw,nc->nhw", image_features.maps, vector) * 4
        faults = {
            "channel kept": lambda: logits[:, None],
            "size follows the text": lambda: logits[:, : 10 + int(vector.abs().sum() > 3)],
            "not finite": lambda: logits / 0,
            "probabilities": lambda: logits.sigmoid(),
            "constant": lambda: logits * 0 - 20,
            "numpy logits": lambda: logits.numpy(),
            "later calls differ": lambda: logits + 0.1 * (self.calls > 9),
            "noise": lambda: logits + 1e-3 * torch.rand(()),
        }
        return faults.get(self.fault, lambda: logits)()

    def decoder_modules(self) -> Sequence[torch.nn.Module]:
        if self.fault == "foreign decoder":
            return [torch.nn.Linear(2, 2)]
        return [self.module.table]


class WithPredict(Faulty):
    """The same with a forward of its own beside the stages."""

    def predict(self, pixels: torch.Tensor, texts: Sequence[str]) -> torch.Tensor:
        logits = self.decode(self.encode_images(pixels), self.encode_texts(texts))
        faults = {"another size": lambda: logits[:, 1:], "another sum": lambda: 2 * logits}
        return faults.get(self.fault, lambda: logits)()


class Undivided:
    """The same as a black box."""

    def __init__(self, settings: Mapping[str, Any], *, weights: object) -> None:
        self._whole = Faulty(settings, weights=weights)
        self.input_size, self.module = self._whole.input_size, self._whole.module

    def preprocess(self, image: Any) -> torch.Tensor:
        return self._whole.preprocess(image)

    def count_tokens(self, texts: Sequence[str]) -> TokenCounts:
        return self._whole.count_tokens(texts)

    def predict(self, pixels: torch.Tensor, texts: Sequence[str]) -> torch.Tensor:
        if self._whole.fault == "predict raises":
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied\nsecond line")
        return self._whole.decode(
            self._whole.encode_images(pixels), self._whole.encode_texts(texts)
        )
