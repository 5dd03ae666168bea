"""What the READMEs tell a reader to type and to paste: it is there, and it is as printed."""

import ast
import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest
import typer.main

import harness
from harness.cli import VERBS, app

ROOT = Path(__file__).resolve().parents[1]
READMES = [ROOT / "README.md", *sorted(ROOT.glob("[!.b]*/**/README.md"))]
COMMANDS = [
    (path.relative_to(ROOT).as_posix(), line)
    for path in READMES
    for block in re.findall(r"```console\n(.*?)```", path.read_text("utf-8"), flags=re.DOTALL)
    for line in re.findall(r"(?m)^\$ (?:\S+=\S+ )*(vlsm-harness .*)$", block.replace("\\\n", " "))
]
PYTHON = [
    (path.relative_to(ROOT).as_posix(), text)
    for path in READMES
    for text in re.findall(r"```python\n(.*?)```", path.read_text("utf-8"), flags=re.DOTALL)
]


def blocks(kind, name="README.md"):
    return re.findall(rf"```{kind}\n(.*?)```", (ROOT / name).read_text("utf-8"), flags=re.DOTALL)


@pytest.mark.parametrize(("name", "line"), COMMANDS, ids=[line for _, line in COMMANDS])
def test_a_command_has_that_verb_and_those_options(name, line):
    """Parsed as the command line would; what it does is the test of its verb."""
    program, verb, *arguments = shlex.split(line, comments=True)
    arguments = [a for a in arguments if a != "--trust-adapter"]  # taken anywhere in a line
    assert (program, verb in VERBS) == ("vlsm-harness", True)
    command = typer.main.get_command(app)
    with command.make_context("vlsm-harness", [verb, *arguments]) as context:
        found, parsed, rest = command.resolve_command(context, [verb, *arguments])
        while hasattr(parsed, "commands"):
            found, parsed, rest = parsed.resolve_command(context, rest)
        parsed.make_context(found, rest, parent=context)


@pytest.mark.parametrize(
    ("name", "text"), PYTHON, ids=[f"{n} {k}" for k, (n, _) in enumerate(PYTHON)]
)
def test_python_names_what_there_is(name, text):
    """Every import of the package, and every name of its public face."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("harness"):
            module = import_module(node.module)
            assert [a.name for a in node.names if not hasattr(module, a.name)] == []
        if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "harness":
            assert node.attr in harness.__all__


def test_the_examples_of_an_audit_run(photo_root, tmp_path, monkeypatch):
    """The first Python of the README as it stands, with a small model and few cases."""
    text = next(t for t in blocks("python") if "run.language" in t)
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    (here / "data").symlink_to(photo_root)
    small = text.replace('"clipseg=finetuned.ckpt"', '"phantom-cris-solo"')
    small = small.replace('suite="paper",', 'suite="paper", datasets=["kvasir_polyp"], limit=2,')
    assert small.count("limit=2") == small.count("phantom-cris-solo") == 1
    names = {}
    exec(compile(small, "README.md", "exec"), names)
    assert names["run"].cases().height > 10
    assert (here / "runs/mine/summary.md").is_file()


def test_the_demo_prints_what_the_readme_shows():
    """`make demo-report` writes the file; a test of the report says when it is stale."""
    printed = (ROOT / "reports/demo.txt").read_text("utf-8")
    (shown,) = (t for t in blocks("text") if t.startswith("Change of Dice"))
    assert shown.strip() in "\n".join(line.rstrip() for line in printed.splitlines())
    assert max(map(len, printed.splitlines())) <= 120


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 150
