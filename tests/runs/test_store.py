"""The run directory keeps what it was given, and refuses what does not belong to it."""

import re
from dataclasses import replace

import polars as pl
import pytest

from harness.errors import RunError
from harness.files.writing import parquet_bytes
from harness.runs.store import DONE, FAILED, SCORE_SCHEMA, RunStore


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


def opened(store, plan, suite, **facts):
    """Opens a run again; returns what is said."""
    said = []
    store.open(plan, suite, say=said.append, **facts)
    return said


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
    path = store.folder / "run.json"
    path.write_text(path.read_text().replace('"plan_sha256": "', '"plan_sha256": "0'))
    refused(
        lambda: store.manifest,
        f"{path}: damaged or edited, or written by a version without hashes. It is read only as "
        "this version wrote it. Issue the command of the run again: it restores the file from its "
        "copy; where there is none, start again with --fresh.",
    )


def test_a_broken_manifest_is_restored_from_its_copy(store):
    store, plan, suite = store
    path = store.folder / "run.json"
    before = store.manifest
    path.write_bytes(path.read_bytes()[:-40])
    (note,) = opened(store, plan, suite, data_sha256="d")
    assert note == "run.json was damaged or edited and is restored from its copy."
    assert store.manifest == before


def test_a_manifest_of_a_version_without_hashes_is_refused(store):
    store, plan, suite = store
    (store.folder / "run.json").write_text('{"plan_sha256": "0"}')
    (store.folder / ".run.json").unlink()
    refused(lambda: store.open(plan, suite, data_sha256="d"), "or written by a version without")


def test_a_file_of_the_run_is_read_only_as_it_was_written(store):
    store, _, _ = store
    store.write_part("m", 0, frame(score(1)))
    part = store.folder / "scores" / "part-m-000000-0.parquet"
    readers = {
        "plan.parquet": (store.plan_cases, "it writes the file anew."),
        "not_applicable.parquet": (store.not_applicable, "it writes the file anew."),
        "suite.lock.yaml": (store.suite, "it writes the file anew."),
        "scores/part-m-000000-0.parquet": (
            store.scores, "it sets the part aside and evaluates its images anew."
        ),
    }  # fmt: skip
    for name, (read, repair) in readers.items():
        path = store.folder / name
        path.write_bytes(path.read_bytes() + b"\n")
        refused(
            read,
            f"{path}: damaged or edited: its SHA-256 is not the one in written.sha256. A file is "
            f"read only as the run wrote it. Issue the command of the run again: {repair}",
        )
    refused(store.plan_scan, "plan.parquet: damaged or edited")
    refused(store.scores_scan, f"{part}: damaged or edited")
    refused(lambda: store.settled_shards("m"), f"{part}: damaged or edited")


def test_an_edited_plan_is_refused_and_written_anew(store):
    store, plan, suite = store
    edited = plan.cases.with_columns(prompt=pl.lit("a polyp"))
    edited.write_parquet(store.folder / "plan.parquet")
    refused(store.plan_cases, "plan.parquet: damaged or edited")
    assert opened(store, plan, suite, data_sha256="d") == [
        "plan.parquet was damaged or edited: its SHA-256 is not the one in written.sha256; it is "
        "written anew."
    ]
    assert store.plan_cases().equals(plan.cases)


def test_a_text_table_that_is_gone_is_missed(store):
    store, _, _ = store
    store.update(models=[{"model_id": "m"}])
    assert store.texts().is_empty()
    store.ledger.write({"texts/m.parquet": parquet_bytes(pl.DataFrame({"text": ["a"]}))})
    assert store.texts()["model_id"].to_list() == ["m"]
    (store.folder / "texts" / "m.parquet").unlink()
    refused(store.texts, "texts/m.parquet: cannot be read (No such file or directory).")


def test_a_part_of_another_run_is_refused_by_name_and_set_aside(store):
    store, plan, suite = store
    stranger = store.folder / "scores" / "part-m-000003-0.parquet"
    frame(score(9)).write_parquet(stranger)
    what = "not in written.sha256: another run's file, or one that was put here by hand"
    refused(store.scores, f"{stranger}: {what}. A file is read only as the run wrote it.")
    assert opened(store, plan, suite, data_sha256="d") == [
        f"scores/{stranger.name} was {what}; it is now in {store.folder}/damaged, its images are "
        "evaluated again."
    ]
    assert store.scores().is_empty()


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
    # Runs without the key were computed by torch.
    refused(
        lambda: store.add_model(entry | {"backend": "openvino"}),
        "toy was run with backend 'torch', now it is 'openvino'. A run keeps one backend per",
    )
    store.add_model(entry | {"backend": "torch"})


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
    assert (aside / "run.json").read_text() == content
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


