"""The rows of a plan: originals and variants of one dataset of a suite.

Conventions: as in `plan`. Each draw has its own seed, made from what it is for, so that
a row does not depend on the others; rules that look at nothing but the prompt are asked
once about each text.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from harness.cards import DatasetCard
from harness.data.table_variants import TableTexts
from harness.files.canonical import canonical, edits_text, object_of, scalars
from harness.prompts.perturbations import (
    Context,
    Outcome,
    Perturbation,
    Scope,
    is_sampled,
    variants_of,
)
from harness.records import ExpectedMask, Meaning, NotApplicable, Prompt, Sample, Variant
from harness.suite.schema import TABLE, DatasetEntry, Probe, Suite, rules_of

PLAN_SCHEMA = pl.Schema(
    {
        "case_id": pl.UInt64,
        "original_case_id": pl.UInt64,
        "dataset": pl.String,
        "split": pl.String,
        "sample_id": pl.String,
        "image": pl.String,
        "mask": pl.String,
        "image_id": pl.String,
        "cluster_id": pl.String,
        "probe": pl.String,
        "perturbation": pl.String,
        "meaning": pl.String,
        "expected_mask": pl.String,
        "named_sample_id": pl.String,
        "attribute": pl.String,
        "prompts": pl.String,
        "prompt_type": pl.String,
        "prompt_index": pl.Int16,
        "variant_type": pl.String,
        "repeat": pl.Int16,
        "word": pl.String,
        "prompt": pl.String,
        "original_prompt": pl.String,
        "edits": pl.String,
    }
)
# What a case id is a hash of, in the order in which it is written.
_CONTENT = tuple(sorted(PLAN_SCHEMA.keys() - {"case_id", "original_case_id"}))

# (dataset, split, probe, attribute, prompts, prompt type, reason) -> samples it is true of.
Skipped = dict[tuple[str | None, ...], set[str]]


@dataclass(frozen=True)
class PlannedSet:
    """The samples of one dataset of a suite.

    `samples` are those to evaluate, `all_samples` the whole split: a dataset's
    value sets do not depend on ``--limit``. `tables` are the suite's for this dataset.
    """

    entry: DatasetEntry
    card: DatasetCard
    root: Path
    samples: Sequence[Sample]
    all_samples: Sequence[Sample]
    tables: TableTexts | None = None

    @property
    def is_from_table(self) -> bool:
        """Whether its original prompts are a table's, which the card's grammar need not fit."""
        return self.entry.prompts == TABLE

    @property
    def prompt_type(self) -> str:
        """The rung of the ladder its original prompts stand on."""
        return self.entry.prompt_type or self.card.prompt_type


def rows_of(
    suite: Suite, planned: PlannedSet, context: Context, skipped: Skipped
) -> Iterator[dict[str, Any]]:
    """Every row of one dataset, image by image, originals first.

    Args:
        suite: Whose probes are applied.
        planned: The samples.
        context: What all of them share.
        skipped: Where what does not apply is counted.
    """
    targets = named_targets(planned)
    rules = rules_of(suite, planned.tables)
    by_image: dict[Path, list[Sample]] = {}
    for sample in planned.samples:
        by_image.setdefault(sample.image, []).append(sample)
    for samples in by_image.values():
        originals = [o for sample in samples for o in _originals(planned, sample, skipped)]
        yield from (original.row for original in originals)
        for original in originals:
            around = replace(context, sample=original.sample)
            for probe, rule in rules:
                cell = _Cell(suite, planned, probe, rule, original)
                ladder = replace(around, rungs=tuple(probe.rungs)) if probe.rungs else around
                yield from _variants(cell, ladder, targets, skipped)


class _Original(NamedTuple):
    """One prompt of one sample, its row of the plan, and the row's values as JSON."""

    sample: Sample
    prompt: Prompt
    row: dict[str, Any]
    encoded: dict[str, str]


def _originals(planned: PlannedSet, sample: Sample, skipped: Skipped) -> Iterator[_Original]:
    prompts = sample.prompts.get(planned.prompt_type, ())
    if not prompts:
        reason = f"the row has no {planned.prompt_type} prompt"
        if planned.entry.prompts == "corrected":
            reason += " that its mask bears out"
        _skip(skipped, planned, "original", sample, NotApplicable(reason))
    for prompt in prompts:
        row = {
            "dataset": planned.card.name,
            "split": planned.entry.split,
            "sample_id": sample.sample_id,
            "image": sample.image.relative_to(planned.root).as_posix(),
            "mask": sample.mask.relative_to(planned.root).as_posix(),
            "image_id": sample.image_id,
            "cluster_id": sample.cluster_id,
            "probe": "original",
            "perturbation": "original",
            "meaning": Meaning.ORIGINAL.value,
            "expected_mask": ExpectedMask.OWN.value,
            "named_sample_id": None,
            "attribute": None,
            "prompts": planned.entry.prompts,
            "prompt_type": prompt.prompt_type,
            "prompt_index": prompt.index,
            "variant_type": prompt.prompt_type,
            "repeat": 0,
            "word": None,
            "prompt": prompt.text,
            "original_prompt": prompt.text,
            "edits": "[]",
        }
        encoded = scalars(row)
        case_id = _case_id(encoded)
        ids = {"case_id": case_id, "original_case_id": case_id}
        yield _Original(sample, prompt, ids | row, encoded)


