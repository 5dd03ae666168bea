"""What trackers are told: names that all of them take, and nothing undefined."""

import math
import re

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from harness.trackers.content import FIGURES, MAX_NAME, _unique_name, metrics_of, tracked_models

ROW = {"model_id": "m", "dataset": "d", "split": "test", "prompts": "released"}
ROW |= {"prompt_type": "p6", "probe": "antonym", "attribute": "size"}


def test_a_run_is_told_model_by_model_and_only_what_was_asked(store):
    (one,) = tracked_models(store)
    assert (one.model_id, one.name, one.suite) == ("m@1", "s/m", "s")
    assert one.params["plan_sha256"] == "0"
    assert one.params["harness"] == "0.1.0"
    assert one.params["metric_signature"] == "dice|res:model|thr:0.5|empty:1|gt:>127|v:1"
    assert one.params["verdict_signature"].startswith("verdict|margins:preserved=3")
    assert [path.name for path in one.files] == ["summary.md", "summary.json", "verdicts.json"]
    assert all(path.is_file() for path in one.files)


def test_figures_are_those_of_the_summary(store):
    (one,) = tracked_models(store)
    summary = pl.read_parquet(store.folder / "summary.parquet")
    own = summary.filter(pl.col("model_id") == "m@1")
    expected = sum(math.isfinite(row[f]) for row in own.iter_rows(named=True) for f in FIGURES)
    assert len(one.metrics) == expected > 20
    swap = own.filter(pl.col("probe") == "swap", pl.col("attribute") == "size").row(0, named=True)
    name = "in_e_de/test/p6/swap/size"
    assert one.metrics[f"{name}/relative_change_percent"] == swap["relative_change_percent"]
    assert one.metrics[f"{name}/agreement"] == swap["agreement"]


def test_verdicts_are_tags(store):
    (one,) = tracked_models(store)
    answers = {k: v for k, v in one.tags.items() if k.startswith("answer/")}
    assert answers["answer/in_e_de/test/p6/swap/size/invariance.relative_change"] == "fails"
    assert one.tags["language/in_e_de/p6"].startswith("moved here, cannot tell. m on inße|de")


def test_a_run_without_a_last_command_tells_of_all_its_models(store):
    manifest = store.manifest
    del manifest["evaluated"]
    (store.folder / "run.json").unlink()
    store.update(**manifest)
    assert [one.model_id for one in tracked_models(store)] == ["m@1", "blind@1"]


def test_undefined_figures_and_other_models_are_left_out():
    rows = [ROW | {"dice": float("nan"), "agreement": 0.5}, ROW | {"model_id": "x", "dice": 0.1}]
    assert metrics_of(rows, "m") == {"d/test/p6/antonym/size/agreement": 0.5}


def test_sources_of_prompts_are_told_apart():
    rows = [ROW | {"dice": 0.5}, ROW | {"dice": 0.6, "prompts": "corrected"}]
    assert list(metrics_of(rows, "m")) == [
        "d/test/p6/antonym/size/dice",
        "d/test/corrected/p6/antonym/size/dice",
    ]


@given(st.lists(st.text(), max_size=8))
def test_names_are_accepted_everywhere_and_never_shared(names):
    taken = {}
    for name in names:
        taken[_unique_name(name or "x", taken)] = name
    assert len(taken) == len(names)
    for name in taken:
        assert re.fullmatch(r"[A-Za-z0-9_\-./ ]+", name)
        assert len(name) <= MAX_NAME


def test_long_names_stay_apart():
    one, other = "a" * 300, "a" * 299 + "b"
    first = _unique_name(one, {})
    assert len(first) == MAX_NAME
    assert _unique_name(other, {}) != first
