"""The full-size models on a GPU; without one, that the script would say what it measures."""

import sys

import polars as pl
import pytest
import torch

needs_gpu = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="torch sees no CUDA device on this machine"
)
FULL_SIZE = ("clipseg", "cris", "biomedclipseg", "biomedclipseg-d")


def test_the_page_says_what_was_measured(script, toy_card):
    """On this machine's processor, with a toy model."""
    gpu = script("gpu")
    card = toy_card()
    found = gpu.measure([card], device="cpu", n_images=2, n_prompts=3, batch_size=4, blocks=1)
    logits = gpu.Agreement("toy", 1e-6, 1e-5, 2e-6, 0.01)
    counts = pl.DataFrame({"name": ["toy"], "n_cases": [1234], "n_other": [5], "max_dice": [0.25]})
    lines = gpu.page(found, [logits], counts).splitlines()
    rows = [line.split(" | ") for line in lines if line.startswith("| toy-random0")]

    assert [row[1:3] for row in rows] == [["float32", "torch"], ["bfloat16", "torch"]]
    for row, bench in zip(rows, found, strict=True):
        assert row[3:6] == [
            f"{n:,.0f}" for n in (bench.images_per_s, bench.texts_per_s, bench.cases_per_s)
        ]
        assert bench.images_per_s == pytest.approx(1 / bench.image_s)
        assert bench.cases_per_s == pytest.approx(6 / bench.engine_s)
        assert bench.peak_memory_mib > 100
    assert "| toy | 1e-06 | 1.0e-05 | 2.0e-06 | 1.0e-02 |" in lines
    assert "| toy | 1,234 | 5 | 0.25000 |" in lines
    assert any(f"{found[0].n_images} images, {found[0].n_texts} texts" in line for line in lines)


def test_a_device_with_the_same_logits_is_said_to_have_them(script, toy_card):
    logits = script("gpu").agreement(toy_card(), device="cpu")

    assert logits.gpu == 0
    assert logits.stages <= 10 * logits.noise_floor
    assert 0 < logits.mixed < 0.1


@pytest.mark.slow
def test_a_device_with_the_same_counts_is_said_to_have_them(script, tmp_path):
    models = ["phantom-clipseg-crowd"]
    counts = script("gpu").compare_counts("cpu", 1, models=models, root=tmp_path)

    assert counts["n_cases"].min() > 10
    assert counts["n_other"].sum() == counts["max_dice"].sum() == 0


@needs_gpu
@pytest.mark.gpu
@pytest.mark.parametrize("name", FULL_SIZE)
def test_full_size_models_agree_with_themselves(script, name):
    """Stages with the plain forward, the GPU with the processor, mixed with float32."""
    found = script("gpu").agreement(name, device="cuda")

    assert found.stages <= 10 * found.noise_floor
    assert found.gpu <= 10 * found.noise_floor
    assert found.mixed <= 0.1


@needs_gpu
@pytest.mark.gpu
@pytest.mark.parametrize("name", FULL_SIZE)
def test_speed_and_memory_are_recorded(script, name, capsys):
    found = script("gpu").measure(
        [name], device="cuda", n_images=8, n_prompts=9, batch_size=16, blocks=1
    )
    with capsys.disabled():
        sys.stdout.write("\n".join(map(script("gpu")._row, found)) + "\n")

    assert [bench.device.split(":")[0] for bench in found] == ["cuda", "cuda"]
    assert all(bench.cases_per_s > 0 and bench.peak_memory_mib > 100 for bench in found)
    assert found[0].precision == "float32" != found[1].precision


@needs_gpu
@pytest.mark.gpu
def test_a_compiled_model_is_checked_and_timed(script):
    (found,) = script("gpu").measure(
        ["clipseg"], device="cuda", n_images=8, n_prompts=9, batch_size=16, backend="inductor"
    )
    assert (found.backend, found.device.split(":")[0]) == ("inductor", "cuda")


@needs_gpu
@pytest.mark.gpu
def test_dice_stays_within_the_stated_tolerance_on_a_gpu(script, tmp_path):
    report = script("precision")
    store = report.measure(
        "cuda", 4, suite="antonym_swap", datasets=["phantom_crowd"], root=tmp_path
    )
    for row in report.differences(report.scored(store)).iter_rows(named=True):
        assert row["mean_abs"] <= report.TOLERANCE[row["precision"]]
