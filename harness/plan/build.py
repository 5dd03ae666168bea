"""Freezes suite x datasets into the table of every case to be evaluated.

Conventions: one row a case, in the order image, sample, probe; the rows of one
image stand together, originals first. Paths are relative to the data root.
`case_id` is the first 8 bytes (little-endian) of SHA-256 over the row's content,
so that a plan means the same on every machine. The plan knows no model.
"""

import gc
import hashlib
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from itertools import chain, islice
from typing import Any

import numpy as np
import polars as pl

from harness.data.table_variants import refuse_unknown
from harness.errors import NothingSelectedError, RunError, SuiteError, nearest
from harness.files.canonical import canonical
from harness.files.writing import joined_parquet, parquet_bytes
from harness.plan.rows import PLAN_SCHEMA, PlannedSet, Skipped, rows_of
from harness.prompts.freetext.counting import spans_from
from harness.prompts.freetext.terms import is_read_freely, needs_terms, read_terms, suit
from harness.prompts.grammar import load_grammar
from harness.prompts.lexicon import Lexicon, load_lexicon
from harness.prompts.perturbations import Context
from harness.prompts.population import Population
from harness.prompts.words import draw_words, words_sha256
from harness.records import Sample
from harness.suite.schema import TABLE, Suite

__all__ = ["NOT_APPLICABLE_SCHEMA", "PLAN_SCHEMA", "Plan", "PlannedSet", "build_plan"]

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


# A row takes five times as much memory as a dictionary as it takes in a table.
_ROWS = 10_000


@dataclass(frozen=True)
class Plan:
    """A frozen plan: its cases, what did not apply, and the hash of both.

    `parquet` is ``plan.parquet``: a case takes some 20 bytes in it, and 400 or more in a table.
    `sources` names what the variants were made from (lexicon, word list, their
    hashes, the words drawn); it enters the hash.
    """

    parquet: bytes
    not_applicable: pl.DataFrame
    sources: Mapping[str, Any]

    def scan(self) -> pl.LazyFrame:
        """The cases, read column by column where they are used."""
        return pl.scan_parquet(io.BytesIO(self.parquet))

    @property
    def cases(self) -> pl.DataFrame:
        """All cases as one table, made anew each time."""
        return self.scan().collect()

    @property
    def n_cases(self) -> int:
        """How many cases there are."""
        return int(self.scan().select(pl.len()).collect().item())

    @property
    def sha256(self) -> str:
        """Hash of everything in the plan."""
        digest = hashlib.sha256(_ids(self.scan()).astype("<u8", copy=False).data)
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
    with _nothing_is_garbage():
        rows = chain.from_iterable(
            rows_of(suite, planned, context_of(planned, lexicon, words), skipped)
            for planned in sets
        )
        in_parts = iter(lambda: list(islice(rows, _ROWS)), [])
        parts = [parquet_bytes(_frame(part)) for part in in_parts]
    if not parts:
        raise NothingSelectedError(
            f"suite {suite.name!r}: no case is left. At least one sample and its original prompt "
            "are needed. Loosen --datasets, --split or --limit."
        )
    table = joined_parquet(parts)
    del parts
    _refuse_collisions(pl.scan_parquet(io.BytesIO(table)))
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
    sources |= _spans(sets)
    tables = [dict(source) for p in sets if p.tables is not None for source in p.tables.sources]
    if tables:
        sources["tables"] = tables
    if suite.property_based:
        sources["hypothesis"] = version("hypothesis")
    return Plan(table, not_applicable, sources)


def _spans(sets: Sequence[PlannedSet]) -> dict[str, Any]:
    """Which sets' spans the lexicon found, and the hash of further words that any set needs."""
    free = {
        p.card.name: spans_from(p.card, freely=p.is_from_table)
        for p in sets
        if p.is_from_table or is_read_freely(p.card)
    }
    needed = bool(free) or any(needs_terms(p.card) for p in sets)
    terms = {"terms_sha256": read_terms()[1]} if needed else {}
    return {**terms, **({"spans": free} if free else {})}


def _frame(rows: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    columns = {name: [row[name] for row in rows] for name in PLAN_SCHEMA}
    return pl.DataFrame(columns, schema=PLAN_SCHEMA)


@contextmanager
def _nothing_is_garbage() -> Iterator[None]:
    """Millions of rows are made, none in a circle: the collector need not look at them."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def context_of(planned: PlannedSet, lexicon: Lexicon, words: tuple[str, ...]) -> Context:
    """What perturbations may look at in a dataset; its sample is still to be put in."""
    freely = planned.is_from_table
    grammar = load_grammar(planned.card, freely=freely)
    lexicon = suit(lexicon, planned.card, freely=freely)
    everyone = Population(planned.all_samples, planned.prompt_type, planned.card.named_targets)
    values = value_sets(planned.all_samples, planned.prompt_type)
    return Context(grammar, lexicon, values, words, population=everyone)


def value_sets(samples: Iterable[Sample], prompt_type: str) -> dict[str, tuple[str, ...]]:
    """The values of each attribute that occur in the prompts of a rung, sorted."""
    found: dict[str, set[str]] = {}
    for sample in samples:
        for prompt in sample.prompts.get(prompt_type, ()):
            for attribute, value in prompt.values.items():
                found.setdefault(attribute, set()).add(value)
    return {attribute: tuple(sorted(values)) for attribute, values in found.items()}


def _check_attributes(suite: Suite, sets: Sequence[PlannedSet]) -> None:
    known_of = {
        p.card.name: {*load_grammar(p.card, freely=p.is_from_table).card.attributes} for p in sets
    }
    known = {a for found in known_of.values() for a in found}
    asked = [
        (f"probe {p.name!r}: no dataset of this run has", p.attributes, known) for p in suite.probes
    ]
    asked += [
        (
            f"dataset {p.card.name!r}: its card does not have",
            p.entry.attributes,
            known_of[p.card.name],
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


def _ids(cases: pl.LazyFrame) -> np.ndarray:
    return cases.select("case_id").collect()["case_id"].to_numpy()


def _refuse_collisions(cases: pl.LazyFrame) -> None:
    ids = np.sort(_ids(cases))
    is_shared = ids[1:] == ids[:-1]
    if is_shared.any():
        shared = np.unique(ids[1:][is_shared]).tolist()
        doubled = cases.filter(pl.col("case_id").is_in(shared)).collect()
        first = doubled.row(0, named=True)
        raise RunError(
            f"plan: {doubled.height} cases share a case id, the first is probe {first['probe']!r} "
            f"of {first['dataset']}/{first['split']}/{first['sample_id']}. Ids must be unique. "
            "List each dataset and split once."
        )
