"""From a run to a submission, its verification and its spot check, on a track made here."""

import json
import re
from dataclasses import replace
from types import SimpleNamespace

import polars as pl
import pytest
import yaml

from harness.auditing.choices import select_suite
from harness.auditing.evaluating import Conditions
from harness.auditing.running import run_models
from harness.commands.submit import _registered
from harness.commands.tracks import planned
from harness.errors import SubmissionError
from harness.leaderboard.pack import AuthorFacts, model_entry, pack
from harness.leaderboard.spot_check import compare_counts, difference_reasons, draw_sample, rerun
from harness.leaderboard.submission import RunFacts
from harness.leaderboard.tracks import Track, measure_truth, measured_reference, pin
from harness.leaderboard.verification import open_submission, verify
from harness.model.loading import load_model
from harness.plan.registration import read_registration, record, register
from harness.runs.store import RunStore
from tests.conftest import write_photo_dataset

MODEL = "phantom-clipseg-crowd"
SUITE = """\
name: small_v1
title: A small track
datasets: [{name: kvasir_polyp}]
probes:
  - {name: empty, perturbation: empty}
  - {name: antonym, perturbation: antonym}
  - {name: typo, perturbation: typo, repeats: 3}
metric: {resolution: native}
statistics: {draws: 100}
"""
TOLD = AuthorFacts(authors=["Ada"], code="https://example.org/code", trained_on=["somewhere"])


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A track of six pictures, a complete run of it, and where all of it lies."""
    root = tmp_path_factory.mktemp("small")
    write_photo_dataset(root / "data", "kvasir_polyp")
    path = root / "small_v1.yaml"
    path.write_text(SUITE)
    track = Track(
        name="small-v1", title="Small", about="Small.", suite=str(path),
        decided_by=["kvasir_polyp"], datasets=[{"name": "kvasir_polyp"}],
    )  # fmt: skip
    plan, sets = planned(track, root / "data", quiet=True)
    reference = measured_reference(track, plan, sets, root=root / "data")
    store = run_models(
        select_suite(str(path)),
        [(MODEL, None)],
        root=root / "data",
        out=root / "run",
        conditions=Conditions(device="cpu"),
    )
    return root, reference, store


@pytest.fixture
def packed(small, tmp_path):
    _, reference, store = small
    missing = pack(store, model_entry(store, None), reference, TOLD, out=tmp_path / MODEL)
    return tmp_path / MODEL, reference, missing


@pytest.fixture(scope="module")
def accepted(small, tmp_path_factory):
    """The submission, verified; its track is known here alone."""
    _, reference, store = small
    folder = tmp_path_factory.mktemp("packed") / MODEL
    pack(store, model_entry(store, None), reference, TOLD, out=folder)
    here = "harness.leaderboard.verification"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"{here}.track_names", lambda: ["small-v1"])
        patch.setattr(f"{here}.load_track", lambda _: reference.track)
        found = verify(open_submission(folder), reference)
    assert found.reasons == ()
    return found.accepted


def test_a_submission_is_complete_and_tells_no_folder(packed, small):
    folder, reference, missing = packed
    assert missing == []
    content = yaml.safe_load((folder / "submission.yaml").read_text())
    assert content["authors"] == ["Ada"]
    assert content["trained_on"] == ["somewhere"]
    assert content["weights"]["address"] == "ships with vlsm-harness"
    for path in folder.iterdir():
        assert str(small[0]).encode() not in path.read_bytes()
    scores = pl.read_parquet(folder / "scores.parquet")
    assert scores["case_id"].to_list() == reference.plan.cases["case_id"].to_list()


def facts_of(folder):
    return RunFacts.model_validate_json((folder / "run.json").read_bytes())


def test_what_is_shared_with_training_is_told_in_numbers(small, tmp_path):
    _, reference, store = small
    one = {"audited": "kvasir_polyp/test", "trained": ["kvasir_polyp/train"], "n_audited": 6}
    one |= {"n_trained": 8, "n_copies": 2, "n_unread": 0, "patients": ["Ada", "Bob"]}
    one["pairs"] = [{"audited": "secret.png", "trained": "other.png", "distance": 3}]
    entry = model_entry(store, None) | {"training_overlap": [one]}
    pack(store, entry, reference, TOLD, out=tmp_path / MODEL)
    text = (tmp_path / MODEL / "run.json").read_text()
    assert "secret" not in text
    assert "Ada" not in text
    (found,) = facts_of(tmp_path / MODEL).training_overlap
    assert (found.n_copies, found.n_audited, found.n_patients) == (2, 6, 2)
    pack(store, model_entry(store, None), reference, TOLD, out=tmp_path / MODEL)
    assert facts_of(tmp_path / MODEL).training_overlap is None


def test_a_submission_says_whether_it_was_run_as_registered(small, tmp_path):
    _, reference, store = small
    suite, path = store.suite(), tmp_path / "registered.json"
    register(path, reference.plan, suite, limit=None)
    assert _registered(store, None, reference) is None
    found = _registered(store, path, reference)
    late = "time: it was registered after the run began"
    assert found["differs"] == ["time: the run named none when it began", late] or (
        found["differs"] == ["time: the run named none when it began"]  # within a second
    )
    pack(store, model_entry(store, None), reference, TOLD, out=tmp_path / MODEL, registration=found)
    told = facts_of(tmp_path / MODEL).registration
    assert told.sentence.startswith(f"registered on {found['registered']} (seal ")
    assert "; differs in time: the run named none when it began" in told.sentence
    named = record(read_registration(path), [])
    held = SimpleNamespace(manifest=store.manifest | {"registration": named}, suite=store.suite)
    assert _registered(held, path, reference) == named
    assert _registered(held, None, reference) == named
    other = tmp_path / "other.json"
    register(other, reference.plan, suite, limit=3)
    differs = _registered(held, other, reference)["differs"]
    assert differs[:2] == [
        "limit: 3 was registered, no limit was run",
        f"time: the run named another, of the seal {named['seal_sha256'][:12]} when it began",
    ]


def test_what_was_not_told_is_a_placeholder_that_is_refused(small, tmp_path):
    _, reference, store = small
    entry = model_entry(store, None) | {"name": "mine", "trained_on": []}
    entry["card"] = {}
    out = tmp_path / "mine"
    missing = pack(store, entry, reference, AuthorFacts(), out=out)
    keys = ["title", "authors", "code", "weights", "licence", "trained_on"]
    assert [text.split(": ")[1] for text in missing] == keys
    assert missing[1] == (
        f"{out}/submission.yaml: authors: 'FILL IN: a name a line'. Only its authors know it. "
        "Write it in this line, or give --author to `submit`."
    )
    reasons = open_submission(out).reasons
    assert sum("still to be given" in reason for reason in reasons) == 6


@pytest.mark.parametrize(
    ("second", "model", "told"),
    [
        ({"model_id": "b@1", "name": "b"}, None, "a run of 2 models ('a', 'b'). A submission"),
        ({"model_id": "a@2", "name": "a"}, None, "a run of 2 models ('a@1', 'a@2'). A submission"),
        ({"model_id": "a@2", "name": "a"}, "a", "a run of 2 models ('a@1', 'a@2'). A submission"),
        ({"model_id": "b@1", "name": "b"}, "c", "unknown model 'c'"),
    ],
)
def test_one_model_of_several_must_be_named(second, model, told):
    entries = [{"model_id": "a@1", "name": "a"}, second]
    store = SimpleNamespace(folder="run", manifest={"models": entries})
    with pytest.raises(SubmissionError, match=re.escape(told)):
        model_entry(store, model)
    assert model_entry(store, "a@1") == entries[0]


def test_another_folder_is_not_overwritten(small, tmp_path):
    _, reference, store = small
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("dear")
    with pytest.raises(SubmissionError, match="something else is there. A submission takes a"):
        pack(store, model_entry(store, None), reference, TOLD, out=tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "dear"


def told_to(small, **changes):
    """What `pack` says of the run when its manifest is another."""
    _, reference, store = small
    manifest = store.manifest | changes.pop("manifest", {})
    reference = replace(reference, **changes)

    class Other(RunStore):
        @property
        def manifest(self):
            return manifest

    with pytest.raises(SubmissionError) as caught:
        pack(Other(store.folder), manifest["models"][0], reference, TOLD, out=store.folder / "x")
    return str(caught.value)


def test_a_run_of_another_plan_is_no_submission(small):
    text = told_to(small, manifest={"plan_sha256": "ab"})
    assert "the run has the plan ab. The track 'small-v1' has" in text
    assert "all its data, its seed, no --limit. Run it: `vlsm-harness run" in text


def test_a_run_at_another_resolution_is_no_submission(small):
    text = told_to(small, manifest={"metric": {"resolution": "model"}})
    assert "the run scores with {'resolution': 'model'}. The track scores at native" in text


def test_random_weights_are_no_submission(small):
    entry = small[2].manifest["models"][0] | {"random_weights": True}
    assert "the weights are random. A row is of a" in told_to(small, manifest={"models": [entry]})


def test_another_backend_than_torch_is_no_submission(small):
    entry = small[2].manifest["models"][0] | {"backend": "openvino"}
    text = told_to(small, manifest={"models": [entry]})
    assert "the model was computed by openvino. A row is verified with --backend torch" in text


def test_a_run_of_two_speeds_is_no_submission(small):
    entry = small[2].manifest["models"][0]
    entry |= {"two_speed": {"tolerance": 0.005}, "precision": "two-speed:0.005 (bfloat16)"}
    text = told_to(small, manifest={"models": [entry]})
    assert "the model was computed in two speeds, two-speed:0.005 (bfloat16). A row is" in text


def test_a_run_with_gaps_is_no_submission(small):
    entry = small[2].manifest["models"][0] | {"model_id": "other@0123456789ab"}
    text = told_to(small, manifest={"models": [entry]})
    assert "0 of 54 cases of other@0123456789ab are done, 0 failed" in text


def test_a_run_on_another_truth_is_no_submission(small):
    truth = small[1].truth.with_columns(n_gt=pl.col("n_gt") + 1)
    assert "the masks of the run are not those of the track 'small-v1'" in told_to(
        small, truth=truth
    )


def test_the_model_that_is_meant_must_be_clear(small):
    store = small[2]
    with pytest.raises(
        SubmissionError, match="unknown model 'phantom-clipseg'. Did you mean 'phantom-"
    ):
        model_entry(store, "phantom-clipseg")
    assert model_entry(store, MODEL)["name"] == MODEL


def check(accepted, small, *, hardware=None, spoil=None, share=1.0):
    """A spot check of the submission after its counts or its hardware were changed."""
    if hardware is not None:
        changed = accepted.facts.hardware.model_copy(update={"device_name": hardware})
        facts = accepted.facts.model_copy(update={"hardware": changed})
        accepted = replace(accepted, facts=facts)
    if spoil is not None:
        accepted = replace(accepted, scores=spoil(accepted.scores))
    root, reference, _ = small
    sample = draw_sample(reference.plan.cases, "a" * 64, share=share, seed=3)
    model = load_model(MODEL, device="cpu")
    return rerun(accepted, reference, sample, model, root=root / "data")


def one_pixel(scores):
    """Every seventh case loses a pixel of its overlap; no rule on counts sees it."""
    seventh = pl.int_range(pl.len()) % 7 == 0
    lost = pl.when(seventh & (pl.col("tp") > 0)).then(pl.col("tp") - 1).otherwise("tp")
    return scores.with_columns(tp=lost)


def many_pixels(scores):
    return scores.with_columns(tp=pl.col("tp") // 2)


def test_the_same_hardware_gives_the_same_counts(accepted, small):
    found = check(accepted, small)
    assert found.reasons == ()
    assert (found.same_hardware, found.n_cases, found.largest) == (True, 54, 0.0)
    assert found.sentence().startswith("54 cases rerun on the same hardware (seed 3): 0 with other")


def test_one_wrong_pixel_is_found_on_the_same_hardware(accepted, small):
    found = check(accepted, small, spoil=one_pixel)
    (reason,) = found.reasons
    assert "rerun in the same batches on the same hardware it has tp " in reason
    assert reason.endswith("submit the counts as they were written.")


def test_other_hardware_may_move_single_pixels(accepted, small):
    found = check(accepted, small, hardware="another machine")
    assert (found.same_hardware, found.reasons) == (False, ())
    found = check(accepted, small, hardware="another machine", spoil=many_pixels)
    assert any("Dice is off by " in reason for reason in found.reasons)
    assert any("on average. Other hardware moves the mean by 0.001" in r for r in found.reasons)


def test_other_weights_are_not_compared(accepted, small, monkeypatch):
    weights = accepted.submission.weights.model_copy(update={"sha256": "0" * 64})
    submission = accepted.submission.model_copy(update={"weights": weights})
    found = check(replace(accepted, submission=submission), small)
    assert found.n_cases == 0
    assert found.reasons[0].startswith("--model: its weights have the hash 56055ca1")


def test_tolerances_are_of_a_case_and_of_the_mean(accepted):
    """One pixel in two thousand is noise of hardware; three on average are not."""
    scores = accepted.scores[:1].with_columns(tp=pl.lit(1000), n_pred=pl.lit(2000), n_gt=2000)
    ids = scores["case_id"]

    def told(tp):
        again = scores.with_columns(tp=pl.lit(tp), status=pl.lit("done"))
        return list(difference_reasons(compare_counts(scores, again, ids)))

    assert told(1000) == told(1001) == []
    assert "on average" in told(1003)[0]
    assert len(told(1003)) == 1
    wanted = f"case {ids[0]}: Dice is off by 0.0110 (1 of the drawn cases are too far off)"
    assert wanted in told(1022)[0]


def test_a_sample_is_repeated_by_its_seed_and_not_known_before(small):
    cases = small[1].plan.cases
    first = draw_sample(cases, "a" * 64, share=0.1, seed=1)
    assert first.drawn.to_list() == draw_sample(cases, "a" * 64, share=0.1, seed=1).drawn.to_list()
    others = [
        draw_sample(cases, d * 64, share=0.1, seed=s) for d, s in (("b", 1), ("a", 2), ("a", None))
    ]
    assert all(other.drawn.to_list() != first.drawn.to_list() for other in others)
    assert len(first.drawn) == 5
    kept = set(first.cases["case_id"])
    assert set(first.drawn) <= kept
    assert set(first.cases["original_case_id"]) <= kept


def test_a_drawn_case_brings_the_sample_that_it_names(reference):
    cases = reference.plan.cases
    sample = draw_sample(cases, "c" * 64, share=0.02, seed=1)
    named = sample.cases.filter(
        pl.col("case_id").is_in(sample.drawn.implode()), pl.col("named_sample_id").is_not_null()
    )
    there = set(sample.cases.select("dataset", "split", "sample_id").rows())
    assert named.height > 5
    assert set(named.select("dataset", "split", "named_sample_id").rows()) <= there


def test_annotations_that_are_not_the_tracks_are_refused(small):
    root, reference, _ = small
    plan, sets = planned(reference.track, root / "data", quiet=True)

    def told(**pins):
        one = reference.track.datasets[0].model_copy(update=pins)
        track = reference.track.model_copy(update={"datasets": [one]})
        with pytest.raises(SubmissionError) as caught:
            measured_reference(track, plan, sets, root=root / "data")
        return str(caught.value)

    text = told(annotations_sha256="0" * 64)
    assert text.startswith(f"{root}/data/kvasir_polyp/anns/test.json: the file has the hash ")
    assert text.endswith("Take the files that the track's page names, under another --data-root.")
    assert "kvasir_polyp: the truth has the hash " in told(truth_sha256="0" * 64)


def test_pins_are_what_a_track_names(small, tmp_path):
    root, reference, _ = small
    plan, sets = planned(reference.track, root / "data", quiet=True)
    truth = measure_truth(s for one in sets for s in one.samples)
    pins = pin(reference.track, plan, truth, folder=tmp_path)
    assert pins.plan_sha256 == reference.plan.sha256
    assert json.loads((tmp_path / "sources.json").read_text())["seed"] == 0
    assert pl.read_parquet(tmp_path / "truth.parquet").equals(reference.truth)
