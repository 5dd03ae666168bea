"""Generators of cards: a set appears whole or not at all, and a stranger's program never runs."""

import json
import re
import shutil

import numpy as np
import pytest
import yaml
from PIL import Image

from harness.cards import dataset_names, load_dataset_card
from harness.data.generators import Generator, generate, generator_module, load_generator
from harness.data.layout import load_samples
from harness.errors import CardError, DataError, RunError
from harness.files import shipped

DOTS = '''
"""A square per scene, at a place that the seed, split and number tell."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from .words import WORD


class Dots:
    def __init__(self, card):
        self.sizes = {"test": 3}

    def write_split(self, folder, split, count, *, seed, tick):
        for part in ("images", "masks", "anns"):
            (folder / part).mkdir(exist_ok=True)
        rows = []
        for number in range(count):
            name = f"{split}-{number}.png"
            mask = np.zeros((8, 8), np.uint8)
            mask[number % 7 :, (seed + len(split)) % 7 :] = 255
            Image.fromarray(mask).save(folder / "masks" / name)
            Image.fromarray(mask).save(folder / "images" / name)
            prompts = {"p0": "", "p1": WORD}
            rows.append({"img_name": name, "mask_name": name, "prompts": prompts})
            tick()
        (folder / "anns" / f"{split}.json").write_text(json.dumps(rows))


NOT_A_CLASS = Dots
Thing = 3
'''
CARD = """
name: dots
title: Dots
modality: none
source: drawn by a test
licence: Apache-2.0
private: false
generator: program/dots.py:Dots
splits: [train, test]
prompt_type: p1
clusters: {rule: image}
grammar:
  attributes: {class: {values: [dot]}}
  prompts: {p0: [""], p1: ["{class}"]}
"""
SHIPPED = [name for name in dataset_names() if load_dataset_card(name).generator]


def written_card(folder, *, source=DOTS, **changed):
    """A card with a generator of its own, below a folder."""
    (folder / "program").mkdir(parents=True, exist_ok=True)
    (folder / "program" / "dots.py").write_text(source, encoding="utf-8")
    (folder / "program" / "words.py").write_text('WORD = "dot"\n', encoding="utf-8")
    path = folder / "dots.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(CARD) | changed), encoding="utf-8")
    return load_dataset_card(path)


@pytest.fixture
def trusting(monkeypatch):
    """Every generator may run."""
    monkeypatch.setenv("VLSM_TRUST_ADAPTERS", "1")


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """As a command asks, with a memory of its own."""
    monkeypatch.setenv("VLSM_TRUST_ADAPTERS", "ask")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


# The contract, which holds for every generator that ships.


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_generator_keeps_the_contract(name, tmp_path):
    """Twice the same bytes; short splits begin long ones; nothing outside, no global state."""
    card = load_dataset_card(name)
    np.random.seed(7)  # noqa: NPY002 - the global state is what is looked at
    before = np.random.get_state()[1].tobytes()  # noqa: NPY002
    ticks = []
    for place, count, seed in (("a", 10, 0), ("b", 10, 0), ("short", 5, 0), ("other", 10, 1)):
        generate(
            card,
            tmp_path / place,
            sizes={"test": count, "val": 5},
            seed=seed,
            tick=lambda: ticks.append(1),
        )
    assert len(ticks) == 15 + 15 + 10 + 15
    assert np.random.get_state()[1].tobytes() == before  # noqa: NPY002

    def files(place):
        folder = tmp_path / place / name
        return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    assert files("a") == files("b")
    pictures = {path: content for path, content in files("short").items() if path.suffix == ".png"}
    assert pictures.items() <= files("a").items()
    assert not set(map(tuple, _masks(files("a")))) & set(map(tuple, _masks(files("other"))))
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == [name]
    assert isinstance(load_generator(card), Generator)


def _masks(files):
    return [[content] for path, content in files.items() if path.parts[0] == "masks"]


def test_no_shipped_generator_becomes_a_top_level_package():
    module = generator_module(load_dataset_card(SHIPPED[0]), "generator")
    assert re.fullmatch(r"_vlsm_generator_[0-9a-f]{12}\.generator", module.__name__)
    assert module is generator_module(load_dataset_card(SHIPPED[-1]), "generator")


# Files.


def test_a_generated_set_is_read_like_any_other(tmp_path, trusting):
    card = written_card(tmp_path / "cards")
    folder = generate(card, tmp_path / "data")

    samples = load_samples(card, tmp_path / "data", "test")
    assert folder == tmp_path / "data" / "dots"
    assert [s.prompts["p1"][0].text for s in samples] == ["dot"] * 3
    assert json.loads((folder / "generated.json").read_text())["sizes"] == {"test": 3}
    with Image.open(samples[1].mask) as mask:
        assert np.asarray(mask).sum() == 255 * 7 * 4


def test_the_layouts_folder_is_where_a_set_is_written(tmp_path, trusting):
    card = written_card(tmp_path / "cards", layout={"folder": "points"})

    assert generate(card, tmp_path / "data") == tmp_path / "data" / "points"
    assert len(load_samples(card, tmp_path / "data", "test")) == 3


