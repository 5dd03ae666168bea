"""The whole of a submission: refused with every reason, accepted when nothing is wrong."""

import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from harness.leaderboard.claims import claim_reasons, select_claims, truth_reasons
from harness.leaderboard.submission import CLAIMS, Submission, digest, still_to_give
from harness.leaderboard.verification import open_submission

ROOT = Path(__file__).resolve().parents[2]


def test_a_real_submission_is_accepted(verified):
    assert verified.reasons == ()
    (verdict,) = [v for v in verified.accepted.assessment.language if v.dataset == "phantom_pairs"]
    assert verdict.language == "listening"


def test_the_claims_are_what_follows_from_the_counts(verified, tables):
    assert list(claim_reasons(tables["summary.parquet"], verified.accepted.assessment)) == []
    assert select_claims(verified.accepted.assessment).schema == CLAIMS


@pytest.mark.parametrize(
    ("name", "old", "new", "text"),
    [
        (
            "run.json",
            '"plan_sha256": "73943620',
            '"plan_sha256": "83943620',
            "run.json: plan_sha256: another plan, 83943620f90c1e785803d88880be24618f35fb19a6580b02"
            "cf96553aada1bc0e. The track 'phantom-v1' has the plan 73943620",
        ),
        (
            "run.json",
            "res:native",
            "res:model",
            "run.json: signature: 'dice|res:model|thr:0.5|empty:1|gt:>127|v:1'. The track scores "
            "with 'dice|res:native|thr:0.5|empty:1|gt:>127|v:1' at this threshold.",
        ),
        (
            "run.json",
            '"weights_sha256": "56055ca1',
            '"weights_sha256": "66055ca1',
            "submission.yaml: weights.sha256: 56055ca1",
        ),
        (
            "run.json",
            '"weights_sha256": "56055ca1d24b4b64815663f7639bb55768351d0e3cd7eb829a6d098bb521a5cb"',
            '"weights_sha256": null',
            "run.json: weights_sha256: no weights. A row is of a model that was trained.",
        ),
        (
            "submission.yaml",
            "name: phantom-clipseg-crowd",
            "name: clipseg-crowd",
            "submission.yaml: name: 'clipseg-crowd' where run.json is of 'phantom-clipseg-crowd@",
        ),
        (
            "submission.yaml",
            "name: phantom-clipseg-crowd",
            "name: clipseg-crowd",
            "submission.yaml: weights: no model 'clipseg-crowd' ships with the harness.",
        ),
        (
            "submission.yaml",
            "sha256: 56055ca1",
            "sha256: 66055ca1",
            "submission.yaml: weights.sha256: 66055ca1d24b4b64815663f7639bb55768351d0e3cd7eb829a6d"
            "098bb521a5cb where the card has 56055ca1",
        ),
        (
            "submission.yaml",
            "control: false",
            "control: true",
            "submission.yaml: control: the model is said to read no prompt, and its mask moves in",
        ),
        (
            "submission.yaml",
            "control: false",
            "controls: false",
            "submission.yaml:19: controls: unknown key. Did you mean 'control'?",
        ),
    ],
)
def test_what_a_submission_may_not_say_is_told(edit, reasons, name, old, new, text):
    edit(name, old, new)
    found = reasons()
    assert any(reason.startswith(text) for reason in found), found


def test_an_unknown_track_is_told(edit, copy):
    edit("submission.yaml", "track: phantom-v1", "track: phantom-v2")
    opened = open_submission(copy)
    assert opened.track is None
    assert opened.reasons == (
        "submission.yaml: track: unknown track 'phantom-v2'. Did you mean 'phantom-v1'? Known "
        "tracks: 'medvlsm-v1', 'phantom-v1'. Name the track that was run.",
    )


def test_every_reason_is_told_not_only_the_first(edit, copy, reasons, tables):
    edit("run.json", '"plan_sha256": "7', '"plan_sha256": "8')
    edit("submission.yaml", "licence:", "license:")
    (copy / "notes.txt").write_text("")
    scores = tables["scores.parquet"][1:].with_columns(tp=pl.col("tp") + 1)
    scores.write_parquet(copy / "scores.parquet")
    tables["truth.parquet"][1:].write_parquet(copy / "truth.parquet")
    found = "\n".join(reasons())
    for text in (
        "another plan", "license: unknown key", "licence: the key is missing", "notes.txt: unknown",
        "1 cases of the plan are missing", "tp <= min(n_pred, n_gt)", "truth.parquet: phantom_solo",
    ):  # fmt: skip
        assert text in found


def changed_claims(tables, verified, **columns):
    claims = tables["summary.parquet"].with_columns(**columns)
    return list(claim_reasons(claims, verified.accepted.assessment))


