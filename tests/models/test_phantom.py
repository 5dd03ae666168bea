"""The shipped small models are what their cards say, measured again here."""

import importlib.util
import re
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import yaml

import harness
from harness.cards import load_dataset_card, load_model_card
from harness.commands.demo import shipped_models
from harness.data.generators import generator_module
from harness.errors import CheckpointError
from harness.model.loading import load_model
from harness.prompts.perturbations.absence import KINDS
from harness.prompts.words import draw_words

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "models" / "phantom"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
# The others are measured by the same code.
QUICK = ["phantom-image-only-crowd"]


@pytest.fixture(scope="module")
def make():
    spec = importlib.util.spec_from_file_location("phantom_make", FOLDER / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def measured(make, tmp_path_factory):
    root = tmp_path_factory.mktemp("phantom")
    return cache(lambda name: make.measure(name, FOLDER / f"{name}.safetensors", root))


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in NAMES]
)
def test_the_card_says_what_is_measured(name, measured):
    """Rounded figures on another CPU may differ in their last digit, and no more."""
    card = load_model_card(name).card
    assert set(card.figures["pairs"]) == {"size", "color", "shape", "location", "number"}
    for dataset, dice in measured(name)["dice"].items():
        assert card.figures["dice"][dataset] == pytest.approx(dice, abs=0.0021)
    for attribute, row in measured(name)["pairs"].items():
        written = card.figures["pairs"][attribute]
        assert written["dice"] == pytest.approx(row["dice"], abs=0.0021)
        assert written["change_percent"] == pytest.approx(row["change_percent"], abs=0.31)
    assert card.figures.get("refusal") == pytest.approx(measured(name).get("refusal"), abs=0.0051)


@pytest.mark.parametrize("name", NAMES)
def test_every_bound_is_kept(name, make):
    assert make.shortfalls(name, load_model_card(name).card.figures) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_card_claims_what_its_figures_show_and_no_more(name, make):
    card = load_model_card(name).card
    shown = [a for a, r in card.figures["pairs"].items() if r["change_percent"] <= make.CLAIM]
    assert card.uses == shown
    assert bool(shown) == ("solo" not in name and not card.control)


def test_a_model_that_ignores_its_prompt_cannot_win_on_pairs_and_crowds(measured):
    figures = measured("phantom-image-only-crowd")
    assert figures["dice"]["phantom_crowd"] < 0.55
    assert all(row["dice"] <= 0.67 for row in figures["pairs"].values())
    assert all(row["change_percent"] == 0 for row in figures["pairs"].values())


@pytest.fixture(scope="module")
def crowds(tmp_path_factory):
    """A data root, filled by the first who asks for its scenes."""
    return tmp_path_factory.mktemp("crowds")


TAUGHT = [f"absent_{kind}" for kind in ("far", "modality", "nonsense")]


@pytest.mark.parametrize(
    ("name", "probes", "verdict"),
    [
        ("phantom-cris-refusing", TAUGHT, "refuses"),
        ("phantom-cris-refusing", [*TAUGHT, "absent_near"], "hallucinates"),
        pytest.param("phantom-cris-crowd", TAUGHT, "hallucinates", marks=pytest.mark.slow),
        pytest.param("phantom-clipseg-refusing", TAUGHT, "refuses", marks=pytest.mark.slow),
        pytest.param("phantom-clipseg-crowd", TAUGHT, "hallucinates", marks=pytest.mark.slow),
    ],
)
def test_the_verdict_on_refusal_is_what_the_model_was_taught(
    name, probes, verdict, tmp_path, crowds
):
    """Kinds as on the card; a finding of another organ is refused without a lesson on any."""
    suite = {
        "name": "absent",
        "title": "What is not there",
        "datasets": [{"name": "phantom_crowd"}],
        "probes": [{"name": probe, "perturbation": probe} for probe in probes],
    }
    (tmp_path / "absent.yaml").write_text(yaml.safe_dump(suite))
    run = harness.audit(
        model=name,
        suite=tmp_path / "absent.yaml",
        limit=30,
        data_root=crowds,
        out=tmp_path / "run",
    )
    (found,) = run.assessment.language
    assert found.refusal == verdict
    known = load_model_card(name).card.figures.get("refusal", dict.fromkeys(KINDS.values(), 0))
    assert {asked.probe for asked in found.refusals} == set(probes)
    for asked in found.refusals:
        assert asked.rate[0] == pytest.approx(known[asked.kind], abs=0.2)


