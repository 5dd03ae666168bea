"""The built wheel carries models and suites, and leaves the name `models` to its users."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

PROGRAM = """
import harness, importlib.util
from pathlib import Path
from harness.cards import dataset_names, load_dataset_card, model_names
from harness.data.generators import generate
from harness.files import shipped
from harness.model.loading import load_model
from harness.suite.schema import load_suite
assert Path(harness.__file__).is_relative_to(Path.cwd() / "site"), harness.__file__
assert shipped("models").name == "models" and "_shipped" in shipped("models").parts
assert importlib.util.find_spec("models") is None
assert len(load_suite("paper").datasets) == 11 and "busi" in dataset_names()
model = load_model("image-only-small", random_weights=True, device="cpu")
assert not type(model.raw).__module__.startswith("models"), type(model.raw).__module__
folder = generate(load_dataset_card("phantom_solo"), Path.cwd() / "data", sizes={"test": 2})
assert len(list((folder / "images" / "test").glob("*.png"))) == 2
assert importlib.util.find_spec("suites") is None and importlib.util.find_spec("phantom") is None
print(len(model_names()), harness.__version__)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    from hatchling.builders.wheel import WheelBuilder

    folder = tmp_path_factory.mktemp("wheel")
    return Path(next(WheelBuilder(str(ROOT)).build(directory=str(folder))))


def _is_of_the_checkout(path):
    """Itself or a folder of it, such as one of scripts; not the environment that lies in it."""
    return path.is_relative_to(ROOT) and "site-packages" not in path.parts


def test_an_installed_copy_finds_what_ships(wheel, tmp_path):
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    # An editable install and the working directory must not lead back to this checkout.
    path = [str(site), *(p for p in sys.path if p and not _is_of_the_checkout(Path(p).resolve()))]
    found = subprocess.run(
        [sys.executable, "-P", "-c", f"import sys; sys.path[:] = {path!r}\n{PROGRAM}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    assert int(found.stdout.split()[0]) >= 4


def test_the_wheel_holds_data_and_no_caches(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert "harness/_shipped/suites/paper.yaml" in names
    assert "harness/_shipped/models/clipseg/card.yaml" in names
    assert "harness/_shipped/suites/datasets/phantom/generator.py" in names
    assert "harness/_shipped/suites/datasets/phantom/frozen.json" in names
    assert "harness/prompts/data/uncommon_words.txt" in names
    assert not [n for n in names if n.startswith("harness/prompts/data/") and n.endswith(".py")]
    assert "harness/py.typed" in names
    for name in ("base.html.j2", "report.html.j2", "style.css", "page.js"):
        assert f"harness/report/templates/{name}" in names
    assert not [
        n for n in names if "__pycache__" in n or n.startswith(("tests/", "models/", "suites/"))
    ]
