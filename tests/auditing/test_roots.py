"""Where the data lie that nobody was told of: every verb and the Python face agree."""

import json
import sys
from contextlib import suppress
from pathlib import Path

import pytest

import harness
from harness.auditing.listener import Listener
from harness.auditing.samples import choose_root

CARD = """
name: painted
title: Painted squares
modality: none
source: generated
licence: CC0
private: false
generator: generator.py:Squares
prompt_type: p1
masks: {above: 127}
classes: [square]
"""
GENERATOR = """
import json

import numpy as np
from PIL import Image


class Squares:
    sizes = {"test": 3}

    def __init__(self, card):
        pass

    def write_split(self, folder, split, count, *, seed, tick):
        for part in ("images", "masks", "anns"):
            (folder / part).mkdir(exist_ok=True)
        rows = []
        for k in range(count):
            field = np.zeros((32, 32), np.uint8)
            field[4 : 12 + k, 4:12] = 255
            for part in ("images", "masks"):
                Image.fromarray(field).save(folder / part / f"{k}.png")
            prompts = {"p0": "", "p1": "white square"}
            rows.append({"img_name": f"{k}.png", "mask_name": f"{k}.png", "prompts": prompts})
            tick()
        (folder / "anns" / f"{split}.json").write_text(json.dumps(rows))
"""


class Notes(Listener):
    def __init__(self):
        self.heard = []

    def note(self, text):
        self.heard.append(text)


@pytest.fixture
def card(tmp_path, monkeypatch):
    """A generated set of strangers; the current folder is empty, and so is the cache."""
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards" / "generator.py").write_text(GENERATOR, encoding="utf-8")
    path = tmp_path / "cards" / "painted.yaml"
    path.write_text(CARD, encoding="utf-8")
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("VLSM_HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("VLSM_DATA_ROOT", raising=False)
    return str(path)


def test_generated_sets_alone_go_to_the_cache(card, tmp_path):
    notes = Notes()
    cache = tmp_path / "cache" / "data"
    assert choose_root(None, [card, "phantom_solo"], listener=notes) == cache
    assert notes.heard == [
        f"note: generated data sets are kept in {cache}, since there is no folder 'data' here. "
        "--data-root or VLSM_DATA_ROOT names another."
    ]


def test_what_a_user_brings_or_names_stays_where_it_is(card, tmp_path, monkeypatch):
    notes = Notes()
    mine = Path("mine")
    assert choose_root(mine, [card], listener=notes) == mine
    assert choose_root(None, [card, "kvasir_polyp"], listener=notes) == Path("data")
    assert choose_root(None, [], listener=notes) == Path("data")
    Path("data").mkdir()
    assert choose_root(None, [card], listener=notes) == Path("data")
    monkeypatch.setenv("VLSM_DATA_ROOT", "named")
    assert choose_root(None, [card], listener=notes) == Path("named")
    assert notes.heard == []


def test_the_cache_is_the_platform_s(card, tmp_path, monkeypatch):
    monkeypatch.delenv("VLSM_HARNESS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert choose_root(None, [card]) == tmp_path / "xdg" / "vlsm-harness" / "data"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert choose_root(None, [card]) == tmp_path / "home" / ".cache" / "vlsm-harness" / "data"


@pytest.mark.parametrize(
    "words",
    [
        ("generate",),
        ("peek", "empty_prompt", "--datasets"),
        ("check", "empty_prompt", "--datasets"),
        ("plan", "empty_prompt", "--out", "made", "--datasets"),
        ("run", "empty_prompt", "--model", "phantom-cris-solo", "--out", "r", "--datasets"),
    ],
    ids=lambda words: words[0],
)
def test_a_verb_says_once_where_they_are(card, tmp_path, monkeypatch, capsys, words):
    from harness.cli import main

    monkeypatch.setattr(sys, "argv", ["vlsm-harness", *words, card])
    with suppress(SystemExit):
        main()
    err = capsys.readouterr().err
    assert "error" not in err
    assert err.count("note: generated data sets are kept in") == 1
    assert (tmp_path / "cache" / "data" / "painted" / "anns" / "test.json").is_file()
    assert not Path("data").exists()
    for record in ("made/plan.json", "r/run.json"):
        if Path(record).is_file():
            said = json.loads(Path(record).read_text(encoding="utf-8"))["data_root"]
            assert said == str(tmp_path / "cache" / "data")


def test_python_keeps_them_there_too(card, tmp_path, monkeypatch):
    notes = Notes()
    model = harness.wrap(lambda image, prompt: image[..., 0] > 100, name="bright")
    run = harness.audit(
        model=model, suite="empty_prompt", datasets=[card], out="run", progress=notes
    )
    assert run.manifest["data_root"] == str(tmp_path / "cache" / "data")
    assert sum("are kept in" in text for text in notes.heard) == 1

    monkeypatch.setenv("VLSM_DATA_ROOT", str(tmp_path / "named"))
    run = harness.audit(model=model, suite="empty_prompt", datasets=[card], out="other")
    assert run.manifest["data_root"] == str(tmp_path / "named")
    assert not Path("data").exists()


def test_the_pytest_plugin_keeps_them_there_too(card, tmp_path):
    from harness.pytest_plugin.session import requested

    options = {"--vlsm-data-root": None, "--vlsm-model": ["m"], "--vlsm-device": "auto"}

    class Config:
        def getoption(self, name):
            return options.get(name)

    assert requested(Config(), "empty_prompt").data_root is None
    Path("data").mkdir()
    assert requested(Config(), "empty_prompt").data_root == str(tmp_path / "here" / "data")
    options["--vlsm-data-root"] = "mine"
    assert requested(Config(), "empty_prompt").data_root == str(tmp_path / "here" / "mine")
