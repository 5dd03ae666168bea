"""Records of Every Eval Ever: their fields, and what the format's own validator says of them."""

import importlib.util
import io
import json
import math
import os
import shutil
import subprocess
import uuid
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from harness.auditing.summarising import summarise
from harness.errors import RunError, UsageError
from harness.report.loaded import load_run
from harness.runs.store import RunStore
from harness.trackers.every_eval_ever import Provenance, export_records

PACKAGE = "every_eval_ever"
STATED = Provenance(developer="me", organization="My lab", relationship="first_party")


@pytest.fixture(scope="module")
def summarised(runs, tmp_path_factory):
    """Folder of two models on 30 clusters."""
    made = runs.make_run({"inside": 60}, n_words=3)
    plan = made.plan.with_columns(dataset=made.plan["dataset"].replace("inside", "inße|de"))
    folder = tmp_path_factory.mktemp("made") / "run"
    summarise(RunStore(runs.write_run(folder, replace(made, plan=plan))))
    return folder


@pytest.fixture
def run(summarised, tmp_path):
    """A copy of it that is whole, with weights and a data set that has a page."""
    store = RunStore(Path(shutil.copytree(summarised, tmp_path / "run")))
    models = store.manifest["models"]
    for model in models:
        model |= {"random_weights": False, "backend": "torch", "device": "cpu"}
    known = {"harness": "0.1.0", "libraries": {"torch": "2.9.1"}, "at": "2026-01-02T03:04:05+00:00"}
    origins = {"inße|de": {"source": "https://example.org/set", "licence": "CC-BY-4.0"}}
    store.update(models=models, status="complete", environment=known, origins=origins)
    return load_run(store.folder)


def records(run, folder, **options):
    written, _ = export_records(run, folder, **options)
    return {path.parent.name: json.loads(path.read_text(encoding="utf-8")) for path in written}


def interpreters():
    """Pythons that may have the package: it needs 3.12."""
    given = os.environ.get("VLSM_EVERY_EVAL_EVER")
    names = [given] if given else ["python3.14", "python3.13", "python3.12"]
    return [place for name in names if (place := shutil.which(name))]


def validate(paths):
    """What the package says of files: here where it is installed, else in another Python's."""
    arguments = ["--format", "json", *map(str, paths)]
    if importlib.util.find_spec(PACKAGE):
        from every_eval_ever.validate import main

        with redirect_stdout(io.StringIO()) as said:
            main(arguments)
        return json.loads(said.getvalue())
    for python in interpreters():
        clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        has_it = [python, "-c", f"import {PACKAGE}"]
        if subprocess.run(has_it, capture_output=True, check=False, env=clean).returncode == 0:
            called = [python, "-m", PACKAGE, "validate", *arguments]
            done = subprocess.run(called, capture_output=True, text=True, check=False, env=clean)
            return json.loads(done.stdout)
    pytest.skip(
        "no Python here has every-eval-ever, which needs 3.12: VLSM_EVERY_EVAL_EVER names one"
    )


@pytest.mark.parametrize("provenance", [None, STATED], ids=["not stated", "stated"])
def test_the_format_s_own_validator_takes_the_records(run, tmp_path, provenance):
    written, _ = export_records(run, tmp_path / "out", provenance=provenance)
    spoilt = written[0].with_name(f"{uuid.UUID(int=7, version=4)}.json")
    record = json.loads(written[0].read_text(encoding="utf-8"))
    record["evaluation_results"][0]["score_details"]["score"] = -101
    spoilt.write_text(json.dumps(record), encoding="utf-8")
    *good, bad = validate([*written, spoilt])

    assert [(one["valid"], one["errors"], one["warnings"]) for one in good] == [(True, [], [])] * 2
    assert "score -101 is outside" in bad["errors"][0]["msg"]


def test_names_that_mean_something_else_are_changed(run, tmp_path):
    """To the validator: 'unknown' is no name, 'data' is its root, 'con' no disk takes."""
    models = run.manifest["models"]
    for name, model in zip(("unknown", "con.v2."), models, strict=True):
        model["name"] = name
    run.store.update(models=models)
    written, _ = export_records(load_run(run.folder), tmp_path / "out", provenance=STATED)

    assert {path.parent.name for path in written} == {"_unknown", "_con.v2"}
    for one in validate(written):
        assert (one["valid"], one["errors"], one["warnings"]) == (True, [], [])


