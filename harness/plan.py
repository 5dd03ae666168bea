"""Freezes suite x datasets into the table of every case to be evaluated.

Conventions: one row a case, in the order image, sample, probe; the rows of one
image stand together, originals first. Paths are relative to the data root.
`case_id` is the first 8 bytes (little-endian) of SHA-256 over the row's content,
so that a plan means the same on every machine. The plan knows no model.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from harness.canonical import canonical, edits_text, object_of, scalar
from harness.cards import DatasetCard
from harness.data.table_variants import TableTexts, refuse_unknown, table_variants
from harness.errors import NothingSelectedError, RunError, SuiteError, nearest
from harness.prompts.grammar import PromptGrammar, load_grammar
from harness.prompts.lexicon import Lexicon, load_lexicon
from harness.prompts.perturbations import (
    Context,
    Outcome,
    Perturbation,
    Scope,
    is_sampled,
    variants_of,
)
from harness.prompts.population import Population
from harness.prompts.words import draw_words, words_sha256
from harness.records import ExpectedMask, Meaning, NotApplicable, Prompt, Sample, Variant
from harness.suites import TABLE, DatasetEntry, Probe, Suite, rules_of

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
NOT_APPLICABLE_SCHEMA = pl.Schema(
    {
        "dataset": pl.String,
        "split": pl.String,
        "probe": pl.String,
        "attribute": pl.String,
        "prompts": pl.String,
        "prompt_type": pl.String,
        "reason": pl.String,
        "n_samples": pl.UInt32,
    }
)

# What a case id is a hash of, in the order in which it is written.
_CONTENT = sorted(PLAN_SCHEMA.keys() - {"case_id", "original_case_id"})

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
    def prompt_type(self) -> str:
        """The rung of the ladder its original prompts stand on."""
        return self.entry.prompt_type or self.card.prompt_type


@dataclass(frozen=True)
class Plan:
    """A frozen plan: its cases, what did not apply, and the hash of both.

    `sources` names what the variants were made from (lexicon, word list, their
    hashes, the words drawn); it enters the hash.
    """

    cases: pl.DataFrame
    not_applicable: pl.DataFrame
    sources: Mapping[str, Any]

    @property
    def sha256(self) -> str:
        """Hash of everything in the plan."""
        digest = hashlib.sha256(self.cases["case_id"].to_numpy().astype("<u8").tobytes())
        digest.update(canonical(self.not_applicable.rows()))
        digest.update(canonical(dict(self.sources)))
        return digest.hexdigest()


def build_plan(suite: Suite, sets: Sequence[PlannedSet]) -> Plan:
    """Enumerate and sample every variant of every sample.

    The same suite, seed and data give the same plan, whatever the order in which
    random numbers were drawn: each draw has its own seed, made from what it is for.

    Raises:
        SuiteError: A probe names an attribute that no dataset of the suite has.
        NothingSelectedError: No case is left.
        RunError: Two cases have the same id.
    """
    lexicon = load_lexicon(suite.lexicon)
    words = draw_words(suite.words, suite.seed)
    _check_attributes(suite, sets)
    asked = [p.name for p in suite.probes if p.perturbation == TABLE]
    refuse_unknown(asked, [p.tables for p in sets], where=f"suite {suite.name!r}")
    skipped: Skipped = {}
    rows: list[dict[str, Any]] = []
    for planned in sets:
        rows += _rows_of(suite, planned, context_of(planned, lexicon, words), skipped)
    if not rows:
        raise NothingSelectedError(
            f"suite {suite.name!r}: no case is left. At least one sample and its original prompt "
            "are needed. Loosen --datasets, --split or --limit."
        )
    cases = pl.DataFrame(rows, schema=PLAN_SCHEMA, orient="row")
    _refuse_collisions(cases)
    not_applicable = pl.DataFrame(
        [(*key, len(samples)) for key, samples in skipped.items()],
        schema=NOT_APPLICABLE_SCHEMA,
        orient="row",
    ).sort(pl.all())
    sources: dict[str, Any] = {
        "lexicon": lexicon.source,
        "lexicon_sha256": lexicon.sha256,
        "words": list(words),
        "word_list_sha256": words_sha256(),
        "seed": suite.seed,
    }
    if suite.property_based:
        sources["hypothesis"] = version("hypothesis")
    tables = [dict(source) for p in sets if p.tables is not None for source in p.tables.sources]
    return Plan(cases, not_applicable, sources | ({"tables": tables} if tables else {}))


def context_of(planned: PlannedSet, lexicon: Lexicon, words: tuple[str, ...]) -> Context:
    """What perturbations may look at in a dataset; its sample is still to be put in."""
    grammar = load_grammar(planned.card)
    everyone = Population(planned.all_samples, planned.prompt_type, planned.card.named_targets)
    return Context(grammar, lexicon, _value_sets(planned), words, population=everyone)


def _value_sets(planned: PlannedSet) -> dict[str, tuple[str, ...]]:
    found: dict[str, set[str]] = {}
    for sample in planned.all_samples:
        for prompt in sample.prompts.get(planned.prompt_type, ()):
            for attribute, value in prompt.values.items():
                found.setdefault(attribute, set()).add(value)
    return {attribute: tuple(sorted(values)) for attribute, values in found.items()}


def _check_attributes(suite: Suite, sets: Sequence[PlannedSet]) -> None:
    known = {a for planned in sets for a in planned.card.grammar.attributes}
    asked = [
        (f"probe {p.name!r}: no dataset of this run has", p.attributes, known) for p in suite.probes
    ]
    asked += [
        (
            f"dataset {p.card.name!r}: its card does not have",
            p.entry.attributes,
            set(p.card.grammar.attributes),
        )
        for p in sets
    ]
    for where, wanted, there in asked:
        for name in [] if wanted == "all" else wanted:
            if name not in there:
                names = ", ".join(map(repr, sorted(there)))
                raise SuiteError(
                    f"suite {suite.name!r}: {where} the "
                    f"attribute {name!r}.{nearest(name, there)} Known attributes: {names}."
                )


def _rows_of(
    suite: Suite, planned: PlannedSet, context: Context, skipped: Skipped
) -> Iterator[dict[str, Any]]:
    targets = named_targets(planned)
    rules = rules_of(suite)
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
        encoded = _encoded(row)
        case_id = _case_id(encoded)
        ids = {"case_id": case_id, "original_case_id": case_id}
        yield _Original(sample, prompt, ids | row, encoded)


@dataclass(frozen=True)
class _Cell:
    """One probe applied to one prompt of one sample."""

    suite: Suite
    planned: PlannedSet
    probe: Probe
    rule: Perturbation | None
    original: _Original

    def rng(self, attribute: str | None) -> np.random.Generator | None:
        """The cell's own source of chance; rules that draw for the whole dataset share one."""
        rule = self.rule
        if rule is None or not is_sampled(rule):
            return None
        if rule.per_attribute and not self._names(attribute):
            return None
        content = [
            self.suite.seed,
            self.planned.card.name,
            self.planned.entry.split,
            None if rule.scope is Scope.DATASET else self.original.sample.sample_id,
            self.probe.name,
            attribute,
            self.original.prompt.prompt_type,
            self.original.prompt.index,
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
    for attribute in _attributes(cell, context.grammar):
        seen = {prompt.text}
        repeat = 0
        for made in _outcomes(cell, attribute, context):
            if isinstance(made, NotApplicable):
                _skip(skipped, cell.planned, cell.probe.name, sample, made)
            elif made.text not in seen:
                seen.add(made.text)
                yield _variant_row(cell, made, repeat, targets)
                repeat += 1


def _outcomes(cell: _Cell, attribute: str | None, context: Context) -> Iterable[Outcome]:
    """What a probe makes of a prompt; where nothing else matters, once for all who share it."""
    rule, prompt = cell.rule, cell.original.prompt
    if rule is None:
        sample_id = cell.original.sample.sample_id
        return table_variants(cell.planned.tables, cell.probe.name, sample_id, prompt)
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
        ("outcomes", rule, attribute, prompt.prompt_type, prompt.text),
        lambda: tuple(variants_of(rule, prompt, attribute=attribute, context=context)),
    )


