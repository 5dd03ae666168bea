"""Every verb that writes says which place takes no file, and ends with exit 2."""

import contextlib
import os
import sys

import pytest

from harness.cli import main
from harness.errors import RunError
from harness.runs.store import RunStore

RUN_VERBS = {
    "report": ["report", "RUN", "-o", "PLACE/page.html"],
    "report --images full": ["report", "RUN", "--images", "full", "-o", "PLACE/page.html"],
    "report --csv": ["report", "RUN", "-o", "OK/page.html", "--csv", "PLACE/tables"],
    "report --latex": ["report", "RUN", "-o", "OK/page.html", "--latex", "PLACE/tables"],
    "report --markdown": ["report", "RUN", "-o", "OK/page.html", "--markdown", "PLACE/a.md"],
    "report --figures": ["report", "RUN", "-o", "OK/page.html", "--figures", "PLACE/figures"],
    "export": ["export", "RUN", "--to", "csv", "-o", "PLACE/cases.csv"],
    "score": ["score", "RUN", "--out", "PLACE/score"],
    "compare": ["compare", "RUN", "--out", "PLACE/comparison"],
    "gate": ["gate", "RUN", "--model", "m", "--junit", "PLACE/junit.xml"],
    "gate --update": ["gate", "RUN", "--model", "m", "--junit", "OK/j.xml", "--update", "PLACE/b"],
}
KVASIR = ["--datasets", "kvasir_polyp"]
TOY = ["--model", "CARD", "--random-weights", "--device", "cpu"]
OTHER_VERBS = {
    "plan": ["plan", "empty_prompt", *KVASIR, "-o", "PLACE/plan.parquet"],
    "plan into a folder": ["plan", "empty_prompt", *KVASIR, "-o", "PLACE/plan"],
    "phantom": ["phantom", "--data-root", "PLACE/data"],
    "run": ["run", "empty_prompt", *KVASIR, *TOY, "--out", "PLACE/run"],
    "hunt": ["hunt", *KVASIR, *TOY, "--limit", "1", "--budget", "2", "--out", "PLACE/breaks"],
    "demo": ["demo", "--out", "PLACE/demo"],
}


@pytest.fixture(scope="module")
def run(tmp_path_factory, synthetic_runs):
    made = synthetic_runs.with_one_truth(synthetic_runs.make_run({"inside": 60}, n_words=2))
    folder = synthetic_runs.write_run(tmp_path_factory.mktemp("runs") / "run", made)
    from harness.auditing.summarising import summarise

    summarise(RunStore(folder))
    return folder


WORK = (
    "harness.auditing.running._look_at",
    "harness.commands.compare.compared",
    "harness.commands.gate.check_run",
    "harness.model.loading.load_model",
    "harness.plan.build.build_plan",
    "harness.report.html.report_html",
    "harness.stats.assessment.assess",
    "harness.trackers.exports.csv_text",
)
"""What takes long; a place is looked at before."""


@pytest.fixture
def refused(call, tmp_path, monkeypatch):
    """A function: the verb with a place that takes no file; `PLACE` stands for it."""

    def working(*_, **__):
        raise AssertionError("work before the place was looked at")

    for name in WORK:
        monkeypatch.setattr(name, working)

    def check(arguments, place, **known):
        known |= {"PLACE": place, "OK": tmp_path / "fine"}
        for name, path in known.items():
            arguments = [a.replace(name, str(path)) for a in arguments]
        code, _, err = call(*arguments, *([] if arguments[0] == "finetune" else ["-q"]))
        assert code == 2, err
        assert "Traceback" not in err
        last = err.splitlines()[-1]
        assert last.startswith(f"error: {place}"), last
        assert ": cannot be written (" in last
        assert "A place that takes new files is needed." in last

    return check


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    path.write_text("somebody's own")
    return path


@pytest.mark.parametrize("verb", RUN_VERBS)
def test_of_a_run_below_a_file(refused, run, file, verb):
    refused(RUN_VERBS[verb], file, RUN=run)


@pytest.mark.parametrize("verb", OTHER_VERBS)
def test_below_a_file(refused, toy_card, file, verb):
    refused(OTHER_VERBS[verb], file, CARD=toy_card())


def test_finetune_below_a_file(refused, photo_root, write_photos, toy_card, file):
    for split in ("train", "val"):
        write_photos(photo_root, "kvasir_polyp", split=split, n=2)
    verb = ["finetune", "--model", "CARD", "--datasets", "kvasir_polyp", "--out", "PLACE/trained"]
    refused([*verb, "--device", "cpu"], file, CARD=toy_card())


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
@pytest.mark.parametrize("verb", ["report", "gate", "compare", "score"])
def test_where_no_file_can_be_made(refused, run, verb):
    refused(RUN_VERBS[verb], "/proc", RUN=run)


def test_a_folder_where_a_file_is_wanted(call, run, tmp_path):
    for arguments in (["report", run, "-o", tmp_path], ["gate", run, "--junit", tmp_path]):
        code, _, err = call(*arguments, *(["--model", "m"] if arguments[0] == "gate" else []))
        assert code == 2
        assert f"error: {tmp_path}: cannot be written (Is a directory)." in err


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_an_output_that_is_full(monkeypatch, capsys):
    full = open("/dev/full", "w")  # noqa: SIM115
    monkeypatch.setattr(sys, "argv", ["vlsm-harness", "ls", "models"])
    monkeypatch.setattr(sys, "stdout", full)
    with pytest.raises(SystemExit) as left:
        main()
    monkeypatch.undo()
    with contextlib.suppress(OSError):
        full.close()
    assert left.value.code == 2
    assert "standard output: No space left on device." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("problem", "code"),
    [
        (RunError("a: b. C. D."), 2),
        (PermissionError(13, "Permission denied", "/root/x"), 2),
        (BrokenPipeError(32, "Broken pipe"), 141),
        (KeyboardInterrupt(), 130),
        (ZeroDivisionError("a fault"), 4),
        (MemoryError(), 4),
    ],
)
def test_no_failure_but_a_gates_ends_with_one(monkeypatch, capfd, run, problem, code):
    def fail(*_, **__):
        raise problem

    monkeypatch.setattr("harness.commands.score.finish", fail)
    monkeypatch.setattr("os.dup2", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["vlsm-harness", "score", str(run)])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == code
    err = capfd.readouterr().err
    assert ("Traceback" in err) is (code == 4)
    if code == 4:
        assert "error: harness: the traceback above is a fault of the harness or of a" in err