def test_a_record_has_the_summary_s_figures(run, tmp_path):
    record = records(run, tmp_path / "out", provenance=STATED)["m"]
    own = run.summary.filter(pl.col("model_id") == run.models[0]["model_id"])
    found = {one["evaluation_result_id"]: one for one in record["evaluation_results"]}
    (original,) = own.filter(pl.col("probe") == "original").rows(named=True)
    dice = found["inße|de.test.original.dice"]
    details = dice["score_details"]

    changes = own.filter(pl.col("probe") != "original")["relative_change_percent"].drop_nans()
    assert len(found) == len(record["evaluation_results"]) == 1 + changes.len()
    assert details["score"] == pytest.approx(original["dice"], rel=1e-3)
    assert details["uncertainty"] == {
        "confidence_interval": {
            "lower": pytest.approx(original["dice_low"], rel=1e-3),
            "upper": pytest.approx(original["dice_high"], rel=1e-3),
            "confidence_level": 0.95,
            "method": "studentised bootstrap, resampling clusters",
        },
        "num_samples": original["n_samples"],
        "num_bootstrap_samples": run.suite.statistics.draws,
    }
    assert details["details"]["n_clusters"] == str(original["n_clusters"])
    assert details["details"]["signature"] == original["signature"]
    assert dice["source_data"] == {
        "dataset_name": "inße|de",
        "source_type": "url",
        "url": ["https://example.org/set"],
        "additional_details": dice["source_data"]["additional_details"] | {"licence": "CC-BY-4.0"},
    }
    kinds = {one["metric_config"]["metric_id"] for one in found.values()}
    assert kinds == {"dice", "vlsm-harness.relative_change"}


def test_a_refusal_rate_has_its_own_counts_and_method(run, tmp_path):
    """They are of other samples than the change beside it, and of another kind of limits."""
    table = run.summary.with_columns(
        refusal_rate=pl.lit(0.25),
        refusal_rate_low=pl.lit(0.125),
        refusal_rate_high=pl.lit(0.5),
        n_samples_refusal=pl.lit(11),
        n_clusters_refusal=pl.lit(5),
    )
    run.assessment = replace(run.assessment, summary=table)
    results = records(run, tmp_path / "out", provenance=STATED)["m"]["evaluation_results"]
    (rate, *_) = (r for r in results if r["metric_config"]["metric_unit"] == "proportion"
                  and r["evaluation_result_id"].endswith("refusal_rate"))  # fmt: skip
    found = rate["score_details"]

    assert (found["score"], found["details"]["n_clusters"]) == (0.25, "5")
    assert found["uncertainty"] == {
        "confidence_interval": {
            "lower": 0.125,
            "upper": 0.5,
            "confidence_level": 0.95,
            "method": "Wilson's limits for the effective number of samples, exact where all "
            "samples agree",
        },
        "num_samples": 11,
    }


def test_what_is_undefined_is_left_out(run, tmp_path):
    table = run.summary.with_columns(dice=pl.lit(math.nan), dice_low=pl.lit(math.nan))
    run.assessment = replace(run.assessment, summary=table)
    results = records(run, tmp_path / "out", provenance=STATED)["m"]["evaluation_results"]
    assert results
    assert not [r for r in results if r["metric_config"]["metric_id"] == "dice"]

    run.assessment = replace(
        run.assessment, summary=table.with_columns(relative_change_percent=pl.lit(math.nan))
    )
    with pytest.raises(RunError, match="m: none of its figures is defined. A record holds one at"):
        export_records(run, tmp_path / "none", model="m")
    assert not (tmp_path / "none").exists()


