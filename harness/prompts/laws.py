"""What every perturbation must keep true, on any prompt of any grammar.

Conventions: a law is a function of a trial (one perturbation on one prompt) that says
what is wrong, or nothing. The laws are the same for what ships and for perturbations of
outside packages; `check_perturbation` looks for the smallest prompt that breaks one.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, TypeAlias

import numpy as np
from hypothesis import Phase, given, seed

from harness.cards import dataset_names, load_dataset_card
from harness.errors import PromptError
from harness.prompts.coherence import FOLLOWERS
from harness.prompts.context import Form
from harness.prompts.edits import apply_edits, are_apart, invert_edits
from harness.prompts.freetext.terms import suit
from harness.prompts.grammar import load_grammar
from harness.prompts.lexicon import load_lexicon
from harness.prompts.perturbations.base import Outcome, Perturbation, is_sampled, variants_of
from harness.prompts.strategies import silent_settings
from harness.prompts.worlds import Scene, scenes
from harness.records import ExpectedMask, Meaning, NotApplicable, Variant

REPEATS = 3
# Which masks can be right after which change of meaning.
_MASKS = {
    Meaning.PRESERVED: {ExpectedMask.OWN},
    Meaning.REMOVED: {ExpectedMask.UNDEFINED},
    Meaning.DESTROYED: {ExpectedMask.UNDEFINED},
    Meaning.CHANGED: {ExpectedMask.NAMED, ExpectedMask.EMPTY, ExpectedMask.UNDEFINED},
}


@dataclass(frozen=True)
class Trial:
    """One perturbation on one prompt."""

    rule: Perturbation
    scene: Scene
    seed: int = 0

    def run(self, repeats: int = REPEATS) -> list[Outcome]:
        """What the perturbation makes, from a fresh generator."""
        return list(
            variants_of(
                self.rule,
                self.scene.prompt,
                attribute=self.scene.attribute,
                context=self.scene.context,
                rng=np.random.default_rng(self.seed),
                repeats=repeats,
            )
        )

    @cached_property
    def outcomes(self) -> Sequence[Outcome]:
        """What the perturbation makes."""
        return self.run()

    @property
    def variants(self) -> list[Variant]:
        """The variants among the outcomes."""
        return [outcome for outcome in self.outcomes if isinstance(outcome, Variant)]

    @property
    def refusals(self) -> list[NotApplicable]:
        """The reasons among the outcomes."""
        return [outcome for outcome in self.outcomes if isinstance(outcome, NotApplicable)]


Law: TypeAlias = Callable[[Trial], Iterable[str]]


def _answers(trial: Trial) -> Iterator[str]:
    if not trial.outcomes:
        yield "makes neither a variant nor a reason"
    strange = [type(o).__name__ for o in trial.outcomes if type(o) not in (Variant, NotApplicable)]
    for name in strange:
        yield f"makes a {name}, which is neither a variant nor a reason"


def _gives_reasons(trial: Trial) -> Iterator[str]:
    for refusal in trial.refusals:
        if len(refusal.reason.split()) < 3:
            yield f"says {refusal.reason!r} where it does not apply, which explains nothing"


def _declares_a_mask(trial: Trial) -> Iterator[str]:
    allowed = _MASKS.get(trial.rule.meaning, set())
    if trial.rule.expected_mask not in allowed:
        yield (
            f"declares the meaning {trial.rule.meaning.value!r} with the expected mask "
            f"{trial.rule.expected_mask.value!r}"
        )


def _keeps_to_its_attribute(trial: Trial) -> Iterator[str]:
    known = trial.scene.context.grammar.card.attributes
    answered = [variant.attribute for variant in trial.variants]
    answered += [refusal.attribute for refusal in trial.refusals]
    for attribute in answered:
        if attribute != trial.scene.attribute:
            yield f"was asked about {trial.scene.attribute!r} and answers {attribute!r}"
    for variant in trial.variants:
        for edit in variant.edits:
            if edit.attribute is not None and edit.attribute not in known:
                yield f"edits {edit.attribute!r}, which is no attribute of the dataset"


def _leads_there_and_back(trial: Trial) -> Iterator[str]:
    original = trial.scene.prompt.text
    for variant in trial.variants:
        if not are_apart(variant.edits):
            yield f"makes edits that overlap: {variant.edits!r}"
            continue
        try:
            there = apply_edits(original, variant.edits)
        except PromptError as problem:
            yield f"makes an edit that does not fit: {problem}"
            continue
        if there != variant.text:
            yield f"says {variant.text!r}, where its edits make {there!r}"
        elif apply_edits(there, invert_edits(variant.edits)) != original:
            yield f"makes edits that cannot be undone: {variant.edits!r}"


def _differs(trial: Trial) -> Iterator[str]:
    seen = {trial.scene.prompt.text}
    for variant in trial.variants:
        if variant.text in seen:
            yield f"makes {variant.text!r}, which is the original or another variant"
        seen.add(variant.text)


def _repeats_itself(trial: Trial) -> Iterator[str]:
    if list(trial.outcomes) != trial.run():
        yield "makes something else the second time, with the same seed"


def _draws_what_is_asked(trial: Trial) -> Iterator[str]:
    if not is_sampled(trial.rule):
        return
    if len(trial.variants) > REPEATS:
        yield f"draws {len(trial.variants)} variants where {REPEATS} are asked for"
    fewer = [made for made in trial.run(1) if isinstance(made, Variant)]
    if fewer != trial.variants[:1]:
        yield "draws other variants where fewer are asked for"


def _keeps_the_meaning(trial: Trial) -> Iterator[str]:
    """Typos and other free forms are exempt: nothing can read them."""
    if trial.rule.meaning is not Meaning.PRESERVED or trial.rule.form is Form.FREE:
        return
    for variant in trial.variants:
        if not trial.scene.context.reader.says_the_same(variant.text, trial.scene.prompt):
            yield f"makes {variant.text!r}, which cannot be read with the same meaning"


def _fits_the_grammar(trial: Trial) -> Iterator[str]:
    if trial.rule.form is not Form.PARSED:
        return
    grammar = trial.scene.context.grammar
    for variant in trial.variants:
        if grammar.recognise(variant.text, prompt_type=variant.prompt_type) is None:
            yield f"makes {variant.text!r}, which does not parse as {variant.prompt_type}"


def _changes_one_thing(trial: Trial) -> Iterator[str]:
    """For changes of one attribute that parse: that attribute changes, the others do not."""
    rule, scene = trial.rule, trial.scene
    if not (rule.meaning is Meaning.CHANGED and rule.per_attribute and rule.form is Form.PARSED):
        return
    grammar, reader = scene.context.grammar, scene.context.reader
    before = reader.meaning(scene.prompt)
    for variant in trial.variants:
        parsed = grammar.recognise(variant.text, prompt_type=variant.prompt_type)
        after = reader.meaning(parsed) if parsed is not None else {}
        changed = {name for name in {*before, *after} if before.get(name) != after.get(name)}
        follows = FOLLOWERS.get(scene.attribute or "", frozenset())
        if changed - follows != {scene.attribute}:
            yield f"makes {variant.text!r}, which changes {sorted(changed)!r}"


LAWS: Mapping[str, Law] = {
    "answers": _answers,
    "gives reasons": _gives_reasons,
    "declares a mask that can be right": _declares_a_mask,
    "keeps to its attribute": _keeps_to_its_attribute,
    "its edits lead there and back": _leads_there_and_back,
    "differs from the original and from each other": _differs,
    "repeats itself": _repeats_itself,
    "draws what is asked for": _draws_what_is_asked,
    "keeps the meaning it says it keeps": _keeps_the_meaning,
    "fits the grammar where it says so": _fits_the_grammar,
    "changes one thing where it says so": _changes_one_thing,
}


class Breach(NamedTuple):
    """A law that a perturbation breaks, on the smallest prompt that was found."""

    perturbation: str
    law: str
    dataset: str
    prompt: str
    attribute: str | None
    what: str

    def __str__(self) -> str:
        asked = f" ({self.attribute})" if self.attribute else ""
        return (
            f"perturbation {self.perturbation!r}: {self.dataset}: {self.prompt!r}{asked}: it "
            f"{self.what}. The law is: {self.law}. Correct the perturbation or what it declares."
        )


class _BrokenError(Exception):
    """Tells Hypothesis that a law is broken; never leaves this module."""


def breaches(trial: Trial, laws: Mapping[str, Law] = LAWS) -> list[Breach]:
    """Every law that a trial breaks."""
    scene = trial.scene
    return [
        Breach(
            trial.rule.name,
            name,
            scene.context.grammar.dataset,
            scene.prompt.text,
            scene.attribute,
            what,
        )
        for name, law in laws.items()
        for what in law(trial)
    ]


def check_perturbation(
    rule: Perturbation, *, datasets: Iterable[str] | None = None, examples: int = 50
) -> list[Breach]:
    """Look for prompts on which a perturbation breaks a law, and make them small.

    At most one breach per law: the smallest prompt that breaks it. `examples` prompts are invented
    per dataset (all that ship when None) and law.
    """
    names = sorted(dataset_names() if datasets is None else datasets)
    found: dict[str, Breach] = {}
    for dataset in names:
        while breach := _smallest_breach(rule, dataset, LAWS.keys() - found.keys(), examples):
            found[breach.law] = breach
    return [found[name] for name in LAWS if name in found]


def _smallest_breach(
    rule: Perturbation, dataset: str, names: Collection[str], examples: int
) -> Breach | None:
    """The smallest prompt that breaks one of the named laws; None where none is found."""
    last: list[Breach] = []
    laws = {name: law for name, law in LAWS.items() if name in names}
    card = load_dataset_card(dataset)
    drawn = scenes(load_grammar(card), suit(load_lexicon(), card), per_attribute=rule.per_attribute)

    @seed(0)
    @silent_settings(examples, (Phase.generate, Phase.shrink))
    @given(drawn)
    def attempt(scene: Scene) -> None:
        broken = breaches(Trial(rule, scene), laws)
        if broken:
            last[:] = broken[:1]
            raise _BrokenError

    try:
        attempt()
    except _BrokenError:
        return last[0]
    return None
