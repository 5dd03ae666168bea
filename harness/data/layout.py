"""Reads the layout of the paper's code: ``<root>/<dataset>/{anns/<split>.json,images,masks}``.

Conventions: a row keeps the place it came from (``test.json: row 12``) for every
message about it. A `sample_id` is the mask's name, which is unique within a split
(image names are not: CAMUS and CheXlocalize show one picture in several rows).
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from harness.cards import PROMPT_TYPES, DatasetCard
from harness.data.clusters import assign_clusters
from harness.data.corrected import correct
from harness.data.images import look_at_mask, recognise
from harness.errors import DataError, EncodingError, PromptError, choose
from harness.files import inside
from harness.files.canonical import cut, read_json
from harness.prompts.grammar import load_grammar
from harness.records import Prompt, Reading, Sample

UNREADABLE = "cannot be decoded"
"""The encoding of a mask that is damaged."""

# How every mask was read before cards had a say: left out, so that hashes stay.
_ABOVE_HALF = Reading(above=127)


@dataclass(frozen=True)
class Row:
    """One annotation row, its prompts parsed, its files not yet looked at."""

    where: str
    image_name: str
    mask_name: str
    prompts: Mapping[str, tuple[Prompt, ...]]
    cluster: str | None = None


EXAMPLE = '{"img_name": "1.png", "mask_name": "1.png", "prompts": {"p1": "polyp"}}'


def dataset_folder(card: DatasetCard, root: Path) -> Path:
    """The dataset's folder below the data root.

    Raises:
        DataError: There is no such folder.
    """
    folder = root / (card.layout.folder or card.name)
    if not folder.is_dir():
        raise DataError(
            f"{folder}: no such folder. The dataset {card.name!r} is expected there, with "
            f"'anns', 'images' and 'masks' inside. {_where_else(card, folder.name)}"
        )
    return folder


def _where_else(card: DatasetCard, name: str) -> str:
    beside = card.path.absolute().parent if card.path else None
    if beside and beside.name == name and (beside / "anns").is_dir():
        return f"It lies beside its card: set --data-root {beside.parent}."
    if card.generator:
        return f"It is generated: `vlsm-harness generate {card.name}` (`--help` has its splits)."
    return (
        "Set --data-root to the folder above it: with --data-root data its annotations are "
        f"data/{name}/anns/{card.splits[0]}.json. Other formats become a dataset by "
        "`vlsm-harness data init FOLDER`."
    )


def read_rows(card: DatasetCard, root: Path, split: str) -> list[Row]:
    """Read and parse one annotation file; no picture is opened.

    Raises:
        DataError: The file is missing, empty or no list of rows, or a row lacks
            a key, is doubled, or names an unknown prompt type.
        PromptError: A prompt fits no template of the grammar.
    """
    path = annotation_file(card, root, split)
    parse = parser(card)
    rows = [
        parse_row(entry, f"{path}: row {number}", parse)
        for number, entry in enumerate(load_entries(path))
    ]
    _refuse_doubles(rows)
    return rows


def annotation_file(card: DatasetCard, root: Path, split: str) -> Path:
    """Where the annotations of a split are expected.

    Raises:
        DataError: The dataset has no folder, or its card no such split.
    """
    choose(split, card.splits, kind="split", where=f"dataset {card.name!r}", error=DataError)
    return dataset_folder(card, root) / "anns" / f"{split}.json"


def has_pictures(card: DatasetCard, root: Path, split: str) -> bool:
    """Whether the folder of a split's pictures is there."""
    return (dataset_folder(card, root) / _split_folder(card.layout.images, split)).is_dir()


def _no_list(found: Any) -> str:
    right = f"A JSON list of rows is expected: [{EXAMPLE}]."
    if not isinstance(found, dict):
        return f"found {type(found).__name__}. {right} Wrap the rows in [ ]."
    keys = ", ".join(map(repr, list(found)[:6])) or "no keys"
    if {"images", "annotations"} <= found.keys():
        return (
            f"found a COCO file ({keys}). {right} Make a data set of it, with a card of its own: "
            "`vlsm-harness data init FOLDER`."
        )
    return f"found an object ({keys}). {right} Write its rows as a list."


def load_entries(path: Path) -> list[Any]:
    """The rows of an annotation file as they stand there.

    Raises:
        DataError: The file is missing, no JSON, empty, or no list.
    """
    entries = read_json(
        path,
        error=DataError,
        missing="One JSON list of rows is expected there. Check --data-root and the split's name. "
        f"A row is {EXAMPLE}.",
        repair="Export the file again.",
    )
    if not isinstance(entries, list):
        raise DataError(f"{path}: {_no_list(entries)}")
    if not entries:
        raise DataError(
            f"{path}: the list is empty. At least one row is needed. Add rows such as {EXAMPLE}."
        )
    return entries