@dataclass(frozen=True)
class _Cell:
    """One probe applied to one prompt of one sample."""

    suite: Suite
    planned: PlannedSet
    probe: Probe
    rule: Perturbation
    original: _Original

    def rng(self, attribute: str | None) -> np.random.Generator | None:
        """The cell's own source of chance; rules that draw for the whole dataset share one."""
        if not is_sampled(self.rule) or (self.rule.per_attribute and not self._names(attribute)):
            return None
        sample, prompt = self.original.sample, self.original.prompt
        content = [
            self.suite.seed,
            self.planned.card.name,
            self.planned.entry.split,
            None if self.rule.scope is Scope.DATASET else sample.sample_id,
            self.probe.name,
            attribute,
            prompt.prompt_type,
            prompt.index,
        ]
        entropy = int.from_bytes(hashlib.sha256(canonical(content)).digest(), "little")
        return np.random.default_rng(np.random.SeedSequence(entropy))

    def _names(self, attribute: str | None) -> bool:
        return attribute is not None and self.original.prompt.span(attribute) is not None


Targets = Mapping[tuple[str, str], str]


def named_targets(planned: PlannedSet) -> dict[tuple[str, str], str]:
    """(image, prompt text) -> the sample that this text describes in this image.

    A text that describes two samples of one image names neither of them.
    """
    found: dict[tuple[str, str], str] = {}
    doubled: set[tuple[str, str]] = set()
    for sample in planned.all_samples:
        for prompt in sample.prompts.get(planned.prompt_type, ()):
            key = (sample.image_id, prompt.text)
            if found.setdefault(key, sample.sample_id) != sample.sample_id:
                doubled.add(key)
    return {key: name for key, name in found.items() if key not in doubled}


def _variants(
    cell: _Cell, context: Context, targets: Targets, skipped: Skipped
) -> Iterator[dict[str, Any]]:
    sample, prompt = cell.original.sample, cell.original.prompt
    for attribute in _attributes(cell, context):
        seen = {prompt.text}
        repeat = 0
        for made in _made(cell, attribute, context):
            if isinstance(made, NotApplicable):
                _skip(skipped, cell.planned, cell.probe.name, sample, made)
            elif made.text not in seen:
                seen.add(made.text)
                yield _variant_row(cell, made, repeat, targets)
                repeat += 1


def _made(cell: _Cell, attribute: str | None, context: Context) -> Iterable[Outcome]:
    """What a probe makes of a prompt; where nothing else matters, once for all who share it."""
    rule, prompt = cell.rule, cell.original.prompt
    if rule.scope is not Scope.PROMPT or is_sampled(rule):
        return variants_of(
            rule,
            prompt,
            attribute=attribute,
            context=context,
            rng=cell.rng(attribute),
            repeats=cell.probe.repeats,
        )
    return context.remember(
        ("made", rule, attribute, prompt.prompt_type, prompt.text),
        lambda: tuple(variants_of(rule, prompt, attribute=attribute, context=context)),
    )


def _attributes(cell: _Cell, context: Context) -> Iterable[str | None]:
    """Those that the probe asks about; in free text, those that the dataset's prompts name."""
    grammar = context.grammar
    if not cell.rule.per_attribute:
        return [None]
    here, probed = cell.planned.entry.attributes, cell.probe.attributes
    named: Iterable[str] = grammar.attributes(cell.original.prompt.prompt_type)
    if grammar.finder is not None:
        found = [name for name in grammar.card.attributes if name in context.value_sets]
        named = found if grammar.is_free else dict.fromkeys([*named, *found])
    if probed != "all":
        named = [a for a in probed if a in grammar.card.attributes]
    return named if here == "all" else [a for a in named if a in here]


def _variant_row(cell: _Cell, made: Variant, repeat: int, targets: Targets) -> dict[str, Any]:
    meaning = made.meaning or cell.rule.meaning
    expected, named = made.expected_mask or cell.rule.expected_mask, None
    if meaning is Meaning.PRESERVED:
        expected = ExpectedMask.OWN
    if expected is ExpectedMask.NAMED:
        sample = cell.original.sample
        named = made.target or targets.get((sample.image_id, made.text))
        named = None if named == sample.sample_id else named
        expected = ExpectedMask.NAMED if named else ExpectedMask.UNDEFINED
    own = {
        "probe": cell.probe.name,
        "perturbation": cell.probe.perturbation,
        "meaning": meaning.value,
        "expected_mask": expected.value,
        "named_sample_id": named,
        "attribute": made.attribute,
        "variant_type": made.prompt_type,
        "repeat": repeat,
        "word": made.word,
        "prompt": made.text,
        "edits": edits_text(made.edits),
    }
    case_id = _case_id(cell.original.encoded | scalars(own))
    return cell.original.row | own | {"case_id": case_id}


def _skip(
    skipped: Skipped, planned: PlannedSet, probe: str, sample: Sample, made: NotApplicable
) -> None:
    """Count a sample once per reason, however many of its prompts have it."""
    source = (planned.card.name, planned.entry.split)
    entry = (probe, made.attribute, planned.entry.prompts, planned.prompt_type, made.reason)
    skipped.setdefault((*source, *entry), set()).add(sample.sample_id)


def _case_id(encoded: Mapping[str, str]) -> int:
    """The id of a row whose values are encoded (see `harness.files.canonical`)."""
    return int.from_bytes(hashlib.sha256(object_of(encoded, _CONTENT)).digest()[:8], "little")


def case_id_of(row: Mapping[str, Any]) -> int:
    """The id of a row of a plan."""
    return _case_id(scalars({key: row[key] for key in _CONTENT}))
