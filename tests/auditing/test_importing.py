"""Masks made elsewhere: found, read, counted as a model's, summarised; what is wrong is said."""

import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

import harness.engine.local as local
from harness.auditing.evaluating import Conditions
from harness.auditing.importing import Predictions, import_predictions
from harness.auditing.running import run_models
from harness.errors import CardError, DataError, RunError, SubmissionError, UsageError
from harness.plan.build import build_plan
from harness.plan.files import ORIGIN, read_origin, write_plan
from harness.runs.store import RunStore

ROOT = Path(__file__).parents[2]
SUITE = "empty_prompt"


class Tap:
    """Stands in for the selector of kept masks: writes every mask that the engine counts."""

    folder: Path

    def __init__(self, cases, known):
        self.ids = cases["case_id"].to_list()

    def take(self, cases, counts, masks):
        for case, mask in zip(cases, masks[0].numpy(), strict=True):
            Image.fromarray(mask).save(self.folder / f"{self.ids[case]}.png")

    def kept(self):
        return []


@pytest.fixture
def asked(planned, photo_root, tmp_path):
    """A plan's file, its cases, and an empty folder for the answers."""

    def write(resolution="native", suite=SUITE):
        chosen, sets, _ = planned(suite)
        metric = chosen.metric.model_copy(update={"resolution": resolution})
        chosen = chosen.model_copy(update={"metric": metric})
        plan = build_plan(chosen, sets)
        file = tmp_path / "plan.parquet"
        write_plan(file, plan, chosen, data_root=photo_root, limit=None)
        answers = tmp_path / "answers"
        answers.mkdir(exist_ok=True)
        return file, plan.cases, answers, chosen

    return write


def masks_of(cases, root):
    """A made-up answer to every case, by its id: some of the truth, and something else."""
    found = {}
    for row in cases.iter_rows(named=True):
        truth = np.asarray(Image.open(root / row["mask"])) > 127
        rng = np.random.default_rng(row["case_id"] % 2**32)
        found[row["case_id"]] = truth ^ (rng.random(truth.shape) < 0.1)
    return found


def write_pngs(masks, folder, *, top=255, suffix=""):
    for case, mask in masks.items():
        Image.fromarray(mask.astype(np.uint8) * top).save(folder / f"{case}{suffix}.png")


def imported(file, folder, out, *, name="mine", **options):
    return import_predictions(file, Predictions(folder, name), out=out, **options)


def counts(store):
    return store.scores().drop("model_id").sort("case_id")


@pytest.mark.parametrize("resolution", ["native", "model"])
def test_a_model_in_the_engine_and_its_masks_elsewhere_have_equal_counts(
    asked, photo_root, toy_card, tmp_path, monkeypatch, resolution
):
    file, _, answers, suite = asked(resolution)
    Tap.folder = answers
    with monkeypatch.context() as patched:
        patched.setattr(local, "MaskSelector", Tap)
        ran = run_models(
            suite,
            [(str(toy_card()), None)],
            root=photo_root,
            out=tmp_path / "ran",
            conditions=Conditions(device="cpu", random_weights=True),
        )
    store = imported(file, answers, tmp_path / "elsewhere")

    assert counts(store).equals(counts(ran))
    assert store.manifest["plan_sha256"] == ran.manifest["plan_sha256"]
    assert (tmp_path / "elsewhere" / "masks").is_dir()


def rle(mask):
    runs, value, n = [], False, 0
    for pixel in mask.T.ravel():
        if pixel != value:
            runs.append(n)
            value, n = pixel, 0
        n += 1
    return {"size": list(mask.shape), "counts": [*runs, n]}


def as_lines(masks, folder):
    rows = [
        json.dumps({"case_id": str(case) if case % 2 else case, "segmentation": rle(mask)})
        for case, mask in masks.items()
    ]
    (folder / "mine.jsonl").write_text("\n".join(rows) + "\n\n")


def as_arrays(masks, folder):
    kinds = (np.bool_, np.uint8, np.uint16, np.int64)
    arrays = {str(c): m.astype(kinds[k % 4]) for k, (c, m) in enumerate(masks.items())}
    np.savez_compressed(folder / "mine.npz", **arrays)


