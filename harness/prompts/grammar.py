"""Text <-> attribute spans, by the grammar of a dataset card.

Conventions: a prompt type is ``p0`` to ``p9``. The templates of a type are tried in
the card's order and the first that matches the whole text wins. Where no type is
given all are tried: the parse that names the most attributes wins, then the lowest
rung, so that ``small white round polyp`` is p4 and not p2 with a long shape.
Rendering a parsed prompt's values gives back its text byte for byte. Without a grammar a
dataset's prompts are free text: their spans are found by the lexicon (`freetext`), and the
prompt's template is `LEXICON`.
"""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import NamedTuple

from harness.cards import PROMPT_TYPES, DatasetCard, Grammar, load_dataset_card
from harness.errors import CardError, PromptError, choose
from harness.prompts.freetext import sentences
from harness.prompts.freetext.finding import SpanFinder
from harness.prompts.freetext.terms import is_read_freely, plurals_of, rules, vocabulary
from harness.prompts.phrases import Rewriting, compile_paraphrases, compile_rewritings
from harness.prompts.templates import Mismatch, Template, compile_template
from harness.records import Prompt

# The longest released prompt has 369 characters; annotations come from strangers.
MAX_LENGTH = 2000
# Texts whose parse is remembered: the released files have 10,439 distinct prompts.
REMEMBERED = 2**16
# The template of a prompt whose spans were found by the lexicon.
LEXICON = -1
# A template with more ways to be spelt would be slow to try.
_MOST_SPELLINGS = 64


class _Near(NamedTuple):
    """A template that nearly matched."""

    prompt_type: str
    template: Template
    mismatch: Mismatch


