"""The study behind the assay card: what oracles do, what is known of models, what is counted."""

import numpy as np
import pytest

from harness.cards import load_model_card
from harness.data.images import content_id
from harness.stats.assay import Count
from harness.stats.language import LanguageVerdict
from harness.suite.schema import Suite


@pytest.fixture(scope="module")
def study(script):
    return script("assay")


@pytest.fixture(scope="module")
def pictures():
    """200 pictures with two targets each."""
    rng = np.random.default_rng(0)
    left, right = np.zeros((2, 16, 16), dtype=bool)
    left[4:8, 2:6], right[4:8, 9:13] = True, True
    images = rng.integers(0, 256, (200, 16, 16, 3)).astype(np.uint8)
    return images, {content_id(image): {"a": left, "b": right} for image in images}


@pytest.mark.parametrize("hears", [0.0, 0.25, 1.0])
def test_an_oracle_hears_its_share_and_no_more(study, pictures, hears):
    images, targets = pictures
    oracle = study.Oracle(targets, hears, 0.0, seed=1)
    masks = [(oracle(image, "a"), oracle(image, "b")) for image in images]
    heard = np.mean([one.sum() == 16 for one, _ in masks])
    assert heard == np.mean([other.sum() == 16 for _, other in masks])
    assert heard == pytest.approx(hears, abs=0.08)
    off = np.mean([not one[4, 2] for one, _ in masks])
    assert off == pytest.approx(study.JITTER, abs=0.06)


@pytest.mark.parametrize("refuses", [0.0, 0.7, 1.0])
def test_an_oracle_refuses_its_share_of_what_is_absent_and_nothing_else(study, pictures, refuses):
    images, targets = pictures
    oracle = study.Oracle(targets, 0.5, refuses, seed=1)
    assert np.mean([not oracle(i, "c").any() for i in images]) == pytest.approx(refuses, abs=0.08)
    assert all(oracle(image, "a").any() for image in images)
    again = study.Oracle(targets, 0.5, refuses, seed=1)
    assert all((oracle(i, "c") == again(i, "c")).all() for i in images), "no chance of its own"


def verdict(dataset, **given):
    keys = ("m@1", "m", dataset, "released", "p6", "cannot tell", "cannot tell", "", True)
    return LanguageVerdict(*keys, **given)


def test_what_cards_claim_is_true_and_what_cannot_be_heard_is_not(study):
    said = verdict("phantom_pairs", heard=("color",), unheard=("size",), unclear=("shape",))
    claims = load_model_card("phantom-clipseg-crowd").card
    assert list(study.of_card(claims, said)) == [
        (("attribute", "yes", None), "right"),
        (("attribute", "yes", None), "wrong"),
    ], "the shape was taught and is not claimed: nothing is known of it"
    for name in ("phantom-clipseg-solo", "phantom-image-only-crowd"):
        assert [found for _, found in study.of_card(load_model_card(name).card, said)] == [
            "wrong", "right", "undecided",
        ]  # fmt: skip


def test_refusal_is_known_of_models_that_were_not_taught_it(study):
    said = verdict("phantom_crowd", refusal="hallucinates")
    untaught = load_model_card("phantom-cris-crowd").card
    assert list(study.of_card(untaught, said)) == [(("refusal", "no", None), "right")]
    taught = load_model_card("phantom-cris-refusing").card
    assert list(study.of_card(taught, said)) == []


def test_an_oracle_is_known_by_its_strengths(study):
    suite = Suite(name="s", title="s")
    said = verdict("phantom_pairs", unheard=("size",))
    assert list(study.of_oracle(0.1, 1.0, said, suite)) == [(("attribute", "yes", 0.1), "wrong")]
    assert list(study.of_oracle(0.0, 1.0, said, suite)) == [(("attribute", "no", 0.0), "right")]
    said = verdict("phantom_crowd", refusal="cannot tell")
    assert list(study.of_oracle(0, 0.9, said, suite)) == [(("refusal", "yes", 0.9), "undecided")]
    assert list(study.of_oracle(0, 0.7, said, suite)) == [(("refusal", "no", 0.7), "undecided")]


def test_outcomes_are_added_up_in_rows(study):
    key = ("attribute", "yes", 0.5, 20)
    other = ("attribute", "no", None, 20)
    rows = study.counts({(*key, "right"): 3, (*key, "undecided"): 2, (*other, "wrong"): 1})
    assert rows == [
        Count("attribute", "no", None, 20, 1, 0, 1),
        Count("attribute", "yes", 0.5, 20, 5, 3, 0),
    ]


def test_the_page_has_a_row_a_truth_and_size(study):
    rows = [
        Count(kind, truth, strength, 20, 4, 3, 1)
        for kind, truth, strength in (
            ("attribute", "yes", 0.5), ("attribute", "yes", 0.1), ("attribute", "no", None),
            ("refusal", "yes", 0.9), ("refusal", "no", None),
        )
    ]  # fmt: skip
    page = "\n".join(study.page(rows))
    assert "0.75 [0.19, 0.99]" in page
    assert "| are oracles and hear the word in 10 % |" in page
    assert "| ship and do not refuse" in page


def test_clusters_are_drawn_for_each_model_alone_and_are_as_many_as_asked(study, compared_sets):
    store, facts, suite = compared_sets
    sizes = {"inside": (20, 25)}
    study.SIZES, kept = sizes, study.SIZES
    try:
        found = [(size, v.evidence[0].n_clusters) for size, v in study.judged(store, facts, suite)]
    finally:
        study.SIZES = kept
    assert found == [(20, 20), (25, 25)]


@pytest.fixture(scope="module")
def compared_sets(tmp_path_factory):
    import importlib.util
    import sys
    from pathlib import Path

    from harness.runs.store import RunStore

    place = Path(__file__).parents[1] / "stats" / "conftest.py"
    spec = importlib.util.spec_from_file_location("assay_runs", place)
    runs = importlib.util.module_from_spec(spec)
    sys.modules["assay_runs"] = runs
    spec.loader.exec_module(runs)
    made = runs.make_run({"inside": 60}, n_words=2)
    store = RunStore(runs.write_run(tmp_path_factory.mktemp("runs") / "run", made))
    probes = [{"name": "swap", "perturbation": "swap_value"}]
    suite = Suite.model_validate({"name": "s", "title": "s", "probes": probes})
    quick = suite.statistics.model_copy(update={"draws": 200})
    return store, made.models[0], suite.model_copy(update={"statistics": quick})
