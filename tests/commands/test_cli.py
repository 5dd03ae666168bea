"""The command line as a user meets it: verbs, exit codes, interruption."""

import json
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from harness.cli import VERBS, app
from harness.runs.store import RunStore

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def run_arguments(tmp_path, toy_card):
    def build(*more, out="run", **settings):
        card = toy_card(**settings)
        folder = tmp_path / out
        return [
            "run", "paper", "--datasets", "kvasir_polyp", "--model", card,
            "--random-weights", "--device", "cpu", "--batch-size", "16", "--out", folder, *more,
        ]  # fmt: skip

    return build


def test_a_run_ends_with_a_table_and_where_the_files_are(call, run_arguments, tmp_path):
    code, out, _ = call(*run_arguments())

    assert code == 0
    for name in ("summary.md", "summary.json", "summary.parquet", "run.json"):
        assert (tmp_path / "run" / name).is_file()
        assert name in out
    manifest = json.loads((tmp_path / "run" / "run.json").read_text())
    assert manifest["status"] == "complete"
    assert manifest["counts"]["done"] == manifest["counts"]["planned"] > 400
    assert manifest["counts"]["failed"] == manifest["counts"]["missing"] == 0
    texts = pl.read_parquet(next((tmp_path / "run" / "texts").iterdir()))
    assert texts.filter(pl.col("text") == "")["n_tokens"].unique().item() == 0


def test_the_summary_carries_no_times(call, run_arguments, tmp_path):
    call(*run_arguments("-q"))
    first = (tmp_path / "run" / "summary.json").read_bytes()
    call(*run_arguments("-q", out="other"))
    assert (tmp_path / "other" / "summary.json").read_bytes() == first


def test_edits_behind_the_token_limit_are_reported_as_such(call, run_arguments, tmp_path):
    """Five words of "one small pink round polyp, located in ..." reach the model."""
    code, out, _ = call(*run_arguments(limit=5))
    assert code == 0
    texts = pl.read_parquet(next((tmp_path / "run" / "texts").iterdir()))
    assert set(texts["edit_survives"].to_list()) == {True, False, None}
    summary = pl.read_parquet(tmp_path / "run" / "summary.parquet")
    places = summary.filter(pl.col("attribute") == "location", pl.col("n_cases") > 0)
    assert places.height == 3
    assert set(places["reason"]) == {"edits cut away by the model's token limit"}
    assert "edits cut away by the model's token limit" in out
    assert summary.filter(pl.col("attribute") == "size")["n_cut_away"].sum() == 0


def test_a_run_is_logged_to_a_tracker_that_is_known_and_installed(call, run_arguments, tmp_path):
    code, _, err = call(*run_arguments("-q", "--log", "tensorbord"))
    assert code == 2
    assert "--log: unknown tracker 'tensorbord'. Did you mean 'tensorboard'?" in err
    assert not (tmp_path / "run").exists()
    code, _, err = call(*run_arguments("-q", "--log", "tensorboard"))
    assert code == 0
    (model_id,) = RunStore(tmp_path / "run").manifest["trackers"]["tensorboard"]
    folder = tmp_path / "run" / "tensorboard" / model_id
    assert f"logged to tensorboard: {folder}" in err
    assert len(list(folder.iterdir())) == 1


def test_a_run_on_corrected_prompts_says_so(call, run_arguments, tmp_path):
    code, out, _ = call(*run_arguments("--prompts", "corrected"))
    assert code == 0
    assert "toy on kvasir_polyp (test, p6, corrected prompts)" in out
    summary = pl.read_parquet(tmp_path / "run" / "summary.parquet")
    assert set(summary["prompts"]) == {"corrected"}
    assert pl.read_parquet(tmp_path / "run" / "not_applicable.parquet")["prompts"].unique().item()


def test_json_is_the_summary(call, run_arguments, tmp_path):
    _, out, _ = call(*run_arguments("--json", "-q"))
    assert json.loads(out) == json.loads((tmp_path / "run" / "summary.json").read_text())


