"""Tracks are data: pinned ones agree with the generator, the others with the released files."""

import hashlib
import shutil

import polars as pl
import pytest

from harness.commands.tracks import planned, reference_of
from harness.errors import SubmissionError, UsageError
from harness.files import shipped
from harness.leaderboard import tracks
from harness.leaderboard.tracks import (
    Track,
    load_track,
    measure_truth,
    pinned_reference,
    suite_of,
    track_names,
    truth_sha256,
)
from harness.suite.schema import load_suite


@pytest.mark.parametrize("name", track_names())
def test_a_track_lists_the_data_of_its_suite(name):
    track = load_track(name)
    suite = suite_of(track)
    assert track.name == name
    assert [(d.name, d.split) for d in track.datasets] == [
        (d.name, d.split) for d in suite.datasets
    ]
    assert set(track.decided_by) <= {d.name for d in track.datasets}
    assert {"preserved"} <= meanings(suite), "steadiness must be decided"


def meanings(suite):
    from harness.suite.schema import rules_of

    return {ruled.rule.meaning.value for ruled in rules_of(suite)}


def test_the_generator_and_the_rules_still_give_the_pinned_plan(tmp_path, reference):
    """If this fails a change made another track: give it a new name, old rows keep the old."""
    plan, sets = planned(load_track("phantom-v1"), tmp_path, quiet=True)
    assert plan.sha256 == reference.plan.sha256
    truth = measure_truth(sample for one in sets for sample in one.samples)
    assert truth_sha256(truth) == reference.track.truth_sha256
    assert reference.plan.cases.equals(plan.cases)


def test_a_pinned_track_that_was_changed_is_refused(tmp_path, monkeypatch):
    shutil.copytree(shipped("suites") / "tracks", tmp_path / "tracks")
    monkeypatch.setattr(tracks, "shipped", lambda _: tmp_path)
    track = load_track("phantom-v1")
    path = tmp_path / "tracks" / "phantom-v1" / "truth.parquet"
    pl.read_parquet(path).with_columns(n_gt=pl.col("n_gt") + 1).write_parquet(path)
    with pytest.raises(SubmissionError, match="phantom-v1: the truth has the hash .*, the track's"):
        pinned_reference(track)
    path.unlink()
    with pytest.raises(SubmissionError, match="no such file. A pinned track ships with its plan"):
        pinned_reference(track)


def test_an_unknown_track_is_answered_with_the_nearest():
    with pytest.raises(
        SubmissionError, match="unknown track 'phantom-v2'. Did you mean 'phantom-v1'"
    ):
        load_track("phantom-v2")


def test_a_track_scores_at_native_resolution():
    track = Track(name="a", title="A", about="A", suite="paper", decided_by=[], datasets=[])
    with pytest.raises(SubmissionError, match="its suite 'paper' scores at the resolution 'model'"):
        suite_of(track)


def test_the_papers_suites_are_those_of_its_track():
    paper, track = load_suite("paper"), load_suite("medvlsm_v1")
    assert [p for p in track.probes if p in paper.probes] == paper.probes
    assert track.out_of_distribution
    assert track.datasets == paper.datasets
    assert track.metric.resolution == "native"


def test_without_the_data_the_papers_track_cannot_be_tried():
    with pytest.raises(
        UsageError, match="--data-root: not given. The pictures of the track 'medvl"
    ):
        reference_of(load_track("medvlsm-v1"), None)


def test_the_released_annotations_have_the_pinned_hashes(shared_data):
    for one in load_track("medvlsm-v1").datasets:
        path = shared_data / one.name / "anns" / f"{one.split}.json"
        assert hashlib.sha256(path.read_bytes()).hexdigest() == one.annotations_sha256, one.name


def test_the_released_cvc300_list_is_that_of_colondb(shared_data):
    by_name = {one.name: one for one in load_track("medvlsm-v1").datasets}
    released = (shared_data / "cvc300_polyp" / "anns" / "test.json").read_bytes()
    assert hashlib.sha256(released).hexdigest() == by_name["colondb_polyp"].annotations_sha256
    assert by_name["cvc300_polyp"].split == "recovered_test"
    assert by_name["colondb_polyp"].annotations_sha256 in by_name["cvc300_polyp"].known[0]


def test_the_pinned_truths_are_those_of_the_pictures(shared_data):
    from harness.cards import load_dataset_card
    from harness.data import load_samples

    pinned = [one for one in load_track("medvlsm-v1").datasets if one.truth_sha256]
    assert [one.name for one in pinned] == ["clinicdb_polyp", "busi"]
    for one in pinned:
        samples = load_samples(load_dataset_card(one.name), shared_data, one.split, pictures=False)
        assert truth_sha256(measure_truth(samples)) == one.truth_sha256


@pytest.mark.slow
def test_the_papers_track_can_be_planned_from_its_annotations(shared_data):
    from harness.auditing.samples import read_sets
    from harness.plan.build import build_plan

    track = load_track("medvlsm-v1")
    suite = suite_of(track)
    sets = read_sets(suite, shared_data, pictures=False)
    n_cases = build_plan(suite, sets).cases.height
    n_samples = sum(len(one.samples) for one in sets)
    assert track.takes.startswith(f"{n_cases:,} cases of {n_samples:,} samples")


def test_the_order_of_a_truth_is_no_part_of_it(reference):
    truth = reference.truth
    assert truth_sha256(truth.reverse()) == truth_sha256(truth)
    assert truth_sha256(truth[1:]) != truth_sha256(truth)
