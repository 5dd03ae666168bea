"""What is written of a gate: JUnit XML, GitHub's commands and Markdown, a table; hostile names."""

import io
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
import xmlschema
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from harness.gate.audited import Identity
from harness.gate.checks import Check, Place
from harness.gate.gating import Gated
from harness.report.gate import (
    MOST,
    annotations,
    command,
    gate_lines,
    junit_error,
    junit_xml,
    step_summary,
    stopped,
)

SCHEMA = xmlschema.XMLSchema(str(Path(__file__).with_name("junit.xsd")))
PLACE = Place("kvasir_polyp", "test", "released", "p6", "antonym", "size")
HOSTILE = (
    "a\x00b\x1b[31m\n::error::boo\r%0A##[error]x",
    "]]><b>&amp;\"'</testcase>",
    "\ufffe\U0001f600\u202e|pipe|`code`![x](y)",
    "[red]markup[/red] <script>alert(1)</script>",
)


def check(
    result="failed", rule="max_drop", place=PLACE, reason="Dice drops by 100 %: a, b.", **more
):
    state = {"failed": "fails", "passed": "holds", "incomplete": "unable", "warning": "open"}
    return Check(rule, place, "at most 5 %", state[result], reason, result=result, **more)


def gate(*checks, title="A suite", name="mine", code=1):
    own = Identity(name, f"{name}@1", "0" * 64, 0, {}, "dice|v:1", "verdict|v:1")
    return Gated(title, own, replace(own, model_id="old@1"), "paired case by case", checks, code)


ALL = gate(
    check(),
    check(rule="expectation", known=True),
    check("incomplete", rule="original_dice"),
    check("warning", rule="must_listen", place=Place("busi")),
    check("passed", rule="min_dice"),
    check("passed", rule="completeness", place=Place()),
)


def read(found):
    text = junit_xml(found)
    SCHEMA.validate(text)
    return ElementTree.fromstring(text)


def test_junit_says_what_became_of_each_check():
    root = read(ALL)
    counts = {k: root.get(k) for k in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "6", "failures": "2", "errors": "1", "skipped": "1"}
    suites = {s.get("name"): s for s in root}
    assert list(suites) == ["run", "busi", "kvasir_polyp"]
    cases = suites["kvasir_polyp"].findall("testcase")
    assert cases[0].get("classname") == "mine.kvasir_polyp.max_drop"
    assert cases[0].get("name") == "kvasir_polyp/test p6 antonym size: at most 5 %"
    outcome = [(e.tag, e.get("type"), e.get("message")) for c in cases for e in c]
    told = "Dice drops by 100 %: a, b."
    assert outcome == [
        ("failure", "fails", told),
        ("failure", "known", told),
        ("error", "unable", told),
    ]
    assert suites["busi"].find("testcase/skipped").get("message") == told
    properties = {p.get("name"): p.get("value") for p in suites["busi"].iter("property")}
    assert properties["baseline"] == "old@1"


def test_the_schema_refuses_what_is_no_junit():
    """Otherwise the tests above could not fail."""
    text = junit_xml(ALL)
    for old, new in (
        ("<failure ", "<failed "), ('tests="6"', 'tests="six"'), ('classname="', 'klass="'),
    ):  # fmt: skip
        changed = text.replace(old, new).replace("</failure>", "</failed>" if "failed" in new else
                                                 "</failure>")  # fmt: skip
        assert not SCHEMA.is_valid(changed)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_text_in_junit(name):
    root = read(gate(check(reason=name, place=Place(name, name, attribute=name)), name=name))
    assert len(root.findall("testsuite/testcase/failure")) == 1
    assert len(list(root.iter())) == 1 + 1 + 1 + 6 + 1 + 1


@given(st.text(max_size=40))
def test_any_text_gives_junit(text):
    SCHEMA.validate(junit_error(text))
    found = gate(check(reason=text, place=Place(text)), title=text, name=text)
    assert read(found).find("testsuite/testcase/failure") is not None


