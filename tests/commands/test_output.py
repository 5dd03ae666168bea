"""What commands print obeys nobody: no stranger's name moves a cursor or commands a CI job."""

import io
import json
import re
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text

from harness.commands.output import say, say_json, terminal
from harness.commands.progress import Terminal

HOSTILE = "a\x1b[2J\r\u202e\n::error::b\x9b1A ##[add-mask]c ##vso[task.x]\ud800"
OBEYED = re.compile(r"^\s*::\w|##(\w*)\[", re.MULTILINE)


def check_harmless(text):
    assert text.replace("\n", "").isprintable(), text
    assert not OBEYED.search(text), text


@pytest.mark.parametrize("err", [False, True])
def test_a_line_is_escaped(capsys, err):
    say(f"{HOSTILE}: no such model", err=err)
    shown = capsys.readouterr()
    text = shown.err if err else shown.out
    check_harmless(text)
    assert text.startswith("a\\x1b[2J\\r\\u202e\n\\::error::b")


def test_json_is_the_same_content(capsys):
    say_json({HOSTILE.replace("\ud800", ""): ["é", "\U0001f600", "\u2028", "## x"]})
    text = capsys.readouterr().out
    check_harmless(text)
    assert json.loads(text) == {
        HOSTILE.replace("\ud800", ""): ["é", "\U0001f600", "\u2028", "## x"]
    }


def test_a_table_is_escaped_line_by_line(capsys):
    table = Table(box=None)
    table.add_column("where")
    table.add_row(Text("\x1b[31mred " + "word " * 30 + "::error::b"))
    console = terminal(30)
    console.print(table)
    console.print(Text(f"x {HOSTILE}"), soft_wrap=True)
    console.print("[link=http://a]b[/link] :smile:", soft_wrap=True)
    text = capsys.readouterr().out
    check_harmless(text)
    assert "\\x1b[31mred" in text
    assert "[link=http://a]b[/link] :smile:" in text


def test_colours_of_ones_own_are_kept():
    file = io.StringIO()
    console = terminal(file=file, force_terminal=True, color_system="standard")
    console.print(Text("bold\x1b[2J", style="bold"))
    assert file.getvalue() == "\x1b[1mbold\\x1b[2J\x1b[0m\n"


def test_a_title_of_progress_is_escaped(capsys):
    with Terminal().progress(HOSTILE, 1) as advance:
        advance(1)
    check_harmless(capsys.readouterr().err)


SUITE = """\
name: mine
title: Mine
datasets: [{{name: kvasir_polyp, split: test}}]
probes: [{{name: gone, perturbation: empty}}]
{extra}
"""


@pytest.mark.parametrize(
    "extra",
    [
        '"\\n::error::pwned": 1',
        '"\\e[2J\\r::warning::x": 1',
        '"##[add-mask]x": 1',
        '"\\u202ekey": 1',
        'title: "\\n::error::pwned"',
        'lexicon: "\\n::error::pwned"',
        "lexicon: 2001-99-99",
        'includes: ["\\n::error::pwned"]',
        'tables: [{dataset: x, "\\n::error::pwned": 2}]',
        "words: !!int x",
        "words: " + "9" * 5000,
        "words: " + "[" * 3000,
        'datasets2: [{name: "a\\0.yaml"}]',
    ],
)
def test_no_key_or_value_of_a_suite_is_obeyed(call, tmp_path, extra):
    path = tmp_path / "mine.yaml"
    path.write_text(SUITE.format(extra=extra), encoding="utf-8")
    code, out, err = call("check", path, "--quiet")
    assert code == 2
    assert err.startswith(f"error: {path}:")
    check_harmless(out)
    check_harmless(err)


@pytest.mark.parametrize(
    "name",
    ["a" * 300 + ".yaml", "a" * 300, "../" * 50 + "x.yaml", "::error::x.yaml", "\x1b[2J.yaml"],
)
def test_a_name_that_is_no_file_is_told(call, name):
    for verb in (["check"], ["check", "paper", "--model"], ["check", "paper", "--datasets"]):
        code, out, err = call(*verb, name)
        assert code == 2, (verb, err)
        check_harmless(out)
        check_harmless(err)


def test_prompts_and_names_of_a_data_set_are_shown_escaped(call, photo_rows, tmp_path):
    rows, save = photo_rows
    rows[0]["prompts"]["p6"] = "\x1b[2J\n::error::pwned"
    save()
    code, out, err = call("check", "paper", "--datasets", "kvasir_polyp")
    assert code == 2
    check_harmless(out)
    check_harmless(err)


@pytest.mark.parametrize("verb", [["check"], ["plan"], ["peek"]])
def test_a_byte_order_mark_changes_nothing(call, photo_root, verb):
    path = photo_root / "kvasir_polyp" / "anns" / "test.json"
    arguments = [*verb, "empty_prompt", "--datasets", "kvasir_polyp", "--json"]
    plain = call(*arguments)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    marked = call(*arguments)
    assert plain[0] == marked[0] == 0
    if verb != ["check"]:
        assert marked[1] == plain[1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"img_name": NaN}]', "not valid JSON (NaN is no number of JSON). Export the file again"),
        ('[{"img_name": "a", "img_name": "b"}]', "the key 'img_name' stands twice"),
        ('[{"img_name": "\\ud800"}]', "holds the character NUL or half of a surrogate pair"),
        ("[" + "9" * 5000 + "]", "not valid JSON ("),
        ('{"a": ' * 5000, "nested too deeply."),
        ('[{"img_name": "\\u001b[2J\\n::error::", "mask_name": 1}]', "'mask_name' is 1."),
        ('[{"img_name": "' + "a" * 400 + '.png", "mask_name": "a", "prompts": {}}]', "255 bytes"),
        ('[{"img_name": "..\\\\..\\\\a", "mask_name": "a", "prompts": {}}]', "leaves the folder"),
    ],
)
def test_annotations_that_break_readers_are_told(call, photo_root, text, message):
    path = photo_root / "kvasir_polyp" / "anns" / "test.json"
    path.write_text(text, encoding="utf-8")
    code, out, err = call("plan", "empty_prompt", "--datasets", "kvasir_polyp")
    assert code == 2
    assert message in err
    check_harmless(out)
    check_harmless(err)


def test_every_print_of_a_command_passes_the_escape():
    """`typer.echo`, `print` and rich's own console stand in these files alone."""
    folder = Path(__file__).parent.parent.parent / "harness"
    found = {
        path.name
        for path in [*(folder / "commands").glob("*.py"), folder / "cli.py"]
        if re.search(r"typer\.echo\(|\bConsole\(|(?<!\.)\bprint\(", path.read_text())
    }
    assert found == {"output.py", "progress.py", "gate.py", "cli.py"}


@pytest.mark.parametrize("option", ["--data-root", "--datasets"])
def test_a_name_that_no_disk_holds_is_told(call, option):
    code, _, err = call("plan", "empty_prompt", option, "a" * 300)
    assert code == 2
    assert err.startswith("error: ")
