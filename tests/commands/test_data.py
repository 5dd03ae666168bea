"""``data init``: from a stranger's folder to a report without an editor."""

import importlib.util
import io
import json
import shlex
import sys
import time
from pathlib import Path

import pytest

SETS = Path(__file__).parents[1] / "data" / "formats" / "sets.py"


@pytest.fixture
def stranger(tmp_path):
    """Writes a set into a folder of its own; returns the folder."""
    spec = importlib.util.spec_from_file_location("sets_of_strangers", SETS)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def write(name, n=8):
        (tmp_path / name).mkdir()
        module.SETS[name](tmp_path / name, n)
        return tmp_path / name

    return write


def test_from_folders_to_a_report_without_an_editor(call, stranger, tmp_path):
    cards = []
    for name in ("semicolons", "parquet", "nifti"):
        code, out, err = call("data", "init", stranger(name), "--yes", "-q")
        assert code == 0, err
        assert f"Card: {tmp_path / name / 'card.yaml'}" in out
        cards.append(str(tmp_path / name / "card.yaml"))
    chosen = ["--datasets", ",".join(cards), "--data-root", tmp_path]

    code, out, err = call("check", "empty_prompt", *chosen, "-q")
    assert code == 0, err
    assert "parquet/test: 14 samples, 8 images, 4 clusters" in out
    assert "known defect: 3 rows without a mask are kept, with empty ones" in out

    model = ["--model", "phantom-image-only-crowd", "--limit", 3, "--out", tmp_path / "run"]
    code, out, err = call("run", "empty_prompt", *chosen, *model, "-q")
    assert code == 0, err
    assert "of 4 are empty" in (tmp_path / "run" / "summary.md").read_text()
    code, _, err = call("report", tmp_path / "run")
    assert code == 0, err
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000


def test_it_says_what_it_understood_and_what_comes_next(call, stranger, tmp_path):
    code, out, err = call("data", "init", stranger("refcoco"), "--yes")
    assert code == 0
    assert "refcoco: refs(unc).p, instances.json" in out
    assert "testA: 8 pairs on 7 pictures (1 with several targets), 16 prompts, 0 empty" in out
    assert "(--yes)" in err
    card = tmp_path / "refcoco" / "card.yaml"
    assert f"check empty_prompt --datasets {card} --data-root {tmp_path} --split val" in out


def test_a_program_reads_the_same(call, stranger, tmp_path):
    code, out, err = call("data", "init", stranger("csv"), "--yes", "--json")
    assert (code, err) == (0, "")
    said = json.loads(out)
    assert said["format"] == "table"
    assert said["splits"] == {"test": {"pairs": 11, "pictures": 8, "clusters": 4, "empty_masks": 0}}
    assert said["card"] == str(tmp_path / "csv" / "card.yaml")


def test_questions_are_asked_with_a_default(call, stranger, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("a polyp\nval\nno\n"))
    code, out, err = call("data", "init", stranger("folders"), "-q")
    assert code == 0, err
    assert "No table or JSON holds sentences: which one fits all? [folders]:" in err
    assert "val: 8 pairs on 8 pictures" in out
    assert "such as 'a polyp'" in out
    assert "clusters: image" in out


def test_nobody_answers(call, stranger, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    code, _, err = call("data", "init", stranger("folders"), "-q")
    assert code == 2
    assert "Nobody answers here. Give --yes for the default ('folders'), or the option" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--column", "image"], "--column: found 'image'. A pair is needed, such as --column"),
        (["--label", "one=liver"], "--label: found the value 'one'. A whole number is needed"),
        (["--window", "3,1"], "--window: found '3,1'. Two rising numbers are needed, such as"),
        (["--format", "tabel"], "--format: unknown format 'tabel'. Did you mean 'table'?"),
    ],
)
def test_a_wrong_option_is_told_with_an_example(call, stranger, options, message):
    code, _, err = call("data", "init", stranger("csv"), "--yes", *options)
    assert code == 2
    assert message in err


def test_the_wrong_root_is_answered_with_the_right_one(call, stranger, tmp_path):
    call("data", "init", stranger("csv"), "--yes", "-q")
    card = tmp_path / "csv" / "card.yaml"
    code, _, err = call("check", "empty_prompt", "--datasets", card, "-q")
    assert code == 2
    assert f"It lies beside its card: set --data-root {tmp_path}." in err


FORMS = (
    *("released", "csv", "semicolons", "parquet", "xlsx", "json", "folders", "label-maps", "lvit"),
    *("coco", "refcoco", "grefcoco", "hf-parquet", "hf-disk", "nifti"),
)


SEGMENT = """
def segment(image, prompt):
    mask = image[..., 0] > 150
    mask[:, 32:] &= "left" not in prompt
    mask[:, :32] &= "right" not in prompt
    return mask
"""


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_forty_pictures_in_any_form_go_to_a_report(call, stranger, tmp_path, form):
    """From `data init` without an editor; each journey says how it went."""
    began = time.process_time()
    code, out, err = call("data", "init", stranger(form, 40), "--yes", "--json")
    assert code == 0, err
    made = json.loads(out)
    check, run = (shlex.split(line)[1:] for line in made["next"])

    code, checked, err = call(*check, "-q")
    assert code == 0, err

    (tmp_path / "code.py").write_text(SEGMENT)
    (tmp_path / "card.yaml").write_text("name: half\nadapter: code.py:segment\nkind: callable\n")
    run[run.index("CARD")] = str(tmp_path / "card.yaml")
    run[1] = "paper"
    code, out, err = call(*run, "--limit", 20, "--out", tmp_path / "run", "-q", "--json")
    assert code == 0, err
    rows = json.loads(out)["rows"]
    dice = next(row["dice"] for row in rows if row["probe"] == "original")
    measured = {row["attribute"] for row in rows if row["relative_change_percent"] is not None}

    assert call("report", tmp_path / "run")[0] == 0
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert form in page
    sys.__stdout__.write(
        f"\n{form}: {made['format']}, {made['splits']}; {checked.splitlines()[-1]} "
        f"Dice {dice:.3f}; changed: {', '.join(sorted(filter(None, measured)))}; "
        f"page of {len(page):,} bytes; {time.process_time() - began:.0f} processor s"
    )