def as_table(masks, folder):
    (folder / "deep").mkdir()
    rows = ["case_id,file"]
    for k, (case, mask) in enumerate(masks.items()):
        Image.fromarray(mask).save(folder / "deep" / f"{k}.png")
        rows.append(f"{case},deep/{k}.png")
    (folder / "answers.csv").write_text("\n".join(rows))


FORMATS = {
    "0 and 255": write_pngs,
    "0 and 1": lambda masks, folder: write_pngs(masks, folder, top=1),
    "lines": as_lines,
    "arrays": as_arrays,
    "table": as_table,
}


def test_every_format_gives_the_same_counts(asked, photo_root, tmp_path):
    file, cases, answers, _ = asked()
    masks = masks_of(cases, photo_root)
    expected = {c: (int(m.sum()), m) for c, m in masks.items()}
    found = []
    for name, write in FORMATS.items():
        folder = answers / name
        folder.mkdir()
        write(masks, folder)
        found.append(counts(imported(file, folder, tmp_path / name)))

    assert all(other.equals(found[0]) for other in found)
    for row in found[0].iter_rows(named=True):
        assert row["n_pred"] == expected[row["case_id"]][0]
        assert row["status"] == "done"


def test_the_command_gives_summary_verdicts_report_and_gate(call, asked, photo_root, tmp_path):
    file, cases, answers, _ = asked()
    write_pngs(masks_of(cases, photo_root), answers)
    out = tmp_path / "run"

    score = ("score", file, "--predictions", answers, "--model-name", "mine", "--out", out)
    code, text, err = call(*score)

    assert code == 0, err
    assert "mine (predictions imported)" in text
    summary = pl.read_parquet(out / "summary.parquet")
    assert set(summary["model"]) == {"mine (predictions imported)"}
    assert all("thr:elsewhere" in one for one in summary["signature"])
    assert "mine (predictions imported)" in (out / "summary.md").read_text()
    assert call("report", out, "-q")[0] == 0
    assert "mine (predictions imported)" in (out / "report.html").read_text()
    assert call("score", out, "-q")[0] == 0
    baseline = tmp_path / "baseline.json"
    code, text, err = call("gate", out, "--update", baseline, "--model", "mine")
    assert baseline.is_file(), err  # the suite has no rules of its own, so that it leaves with 3
    code, text, err = call("gate", out, "--baseline", baseline)
    assert code in (0, 1, 3), err
    assert "mine (predictions imported)" in text + err


def test_missing_answers_are_named_and_may_follow(call, asked, photo_root, tmp_path):
    file, cases, answers, _ = asked()
    masks = masks_of(cases, photo_root)
    late = cases["case_id"][-1]
    write_pngs({case: mask for case, mask in masks.items() if case != late}, answers)
    out = tmp_path / "run"
    score = ("score", file, "--predictions", answers, "--model-name", "mine", "--out", out)

    code, _, err = call(*score)

    assert code == 3
    assert f"1 of {len(masks)} cases have no answer: {late}" in " ".join(err.split())
    missing = pl.read_csv(out / "missing.csv", infer_schema=False)
    assert missing["case_id"].to_list() == [str(late)]
    assert RunStore(out).manifest["counts"]["missing"] == 1

    write_pngs({late: masks[late]}, answers)
    code, _, err = call(*score)

    assert code == 0
    assert "the earlier import of mine" in " ".join(err.split())
    assert not (out / "missing.csv").exists()
    manifest = RunStore(out).manifest
    assert [entry["name"] for entry in manifest["models"]] == ["mine"]
    assert manifest["counts"]["done"] == len(masks)


def test_a_run_takes_predictions_beside_its_models(asked, photo_root, toy_card, tmp_path):
    _, cases, answers, suite = asked()
    conditions = Conditions(device="cpu", random_weights=True)
    models = [(str(toy_card()), None)]
    ran = run_models(suite, models, root=photo_root, out=tmp_path / "run", conditions=conditions)
    write_pngs(masks_of(cases, photo_root), answers)

    store = imported(ran.folder, answers, None)

    assert store.folder == ran.folder
    assert [entry["name"] for entry in store.manifest["models"]] == ["toy", "mine"]