@dataclass(frozen=True)
class PromptGrammar:
    """The compiled prompt grammar of one dataset.

    `paraphrases` say the same otherwise, per rung; `orders` hold the same phrases in
    other places, per rung and template; `drops` and `negations` are kept per attribute.
    `first_of` tells, per rung and template, which template it is a spelling of. `finder`
    reads what fits no template; without templates it reads everything.
    """

    dataset: str
    card: Grammar = field(repr=False)
    templates: Mapping[str, tuple[Template, ...]] = field(repr=False)
    paraphrases: Mapping[str, tuple[Template, ...]] = field(default_factory=dict, repr=False)
    orders: Mapping[tuple[str, int], tuple[Template, ...]] = field(default_factory=dict, repr=False)
    drops: Mapping[str, tuple[Rewriting, ...]] = field(default_factory=dict, repr=False)
    negations: Mapping[str, tuple[Rewriting, ...]] = field(default_factory=dict, repr=False)
    first_of: Mapping[str, tuple[int, ...]] = field(default_factory=dict, repr=False)
    finder: SpanFinder | None = field(default=None, repr=False)
    _skeletons: dict[str, Template] = field(default_factory=dict, compare=False, repr=False)
    _attributes: dict[str, tuple[str, ...]] = field(default_factory=dict, compare=False, repr=False)
    _known: dict[tuple[str, str | None, int], Prompt | None] = field(
        default_factory=dict, compare=False, repr=False
    )

    @property
    def prompt_types(self) -> tuple[str, ...]:
        """The prompt types that the dataset has, lowest rung first."""
        if self.is_free:
            return PROMPT_TYPES
        return tuple(rung for rung in PROMPT_TYPES if rung in self.templates)

    @property
    def is_free(self) -> bool:
        """Whether the dataset has no templates: all of its prompts are free text."""
        return not self.templates

    def attributes(self, prompt_type: str) -> tuple[str, ...]:
        """Attributes that prompts of a type may name, in the order of the richest template.

        Raises:
            PromptError: The dataset has no such prompt type.
        """
        if self.is_free:
            return tuple(self.card.attributes)
        if prompt_type not in self._attributes:
            richest = sorted(self._of(prompt_type), key=lambda t: -len(t.attributes))
            names = dict.fromkeys(name for template in richest for name in template.attributes)
            self._attributes[prompt_type] = tuple(names)
        return self._attributes[prompt_type]

    def parse(self, text: str, *, prompt_type: str | None = None, index: int = 0) -> Prompt:
        """Recover the attribute spans of a prompt from its text.

        Args:
            text: The prompt, exactly as annotated.
            prompt_type: Its rung; None tries all (see the module's conventions).
            index: Place of the prompt in a list of prompts, from 0.

        Raises:
            PromptError: The text is too long, its type is unknown, or no template
                matches it; the message names the nearest template and the place
                where the text stops fitting it.

        Example:
            >>> prompt = load_grammar("kvasir_polyp").parse("white round polyp")
            >>> prompt.prompt_type, prompt.values
            ('p3', {'color': 'white', 'shape': 'round', 'class': 'polyp'})
        """
        found = self.recognise(text, prompt_type=prompt_type, index=index)
        if found is None:
            rungs = self.prompt_types if prompt_type is None else (prompt_type,)
            raise PromptError(self._explain(text, rungs))
        return found

    def recognise(
        self, text: str, *, prompt_type: str | None = None, index: int = 0
    ) -> Prompt | None:
        """As `parse`, but None where no template matches: nothing is explained.

        Raises:
            PromptError: The text is too long, or its type is unknown.
        """
        key = (text, prompt_type, index)
        if key in self._known:
            return self._known[key]
        if len(self._known) >= REMEMBERED:
            self._known.clear()
        self._known[key] = found = self._try(text, prompt_type, index)
        return found

    def render(
        self, prompt_type: str, values: Mapping[str, str], *, template: int | None = None
    ) -> str:
        """The prompt of a type in which the attributes have the given values.

        Args:
            prompt_type: Rung of the ladder.
            values: A value for each slot of the template, no more.
            template: Which of the type's templates; None takes the first that has
                exactly these attributes and admits their values.

        Raises:
            PromptError: No template of the type takes these values.
        """
        templates = self._of(prompt_type)
        if template is not None and not 0 <= template < len(templates):
            raise PromptError(
                f"dataset {self.dataset!r}: {prompt_type} has no template {template}. It has "
                f"{len(templates)}, counted from 0. Choose one of them."
            )
        for candidate in templates if template is None else templates[template : template + 1]:
            text = candidate.render(values) if {*candidate.attributes} == {*values} else None
            if text is not None:
                return text
        patterns = ", ".join(repr(t.source) for t in templates)
        raise PromptError(
            f"dataset {self.dataset!r}: no template of {prompt_type} takes the values "
            f"{dict(values)!r}. Its templates are {patterns}. "
            "Give each of its slots a value that the dataset card allows."
        )

    def _of(self, prompt_type: str) -> tuple[Template, ...]:
        where = f"dataset {self.dataset!r}"
        # What the lexicon reads may stand on a rung for which the card has no template.
        known = self.prompt_types if self.finder is None else PROMPT_TYPES
        choose(prompt_type, known, kind="prompt type", where=where, error=PromptError)
        return self.templates.get(prompt_type, ())

    def template_of(self, prompt: Prompt) -> Template:
        """The template that a prompt fits: of free text, its skeleton."""
        if prompt.template != LEXICON or self.finder is None:
            return self.templates[prompt.prompt_type][prompt.template]
        if prompt.text not in self._skeletons:
            if len(self._skeletons) >= REMEMBERED:
                self._skeletons.clear()
            found = sentences.skeleton(prompt, self.finder.vocabulary)
            self._skeletons[prompt.text] = found
        return self._skeletons[prompt.text]

    def rewrite(self, prompt: Prompt, values: Mapping[str, str]) -> str | None:
        """The sentence of a prompt's rung that says other values, spelt most like the prompt.

        The first template that takes the values is meant; None where none does.
        """
        first: int | None = None
        texts: list[str] = []
        rung = prompt.prompt_type
        for template, own in zip(self._of(rung), self.first_of.get(rung, ()), strict=False):
            if {*template.attributes} != {*values} or first not in (None, own):
                continue
            text = template.render(values)
            if text is not None:
                first = own
                texts.append(text)
        return max(texts, key=lambda text: _similarity(prompt.text, text), default=None)

    def orders_of(self, prompt: Prompt) -> tuple[Template, ...]:
        """A prompt's template with its movable phrases in every other order."""
        if prompt.template == LEXICON:
            return tuple(sentences.orders(self.template_of(prompt), self._free_rules().attributes))
        return self.orders.get((prompt.prompt_type, prompt.template), ())

    def drops_of(self, prompt: Prompt, attribute: str) -> tuple[Rewriting, ...]:
        """Phrases that go with an attribute of a prompt, and what then stands there."""
        if prompt.template == LEXICON:
            return sentences.drops(prompt, attribute)
        return self.drops.get(attribute, ())

    def negations_of(self, prompt: Prompt, attribute: str) -> tuple[Rewriting, ...]:
        """Phrases around an attribute of a prompt, and what denies them."""
        if prompt.template == LEXICON:
            return sentences.negations(prompt, attribute)
        return self.negations.get(attribute, ())

    def _free_rules(self) -> Grammar:
        return self.card if self.is_free or self.finder is None else rules(self.finder.vocabulary)

    def _try(self, text: str, prompt_type: str | None, index: int) -> Prompt | None:
        self._refuse_long(text)
        if prompt_type is not None:
            return self._parse_as(text, prompt_type, index)
        # No rung is told apart in free text; p0 is the empty prompt's.
        rungs = self.prompt_types[bool(text) :][:1] if self.is_free else self.prompt_types
        parses = [self._parse_as(text, rung, index) for rung in rungs]
        return max((p for p in parses if p is not None), key=lambda p: len(p.spans), default=None)

    def _refuse_long(self, text: str) -> None:
        if len(text) > MAX_LENGTH:
            raise PromptError(
                f"dataset {self.dataset!r}: found a prompt of {len(text)} characters that begins "
                f"{text[:40]!r}. At most {MAX_LENGTH} are read. Shorten the prompt."
            )

    def _parse_as(self, text: str, prompt_type: str, index: int) -> Prompt | None:
        for number, template in enumerate(self._of(prompt_type)):
            spans = template.match(text)
            if not isinstance(spans, Mismatch):
                return Prompt(text, prompt_type, index, number, spans)
        if self.finder is None:
            return None
        return Prompt(text, prompt_type, index, LEXICON, self.finder.find(text).spans)

    def _explain(self, text: str, prompt_types: tuple[str, ...]) -> str:
        near = self._nearest(text, prompt_types)
        rest = text[near.mismatch.position :]
        found = f"the text goes on with {rest[:30]!r}" if rest else "the text ends"
        asked = prompt_types[0] if len(prompt_types) == 1 else "any prompt type"
        return (
            f"dataset {self.dataset!r}: the prompt {_short(text)} matches no template of {asked}. "
            f"The nearest pattern is {near.template.source!r} ({near.prompt_type}): at character "
            f"{near.mismatch.position} it wants {near.mismatch.wanted}, {found}. "
            "Correct the prompt or add its pattern to the grammar of the dataset card."
        )

    def _nearest(self, text: str, prompt_types: tuple[str, ...]) -> _Near:
        """The template of which the text holds most pieces, then the one it resembles most."""
        failures = []
        for rung in prompt_types:
            for template in self.templates[rung]:
                mismatch = template.match(text)
                if isinstance(mismatch, Mismatch):
                    failures.append(_Near(rung, template, mismatch))
        return max(failures, key=lambda n: (n.mismatch.piece, _likeness(n.template, text)))


