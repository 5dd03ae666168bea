"""The run directory keeps what it was given, and refuses what does not belong to it."""

import json
import re

import polars as pl
import pytest

from harness.errors import RunError
from harness.store import DONE, FAILED, SCORE_SCHEMA, RunStore


@pytest.fixture
def store(tmp_path, planned):
    suite, _, plan = planned("empty_prompt")
    store = RunStore(tmp_path / "run")
    store.open(plan, suite, data_sha256="d")
    return store, plan, suite


def score(case_id, status=DONE, tp=3, **more):
    row = dict.fromkeys(SCORE_SCHEMA) | {"model_id": "m", "case_id": case_id, "status": status}
    return row | {"tp": tp if status == DONE else None} | more


def frame(*rows):
    return pl.DataFrame(rows, schema=SCORE_SCHEMA)


def refused(call, message):
    with pytest.raises(RunError, match=re.escape(message)):
        call()


def test_plan_and_suite_come_back_as_they_were(store):
    store, plan, suite = store
    assert store.plan_cases().equals(plan.cases)
    assert store.not_applicable().equals(plan.not_applicable)
    assert store.suite() == suite
    assert store.manifest["plan_sha256"] == plan.sha256


def test_the_same_run_is_opened_again(store):
    store, plan, suite = store
    store.open(plan, suite, data_sha256="d")
    assert store.plan_cases().equals(plan.cases)


def test_another_plan_is_refused(store, planned):
    store, _, _ = store
    other_suite, _, other = planned("empty_prompt", limit=1)
    refused(
        lambda: store.open(other, other_suite, data_sha256="d"),
        "A run holds one plan, metric and data. Choose another --out, or start again with --fresh.",
    )


def test_other_data_is_refused(store):
    store, plan, suite = store
    refused(lambda: store.open(plan, suite, data_sha256="e"), "data_sha256 of this run is 'd'")


def test_another_metric_is_refused(store):
    store, plan, suite = store
    metric = suite.metric.model_copy(update={"resolution": "native"})
    other = suite.model_copy(update={"metric": metric})
    refused(lambda: store.open(plan, other, data_sha256="d"), "metric of this run is")


def test_a_folder_with_other_files_is_refused(tmp_path, planned):
    suite, _, plan = planned("empty_prompt")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("...")
    refused(
        lambda: RunStore(tmp_path / "thesis").open(plan, suite),
        "thesis: the folder holds other files and no run.json.",
    )


def test_a_broken_manifest_says_so(store):
    store, _, _ = store
    (store.folder / "run.json").write_text("{")
    refused(lambda: store.manifest, "run.json: not valid JSON")


def test_a_model_keeps_its_device_precision_and_batch_size(store):
    store, _, _ = store
    entry = {"model_id": "m", "name": "toy", "device": "cpu", "precision": "p", "batch_size": 4}
    store.add_model(entry)
    store.add_model(entry)
    assert len(store.manifest["models"]) == 1
    refused(
        lambda: store.add_model(entry | {"batch_size": 8}),
        "toy was run with batch_size 4, now it is 8. A run keeps one batch_size per model.",
    )


def test_a_success_beats_an_error(store):
    store, _, _ = store
    store.write_part("m", 0, frame(score(1, FAILED, error="no"), score(2)))
    assert store.settled_shards("m") == {}
    store.write_part("m", 0, frame(score(1), score(2)))

    assert store.settled_shards("m") == {0: 2}
    assert store.scores()["status"].to_list() == [DONE, DONE]


def test_every_try_of_a_shard_is_kept_beside_the_others(store):
    store, _, _ = store
    for _ in range(3):
        store.write_part("m", 7, frame(score(1, FAILED, error="no")))
    names = sorted(path.name for path in (store.folder / "scores").iterdir())
    assert names == [f"part-m-000007-{attempt}.parquet" for attempt in range(3)]


