"""The bench's figures fit together, and it decodes what the engine would."""

import pytest

from harness.commands.bench import bench_prompts
from harness.engine.bench import bench
from harness.models import load_model


def test_figures_fit_together(toy_card):
    model = load_model(toy_card(), random_weights=True, device="cpu")
    ticks = []
    prompts = bench_prompts(5)
    found = bench(model, prompts, n_images=3, blocks=1, tick=lambda: ticks.append(1))

    assert (found.n_images, found.n_texts, found.n_cases) == (3, 5, 15)
    ideal = 3 * found.image_s + 5 * found.text_s + 15 * found.decode_s
    assert found.ideal_s == pytest.approx(ideal)
    assert found.plain_s == pytest.approx(15 * found.plain_case_s)
    assert found.plain_over_engine == pytest.approx(found.plain_s / found.engine_s)
    assert found.engine_over_ideal == pytest.approx(found.engine_s / found.ideal_s)
    assert min(found.image_s, found.text_s, found.decode_s, found.engine_s) > 0
    assert len(ticks) == 3


def test_prompts_are_distinct_and_as_many_as_asked():
    assert len(set(bench_prompts(41))) == 41
    assert len(bench_prompts(1)) == 1