def test_a_figure_that_does_not_follow_is_told(tables, verified):
    row = pl.col("attribute") == "shape"
    better = pl.when(row & (pl.col("probe") == "antonym")).then(0.001).otherwise("dice_named")
    (found,) = changed_claims(tables, verified, dice_named=better)
    assert found.startswith(
        "summary.parquet: phantom_pairs/shape/released/p6/antonym/shape: dice_named is '0.001'. "
        "From the counts follows '0.643"
    )
    assert found.endswith("Submit the run again: `vlsm-harness submit RUN`.")


def test_every_claimed_column_is_compared(tables, verified):
    rows = tables["summary.parquet"].height
    for name, kind in CLAIMS.items():
        if name in ("n_samples", "verdict", "signature") or kind == pl.Float64:
            other = {pl.Int64: 7_777, pl.String: "other"}.get(kind, 12345.0)
            found = changed_claims(tables, verified, **{name: pl.lit(other, kind)})
            assert len(found) == rows, name


@pytest.mark.parametrize("by", [1e-5, -1e-5])
def test_a_figure_that_is_off_by_a_hundred_thousandth_is_another_one(tables, verified, by):
    claims = tables["summary.parquet"]
    for name, kind in CLAIMS.items():
        if kind == pl.Float64:
            n_large = int((claims[name].fill_nan(0).abs() >= 0.5).sum())
            large = pl.when(pl.col(name).abs() >= 0.5).then(pl.col(name) * (1 + by))
            found = changed_claims(tables, verified, **{name: large.otherwise(pl.col(name))})
            assert len(found) == n_large, name
    assert claims["dice"].max() >= 0.5


def test_rounding_is_no_other_figure(tables, verified):
    floats = [name for name, kind in CLAIMS.items() if kind == pl.Float64]
    near = {name: pl.col(name) * (1 + 1e-9) for name in floats}
    assert changed_claims(tables, verified, **near) == []


def test_missing_doubled_and_foreign_rows_are_told(tables, verified):
    claims = tables["summary.parquet"]
    told = claim_reasons(claims[1:], verified.accepted.assessment)
    assert any("the row is missing. Every row is claimed" in reason for reason in told)
    told = claim_reasons(pl.concat([claims, claims[:1]]), verified.accepted.assessment)
    assert any("the row stands twice. A row stands once" in reason for reason in told)
    foreign = claims[:1].with_columns(probe=pl.lit("mine"))
    told = claim_reasons(pl.concat([claims, foreign]), verified.accepted.assessment)
    assert any("/mine: a row of no probe of the track" in reason for reason in told)


def test_another_truth_is_told(tables, reference):
    truth = tables["truth.parquet"]
    wrong = truth.with_columns(n_gt=pl.when(pl.int_range(pl.len()) == 5).then(1).otherwise("n_gt"))
    row = truth.row(5, named=True)
    assert list(truth_reasons(wrong, reference)) == [
        f"truth.parquet: {row['dataset']}/{row['split']}/{row['sample_id']}: n_gt 1, height 96, "
        f"width 96 (1 samples differ). The track has n_gt {row['n_gt']}, height 96, width 96. Take "
        "the track's data as they are, and run again."
    ]
    doubled = pl.concat([truth, truth[:1]])
    assert "a sample stands twice" in next(truth_reasons(doubled, reference))


def test_the_digest_changes_with_every_file(real_folder):
    files = {p.name: p.read_bytes() for p in real_folder.iterdir()}
    first = digest(files)
    assert all(digest(files | {name: files[name] + b" "}) != first for name in files)
    assert first == open_submission(real_folder).digest


def test_placeholders_are_found_at_any_depth():
    content = {"a": {"b": ["x", "FILL IN"]}, "c": "FILL IN: y", "d": 3}
    assert list(still_to_give(content)) == ["a.b[1]", "c"]


def test_a_submission_has_no_loose_field():
    """Every text of a stranger has a greatest length."""
    schema = Submission.model_json_schema()
    for part in (schema, schema["$defs"]["WeightFile"]):
        for name, field in part["properties"].items():
            for kind in field.get("anyOf", [field]):
                items = kind.get("items", kind)
                if items.get("type") == "string":
                    assert {"maxLength", "pattern", "enum"} & items.keys(), name


def test_verifying_needs_no_torch(real_folder):
    program = (
        "import sys\n"
        "from harness.cli import main\n"
        f"sys.argv = ['vlsm-harness', 'verify', {str(real_folder)!r}]\n"
        "main_error = None\n"
        "try:\n    main()\nexcept SystemExit as leaving:\n    main_error = leaving.code\n"
        "print(main_error, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert "phantom-clipseg-crowd: verified (sha256 " in done.stdout
    assert done.stdout.splitlines()[-1] in ("0 False", "None False")
