"""Prompts for what is not in the picture, to be trained with an empty mask."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from harness.cards import DatasetCard
from harness.errors import DataError, choose
from harness.plan.build import value_sets
from harness.prompts.context import Context
from harness.prompts.grammar import load_grammar
from harness.prompts.lexicon import load_lexicon
from harness.prompts.perturbations import PERTURBATIONS, absence, variants_of
from harness.prompts.population import Population
from harness.records import Sample, Variant
from harness.training.examples import rungs_of

KINDS = {name.removeprefix("absent_"): name for name in absence.KINDS}
"""What `--negative-kinds` calls a kind of absent thing -> the perturbation that asks for it."""

_TRIED = 8


class AbsentPrompts:
    """Draws prompts whose right mask is empty, by the perturbations that an audit asks with.

    Args:
        cards: Of the datasets; what is absent from a picture is read off all samples of its own.
        samples: Of the split that is trained on.
        prompt_types: Dataset -> what it is trained with, as of `rungs_of`.
        kinds: Of `KINDS`; all when empty.

    Raises:
        DataError: A kind is unknown, or no kind applies to any of the first samples.
    """

    def __init__(
        self,
        cards: Sequence[DatasetCard],
        samples: Sequence[Sample],
        prompt_types: Mapping[str, str],
        kinds: Sequence[str],
    ) -> None:
        self._kinds = [
            KINDS[choose(kind, KINDS, kind="kind", where="negative_kinds", error=DataError)]
            for kind in kinds or KINDS
        ]
        lexicon = load_lexicon()
        self._contexts: dict[str, Context] = {}
        for card in cards:
            own = [sample for sample in samples if sample.dataset == card.name]
            everyone = Population(own, card.prompt_type, card.named_targets)
            values = value_sets(own, card.prompt_type)
            self._contexts[card.name] = Context(
                load_grammar(card), lexicon, values, population=everyone
            )
        self._prompt_types = prompt_types
        rng = np.random.default_rng(0)
        if samples and not any(self.draw(sample, rng) for sample in samples[:_TRIED]):
            raise DataError(
                f"negatives: nothing is known to be absent from the pictures of "
                f"{', '.join(self._contexts)} (kinds: {', '.join(kinds or KINDS)}). A prompt with "
                "a class word is needed. Choose other kinds, or train without negatives."
            )

    def draw(self, sample: Sample, rng: np.random.Generator) -> str | None:
        """A text for something absent, kinds equally often; None where none applies.

        It stands on a rung that the sample is trained with: on another one its length alone would
        give the answer away.
        """
        context = replace(self._contexts[sample.dataset], sample=sample)
        rungs = [r for r in rungs_of(sample, self._prompt_types[sample.dataset]) if r != "p0"]
        prompts = sample.prompts[rungs[rng.integers(len(rungs))]] if rungs else ()
        if not prompts:
            return None
        prompt = prompts[rng.integers(len(prompts))]
        for place in rng.permutation(len(self._kinds)).tolist():
            rule = PERTURBATIONS[self._kinds[place]]
            found = variants_of(rule, prompt, attribute=None, context=context, rng=rng)
            text = next((one.text for one in found if isinstance(one, Variant)), None)
            if text is not None:
                return text
        return None
