"""Hypothesis strategies over edits: variants combined, shrinking towards no edit.

Conventions: a strategy chooses among the variants that perturbations make of a prompt (*atoms*, the
smallest first) and makes those together that do not overlap; what is chosen is verified afterwards.
What Hypothesis draws is recorded, never redrawn. Choices are drawn as booleans: Hypothesis draws
whole numbers partly from constants of whatever modules are loaded, and a plan may not depend on
those. Source: MacIver, Hatfield-Dodds, et al., JOSS 4(43):1891, 2019.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis import strategies as st

from harness.prompts.context import Context, Form, Scope
from harness.prompts.edits import apply_edits, are_apart
from harness.prompts.perturbations.base import (
    Draw,
    Outcome,
    Perturbation,
    SampledPerturbation,
    is_sampled,
    variants_of,
)
from harness.prompts.word_diff import n_shared
from harness.records import Edit, ExpectedMask, Meaning, NotApplicable, Prompt, Variant

Item = TypeVar("Item")

# Variants taken of one perturbation of one attribute: all of most, a sample of the typos.
MOST_ATOMS = 64
MOST_EDITS = 3
# For searches: Hypothesis's last phase tries other values after the smallest was found.
SEARCHING = (Phase.generate, Phase.target, Phase.shrink)
# From the weakest to the strongest: a composition means what its strongest part does.
_STRENGTH = (Meaning.PRESERVED, Meaning.REMOVED, Meaning.CHANGED, Meaning.DESTROYED)


class Family(NamedTuple):
    """A perturbation, and the attributes it may change; None means all."""

    rule: Perturbation
    attributes: tuple[str, ...] | None = None


class Atom(NamedTuple):
    """One variant of a prompt, to be combined with others."""

    rule: Perturbation
    variant: Variant

    @property
    def meaning(self) -> Meaning:
        """What it does to the meaning: the variant's own word counts more than the rule's."""
        return self.variant.meaning or self.rule.meaning


@dataclass(frozen=True)
class Composition:
    """Several variants of a prompt made together; none at all is the prompt itself."""

    prompt: Prompt
    atoms: tuple[Atom, ...] = ()

    def __repr__(self) -> str:
        return f"{self.prompt.text!r} -> {self.text!r}"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """As Hypothesis prints it; it would print every field, rules and all."""
        printer.text(repr(self))

    @property
    def edits(self) -> tuple[Edit, ...]:
        """All edits, in order of their place."""
        edits = (edit for atom in self.atoms for edit in atom.variant.edits)
        return tuple(sorted(edits, key=lambda e: (e.start, e.end)))

    @property
    def text(self) -> str:
        """The prompt with all edits made."""
        return apply_edits(self.prompt.text, self.edits)

    @property
    def meaning(self) -> Meaning:
        """What the strongest part does to the meaning."""
        return max((a.meaning for a in self.atoms), key=_STRENGTH.index, default=_STRENGTH[0])

    @property
    def names(self) -> tuple[str, ...]:
        """What was done: ``antonym(size)``, ``typo``."""
        return tuple(
            atom.rule.name + (f"({atom.variant.attribute})" if atom.variant.attribute else "")
            for atom in self.atoms
        )

    @property
    def variant(self) -> Variant:
        """The composition as one variant."""
        kind = self.atoms[0].variant.prompt_type if len(self.atoms) == 1 else None
        return Variant(self.text, self.edits, kind or self.prompt.prompt_type)


def size_of(original: str, edits: Sequence[Edit]) -> tuple[int, int]:
    """How large a change is: number of edits, then characters, by NLTK's edit distance.

    Example:
        >>> size_of("small polyp", [Edit(0, 5, "small", "smell")])
        (1, 1)
    """
    from nltk import edit_distance

    changed = apply_edits(original, edits)
    # Characters shared at both ends are in no shortest list of changes; the rest is quadratic.
    head = n_shared(original, changed)
    old, new = original[head:], changed[head:]
    tail = n_shared(old[::-1], new[::-1])
    return len(edits), int(edit_distance(old[: len(old) - tail], new[: len(new) - tail]))


def atoms_of(
    prompt: Prompt, context: Context, families: Iterable[Family], *, most: int = MOST_ATOMS
) -> list[Atom]:
    """Every variant that can be combined, the smallest change first.

    Of one perturbation of one attribute up to `most` are taken; what is sampled is drawn by
    a fixed seed, and fewer than `most` are all that there are.
    """
    found = [
        Atom(family.rule, made)
        for family in families
        for attribute in _attributes(family, prompt)
        for made in _some(family.rule, prompt, attribute, context, most)
        if isinstance(made, Variant)
    ]
    return sorted(found, key=_smallest)


def _smallest(atom: Atom) -> tuple[int, int, str, str]:
    edits = atom.variant.edits
    changed = sum(len(edit.old) + len(edit.new) for edit in edits)
    return len(edits), changed, atom.rule.name, atom.variant.text


def _attributes(family: Family, prompt: Prompt) -> Iterable[str | None]:
    if not family.rule.per_attribute:
        return [None]
    named = prompt.values
    return [a for a in named if family.attributes is None or a in family.attributes]


def _some(
    rule: Perturbation, prompt: Prompt, attribute: str | None, context: Context, most: int
) -> Iterator[Outcome]:
    rng = np.random.default_rng(0) if is_sampled(rule) else None
    made = variants_of(rule, prompt, attribute=attribute, context=context, rng=rng, repeats=most)
    for _, outcome in zip(range(most), made, strict=False):
        yield outcome


@st.composite
def one_of_few(draw: st.DrawFn, items: Sequence[Item]) -> Item:
    """One of the items by halving, shrinking towards the first."""
    low, high = 0, len(items)
    while high - low > 1:
        middle = (low + high + 1) // 2
        if draw(st.booleans()):
            low = middle
        else:
            high = middle
    return items[low]


def compositions(
    prompt: Prompt,
    context: Context,
    families: Iterable[Family],
    *,
    most: int = MOST_EDITS,
    meaning: Meaning | None = None,
) -> st.SearchStrategy[Composition]:
    """Up to `most` variants of the families made together, shrinking towards none.

    With `meaning` only variants that do this to the meaning.
    """
    atoms = [
        atom
        for atom in atoms_of(prompt, context, families)
        if meaning is None or atom.meaning is meaning
    ]
    return combined(prompt, context, atoms, most=most)


def combined(
    prompt: Prompt, context: Context, atoms: Sequence[Atom], *, most: int = MOST_EDITS
) -> st.SearchStrategy[Composition]:
    """Up to `most` of these variants made together, shrinking towards none."""
    if not atoms:
        return st.just(Composition(prompt))
    chosen = st.lists(one_of_few(atoms), max_size=most)
    return chosen.map(lambda picked: together(prompt, picked)).filter(
        lambda composition: is_sound(composition, context)
    )


def together(prompt: Prompt, picked: Iterable[Atom]) -> Composition:
    """Those that can be made with the ones before them, one of each kind."""
    kept: list[Atom] = []
    edits: list[Edit] = []
    kinds: set[tuple[str, str | None]] = set()
    for atom in picked:
        kind = (atom.rule.name, atom.variant.attribute)
        if kind not in kinds and are_apart([*edits, *atom.variant.edits]):
            kinds.add(kind)
            kept.append(atom)
            edits += atom.variant.edits
    return Composition(prompt, tuple(kept))


def is_sound(composition: Composition, context: Context) -> bool:
    """Whether what was made together is still what its parts promise.

    One variant alone was verified by its perturbation. Of several the text must be
    another one and, where each can be read, be read with all that each says.
    """
    if len(composition.atoms) < 2:
        return True
    text, prompt = composition.text, composition.prompt
    if text == prompt.text:
        return False
    if any(atom.rule.form is Form.FREE for atom in composition.atoms):
        return True
    reader, mean = context.reader, context.lexicon.canonical
    spans = {(span.start, span.end): span.attribute for span in prompt.spans}
    said = {
        attribute: mean(attribute, edit.new)
        for edit in composition.edits
        if (attribute := spans.get((edit.start, edit.end))) is not None
    }
    return reader.says(text, prompt, {**reader.meaning(prompt), **said})


def silent_settings(max_examples: int, phases: Sequence[Phase] = SEARCHING) -> settings:
    """Settings under which a seed alone decides, and nothing is printed or kept."""
    return settings(
        max_examples=max_examples,
        phases=phases,
        database=None,
        deadline=None,
        derandomize=False,
        report_multiple_bugs=False,
        verbosity=Verbosity.quiet,
        suppress_health_check=list(HealthCheck),
    )


def draw_once(
    strategy: st.SearchStrategy[Composition], n: int, *, fixed_seed: int
) -> list[Composition]:
    """Up to `n` distinct compositions, drawn through Hypothesis under a fixed seed.

    The same strategy, seed and version of Hypothesis give the same ones.
    """
    found: dict[str, Composition] = {}

    @seed(fixed_seed)
    @silent_settings(4 * n + 10, (Phase.generate,))  # some come twice, the first is no edit
    @given(strategy)
    def collect(composition: Composition) -> None:
        if composition.atoms:
            found.setdefault(composition.text, composition)

    collect()
    return list(found.values())[:n]


def composed(meaning: Meaning, families: Sequence[Family]) -> SampledPerturbation:
    """A perturbation that draws compositions of the families with this meaning."""
    own = tuple(family for family in families if family.rule.meaning is meaning)

    def variants(
        prompt: Prompt, attribute: str | None, context: Context, draw: Draw
    ) -> Iterator[Outcome]:
        strategy = compositions(prompt, context, own, meaning=meaning)
        found = draw_once(strategy, draw.repeats, fixed_seed=int(draw.rng.integers(2**63)))
        yield from (composition.variant for composition in found)
        if not found:
            names = ", ".join(family.rule.name for family in own)
            yield NotApplicable(f"none of its perturbations applies ({names})")

    expected = {Meaning.PRESERVED: ExpectedMask.OWN, Meaning.CHANGED: ExpectedMask.NAMED}
    return SampledPerturbation(
        name="composed",
        meaning=meaning,
        expected_mask=expected.get(meaning, ExpectedMask.UNDEFINED),
        form=Form.FREE,
        draw=variants,
        scope=Scope.SAMPLE,
    )