def test_an_error_row_stays_until_it_succeeds(store):
    store, _, _ = store
    store.write_part("m", 0, frame(score(1, FAILED, error="no")))
    assert store.scores()["error"].to_list() == ["no"]


def test_two_unequal_successes_are_an_error(store):
    store, _, _ = store
    store.write_part("m", 0, frame(score(1, tp=3)))
    store.write_part("m", 0, frame(score(1, tp=4)))
    refused(store.scores, "case 1 of m has two unequal scores. A case has one score per model.")


def test_a_part_of_an_earlier_version_lacks_optional_columns(store):
    store, _, _ = store
    old = frame(score(1)).drop("iou", "hausdorff_px")
    old.write_parquet(store.folder / "scores" / "part-m-000000-0.parquet")
    assert store.scores().select("tp", "iou").row(0) == (3, None)


def test_scores_of_two_models_stand_side_by_side(store):
    store, _, _ = store
    store.write_part("m", 0, frame(score(1)))
    store.write_part("n-1", 0, frame(score(1, model_id="n-1", tp=9)))
    assert store.scores()["tp"].to_list() == [3, 9]
    assert store.settled_shards("n-1") == {0: 1}


def test_a_plan_without_a_manifest_is_written_anew(store, planned):
    """A process killed between the two must not leave another command its plan."""
    store, _, _ = store
    (store.folder / "run.json").unlink()
    suite, _, smaller = planned("empty_prompt", limit=1)
    store.open(smaller, suite, data_sha256="d")
    assert store.plan_cases().equals(smaller.cases)


def test_a_half_written_part_is_not_seen(store):
    store, _, _ = store
    store.write_part("m", 0, frame(score(1)))
    (store.folder / "scores" / ".part-m-000001-0.parquet.77.tmp").write_bytes(b"PAR1 half")
    assert store.scores().height == 1


def test_one_process_at_a_time(store):
    store, _, _ = store
    with store.locked():
        refused(store.locked().__enter__, "another process works on this run.")
    with store.locked():
        assert (store.folder / ".lock").exists()


def test_fresh_does_not_move_a_run_another_process_writes(store):
    store, _, _ = store
    with store.locked():
        refused(store.set_aside, "another process works on this run.")
    assert store.folder.exists()


def test_fresh_moves_a_run_aside_and_deletes_nothing(store):
    store, _, _ = store
    content = (store.folder / "run.json").read_text()
    aside = store.set_aside()
    assert not store.folder.exists()
    assert json.loads((aside / "run.json").read_text()) == json.loads(content)
    assert store.set_aside() is None


def test_scores_are_the_same_read_at_once_and_lazily(store):
    store, _, _ = store
    store.write_part("m", 0, frame(score(1), score(2)))
    store.write_part("m", 1, frame(score(3, FAILED, error="no"), score(4)))
    store.write_part("m", 1, frame(score(3), score(4)))
    store.write_part("n-1", 0, frame(score(1, model_id="n-1", tp=9)))
    lazy = store.scores_scan().collect().sort("model_id", "case_id")
    assert lazy.equals(store.scores())
    assert lazy["status"].to_list() == [DONE] * 5


def test_unequal_successes_are_an_error_of_the_scan_too(store):
    store, _, _ = store
    store.write_part("m", 0, frame(score(1, tp=3)))
    store.write_part("m", 0, frame(score(1, tp=4)))
    refused(
        store.scores_scan, "case 1 of m has two unequal scores. A case has one score per model."
    )


def test_a_run_without_scores_has_an_empty_scan(store):
    store, _, _ = store
    assert store.scores_scan().collect().is_empty()


def test_parts_of_an_earlier_version_are_scanned_with_what_they_lack(store):
    store, _, _ = store
    old = frame(score(1)).drop("iou", "hausdorff_px")
    old.write_parquet(store.folder / "scores" / "part-m-000000-0.parquet")
    store.write_part("m", 1, frame(score(2)))
    found = store.scores_scan().collect()
    assert found.schema == SCORE_SCHEMA
    assert found["iou"].to_list() == [None, None]
