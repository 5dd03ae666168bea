"""What ``summary.md`` says of the run itself, and what a run says when it is printed."""

import re
from dataclasses import replace

import pytest

import harness
from harness.auditing.summarising import summarise
from harness.plan.registration import SEAL
from harness.report.loaded import LoadedRun
from harness.report.markdown import record_lines
from harness.runs.store import RunStore

REGISTERED = {"registered": "2026-01-02T03:04:05+00:00", SEAL: "ab" * 32, "differs": []}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A summarised run of two models."""
    import importlib.util
    import sys
    from pathlib import Path

    place = Path(__file__).parents[1] / "stats" / "conftest.py"
    spec = importlib.util.spec_from_file_location("synthetic_said", place)
    runs = importlib.util.module_from_spec(spec)
    sys.modules["synthetic_said"] = runs
    spec.loader.exec_module(runs)
    made = runs.make_run({"inside": 60}, n_words=3)
    folder = tmp_path_factory.mktemp("said") / "run"
    summarise(RunStore(runs.write_run(folder, replace(made))))
    return folder


def test_the_summary_says_what_was_registered_and_what_was_limited(folder):
    store = RunStore(folder)
    assert "registered" not in (folder / "summary.md").read_text(encoding="utf-8")
    store.update(registration=REGISTERED, limit=5)
    summarise(store)
    text = " ".join((folder / "summary.md").read_text(encoding="utf-8").split())
    assert "Registered on 2026-01-02T03:04:05+00:00 (seal abababababab); run as registered." in text
    assert (
        "The run was limited (--limit 5): it knows 5 pictures of each data set at most, not the "
        "whole sets." in text.replace("\\", "")
    )
    differs = {**REGISTERED, "differs": ["suite: probes"]}
    (line,) = record_lines({"registration": differs})
    assert line.endswith("; differs in suite: probes.")


def test_a_run_that_is_printed_says_what_it_found(folder):
    run = harness.load_run(folder)
    first, *lines, last = str(run).splitlines()
    assert first == repr(run)
    assert repr(run).startswith(f"LoadedRun('{folder}': suite ")
    assert "m, blind" in repr(run)
    assert {line.partition(":")[0] for line in lines} == {"m", "blind"}
    assert last == "Figures: .summary, .language, .verdicts, .cases()"


def test_a_run_without_verdicts_can_be_printed(tmp_path, folder):
    import shutil

    shutil.copytree(folder, tmp_path / "run")
    (tmp_path / "run" / "verdicts.json").unlink()
    text = str(harness.load_run(tmp_path / "run"))
    assert text.startswith("LoadedRun('")
    assert "no verdicts.json here" in text
    assert repr(LoadedRun(tmp_path)) == f"LoadedRun('{tmp_path}')"


def test_a_run_that_asks_for_no_verdict_says_its_dice(folder):
    run = harness.load_run(folder)
    run.assessment = replace(run.assessment, language=())
    lines = str(run).splitlines()[1:-1]
    assert len(lines) == 2
    assert all(
        re.fullmatch(r"(m|blind) on inside \(test, p6\): Dice 0\.\d+ \[.*\]", x) for x in lines
    )