def test_what_is_known_is_said_and_nothing_else(run, tmp_path):
    record = records(run, tmp_path / "out")["m"]
    about, source = record["model_info"], record["source_metadata"]

    assert about["id"] == "not-stated/m"
    assert "developer" not in about
    assert about["inference_engine"] == {"name": "torch", "version": "2.9.1"}
    assert about["additional_details"]["deployment_type"] == "self_deployed"
    assert about["additional_details"]["model_availability"] == "unknown"
    assert (source["source_organization_name"], source["evaluator_relationship"]) == (
        "not-stated",
        "other",
    )
    assert source["additional_details"]["not-stated"] == "organization, relationship"
    assert record["eval_library"]["version"] == "0.1.0"
    assert record["evaluation_timestamp"] == "1767323045"
    assert record["retrieved_timestamp"].isdigit()
    everything = json.dumps(record)
    assert "null" not in everything
    assert "None" not in everything


def test_what_a_user_states_is_taken(run, tmp_path):
    record = records(run, tmp_path / "out", provenance=STATED)["m"]
    assert (record["model_info"]["id"], record["model_info"]["developer"]) == ("me/m", "me")
    assert record["source_metadata"]["source_organization_name"] == "My lab"
    assert record["source_metadata"]["evaluator_relationship"] == "first_party"
    assert "not-stated" not in json.dumps(record)


def test_weights_that_ship_have_a_known_maker(run, tmp_path):
    from harness.cards import load_model_card

    card = load_model_card("phantom-clipseg-crowd").card
    models = run.manifest["models"]
    models[0]["weights_sha256"] = card.checkpoint.sha256
    run.store.update(models=models)
    about = records(load_run(run.folder), tmp_path / "out", provenance=STATED)["m"]["model_info"]
    assert about["id"] == "vlsm-harness/m"
    assert about["additional_details"]["model_availability"] == "open_weights"


def test_an_older_run_did_not_keep_where_its_data_come_from(run, tmp_path):
    manifest = json.loads((run.folder / "run.json").read_text(encoding="utf-8"))
    run.store.update(origins={}, environment={})
    record = records(load_run(run.folder), tmp_path / "out")["m"]
    assert manifest["origins"]
    assert record["evaluation_results"][0]["source_data"]["source_type"] == "other"
    assert record["eval_library"]["version"] == "unknown"
    assert "evaluation_timestamp" not in record


def test_a_second_export_replaces_the_first(run, tmp_path):
    first, _ = export_records(run, tmp_path / "out")
    second, _ = export_records(run, tmp_path / "out")
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert first == second
    assert sorted(files) == sorted(first)
    assert all(uuid.UUID(path.stem).version == 4 for path in files)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (
            {"developer": "a/b"},
            "--developer 'a/b': a name holds letters, digits, '-', '_' and '.' only. It is the "
            "first part of the models' ids, such as the 'me' of 'me/clipseg-polyps'. Correct it, "
            "or leave it out.",
        ),
        (
            {"developer": "Unknown"},
            "--developer 'Unknown': Every Eval Ever takes the name for something else. It is",
        ),
        ({"developer": "../up"}, "--developer '../up': a name holds letters"),
        (
            {"relationship": "first-party"},
            "--relationship: unknown word 'first-party'. Did you mean 'first_party'?",
        ),
    ],
)
def test_a_wrong_statement_is_refused(given, text):
    with pytest.raises(UsageError) as refused:
        Provenance(**given)
    assert str(refused.value).startswith(text)


def test_the_command_says_what_is_not_stated(run, call):
    code, out, err = call("export", run.folder, "--to", "every-eval-ever", "--model", "m")
    place = run.folder / "every-eval-ever" / "data"
    assert code == 0
    assert Path(out.strip()).parent.parent.name == "not-stated"
    assert Path(out.strip()).is_relative_to(place)
    assert (
        "note: The records say 'not-stated' for what the run does not know. State it before" in err
    )
    assert "--organization (who evaluated), --relationship (of that to the models' makers)" in err
    known = ("--organization", "My lab", "--relationship", "other", "--developer", "me")
    code, _, err = call("export", run.folder, "--to", "every-eval-ever", *known)
    assert (code, err) == (0, "")


def test_two_models_of_one_name_have_their_ids(run, tmp_path):
    models = run.manifest["models"]
    for model in models:
        model["name"] = "same"
    run.store.update(models=models)
    written, _ = export_records(load_run(run.folder), tmp_path / "out", provenance=STATED)
    assert {path.parent.name for path in written} == {model["model_id"] for model in models}
    for one in validate(written):
        assert (one["valid"], one["warnings"]) == (True, [])