def _short(text: str) -> str:
    return repr(text if len(text) <= 200 else f"{text[:197]}...")


def _similarity(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other, autojunk=False).ratio()


def _likeness(template: Template, text: str) -> float:
    return difflib.SequenceMatcher(None, template.skeleton, text[:200], autojunk=False).ratio()


def load_grammar(dataset: str | DatasetCard, *, freely: bool = False) -> PromptGrammar:
    """Compile the prompt grammar of a dataset.

    Args:
        dataset: Its card, or the name or path of the card.
        freely: Whether the lexicon reads what fits no template, whatever the card says: for
            prompts from a table.

    Raises:
        CardError: No such card, or a template is wrong.

    Example:
        >>> load_grammar("busi").attributes("p6")
        ('number', 'size', 'shape', 'tumor_type', 'class', 'location')
    """
    card = dataset if isinstance(dataset, DatasetCard) else load_dataset_card(dataset)
    finder = None
    if freely or is_read_freely(card):
        finder = SpanFinder(vocabulary(plurals_of(card)))
        if card.grammar is None:
            return PromptGrammar(card.name, rules(finder.vocabulary), {}, finder=finder)
    where, grammar = (
        f"dataset card {card.name!r}: grammar",
        card.grammar or Grammar.model_construct(),
    )
    templates, first_of = _templates(grammar, where)
    _refuse_unused(grammar, templates, where)
    _refuse_strange_keys(grammar, where)
    attributes = grammar.attributes
    paraphrases, orders = compile_paraphrases(grammar, where=where)
    return PromptGrammar(
        card.name,
        grammar if finder is None else _with_free(grammar, finder),
        templates,
        paraphrases,
        orders,
        compile_rewritings(grammar.drops, attributes, where=f"{where}.drops"),
        compile_rewritings(grammar.negations, attributes, where=f"{where}.negations"),
        first_of,
        finder,
    )


