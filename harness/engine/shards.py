"""Cuts a plan into shards: the unit of work, of storage and of resume.

Conventions: a shard holds whole image groups, in the order of the plan. Which
images, texts and pairs it holds, and so the content of every batch, depends on the
plan alone: not on what was done before, on what fails, or on who does it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType

import numpy as np
import polars as pl
from numpy.typing import NDArray

from harness.files.writing import ROW_GROUP
from harness.records import BY_CONTENT, Reading, Readings

# Enough pairs that the last, partly filled batch of a shard costs little; few enough that
# a killed process loses seconds (CLIPSeg on a CPU: about 15 s).
PAIRS_PER_SHARD = 1024
# A suite with few prompts an image must not hold a thousand pictures at once.
IMAGES_PER_SHARD = 64


@dataclass(frozen=True)
class Shard:
    """Whole image groups of a plan, and the distinct (image, text) pairs in them.

    `pairs` holds, per pair, the index of its image in `images` and of its text in
    the plan's list of texts, ``(P, 2)`` int64, the original prompts of an image
    before its variants. `pair_of_case` and `original_pair` point from the rows of
    `cases` into `pairs`: equal texts of several cases share one evaluation. `readings` says how
    each dataset's files are read.
    """

    index: int
    cases: pl.DataFrame
    images: tuple[str, ...]
    pairs: NDArray[np.int64]
    pair_of_case: NDArray[np.int64]
    original_pair: NDArray[np.int64]
    readings: Readings = field(default_factory=dict)

    def reading(self, dataset: str) -> Reading:
        """How the files of a dataset are read."""
        return self.readings.get(dataset, BY_CONTENT)

    def named_masks(self) -> dict[int, tuple[str, str]]:
        """Case -> data set and mask of the target that it names, where the plan has one.

        A named target is a sample of the same image, so its mask is in the shard.
        """
        key = ["dataset", "split", "sample_id"]
        masks = {r[:3]: (r[0], r[3]) for r in self.cases.select(*key, "mask").unique().iter_rows()}
        named = self.cases.select("dataset", "split", "named_sample_id").iter_rows()
        return {case: masks[target] for case, target in enumerate(named) if target in masks}


def distinct_texts(cases: pl.DataFrame | pl.LazyFrame) -> list[str]:
    """Every text of a plan once, in the order in which the engine meets them."""
    texts = cases.lazy().select("prompt").unique(maintain_order=True)
    return texts.collect(engine="streaming")["prompt"].to_list()


def cut(
    cases: pl.DataFrame | pl.LazyFrame,
    texts: Sequence[str],
    readings: Readings = MappingProxyType({}),
) -> Iterator[Shard]:
    """Shards of about `PAIRS_PER_SHARD` cases, at most `IMAGES_PER_SHARD` images, in order.

    Only the rows near a shard are read, so that a plan need not fit into memory.
    """
    places = {text: place for place, text in enumerate(texts)}
    rows = _reader(cases.lazy())
    for index, ranges in enumerate(_in_shards(_image_ranges(cases.lazy()))):
        own = pl.concat([rows(start, size) for start, size in ranges])
        yield _shard(index, own, places, readings)


Range = tuple[int, int]
"""Where rows of a plan begin, and how many there are."""


def _image_ranges(cases: pl.LazyFrame) -> Iterator[list[Range]]:
    """The rows of each image, in the order of the images.

    One picture may be planned under several datasets or splits, and has several ranges then.
    """
    runs = cases.select(pl.col("image").cast(pl.Categorical).rle()).unnest("image")
    starts = pl.col("len").cum_sum() - pl.col("len")
    by_image = runs.with_columns(start=starts).group_by("value", maintain_order=True)
    for starts, sizes in by_image.agg("start", "len").drop("value").collect().iter_rows():
        yield list(zip(starts, sizes, strict=True))


def _in_shards(images: Iterator[list[Range]]) -> Iterator[list[Range]]:
    """The ranges of each shard; those that adjoin are one."""
    ranges: list[Range] = []
    n_images = n_cases = 0
    for own in images:
        for start, size in own:
            if ranges and sum(ranges[-1]) == start:
                start, size = ranges[-1][0], ranges.pop()[1] + size
            ranges.append((start, size))
        n_images, n_cases = n_images + 1, n_cases + sum(size for _, size in own)
        if n_cases >= PAIRS_PER_SHARD or n_images >= IMAGES_PER_SHARD:
            yield ranges
            ranges, n_images, n_cases = [], 0, 0
    if ranges:
        yield ranges


def _reader(cases: pl.LazyFrame) -> Callable[[int, int], pl.DataFrame]:
    """Reads rows of a plan; what was read last is kept, since the next rows stand beside it."""

    @lru_cache(maxsize=2)
    def group(number: int) -> pl.DataFrame:
        return cases.slice(number * ROW_GROUP, ROW_GROUP).collect()

    def rows(start: int, size: int) -> pl.DataFrame:
        first, last = start // ROW_GROUP, (start + size - 1) // ROW_GROUP
        groups = pl.concat([group(number) for number in range(first, last + 1)])
        return groups.slice(start - first * ROW_GROUP, size)

    return rows


def _shard(index: int, rows: pl.DataFrame, places: Mapping[str, int], readings: Readings) -> Shard:
    texts = [places[text] for text in rows["prompt"].to_list()]
    keyed = rows.with_columns(
        image_index=pl.col("image").rle_id().cast(pl.Int64),
        is_variant=pl.col("probe") != "original",
        text=pl.Series(texts, dtype=pl.Int64),
    )
    pairs = (
        keyed.sort("image_index", "is_variant", maintain_order=True)
        .select("image_index", "text")
        .unique(maintain_order=True)
        .with_row_index("pair")
    )
    keyed = keyed.join(pairs, on=["image_index", "text"], how="left", maintain_order="left")
    pair_of_case = keyed["pair"].to_numpy().astype(np.int64)
    by_id = dict(zip(keyed["case_id"].to_list(), pair_of_case.tolist(), strict=True))
    originals = [by_id[case] for case in keyed["original_case_id"].to_list()]
    return Shard(
        index=index,
        cases=rows,
        images=tuple(rows["image"].unique(maintain_order=True).to_list()),
        pairs=pairs.select("image_index", "text").to_numpy().astype(np.int64),
        pair_of_case=pair_of_case,
        original_pair=np.asarray(originals, dtype=np.int64),
        readings=dict(readings),
    )
