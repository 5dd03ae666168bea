"""Cuts a plan into shards: the unit of work, of storage and of resume.

Conventions: a shard holds whole image groups, in the order of the plan. Which
images, texts and pairs it holds, and so the content of every batch, depends on the
plan alone: not on what was done before, on what fails, or on who does it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np
import polars as pl
from numpy.typing import NDArray

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


def distinct_texts(cases: pl.DataFrame) -> list[str]:
    """Every text of a plan once, in the order in which the engine meets them."""
    return cases["prompt"].unique(maintain_order=True).to_list()


def image_groups(cases: pl.DataFrame) -> pl.DataFrame:
    """The cases with a column `group`, sorted so that each image stands together.

    One picture may be planned under several datasets or splits; groups follow the
    picture's path.
    """
    order = cases.select(pl.col("image").unique(maintain_order=True)).with_row_index("group")
    return cases.join(order, on="image", how="left", maintain_order="left").sort(
        "group", maintain_order=True
    )


def cut(
    cases: pl.DataFrame, texts: Sequence[str], readings: Readings = MappingProxyType({})
) -> Iterator[Shard]:
    """Shards of about `PAIRS_PER_SHARD` cases, at most `IMAGES_PER_SHARD` images, in order."""
    grouped = image_groups(cases)
    sizes = grouped.group_by("group", maintain_order=True).len()["len"].to_numpy()
    text_index = pl.DataFrame(
        {"prompt": texts, "text": np.arange(len(texts), dtype=np.int64)},
        schema={"prompt": pl.String, "text": pl.Int64},
    )
    grouped = grouped.join(text_index, on="prompt", how="left", maintain_order="left")
    start = first_group = shard = 0
    filled = 0
    for group, size in enumerate(sizes):
        filled += int(size)
        is_full = filled >= PAIRS_PER_SHARD or group + 1 - first_group >= IMAGES_PER_SHARD
        if is_full or group == len(sizes) - 1:
            rows = grouped.slice(start, filled)
            yield replace(_shard(shard, rows, first_group), readings=dict(readings))
            start, first_group, shard, filled = start + filled, group + 1, shard + 1, 0


def _shard(index: int, rows: pl.DataFrame, first_group: int) -> Shard:
    keyed = rows.with_columns(
        image_index=pl.col("group").cast(pl.Int64) - first_group,
        is_variant=pl.col("probe") != "original",
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
        cases=rows.drop("group", "text"),
        images=tuple(rows["image"].unique(maintain_order=True).to_list()),
        pairs=pairs.select("image_index", "text").to_numpy().astype(np.int64),
        pair_of_case=pair_of_case,
        original_pair=np.asarray(originals, dtype=np.int64),
    )
