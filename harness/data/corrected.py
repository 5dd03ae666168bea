"""Prompts whose words follow from the mask, in place of the released ones.

Conventions: only the attributes that a dataset's card lists under ``from_mask`` are
written anew, by the rules of `harness.data.masks`; class word, shape, colour and all others
stay as released, and the text is rendered through the dataset's own grammar. A prompt
*denies* its target when its class word is none of the card's ("no polyp").
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from harness.cards import DatasetCard
from harness.data.images import read_mask
from harness.data.masks import NUMBERS, MaskWords, describe
from harness.errors import PromptError
from harness.prompts.grammar import PromptGrammar, load_grammar
from harness.prompts.lexicon import like
from harness.prompts.templates import Slot, Template
from harness.records import Prompt, Sample

Prompts = Mapping[str, tuple[Prompt, ...]]
CLASS, DESCRIPTION = "class", "description"


def correct(
    card: DatasetCard, samples: Sequence[Sample], *, tick: Callable[[], None] = lambda: None
) -> list[Sample]:
    """The samples with prompts that their masks bear out.

    A prompt that denies a target which the mask shows is given the words that are known of
    it; one that names a target in an empty mask denies it. Where the grammar has no template
    for what is known, the sample loses its prompts of that type: the plan counts it.

    A card without ``from_mask`` leaves everything as it is.

    Raises:
        DataError: A mask is missing or unreadable.
    """
    if not card.from_mask:
        return list(samples)
    rules = Rules(card, load_grammar(card), descriptions(samples))

    def described(sample: Sample) -> MaskWords | None:
        words = describe(read_mask(sample.mask, sample.reading))
        tick()
        return words

    with ThreadPoolExecutor() as pool:  # decoding releases the GIL
        found = pool.map(described, samples)
        return [
            replace(sample, prompts=rules.prompts(sample.prompts, words))
            for sample, words in zip(samples, found, strict=True)
        ]


def descriptions(samples: Sequence[Sample]) -> tuple[str, ...]:
    """The general descriptions of a set's class, in the order in which its rows give them."""
    found = (
        prompt.values[DESCRIPTION]
        for sample in samples
        for prompts in sample.prompts.values()
        for prompt in prompts
        if DESCRIPTION in prompt.values
    )
    return tuple(dict.fromkeys(found))


def denies(prompt: Prompt, card: DatasetCard) -> bool:
    """Whether a prompt says that there is no target.

    Example:
        >>> from harness.cards import load_dataset_card
        >>> card = load_dataset_card("kvasir_polyp")
        >>> denies(load_grammar(card).parse("no polyp", prompt_type="p1"), card)
        True
    """
    word, rule = prompt.values.get(CLASS), card.attributes.get(CLASS)
    return word is not None and rule is not None and bool(rule.values) and word not in rule.values


def agreeing(word: str, number: str, plural: Mapping[str, str]) -> str:
    """A class word in the form that a number asks for, where a set's prompts agree.

    Example:
        >>> agreeing("tumors", "one", {"tumor": "tumors"})
        'tumor'
    """
    singular = {several: one for one, several in plural.items()}
    if number.lower() == NUMBERS[1]:
        return singular.get(word, word)
    return plural.get(word, word)


class Rules:
    """How one dataset's prompts are corrected.

    `known` are the descriptions that repaired prompts may use.
    """

    def __init__(self, card: DatasetCard, grammar: PromptGrammar, known: Sequence[str]) -> None:
        self._card, self._grammar, self._descriptions = card, grammar, tuple(known)

    def prompts(self, released: Prompts, words: MaskWords | None) -> Prompts:
        """All prompts of one row; `words` is None where its mask is empty."""
        made = {rung: self._rung(rung, prompts, words) for rung, prompts in released.items()}
        return {rung: prompts for rung, prompts in made.items() if prompts}

    def _rung(
        self, rung: str, prompts: tuple[Prompt, ...], words: MaskWords | None
    ) -> tuple[Prompt, ...]:
        if not any(CLASS in prompt.values for prompt in prompts):
            return prompts  # p0: nothing is said
        denied = any(denies(prompt, self._card) for prompt in prompts)
        if denied == (words is None):
            return prompts if words is None else self._parsed(rung, self._renewed(prompts, words))
        templates = self._grammar.templates[rung]
        texts = self._denials(templates) if words is None else self._repaired(templates, words)
        return self._parsed(rung, texts)

    def _parsed(self, rung: str, texts: Iterator[str]) -> tuple[Prompt, ...]:
        """Texts as prompts of a rung; none at all if the grammar does not take one of them."""
        try:
            return tuple(
                self._grammar.parse(text, prompt_type=rung, index=index)
                for index, text in enumerate(texts)
            )
        except PromptError:
            return ()

    def _renewed(self, prompts: Sequence[Prompt], words: MaskWords) -> Iterator[str]:
        """The same templates with the mask's words in them."""
        fresh = self._from_mask(words)
        for prompt in prompts:
            values = prompt.values
            values |= {k: like(fresh[k], old) for k, old in values.items() if k in fresh}
            if "number" in values and "number" in fresh:
                values[CLASS] = agreeing(values[CLASS], words.number, self._card.plural)
            yield self._grammar.render(prompt.prompt_type, values, template=prompt.template)

    def _from_mask(self, words: MaskWords) -> dict[str, str]:
        return {k: v for k, v in words._asdict().items() if k in self._card.from_mask}

    def _denials(self, templates: Sequence[Template]) -> Iterator[str]:
        """The text of the first template that can only deny."""
        for template in templates:
            word = self._denial(template)
            text = None if word is None else template.render({CLASS: word})
            if text is not None:
                yield text
                return

    def _denial(self, template: Template) -> str | None:
        """The class word of a template that takes no word of the card's, such as "no polyp"."""
        slot = next((p for p in _slots(template) if p.attribute == CLASS), None)
        if slot is None or len(slot.values) != 1:
            return None
        word = slot.values[0]
        return None if word in self._card.attributes[CLASS].values else word

    def _repaired(self, templates: Sequence[Template], words: MaskWords) -> Iterator[str]:
        """What is known of a target whose released prompt denies it.

        Shape and colour were never asked for: the template with the most attributes that
        needs neither is taken, once per description if it has one.
        """
        known = self._from_mask(words) | self._class_word(words)
        sayable = {*known, DESCRIPTION} if self._descriptions else {*known}
        usable = [t for t in templates if CLASS in t.attributes and sayable >= {*t.attributes}]
        usable = [t for t in usable if self._denial(t) is None]
        if not usable:
            return
        template = max(usable, key=lambda t: len(t.attributes))
        several = self._descriptions if DESCRIPTION in template.attributes else ("",)
        for description in several:
            yield _filled(template, known | {DESCRIPTION: description})

    def _class_word(self, words: MaskWords) -> dict[str, str]:
        """The class word, where the card leaves no choice."""
        values = self._card.attributes[CLASS].values
        single = {v.lower() for v in values if v not in self._card.plural.values()}
        if len(single) != 1:
            return {}
        return {CLASS: agreeing(single.pop(), words.number, self._card.plural)}


def _slots(template: Template) -> Iterator[Slot]:
    return (piece for piece in template.pieces if isinstance(piece, Slot))


def _filled(template: Template, known: Mapping[str, str]) -> str:
    """The template's text, with a capital where only that form of a word may stand."""
    values = {
        slot.attribute: value if slot.admits(value := known[slot.attribute]) else like(value, "A")
        for slot in _slots(template)
    }
    return template.render(values) or ""