def test_an_interrupted_run_says_that_it_continues(call, run_arguments, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("harness.engine.local.execute", interrupt)
    code, _, err = call(*run_arguments())
    assert code == 130
    assert "Interrupted. The same command again continues from here." in err


def test_fresh_starts_again_and_keeps_the_old_run(call, run_arguments, tmp_path):
    call(*run_arguments("-q"))
    code, _, err = call(*run_arguments("-q", "--fresh"))
    assert code == 0
    assert f"the earlier run was moved to {tmp_path / 'run.old1'}" in err
    assert (tmp_path / "run.old1" / "run.json").is_file()


def test_a_run_gains_a_model(call, run_arguments, toy_card, tmp_path):
    call(*run_arguments("-q"))
    code, _, _ = call(*run_arguments("-q", "--model", toy_card("box")))
    assert code == 0
    assert [m["name"] for m in RunStore(tmp_path / "run").manifest["models"]] == ["toy", "box"]


def test_too_many_failed_cases_exit_3(call, run_arguments, tmp_path):
    code, out, _ = call(*run_arguments(bad_text=""))
    assert code == 3
    assert "6 failed" in out
    assert RunStore(tmp_path / "run").manifest["status"] == "incomplete"


def test_score_recomputes_without_a_model(call, run_arguments, tmp_path):
    call(*run_arguments("-q"))
    before = (tmp_path / "run" / "summary.json").read_bytes()
    code, _, _ = call("score", tmp_path / "run", "-q")
    assert code == 0
    assert (tmp_path / "run" / "summary.json").read_bytes() == before
    call("score", tmp_path / "run", "-q", "--empty", "zero")
    assert b"empty:0" in (tmp_path / "run" / "summary.json").read_bytes()


def test_plan_counts_cases_and_reasons(call, tmp_path):
    code, out, _ = call(
        "plan", "paper", "--datasets", "kvasir_polyp", "--json", "--out", tmp_path / "plan"
    )
    assert code == 0
    content = json.loads(out)
    stored = pl.read_parquet(tmp_path / "plan" / "plan.parquet")
    assert sum(row["cases"] for row in content["cases"]) == stored.height
    assert len(content["plan_sha256"]) == 64


def test_plan_prints_tables(call):
    code, out, _ = call("plan", "antonym_swap", "--datasets", "kvasir_polyp")
    assert code == 0
    assert "does not apply" in out
    assert re.search(r"plan [0-9a-f]{64}", out)


def test_check_counts_what_it_read(call):
    code, out, _ = call("check", "--datasets", "kvasir_polyp")
    assert code == 0
    assert "kvasir_polyp/test: 6 samples, 6 images, 6 clusters, 54 prompts parsed." in out


@pytest.mark.parametrize("kind", ["models", "suites", "datasets", "perturbations"])
def test_ls_names_what_ships(call, kind):
    code, out, _ = call("ls", kind)
    assert code == 0
    assert {"models": "clipseg", "suites": "paper", "datasets": "busi", "perturbations": "empty"}[
        kind
    ] in out
    assert json.loads(call("ls", kind, "--json")[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "papper", "--model", "clipseg"], "unknown suite 'papper'. Did you mean 'paper'?"),
        (["run", "paper", "--model", "clipsegg"], "unknown model 'clipsegg'. Did you mean"),
        (
            ["run", "paper", "--model", "a", "--model", "b", "--checkpoint", "x.ckpt"],
            "--checkpoint: given with 2 models. It goes with exactly one --model without its own.",
        ),
        (
            ["run", "paper", "--model", "a", "--batch-size", "many"],
            "--batch-size: found 'many'. 'auto' or a positive whole number is needed.",
        ),
        (["ls", "modles"], "ls: unknown kind 'modles'. Did you mean 'models'?"),
        (["score", "nowhere"], "nowhere: no run.json here. A run directory is needed."),
        (["plan", "paper", "--datasets", "busy"], "unknown dataset 'busy'. Did you mean 'busi'?"),
        (
            ["plan", "paper", "--datasets", "kvasir_polyp", "--prompt-type", "p66"],
            "with these options:",
        ),
    ],
)
def test_what_the_user_can_repair_exits_2(call, arguments, message):
    if "--datasets" not in arguments and arguments[0] == "run":
        arguments = [*arguments, "--datasets", "kvasir_polyp"]
    code, _, err = call(*arguments)
    assert code == 2
    assert message in err


