"""Counts at other thresholds: what binarising at each of them would count."""

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.engine.local import execute
from harness.engine.thresholds import histograms, with_presence
from harness.model.features import binarise
from harness.model.loading import load_model
from harness.runs.store import THRESHOLDS, RunStore
from harness.suite.schema import Metric

shapes = hnp.array_shapes(min_dims=3, max_dims=3, max_side=5)
floats = st.floats(-8, 8, width=32) | st.just(0.0)


@given(
    shapes.flatmap(
        lambda s: st.tuples(hnp.arrays(np.float32, s, elements=floats), hnp.arrays(bool, s))
    )
)
def test_histograms_agree_with_one_mask_a_threshold(pair):
    logits, truths = map(torch.from_numpy, pair)
    found = histograms(logits, truths)
    for place, threshold in enumerate(THRESHOLDS):
        masks = binarise(logits, threshold)
        assert found[:, 0, place].tolist() == masks.sum(dim=(1, 2)).tolist()
        assert found[:, 1, place].tolist() == (masks & truths).sum(dim=(1, 2)).tolist()


def test_a_presence_score_empties_the_mask_above_it():
    logits, truths = torch.full((2, 3, 3), 4.0), torch.ones(2, 3, 3, dtype=torch.bool)
    found = histograms(with_presence(logits, torch.tensor([0.32, 1.0])), truths)
    assert (found[0, 0] > 0).tolist() == [t < 0.32 for t in THRESHOLDS]
    assert (found[1, 0] == 9).all()


@pytest.fixture
def counted(tmp_path, photo_root, planned, toy_card):
    """A function that runs a toy and gives the store."""

    def run(*, kept, resolution="model", spoil=None, **settings):
        chosen, _, plan = planned("antonym_swap")
        if spoil is not None:
            spoil.write_bytes(b"no picture")
        model = load_model(toy_card(**settings), random_weights=True, device="cpu")
        store = RunStore(tmp_path / f"{kept}-{resolution}")
        store.open(plan, chosen)
        if kept:
            store.update(models=[{"model_id": model.model_id, "thresholds": "kept"}])
        execute(store, model, root=photo_root, metric=Metric(resolution=resolution), batch_size=7)
        return store

    return run


@pytest.mark.parametrize("resolution", ["model", "native"])
def test_every_case_has_its_curve_and_scores_stay_as_they_are(counted, resolution):
    plain, curved = (counted(kept=kept, resolution=resolution) for kept in (False, True))
    assert plain.curves() is None
    assert plain.scores().equals(curved.scores())
    curves = curved.curves().collect()
    joined = curved.scores().join(curves, on=["model_id", "case_id"], suffix="_at")
    assert joined.height == plain.scores().height
    at = THRESHOLDS.index(0.6)  # the toy's own
    assert joined["n_pred_at"].list.get(at).to_list() == joined["n_pred"].to_list()
    assert joined["tp_at"].list.get(at).to_list() == joined["tp"].to_list()
    falls = joined["n_pred_at"].list.diff().list.max()
    assert (falls.fill_null(0) <= 0).all()


def test_a_case_without_a_picture_has_no_curve(counted, photo_root):
    picture = photo_root / "kvasir_polyp" / "images" / "test_1.png"
    store = counted(kept=True, spoil=picture)
    done = store.scores().filter(status="done")
    assert 0 < done.height < store.scores().height
    assert set(store.curves().collect()["case_id"]) == set(done["case_id"])