def test_what_is_there_is_used_again_and_what_is_not_whole_is_made_again(tmp_path, trusting):
    ticks, card = [], written_card(tmp_path / "cards")
    root = tmp_path / "data"

    def write(**changed):
        ticks.clear()
        settings = {"sizes": {"test": 2}} | changed
        generate(card, root, tick=lambda: ticks.append(1), **settings)
        return len(ticks)

    annotations = root / "dots" / "anns" / "test.json"
    assert [write(), write()] == [2, 0]
    for part in ("images", "masks"):
        (root / "dots" / part / "test-1.png").unlink()
        assert [write(), write()] == [2, 0]
    annotations.write_text("[]")
    assert [write(), write()] == [2, 0]
    assert [write(seed=1), write(sizes={"test": 3}), write(sizes={"test": 3})] == [2, 3, 0]
    card = written_card(tmp_path / "cards", source=DOTS + "\n# another one\n")
    assert [write(sizes={"test": 3}), write(sizes={"test": 3})] == [3, 0]
    assert sorted(p.name for p in root.iterdir()) == ["dots"]


def test_an_interrupted_writer_leaves_nothing_behind(tmp_path):
    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(load_dataset_card("phantom_solo"), tmp_path, sizes={"test": 2}, tick=stop)
    assert not list(tmp_path.iterdir())


def test_a_strangers_folder_is_never_replaced(tmp_path):
    (tmp_path / "phantom_solo").mkdir()
    (tmp_path / "phantom_solo" / "thesis.txt").write_text("mine")
    message = (
        "phantom_solo: the place is taken by something without 'generated.json'. Only folders "
        "that a generator made are replaced. Move it away or choose another data root."
    )
    with pytest.raises(DataError, match=re.escape(message) + "$"):
        generate(load_dataset_card("phantom_solo"), tmp_path, sizes={"test": 1})
    assert (tmp_path / "phantom_solo" / "thesis.txt").read_text() == "mine"


# Programs of strangers.


def test_a_strangers_generator_is_not_run_before_it_is_trusted(tmp_path, asked, monkeypatch):
    trap = tmp_path / "sprung"
    card = written_card(tmp_path / "cards", source=f"open({str(trap)!r}, 'w').close()\n{DOTS}")
    file = tmp_path / "cards" / "program" / "dots.py"
    message = (
        re.escape(f"{card.path}: generator: {file} is a program that would run with your rights, ")
        + r"and its files \(SHA-256 [0-9a-f]{12}\) were never trusted here\. Read it, then give "
        r"--trust-adapter once; in CI set VLSM_TRUST_ADAPTERS=1\.$"
    )
    for call in (generate, lambda card, root: generator_module(card, "words")):
        with pytest.raises(DataError, match=message):
            call(card, tmp_path / "data")
    assert not trap.exists()
    assert not (tmp_path / "data").exists()

    monkeypatch.setenv("VLSM_TRUST_ADAPTERS", "remember")
    generate(card, tmp_path / "data", sizes={"test": 1})
    assert trap.exists()
    monkeypatch.setenv("VLSM_TRUST_ADAPTERS", "ask")
    generate(card, tmp_path / "again", sizes={"test": 1})
    (file.parent / "words.py").write_text('WORD = "speck"\n', encoding="utf-8")
    with pytest.raises(DataError, match=message):
        generate(card, tmp_path / "changed", sizes={"test": 1})


def test_a_copy_of_a_shipped_card_and_its_generator_is_a_strangers(tmp_path, asked):
    cards = shipped("suites") / "datasets"
    shutil.copy(cards / "phantom_solo.yaml", tmp_path)
    shutil.copytree(cards / "phantom", tmp_path / "phantom")

    with pytest.raises(DataError, match="is a program that would run with your rights"):
        generate(load_dataset_card(tmp_path / "phantom_solo.yaml"), tmp_path / "data")


@pytest.mark.parametrize("how", ["up", "absolute", "link"])
def test_a_card_cannot_reach_a_program_outside_its_folder(how, tmp_path):
    """Not even one that ships: what it writes is for cards that ship."""
    target = shipped("suites") / "datasets" / "phantom" / "generator.py"
    names = {"up": "../" * 30 + str(target)[1:], "absolute": str(target), "link": "linked.py"}
    card = written_card(tmp_path, generator=f"{names[how]}:Phantom")
    (tmp_path / "linked.py").symlink_to(target)

    with pytest.raises(DataError, match="leaves the folder .* Paths must stay below it"):
        generate(card, tmp_path / "data")


@pytest.mark.parametrize("name", ["../dots", "/dots"])
def test_a_set_is_written_below_the_data_root_alone(name, tmp_path, trusting):
    with pytest.raises(CardError, match="layout.folder: .* the path is absolute or climbs"):
        written_card(tmp_path / "cards", layout={"folder": name})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cards"]


