"""The bench's figures fit together, and it runs what the engine would."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.engine.bench import bench
from harness.engine.bench_plan import INVENTED, Picture, bench_cases, invent
from harness.model.loading import load_model
from harness.plan.build import PLAN_SCHEMA


@pytest.fixture
def measured(tmp_path, toy_card):
    model = load_model(toy_card(), random_weights=True, device="cpu")
    pictures = invent(tmp_path, 4, model.adapter.input_size)

    def run(**options):
        return bench(model, pictures, root=tmp_path, n_prompts=5, blocks=2, **options), model

    return run


def test_figures_fit_together(measured):
    ticks = []
    found, _ = measured(tick=lambda: ticks.append(1))

    assert (found.n_images, found.n_cases, found.blocks) == (4, 20, 2)
    ideal = 4 * found.image_s + found.n_texts * found.text_s + 20 * found.decode_s
    assert found.ideal_s == pytest.approx(ideal)
    assert found.plain_s == pytest.approx(20 * found.plain_case_s)
    assert found.plain_over_engine == pytest.approx(found.plain_s / found.engine_s)
    assert found.engine_over_ideal == pytest.approx(found.engine_s / found.ideal_s)
    assert found.cases_per_s == pytest.approx(20 / found.engine_s)
    beside = {"processor_s", "pair_s"}  # no text of this model depends on a picture
    seconds = [v for k, v in found.as_dict().items() if k.endswith("_s") and k not in beside]
    assert len(seconds) > 10
    assert min(seconds) > 0
    assert min(found.plain_over_engine_cpu, found.engine_over_ideal_cpu) > 0
    kinds = {"load", "image", "text", "decode", "count", "plain", "engine"}
    assert set(found.processor_s) == kinds
    assert found.plain_over_engine_cpu == pytest.approx(
        found.processor_s["plain"] / found.processor_s["engine"]
    )
    assert found.peak_memory_mib > 100
    assert len(ticks) == 2


def test_the_engine_that_is_timed_decodes_every_pair_of_the_plan(measured, monkeypatch):
    monkeypatch.setattr(
        "harness.engine.bench.SIZES",
        {"image": (1,), "text": (1,), "decode": (1,), "plain": (1,)},
    )
    found, model = measured(batch_size=1)
    warm_up, beside = 5, 3  # one picture; in each block a timed pair, one to count, a plain one
    assert model.raw.pairs_decoded == warm_up + found.n_cases + 2 * beside


@given(st.integers(1, 6), st.integers(1, 30), st.sampled_from([0.0, 0.25, 0.5, 1.0]))
def test_a_plan_has_the_asked_share_of_distinct_texts(n_pictures, n_prompts, distinct):
    pictures = [Picture(f"{n}.png", f"m{n}.png", f"{INVENTED} {n}") for n in range(n_pictures)]
    cases = bench_cases(pictures, n_prompts, distinct=distinct)

    assert cases.schema == PLAN_SCHEMA
    assert cases.height == n_pictures * n_prompts
    n_own = max(1, round(n_prompts * distinct))
    assert cases["prompt"].n_unique() == n_pictures * n_own + n_prompts - n_own
    originals = cases.filter(cases["probe"] == "original")
    assert originals["prompt"].to_list() == [picture.prompt for picture in pictures]
    assert set(cases["original_case_id"]) == set(originals["case_id"])


def test_a_model_that_samples_is_timed(tmp_path):
    model = load_model("medclipseg-small", random_weights=True, device="cpu")
    found = bench(model, invent(tmp_path, 1, (64, 64)), root=tmp_path, n_prompts=2, blocks=1)
    assert found.engine_s > found.decode_s > 0


def test_an_empty_prompt_is_changed_into_words():
    cases = bench_cases([Picture("a.png", "m.png", "")], 3, distinct=1.0)
    assert cases["prompt"].n_unique() == 3


def test_the_command_benches_a_dataset(call, toy_card):
    arguments = ["bench", toy_card(), "--random-weights", "--device", "cpu", "--images", 3]
    code, out, _ = call(
        *arguments, "--prompts", 4, "--blocks", 1, "--datasets", "kvasir_polyp/test", "--json"
    )
    assert code == 0
    found = json.loads(out)
    assert (found["n_images"], found["n_cases"]) == (3, 12)
    assert found["engine_over_ideal"] > 0
    assert found["plain_over_engine"] > 0

    code, out, _ = call(*arguments, "--prompts", 3, "--blocks", 1)
    assert code == 0
    assert "s per image encoded" in out


def test_more_pictures_than_there_are_says_so(call, toy_card):
    arguments = ["bench", toy_card(), "--random-weights", "--dataset", "kvasir_polyp"]
    code, _, err = call(*arguments, "--images", 99)
    assert code == 2
    assert "--images: kvasir_polyp has 6 pictures with a p6 prompt, 99 were asked for." in err


def test_pictures_of_several_sizes_are_refused_for_a_function(call, tmp_path):
    (tmp_path / "code.py").write_text("def segment(image, prompt):\n    return image[..., 0] > 9\n")
    card = tmp_path / "card.yaml"
    card.write_text("name: f\nadapter: code.py:segment\nkind: callable\n")
    arguments = ["bench", card, "--images", 4, "--prompts", 3, "--blocks", 1]
    code, _, err = call(*arguments, "--datasets", "kvasir_polyp")
    assert code == 2
    assert "these have 2 sizes, such as (40, 48) and (48, 40). Times are of" in " ".join(
        err.split()
    )
    assert call(*arguments)[0] == 0


def test_what_bfloat16_gains_is_measured_on_the_model_where_products_gain(measured, monkeypatch):
    monkeypatch.setattr("harness.engine.bench.bfloat16_gain", lambda: 0.25)
    found, _ = measured()
    assert found.bfloat16_gain == 0.25
    monkeypatch.setattr("harness.engine.bench.bfloat16_gain", lambda: 4.0)
    found, _ = measured()
    assert found.bfloat16_gain not in (4.0, None)
    assert found.bfloat16_gain > 0
