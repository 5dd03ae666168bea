"""Fixtures shared by all tests: where the project's shared folder lies, if it does."""

import atexit
import gc
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent

# Collecting makes millions of objects that stay; to look for garbage among them takes a fifth of
# the time. Garbage of the tests themselves is little: it is looked for more seldom than usual.
gc.disable()
gc.set_threshold(20_000, 20, 20)

# The tests' own adapters lie outside `models/`; tests of the question take this away.
os.environ["VLSM_TRUST_ADAPTERS"] = "1"

# No test survives a power cut, and disks take their time.
os.fsync = lambda _: None

# Exports of this run of the tests, and of nobody else.
os.environ["VLSM_HARNESS_CACHE"] = tempfile.mkdtemp(prefix="vlsm-exports-")
atexit.register(shutil.rmtree, os.environ["VLSM_HARNESS_CACHE"], ignore_errors=True)

# Times vary on shared machines and say nothing about correctness; fixed examples repeat.
settings.register_profile(
    "house", deadline=None, derandomize=True, print_blob=True, max_examples=50
)
settings.register_profile("thorough", deadline=None, print_blob=True, max_examples=1000)
settings.load_profile("house")


def shared_folder() -> Path:
    """The folder of reference material beside a developer's checkout."""
    return Path(os.environ.get("VLSM_SHARED", ROOT.parent / "shared"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real annotations and images; tests that need them skip where they are absent."""
    folder = shared_folder() / "data"
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder}: set VLSM_SHARED to test on real annotations")
    return folder


@pytest.fixture(scope="session")
def shared_reference() -> Path:
    """Facts and golden values of the reference; tests that need them skip where they are absent."""
    folder = shared_folder() / "reference"
    if not folder.is_dir():
        pytest.skip(f"no shared reference at {folder}: set VLSM_SHARED to compare with it")
    return folder


SHAPES = ("round", "a circle", "oval", "it is round", "a large, oval bump")
COLORS = ("pink", "white", "brown")
PLACES = ("top left", "center", "right", "top left, bottom")


def photo_prompts(size: str, color: str, shape: str, location: str, *, number: str = "one"):
    """P0-P6 and one of P7 in the paper's photo grammar."""
    described = f"{number} {size} {color} {shape} polyp"
    return {
        "p0": "",
        "p1": "polyp",
        "p2": f"{shape} polyp",
        "p3": f"{color} {shape} polyp",
        "p4": f"{size} {color} {shape} polyp",
        "p5": described,
        "p6": f"{described}, located in {location} of the image",
        "p7": ["polyp which is a projecting growth of tissue", "polyp which is a small lump"],
    }


def write_photo_dataset(root: Path, name: str, *, split: str = "test", n: int = 6, seed: int = 0):
    """A small dataset in the layout of the paper's code: bright discs on noise.

    Returns the annotation rows, so that a test can spoil one and write them again.
    """
    folder = root / name
    for part in ("anns", "images", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([seed, n])
    rows = []
    for index in range(n):
        height, width = (40, 48) if index % 2 else (48, 40)
        y, x = np.mgrid[:height, :width]
        center = rng.integers(12, 28, 2)
        mask = (y - center[0]) ** 2 + (x - center[1]) ** 2 <= rng.integers(4, 11) ** 2
        image = rng.integers(0, 120, (height, width, 3)).astype(np.uint8)
        image[mask] += 120
        file = f"{split}_{index}.png"
        Image.fromarray(image).save(folder / "images" / file)
        Image.fromarray(mask.astype(np.uint8) * 255).save(folder / "masks" / file)
        prompts = photo_prompts(
            ("small", "large", "medium")[index % 3],
            COLORS[index % 3],
            SHAPES[index % 5],
            PLACES[index % 4],
        )
        rows.append({"img_name": file, "mask_name": file, "prompts": prompts})
    (folder / "anns" / f"{split}.json").write_text(json.dumps(rows), encoding="utf-8")
    return rows


@pytest.fixture
def photo_root(tmp_path: Path) -> Path:
    """A data root with a small ``kvasir_polyp`` (6 images) and ``isic``-free layout."""
    write_photo_dataset(tmp_path / "data", "kvasir_polyp")
    return tmp_path / "data"


@pytest.fixture
def photo_rows(photo_root: Path):
    """The rows of `photo_root`, and a function that writes them back."""
    path = photo_root / "kvasir_polyp" / "anns" / "test.json"
    rows = json.loads(path.read_text(encoding="utf-8"))
    return rows, lambda: path.write_text(json.dumps(rows), encoding="utf-8")


@pytest.fixture
def toy_card(tmp_path: Path):
    """Path of a card for the toy model, with settings of one's own."""

    def write(kind: str = "toy", **settings) -> Path:
        card = (ROOT / "tests" / "toys" / f"{kind}.yaml").read_text(encoding="utf-8")
        card = card.replace("adapter.py", str(ROOT / "tests" / "toys" / "adapter.py"))
        path = tmp_path / f"{kind}.yaml"
        path.write_text(card + f"settings: {json.dumps(settings)}\n", encoding="utf-8")
        return path

    return write


@pytest.fixture
def backend() -> str:
    """What computes; tests of both name it as a parameter."""
    return "torch"


@pytest.fixture
def planned(photo_root: Path):
    """A function that plans a suite on `photo_root`."""

    def plan(suite="paper", **options):
        from harness.auditing.choices import select_suite
        from harness.auditing.samples import read_sets
        from harness.plan.build import build_plan

        chosen = select_suite(suite, datasets=options.pop("datasets", ["kvasir_polyp"]))
        sets = read_sets(chosen, photo_root, **options)
        return chosen, sets, build_plan(chosen, sets)

    return plan


@pytest.fixture
def write_photos():
    """`write_photo_dataset`, for tests that want more than one split."""
    return write_photo_dataset


@pytest.fixture
def call(monkeypatch, capsys, photo_root):
    """Run the command in this process; returns exit code, stdout and stderr."""

    from harness.cli import main

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["vlsm-harness", *map(str, arguments)])
        monkeypatch.setenv("VLSM_DATA_ROOT", str(photo_root))
        code = 0
        try:
            main()
        except SystemExit as leaving:
            code = leaving.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def pytest_collection_finish() -> None:
    """What was imported stays: the collector need not look at it after every test."""
    gc.collect()
    gc.freeze()
    gc.enable()


# Else libraries count as leaked what was frozen; later than pytest's own look for garbage.
atexit.register(gc.unfreeze)
