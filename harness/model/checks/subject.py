"""The model under test, with the pictures and prompts it is tried on.

Conventions: N is the number of test pictures. Logits are compared as float32 on
the model's device by their largest absolute difference, the *gap*; the *spread* is
the standard deviation of the logits of the first call; the *noise* is the gap
between equal calls, never less than one rounding of the largest logit.
"""

import hashlib
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.errors import ModelError
from harness.model.contract import AnySize, EmbedsText, Features, Predicts, Staged
from harness.model.loading import LoadedModel
from harness.model.precision import BROKEN

PROMPTS = (
    "one small pink round polyp, located in top left of the image",
    "two large dark oval tumors, located in the bottom right",
)
# Rounding of one operation in the precision of the computation.
_ROUNDING = {"float32": 2.0**-23, "bfloat16": 2.0**-8, "float16": 2.0**-11}


class Subject:
    """One loaded model; everything is measured once and kept."""

    def __init__(
        self,
        model: LoadedModel,
        pictures: Sequence[NDArray[np.uint8]],
        prompts: Sequence[str],
    ) -> None:
        self.model = model
        self.pictures = pictures
        self.prompts = tuple(prompts)
        # One prompt a picture, so that a model that mixes up rows is seen.
        self.texts = [self.prompts[i % len(prompts)] for i in range(len(pictures))]
        # Gaps of comparisons that should be equal, by the name of the check.
        self.gaps: dict[str, float] = {}
        self.weights_before = fingerprint(model.adapter.module)

    @cached_property
    def pixels(self) -> Tensor:
        """``(N, 3, H, W)`` on the model's device."""
        rows = [self.model.adapter.preprocess(picture) for picture in self.pictures]
        if self.is_any_size:  # one call has pictures of one size
            height, width = (min(row.shape[axis] for row in rows) for axis in (1, 2))
            rows = [row[:, :height, :width] for row in rows]
        return torch.stack(rows).to(self.model.device)

    @cached_property
    def logits(self) -> Tensor:
        """Logits of every picture with its text, in one batch, through the stages."""
        return self.staged(self.pixels, self.texts)

    @cached_property
    def repeats(self) -> list[Tensor]:
        """The same call twice more, whatever the state of the random generator."""
        repeated = []
        device = self.model.device
        for seed in (1, 2):
            with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
                torch.manual_seed(seed)
                repeated.append(self.staged(self.pixels, self.texts))
        return repeated

    @cached_property
    def image_features(self) -> Features:
        """Features of the N pictures."""
        return self.model.adapter.encode_images(self.pixels)

    @cached_property
    def prompt_logits(self) -> list[Tensor]:
        """For each prompt, the logits of all pictures with it."""
        return [self.with_text(prompt) for prompt in self.prompts]

    @cached_property
    def spread(self) -> float:
        """Standard deviation of the logits."""
        return float(self.logits.std())

    @cached_property
    def repeat_gap(self) -> float:
        """How far equal calls differ."""
        return max(gap(self.logits, again) for again in self.repeats)

    @cached_property
    def noise(self) -> float:
        """The repeat gap, or a rounding of the largest logit if that is more."""
        rounding = _ROUNDING[self.model.precision] * float(self.logits.abs().max())
        return max(self.repeat_gap, rounding)

    @property
    def broken(self) -> float:
        """A gap above this is no rounding."""
        return BROKEN[self.model.precision] * self.spread

    @property
    def is_staged(self) -> bool:
        """Whether the author wrote the stages."""
        return isinstance(self.model.raw, Staged)

    @property
    def is_plain(self) -> bool:
        """Whether the author wrote the whole forward, too."""
        return isinstance(self.model.raw, Predicts)

    @property
    def is_any_size(self) -> bool:
        """Whether pictures reach the model as they are."""
        return isinstance(self.model.raw, AnySize)

    @property
    def call(self) -> str:
        """The author's method that returns logits."""
        return "decode" if self.is_staged else "predict"

    def staged(self, pixels: Tensor, texts: Sequence[str]) -> Tensor:
        """Logits as the engine gets them."""
        adapter = self.model.adapter
        features = adapter.encode_images(pixels), adapter.encode_texts(list(texts))
        return _float(adapter.decode(*features))

    def plain(self, pixels: Tensor, texts: Sequence[str]) -> Tensor:
        """Logits of the author's own `predict`."""
        assert isinstance(self.model.raw, Predicts)
        return _float(self.model.raw.predict(pixels, list(texts)))

    def with_text(self, text: str) -> Tensor:
        """Logits of all pictures with one text."""
        adapter = self.model.adapter
        texts = adapter.encode_texts([text] * len(self.pictures))
        return _float(adapter.decode(self.image_features, texts))

    def embedding_gap(self) -> float | None:
        """How far the text embedding moves between the prompts; None where none is offered."""
        if not isinstance(self.model.raw, EmbedsText):
            return None
        vectors = self.model.raw.text_embedding(list(self.prompts)).float()
        return max(gap(vectors[0], other) for other in vectors[1:])


def _float(logits: object) -> Tensor:
    """Logits as float32, whatever the precision of the computation."""
    if not isinstance(logits, Tensor):
        raise ModelError(f"found logits of type {type(logits).__name__}; a tensor is needed")
    return logits.float()


def gap(first: Tensor, second: Tensor) -> float:
    """Largest absolute difference; infinite where only one of the two is finite."""
    return float((first.double() - second.double()).abs().nan_to_num(torch.inf).max())


def fingerprint(module: torch.nn.Module) -> dict[str, str]:
    """A hash of the bytes of each parameter and buffer."""
    tensors = [*module.named_parameters(), *module.named_buffers()]
    return {name: _digest(tensor.detach()) for name, tensor in tensors}


def _digest(tensor: Tensor) -> str:
    content = tensor.cpu().contiguous().flatten().view(torch.uint8).numpy()
    return hashlib.blake2b(content.tobytes(), digest_size=8).hexdigest()


def default_pictures() -> list[NDArray[np.uint8]]:
    """Two pictures of unequal size and shape, bright on dark and dark on bright."""
    return [_picture(48, 64, light=True), _picture(75, 50, light=False)]


def _picture(height: int, width: int, *, light: bool) -> NDArray[np.uint8]:
    """A disc on a gradient, with fixed noise, ``(height, width, 3)``."""
    y, x = np.mgrid[:height, :width]
    disc = (y - 0.4 * height) ** 2 + (x - 0.6 * width) ** 2 < (0.2 * min(height, width)) ** 2
    ramp = 60 + 80 * (x / width + y / height)[..., None] * np.array([1.0, 0.8, 0.6])
    values = ramp + np.where(disc, 70, 0)[..., None]
    noise = np.random.default_rng([height, width]).integers(0, 12, (height, width, 3))
    values = np.clip(values + noise, 0, 255)
    return np.asarray(values if light else 255 - values, dtype=np.uint8)
