"""Turns samples into batches: pictures kept preprocessed, prompts drawn anew each epoch.

Conventions: pixels are what the model's `preprocess` returns, ``(N, 3, H, W)``
float32; masks are ``(N, H, W)`` bool at the model's input size (nearest). All that
is random about an example is a function of (seed, epoch, place in the list), so
that a continued training sees what an undisturbed one would have seen.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from harness.data.images import read_image, read_mask
from harness.errors import DataError, choose
from harness.model.contract import Adapter
from harness.records import Sample
from harness.training.recipe import Recipe

# Half precision keeps 11 bits, 8-bit pictures need 8; beyond this budget pictures are read anew.
CACHE_BYTES = 4 << 30
_CONTRAST, _BRIGHTNESS = 0.2, 0.2


class Batch(NamedTuple):
    """N examples: pixels ``(N, 3, H, W)``, masks ``(N, H, W)`` bool, N texts."""

    pixels: Tensor
    masks: Tensor
    texts: list[str]


def rungs_of(sample: Sample, prompt_type: str) -> list[str]:
    """The rungs a sample is trained with.

    `prompt_type` is a rung, several with commas (``p0,p3``) or as a range (``p0..p9``), each as
    often, or ``random``: all but the empty one.
    """
    if prompt_type == "random":
        rungs = [name for name in sample.prompts if name != "p0"]
    else:
        where = f"{sample.dataset}/{sample.split}: {sample.sample_id}"
        known = [*sample.prompts, "random"]
        rungs = []
        for part in prompt_type.split(","):
            first, _, last = part.strip().partition("..")
            ends = [
                choose(name, known, kind="prompt type", where=where, error=DataError)
                for name in (first, last or first)
            ]
            within = [name for name in sample.prompts if ends[0] <= name <= ends[1]]
            rungs += within if last else ends[:1]
    return rungs


def prompt_choices(sample: Sample, prompt_type: str) -> list[list[str]]:
    """The texts a sample may be trained with, per rung of `rungs_of`."""
    rungs = rungs_of(sample, prompt_type)
    return [[prompt.text for prompt in sample.prompts[name]] for name in rungs]


class Negatives(Protocol):
    """What may be asked for that is not in a sample's picture."""

    def draw(self, sample: Sample, rng: np.random.Generator) -> str | None:
        """A text whose right mask is empty; None where nothing is known to be absent."""


class Examples:
    """Samples as a model sees them; `prompt_types` are those of `prompt_choices`, one each."""

    def __init__(
        self,
        samples: Sequence[Sample],
        adapter: Adapter,
        *,
        prompt_types: Sequence[str],
        recipe: Recipe,
        negatives: Negatives | None = None,
    ) -> None:
        self.samples = samples
        self._negatives = negatives
        self._adapter = adapter
        self._recipe = recipe
        self._choices = [
            prompt_choices(sample, kind) for sample, kind in zip(samples, prompt_types, strict=True)
        ]
        height, width = adapter.input_size
        self._kept = min(len(samples), CACHE_BYTES // (height * width * (3 * 2 + 1)))
        self._cache: dict[int, tuple[Tensor, Tensor]] = {}

    def __len__(self) -> int:
        return len(self.samples)

    def training_batch(self, indices: Sequence[int], *, epoch: int) -> Batch:
        """Examples with drawn prompts and, where the recipe asks for it, augmented."""
        pixels, masks, texts = [], [], []
        for index in indices:
            rng = np.random.default_rng([self._recipe.seed, epoch, index])
            rungs = self._choices[index]
            rung = rungs[rng.integers(len(rungs))]
            text = rung[rng.integers(len(rung))]
            picture, mask = self._augmented(*self._example(index), rng)
            absent = self._absent(index, epoch)
            texts.append(text if absent is None else absent)
            pixels.append(picture)
            masks.append(mask if not absent else torch.zeros_like(mask))
        return Batch(torch.stack(pixels), torch.stack(masks), texts)

    def _absent(self, index: int, epoch: int) -> str | None:
        """Another text in place of the sample's own: for what is absent, or the empty one.

        Drawn from a stream of its own, so that recipes without it train as they always did.
        """
        recipe = self._recipe
        if not recipe.negatives and not recipe.prompt_dropout:
            return None
        rng = np.random.default_rng([recipe.seed, epoch, index, 1])
        is_negative, is_dropped = rng.random(2) < (recipe.negatives, recipe.prompt_dropout)
        if is_negative and self._negatives is not None:
            text = self._negatives.draw(self.samples[index], rng)
            if text is not None:
                return text
        return "" if is_dropped else None

    def validation_batch(self, indices: Sequence[int]) -> Batch:
        """Examples as they are, with the first prompt: the same in every epoch."""
        examples = [self._example(index) for index in indices]
        return Batch(
            torch.stack([picture.float() for picture, _ in examples]),
            torch.stack([mask for _, mask in examples]),
            [self._choices[index][0][0] for index in indices],
        )

    def _example(self, index: int) -> tuple[Tensor, Tensor]:
        if index in self._cache:
            return self._cache[index]
        sample = self.samples[index]
        picture = self._adapter.preprocess(read_image(sample.image, sample.reading)).half()
        height, width = self._adapter.input_size
        mask = Image.fromarray(read_mask(sample.mask, sample.reading)).resize(
            (width, height), Image.Resampling.NEAREST
        )
        example = picture, torch.from_numpy(np.array(mask, dtype=np.bool_))
        if index < self._kept:
            self._cache[index] = example
        return example

    def _augmented(
        self, picture: Tensor, mask: Tensor, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """Contrast and brightness in standardised values; mirroring for controls."""
        picture = picture.float()
        if self._recipe.photometric:
            contrast = 1 + rng.uniform(-_CONTRAST, _CONTRAST)
            mean = picture.mean()
            picture = (picture - mean) * contrast + mean + rng.uniform(-_BRIGHTNESS, _BRIGHTNESS)
        if self._recipe.flip and rng.random() < 0.5:
            picture, mask = picture.flip(-1), mask.flip(-1)
        return picture, mask


class Shuffled:
    """Yields every index once, in an order that depends on (seed, epoch) alone.

    The trainer calls `set_epoch` before each epoch, also after a restart.
    """

    def __init__(self, length: int, *, seed: int) -> None:
        self._length, self._seed, self._epoch = length, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch, counted from 0."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng([self._seed, self._epoch])
        yield from rng.permutation(self._length).tolist()
