"""The masks that a run keeps are those of its worst and steadiest cases, however it was run."""

import numpy as np
import polars as pl
import pytest
import torch

from harness.data.images import read_mask
from harness.engine.local import execute
from harness.engine.mask_selector import RIGHT, MaskSelector
from harness.metrics import dice
from harness.model.loading import load_model
from harness.runs.kept_masks import (
    GROUP,
    STEADY,
    WORST,
    Selection,
    mask_paths,
    read_saved_masks,
)
from harness.runs.store import RunStore
from harness.suite.schema import Metric

K = 2


@pytest.fixture
def keeping(tmp_path, photo_root, planned, toy_card):
    """Runs the paper suite with the toy model, masks kept."""

    def run(name, *, metric=None, kept_masks=K, batch_size=7):
        chosen, _, plan = planned("paper")
        model = load_model(toy_card("toy"), random_weights=True, device="cpu")
        store = RunStore(tmp_path / name)
        store.open(plan, chosen)
        execute(
            store, model, root=photo_root, metric=metric or chosen.metric, batch_size=batch_size,
            kept_masks=kept_masks,
        )  # fmt: skip
        return store, model.model_id

    return run


def scored(store):
    """Every variant with its Dice, its original's and their agreement."""
    counts = store.scores()
    figures = counts.select(
        "case_id",
        pl.Series("dice", dice(*(counts[c] for c in ("tp", "n_pred", "n_gt")), empty=1.0)),
        pl.Series(
            "agreement",
            dice(*(counts[c] for c in ("tp_original", "n_pred", "n_pred_original")), empty=1.0),
        ),
        "n_pred_original",
    )
    originals = figures.select(original_case_id="case_id", before="dice")
    joined = store.plan_cases().join(figures, on="case_id").join(originals, on="original_case_id")
    return joined.filter(pl.col("probe") != "original", pl.col("n_pred_original") > 0)


def expected(rows, score, kind):
    """The definition, by sorting everything."""
    keys = [pl.col(c) for c in GROUP]
    ranked = rows.with_columns(score=score).sort("score", "case_id", descending=[True, False])
    best = ranked.unique([*GROUP, "sample_id"], keep="first", maintain_order=True)
    first = best.group_by(keys, maintain_order=True).head(K)
    return {(kind, row) for row in first.select("case_id").to_series()}


@pytest.mark.parametrize("resolution", ["model", "native"])
def test_the_kept_cases_are_the_worst_and_the_steadiest(keeping, resolution):
    store, model_id = keeping("run", metric=Metric(resolution=resolution))
    found = read_saved_masks(store.folder, model_id)
    rows = scored(store)
    worst = expected(rows, pl.col("before") - pl.col("dice"), WORST)
    right = rows.filter(pl.col("before") >= RIGHT)
    steady = expected(right, pl.col("agreement"), STEADY)
    assert {(k.kind, k.case_id) for k in found} == worst | steady
    assert len(worst) > 10


@pytest.mark.parametrize("resolution", ["model", "native"])
def test_the_pictures_hold_the_pixels_that_were_counted(keeping, resolution):
    store, model_id = keeping("run", metric=Metric(resolution=resolution))
    counts = {row["case_id"]: row for row in store.scores().iter_rows(named=True)}
    found = read_saved_masks(store.folder, model_id)
    assert found
    for kept in found:
        row = counts[kept.case_id]
        variant, original, truth = map(read_mask, mask_paths(store.folder, model_id, kept))
        assert variant.shape == (row["height"], row["width"])
        assert (variant.sum(), truth.sum()) == (row["n_pred"], row["n_gt"])
        assert (variant & truth).sum() == row["tp"]
        assert original.sum() == row["n_pred_original"]
        assert (variant & original).sum() == row["tp_original"]


def test_interruption_and_batch_size_change_nothing(keeping, monkeypatch):
    whole, model_id = keeping("whole")
    monkeypatch.setattr("harness.engine.shards.PAIRS_PER_SHARD", 100)
    parts, _ = keeping("parts", batch_size=3)
    files = sorted((parts.folder / "scores").iterdir())
    assert len(files) > 2
    for lost in files[1:]:
        lost.unlink()

    again, _ = keeping("parts", batch_size=3)

    assert read_saved_masks(again.folder, model_id) == read_saved_masks(whole.folder, model_id)
    names = {p.name for p in (whole.folder / "masks" / model_id).iterdir()}
    assert {p.name for p in (again.folder / "masks" / model_id).iterdir()} == names


def test_nothing_is_kept_where_nothing_is_wanted(keeping):
    store, _ = keeping("run", kept_masks=0)
    assert not (store.folder / "masks").exists()


def test_a_case_whose_original_paints_nothing_is_not_kept():
    """There is nothing to lose and nothing to be steady in, also where nothing is right."""
    group = dict.fromkeys(GROUP, "x")
    cases = pl.DataFrame(
        [
            {**group, "probe": probe, "sample_id": "s", "case_id": k, "original_case_id": 0}
            for k, probe in enumerate(("original", "edit"))
        ],
        schema_overrides={"case_id": pl.UInt64, "original_case_id": pl.UInt64},
    )
    nothing = torch.zeros(1, 4, 4, dtype=torch.bool)
    for n_original, kept in ((0, []), (1, [STEADY, WORST])):
        selector = MaskSelector(cases, Selection(2))
        counts = np.array([[0, n_original, 0, 0, n_original, -1, -1]] * 2)
        counts[0, 0] = counts[0, 2] = counts[1, 2] = n_original
        selector.take([1], counts, (nothing, nothing, nothing))
        assert sorted(k.kind for k in selector.kept()) == kept