Parse = Callable[[str, str, int], Prompt]


def parser(card: DatasetCard) -> Parse:
    """Parses (text, prompt type, index); each only once, for the released files repeat theirs."""
    grammar = load_grammar(card)

    @cache
    def parse(text: str, prompt_type: str, index: int) -> Prompt:
        return grammar.parse(text, prompt_type=prompt_type, index=index)

    return parse


def parse_row(entry: Any, where: str, parse: Parse) -> Row:
    """One annotation row with its prompts parsed.

    Raises:
        DataError: It lacks a key, or names an unknown prompt type.
        PromptError: A prompt fits no template of the grammar.
    """
    if not isinstance(entry, dict):
        raise DataError(
            f"{where}: found {type(entry).__name__}. A row is an object with 'img_name', "
            f"'mask_name' and 'prompts'. Repair the row: {EXAMPLE}."
        )
    for key, kind in (("img_name", str), ("mask_name", str), ("prompts", dict)):
        if not isinstance(entry.get(key), kind):
            raise DataError(
                f"{where}: {key!r} is {cut(repr(entry.get(key)))}. A {kind.__name__} is needed. "
                f"Add the key or repair its value: {EXAMPLE}."
            )
    cluster = entry.get("cluster")
    if not isinstance(cluster, str | None):
        raise DataError(
            f"{where}: 'cluster' is {cut(repr(cluster))}. A text is needed, such as "
            '"patient 7". Repair the value or remove the key.'
        )
    prompts = {
        choose(kind, PROMPT_TYPES, kind="prompt type", where=where, error=DataError): _prompts(
            texts, kind, where=where, parse=parse
        )
        for kind, texts in entry["prompts"].items()
    }
    return Row(where, entry["img_name"], entry["mask_name"], prompts, cluster)


def _prompts(texts: Any, prompt_type: str, *, where: str, parse: Parse) -> tuple[Prompt, ...]:
    """List prompts become separate prompts with an index: none is drawn at random."""
    listed = texts if isinstance(texts, list) else [texts]
    if not listed or not all(isinstance(text, str) for text in listed):
        raise DataError(
            f"{where}: prompts.{prompt_type} is {cut(repr(texts))}. A text or a list of texts is "
            'needed, such as "one small polyp". Repair the value.'
        )
    try:
        return tuple(parse(text, prompt_type, index) for index, text in enumerate(listed))
    except PromptError as problem:
        raise PromptError(f"{where}: {problem}") from None


def _refuse_doubles(rows: Sequence[Row]) -> None:
    seen: dict[str, Row] = {}
    for row in rows:
        first = seen.setdefault(row.mask_name, row)
        if first is not row and (first.image_name, first.prompts) != (row.image_name, row.prompts):
            raise DataError(
                f"{row.where}: the mask {row.mask_name!r} stands in {first.where} too, with other "
                "prompts. A mask names one sample. Remove one of the two rows."
            )


def load_samples(
    card: DatasetCard,
    root: Path,
    split: str,
    *,
    pictures: bool = True,
    prompts: str = "released",
    tick: Callable[[], None] = lambda: None,
) -> list[Sample]:
    """Read one split: annotation rows joined with their pictures, masks and clusters.

    Rows that repeat another one exactly are one sample. Every picture and mask is decoded
    once: to recognise it by content, and to learn what of it is foreground. A mask that is
    damaged stays in, for a run to count; one that could mean two things is refused.

    Without `pictures` the texts alone are read: images then count as distinct and independent by
    their names. `prompts` is ``released``, or ``corrected``: see `harness.data.corrected`, which
    reads masks. `tick` is called once per distinct picture and mask (and mask to correct by).

    Raises:
        DataError: A picture is missing or unreadable, a mask missing or of unequal size, or
            either lies outside the dataset's folder; the message names the row.
        EncodingError: What a picture's or mask's values mean must be said on the card.
        PromptError: A prompt fits no template of the grammar.
    """
    folder = dataset_folder(card, root)
    rows = {row.mask_name: row for row in read_rows(card, root, split)}
    images, masks = (_split_folder(part, split) for part in (card.layout.images, card.layout.masks))
    samples = {
        row.where: Sample(
            dataset=card.name,
            split=split,
            sample_id=row.mask_name,
            image=_below(folder / images, row.image_name, where=row.where),
            mask=_below(folder / masks, row.mask_name, where=row.where),
            image_id=row.image_name,
            cluster_id=_cluster(card, row),
            prompts=row.prompts,
            reading=card.reading,
        )
        for row in rows.values()
    }
    found = _look_at(card, samples, tick) if pictures else list(samples.values())
    return correct(card, found, tick=tick) if prompts == "corrected" else found


