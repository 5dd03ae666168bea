"""The engine counts what the plain loop counts, and encodes everything once."""

import importlib.util
import re

import polars as pl
import pytest
import torch
from torchmetrics.functional.classification import binary_jaccard_index, binary_stat_scores

from harness.engine.counts import area, overlap
from harness.engine.local import execute
from harness.model.loading import load_model
from harness.runs.store import DONE, FAILED, RunStore
from harness.suite.schema import Metric
from tests.engine.plain_loop import COUNTS, plain_scores


@pytest.fixture
def engine(tmp_path, photo_root, planned, toy_card):
    """Runs the paper suite with a toy model; returns store, plan and model."""

    def run(kind="toy", *, suite="paper", batch_size=7, name="run", metric=None, **settings):
        chosen, _, plan = planned(suite)
        model = load_model(toy_card(kind, **settings), random_weights=True, device="cpu")
        store = RunStore(tmp_path / name)
        store.open(plan, chosen)
        execute(
            store, model, root=photo_root, metric=metric or chosen.metric, batch_size=batch_size
        )
        return store, plan, model

    return run


def compare(store, plan, model, root, metric):
    """Plain loop against engine: differing counts need pixels at the threshold."""
    plain = plain_scores(plan.cases, model, root=root, metric=metric)
    joined = plain.join(store.scores(), on="case_id", suffix="_engine")
    assert joined.height == plan.cases.height
    for name in COUNTS:
        gap = (joined[name] - joined[f"{name}_engine"]).abs().fill_null(0)
        assert (gap <= joined["n_near"]).all(), name
        assert (joined[name].is_null() == joined[f"{name}_engine"].is_null()).all()
    return joined


@pytest.mark.parametrize("kind", ["toy", "box"])
@pytest.mark.parametrize("resolution", ["model", "native"])
def test_engine_equals_plain_loop_on_every_probe(engine, photo_root, kind, resolution):
    metric = Metric(resolution=resolution)
    store, plan, model = engine(kind, metric=metric)

    joined = compare(store, plan, model, photo_root, metric)

    # The toy moves with every word, so that equal counts mean something.
    assert joined["n_pred"].n_unique() > 100
    assert joined["n_near"].sum() < 0.001 * joined["n_pred"].sum()


@pytest.mark.parametrize("batch_size", [1, 7])
def test_named_targets_are_counted(engine, photo_root, photo_rows, batch_size):
    """With batches of one, a twin's prompt is decoded before its own original."""
    rows, write = photo_rows
    folder = photo_root / "kvasir_polyp"
    (folder / "masks" / "twin.png").write_bytes((folder / "masks" / "test_0.png").read_bytes())
    size = {"small": "large"}
    prompts = {
        k: v.replace("small", size["small"]) if isinstance(v, str) else v
        for k, v in rows[0]["prompts"].items()
    }
    rows.append(rows[0] | {"mask_name": "twin.png", "prompts": prompts})
    write()

    store, plan, model = engine(suite="antonym_swap", batch_size=batch_size)

    joined = compare(store, plan, model, photo_root, Metric())
    named = plan.cases.filter(pl.col("named_sample_id").is_not_null())
    counted = joined.filter(pl.col("tp_named").is_not_null())
    assert set(counted["case_id"]) == set(named["case_id"])


def test_images_and_texts_are_encoded_once(engine):
    _, plan, model = engine()
    assert model.raw.images_encoded == 6
    assert model.raw.texts_encoded == plan.cases["prompt"].n_unique()
    pairs = plan.cases.select("image", "prompt").n_unique()
    assert model.raw.pairs_decoded == pairs < plan.cases.height


def test_batches_are_full_across_images(engine):
    _, _, model = engine(batch_size=7)
    sizes = [size for size, _ in model.raw.batches]
    assert all(size == 7 for size in sizes[:-1])


def test_an_interrupted_run_meets_the_same_batches(engine, monkeypatch):
    """Shards of 100 cases; the second command finds the first shard done."""
    monkeypatch.setattr("harness.engine.shards.PAIRS_PER_SHARD", 100)
    whole, _, model = engine()
    undisturbed = list(model.raw.batches)
    parts = sorted((whole.folder / "scores").iterdir())
    assert len(parts) > 2
    before = whole.scores()
    parts[1].unlink()

    again, _, model = engine()

    assert again.scores().equals(before)
    assert set(model.raw.batches) < set(undisturbed)


def test_counts_agree_with_torchmetrics():
    generator = torch.Generator().manual_seed(0)
    first, second = torch.rand(2, 5, 9, 11, generator=generator) > 0.5
    stats = binary_stat_scores(first.int(), second.int(), multidim_average="samplewise")
    assert torch.equal(overlap(first, second), stats[:, 0])
    assert torch.equal(area(first), stats[:, 0] + stats[:, 1])
    assert torch.equal(area(second), stats[:, 4])


def test_an_image_that_cannot_be_read_costs_its_own_cases_only(engine, photo_root):
    good, plan, model = engine(name="good")
    expected = good.scores()
    # Spoiled after planning, as a failing disk would.
    (photo_root / "kvasir_polyp" / "images" / "test_2.png").write_bytes(b"no")
    bad = RunStore(good.folder.with_name("bad"))
    bad.open(plan, good.suite())
    execute(bad, model, root=photo_root, metric=Metric(), batch_size=7)

    scores = bad.scores()
    failed = scores.filter(pl.col("status") == FAILED)
    lost = plan.cases.filter(pl.col("sample_id") == "test_2.png")
    assert set(failed["case_id"]) == set(lost["case_id"])
    assert failed["error"].str.contains("test_2.png: the image cannot be decoded").all()
    kept = scores.filter(pl.col("status") == DONE)
    assert kept.equals(expected.filter(pl.col("case_id").is_in(kept["case_id"].implode())))


