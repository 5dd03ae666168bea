"""``score`` and ``power``: a stored run under other rules, without a model."""

import json
import re
import shutil

import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.errors import RunError, UsageError
from harness.runs.store import RunStore
from harness.stats.assessment import Assessment


@pytest.fixture(scope="module")
def run(tmp_path_factory, synthetic_run):
    """A run directory of 60 patients, as the engine writes it."""
    return synthetic_run(tmp_path_factory.mktemp("runs") / "run")


def call(*arguments):
    return CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=True)


def refused(kind, message, *arguments):
    found = call(*arguments).exception
    assert isinstance(found, kind), found
    assert re.search(re.escape(message), str(found))


def test_a_run_is_summarised_from_its_counts(run):
    result = call("score", run)
    assert result.exit_code == 0, result.output
    for name in ("summary.md", "summary.json", "summary.parquet", "verdicts.json", "run.json"):
        assert f"{run / name}" in result.output
    assert "m on inside is moved by " in result.output
    assert RunStore(run).manifest["status"] == "complete"


@pytest.fixture
def again(run, tmp_path):
    """A function: the assessment under other rules, beside the run's own."""

    def score(*options):
        result = call("score", run, "-q", "--out", tmp_path, *options)
        assert result.exit_code == 0, result.output
        return Assessment.read(tmp_path)

    return score


def test_another_empty_rule_gives_other_signatures_and_leaves_the_run_alone(run, again):
    call("score", run, "-q")
    before = (run / "verdicts.json").read_bytes(), (run / "summary.parquet").read_bytes()
    found = again("--empty", "nan")
    assert all("|empty:nan|" in s for s in found.summary["signature"])
    assert ((run / "verdicts.json").read_bytes(), (run / "summary.parquet").read_bytes()) == before


def test_another_floor_moves_what_is_too_low(again):
    low = "baseline too low: Dice under 0.9"
    assert low not in again().summary["reason"].to_list()
    assert low in again("--floor", "0.9").summary["reason"].to_list()


def test_another_correction_changes_p_values_and_the_verdicts_signature(again):
    holm, none = again(), again("--correction", "none")
    assert "|holm|" in holm.signature
    assert "|none|" in none.signature
    assert all(v.p_adjusted == v.p_value for v in none.verdicts)
    assert any(v.p_adjusted > v.p_value for v in holm.verdicts)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--empty", "two"), "--empty: found 'two'. Input should be 'one', 'zero' or 'nan'."),
        (("--floor", "1.5"), "--floor: found 1.5. Input should be less than 1. Correct the"),
        (
            ("--correction", "holmes"),
            "--correction: found 'holmes'. Input should be 'holm', 'benjamini_hochberg' or 'none'.",
        ),
        (("--draws", "3"), "--draws: found 3. Input should be greater than or equal to 100."),
    ],
)
def test_a_wrong_rule_is_answered_with_its_option(run, options, message):
    refused(UsageError, message, "score", run, *options)


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    refused(UsageError, f"{tmp_path}: no run.json here.", "score", tmp_path)


def test_an_incomplete_run_is_summarised_and_ends_with_three(run, tmp_path):
    folder = shutil.copytree(run, tmp_path / "run")
    assert call("score", folder, "-q").exit_code == 0
    next((folder / "scores").iterdir()).unlink()
    result = call("score", folder)
    assert result.exit_code == 3, result.output
    assert " missing." in result.output
    assert RunStore(folder).manifest["status"] == "incomplete"


def test_power_plans_the_next_run(run):
    call("score", run, "-q")
    shown = call("power", run, "--effect", "5")
    assert shown.exit_code == 0, shown.output
    assert "for 5 %" in shown.output
    assert "m on inside (test, p6)" in shown.output
    rows = json.loads(call("power", run, "--effect", "5", "--json").output)
    smaller = json.loads(call("power", run, "--effect", "2", "--json").output)
    by_key = {(r["model"], r["probe"], r["attribute"]): r for r in smaller}
    assert len(rows) > 8
    for row in rows:
        other = by_key[row["model"], row["probe"], row["attribute"]]
        assert other["smallest_effect"] == row["smallest_effect"]
        if "never" not in (other["clusters_for_effect"], row["clusters_for_effect"]):
            assert other["clusters_for_effect"] >= row["clusters_for_effect"] >= 20


def test_power_needs_a_summary(tmp_path):
    refused(RunError, f"{tmp_path}: no verdicts.json here.", "power", tmp_path)