def _attributes(cell: _Cell, grammar: PromptGrammar) -> Iterable[str | None]:
    if cell.rule is None or not cell.rule.per_attribute:
        return [None]
    here, probed = cell.planned.entry.attributes, cell.probe.attributes
    named: Iterable[str] = grammar.attributes(cell.original.prompt.prompt_type)
    if probed != "all":
        named = [a for a in probed if a in grammar.card.attributes]
    return named if here == "all" else [a for a in named if a in here]


def _effect(cell: _Cell, made: Variant) -> tuple[Meaning, ExpectedMask]:
    """What happened to the meaning, and which mask is right now."""
    if cell.rule is None:
        return cell.probe.effect
    meaning = made.meaning or cell.rule.meaning
    return meaning, ExpectedMask.OWN if meaning is Meaning.PRESERVED else cell.rule.expected_mask


def _variant_row(cell: _Cell, made: Variant, repeat: int, targets: Targets) -> dict[str, Any]:
    meaning, expected = _effect(cell, made)
    named = None
    if expected is ExpectedMask.NAMED:
        sample = cell.original.sample
        named = targets.get((sample.image_id, made.text))
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
    case_id = _case_id(cell.original.encoded | _encoded(own))
    return cell.original.row | own | {"case_id": case_id}


def _skip(
    skipped: Skipped, planned: PlannedSet, probe: str, sample: Sample, made: NotApplicable
) -> None:
    """Count a sample once per reason, however many of its prompts have it."""
    source = (planned.card.name, planned.entry.split)
    entry = (probe, made.attribute, planned.entry.prompts, planned.prompt_type, made.reason)
    skipped.setdefault((*source, *entry), set()).add(sample.sample_id)


def _case_id(encoded: Mapping[str, str]) -> int:
    """The id of a row whose values are encoded (see `harness.canonical`)."""
    return int.from_bytes(hashlib.sha256(object_of(encoded, _CONTENT)).digest()[:8], "little")


def _encoded(row: Mapping[str, Any]) -> dict[str, str]:
    return {key: scalar(value) for key, value in row.items()}


def _refuse_collisions(cases: pl.DataFrame) -> None:
    doubled = cases.filter(pl.col("case_id").is_duplicated())
    if doubled.height:
        first = doubled.row(0, named=True)
        raise RunError(
            f"plan: {doubled.height} cases share a case id, the first is probe {first['probe']!r} "
            f"of {first['dataset']}/{first['split']}/{first['sample_id']}. Ids must be unique. "
            "List each dataset and split once."
        )