def _look_at(
    card: DatasetCard, samples: Mapping[str, Sample], tick: Callable[[], None]
) -> list[Sample]:
    def identify(item: tuple[Path, str]) -> tuple[str, tuple[int, int]]:
        found = _read(recognise, item[0], card.reading, where=item[1], kind="image")
        tick()
        return found

    def look(item: tuple[str, Sample]) -> Sample:
        looked = _with_mask(*item, size=found[item[1].image][1])
        tick()
        return looked

    first_row: dict[Path, str] = {}
    for where, sample in samples.items():
        first_row.setdefault(sample.image, where)
    with ThreadPoolExecutor() as pool:  # decoding releases the GIL
        found = dict(zip(first_row, pool.map(identify, first_row.items()), strict=True))
        looked = list(pool.map(look, samples.items()))
    identified = [replace(s, image_id=found[s.image][0]) for s in looked]
    clusters = assign_clusters(card, identified)
    return [
        replace(sample, cluster_id=cluster)
        for sample, cluster in zip(identified, clusters, strict=True)
    ]


def _cluster(card: DatasetCard, row: Row) -> str:
    if card.clusters.rule == "annotated":
        if row.cluster is None:
            raise DataError(
                f"{row.where}: no 'cluster'. The card's rule is 'annotated': every row names its "
                'own, such as "cluster": "patient 7". Add the key, or write `clusters: {rule: '
                "image}` on the card."
            )
        return row.cluster
    return row.image_name


Read = TypeVar("Read")


def _read(
    read: Callable[[Path, Reading], Read], path: Path, reading: Reading, *, where: str, kind: str
) -> Read:
    if not path.is_file():
        raise DataError(
            f"{where}: the {kind} {str(path)!r} is missing. Every row needs its {kind}. "
            "Add the file or remove the row."
        )
    try:
        return read(path, reading)
    except DataError as problem:
        raise type(problem)(f"{where}: {problem}") from None


def _with_mask(where: str, sample: Sample, *, size: tuple[int, int]) -> Sample:
    """The sample with how its mask was read; one that cannot be decoded says so."""
    try:
        mask, encoding = _read(look_at_mask, sample.mask, sample.reading, where=where, kind="mask")
    except EncodingError:
        raise
    except DataError:
        if not sample.mask.is_file():
            raise
        return replace(sample, encoding=UNREADABLE)
    if mask.shape != size:
        raise DataError(
            f"{where}: the mask {str(sample.mask)!r} has {mask.shape[0]} x {mask.shape[1]} pixels "
            f"(height x width), its image {size[0]} x {size[1]}. Both must have one size. Export "
            "the mask again."
        )
    return replace(sample, encoding=encoding, is_empty=not mask.any())


def content_hashes(samples: Iterable[Sample]) -> list[tuple[Sample, bytes]]:
    """Each sample with what it shows: its picture by content, the hash of its mask, how it is read.

    The last is left out where it is the released sets' rule.
    """
    samples = list(samples)

    def of_mask(sample: Sample) -> bytes:
        return hashlib.sha256(sample.mask.read_bytes()).digest()

    with ThreadPoolExecutor() as pool:
        masks = pool.map(of_mask, samples)
        return [
            (s, s.image_id.encode() + mask + _rule_bytes(s))
            for s, mask in zip(samples, masks, strict=True)
        ]


def _rule_bytes(sample: Sample) -> bytes:
    return b"" if sample.reading == _ABOVE_HALF else repr(sample.reading).encode()


def fingerprint(samples: Iterable[Sample]) -> str:
    """Hash of what samples show: the pixels of their images and the bytes of their masks.

    A run is continued only on the data it was begun with, read as they were then.
    """
    return digest_of(content_hashes(samples))


def digest_of(shown: Iterable[tuple[Sample, bytes]]) -> str:
    """The fingerprint of samples, from their `content_hashes`."""
    digest = hashlib.sha256()
    for sample, content in shown:
        digest.update(f"{sample.dataset}/{sample.split}/{sample.sample_id}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def _below(folder: Path, name: str, *, where: str) -> Path:
    """The path as the data root has it: a dataset's folder may itself be a link."""
    inside(folder, name, where=where)
    return folder / name


def _split_folder(setting: str | dict[str, str], split: str) -> str:
    if isinstance(setting, str):
        return setting
    return setting[
        choose(split, setting, kind="split", where="layout of the dataset card", error=DataError)
    ]