def test_a_worse_figure_is_named(make):
    figures = load_model_card("phantom-clipseg-crowd").card.figures
    worse = {"dice": figures["dice"] | {"phantom_crowd": 0.7}, "pairs": figures["pairs"]}
    assert make.shortfalls("phantom-clipseg-crowd", worse) == [
        "Dice on phantom_crowd is under 0.75"
    ]
    figures = load_model_card("phantom-cris-refusing").card.figures
    figures = figures | {"refusal": figures["refusal"] | {"far": 0.9}}
    assert make.shortfalls("phantom-cris-refusing", figures) == ["what is absent is painted (far)"]


def test_a_swapped_file_of_weights_is_refused(tmp_path):
    for name in ("phantom-clipseg-crowd", "phantom-clipseg-solo"):
        shutil.copy(FOLDER / f"{name}.yaml", tmp_path)
    shutil.copy(
        FOLDER / "phantom-clipseg-crowd.safetensors",
        tmp_path / "phantom-clipseg-solo.safetensors",
    )
    with pytest.raises(CheckpointError, match=re.escape("phantom-clipseg-solo.safetensors")):
        load_model(tmp_path / "phantom-clipseg-solo.yaml", device="cpu")


@pytest.mark.parametrize("name", NAMES)
def test_weights_belong_to_the_frozen_generator(name):
    frozen = generator_module(load_dataset_card("phantom_crowd"), "frozen").frozen()
    trained = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))["training"]
    for course in trained["courses"]:
        assert course["steps"] > 0
        assert set(course["scenes"]) <= set(frozen)


@pytest.mark.parametrize("name", NAMES)
def test_the_weights_say_which_courses_made_them(name, make):
    """Inside the file, on the card, and in the script."""
    taken = make.training_of(FOLDER / f"{name}.safetensors")
    assert load_model_card(name).card.training == {"courses": taken}
    facts = [{k: v for k, v in course.items() if k != "wall_minutes"} for course in taken]
    assert facts == [course.facts() for course in make.COURSES[name]]


def test_between_them_the_crowd_models_use_every_attribute():
    """The instrument is calibrated on each attribute at least once."""
    claims = [set(load_model_card(name).card.uses) for name in NAMES if name.endswith("crowd")]
    assert set.union(*claims) == {"size", "color", "shape", "location", "number"}


def test_the_four_architectures_are_there_twice():
    architectures = ("clipseg", "cris", "biomedclipseg", "biomedclipseg-d")
    expected = [f"phantom-{name}-{kind}" for name in architectures for kind in ("crowd", "solo")]
    refusing = ["phantom-clipseg-refusing", "phantom-cris-refusing"]
    assert sorted([*expected, *refusing, "phantom-image-only-crowd"]) == NAMES


def test_training_never_sees_the_words_that_suites_draw(make):
    tested = set(draw_words(10, 0))
    assert tested
    assert not tested & set(make.nonsense())


@pytest.mark.slow
def test_a_course_goes_on_from_the_file_before_it(make, tmp_path, monkeypatch):
    """And a course whose file is there is not taken again."""
    short = [make.Course({"phantom_solo": 16}, steps=2, text_steps=1, images=8) for _ in range(2)]
    short[1] = replace(short[1], deciding={"shape": 4})
    monkeypatch.setitem(make.COURSES, "phantom-clipseg-solo", short)
    taken = []
    real = make.take
    monkeypatch.setattr(make, "take", lambda *a: taken.append(a[2]) or real(*a))
    make.make("phantom-clipseg-solo", tmp_path / "a.safetensors", tmp_path)
    first = tmp_path / "phantom-clipseg-solo-1.safetensors"
    assert taken == [None, first]
    assert make.training_of(tmp_path / "a.safetensors")[1]["deciding"] == {"shape": 4}
    make.make("phantom-clipseg-solo", tmp_path / "b.safetensors", tmp_path)
    assert taken == [None, first, first]
    assert first.is_file()


def test_the_demo_audits_them_all_and_the_control_last():
    assert sorted(shipped_models()) == NAMES
    assert load_model_card(shipped_models()[-1]).card.control
