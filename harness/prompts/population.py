"""All samples of a split, as a perturbation may look at them.

Conventions: a population is read-only; what it draws depends on its samples and on the
seed alone. Two prompts *clash* when they say the same or belong to the same image.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from harness.records import Prompt, Sample

# How often two partners are tried to be exchanged, per prompt, after a draw is complete.
MIXING = 10


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
        self, sample: Sample, prompt: Prompt, *, seed: int, meaning: Callable[[Prompt], Hashable]
    ) -> Prompt | None:
        """The prompt that another image's sample lends to this one.

        All samples together lend and borrow once: the partners of a seed are a
        derangement of the split. None where the draw found nobody (see `derange`).

        Args:
            sample: The borrower.
            prompt: Its own prompt; prompts of a list borrow from the same place of others.
            seed: Which derangement.
            meaning: What a prompt says; partners with the same meaning clash.
        """
        key = (prompt.index, seed)
        if key not in self._drawn:
            self._drawn[key] = self._draw(prompt.index, seed, meaning)
        return self._drawn[key].get(sample.sample_id)

    def _draw(
        self, index: int, seed: int, meaning: Callable[[Prompt], Hashable]
    ) -> Mapping[str, Prompt]:
        named = [
            (sample, prompt)
            for sample in self.samples
            for prompt in sample.prompts.get(self.prompt_type, ())
            if prompt.index == index
        ]
        partners = derange(
            [meaning(prompt) for _, prompt in named],
            [sample.image_id for sample, _ in named],
            np.random.default_rng(seed),
        )
        return {
            sample.sample_id: named[partner][1]
            for (sample, _), partner in zip(named, partners, strict=True)
            if partner is not None
        }


def derange(
    meanings: Sequence[Hashable], images: Sequence[str], rng: np.random.Generator
) -> list[int | None]:
    """A permutation in which nobody's partner says the same or has the same image.

    A uniform permutation is repaired by exchanges and then mixed by random exchanges
    that keep it a derangement; of that chain the uniform distribution is stationary.
    Where every prompt clashes with fewer than half of the others, repair always succeeds.

    Args:
        meanings: One per prompt.
        images: One per prompt.
        rng: Source of chance.

    Returns:
        The partner of each; None for those who are left with one who clashes.
    """
    n = len(meanings)
    partners = [int(p) for p in rng.permutation(n)]

    def clash(a: int, b: int) -> bool:
        return meanings[a] == meanings[b] or images[a] == images[b]

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