def test_logits_that_are_not_finite_become_error_rows(engine):
    store, plan, _ = engine(suite="empty_prompt", bad_text="")
    scores = store.scores()
    failed = scores.filter(pl.col("status") == FAILED)
    empty = plan.cases.filter(pl.col("probe") == "empty")
    assert set(failed["case_id"]) == set(empty["case_id"])
    message = "logits for '' are not finite. Every logit must be a finite number. Check the"
    assert failed["error"].str.contains(message, literal=True).all()


def test_without_the_original_there_is_no_agreement(engine):
    bad = "one small pink round polyp, located in top left of the image"
    store, plan, _ = engine(suite="empty_prompt", bad_text=bad)
    case = plan.cases.filter(pl.col("probe") == "empty", pl.col("sample_id") == "test_0.png")
    row = store.scores().filter(pl.col("case_id") == case["case_id"][0]).row(0, named=True)
    assert row["status"] == DONE
    assert row["tp"] is not None
    assert row["tp_original"] is None
    assert row["n_pred_original"] is None


def test_out_of_memory_halves_the_batch_and_goes_on(tmp_path, photo_root, planned, toy_card):
    chosen, _, plan = planned("random_word")
    halved = []
    scores = {}
    for memory in (None, 3):
        card = toy_card(memory=memory)
        model = load_model(card, random_weights=True, device="cpu")
        store = RunStore(tmp_path / f"run{memory}")
        store.open(plan, chosen)
        execute(
            store,
            model,
            root=photo_root,
            metric=chosen.metric,
            batch_size=16,
            halved=halved.append,
        )
        scores[memory] = store.scores().drop("model_id")
    assert halved == [2]
    counts = ["tp", "n_pred"]
    gap = (scores[None].select(counts) - scores[3].select(counts)).select(pl.all().abs().max())
    assert max(gap.row(0)) <= 1


def test_other_errors_of_a_model_are_not_swallowed(engine):
    with pytest.raises(RuntimeError, match=re.escape("a fault of the model")):
        engine(fault="a fault of the model")


def test_iou_agrees_with_torchmetrics_on_the_counts(engine):
    store, _, _ = engine(suite="empty_prompt", metric=Metric(columns=["iou"]))
    scores = store.scores()
    tp, fp, fn = (
        torch.tensor(scores[a].to_numpy()) - (torch.tensor(scores[b].to_numpy()) if b else 0)
        for a, b in (("tp", None), ("n_pred", "tp"), ("n_gt", "tp"))
    )
    for row in range(len(scores)):
        mask = torch.cat([torch.ones(int(n)) for n in (tp[row], fp[row], fn[row])])
        predicted = torch.cat([torch.ones(int(tp[row] + fp[row])), torch.zeros(int(fn[row]))])
        truth = mask.clone()
        truth[int(tp[row]) : int(tp[row] + fp[row])] = 0
        expected = binary_jaccard_index(predicted, truth.int())
        assert scores["iou"][row] == pytest.approx(float(expected))
    assert scores["hausdorff_px"].is_null().all()


def test_distances_between_contours_are_those_of_the_masks(engine):
    """Where a mask is empty there is no distance; its figures are not left out unseen."""
    names = ["hausdorff", "hd95", "nsd"]
    sets = ("kvasir_polyp", "camus", "twins", "d")
    metric = Metric(columns=names, tolerance_px=dict.fromkeys(sets, 2.0))
    store, _, _ = engine(suite="empty_prompt", metric=metric)
    scores = store.scores()
    both = (pl.col("n_pred") > 0) & (pl.col("n_gt") > 0)
    whole, lacking = scores.filter(both), scores.filter(~both)
    assert whole.height > 0
    assert (whole["hausdorff_px"] >= whole["hd95_px"]).all()
    assert (whole["hausdorff_px"] > 0).all()
    assert whole["nsd"].is_between(0, 1).all()
    assert lacking["hausdorff_px"].is_nan().all()
    assert scores["iou"].is_null().all()


@pytest.mark.parametrize("name", ["phantom-clipseg-crowd", "phantom-biomedclipseg-crowd"])
def test_openvino_counts_what_torch_counts(tmp_path, planned, photo_root, name):
    """But for pixels within the card's noise floor of the threshold, in the models that ship."""
    if importlib.util.find_spec("openvino") is None:
        pytest.skip("the extra 'openvino' is not installed")
    suite, _, plan = planned("empty_prompt")
    theirs, mine = (load_model(name, device="cpu", backend=b) for b in ("torch", "openvino"))
    assert set(mine.stages.values()) == {"openvino"}
    store = RunStore(tmp_path / "run")
    store.open(plan, suite)
    execute(store, mine, root=photo_root, metric=suite.metric, batch_size=8)
    joined = compare(store, plan, theirs, photo_root, suite.metric)
    assert joined["n_pred"].sum() > 1000
    assert joined["n_near"].sum() < 0.001 * joined["n_pred"].sum()


def test_no_more_images_are_encoded_at_once_than_pairs_are_decoded(
    tmp_path, planned, photo_root, toy_card, monkeypatch
):
    """Where memory is short for a few pairs, it is for many images."""
    chosen, _, plan = planned("empty_prompt")
    model, seen = load_model(toy_card(), random_weights=True, device="cpu"), []
    real = model.adapter.encode_images
    monkeypatch.setattr(
        model.adapter, "encode_images", lambda pixels: seen.append(len(pixels)) or real(pixels)
    )
    store = RunStore(tmp_path / "run")
    store.open(plan, chosen)
    execute(store, model, root=photo_root, metric=chosen.metric, batch_size=4)
    assert max(seen) == 4
