"""The full-size models on a GPU; without one, that the script would say what it measures."""

import itertools
import sys

import pytest
import torch

from harness.model.loading import load_model

needs_gpu = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="torch sees no CUDA device on this machine"
)
FULL_SIZE = ("clipseg", "cris", "biomedclipseg", "biomedclipseg-d")
TEXTS = ["one small pink round polyp, located in top left of the image", "", "polyp"]


def test_the_page_says_what_was_measured(script, toy_card):
    """On this machine's processor, with a toy model."""
    gpu = script("gpu")
    card = toy_card()
    found = gpu.measure([card], device="cpu", n_images=2, n_prompts=3, batch_size=4, blocks=1)
    lines = gpu.page(found).splitlines()
    rows = [line.split(" | ") for line in lines if line.startswith("| toy-random0")]

    assert [row[1] for row in rows] == ["float32", "bfloat16"]
    for row, bench in zip(rows, found, strict=True):
        assert row[2:5] == [
            f"{n:,.0f}" for n in (bench.images_per_s, bench.texts_per_s, bench.cases_per_s)
        ]
        assert bench.images_per_s == pytest.approx(1 / bench.image_s)
        assert bench.cases_per_s == pytest.approx(6 / bench.engine_s)
        assert bench.peak_memory_mib > 100
    assert any(f"{found[0].n_images} images, {found[0].n_texts} texts" in line for line in lines)


def all_pairs(model, pixels):
    """Logits of every image with every text, by the stages and by the plain forward."""
    rows = torch.tensor(list(itertools.product(range(len(pixels)), range(len(TEXTS)))))
    rows = rows.to(model.device)
    pixels = pixels.to(model.device)
    with torch.inference_mode(), model.autocast():
        images = model.adapter.encode_images(pixels)
        texts = model.adapter.encode_texts(TEXTS)
        chosen = [
            type(features)(*(leaf[rows[:, k]] for leaf in features))
            for k, features in enumerate((images, texts))
        ]
        staged = model.adapter.decode(*chosen)
        plain = model.raw.predict(pixels[rows[:, 0]], [TEXTS[t] for t in rows[:, 1].tolist()])
    return staged.float().cpu(), plain.float().cpu()


@needs_gpu
@pytest.mark.gpu
@pytest.mark.parametrize("name", FULL_SIZE)
def test_full_size_models_agree_with_themselves(name):
    """Stages with the plain forward, the GPU with the processor, mixed with float32."""
    cpu, gpu, mixed = (
        load_model(name, random_weights=True, device=device, dtype=dtype)
        for device, dtype in (("cpu", "float32"), ("cuda", "float32"), ("cuda", "mixed"))
    )
    pixels = torch.randn(2, 3, *cpu.adapter.input_size, generator=torch.Generator().manual_seed(0))
    exact, _ = all_pairs(cpu, pixels)
    staged, plain = all_pairs(gpu, pixels)
    short, _ = all_pairs(mixed, pixels)
    scale = float(exact.std())

    assert mixed.precision in ("bfloat16", "float16")
    assert (staged - plain).abs().max() <= 10 * cpu.card.noise_floor * max(1, scale)
    assert (staged - exact).abs().max() <= 10 * cpu.card.noise_floor * max(1, scale)
    assert torch.isfinite(short).all()
    assert (short - exact).std() <= 0.1 * scale


@needs_gpu
@pytest.mark.gpu
@pytest.mark.parametrize("name", FULL_SIZE)
def test_speed_and_memory_are_recorded(script, name, capsys):
    found = script("gpu").measure(
        [name], device="cuda", n_images=8, n_prompts=9, batch_size=16, blocks=1
    )
    with capsys.disabled():
        sys.stdout.write(script("gpu").page(found))

    assert [bench.device.split(":")[0] for bench in found] == ["cuda", "cuda"]
    assert all(bench.cases_per_s > 0 and bench.peak_memory_mib > 100 for bench in found)
    assert found[0].precision == "float32" != found[1].precision


@needs_gpu
@pytest.mark.gpu
def test_dice_stays_within_the_stated_tolerance_on_a_gpu(script, tmp_path):
    report = script("precision")
    store = report.measure(
        "cuda", 4, suite="antonym_swap", datasets=["phantom_crowd"], root=tmp_path
    )
    for row in report.differences(report.scored(store)).iter_rows(named=True):
        assert row["mean_abs"] <= report.TOLERANCE[row["precision"]]
