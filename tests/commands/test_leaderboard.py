"""``submit``, ``verify`` and ``leaderboard`` as a user meets them: texts and exit codes."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

REAL = (
    Path(__file__).resolve().parents[2]
    / "reports/leaderboard/submissions/phantom-v1/phantom-image-only-crowd"
)


@pytest.fixture
def copy(tmp_path):
    folder = tmp_path / "submissions" / "phantom-v1" / REAL.name
    shutil.copytree(REAL, folder)
    return folder


def test_tracks_are_listed(call):
    code, out, _ = call("ls", "tracks")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["medvlsm-v1", "phantom-v1"]


def test_verify_accepts_and_records(call, copy, tmp_path):
    flags = tmp_path / "flags.yaml"
    code, out, err = call("verify", copy, "--record", flags)
    assert (code, err) == (0, "")
    assert out.startswith(f"{copy}: verified (sha256 ")
    stored = yaml.safe_load(flags.read_text())["flags"]
    assert stored[f"phantom-v1/{REAL.name}"]["state"] == "verified"


def test_verify_refuses_with_every_reason(call, copy):
    path = copy / "run.json"
    path.write_text(path.read_text().replace("res:native", "res:model"))
    (copy / "more.txt").write_text("")
    code, out, err = call("verify", copy)
    assert code == 1
    assert "refused: more.txt: unknown file." in err
    assert "refused: run.json: signature: 'dice|res:model" in err
    assert out.startswith(f"{copy}: refused (sha256 ")


def test_verify_speaks_json(call, copy):
    (copy / "more.txt").write_text("")
    code, out, _ = call("verify", copy, "--json")
    content = json.loads(out)
    assert (code, content["state"], len(content["reasons"])) == (1, "refused", 1)


def test_a_submission_to_no_track_is_refused(call, copy):
    path = copy / "submission.yaml"
    path.write_text(path.read_text().replace("phantom-v1", "phantom-v9"))
    code, _, err = call("verify", copy)
    assert code == 1
    assert "unknown track 'phantom-v9'. Did you mean 'phantom-v1'?" in err


def test_what_cannot_be_tried_is_the_users_to_repair(call, copy, tmp_path, monkeypatch):
    code, _, err = call("verify", tmp_path / "nothing")
    assert code == 2
    assert "nothing: no folder. A submission is a folder, no link and no archive." in err
    code, _, err = call("verify", copy, "--spot-check", "plenty")
    assert code == 2
    assert "--spot-check: found 'plenty'. A share between 0 and 100% is needed" in err


def test_build_writes_a_board(call, copy, tmp_path):
    code, out, _ = call("leaderboard", "build", tmp_path)
    assert code == 0
    assert f"1 rows on 2 tracks, 5 pages: {tmp_path}/index.html" in out
    text = (tmp_path / "phantom-v1.html").read_text()
    assert "Controls, unranked" in text
    assert "unverified" in text


def test_build_stops_at_a_refused_submission(call, copy, tmp_path):
    (copy / "run.json").unlink()
    code, _, err = call("leaderboard", "build", tmp_path)
    assert code == 2
    assert "refused. A board shows accepted submissions alone." in err
    assert "run.json: no such file." in err


def test_a_run_of_another_suite_is_no_submission(call, tmp_path):
    from harness.runs.store import RunStore
    from harness.suite.schema import load_suite

    store = RunStore(tmp_path)
    store.update(models=[{"name": "a", "model_id": "a@0"}], plan_sha256="0")
    lock = load_suite("paper").model_dump(mode="json", exclude_none=True)
    store.ledger.write({"suite.lock.yaml": yaml.safe_dump(lock).encode()})
    assert store.suite().name == "paper"
    code, _, err = call("submit", tmp_path)
    assert code == 2
    assert (
        "a run of the suite 'paper'. The leaderboard's tracks are of the suites 'medvlsm_v1', "
        in err
    )


def test_what_is_no_run_is_no_submission(call, tmp_path):
    code, _, err = call("submit", tmp_path, "--model", "a")
    assert code == 2
    assert "no run.json here." in err
