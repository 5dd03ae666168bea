"""``gate`` as a user and a CI job meet it: exit codes, files, streams, errors."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]
KEPT = {"synonym": 1.0, "gone": 0.7, "noise": 0.8, "antonym": 0.2}


@pytest.fixture(autouse=True)
def no_actions(monkeypatch):
    """These tests may run in a job of GitHub Actions themselves."""
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)


def call(*arguments):
    return CliRunner().invoke(app, ["gate", *map(str, arguments)])


def refused(message, *arguments, error=UsageError):
    found = call(*arguments).exception
    assert isinstance(found, error), found
    assert re.search(re.escape(message), str(found)), found


def test_a_good_run_exits_0_with_a_table_and_a_junit_file(write):
    run = write("run")
    result = call(run)
    assert result.exit_code == 0, result.output
    assert "gate of m: A suite" in result.output
    assert "good: 2 passed, 0 failed, 0 incomplete, 0 warnings of 2 checks" in result.output
    assert f"{run / 'junit.xml'}" in result.output
    assert ElementTree.parse(run / "junit.xml").getroot().get("failures") == "0"
    assert call(run, "-q").output == ""


def test_a_failed_gate_exits_1_and_has_written_everything(write, tmp_path, monkeypatch):
    page, junit = tmp_path / "page.md", tmp_path / "out" / "gate.xml"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(page))
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    result = call(write("run", gate={"min_dice": 0.99}), "--junit", junit)
    assert result.exit_code == 1
    assert "::error title=failure%3A min_dice d/test p6 original::Mean Dice is 0.7" in result.output
    assert ElementTree.parse(junit).getroot().get("failures") == "1"
    assert "| ❌ | min_dice | d/test p6 original | Mean Dice is" in page.read_text(encoding="utf-8")


def test_nothing_is_said_to_github_unless_it_is_there(write):
    run = write("run", gate={"min_dice": 0.99})
    assert "::" not in call(run).output
    assert "::error " in call(run, "--github").output


def test_json_is_for_programs(write):
    result = call(write("run", gate={"min_dice": 0.99}), "--json", "--github")
    content = json.loads(result.stdout)
    assert (result.exit_code, content["exit_code"], content["version"]) == (1, 1, 1)
    first = content["checks"][0]
    assert (first["rule"], first["result"], first["place"]["probe"]) == (
        "min_dice", "failed", "original",
    )  # fmt: skip
    assert first["low"] < first["estimate"] < first["high"] < 0.99
    assert result.stderr.startswith("::error ")


def test_an_open_rule_is_a_warning_or_a_failure_when_strict(write):
    run = write("run", gate={"min_dice": 0.78})
    result = call(run)
    assert result.exit_code == 0
    assert "neither shown to be Dice of at least 0.78 nor to be worse." in " ".join(
        result.output.replace("\n", " ").split()
    )
    assert call(run, "--strict").exit_code == 1


def test_a_baseline_is_written_and_compared_with(write, behaviour, tmp_path):
    file = tmp_path / "deep" / "base.json"
    good = write("good")
    result = call(good, "--update", file)
    assert result.exit_code == 0
    assert f"baseline written: {file}" in result.stderr
    assert call(good, "--baseline", file, "-q").exit_code == 0
    worse = write("worse", behaviour(left=KEPT | {"gone": 0.4}))
    result = call(worse, "--baseline", file)
    assert result.exit_code == 1
    assert "1 failed (1 new, 0 known)" in result.output
    assert call(worse, "--baseline", good, "-q").exit_code == 1
    assert call(worse, "--baseline", worse, "-q").exit_code == 0


def test_lenient_forgives_what_is_not_shown(write, behaviour):
    old = write("old", behaviour(noise=0.0))
    near = write("near", behaviour(left=KEPT | {"gone": 0.655}, noise=0.05, model_seed=3))
    assert call(near, "--baseline", old, "-q").exit_code == 1
    assert call(near, "--baseline", old, "-q", "--lenient").exit_code == 0


def test_known_failures_fail_unless_the_suite_says_warn(write, behaviour):
    worse = behaviour(left=KEPT | {"synonym": 0.5})
    old = write("old", worse)
    assert call(write("new", worse), "--baseline", old, "-q").exit_code == 1
    result = call(write("warn", worse, gate={"known": "warn"}), "--baseline", old)
    assert result.exit_code == 0
    assert "warning (known)" in result.output


def test_an_incomplete_run_exits_3_and_is_no_baseline(write, tmp_path):
    lost = write("lost", lost=2)
    assert call(lost).exit_code == 3
    result = call(lost, "--update", tmp_path / "base.json")
    assert result.exit_code == 3
    assert (
        f"error: {tmp_path / 'base.json'}: not written, the run is not whole: 838 of 840 cases. A "
        "baseline holds every case of the suite. Finish the run without --limit."
    ) in result.stderr
    assert not (tmp_path / "base.json").exists()
    cut = call(write("cut", limit=8, n=8), "--update", tmp_path / "base.json")
    assert (cut.exit_code, "cut with --limit 8" in cut.stderr) == (3, True)


def test_what_the_user_can_repair(write, tmp_path, behaviour):
    run = write("run")
    refused(f"{tmp_path}: no run.json here. A run directory is needed.", tmp_path)
    assert not (tmp_path / "junit.xml").exists()
    refused("nowhere.json: no such file. A baseline is a run directory or a file.",
            run, "--baseline", tmp_path / "nowhere.json")  # fmt: skip
    refused("prompt drift: ", write("other", lexicon="other"), "--baseline", run)
    assert call(tmp_path / "other", "--baseline", run, "--allow-drift", "-q").exit_code == 0
    refused("the metric signature of the baseline is ", write("thr", threshold=0.2),
            "--baseline", run)  # fmt: skip
    two = write("two", more=[("other", behaviour())])
    refused(
        "the run holds 2 models, controls apart: 'm', 'other'. The gate is for one. Name it with",
        two,
    )
    assert call(two, "--model", "other", "-q").exit_code == 0
    assert call(two, "--model", "m", "--baseline", two, "-q").exit_code == 0


def test_an_error_leaves_no_report_of_an_earlier_gate(write):
    """A green file would be uploaded by the job that could not even compare."""
    old, new = write("old"), write("new", lexicon="other")
    assert call(new, "-q").exit_code == 0
    result = call(new, "--baseline", old, "--github")
    assert isinstance(result.exception, UsageError)
    assert result.output.startswith(f"::error title=vlsm-harness gate::{old}: prompt drift: ")
    report = ElementTree.parse(new / "junit.xml").getroot()
    assert (report.get("tests"), report.get("errors")) == ("1", "1")
    assert "prompt drift" in report.find("testsuite/testcase/error").get("message")


def test_it_leaves_with_2_where_the_user_can_repair_it(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "harness", "gate", str(tmp_path)],
        capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {tmp_path}: no run.json here.")


def test_it_never_loads_torch(write):
    """Neither for help nor for a whole gate with its baseline."""
    check = "import atexit, sys; atexit.register(lambda: print('torch' in sys.modules))\n"
    run = write("run")
    for arguments in (["--help"], [str(run), "--baseline", str(run), "-q"]):
        program = check + "from harness.cli import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", program, "gate", *arguments],
            capture_output=True, text=True, cwd=ROOT, check=True,
            env={k: v for k, v in os.environ.items() if not k.startswith("GITHUB_")},
        )  # fmt: skip
        assert done.stdout.splitlines()[-1] == "False"