def _with_free(grammar: Grammar, finder: SpanFinder) -> Grammar:
    """The card's attributes, and those that the lexicon finds beside them."""
    attributes = {**rules(finder.vocabulary).attributes, **grammar.attributes}
    return grammar.model_copy(update={"attributes": attributes})


class _Templates(NamedTuple):
    """Per rung its templates, and of each the number of the one that it spells otherwise."""

    templates: dict[str, tuple[Template, ...]]
    first_of: dict[str, tuple[int, ...]]


def _templates(grammar: Grammar, where: str) -> _Templates:
    found = _Templates({}, {})
    for rung, sources in grammar.prompts.items():
        if not sources:
            raise CardError(
                f"{where}.prompts.{rung}: found an empty list. A prompt type needs at least one "
                "template. Add one or remove the type."
            )
        made: list[Template] = []
        first: list[int] = []
        for number, source in enumerate(sources):
            place = f"{where}.prompts.{rung}[{number}]"
            spelt = [
                compile_template(other, grammar.attributes, where=place)
                for other in _spellings(source, grammar, place)
            ]
            first += [len(made)] * len(spelt)
            made += spelt
        found.templates[rung], found.first_of[rung] = tuple(made), tuple(first)
    return found


def _spellings(source: str, grammar: Grammar, where: str) -> list[str]:
    """A template and all its other spellings, the card's own first."""
    found = [source]
    for text, others in grammar.spellings.items():
        parts = [source.split(text) for source in found]
        ways = sum((1 + len(others)) ** (len(part) - 1) for part in parts)
        if not text or ways > _MOST_SPELLINGS:
            raise CardError(
                f"{where}: {source!r} has {ways} spellings with {text!r}. At most "
                f"{_MOST_SPELLINGS} are tried. Give fewer spellings, of longer texts."
            )
        found = [spelt for part in parts for spelt in _filled(part, [text, *others])]
    return list(dict.fromkeys(found))


def _filled(parts: list[str], ways: list[str]) -> Iterator[str]:
    for chosen in product(ways, repeat=len(parts) - 1):
        yield parts[0] + "".join(way + part for way, part in zip(chosen, parts[1:], strict=True))


def _refuse_unused(
    grammar: Grammar, templates: Mapping[str, tuple[Template, ...]], where: str
) -> None:
    used = {name for several in templates.values() for t in several for name in t.attributes}
    for name in grammar.attributes:
        if name not in used:
            raise CardError(
                f"{where}.attributes.{name}: no template has a slot "
                f"{{{name}}}. Every attribute stands in one. Add the slot or remove the attribute."
            )


def _refuse_strange_keys(grammar: Grammar, where: str) -> None:
    """Changes of what the grammar does not have would never apply."""
    for key, names, known in (
        ("paraphrases", grammar.paraphrases, grammar.prompts),
        ("drops", grammar.drops, grammar.attributes),
        ("negations", grammar.negations, grammar.attributes),
    ):
        kind = "prompt type" if key == "paraphrases" else "attribute"
        for name in names:
            choose(name, known, kind=kind, where=f"{where}.{key}", error=CardError)
