"""The plan and the scores of a run as numbers: small columns instead of long texts.

Conventions: a *plan cell* is one row of the summary without its model: dataset, split, prompts,
prompt type, probe, attribute; it, samples, clusters and words are numbered in the order of
their names, 0 is "no word". A *unit* is what the bootstrap resamples: a cluster, or a pool
of clusters where a set has more than `MOST_UNITS`. Cases are kept as Parquet in memory, some 15
bytes each, and read in ranges of case ids: these are hashes, so that ranges are of equal size.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from harness.errors import RunError
from harness.files.writing import joined_parquet, parquet_bytes, sunk_parquet
from harness.plan.repeats import answer_step

PLAN_KEYS = ("dataset", "split", "prompts", "prompt_type", "probe", "attribute")
MOST_UNITS = 1024
"""Clusters of one set that are resampled one by one.

A pool of clusters is as independent of the others as a cluster is, and as good a unit: what
is lost is degrees of freedom above a thousand, about 2 % of an interval's width at random.
"""

_ROWS = 500_000
"""Cases that are coded, and put beside their scores, at once."""

_SAMPLE_KEYS = ("dataset", "split", "sample_id")
_CLUSTER_KEYS = ("dataset", "split", "cluster_id")
_TEXTS = (
    *PLAN_KEYS,
    *("sample_id", "cluster_id", "image_id", "word", "perturbation", "meaning", "expected_mask"),
)
_COUNTS = ("tp", "n_pred", "n_gt", "tp_original", "n_pred_original", "tp_named", "n_named")
WANTED = ("undefined", "own", "named", "empty")
"""Which mask is right, by the number that stands for it."""

_WANTS = {name: number for number, name in enumerate(WANTED)}


@dataclass(frozen=True, slots=True)
class CodedPlan:
    """A plan in numbers, and what they stand for."""

    # One row a case, in any order: ``case_id, original_case_id, plan_cell, sample, cluster, word,
    # prompt_index, repeat, wants`` (a place in `WANTED`).
    parquet: bytes
    # ``plan_cell``, `PLAN_KEYS`, ``perturbation, meaning, expected_mask, n_cases``.
    cells: pl.DataFrame
    clusters: pl.DataFrame  # ``cluster, dataset, split, cluster_id, n_cases, unit``, in order
    units: pl.DataFrame  # name of each unit, in order, with ``dataset`` and ``split``
    words: tuple[str, ...]  # text of each word number
    images: pl.DataFrame  # ``sample`` and ``image_id``
    has_answers: bool  # whether a case has several

    def scan(self) -> pl.LazyFrame:
        """The cases."""
        return pl.scan_parquet(io.BytesIO(self.parquet))

    def ranges(self) -> list[pl.Expr]:
        """What chooses about `_ROWS` cases, or their scores; together all of them."""
        n = max(1, -(-int(self.cells["n_cases"].sum()) // _ROWS))
        width = pl.lit(((1 << 64) - 1) // n, pl.UInt64)
        own = (pl.col("case_id") // width).clip(upper_bound=n - 1)
        return [own == k for k in range(n)]


def code_plan(plan: pl.DataFrame | pl.LazyFrame, *, most_units: int = MOST_UNITS) -> CodedPlan:
    """Number everything that a plan names.

    A set of more than `most_units` clusters has them pooled.
    """
    scan = plan.lazy().with_columns(pl.col(_TEXTS).cast(pl.Categorical))
    cells = _cells(scan)
    samples = _numbered(scan, [*_SAMPLE_KEYS], "sample", beside=pl.col("image_id").first())
    in_clusters = _numbered(scan, [*_CLUSTER_KEYS], "cluster", beside=pl.len().alias("n_cases"))
    clusters, units = _with_units(in_clusters, most_units)
    words = _numbered(scan.filter(pl.col("word").is_not_null()), ["word"], "word_number", start=1)
    tables = [
        (cells, PLAN_KEYS, "plan_cell"),
        (samples, _SAMPLE_KEYS, "sample"),
        (clusters, _CLUSTER_KEYS, "cluster"),
        (words, ("word",), "word_number"),
    ]
    n_cases = int(cells["n_cases"].sum())
    # A streaming join would hold all rows at once.
    slices = (scan.slice(start, _ROWS) for start in range(0, n_cases, _ROWS))
    parts = [parquet_bytes(_coded(rows, tables)) for rows in slices]
    return CodedPlan(
        parquet=joined_parquet(parts),
        cells=cells,
        clusters=clusters,
        units=units,
        words=("", *words["word"]),
        images=samples.select("sample", "image_id"),
        has_answers=answer_step(plan) is not None,
    )


def _cells(scan: pl.LazyFrame) -> pl.DataFrame:
    found = (
        scan.group_by(PLAN_KEYS)
        .agg(
            pl.col("perturbation", "meaning").drop_nulls().first(),
            pl.col("expected_mask").unique(),
            n_cases=pl.len().cast(pl.Int64),
        )
        .collect(engine="streaming")
    )
    texts = pl.col(*PLAN_KEYS, "perturbation", "meaning").cast(pl.String)
    masks = pl.col("expected_mask").cast(pl.List(pl.String)).list.sort().list.join("+")
    return (
        found.with_columns(texts, masks)
        .sort(PLAN_KEYS, nulls_last=False)
        .with_row_index("plan_cell")
    )


def _numbered(
    scan: pl.LazyFrame,
    keys: Sequence[str],
    name: str,
    *,
    beside: pl.Expr | None = None,
    start: int = 0,
) -> pl.DataFrame:
    """Distinct keys, numbered in their order."""
    extra = [] if beside is None else [beside]
    found = scan.group_by(keys).agg(*extra).collect(engine="streaming")
    return (
        found.with_columns(pl.selectors.categorical().cast(pl.String))
        .sort(keys)
        .with_row_index(name, offset=start)
    )


def _coded(
    scan: pl.LazyFrame, tables: Sequence[tuple[pl.DataFrame, Sequence[str], str]]
) -> pl.DataFrame:
    """A slice of the plan, its texts replaced by their numbers."""
    for table, keys, number in tables:
        codes = table.lazy().select(
            pl.col(*keys).cast(pl.Categorical), pl.col(number).cast(pl.UInt32)
        )
        scan = scan.join(codes, on=keys, how="left", nulls_equal=True)
    return scan.select(
        *("case_id", "original_case_id", "plan_cell", "sample", "cluster"),
        pl.col("word_number").fill_null(0).cast(pl.UInt16).alias("word"),
        pl.col("prompt_index", "repeat").cast(pl.Int16),
        wants=pl.col("expected_mask")
        .cast(pl.String)
        .replace_strict(_WANTS, default=0)
        .cast(pl.Int8),
    ).collect()


def _with_units(clusters: pl.DataFrame, most: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Clusters with the unit each belongs to, and the units."""
    parts: list[pl.DataFrame] = []
    names: list[tuple[object, object, str]] = []
    for (dataset, split), rows in clusters.group_by("dataset", "split", maintain_order=True):
        pool = np.arange(rows.height)
        texts = rows["cluster_id"].to_list()
        if rows.height > most:
            # A fixed shuffle: pools depend on the names in the set and on nothing else.
            pool = np.random.default_rng(0).permutation(rows.height) % most
            texts = [f"pool {number} of {most}" for number in range(most)]
        parts.append(rows.with_columns(unit=pl.Series(pool + len(names), dtype=pl.UInt32)))
        names += [(dataset, split, text) for text in texts]
    schema = {"dataset": pl.String, "split": pl.String, "name": pl.String}
    units = pl.DataFrame(names, schema=schema, orient="row").with_row_index("unit")
    return pl.concat(parts).sort("cluster"), units


def code_scores(scores: pl.DataFrame | pl.LazyFrame, model_id: str) -> bytes:
    """One model's scores with small columns.

    It is Parquet: ``case_id``, the counts (null unless the case was done), ``pixels``, ``failed``.
    """
    done = pl.col("status") == "done"
    return sunk_parquet(
        scores.lazy()
        .filter(pl.col("model_id") == model_id)
        .select(
            "case_id",
            *(pl.when(done).then(pl.col(c)).cast(pl.UInt32).alias(c) for c in _COUNTS),
            (pl.col("height").cast(pl.UInt32) * pl.col("width").cast(pl.UInt32)).alias("pixels"),
            (~done).alias("failed"),
        )
    )


def refuse_doubled(scores: pl.DataFrame) -> None:
    """Each case of a model has one score.

    Raises:
        RunError: A case has two.
    """
    doubled = scores.height - scores["case_id"].n_unique()
    if doubled:
        raise RunError(
            f"scores: {doubled} cases are scored twice for one model. A case has one score. "
            "Merge the parts before averaging (harness.runs.store does)."
        )
