"""A planted regression, through the command line, as the page on the gate has it.

A small model that listens to size and colour has its words for sizes made one and the same:
the rows of their tokens become equal. Nothing else is touched, so that the gate must turn
red where the size decides, and nowhere else.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from typer.testing import CliRunner

from harness.cards import load_dataset_card
from harness.cli import app
from harness.data.generators import generate
from harness.files import shipped

ROOT = Path(__file__).resolve().parents[2]
MODEL = "phantom-clipseg-crowd"
TOKENS = "clip.text_model.embeddings.token_embedding.weight"
SCENES = {"quick": 105, "whole": 200}
"""A fifth of the scenes differs in each attribute."""


def blocks(kind):
    """The code blocks of a kind in the page on the gate."""
    text = (ROOT / "harness/gate/README.md").read_text(encoding="utf-8")
    return re.findall(rf"```{kind}\n(.*?)```", text, flags=re.DOTALL)


def damaged(path):
    """The shipped weights, every word for a size now the word 'large'."""
    from safetensors.torch import load_file, save_file

    from harness.model.loading import load_model

    tokenize = load_model(MODEL, device="cpu").raw.tokenize
    rows = [int(tokenize([word])[0][0][1]) for word in ("small", "medium", "large")]
    weights = load_file(shipped("models") / "phantom" / f"{MODEL}.safetensors")
    weights[TOKENS][rows] = weights[TOKENS][rows[-1]].clone()
    save_file(weights, path)
    return path


class Workshop:
    """A folder with that page's suite, a card and scenes, and the commands run in it."""

    def __init__(self, folder, size):
        self.folder = folder
        sizes = {"test": SCENES[size]}
        generate(load_dataset_card("phantom_pairs"), folder / "data", sizes=sizes)
        suite = next(b for b in blocks("yaml") if b.startswith("name: guard"))
        (folder / "guard.yaml").write_text(suite, encoding="utf-8")
        shutil.copy(
            shipped("models") / "phantom" / f"{MODEL}.safetensors", folder / "mine.safetensors"
        )
        card = f"extends: {MODEL}\nname: mine\ncheckpoint: {{path: mine.safetensors}}\n"
        (folder / "card.yaml").write_text(card, encoding="utf-8")

    def run(self, name, *, weights=None, options=()):
        """Run the suite; returns the run directory."""
        out = self.folder / name
        card = f"{self.folder / 'card.yaml'}" + (f"={weights}" if weights else "")
        arguments = ["run", self.folder / "guard.yaml", "--model", card, "--out", out, "-q"]
        arguments += ["--data-root", self.folder / "data", "--device", "cpu", *options]
        result = CliRunner().invoke(app, [*map(str, arguments)])
        assert result.exit_code == 0, result.output
        return out

    def gate(self, *arguments):
        """Exit code and JSON of a gate."""
        command = ["gate", *map(str, arguments), "--json"]
        result = CliRunner().invoke(app, command, env={"GITHUB_ACTIONS": ""})
        assert result.exit_code in (0, 1, 3), result.output
        return result.exit_code, json.loads(result.stdout)


def made(factory, size):
    shop = Workshop(factory.mktemp("gate"), size)
    base = shop.run("base")
    code, _ = shop.gate(base, "--update", shop.folder / "baseline.json")
    assert code == 0
    return shop


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """With the undamaged model's run and its baseline file."""
    return made(tmp_path_factory, "quick")


def failed(content):
    return [(c["rule"], c["place"]) for c in content["checks"] if c["result"] == "failed"]


def check_red_on_size_alone(shop):
    run = shop.run("damaged", weights=damaged(shop.folder / "damaged.safetensors"))
    results = []
    for baseline in (shop.folder / "baseline.json", shop.folder / "base"):
        code, content = shop.gate(run, "--baseline", baseline)
        assert code == 1
        found = failed(content)
        assert {rule for rule, _ in found} == {
            "min_dice", "must_listen", "original_dice", "non_inferiority",
        }  # fmt: skip
        assert {place["split"] for _, place in found} == {"size", ""}
        assert {p["attribute"] for _, p in found if p["probe"] != "original"} == {"size"}
        assert not any(c["known"] for c in content["checks"])
        colour = [c for c in content["checks"] if "color" in str(c["place"])]
        assert {c["result"] for c in colour} == {"passed"}
        results.append([(c["rule"], c["place"], c["state"]) for c in content["checks"]])
    assert results[0] == results[1], "the file and the run agree"
    return content


