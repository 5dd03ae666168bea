"""Writes run directories of millions of cases, without any frame that holds them all."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from harness.files.writing import parquet_bytes, write_parquet
from harness.plan.build import NOT_APPLICABLE_SCHEMA, PLAN_SCHEMA
from harness.runs.store import SCORE_SCHEMA, RunStore

MODEL = "big@000000000001"


@dataclass(frozen=True)
class Layout:
    """`cells` variants' cells a cluster, each with so many words (0: none) and repeats."""

    datasets: int
    clusters: int
    cells: int
    words: int
    repeats: int

    @property
    def variants(self):
        """Cases of one cluster."""
        return 1 + self.cells * max(self.words, 1) * self.repeats


def write_run(folder: Path, layout: Layout, *, suite: str, seed: int = 0, rows: int = 400_000):
    """A complete run directory of one model; returns its number of cases."""
    (folder / "pieces").mkdir(parents=True)
    store = RunStore(folder)
    rng = np.random.default_rng(seed)
    step = max(1, rows // layout.variants)
    places = [(d, s) for d in range(layout.datasets) for s in range(0, layout.clusters, step)]
    for number, (dataset, start) in enumerate(places):
        clusters = np.arange(start, min(start + step, layout.clusters))
        plan, scores = _piece(layout, dataset, clusters, rng)
        write_parquet(folder / "pieces" / f"{number:05d}.parquet", plan)
        store.write_part(MODEL, number, scores)
    pieces = folder / "pieces"
    pl.scan_parquet(pieces / "*.parquet").sink_parquet(folder / "plan.parquet", compression="zstd")
    for piece in pieces.iterdir():
        piece.unlink()
    pieces.rmdir()
    nothing = parquet_bytes(pl.DataFrame(schema=NOT_APPLICABLE_SCHEMA))
    store.ledger.write({"plan.parquet": (folder / "plan.parquet").read_bytes()})
    store.ledger.write({"not_applicable.parquet": nothing, "suite.lock.yaml": suite.encode()})
    entry = {"model_id": MODEL, "name": "big", "trained_on": [], "control": False, "threshold": 0.5}
    store.update(models=[entry], cluster_kinds={}, plan_sha256="0")
    return layout.datasets * layout.clusters * layout.variants


def _piece(layout, dataset, clusters, rng):
    n, width = len(clusters), layout.variants
    case = (dataset * layout.clusters + clusters[:, None]) * width + np.arange(width)
    ids = _mixed(case.ravel())
    variant = np.tile(np.arange(width), n)
    cell = (variant - 1) // (max(layout.words, 1) * layout.repeats)
    inside = (variant - 1) % (max(layout.words, 1) * layout.repeats)
    word = inside // layout.repeats
    names = pl.Series([f"patient{c:06d}" for c in clusters]).gather(np.repeat(np.arange(n), width))
    original = variant == 0
    frame = pl.DataFrame(
        {
            "case_id": ids,
            "original_case_id": np.repeat(ids[::width], width),
            "sample_id": names,
            "image": names + ".png",
            "mask": names + ".png",
            "image_id": f"d{dataset}-" + names,
            "cluster_id": names,
            "cell": np.where(original, -1, cell),
            "repeat": np.where(original, 0, inside % layout.repeats).astype(np.int16),
            "word": np.where(original | (layout.words == 0), -1, word),
        }
    )
    is_original = pl.col("cell") < 0
    attribute = pl.format("attribute{}", pl.col("cell") % 15)
    plan = frame.select(
        "case_id", "original_case_id", "sample_id", "image", "mask", "image_id", "cluster_id",
        "repeat",
        dataset=pl.lit(f"data{dataset}"), split=pl.lit("test"), prompts=pl.lit("released"),
        prompt_type=pl.lit("p6"), variant_type=pl.lit("p6"), prompt_index=pl.lit(0, pl.Int16),
        probe=pl.when(is_original).then(pl.lit("original"))
        .otherwise(pl.format("probe{}", pl.col("cell") // 15)),
        perturbation=pl.when(is_original).then(pl.lit("original")).otherwise(pl.lit("antonym")),
        meaning=pl.when(is_original).then(pl.lit("original")).otherwise(pl.lit("changed")),
        expected_mask=pl.lit("own"),
        attribute=pl.when(~is_original).then(attribute),
        word=pl.when(pl.col("word") >= 0).then(pl.format("word{}", pl.col("word"))),
        prompt=pl.format("one small white polyp {}", pl.col("cell")),
        original_prompt=pl.lit("one small white polyp"), edits=pl.lit("[]"),
        named_sample_id=pl.lit(None, pl.String),
    ).select(PLAN_SCHEMA.names()).cast(PLAN_SCHEMA)  # fmt: skip
    return plan, _scores(ids, np.repeat(np.arange(n), width), original, cell, rng)


def _mixed(case):
    """Distinct ids that are not in order, as hashes are (splitmix64 is one to one)."""
    z = case.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    with np.errstate(over="ignore"):
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _scores(ids, owner, original, cell, rng):
    truth = rng.integers(200, 1000, owner.max() + 1)[owner]
    hit = rng.beta(6, 2, owner.max() + 1)[owner]
    moved = np.where(original, 0, rng.exponential(0.02 + 0.001 * cell.clip(0), len(ids)).clip(0, 1))
    tp = (truth * hit * (1 - moved)).astype(np.int64)
    pred = (truth * hit).astype(np.int64) + 20
    return pl.DataFrame(
        {
            "model_id": pl.Series([MODEL]).new_from_index(0, len(ids)),
            "case_id": ids, "tp": tp, "n_pred": pred, "n_gt": truth,
            "tp_original": (pred * (1 - moved)).astype(np.int64), "n_pred_original": pred,
            "height": np.full(len(ids), 64), "width": np.full(len(ids), 64),
            "status": pl.Series(["done"]).new_from_index(0, len(ids)),
        }
    ).with_columns(
        pl.lit(None).alias(c)
        for c in ("tp_named", "n_named", "error", "iou", "hausdorff_px", "hd95_px", "nsd")
    ).select(SCORE_SCHEMA.names()).cast(SCORE_SCHEMA)  # fmt: skip
