"""A run in the forms of other places, each read back by the place's own library."""

import csv
import io
import json
import math
import warnings
from dataclasses import replace

import polars as pl
import pytest
import yaml
from PIL import Image

from harness.cards import load_dataset_card
from harness.errors import RunError, UsageError
from harness.plan.build import PlannedSet
from harness.report.loaded import load_run
from harness.suite.schema import DatasetEntry
from harness.trackers.exports import export_cards, export_cases, export_croissant

CARD = """
name: mine
title: My polyps
modality: endoscopy
source: https://example.org/mine
licence: CC-BY-4.0
private: {private}
prompt_type: p1
masks: {{above: 50}}
classes: [polyp]
"""


@pytest.fixture
def run(store):
    """The conftest's run, whole, with weights and a stranger's title."""
    models = store.manifest["models"]
    for model in models:
        model |= {"random_weights": False, "card": {"title": "**bold** <b>"}}
    store.update(models=models, status="complete")
    return load_run(store.folder)


def test_cases_are_those_of_the_frame(run, tmp_path):
    (path,) = export_cases(run, tmp_path / "deep" / "cases.csv")
    rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
    frame = run.cases()

    assert len(rows) == frame.height > 100
    assert list(rows[0]) == frame.columns
    for name in ("prompt", "probe", "model"):
        assert [row[name] for row in rows] == frame[name].to_list()
    for name in ("dice_before", "dice_after"):
        read = [float(row[name]) for row in rows]
        assert read == pytest.approx(frame[name].to_list(), rel=1e-9)


def test_a_model_card_is_read_back_by_the_hub_s_own_library(run, tmp_path):
    from huggingface_hub import ModelCard

    (path, _) = export_cards(run, tmp_path / "hub")
    results = ModelCard.load(path).data.eval_results
    own = run.summary.filter(pl.col("model_id") == run.models[0]["model_id"])
    originals = own.filter(pl.col("probe") == "original")
    changes = own.filter(pl.col("probe") != "original")["relative_change_percent"].drop_nans()

    assert path.parent.name == run.models[0]["name"]
    assert len(results) == originals.height + changes.len()
    by_metric = {r.metric_type: r for r in results}
    assert by_metric.keys() == {"dice", "relative_change"}
    dice = next(r for r in results if r.metric_type == "dice")
    assert dice.dataset_type == originals["dataset"][0] == "inße|de"
    assert dice.metric_value == pytest.approx(originals["dice"][0], rel=1e-3)
    assert dice.metric_args["low"] == pytest.approx(originals["dice_low"][0], rel=1e-3)
    assert dice.metric_args["n_clusters"] == originals["n_clusters"][0]
    assert dice.metric_args["n_samples"] == originals["n_samples"][0]
    assert sorted(r.metric_value for r in results if r.metric_type == "relative_change") == (
        pytest.approx(sorted(changes), rel=1e-3)
    )


def test_no_probe_has_a_dice_of_its_own(run, tmp_path):
    """After a prompt for something else a high Dice is no merit."""
    from huggingface_hub import ModelCard

    for path in export_cards(run, tmp_path / "hub"):
        shown = [r for r in ModelCard.load(path).data.eval_results if r.metric_type == "dice"]
        assert {r.metric_args["probe"] for r in shown} == {"original"}


def test_text_of_strangers_is_escaped(run, tmp_path):
    path = export_cards(run, tmp_path / "hub")[0]
    text = path.read_text(encoding="utf-8")

    assert r"# \*\*bold\*\* &lt;b&gt;" in text
    assert "<b>" not in text
    for verdict in run.assessment.language:
        if verdict.model_id == run.models[0]["model_id"]:
            assert verdict.reason.split(" ")[0] in text


