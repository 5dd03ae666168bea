"""Which sample each row of a table belongs to, and the variants it holds of it.

Conventions: as in `tables`. A row is found by its image's name, and by its mask's where
the table has a column for it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.cards import DatasetCard
from harness.data.tables import ORIGINAL, Row, Table, TableEntry, read_tables
from harness.errors import DataError, SuiteError, nearest
from harness.prompts.grammar import load_grammar
from harness.prompts.word_diff import word_edits
from harness.records import NotApplicable, Prompt, Sample, Variant


@dataclass(frozen=True)
class TableTexts:
    """The texts of a dataset's tables, by what they belong to."""

    # (perturbation, sample id) -> texts, in the order of the rows.
    texts: Mapping[tuple[str, str], tuple[str, ...]]
    # Of each table its path, hash, number of rows and how many fit no image.
    sources: tuple[Mapping[str, Any], ...]

    @property
    def names(self) -> frozenset[str]:
        """The perturbations that have a text, originals left out."""
        return frozenset(name for name, _ in self.texts) - {ORIGINAL}


def gather(
    entries: Sequence[TableEntry],
    samples: Sequence[Sample],
    *,
    data_root: Path,
    suite_folder: Path | None,
    where: str,
) -> TableTexts | None:
    """Read the tables of one dataset and find the sample of each row.

    `samples` are the whole split; None where there is no table.

    Raises:
        DataError: As of `read_tables`; or a row's image has several targets and nothing
            says which is meant, or no row fits any sample.
    """
    texts: dict[tuple[str, str], dict[str, None]] = {}
    sources = []
    for entry in entries:
        folder = data_root if entry.under == "data" else suite_folder or Path()
        by_image: dict[str, list[Sample]] = {}
        for sample in samples:
            by_image.setdefault(_key(sample.image.name, entry), []).append(sample)
        for table in read_tables(entry, folder, where=f"{where}: tables of {entry.dataset}"):
            n_unmatched = _assign(table, entry, by_image, texts)
            if n_unmatched == len(table.rows):
                _refuse_strangers(table, entry, samples)
            sources.append(
                {
                    "dataset": entry.dataset,
                    "split": entry.split,
                    "file": table.file,
                    "sha256": table.sha256,
                    "rows": len(table.rows),
                    "unmatched": n_unmatched,
                }
            )
    found = {key: tuple(several) for key, several in texts.items()}
    return TableTexts(found, tuple(sources)) if entries else None


def _assign(
    table: Table,
    entry: TableEntry,
    by_image: Mapping[str, Sequence[Sample]],
    texts: dict[tuple[str, str], dict[str, None]],
) -> int:
    """Add a table's rows to `texts`; returns how many fit no image."""
    n_unmatched = 0
    for row in table.rows:
        target = _target(row, by_image.get(_key(row.image, entry), []), entry)
        if target is None:
            n_unmatched += 1
        else:
            texts.setdefault((row.perturbation, target.sample_id), {})[row.prompt] = None
    return n_unmatched


def refuse_unknown(
    asked: Sequence[str], tables: Sequence[TableTexts | None], *, where: str
) -> None:
    """Refuse names that no table has, which are misspelt ones; no table at all is another dataset.

    Raises:
        SuiteError: Some table was read, and none has rows of a name.
    """
    read = [table for table in tables if table is not None]
    known = {name for table in read for name in table.names}
    for name in asked if read else []:
        if name not in known:
            names = ", ".join(map(repr, sorted(known)))
            raise SuiteError(
                f"{where}: probe {name!r}: no table has rows of this name.{nearest(name, known)} "
                f"Perturbations of the tables: {names}."
            )


def table_variants(
    tables: TableTexts | None, name: str, sample_id: str, prompt: Prompt
) -> Iterator[Variant | NotApplicable]:
    """The variants that somebody else made of a sample, or why there is none."""
    if tables is None:
        yield NotApplicable("no table of the suite is for this dataset")
        return
    texts = tables.texts.get((name, sample_id), ())
    if not texts:
        yield NotApplicable("the table has no row for this image")
    for text in texts:
        if text == prompt.text:
            yield NotApplicable("the table's text is the original prompt")
        else:
            yield Variant(text, word_edits(prompt.text, text), prompt.prompt_type)


def with_originals(
    card: DatasetCard, samples: Sequence[Sample], tables: TableTexts | None, *, prompt_type: str
) -> list[Sample]:
    """The samples with their tables' originals in place of the released prompts.

    An original that does not parse as a prompt of its type is read as free text; a sample
    without an original has no prompt, which the plan counts.

    Raises:
        DataError: No table gives an original.
    """
    found = {} if tables is None else tables.texts
    if not any(name == ORIGINAL for name, _ in found):
        raise DataError(
            f"dataset {card.name!r}: 'prompts: table', and no table of the suite has rows named "
            f"{ORIGINAL!r} for it. Originals come from there. Add a table of originals, or leave "
            "'prompts' out to compare with the released ones."
        )
    grammar = load_grammar(card, freely=True)
    return [
        replace(sample, prompts={prompt_type: originals} if originals else {})
        for sample in samples
        for originals in [
            tuple(
                grammar.parse(text, prompt_type=prompt_type, index=index)
                for index, text in enumerate(found.get((ORIGINAL, sample.sample_id), ()))
            )
        ]
    ]


def _key(name: str, entry: TableEntry) -> str:
    base = name.replace("\\", "/").rsplit("/", 1)[-1]
    return base.rsplit(".", 1)[0] if entry.match == "stem" else base


def _target(row: Row, candidates: Sequence[Sample], entry: TableEntry) -> Sample | None:
    if row.mask is not None:
        wanted = _key(row.mask, entry)
        candidates = [s for s in candidates if _key(s.mask.name, entry) == wanted]
    if len(candidates) > 1:
        raise DataError(
            f"{row.where}: the image {row.image!r} has {len(candidates)} targets. A row must say "
            "which one it describes. Name a column of masks in the suite: columns: {mask: ...}."
        )
    return candidates[0] if candidates else None


def _refuse_strangers(table: Table, entry: TableEntry, samples: Sequence[Sample]) -> None:
    ours = samples[0].image.name if samples else ""
    raise DataError(
        f"{table.file}: no row fits an image of {entry.dataset!r}: the table names "
        f"{table.rows[0].image!r}, the dataset {ours!r}. Names must be equal; with 'match: stem' "
        "their endings need not be. Correct the table or the suite."
    )