SAMPLES = ("a", "b")


def shown(*contents):
    rows = [("d", "test", s, c) for s, c in zip(SAMPLES, contents, strict=True)]
    names = ("dataset", "split", "sample_id", "sha256")
    return pl.DataFrame(rows, schema=dict.fromkeys(names, pl.String), orient="row")


@pytest.fixture
def begun(tmp_path, planned):
    """A run of two samples, one shard each, and a function that opens it on other data."""
    suite, _, plan = planned("empty_prompt", limit=2)
    ids = plan.cases["sample_id"].unique(maintain_order=True).to_list()
    named = plan.cases.with_columns(
        pl.lit("d").alias("dataset"),
        pl.col("sample_id").replace_strict(dict(zip(ids, SAMPLES, strict=True))),
    )
    plan = replace(plan, parquet=parquet_bytes(named))
    store = RunStore(tmp_path / "repaired")

    def again(*contents, plan=plan, suite=suite, **facts):
        data = shown(*contents)
        return opened(store, plan, suite, data=data, data_sha256="".join(contents), **facts)

    again("0", "0")
    for shard, sample in enumerate(SAMPLES):
        own = named.filter(sample_id=sample)["case_id"]
        status = FAILED if sample == "b" else DONE
        store.write_part("m", shard, frame(*(score(case, status) for case in own)))
    return store, plan, again


def test_a_sample_repaired_after_it_failed_is_evaluated_again(begun):
    store, _, again = begun
    (note,) = again("0", "1")
    assert note == (
        "scores/part-m-000001-0.parquet held samples that were repaired; it is now in "
        f"{store.folder}/damaged."
    )
    assert list(store.settled_shards("m")) == [0]
    assert store.scores()["status"].unique().to_list() == [DONE]
    assert store.manifest["data_sha256"] == "01"
    assert again("0", "1") == []


def test_a_repaired_picture_that_changes_the_plan_of_its_sample_alone(begun):
    """Where a cluster is a picture, its cases have other ids afterwards."""
    store, plan, again = begun
    cases = plan.cases.with_columns(
        case_id=pl.when(sample_id=pl.lit("b")).then(pl.col("case_id") + 1).otherwise("case_id")
    )
    other = replace(plan, parquet=parquet_bytes(cases))
    assert len(again("0", "1", plan=other)) == 1
    assert store.plan_cases().equals(cases)
    assert store.manifest["plan_sha256"] == other.sha256
    assert store.scores()["case_id"].is_in(cases["case_id"].implode()).all()


def test_a_sample_changed_after_it_succeeded_is_refused_by_name(begun):
    store, _, again = begun
    for contents in (("1", "0"), ("1", "1")):
        refused(
            lambda contents=contents: again(*contents),
            f"{store.folder}: picture or mask of d/test/a changed after their cases were "
            "evaluated. A run holds one plan, metric and data. Put the old files back, choose "
            "another --out, or start again with --fresh.",
        )
    assert store.manifest["data_sha256"] == "00"


def test_another_suite_is_refused_by_its_name_and_what_differs(begun):
    store, plan, again = begun
    held = store.suite()
    other = replace(plan, parquet=parquet_bytes(plan.cases.with_columns(pl.col("case_id") + 1)))
    for changed, given in (({"name": "mine"}, "'mine'"), ({}, "another form of it")):
        suite = held.model_copy(update={"seed": held.seed + 1, **changed})
        refused(
            lambda suite=suite: again("0", "0", plan=other, suite=suite),
            f"this run is of the suite {held.name!r}, the command gives {given}. They differ in: "
            "seed. A run holds one plan",
        )
    refused(lambda: again("0", "0", plan=other, limit=3), "They differ in: limit (None and 3).")


def test_a_repair_does_not_let_another_plan_in(begun):
    _, plan, again = begun
    other = replace(plan, parquet=parquet_bytes(plan.cases.with_columns(pl.col("case_id") + 1)))
    refused(lambda: again("0", "1", plan=other), "plan_sha256 of this run is")