def test_results_for_a_leaderboard_of_the_hub(run, tmp_path):
    from huggingface_hub import parse_eval_result_entries

    written = export_cards(run, tmp_path / "hub", model="m", benchmark="me/robust")
    path = written[1]
    entries = parse_eval_result_entries(yaml.safe_load(path.read_text(encoding="utf-8")))

    assert path.relative_to(tmp_path / "hub").as_posix() == "m/.eval_results/vlsm-harness.yaml"
    assert len(written) == 2
    assert {entry.dataset_id for entry in entries} == {"me/robust"}
    tasks = [entry.task_id for entry in entries]
    assert len(set(tasks)) == len(tasks)
    assert "inße|de.test.original.dice" in tasks
    assert all(math.isfinite(entry.value) for entry in entries)


@pytest.mark.parametrize(
    ("change", "given", "error", "text"),
    [
        (
            {"status": "incomplete"},
            {},
            RunError,
            "the run is incomplete. Figures that are published",
        ),
        ({}, {"model": "x"}, UsageError, "--model x: the run has no such model. It has: blind, m."),
        ({}, {"benchmark": "../up"}, UsageError, "--benchmark ../up: Repo id must"),
    ],
)
def test_what_is_refused(run, tmp_path, change, given, error, text):
    run.store.update(**change)
    with pytest.raises(error) as refused:
        export_cards(load_run(run.folder), tmp_path / "hub", **given)
    assert text in str(refused.value)
    assert not (tmp_path / "hub").exists()


def test_a_model_of_random_weights_has_no_card(run, tmp_path):
    models = run.manifest["models"]
    models[0]["random_weights"] = True
    run.store.update(models=models)
    with pytest.raises(RunError, match="its weights are random. Figures of a model that was"):
        export_cards(load_run(run.folder), tmp_path / "hub")
    assert not (tmp_path / "hub").exists()


def test_a_climbing_name_stays_below_the_folder(run, tmp_path):
    models = run.manifest["models"]
    models[0]["name"] = "../../up"
    run.store.update(models=models)
    for path in export_cards(load_run(run.folder), tmp_path / "hub"):
        assert path.resolve().is_relative_to((tmp_path / "hub").resolve())
        assert path.parent.parent == tmp_path / "hub"


@pytest.fixture
def planned(tmp_path):
    """A function that writes a data set of two pictures and plans its test split."""
    from harness.data import load_samples

    def make(*, private):
        root = tmp_path / "data"
        for part in ("anns", "images", "masks"):
            (root / "mine" / part).mkdir(parents=True)
        for part in ("images", "masks"):
            for k in range(2):
                Image.new("L", (8, 8), 90 * k).save(root / "mine" / part / f"{k}.png")
        rows = [
            {"img_name": f"{k}.png", "mask_name": f"{k}.png", "prompts": {"p1": t}}
            for k, t in enumerate(["", "None"])
        ]
        (root / "mine" / "anns" / "test.json").write_text(json.dumps(rows), encoding="utf-8")
        place = root / "mine" / "card.yaml"
        place.write_text(CARD.format(private=private), encoding="utf-8")
        card = load_dataset_card(place)
        entry = DatasetEntry(name=str(place), split="test")
        samples = load_samples(card, root, "test")
        return PlannedSet(entry, card, root, samples, samples, None)

    return make