def test_a_wrong_mask_fails_its_case_alone(asked, photo_root, tmp_path):
    file, cases, answers, _ = asked()
    masks = masks_of(cases, photo_root)
    write_pngs(masks, answers)
    ids = cases["case_id"].to_list()
    spoilt = {
        ids[0]: (lambda p: Image.fromarray(masks[ids[0]].T).save(p), "transpose it"),
        ids[1]: (lambda p: p.write_bytes(b"no picture"), "cannot be decoded"),
        ids[2]: (lambda p: Image.new("L", (7, 9)).save(p), "has 9 x 7 pixels"),
        ids[3]: (lambda p: Image.new("L", (48, 40), 1).save(p), "--mask"),
    }
    for case, (spoil, _) in spoilt.items():
        spoil(answers / f"{case}.png")

    found = counts(imported(file, answers, tmp_path / "run"))

    errors = dict(found.filter(status="failed").select("case_id", "error").iter_rows())
    assert set(spoilt) >= errors.keys() >= set(ids[:3])
    for case, text in errors.items():
        assert re.search(re.escape(spoilt[case][1]), text), text
        assert str(answers / f"{case}.png") in text
    assert found.filter(status="done").height == len(masks) - len(errors)


def test_one_mask_that_is_all_ones_is_read_by_a_rule_alone(call, asked, photo_root, tmp_path):
    file, cases, answers, _ = asked()
    masks = {case: np.ones_like(mask) for case, mask in masks_of(cases, photo_root).items()}
    write_pngs(masks, answers, top=1)
    score = ("score", file, "--predictions", answers, "--model-name", "mine", "-q")

    code, _, err = call(*score, "--out", tmp_path / "auto")
    assert code == 3
    assert "as --mask-rule" in " ".join(err.split()) or "--mask" in err

    code, _, err = call(*score, "--out", tmp_path / "ruled", "--mask-rule", "{foreground: nonzero}")
    assert code == 0, err
    store = RunStore(tmp_path / "ruled")
    assert store.manifest["models"][0]["imported"]["rule"] == "nonzero"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda f, c: (f / "answers.csv").write_text(f"case_id,file\n{c},../out.png\n"), "leaves"),
        (lambda f, c: (f / "answers.csv").write_text(f"case_id,file\n{c},/etc/hosts\n"), "leaves"),
        (lambda f, c: (f / "answers.csv").write_text("case_id,file\n1.5e19,a.png\n"), "1.5e19"),
        (lambda f, c: (f / "answers.csv").write_text("file\na.png\n"), "case_id"),
        (lambda f, c: (f / "a.jsonl").write_text("{"), "not valid JSON"),
        (lambda f, c: (f / "a.jsonl").write_text("[]\n"), "no object"),
        (lambda f, c: (f / "a.jsonl").write_text('{"case_id": 1.5}\n'), "whole numbers"),
        (lambda f, c: (f / "a.npz").write_bytes(b"PK\3\4"), "numpy.savez"),
        (lambda f, c: (f / "unknown.png").write_bytes(b""), "none of 1 answers"),
        (lambda f, c: None, "the folder has none"),
    ],
)
def test_a_folder_that_cannot_be_right_is_refused(asked, tmp_path, make, message):
    file, cases, answers, _ = asked()
    make(answers, cases["case_id"][0])

    with pytest.raises(DataError, match=re.escape(message)):
        imported(file, answers, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_two_answers_to_one_case_are_refused(asked, photo_root, tmp_path):
    file, cases, answers, _ = asked()
    masks = masks_of(cases.head(1), photo_root)
    write_pngs(masks, answers)
    as_lines(masks, answers)

    with pytest.raises(DataError, match="is answered twice"):
        imported(file, answers, tmp_path / "run")


def bad_array(folder, name, member, content):
    with zipfile.ZipFile(folder / name, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, content)


def test_hostile_arrays_and_links_fail_their_case(asked, photo_root, tmp_path):
    file, cases, answers, _ = asked()
    masks = masks_of(cases, photo_root)
    write_pngs(masks, answers)
    ids = [str(case) for case in cases["case_id"]]
    for case in ids[:5]:
        (answers / f"{case}.png").unlink()
    np.savez(answers / "a.npz", **{ids[0]: np.array([{}], dtype=object)})
    header = b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '|u1', 'fortran_order': False, 'shape': "
    bad_array(answers, "b.npz", f"{ids[1]}.npy", header + b"(10**9, 10**9), }".ljust(70) + b"\n")
    np.savez(answers / "c.npz", **{ids[2]: np.zeros((40, 48, 3), np.uint8)})
    secret = tmp_path / "secret.png"
    Image.new("1", (48, 40)).save(secret)
    (answers / f"{ids[3]}.png").symlink_to(secret)
    lines = {"case_id": ids[4], "segmentation": {"size": [10**5, 10**5], "counts": [10**10]}}
    (answers / "d.jsonl").write_text(json.dumps(lines))

    found = imported(file, answers, tmp_path / "run").scores()

    errors = {str(c): e for c, e in found.select("case_id", "error").iter_rows() if e}
    assert set(errors) == set(ids[:5])
    assert "without objects" in errors[ids[0]]
    assert "without objects" in errors[ids[1]]
    assert "Write one array a case" in errors[ids[2]]
    assert "leaves the folder" in errors[ids[3]]
    assert "pixels. At most" in errors[ids[4]]


def test_other_data_than_the_plans_are_refused(asked, photo_rows, photo_root, tmp_path):
    file, cases, answers, _ = asked()
    write_pngs(masks_of(cases, photo_root), answers)
    rows, write = photo_rows
    del rows[0]
    write()

    with pytest.raises(RunError, match="comes the plan .* the file says"):
        imported(file, answers, tmp_path / "run")


def test_a_plan_says_what_it_was_made_from(asked, tmp_path):
    file, cases, _, suite = asked()

    assert read_origin(file).suite == suite
    bare = tmp_path / "bare.parquet"
    cases.write_parquet(bare)
    with pytest.raises(UsageError, match="does not say from which suite"):
        read_origin(bare)
    for said in ("{", "[]", '{"suite": {}, "data_root": "a", "plan_sha256": "b"}'):
        cases.write_parquet(bare, metadata={ORIGIN: said})
        with pytest.raises(UsageError, match="vlsm-harness plan SUITE"):
            read_origin(bare)
    with pytest.raises(UsageError, match="no such plan"):
        read_origin(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--predictions", "x"), "--model-name: not given"),
        (("--model-name", "x"), "--predictions: not given"),
        (("--predictions", "x", "--model-name", "../x"), "--model-name: found '../x'"),
        (("--predictions", "x", "--model-name", "x", "--empty", "nan"), "the setting 'empty'"),
        (("--predictions", "x", "--model-name", "x", "--mask-rule", "{a: 1}"), "--mask-rule"),
    ],
)
def test_options_that_do_not_go_together(call, options, message):
    code, _, err = call("score", "plan.parquet", *options)

    assert code == 2
    assert message in " ".join(err.split())


