"""The engine counts what the plain loop counts, for the models that ship."""

import polars as pl
import pytest

from harness.engine.local import execute
from harness.model.loading import load_model
from harness.runs.store import RunStore
from tests.engine.plain_loop import COUNTS, plain_scores


@pytest.mark.slow  # quick, with one probe, in test_zoo.py
@pytest.mark.parametrize("name", ["clipseg-small", "image-only-small"])
def test_engine_equals_plain_loop(name, tmp_path, photo_root, planned):
    suite, _, plan = planned("paper", limit=2)
    model = load_model(name, random_weights=True, device="cpu")
    store = RunStore(tmp_path / "run")
    store.open(plan, suite)
    execute(store, model, root=photo_root, metric=suite.metric, batch_size=16)

    plain = plain_scores(plan.cases, model, root=photo_root, metric=suite.metric)

    joined = plain.join(store.scores(), on="case_id", suffix="_engine")
    assert joined.height == plan.cases.height > 100
    for count in COUNTS:
        gap = (joined[count] - joined[f"{count}_engine"]).abs().fill_null(0)
        assert (gap <= joined["n_near"]).all(), count
    # Pixels that may differ are few, so that the equality says something.
    pixels = joined.height * 2 * 160 * 160
    assert joined["n_near"].sum() < 0.01 * pixels
    assert joined.filter(pl.col("n_pred") != pl.col("n_pred_engine")).height <= joined.height // 10
