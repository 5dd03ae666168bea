"""Ten million cases are scored in less than a gibibyte."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from harness.engine.shards import cut, distinct_texts
from harness.files.writing import sunk_parquet
from harness.plan.build import PLAN_SCHEMA, Plan
from harness.runs.store import SCORE_SCHEMA, RunStore

ROOT = Path(__file__).resolve().parents[2]
# Scores a run again; prints the peak memory of the process, in bytes.
PROGRAM = """
import json, resource, sys
from harness.cli import main
try:
    main()
except SystemExit as leaving:
    assert not leaving.code
print(json.dumps(1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))
"""
_PICTURE = ("image", "mask", "image_id", "sample_id", "cluster_id")


def many(plan, n_copies):
    """The plan over and over, each time of other pictures."""
    copies = pl.LazyFrame({"copy": range(n_copies)}, schema={"copy": pl.UInt64})
    moved = pl.col("copy") * 0x9E3779B97F4A7C15  # wraps: ids stay spread over all numbers
    rows = copies.join(plan.scan(), how="cross", maintain_order="left_right").with_columns(
        *(pl.format("{}-{}", name, "copy").alias(name) for name in _PICTURE),
        *(pl.col(name) + moved for name in ("case_id", "original_case_id")),
    )
    table = sunk_parquet(rows.select(PLAN_SCHEMA.names()))
    return Plan(table, plan.not_applicable, plan.sources)


def invent_scores(store, plan, model_id):
    """A part a shard, as a run writes them."""
    rng = np.random.default_rng(0)
    for shard in cut(plan.scan(), distinct_texts(plan.scan())):
        n = shard.cases.height
        tp = rng.integers(40, 144, n)
        known = shard.cases.select(
            "case_id",
            tp=pl.Series(tp),
            n_pred=pl.Series(tp + rng.integers(0, 60, n)),
            n_gt=pl.lit(144),
            tp_original=pl.Series(tp),
            n_pred_original=pl.Series(tp + 30),
            height=pl.lit(32),
            width=pl.lit(32),
            status=pl.lit("done"),
            model_id=pl.lit(model_id),
        )
        rows = known.select(
            (pl.col(name) if name in known.columns else pl.lit(None)).cast(kind).alias(name)
            for name, kind in SCORE_SCHEMA.items()
        )
        store.write_part(model_id, shard.index, rows)


@pytest.mark.slow
def test_ten_million_cases_are_scored_in_a_gibibyte(planned, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda file: None)
    suite, _, plan = planned()
    n_cases = int(os.environ.get("VLSM_TEST_CASES", 10_000_000))
    plan = many(plan, -(-n_cases // plan.n_cases))
    store = RunStore(tmp_path / "run")
    store.open(plan, suite, data_root=str(tmp_path), cluster_kinds={"kvasir_polyp": "image"})
    entry = {"name": "toy", "trained_on": [], "control": False, "threshold": 0.5}
    store.add_model({"model_id": "toy@0", "card": {"name": "toy"}, "notes": [], **entry})
    invent_scores(store, plan, "toy@0")

    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "score", str(store.folder), "--quiet"],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env=os.environ | {"POLARS_MAX_THREADS": "2"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert store.manifest["counts"]["done"] == plan.n_cases >= n_cases
    assert json.loads(done.stdout.splitlines()[-1]) < 1 << 30