def test_the_leaderboard_takes_no_imported_row(asked, photo_root, tmp_path):
    from types import SimpleNamespace

    from harness.leaderboard.pack import _refuse_other_runs, model_entry

    file, cases, answers, suite = asked()
    write_pngs(masks_of(cases, photo_root), answers)
    store = imported(file, answers, tmp_path / "run")
    track = SimpleNamespace(suite=SUITE, name="track")
    plan = SimpleNamespace(sha256=store.manifest["plan_sha256"])
    reference = SimpleNamespace(track=track, plan=plan, suite=suite)

    with pytest.raises(SubmissionError, match="the predictions were imported. A row is verified"):
        _refuse_other_runs(store, model_entry(store, "mine"), reference)


def test_equal_repeats_change_no_figure(asked, photo_root, tmp_path):
    from harness.auditing.summarising import summarise

    file, cases, answers, _ = asked()
    masks = masks_of(cases, photo_root)
    write_pngs(masks, answers)
    once = summarise(imported(file, answers, tmp_path / "once")).assessment.summary
    thrice = answers.with_name("thrice")
    thrice.mkdir()
    for repeat in range(3):
        write_pngs(masks, thrice, suffix=f"-{repeat}")

    store = imported(file, thrice, tmp_path / "run")
    again = summarise(store).assessment.summary

    assert store.plan_cases().height == 3 * cases.height
    figures = ["dice", "dice_low", "relative_change_percent", "relative_change_low_percent"]
    for name in figures:
        np.testing.assert_allclose(once[name].to_numpy(), again[name].to_numpy(), rtol=1e-9)
    assert all("3 answers a case" in " ".join(notes) for notes in again["notes"])
    assert again["n_samples"].to_list() == once["n_samples"].to_list()