# Messages.

RAISES = "class Dots:\n    def __init__(self, card):\n        raise ValueError('no paint')\n"
WRITES_NOTHING = (
    "class Dots:\n    def __init__(self, card):\n        self.sizes = {'test': 1}\n\n"
    "    def write_split(self, folder, split, count, *, seed, tick):\n        pass\n"
)
FULL = WRITES_NOTHING.replace("pass", "raise OSError(28, 'No space left on device')")
SAYS_WHY = WRITES_NOTHING.replace("pass", "from harness.errors import DataError\n        ") + (
    "        raise DataError('dots: split: too many. Take fewer.')\n"
)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"generator": "program/dot.py:Dots"},
            "dots.yaml: generator: there is no file '{folder}/program/dot.py'. "
            "'generator.py:Class' names a file beside the card. Correct the key.",
        ),
        (
            {"generator": "program/dots.py:Dot"},
            "dots.yaml: generator: {folder}/program/dots.py has no class 'Dot'. Did you mean "
            "'Dots'? The part after ':' names the generator's class. Correct the key.",
        ),
        (
            {"generator": "program/dots.py:Thing"},
            "program/dots.py has no class 'Thing'. The part after ':' names the generator's "
            "class. Correct the key.",
        ),
        (
            {"source": "import a_library_that_nobody_has\n"},
            "dots.yaml: generator: it raised ModuleNotFoundError: No module named "
            "'a_library_that_nobody_has'. A generator makes its files or says with a DataError why "
            "not. Correct it, or install what it needs.",
        ),
        (
            {"source": "1 / 0\n"},
            "dots.yaml: generator: it raised ZeroDivisionError: division by zero. A generator "
            "makes its files or says with a DataError why not. Correct it, or install what it "
            "needs.",
        ),
        (
            {"source": RAISES},
            "dots.yaml: generator: it raised ValueError: no paint. A generator makes its files or "
            "says with a DataError why not. Correct it, or install what it needs.",
        ),
        (
            {"source": "class Dots:\n    def __init__(self, card):\n        pass\n"},
            "dots.yaml: generator: the class 'Dots' lacks 'sizes', 'write_split'. A generator has "
            "'sizes' and 'write_split', see harness.data.generators.Generator. Correct the class.",
        ),
        ({"source": SAYS_WHY}, "dots: split: too many. Take fewer."),
        (
            {"source": WRITES_NOTHING},
            "dots.yaml: generator: it wrote no 'anns/test.json'. Each split that is asked for "
            "needs its annotations. Correct the generator.",
        ),
    ],
)
def test_a_generator_that_cannot_be_used_is_explained(tmp_path, trusting, changed, message):
    cards = tmp_path / "cards"
    card = written_card(cards, **changed)
    wanted = message.replace("{folder}", str(cards))

    with pytest.raises(DataError, match=re.escape(wanted) + "$"):
        generate(card, tmp_path / "data")
    assert not list((tmp_path / "data").glob("*"))


def test_a_full_disk_is_told(tmp_path, trusting):
    card = written_card(tmp_path / "cards", source=FULL)

    with pytest.raises(RunError, match=r"dots: cannot be written \(No space left on device\)"):
        generate(card, tmp_path / "data")
    assert not list((tmp_path / "data").iterdir())


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        (
            {"test": 0},
            "dataset 'phantom_solo': 0 scenes for the split 'test'. At least one is needed. Leave "
            "the split out or give it a size.",
        ),
        (
            {},
            "dataset 'phantom_solo': no split to write. Give at least one split with its size.",
        ),
        (
            {"tests": 1},
            "dataset 'phantom_solo': unknown split 'tests'. Did you mean 'test'? Known splits: "
            "'test', 'train', 'val'.",
        ),
    ],
)
def test_sizes_that_cannot_be_written_are_explained(sizes, message, tmp_path):
    with pytest.raises(DataError, match=re.escape(message) + "$"):
        generate(load_dataset_card("phantom_solo"), tmp_path, sizes=sizes)


def test_a_split_that_only_comes_with_another_is_explained(tmp_path):
    """Pairs of one attribute are a split of their own, with the pictures of the test split."""
    with pytest.raises(DataError, match="phantom: phantom_pairs: unknown split 'size'"):
        generate(load_dataset_card("phantom_pairs"), tmp_path, sizes={"size": 5})


def test_a_card_without_a_generator_is_explained(tmp_path):
    message = (
        "dataset 'busi': no generator is known. A card that was read from a file and has the key "
        "'generator' is needed. Get the dataset's files instead."
    )
    with pytest.raises(DataError, match=re.escape(message) + "$"):
        generate(load_dataset_card("busi"), tmp_path)


@pytest.mark.parametrize("value", ["generator.py", "package.module:Class", "a b.py:Class"])
def test_the_key_names_a_file_and_a_class(tmp_path, value):
    with pytest.raises(CardError, match=r"dots.yaml:\d+: generator: found .* match pattern"):
        written_card(tmp_path, generator=value)
