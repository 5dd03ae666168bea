"""Hunts for breaks over the samples of a dataset, and replays those that were found.

Conventions: a prompt that cannot be broken is skipped with a reason: one whose Dice is
below the floor for preserved breaks, one whose mask is empty or whose image has no other
named target for deaf ones. Each prompt of a sample is hunted on its own.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from typing import TYPE_CHECKING, NamedTuple

from harness.errors import DataError
from harness.files.canonical import canonical
from harness.hunt.breaks import Break, Limits, Scores, Search, Size
from harness.hunt.evaluator import ImageEncoder, Measurement, SampleEvaluator
from harness.hunt.search import (
    BREAK_BELOW_PERCENT,
    DEAF_ABOVE_AGREEMENT,
    SearchResult,
    find_smallest_break,
    is_break,
)
from harness.hunt.space import Kind, Space, fits
from harness.metrics import signature
from harness.plan.build import context_of
from harness.plan.rows import PlannedSet, named_targets
from harness.prompts.context import Context
from harness.prompts.lexicon import Lexicon
from harness.records import Prompt, Sample

if TYPE_CHECKING:
    from harness.prompts.perturbations.base import Perturbation


class HuntConfig(NamedTuple):
    """What to look for, how long, and from which seed."""

    kinds: Sequence[Kind]
    rules: Mapping[Kind, Sequence["Perturbation"]]
    budget: int
    seed: int
    dice_floor: float


class PromptResult(NamedTuple):
    """The outcome for one prompt: a break, none, or the reason why it was skipped."""

    sample: Sample
    prompt: Prompt
    kind: Kind
    search: SearchResult | None = None
    smallest: Break | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Hunt:
    """One dataset and the model that is searched for breaks on it."""

    planned: PlannedSet
    encoder: ImageEncoder
    lexicon: Lexicon
    config: HuntConfig

    @cached_property
    def _context(self) -> Context:
        return context_of(self.planned, self.lexicon, ())

    @cached_property
    def _targets(self) -> dict[str, dict[str, str]]:
        """Image -> text -> the sample it names."""
        targets: dict[str, dict[str, str]] = {}
        for (image, text), name in named_targets(self.planned).items():
            targets.setdefault(image, {})[text] = name
        return targets

    def prompts(self) -> list[tuple[Sample, Prompt, Kind]]:
        """Everything that is to be hunted, in order."""
        return [
            (sample, prompt, kind)
            for sample in self.planned.samples
            for prompt in sample.prompts.get(self.planned.prompt_type, ())
            for kind in self.config.kinds
        ]

    def results(self) -> Iterator[PromptResult]:
        """Hunt on every prompt; the model's answers to a prompt serve all kinds."""
        current: tuple[Sample, Prompt] | None = None
        for sample, prompt, kind in self.prompts():
            if current is None or current != (sample, prompt):
                current = sample, prompt
                evaluator = SampleEvaluator(self.encoder, sample, prompt.text)
            yield self._hunt(evaluator, sample, prompt, kind)

    def space(self, sample: Sample, prompt: Prompt, kind: Kind) -> Space:
        """The candidates of one prompt."""
        targets = {
            text: name
            for text, name in self._targets.get(sample.image_id, {}).items()
            if name != sample.sample_id
        }
        context = replace(self._context, sample=sample)
        return Space(prompt, context, kind, self.config.rules[kind], targets)

    def _hunt(
        self, evaluator: SampleEvaluator, sample: Sample, prompt: Prompt, kind: Kind
    ) -> PromptResult:
        space = self.space(sample, prompt, kind)
        reason = self._reason_to_skip(evaluator.original, space)
        if reason is not None:
            return PromptResult(sample, prompt, kind, reason=reason)
        evaluator.calls = 1  # each kind has the whole budget
        seed = self._seed(sample, prompt, kind)
        budget = self.config.budget
        search = find_smallest_break(evaluator, space, budget=budget, fixed_seed=seed)
        smallest = self._break(sample, prompt, kind, search, seed) if search.candidate else None
        return PromptResult(sample, prompt, kind, search, smallest)

    def _reason_to_skip(self, original: Measurement, space: Space) -> str | None:
        floor = self.config.dice_floor
        if space.kind is Kind.PRESERVED and original.dice_original < floor:
            return f"baseline too low: Dice {original.dice_original:.3f} is below {floor:g}"
        if space.kind is Kind.DEAF and original.n_pred == 0:
            return "the mask for its own prompt is empty"
        if space.kind is Kind.DEAF and not space.targets:
            return "the image has no other target that a prompt names"
        return None if space.atoms else "no perturbation of the families applies"

    def _seed(self, sample: Sample, prompt: Prompt, kind: Kind) -> int:
        """Each prompt has its own, whatever was hunted before it."""
        place = [sample.dataset, sample.split, sample.sample_id, prompt.index, kind]
        content = canonical([self.config.seed, *place, prompt.prompt_type])
        return int.from_bytes(hashlib.sha256(content).digest()[:8], "little")

    def _break(
        self, sample: Sample, prompt: Prompt, kind: Kind, search: SearchResult, seed: int
    ) -> Break:
        candidate, measurement = search.candidate, search.measurement
        assert candidate is not None  # the caller has looked
        assert measurement is not None  # it was tried
        model, entry = self.encoder.model, self.planned.entry
        edits, characters = candidate.size
        return Break(
            kind=kind,
            dataset=self.planned.card.name,
            split=entry.split,
            sample_id=sample.sample_id,
            image_id=sample.image_id,
            prompts=entry.prompts,  # type: ignore[arg-type]
            prompt_type=prompt.prompt_type,  # type: ignore[arg-type]
            prompt_index=prompt.index,
            original_prompt=prompt.text,
            edits=list(candidate.edits),
            made_by=list(candidate.composition.names),
            variant=candidate.text,
            named_sample_id=candidate.named_sample_id,
            size=Size(edits=edits, characters=characters),
            limits=Limits(
                relative_change_percent=BREAK_BELOW_PERCENT, agreement=DEAF_ABOVE_AGREEMENT
            ),
            figures=make_scores(self.encoder, prompt.text, candidate.text, measurement),
            model_id=model.model_id,
            signature=signature(self.encoder.metric, model.card.threshold, sample.reading.rule),
            search=self._search(kind, search, seed),
        ).seal()

    def _search(self, kind: Kind, search: SearchResult, seed: int) -> Search:
        return Search(
            minimality=search.minimality,
            tried=search.n_tried,
            calls=search.calls,
            budget=self.config.budget,
            families=[rule.name for rule in self.config.rules[kind]],
            seed=seed,
            hypothesis=version("hypothesis"),
            lexicon=self.lexicon.source,
            lexicon_sha256=self._context.lexicon.sha256,
        )


