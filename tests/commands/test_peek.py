"""``peek`` shows what changes, side by side, with texts alone."""

import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from harness.commands.peek import sides

ROOT = Path(__file__).resolve().parents[2]


def squeezed(text):
    return " ".join(text.split())


@pytest.fixture
def texts_alone(photo_root):
    """No picture and no mask is there."""
    for part in ("images", "masks"):
        for path in (photo_root / "kvasir_polyp" / part).iterdir():
            path.unlink()


@pytest.mark.usefixtures("texts_alone")
def test_words_that_change_stand_side_by_side(call):
    code, out, _ = call("peek", "antonym_swap", "--datasets", "kvasir_polyp", "--limit", "1")
    assert code == 0
    assert "kvasir_polyp: samples: 1, prompts: 1" in out
    assert "test_0.png: one small pink round polyp, located in top left of the image" in out
    assert "antonym (antonym; meaning changed)" in out
    lines = [squeezed(line) for line in out.splitlines()]
    assert any(
        line.startswith("size one [-small-] pink round polyp, located in")
        and "one {+large+} pink round polyp" in line
        for line in lines
    )


@pytest.mark.usefixtures("texts_alone")
def test_families_stand_together(call):
    _, out, _ = call("peek", "paper", "--datasets", "kvasir_polyp", "-n", "2")
    titles = [line for line in out.splitlines() if "; meaning " in line]
    assert titles == [
        "empty (empty; meaning removed)",
        "random_word (random_word; meaning destroyed)",
        "antonym (antonym; meaning changed)",
        "swap_value (swap_value; meaning changed)",
    ]


@pytest.mark.usefixtures("texts_alone")
def test_many_variants_are_counted_and_not_shown(call):
    one = ("peek", "random_word", "--datasets", "kvasir_polyp", "-n", "1")
    _, short, _ = call(*one)
    # six attributes with ten words each
    assert "42 more: --variants N shows them" in squeezed(short)
    assert short.count("{+") == 18
    _, long, _ = call(*one, "--variants", "10")
    assert long.count("{+") == 60
    assert "more:" not in long


@pytest.mark.usefixtures("texts_alone")
def test_what_does_not_apply_says_why(call):
    _, out, _ = call("peek", "antonym_swap", "--datasets", "kvasir_polyp", "-n", "1")
    assert "does not apply: antonym class: 'no polyp', the opposite of 'polyp', does not" in out


@pytest.mark.usefixtures("texts_alone")
def test_probes_are_chosen_by_name(call):
    _, out, _ = call("peek", "paper", "--datasets", "kvasir_polyp", "--probe", "empty,antonym")
    assert "random_word" not in out
    assert "empty (empty" in out
    code, _, err = call("peek", "paper", "--datasets", "kvasir_polyp", "--probe", "antonim")
    assert code == 2
    assert "--probe: unknown probe 'antonim'. Did you mean 'antonym'?" in err


def test_corrected_prompts_are_shown(call):
    _, released, _ = call("peek", "empty_prompt", "--datasets", "kvasir_polyp", "-n", "6")
    _, corrected, _ = call(
        "peek", "empty_prompt", "--datasets", "kvasir_polyp", "-n", "6", "--prompts", "corrected"
    )
    assert released != corrected


def test_a_table_is_shown_like_a_rule(call, photo_root, tmp_path):
    pl.DataFrame(
        {"image": ["test_0.png"], "prompt": ["one huge pink polyp"], "perturbation": ["said"]}
    ).write_csv(photo_root / "t.csv")
    suite = tmp_path / "mine.yaml"
    suite.write_text(
        "name: mine\ntitle: Mine\ndatasets:\n  - {name: kvasir_polyp}\n"
        "tables:\n  - {dataset: kvasir_polyp, file: t.csv}\n"
        "probes:\n  - {name: said, perturbation: table, meaning: changed}\n"
    )
    _, out, _ = call("peek", suite, "-n", "1")
    assert "said (table; meaning changed)" in out
    assert "one {+huge+} pink polyp" in squeezed(out)


def test_json_holds_all(call):
    _, out, _ = call("peek", "random_word", "--datasets", "kvasir_polyp", "-n", "1", "--json")
    rows = json.loads(out)
    assert len(rows) == 61
    assert rows[1].keys() >= {"original_prompt", "prompt", "edits", "probe", "attribute"}


def test_colours_say_what_the_marks_say():
    left, right = sides({"original_prompt": "small red polyp", "prompt": "large red polyp"})
    assert (left.plain, right.plain) == ("[-small-] red polyp", "{+large+} red polyp")
    assert [str(span.style) for span in left.spans] == ["red strike"]
    assert [str(span.style) for span in right.spans] == ["green"]


def test_control_characters_reach_no_terminal():
    left, right = sides({"original_prompt": "a \x1b[2J polyp", "prompt": "a \u202e polyp"})
    assert "\x1b" not in left.plain
    assert "\\x1b" in left.plain
    assert "\\u202e" in right.plain


def test_no_torch_is_loaded(photo_root):
    program = (
        "import sys; sys.argv = ['vlsm-harness', 'peek', 'paper', '--datasets', 'kvasir_polyp']\n"
        "from harness.cli import main\n"
        "main()\n"
    )
    check = "import atexit, sys; atexit.register(lambda: print('torch' in sys.modules))\n"
    found = subprocess.run(
        [sys.executable, "-c", check + program],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env=__import__("os").environ | {"VLSM_DATA_ROOT": str(photo_root)},
    )
    assert found.stdout.splitlines()[-1] == "False"


def test_a_prompt_of_several_samples_stands_once(call, photo_root):
    place = photo_root / "kvasir_polyp" / "anns" / "test.json"
    rows = json.loads(place.read_text(encoding="utf-8"))
    for row in rows:
        row["prompts"] = rows[0]["prompts"]
    place.write_text(json.dumps(rows), encoding="utf-8")
    _, out, _ = call("peek", "antonym_swap", "--datasets", "kvasir_polyp", "-n", "3")

    assert "kvasir_polyp: samples: 3, prompts: 1" in out
    assert "  test_0.png, test_2.png, test_4.png: one small pink round polyp, located in" in out
    assert sum("[-small-]" in line for line in out.splitlines()) == 1
