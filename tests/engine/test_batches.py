"""The usual batch size follows from the model, is stored in the run, and stays there."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.engine.batches import CACHE_BYTES, MOST, bytes_per_pair, fitting, usual_batch_size
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