def test_nothing_selected_exits_5(call):
    code, _, err = call("plan", "paper", "--datasets", "kvasir_polyp", "--prompt-type", "p9")
    assert code == 5
    assert "no case is left" in err


def test_python_m_harness_is_the_command():
    found = subprocess.run(
        [sys.executable, "-m", "harness", "--version"], capture_output=True, text=True, check=True
    )
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", found.stdout)


def test_every_verb_stands_in_the_readme():
    readme = (ROOT / "harness/README.md").read_text(encoding="utf-8")
    assert len(VERBS) >= 8
    assert [verb for verb in VERBS if f"vlsm-harness {verb}" not in readme] == []


def test_every_option_has_a_help_text():
    for verb in VERBS.keys() - {"leaderboard", "data"}:  # groups of verbs
        command = getattr(import_module(f"harness.commands.{verb}"), verb)
        shown = CliRunner().invoke(app, [verb, "--help"]).output
        assert command.__doc__.splitlines()[0].rstrip(".") in " ".join(shown.split())


def test_the_help_lists_every_verb_and_nothing_else():
    shown = CliRunner().invoke(app, ["--help"]).output.partition("Commands:")[2]
    assert [line.split()[0] for line in shown.strip().splitlines()] == list(VERBS)


def test_an_unknown_verb_is_answered_with_the_nearest():
    result = CliRunner().invoke(app, ["gat"])
    assert result.exit_code == 2
    assert "No such command 'gat'. Did you mean 'gate'?" in result.output


def test_models_stand_in_groups_with_what_they_need_and_their_licence(call):
    out, rows = call("ls", "models")[1], json.loads(call("ls", "models", "--json")[1])
    groups = ["paper", "finetuned families", "promptable", "controls", "small"]
    heads = [line.partition(" (")[0] for line in out.splitlines() if not line.startswith(" ")]
    assert heads == groups
    assert {row["group"] for row in rows.values()} == set(groups)
    assert rows["sam3"]["needs"] == "facebook/sam3 of the hub, or a file: sam3=FILE"
    assert rows["cris"]["needs"] == "a file: cris=FILE"
    assert rows["phantom-cris-solo"] == {
        "title": rows["phantom-cris-solo"]["title"],
        "group": "small",
        "needs": "nothing: its weights ship with the harness",
        "licence": "MIT",
    }
    for name, row in rows.items():
        assert f"  {name} " in out
        assert f"needs {row['needs']}; licence: {row['licence']}" in out


@pytest.mark.parametrize(("old", "new"), [("list", "ls"), ("phantom", "generate")])
def test_a_verb_by_its_other_name(old, new):
    shown = [CliRunner().invoke(app, [verb, "--help"]).output for verb in (old, new)]
    assert shown[0].partition("\n")[2] == shown[1].partition("\n")[2]
    assert f"  {old} " not in CliRunner().invoke(app, ["--help"]).output


@pytest.mark.parametrize(
    "arguments",
    [
        ("finetune", "--data", "nowhere", "--model", "clipseg", "--out", "x"),
        ("finetune", "--data=nowhere", "--model", "clipseg", "-o", "x"),
        ("finetune", "--datasets=nowhere", "--model", "clipseg", "-o", "x"),
    ],
)
def test_options_in_an_older_spelling(arguments):
    problem = CliRunner().invoke(app, arguments).exception
    assert "unknown dataset 'nowhere'" in str(problem)


@pytest.mark.parametrize("verb", ["run", "plan", "hunt", "demo"])
def test_options_have_one_spelling(verb):
    shown = CliRunner().invoke(app, [verb, "--help"]).output
    assert "-o, --out" in shown
    assert "-n, --limit" in shown


def test_the_shell_can_complete():
    environment = os.environ | {
        "_VLSM_HARNESS_COMPLETE": "complete_bash",
        "COMP_WORDS": "vlsm-harness ga",
        "COMP_CWORD": "1",
    }
    program = "import sys; sys.argv = ['vlsm-harness']; from harness.cli import main; main()"
    found = subprocess.run(
        [sys.executable, "-c", program],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.stdout.split() == ["gate"]
