"""All samples of a split, as a perturbation may look at them.

Conventions: a population is read-only; what it draws depends on its samples and on the
seed alone. Two prompts *clash* unless one excludes the other, or when they belong to the
same image.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from harness.records import Prompt, Sample

# How often two partners are tried to be exchanged, per prompt, after a draw is complete.
MIXING = 10

Excludes: TypeAlias = Callable[[Prompt, Prompt], bool]


@dataclass(frozen=True)
class Population:
    """The samples of one split and the rung their prompts are taken from.

    `complete` says that every target of an image is one of the samples, so that what
    none of them names is absent from the image.
    """

    samples: Sequence[Sample] = ()
    prompt_type: str = "p6"
    complete: bool = False
    _drawn: dict[tuple[int, int], Mapping[str, Prompt]] = field(
        default_factory=dict, compare=False, repr=False
    )
    _by_image: dict[str, list[Sample]] = field(default_factory=dict, compare=False, repr=False)

    def of_image(self, image_id: str) -> Sequence[Sample]:
        """The samples that show one image."""
        if not self._by_image:
            for sample in self.samples:
                self._by_image.setdefault(sample.image_id, []).append(sample)
        return self._by_image.get(image_id, ())

    def partner(
        self, sample: Sample, prompt: Prompt, *, seed: int, excludes: Excludes
    ) -> Prompt | None:
        """The prompt that another image's sample lends to this one; None where none was found.

        Each prompt is used exactly once as a replacement: the partners of a seed are a derangement
        of the split, among prompts of the same place in their lists. `excludes` says whether
        nothing can be what two prompts say.
        """
        key = (prompt.index, seed)
        if key not in self._drawn:
            self._drawn[key] = self._draw(prompt.index, seed, excludes)
        return self._drawn[key].get(sample.sample_id)

    def _draw(self, index: int, seed: int, excludes: Excludes) -> Mapping[str, Prompt]:
        named = [
            (sample, prompt)
            for sample in self.samples
            for prompt in sample.prompts.get(self.prompt_type, ())
            if prompt.index == index
        ]

        def clash(a: int, b: int) -> bool:
            same_image = named[a][0].image_id == named[b][0].image_id
            return same_image or not excludes(named[a][1], named[b][1])

        partners = derange(len(named), clash, np.random.default_rng(seed))
        return {
            sample.sample_id: named[partner][1]
            for (sample, _), partner in zip(named, partners, strict=True)
            if partner is not None
        }


def derange(
    n: int, clash: Callable[[int, int], bool], rng: np.random.Generator
) -> list[int | None]:
    """A permutation of `n` in which nobody clashes with their partner; None for who is left over.

    A uniform permutation is repaired by exchanges and then mixed by random exchanges that keep it a
    derangement; of that chain the uniform distribution is stationary. `clash` is symmetrical, and
    everybody clashes with themselves. Where every prompt clashes with fewer than half of the
    others, repair always succeeds.
    """
    partners = [int(p) for p in rng.permutation(n)]

    def exchange(a: int, b: int) -> bool:
        if clash(a, partners[b]) or clash(b, partners[a]):
            return False
        partners[a], partners[b] = partners[b], partners[a]
        return True

    for a in range(n):
        if clash(a, partners[a]):
            any(exchange(a, int(b)) for b in rng.permutation(n))
    for a, b in rng.integers(n, size=(MIXING * n, 2)).tolist() if n else ():
        exchange(a, b)
    return [None if clash(a, b) else b for a, b in enumerate(partners)]