def test_croissant_is_read_back_by_its_own_library(run, planned, tmp_path):
    mlc = pytest.importorskip("mlcroissant")
    run.store.update(private_sets=[])
    written, remarks = export_croissant(load_run(run.folder), [planned(private="false")], tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = mlc.Dataset(jsonld=str(tmp_path / "mine" / "croissant.json"))
        records = list(found.records("samples"))

    assert [path.name for path in written] == ["samples.parquet", "croissant.json"]
    assert not found.metadata.issues.errors
    assert not remarks
    assert found.metadata.name == "mine"
    assert found.metadata.license == ["CC-BY-4.0"]
    assert [r["samples/prompt"] for r in records] == [b"", b"None"]
    assert [r["samples/image"] for r in records] == [b"images/0.png", b"images/1.png"]


def test_a_private_set_is_called_so(run, planned, tmp_path):
    pytest.importorskip("mlcroissant")
    run.store.update(private_sets=["mine"])
    _, remarks = export_croissant(load_run(run.folder), [planned(private="true")], tmp_path)
    assert remarks == [
        "mine: its card calls it private (licence: CC-BY-4.0). The files hold its prompts and the "
        "names of its pictures. Do not publish them."
    ]


def test_a_set_whose_card_says_nothing_is_called_so(run, planned, tmp_path):
    """A card's defaults are no words of its author."""
    pytest.importorskip("mlcroissant")
    run.store.update(private_sets=["mine"])
    one = planned(private="true")
    said = one.card.model_fields_set - {"private", "licence"}
    bare = type(one.card)(**{key: getattr(one.card, key) for key in said})
    _, remarks = export_croissant(load_run(run.folder), [replace(one, card=bare)], tmp_path)
    assert remarks == [
        "mine: private, as its card says nothing else (it states no licence). The files hold its "
        "prompts and the names of its pictures. Do not publish them."
    ]


def test_a_missing_library_is_named_with_its_extra(run, tmp_path, monkeypatch):
    monkeypatch.setattr("harness.trackers.exports.find_spec", lambda _: None)
    with pytest.raises(UsageError) as refused:
        export_croissant(run, [], tmp_path)
    assert str(refused.value) == (
        "--to croissant: the package 'mlcroissant' is not installed. It is an optional extra. "
        "Install it: pip install 'vlsm-harness[croissant]'."
    )


def test_tasks_of_one_name_are_told_apart(run, tmp_path):
    """Two sources of prompts, asked by one probe, are two tasks."""
    from huggingface_hub import parse_eval_result_entries

    named = run.summary.with_columns(prompts=pl.lit("mine.csv"))
    run.assessment = replace(run.assessment, summary=pl.concat([run.summary, named]))
    path = export_cards(run, tmp_path / "hub", model="m", benchmark="me/robust")[1]
    entries = parse_eval_result_entries(yaml.safe_load(path.read_text(encoding="utf-8")))
    tasks = [entry.task_id for entry in entries]

    assert len(set(tasks)) == len(tasks)
    assert {"inße|de.test.released.p6.original.dice", "inße|de.test.mine.csv.p6.original.dice"} <= {
        *tasks
    }


def test_a_limited_run_says_so_in_every_form(run, call):
    note = "The run was limited (--limit 7): it knows 7 pictures of each data set at most, not the"
    for form in ("csv", "hub", "every-eval-ever"):
        assert "limited" not in call("export", run.folder, "--to", form)[2]
    run.store.update(limit=7)
    for form in ("csv", "hub", "every-eval-ever"):
        _, out, err = call("export", run.folder, "--to", form)
        assert f"note: {note} whole sets." in err
        assert note not in out
    card = (run.folder / "hub" / "m" / "README.md").read_text(encoding="utf-8")
    assert note in card


def test_the_command_writes_below_the_run(run, call):
    code, out, _ = call("export", run.folder, "--to", "csv")
    assert code == 0
    assert out.strip() == str(run.folder / "cases.csv")
    code, out, _ = call("export", run.folder, "--to", "hub", "--model", "m")
    assert (code, out.strip()) == (0, str(run.folder / "hub" / "m" / "README.md"))
    code, _, err = call("export", run.folder, "--to", "hugging")
    assert code == 2
    assert "--to: unknown form 'hugging'." in err
    assert "Known forms: 'croissant', 'csv', 'every-eval-ever', 'hub'." in err
    code, _, err = call("export", run.folder, "--to", "csv", "--model", "m")
    assert code == 2
    assert (
        "--model: --to csv has no use for it. It is an option of hub and every-eval-ever. Leave it "
        "out." in err
    )