def make_scores(
    encoder: ImageEncoder, original: str, text: str, measurement: Measurement
) -> Scores:
    """What the model did, and whether the edit reached it at all."""
    import polars as pl

    from harness.engine.texts import text_table

    pair = pl.DataFrame({"prompt": [text], "original_prompt": [original]})
    return Scores(
        dice_original=measurement.dice_original,
        dice=measurement.dice,
        relative_change_percent=None
        if measurement.dice_original == 0
        else measurement.relative_change,
        agreement=measurement.agreement,
        edit_survives=text_table(encoder.model, pair)["edit_survives"][0],
    )


def families(kind: Kind, known: Mapping[str, "Perturbation"]) -> list["Perturbation"]:
    """The perturbations that a hunt tries when none are named."""
    return [rule for rule in known.values() if fits(rule, kind)]


class ReplayResult(NamedTuple):
    """A break that was replayed: whether it still breaks, with the scores of now."""

    saved: Break
    breaks: bool
    scores: Scores

    @property
    def same_scores(self) -> bool:
        """Whether nothing at all has moved."""
        return self.saved.figures == self.scores


def replay(saved: Break, planned: PlannedSet, encoder: ImageEncoder, *, where: str) -> ReplayResult:
    """Try a break on a model again; the data must be those of the hunt."""
    sample = next((s for s in planned.all_samples if s.sample_id == saved.sample_id), None)
    if sample is None:
        raise DataError(
            f"{where}: {saved.dataset}/{saved.split} has no sample {saved.sample_id!r}. The data "
            "must be those of the hunt. Give their --data-root."
        )
    texts = [prompt.text for prompt in sample.prompts.get(saved.prompt_type, ())]
    if sample.image_id != saved.image_id or saved.original_prompt not in texts:
        what = "image" if sample.image_id != saved.image_id else "prompt"
        raise DataError(
            f"{where}: the sample {saved.sample_id!r} of {saved.dataset}/{saved.split} has another "
            f"{what} than when the break was found. The data must be those of the hunt. Give their "
            "--data-root, or hunt again."
        )
    original, text = saved.original_prompt, saved.variant
    measurement = SampleEvaluator(encoder, sample, original).measure(text)
    scores = make_scores(encoder, original, text, measurement)
    return ReplayResult(saved, is_break(saved.kind, measurement), scores)