@given(st.text(max_size=60), st.text(max_size=60))
def test_a_command_is_one_line_that_reads_back(title, message):
    """As the runner reads it: one command, its title up to the next comma or colon."""
    line = command("error", title, message)
    assert len(line.splitlines()) == 1
    found = re.fullmatch(r"::error title=([^:,]*)::(.*)", line)
    assert found

    def unescape(text):
        for code, char in (("%3A", ":"), ("%2C", ","), ("%0D", "\r"), ("%0A", "\n"), ("%25", "%")):
            text = text.replace(code, char)
        return text

    from harness.report.escape import plain

    assert unescape(found[2]) == plain(message)
    assert unescape(found[1]) == plain(title)


def test_annotations_tell_new_failures_from_known_ones():
    lines = list(annotations(ALL))
    assert lines == [
        "::error title=new failure%3A max_drop kvasir_polyp/test p6 antonym size::"
        "Dice drops by 100 %25: a, b.",
        "::error title=known failure%3A expectation kvasir_polyp/test p6 antonym size::"
        "Dice drops by 100 %25: a, b.",
        "::error title=incomplete%3A original_dice kvasir_polyp/test p6 antonym size::"
        "Dice drops by 100 %25: a, b.",
        "::warning title=warning%3A must_listen busi::Dice drops by 100 %25: a, b.",
    ]


def test_what_github_would_not_show_is_counted():
    lines = list(annotations(gate(*[check()] * (MOST + 5))))
    assert len(lines) == MOST
    assert lines[-1] == (
        "::error title=vlsm-harness gate::6 more failed; the step summary lists them."
    )
    assert len(list(annotations(gate(*[check()] * MOST)))) == MOST


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_stay_text_on_github(name):
    found = gate(check(reason=name, place=Place(name)), name=name, title=name)
    lines = list(annotations(found))
    assert len(lines) == 1
    page = step_summary(found)
    assert [line for line in page.splitlines() if line.startswith("::")] == []
    assert "<script>" not in page
    assert "![" not in page.replace("\\![", "")
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 5 for row in rows)


def test_no_line_of_a_stopped_text_is_obeyed():
    lines = stopped("a\n::error::boo\n").splitlines()
    token = lines[0].removeprefix("::stop-commands::")
    assert re.fullmatch(r"[0-9a-f]{32}", token)
    assert lines[1:] == ["a", "::error::boo", f"::{token}::"]
    assert stopped("x") != stopped("x")


def test_the_summary_has_a_row_for_each_check():
    page = step_summary(ALL)
    assert page.startswith("### Gate of mine: failed: 2 passed, 2 failed (1 new, 1 known), 1 ")
    assert "Against old&#64;1: paired case by case." in page
    assert page.count("\n| ✅ |") == 2
    assert "| ❌ known | expectation | kvasir_polyp/test p6 antonym size | Dice drops by" in page


def shown(found):
    console = Console(file=io.StringIO(), width=160, color_system=None)
    for part in gate_lines(found):
        console.print(part)
    return console.file.getvalue()


def test_the_table_shows_what_did_not_pass_and_counts_the_rest():
    text = shown(ALL)
    lines = text.splitlines()
    assert lines[0] == "gate of mine: A suite"
    assert lines[1] == "against old@1: paired case by case"
    assert re.match(r"failed +max_drop +kvasir_polyp/test p6 antonym size +Dice drops by", lines[3])
    assert lines[4].startswith("failed (known)  expectation ")
    assert lines[-2] == "passed: min_dice 1, completeness 1"
    assert lines[-1] == (
        "failed: 2 passed, 2 failed (1 new, 1 known), 1 incomplete, 1 warnings of 6 checks"
    )


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_stay_text_in_a_terminal(name):
    text = shown(gate(check(reason=name, place=Place(name)), name=name))
    assert "\x1b" not in text
    assert "\x00" not in text
    assert "[red]" not in name or "[red]" in text