def test_the_gate_is_red_on_the_damaged_attribute_and_on_nothing_else(shop):
    content = check_red_on_size_alone(shop)
    report = ElementTree.parse(shop.folder / "damaged" / "junit.xml").getroot()
    assert int(report.get("failures")) == len(failed(content)) == len(report.findall(".//failure"))


def test_eight_images_are_incomplete(shop):
    run = shop.run("eight", options=("--limit", "8"))
    code, content = shop.gate(run, "--baseline", shop.folder / "baseline.json")
    assert code == 3
    assert "8 images per dataset (--limit)" in content["checks"][0]["reason"]


def check_green_with_another_seed(shop):
    run = shop.run("seed", options=("--seed", "7"))
    code, content = shop.gate(run, "--baseline", shop.folder / "baseline.json")
    assert (code, failed(content)) == (0, [])
    assert content["pairing"].startswith("paired by cluster: the plans are two draws of one design")
    return content


@pytest.mark.slow
def test_whole_size_red_on_damage_and_green_on_another_seed(tmp_path_factory):
    """More scenes, and a probe that is drawn: another seed asks other words."""
    shop = Workshop(tmp_path_factory.mktemp("gate"), "whole")
    path = shop.folder / "guard.yaml"
    drawn = "  - {name: swap, perturbation: swap_value, attributes: [size, color], repeats: 2}\n"
    path.write_text(path.read_text().replace("gate:\n", drawn + "gate:\n"), encoding="utf-8")
    shop.run("base")
    assert shop.gate(shop.folder / "base", "--update", shop.folder / "baseline.json")[0] == 0
    check_green_with_another_seed(shop)
    plans = [(shop.folder / n / "plan.parquet").read_bytes() for n in ("base", "seed")]
    assert plans[0] != plans[1]
    content = check_red_on_size_alone(shop)
    losses = {
        (c["rule"], c["place"]["probe"]): c["high"]
        for c in content["checks"]
        if c["result"] == "failed" and c["rule"] in ("original_dice", "non_inferiority")
    }
    assert len(losses) == 3
    assert max(losses.values()) < -25, "percent, and points: far beyond the margin"


@pytest.mark.slow
def test_the_workflow_of_the_readme_runs(shop, tmp_path):
    """Every `run:` of it in a shell, as a job does; installing is left to the packaging tests."""
    workflow = yaml.safe_load(next(b for b in blocks("yaml") if b.startswith("name: prompts")))
    steps = workflow["jobs"]["gate"]["steps"]
    commands = [s["run"] for s in steps if "run" in s and s["name"] != "Install"]
    assert len(commands) == 2
    tool = tmp_path / "vlsm-harness"
    tool.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m harness "$@"\n')
    tool.chmod(0o755)
    page = tmp_path / "summary.md"
    environment = os.environ | {
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "GITHUB_ACTIONS": "true",
        "GITHUB_STEP_SUMMARY": str(page),
    }
    for command in commands:
        done = subprocess.run(
            ["bash", "-e", "-c", command],
            cwd=shop.folder, env=environment, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
    assert "good: " in done.stdout
    assert done.stdout.startswith("::stop-commands::")
    assert page.read_text(encoding="utf-8").startswith("### Gate of mine: good: ")
    uploaded = next(s["with"]["path"] for s in steps if "upload" in s.get("uses", ""))
    assert (shop.folder / uploaded).is_file()


def test_the_commands_before_the_workflow_are_those_that_make_the_baseline(shop):
    """The fixture runs them in this process; here they are read off the page."""
    lines = [line.removeprefix("$ ") for line in blocks("console")[0].splitlines()]
    assert lines == [
        "vlsm-harness run guard.yaml --model card.yaml --data-root data --out runs/base",
        "vlsm-harness gate runs/base --update baseline.json",
    ]
    assert (shop.folder / "baseline.json").stat().st_size < 40_000
