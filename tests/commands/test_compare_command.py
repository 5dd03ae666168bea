"""``compare``: stored runs against each other, from the command line."""

import json
import re
from dataclasses import replace

import polars as pl
import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.errors import RunError, UsageError
from harness.files.writing import parquet_bytes
from harness.runs.store import SCORE_SCHEMA, RunStore


@pytest.fixture(scope="module")
def run(tmp_path_factory, synthetic_runs):
    """Two models on 60 clusters, and a hostile name."""
    runs = synthetic_runs
    models = [
        runs.ModelFacts("m@1", "m", (), False, 0.5),
        runs.ModelFacts("blind@1", "<script>|[red]blind[/red]", (), True, 0.35),
    ]
    made = runs.make_run({"inside": 120}, n_words=10, models=models)
    made = runs.with_one_truth(made)
    worse = pl.when(pl.col("model_id") == "blind@1").then(pl.col("tp") // 2).otherwise("tp")
    made = replace(made, scores=made.scores.with_columns(tp=worse))
    return runs.write_run(tmp_path_factory.mktemp("runs") / "run", made)


def call(*arguments):
    return CliRunner().invoke(app, ["compare", *map(str, arguments)], catch_exceptions=True)


def refused(kind, message, *arguments):
    found = call(*arguments).exception
    assert isinstance(found, kind), found
    assert re.search(re.escape(message), str(found)), str(found)


def test_two_models_of_a_run_are_compared(run):
    shown = call(run)
    assert shown.exit_code == 0, shown.output
    assert "One plan (0): 3360 cases of each model." in shown.output
    assert "m less <script>|[red]blind[/red], inside (test, p6)" in shown.output
    assert re.search(r"Dice +original prompts +whole prompt", shown.output)
    assert re.search(r"\n1 +m +- +0\.\d+ \[", shown.output)


def test_json_holds_the_same_rows_as_the_files(run, tmp_path):
    shown = call(run, "--json", "--out", tmp_path / "new" / "folder")
    content = json.loads(shown.output)
    folder = tmp_path / "new" / "folder"
    assert json.loads((folder / "comparison.json").read_text()) == content
    table = pl.read_parquet(folder / "differences.parquet")
    assert len(content["differences"]) == table.height == 6
    for row, stored in zip(content["differences"], table.iter_rows(named=True), strict=True):
        assert row["difference"] == pytest.approx(stored["difference"])
        assert row["differs"] == stored["differs"]
    assert len(content["ranks"]) == pl.read_parquet(folder / "ranks.parquet").height == 2
    page = (folder / "comparison.md").read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;\\|\\[red\\]" in page or "&lt;script&gt;\\|[red]" in page
    assert "Ranks: 1 plus the number of models shown to be better" in " ".join(page.split())
    assert re.search(r"\| figure +\| probe", page)


def test_the_same_comparison_gives_the_same_files(run, tmp_path):
    for name in ("one", "two"):
        assert call(run, "-q", "--out", tmp_path / name).output == ""
    for name in ("comparison.md", "comparison.json"):
        one, two = ((tmp_path / folder / name).read_bytes() for folder in ("one", "two"))
        assert one == two


def test_models_are_named_by_run_where_their_names_are_not_enough(run, tmp_path, synthetic_runs):
    runs = synthetic_runs
    other = runs.make_run({"inside": 120}, n_words=10)
    kept = other.plan.filter(pl.col("probe") != "swap")
    other = runs.write_run(tmp_path / "other", runs.with_one_truth(replace(other, plan=kept)))
    store = RunStore(other)
    store.update(plan_sha256="1")
    truth = pl.read_parquet(
        run / "scores" / "part-m@1-000000-0.parquet", columns=["case_id", "n_gt"]
    )
    name = "scores/part-m@1-000000-0.parquet"
    scores = pl.read_parquet(other / name).drop("n_gt").join(truth, on="case_id")
    scores = scores.with_columns(tp=pl.min_horizontal("tp", "n_gt")).select(SCORE_SCHEMA.names())
    store.ledger.write({name: parquet_bytes(scores)})

    shown = call(f"{run}#m", f"{other}#m@1", "--draws", 200)

    assert shown.exit_code == 0, shown.exception
    assert "m (run) less m (other)" in shown.output
    assert "The plans differ: only the cases that stand in every plan are compared." in shown.output
    assert f"m (run) ({run}): 2640 of 3360 cases are compared; 720 are not in" in shown.output


def test_fewer_than_two_models_are_refused(run):
    refused(UsageError, f"compare: found 1 models in {run}#m. At least two are needed.", f"{run}#m")


def test_what_is_no_run_is_refused(tmp_path):
    message = f"{tmp_path}: no run.json here. A run directory, or RUN#MODEL, is needed."
    refused(UsageError, message, tmp_path, tmp_path)


def test_an_unknown_model_is_answered_with_the_known(run):
    refused(UsageError, f"{run}#n: no model 'n' in this run. It holds 'm', ", f"{run}#n", run)
    refused(UsageError, "--model: no run holds a model 'n'.", run, "--model", "m,n")


def test_a_wrong_rule_is_answered_with_its_option(run):
    refused(UsageError, "--empty: found 'two'. Input should be", run, "--empty", "two")


def test_another_empty_rule_stands_in_the_signature(run):
    assert "|empty:nan|" in json.loads(call(run, "--json", "--empty", "nan").output)["signature"]


def test_other_metrics_end_with_exit_code_2(run, tmp_path, synthetic_runs, monkeypatch, capsys):
    runs = synthetic_runs
    other = runs.write_run(tmp_path / "other", runs.make_run({"inside": 120}, n_words=10))
    text = (other / "suite.lock.yaml").read_text() + "metric: {empty: zero}\n"
    RunStore(other).ledger.write({"suite.lock.yaml": text.encode()})
    refused(RunError, "Numbers of different metrics are not compared.", run, other)
    monkeypatch.setattr("sys.argv", ["vlsm-harness", "compare", str(run), str(other)])
    from harness.cli import main

    with pytest.raises(SystemExit) as leaving:
        main()
    assert leaving.value.code == 2
    assert "give --empty" in capsys.readouterr().err


def test_long_comparisons_show_what_differs_and_count_the_rest(run, tmp_path, monkeypatch):
    monkeypatch.setattr("harness.commands.compare.MOST_ROWS", 3)
    shown = call(run)
    n = call(run, "--json").output
    n_shown = sum(bool(row["differs"]) for row in json.loads(n)["differences"])
    assert f"{6 - n_shown} of 6 differences are not shown to be any: see --out." in shown.output


def test_the_language_of_two_models_is_compared(run, tmp_path):
    """A page with a hostile name on it, and the same as JSON."""
    shown = call(run, "--language", "--out", tmp_path / "tuned")
    assert shown.exit_code == 0, shown.output
    assert re.search(r"\ncolor +cannot tell +change % \(random_word\) ", shown.output)
    page = (tmp_path / "tuned" / "language.html").read_text()
    assert "&lt;script&gt;|[red]blind" in page
    assert "<script>|" not in page
    content = json.loads(call(run, "--language", "--json").output)
    assert content == json.loads((tmp_path / "tuned" / "language.json").read_text())
    assert content["version"] == 1
    names = [a["name"] for a in content["aspects"]]
    assert names == ["the whole prompt", "color", "size"]


def test_a_comparison_of_languages_needs_a_base_and_a_tuned_model(run):
    found = call(run, f"{run}#m", "--language").exception
    assert isinstance(found, UsageError)
    assert re.fullmatch(
        r"compare --language: found 3 models \(.*\)\. Two are needed, the base first and then the "
        r"one that was tuned from it\. Name them as RUN#MODEL\.",
        str(found),
    )


def test_seeds_of_a_recipe_are_compared_as_such(run, tmp_path):
    manifest = RunStore(run).manifest
    recipe = {"model_id": "m-seeds@9", "name": "m (2 seeds)", "seeds": ["m@1", "blind@1"]}
    RunStore(run).update(recipes=[recipe])
    try:
        message = "'m (2 seeds)' is a recipe. Single models are compared: what training seeds vary"
        refused(UsageError, message, f"{run}#m-seeds@9", f"{run}#m")
        refused(UsageError, "Compare its seeds (m@1, blind@1)", run, "--model", "m-seeds@9")
        shown = call(run, "--draws", 200)
        assert "m: one seed of m (2 seeds); what seeds vary is in no difference." in shown.output
        page = call(run, "--language", "--out", tmp_path / "seeds")
        assert (tmp_path / "seeds" / "language.html").is_file(), page.output
    finally:
        RunStore(run).update(recipes=manifest.get("recipes", []))
