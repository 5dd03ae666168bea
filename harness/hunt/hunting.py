"""Hunts over the samples of a dataset, and asks again about what was found.

Conventions: a prompt that cannot be broken is skipped with a reason: one whose Dice is
below the floor for preserved breaks, one whose mask is empty or whose image has no other
named target for deaf ones. Each prompt of a sample is hunted on its own.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.canonical import canonical
from harness.cases import PlannedSet, named_targets
from harness.errors import DataError
from harness.hunt.cases import FORM, Case, CaseEdit, Figures, Limits, Search, Size
from harness.hunt.search import (
    BREAK_BELOW_PERCENT,
    DEAF_ABOVE_AGREEMENT,
    Found,
    hunt,
    is_break,
)
from harness.hunt.space import Kind, Space, fits
from harness.hunt.subject import Eyes, Measured, Subject
from harness.metrics import signature
from harness.plan import context_of
from harness.prompts.context import Context
from harness.prompts.lexicon import Lexicon
from harness.records import Prompt, Sample

if TYPE_CHECKING:
    from harness.prompts.perturbations.base import Perturbation


class Aim(NamedTuple):
    """What to look for, how long, and from which seed."""

    kinds: Sequence[Kind]
    rules: Mapping[Kind, Sequence["Perturbation"]]
    budget: int
    seed: int
    dice_floor: float


class Outcome(NamedTuple):
    """What became of one prompt: a break, none, or the reason why it was not hunted."""

    sample: Sample
    prompt: Prompt
    kind: Kind
    found: Found | None
    case: Case | None
    reason: str | None = None


@dataclass(frozen=True)
class Hunt:
    """One dataset before one model."""

    planned: PlannedSet
    eyes: Eyes
    lexicon: Lexicon
    aim: Aim

    @cached_property
    def _context(self) -> Context:
        return context_of(self.planned, self.lexicon, ())

    @cached_property
    def _targets(self) -> dict[str, dict[str, str]]:
        """Image -> text -> the sample it names."""
        found: dict[str, dict[str, str]] = {}
        for (image, text), name in named_targets(self.planned).items():
            found.setdefault(image, {})[text] = name
        return found

    def prompts(self) -> list[tuple[Sample, Prompt, Kind]]:
        """Everything that is to be hunted, in order."""
        rung = self.planned.prompt_type
        return [
            (sample, prompt, kind)
            for sample in self.planned.samples
            for prompt in sample.prompts.get(rung, ())
            for kind in self.aim.kinds
        ]

    def outcomes(self) -> Iterator[Outcome]:
        """Hunt on every prompt; a prompt's model answers serve all kinds."""
        asked: tuple[Sample, Prompt] | None = None
        for sample, prompt, kind in self.prompts():
            if asked is None or asked != (sample, prompt):
                asked, subject = (sample, prompt), Subject(self.eyes, sample, prompt.text)
            yield self._outcome(subject, sample, prompt, kind)

    def space(self, sample: Sample, prompt: Prompt, kind: Kind) -> Space:
        """The candidates of one prompt."""
        targets = {
            text: name
            for text, name in self._targets.get(sample.image_id, {}).items()
            if name != sample.sample_id
        }
        around = replace(self._context, sample=sample)
        return Space(prompt, around, kind, self.aim.rules[kind], targets)

    def _outcome(self, subject: Subject, sample: Sample, prompt: Prompt, kind: Kind) -> Outcome:
        space = self.space(sample, prompt, kind)
        reason = self._cannot(subject.original, space)
        if reason is not None:
            return Outcome(sample, prompt, kind, None, None, reason)
        subject.calls = 1  # each kind has the whole budget
        seed = self._seed(sample, prompt, kind)
        found = hunt(subject, space, budget=self.aim.budget, fixed_seed=seed)
        case = None if found.candidate is None else self._case(sample, prompt, kind, found, seed)
        return Outcome(sample, prompt, kind, found, case)

    def _cannot(self, original: Measured, space: Space) -> str | None:
        floor = self.aim.dice_floor
        if space.kind is Kind.PRESERVED and original.dice_original < floor:
            return f"baseline too low: Dice {original.dice_original:.3f} is below {floor:g}"
        if space.kind is Kind.DEAF and original.n_pred == 0:
            return "the mask for its own prompt is empty"
        if space.kind is Kind.DEAF and not space.targets:
            return "the image has no other target that a prompt names"
        return None if space.atoms else "no perturbation of the families applies"

    def _seed(self, sample: Sample, prompt: Prompt, kind: Kind) -> int:
        """Each prompt has its own, whatever was hunted before it."""
        what = [self.aim.seed, sample.dataset, sample.split, sample.sample_id, prompt.index, kind]
        digest = hashlib.sha256(canonical([*what, prompt.prompt_type])).digest()
        return int.from_bytes(digest[:8], "little")

    def _case(self, sample: Sample, prompt: Prompt, kind: Kind, found: Found, seed: int) -> Case:
        candidate, measured = found.candidate, found.measured
        assert candidate is not None  # the caller has looked
        assert measured is not None  # it was tried
        model = self.eyes.model
        where: dict[str, Any] = {
            "dataset": self.planned.card.name,
            "split": self.planned.entry.split,
            "sample_id": sample.sample_id,
            "image_id": sample.image_id,
            "prompts": self.planned.entry.prompts,
            "prompt_type": prompt.prompt_type,
            "prompt_index": prompt.index,
            "original_prompt": prompt.text,
        }
        return Case(
            form=FORM,
            kind=kind,
            **where,
            edits=[
                CaseEdit(start=e.start, end=e.end, old=e.old, new=e.new, attribute=e.attribute)
                for e in candidate.edits
            ],
            made_by=list(candidate.composition.names),
            variant=candidate.text,
            named_sample_id=candidate.named_sample_id,
            size=Size(edits=candidate.size[0], characters=candidate.size[1]),
            limits=Limits(
                relative_change_percent=BREAK_BELOW_PERCENT, agreement=DEAF_ABOVE_AGREEMENT
            ),
            figures=figures(self.eyes, prompt.text, candidate.text, measured),
            model_id=model.model_id,
            signature=signature(self.eyes.metric, model.card.threshold, sample.reading.rule),
            search=self._search(kind, found, seed),
        ).sealed()

    def _search(self, kind: Kind, found: Found, seed: int) -> Search:
        return Search(
            minimality=found.minimality,
            tried=found.n_tried,
            calls=found.calls,
            budget=self.aim.budget,
            families=[rule.name for rule in self.aim.rules[kind]],
            seed=seed,
            hypothesis=version("hypothesis"),
            lexicon=self.lexicon.source,
            lexicon_sha256=self.lexicon.sha256,
        )