def test_the_spread_between_repeats_enters_the_interval(asked, photo_root, tmp_path):
    from harness.auditing.summarising import summarise
    from harness.metrics import dice

    file, cases, answers, _ = asked()
    truths = {
        row["case_id"]: np.asarray(Image.open(photo_root / row["mask"])) > 127
        for row in cases.iter_rows(named=True)
    }
    write_pngs(truths, answers, suffix="-0")
    # The second one loses half of the targets' rows, in every case.
    habits = {
        case: mask & (np.arange(len(mask)) % 2 == 0)[:, None] for case, mask in truths.items()
    }
    write_pngs(habits, answers, suffix="-1")

    found = summarise(imported(file, answers, tmp_path / "run")).assessment.summary

    row = found.filter(probe="original").row(0, named=True)
    originals = cases.filter(probe="original")["case_id"]
    second = np.mean(
        [dice(habits[c].sum(), habits[c].sum(), truths[c].sum(), empty=1.0) for c in originals]
    )
    spread = abs(1 - second) / np.sqrt(2)
    assert row["dice"] == pytest.approx((1 + second) / 2)
    assert f"differs by {spread:.3g} between them" in " ".join(row["notes"])
    # Student's quantile for one degree of freedom.
    widest = row["dice"] - 0.99 * 12.7 * spread / np.sqrt(2)
    assert row["dice_low"] <= max(widest, 0)


def example_in_readme():
    text = (ROOT / "models" / "README.md").read_text(encoding="utf-8")
    section = text.partition("## Masks made elsewhere")[2]
    return section.partition("```python\n")[2].partition("```")[0]


def test_the_example_without_this_package(call, tmp_path, photo_root):
    program = example_in_readme()
    assert len([line for line in program.splitlines() if line.strip()]) <= 15
    assert "harness" not in program.replace("vlsm-harness", "")
    folder = tmp_path / "asked"
    options = ("--datasets", "kvasir_polyp", "--export", folder, "-q")
    assert call("plan", SUITE, *options)[0] == 0
    rows = pl.read_csv(folder / "cases.csv", infer_schema=False)
    assert rows.columns == ["case_id", "image", "prompt", "answer", "height", "width"]

    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path)

    answers = folder / "answers"
    assert len(list(answers.iterdir())) == rows.height
    out = tmp_path / "run"
    score = ("score", folder / "plan.parquet", "--predictions", answers, "--model-name", "mine")
    assert call(*score, "--out", out, "-q")[0] == 0
    assert RunStore(out).manifest["counts"]["done"] == rows.height


def test_an_export_does_not_write_among_other_files(call, tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "thesis.tex").write_text("")

    code, _, err = call("plan", SUITE, "--datasets", "kvasir_polyp", "--export", tmp_path / "own")

    assert code == 2
    assert "holds other files and no cases.csv" in " ".join(err.split())


def test_a_rule_for_masks_is_a_cards():
    from harness.cards import read_mask_rule

    assert read_mask_rule("{above: 12}", where="--mask-rule").above == 12
    with pytest.raises(CardError, match="--mask-rule"):
        read_mask_rule("{above: twelve}", where="--mask-rule")
