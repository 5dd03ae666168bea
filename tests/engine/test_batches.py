"""The usual batch size follows from the model, is stored in the run, and stays there."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.engine.batches import (
    CACHE_BYTES,
    MOST,
    bytes_per_pair,
    decoded,
    fitting,
    usual_batch_size,
)
from harness.model.loading import load_model
from harness.runs.store import RunStore


@given(st.integers(1, 10 * CACHE_BYTES))
def test_a_batch_fills_the_cache_and_no_more(n_bytes):
    size = fitting(n_bytes)
    assert size in (1, 2, 4, 8, 16, 32)
    assert size == 1 or size * n_bytes <= CACHE_BYTES
    assert size == MOST or 2 * size * n_bytes > CACHE_BYTES


def test_a_pair_is_its_features_and_its_mask(toy_card):
    model = load_model(toy_card(input_size=(24, 32)), random_weights=True, device="cpu")
    assert bytes_per_pair(model) == 4 * (8 * 24 * 32 + 8 + 24 * 32)
    assert usual_batch_size(model) == MOST


def test_large_maps_are_decoded_few_at_a_time(toy_card):
    model = load_model(toy_card(input_size=(352, 352)), random_weights=True, device="cpu")
    assert usual_batch_size(model) == 1


@torch.inference_mode()
def paired(model, n):
    """Features of n pairs of other pictures and texts."""
    pixels = torch.rand(n, 3, *model.adapter.input_size, generator=torch.Generator().manual_seed(0))
    texts = [f"{number} polyps" for number in range(n)]
    return model.adapter.encode_images(pixels), model.adapter.encode_texts(texts)


@pytest.mark.parametrize(("n", "sizes"), [(4, [4]), (5, [4, 1]), (13, [4, 4, 4, 1])])
def test_a_batch_beyond_the_cache_is_decoded_in_pieces(toy_card, monkeypatch, n, sizes):
    model = load_model(toy_card(input_size=(24, 32)), random_weights=True, device="cpu")
    pair = paired(model, n)
    with torch.inference_mode():
        whole = decoded(model, *pair)
        monkeypatch.setattr("harness.engine.batches.CACHE_BYTES", 4 * bytes_per_pair(model))
        model.raw.batches.clear()
        assert torch.equal(decoded(model, *pair), whole)
    assert [size for size, _ in model.raw.batches] == sizes


def test_pieces_of_a_transformer_differ_by_its_noise_at_most():
    model = load_model("clipseg-small", random_weights=True, device="cpu")
    with torch.inference_mode():
        pair = paired(model, 27)
        whole, pieces = model.adapter.decode(*pair), decoded(model, *pair)
    assert usual_batch_size(model) < 27
    assert (whole - pieces).abs().max() <= model.card.noise_floor


@torch.inference_mode()
def test_functions_and_compiled_stages_take_all_rows_at_once(toy_card, monkeypatch):
    monkeypatch.setattr("harness.engine.batches.CACHE_BYTES", 1)
    box = load_model(toy_card("box"), random_weights=True, device="cpu")
    decoded(box, *paired(box, 9))
    assert [size for size, _ in box.raw._toy.batches] == [9]
    toy = load_model(toy_card(), random_weights=True, device="cpu", backend="openvino")
    toy.raw.batches.clear()
    assert decoded(toy, *paired(toy, 9)).shape[0] == 9
    assert toy.raw.batches == []


@pytest.fixture
def run(call, toy_card, tmp_path):
    def again(*more, **settings):
        code, _, err = call(
            "run", "empty_prompt", "--datasets", "kvasir_polyp", "--model", toy_card(**settings),
            "--random-weights", "--device", "cpu", "--out", tmp_path / "run", "-q", *more,
        )  # fmt: skip
        return code, err, RunStore(tmp_path / "run").manifest["models"][0]

    return again


def test_a_run_keeps_its_batch_size(run):
    code, _, entry = run("--batch-size", 4)
    assert (code, entry["batch_size"]) == (0, 4)
    code, _, entry = run()  # auto: what the run has
    assert (code, entry["batch_size"]) == (0, 4)
    code, err, _ = run("--batch-size", 8)
    assert code == 2
    assert "was run with batch_size 4, now it is 8" in err


def test_a_halved_batch_is_remembered(run):
    code, err, entry = run(memory=5)
    assert (code, entry["batch_size"], entry["halved_to"]) == (0, 32, 4)
    assert "out of memory: going on with batches of 4." in err
    code, err, entry = run("--fresh", memory=5)
    assert "out of memory" in err


def test_a_continued_run_starts_with_the_halved_batch(run, tmp_path):
    run(memory=5)
    for part in (tmp_path / "run" / "scores").iterdir():
        part.unlink()
    code, err, entry = run(memory=5)
    assert (code, entry["batch_size"], entry["halved_to"]) == (0, 32, 4)
    assert "out of memory" not in err


def test_an_adapter_need_not_be_hashable(toy_card):
    model = load_model(toy_card(), random_weights=True, device="cpu")
    kind = type(model.adapter)
    unhashable = type("Unhashable", (kind,), {"__eq__": lambda self, other: self is other})
    model.adapter.__class__ = unhashable
    with pytest.raises(TypeError):
        hash(model.adapter)
    assert usual_batch_size(model) == usual_batch_size(model) >= 1