def figures(eyes: Eyes, original: str, text: str, measured: Measured) -> Figures:
    """What the model did, and whether the edit reached it at all."""
    import polars as pl

    from harness.engine.texts import text_table

    pair = pl.DataFrame({"prompt": [text], "original_prompt": [original]})
    survives = text_table(eyes.model, pair)["edit_survives"][0]
    change = measured.relative_change
    return Figures(
        dice_original=measured.dice_original,
        dice=measured.dice,
        relative_change_percent=None if measured.dice_original == 0 else change,
        agreement=measured.agreement,
        edit_survives=survives,
    )


def families(kind: Kind, known: Mapping[str, "Perturbation"]) -> list["Perturbation"]:
    """The perturbations that a hunt tries when none are named."""
    return [rule for rule in known.values() if fits(rule, kind)]


class Replayed(NamedTuple):
    """A case asked again: whether it still breaks, with the figures of now."""

    case: Case
    breaks: bool
    figures: Figures

    @property
    def same_figures(self) -> bool:
        """Whether nothing at all has moved."""
        return self.case.figures == self.figures


def replay(case: Case, planned: PlannedSet, eyes: Eyes, *, where: str) -> Replayed:
    """Ask a model about a case again.

    Raises:
        DataError: The sample is not there, shows another image or has another prompt.
    """
    sample = next((s for s in planned.all_samples if s.sample_id == case.sample_id), None)
    if sample is None:
        raise DataError(
            f"{where}: {case.dataset}/{case.split} has no sample {case.sample_id!r}. The data must "
            "be those of the hunt. Give their --data-root."
        )
    texts = [prompt.text for prompt in sample.prompts.get(case.prompt_type, ())]
    if sample.image_id != case.image_id or case.original_prompt not in texts:
        what = "image" if sample.image_id != case.image_id else "prompt"
        raise DataError(
            f"{where}: the sample {case.sample_id!r} of {case.dataset}/{case.split} has another "
            f"{what} than when the break was found. The data must be those of the hunt. Give their "
            "--data-root, or hunt again."
        )
    measured = Subject(eyes, sample, case.original_prompt).measure(case.variant)
    now = figures(eyes, case.original_prompt, case.variant, measured)
    return Replayed(case, is_break(case.kind, measured), now)
