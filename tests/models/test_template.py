"""A new user follows models/README.md to the letter, through the real command line."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from harness.cards import load_model_card
from harness.cli import main
from harness.commands.demo import shipped_models
from harness.model.checks import CHECKS

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "models" / "README.md").read_text(encoding="utf-8")
LEVELS = ["black box", "staged"]


def blocks():
    """Files that the page asks for, in its order: (name, content) of each block under a path."""
    pattern = r"^`(my_model/[\w.]+)`\n\n```\w+\n(.*?)^```$"
    return re.findall(pattern, README, flags=re.MULTILINE | re.DOTALL)


def commands():
    """What the page types into a console: arguments of each ``$ vlsm-harness`` line."""
    return [line.split()[2:] for line in README.splitlines() if line.startswith("$ vlsm-harness ")]


@pytest.fixture(params=LEVELS)
def level(request, tmp_path, monkeypatch):
    """The name of a level, whose files lie in the working directory."""
    written = blocks() if request.param == "staged" else blocks()[:3]
    for name, content in written:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return request.param


def test_the_page_has_the_files_and_commands_it_speaks_of():
    names = [name for name, _ in blocks()]
    assert names == [
        f"my_model/{n}" for n in ("network.py", "card.yaml", "adapter.py", "adapter.py")
    ]
    assert [arguments[0] for arguments in commands()] == [
        *("check", "run", "score"),
        *("finetune", "finetune"),  # of small CLIPSegs and
        *("finetune", "run"),  # of lite, tried by tests of their own
    ]


def test_the_adapters_are_as_short_as_the_headings_say():
    black_box, staged = (content for name, content in blocks() if name.endswith("adapter.py"))
    assert len(black_box.splitlines()) <= 30
    assert len(staged.splitlines()) <= 60


def test_the_template_is_what_the_page_shows():
    shown = dict(blocks())  # of two adapters the later one, the staged
    for name in ("network.py", "adapter.py"):
        text = (ROOT / "models" / "template" / name).read_text(encoding="utf-8")
        assert text == shown[f"my_model/{name}"]


def test_the_template_is_listed_as_one_and_never_audited_by_itself():
    card = load_model_card("template").card
    assert card.title.startswith("Template to copy (")
    assert card.weights is None
    assert card.checkpoint is None
    assert "template" not in shipped_models()
    shown = dict(blocks())["my_model/card.yaml"].splitlines()
    text = (ROOT / "models" / "template" / "card.yaml").read_text(encoding="utf-8")
    assert text.splitlines()[2:] == shown[2:]


def test_following_the_page_passes_check(level):
    found = subprocess.run(
        [sys.executable, "-m", "harness", *commands()[0]],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""},
        check=False,
    )

    assert found.returncode == 0, found.stdout + found.stderr
    lines = found.stdout.splitlines()
    offers, n_holds = {"black box": ("predict", 18), "staged": ("stages", 19)}[level]
    assert re.match(rf"my-model-random0@\w+: offers {offers}; 0.0313 M parameters", lines[0])
    rest = f"{n_holds} hold, 0 findings, 0 fail, {len(CHECKS) - n_holds} not applicable."
    assert rest in found.stdout


@pytest.mark.usefixtures("level")
def test_the_wrapped_model_runs_a_suite(photo_root, monkeypatch):
    """The page's own command, on the tests' small dataset instead of painted scenes."""
    arguments = commands()[1]
    arguments[arguments.index("--datasets") + 1] = "kvasir_polyp"
    more = ["--data-root", str(photo_root), "--device", "cpu", "-q"]
    monkeypatch.setattr(sys, "argv", ["vlsm-harness", *arguments, *more])
    with pytest.raises(SystemExit) as leaving:
        main()

    assert leaving.value.code in (0, None)
    manifest = json.loads(Path("runs/mine/run.json").read_text(encoding="utf-8"))
    counts = manifest["counts"]
    assert manifest["status"] == "complete"
    assert counts["done"] == counts["planned"] > 100
    assert counts["failed"] == 0
    assert manifest["models"][0]["name"] == "my-model"
