"""The edits among which a break is looked for, ordered by size. Text only, no model.

Conventions: a *candidate* is some variants of the families made together. Candidates have
one total order: number of edits, characters (`nltk.edit_distance` between original and
variant), names of what was done, text; of two that make one text the smaller stands. What
is sampled elsewhere is enumerated here: a rule that draws without replacement and is asked
for more than it has gives all. Rules that draw for a whole dataset are the exception.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from itertools import combinations
from math import comb
from typing import TYPE_CHECKING

from harness.prompts.context import Context, Scope
from harness.prompts.strategies import (
    MOST_ATOMS,
    Atom,
    Composition,
    Family,
    atoms_of,
    combined,
    is_sound,
    size_of,
    together,
)
from harness.records import Edit, ExpectedMask, Meaning, Prompt

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

    from harness.prompts.perturbations.base import Perturbation

MAX_VARIANTS = 8192
"""More than the typos of any sentence: a rule that gives fewer has given all."""
MAX_SETS = 20_000
"""Sets of variants that are tried one by one, where variants are combined."""

Order = tuple[int, int, tuple[str, ...], str]


class Kind(StrEnum):
    """What is looked for.

    `preserved`: the prompt says the same, and Dice falls. `deaf`: it names another target of
    the image, and the mask stays.
    """

    PRESERVED = "preserved"
    DEAF = "deaf"

    @property
    def meaning(self) -> Meaning:
        """What the edits must do to the meaning."""
        return Meaning.PRESERVED if self is Kind.PRESERVED else Meaning.CHANGED

    @property
    def max_variants(self) -> int:
        """How many variants are combined at most; another target may differ in all it has."""
        return 3 if self is Kind.PRESERVED else 6


@dataclass(frozen=True)
class Candidate:
    """Some variants made together, with their size and the sample that the text now names."""

    composition: Composition
    named_sample_id: str | None = None

    @property
    def text(self) -> str:
        """The changed prompt."""
        return self.composition.text

    @property
    def edits(self) -> tuple[Edit, ...]:
        """All edits, in order of their place."""
        return self.composition.edits

    @cached_property
    def size(self) -> tuple[int, int]:
        """Number of edits, characters."""
        return size_of(self.composition.prompt.text, self.edits)

    @cached_property
    def order(self) -> Order:
        """Sort key among all candidates of a prompt."""
        return *self.size, self.composition.names, self.text


def fits(rule: "Perturbation", kind: Kind) -> bool:
    """Whether a perturbation makes what is looked for, and all of it can be enumerated."""
    if rule.meaning is not kind.meaning or rule.scope is Scope.DATASET:
        return False
    return kind is Kind.PRESERVED or rule.expected_mask is ExpectedMask.NAMED


@dataclass(frozen=True)
class Space:
    """Every candidate of one prompt.

    `targets` are the texts that name another sample of the image, for deaf breaks.
    """

    prompt: Prompt
    context: Context
    kind: Kind
    rules: Sequence["Perturbation"]
    targets: Mapping[str, str]

    @cached_property
    def atoms(self) -> tuple[Atom, ...]:
        """The variants that are combined, the smallest first."""
        atoms: list[Atom] = []
        for rule in self.rules:
            most = MOST_ATOMS if rule.scope is Scope.DATASET else MAX_VARIANTS
            atoms += atoms_of(self.prompt, self.context, [Family(rule)], most=most)
        useful = (Composition(self.prompt, (a,)) for a in atoms if self._is_useful(a))
        return tuple(c.composition.atoms[0] for c in _smallest_by_text(map(Candidate, useful)))

    def _is_useful(self, atom: Atom) -> bool:
        """For deaf breaks: whether it leads to a named target, alone or with others."""
        if atom.meaning is not self.kind.meaning:
            return False
        if self.kind is Kind.PRESERVED or atom.variant.text in self.targets:
            return True
        return all((e.attribute, e.new) in self._target_values for e in atom.variant.edits)

    @cached_property
    def _target_values(self) -> frozenset[tuple[str | None, str]]:
        """Attribute and value of every named target."""
        parse = self.context.grammar.recognise
        read = [parse(text, prompt_type=self.prompt.prompt_type) for text in self.targets]
        return frozenset(item for prompt in read if prompt for item in prompt.values.items())

    def candidate(self, composition: Composition) -> Candidate | None:
        """A composition as a candidate; None where it is not what is looked for."""
        text = composition.text
        if not composition.atoms or text == self.prompt.text:
            return None
        if self.kind is Kind.PRESERVED:
            return Candidate(composition)
        return Candidate(composition, self.targets[text]) if text in self.targets else None

    @cached_property
    def singles(self) -> tuple[Candidate, ...]:
        """Every candidate that is one variant, in order."""
        made = (self.candidate(Composition(self.prompt, (atom,))) for atom in self.atoms)
        return tuple(candidate for candidate in made if candidate is not None)

    def several(self, below: Order | None) -> list[Candidate] | None:
        """Every candidate of two or more variants that is smaller than `below`, in order.

        None where there are too many sets of variants to look at each.
        """
        if below is not None and below[0] < 2:
            return []
        n = len(self.atoms)
        most = self.kind.max_variants if below is None else min(self.kind.max_variants, below[0])
        if sum(comb(n, k) for k in range(2, most + 1)) > MAX_SETS:
            return None
        sets = (atoms for k in range(2, most + 1) for atoms in combinations(self.atoms, k))
        candidates = _smallest_by_text(self._sound(sets))
        return [c for c in candidates if below is None or c.order < below]

    def _sound(self, sets: Iterable[tuple[Atom, ...]]) -> Iterable[Candidate]:
        for atoms in sets:
            composition = together(self.prompt, atoms)
            if len(composition.atoms) == len(atoms):
                made = self.candidate(composition)
                if made is not None and is_sound(composition, self.context):
                    yield made

    def strategy(self) -> "SearchStrategy[Composition]":
        """All of it for Hypothesis, shrinking towards no edit."""
        return combined(self.prompt, self.context, self.atoms, most=self.kind.max_variants)


def _smallest_by_text(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Of the candidates that make one text the smallest, all in order."""
    first: dict[str, Candidate] = {}
    for made in candidates:
        if made.text not in first or made.order < first[made.text].order:
            first[made.text] = made
    return sorted(first.values(), key=lambda c: c.order)
