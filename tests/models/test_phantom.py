"""The shipped small models are what their cards say, measured again here."""

import importlib.util
import re
import shutil
from pathlib import Path

import pytest
import yaml

from harness.cards import load_model_card
from harness.commands.demo import shipped_models
from harness.data.phantom.frozen import current, frozen
from harness.errors import CheckpointError
from harness.models import load_model

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "models" / "phantom"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))


@pytest.fixture(scope="module")
def make():
    spec = importlib.util.spec_from_file_location("phantom_make", FOLDER / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def measured(make, tmp_path_factory):
    root = tmp_path_factory.mktemp("phantom")
    return {name: make.measure(name, FOLDER / f"{name}.safetensors", root) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_the_card_says_what_is_measured(name, measured):
    """Rounded figures on another CPU may differ in their last digit, and no more."""
    card = load_model_card(name).card
    assert set(card.figures["pairs"]) == {"size", "color", "shape", "location", "number"}
    for dataset, dice in measured[name]["dice"].items():
        assert card.figures["dice"][dataset] == pytest.approx(dice, abs=0.0021)
    for attribute, row in measured[name]["pairs"].items():
        written = card.figures["pairs"][attribute]
        assert written["dice"] == pytest.approx(row["dice"], abs=0.0021)
        assert written["change_percent"] == pytest.approx(row["change_percent"], abs=0.31)


@pytest.mark.parametrize("name", NAMES)
def test_every_bound_is_kept(name, make):
    assert make.shortfalls(name, load_model_card(name).card.figures) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_card_claims_what_its_figures_show_and_no_more(name, make):
    card = load_model_card(name).card
    shown = [a for a, r in card.figures["pairs"].items() if r["change_percent"] <= make.CLAIM]
    assert card.uses == shown
    assert bool(shown) == ("crowd" in name and not card.control)


def test_a_model_that_ignores_its_prompt_cannot_win_on_pairs_and_crowds(measured):
    figures = measured["phantom-image-only-crowd"]
    assert figures["dice"]["phantom_crowd"] < 0.55
    assert all(row["dice"] <= 0.67 for row in figures["pairs"].values())
    assert all(row["change_percent"] == 0 for row in figures["pairs"].values())


def test_a_worse_figure_is_named(make):
    figures = load_model_card("phantom-clipseg-crowd").card.figures
    worse = {"dice": figures["dice"] | {"phantom_crowd": 0.7}, "pairs": figures["pairs"]}
    assert make.shortfalls("phantom-clipseg-crowd", worse) == [
        "Dice on phantom_crowd is under 0.75"
    ]


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
    """A changed generator makes the digests differ; the models must then be made again."""
    assert current() == frozen()
    trained = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))["training"]
    assert trained["steps"] > 0
    assert set(trained["scenes"]) <= set(frozen())


def test_the_demo_audits_them_all_and_the_control_last():
    assert sorted(shipped_models()) == NAMES
    assert load_model_card(shipped_models()[-1]).card.control
