"""``check --model``: a table, JSON, and exit codes."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.cli import main
from harness.model.checks import CHECKS

TOYS = Path(__file__).resolve().parents[1] / "toys"


@pytest.fixture
def call(monkeypatch, capsys, photo_root):
    """Run the command in this process; returns exit code, stdout and stderr."""

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


@pytest.fixture
def card(tmp_path):
    """A function that writes a card of the faulty toy."""

    def write(fault="", name="faulty"):
        path = tmp_path / f"{name}.yaml"
        path.write_text(
            f"name: {name}\ntitle: A toy\nadapter: {TOYS}/faulty.py:WithPredict\nthreshold: 0.5\n"
            "aspect: stretched\n"
            f"settings: {{fault: {fault!r}}}\n"
        )
        return path

    return write


def arguments(card, *more):
    return ["check", "--model", card, "--random-weights", "--device", "cpu", *more]


def test_a_sound_model_gets_a_table_and_exit_0(call, card):
    code, out, err = call(*arguments(card()))

    assert code == 0
    first, *lines = out.splitlines()
    assert first.startswith("faulty-random0@")
    assert (
        ": offers predict, stages, tokenize, text_embedding, decoder_modules; 0.00114 M "
        "parameters; pixels 24 x 32; cpu, float32; random numbers instead of weights"
    ) in first
    assert [line for line in CHECKS if not any(row.startswith(line) for row in lines)] == []
    assert f"{len(CHECKS)} hold, 0 findings, 0 fail, 0 not applicable." in out
    assert f"check {card()}: {len(CHECKS)} of {len(CHECKS)}" in err
    # The data of the suite is not asked for.
    assert "prompts parsed" not in out


def test_a_broken_model_exits_2(call, card):
    code, out, _ = call(*arguments(card("not finite")))
    assert code == 2
    assert "Every logit must be a finite number." in " ".join(out.split())


@pytest.mark.parametrize(("more", "expected"), [([], 0), (["--strict"], 2)])
def test_a_finding_exits_2_only_if_strict(call, card, more, expected):
    code, out, _ = call(*arguments(card("prompt dropped"), *more))
    assert code == expected
    assert "1 finding, 0 fail" in out
    assert "Different prompts should differ by more." in " ".join(out.split())


def test_quiet_shows_what_does_not_hold(call, card):
    _, out, err = call(*arguments(card("probabilities"), "-q"))
    rows = out.splitlines()
    assert rows[2].startswith("scale  finding")
    assert "preprocess" not in out
    assert err == ""


def test_several_models_as_json(call, card):
    sound, broken = card(), card("neighbours matter", name="mixed")
    code, out, err = call(*arguments(sound, "--model", broken, "--json"))

    assert code == 2
    assert err == ""
    models = json.loads(out)["models"]
    assert [model["card"] for model in models] == [str(sound), str(broken)]
    assert models[0]["offers"][0] == "predict"
    assert [check["name"] for check in models[0]["checks"]] == list(CHECKS)
    by_name = {check["name"]: check for check in models[1]["checks"]}
    assert by_name["batch = one by one"]["outcome"] == "fails"
    assert by_name["batch = one by one"]["sentence"].startswith("decode: logits of one batch and")


def test_own_pictures_and_prompts(call, card, tmp_path):
    Image.fromarray(np.full((9, 12, 3), 200, dtype=np.uint8)).save(tmp_path / "a.png")
    more = ["--picture", tmp_path / "a.png", "--prompt", "a polyp", "--prompt", "a melanoma"]
    code, out, _ = call(*arguments(card(), *more))
    assert code == 0
    assert "decode: logits (2, 24, 32) for 2 pictures." in out

    code, _, err = call(*arguments(card(), "--prompt", "a polyp"))
    assert code == 2
    assert "check: found 2 pictures and 1 different prompts. At least one picture and two" in err
    code, _, err = call(*arguments(card(), "--picture", tmp_path / "b.png"))
    assert code == 2
    assert "b.png: the image is missing." in err


def test_a_suite_and_a_model_in_one_call(call, card):
    code, out, _ = call(*arguments(card(), "paper", "--datasets", "kvasir_polyp", "--json"))
    content = json.loads(out)
    assert code == 0
    assert content["datasets"][0]["samples"] == 6
    assert content["cases"] > 100
    assert len(content["models"]) == 1


def test_a_checkpoint_goes_with_one_model(call, card):
    more = ["--model", card(name="other"), "--checkpoint", "x.ckpt"]
    code, _, err = call(*arguments(card(), *more))
    assert code == 2
    assert "--checkpoint: given with 2 models. It goes with exactly one --model" in err


def test_without_a_model_no_torch_is_imported(photo_root):
    program = (
        "import sys\nfrom harness.cli import app\n"
        f"root = {str(photo_root)!r}\n"
        "sys.argv = ['x', 'check', '--datasets', 'kvasir_polyp', '--data-root', root]\n"
        "try: app()\nexcept SystemExit: pass\n"
        "assert 'torch' not in sys.modules"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert "6 samples" in found.stdout
