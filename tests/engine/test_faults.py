"""Whatever breaks in the middle of a run: the same command continues, and nothing is lost.

Every test compares with a run that was left in peace: the same cases, each once, the same
counts, the same bytes of ``summary.json`` and ``verdicts.json``. The short forms run in
this process, the slow ones are the command line itself.
"""

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import polars as pl
import pytest
from PIL import Image

from harness.runs.store import DONE, RunStore

ROOT = Path(__file__).resolve().parents[2]
PAIRS = 70  # a shard; the plan below has six or seven of them
PROGRAM = f"""
import harness.engine.shards as shards; shards.PAIRS_PER_SHARD = {PAIRS}
from harness.cli import main; main()
"""
# A clock that jumps back by up to a day whenever it is asked.
BACKWARDS = """
import datetime, itertools, random, time
rng, real = random.Random(0), time.time
time.time = lambda: real() - rng.uniform(0, 86400)
class Clock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return datetime.datetime.fromtimestamp(time.time(), tz)
datetime.datetime = Clock
"""


@dataclass(frozen=True)
class Run:
    """One command line in a process of its own."""

    arguments: Sequence[str]
    folder: Path
    environment: dict[str, str]

    def start(self, program: str = PROGRAM) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", program, *self.arguments],
            env=self.environment,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, program: str = PROGRAM) -> tuple[int, str]:
        process = self.start(program)
        _, err = process.communicate(timeout=300)
        return process.returncode, err

    def n_parts(self) -> int:
        return len(list((self.folder / "scores").glob("part-*")))

    def wait_for_parts(self, n: int) -> None:
        deadline = time.monotonic() + 120
        while self.n_parts() < n:
            assert time.monotonic() < deadline, "no part appeared"
            time.sleep(0.02)


@pytest.fixture
def arguments(tmp_path, toy_card, backend):
    """Arguments of the same run in any folder; settings change the model and so its id."""

    def build(folder, **settings):
        return [
            "run", "paper", "--datasets", "kvasir_polyp", "--model", str(toy_card(**settings)),
            "--random-weights", "--device", "cpu", "--batch-size", "16", "-q",
            "--backend", backend, "--out", str(folder),
        ]  # fmt: skip

    return build


@pytest.fixture
def run(tmp_path, photo_root, arguments):
    def build(name, **settings):
        folder = Path(name) if os.path.isabs(name) else tmp_path / name
        environment = os.environ | {"VLSM_DATA_ROOT": str(photo_root), "OMP_NUM_THREADS": "1"}
        return Run(arguments(folder, **settings), folder, environment)

    return build


def check_nothing_lost(folder: Path, peaceful: Path) -> None:
    """Every case of the plan once, with the counts of a run that nothing disturbed."""
    store, reference = RunStore(folder), RunStore(peaceful)
    cases, scores = store.plan_cases(), store.scores()
    assert set(scores["case_id"]) == set(cases["case_id"])
    assert scores.height == cases.height > 400
    assert scores["status"].unique().to_list() == [DONE]
    assert scores.equals(reference.scores())
    assert store.manifest["status"] == "complete"
    assert store.manifest["counts"]["done"] == cases.height
    for name in ("summary.json", "verdicts.json"):
        assert (folder / name).read_bytes() == (peaceful / name).read_bytes()
    assert not [p for p in folder.rglob("*") if p.name.endswith(".tmp")]


@contextmanager
def small_disk(folder: Path, size: str):
    """A file system of its own; tests that need one skip where it cannot be mounted."""
    folder.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if not mounted or mounted.returncode:
        pytest.skip("a small file system cannot be mounted here (it takes root)")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def remount(folder: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(folder)], check=True)


@pytest.fixture
def short(call, arguments, tmp_path, monkeypatch):
    """The command in this process with small shards, and a peaceful run to compare with."""
    monkeypatch.setattr("harness.engine.shards.PAIRS_PER_SHARD", PAIRS)

    def peaceful(**settings):
        code, _, err = call(*arguments(tmp_path / "peaceful", **settings))
        assert code == 0, err
        return tmp_path / "peaceful"

    return peaceful


@pytest.mark.parametrize("backend", ["torch", pytest.param("openvino", marks=pytest.mark.slow)])
def test_a_damaged_part_is_set_aside_and_run_again(short, call, arguments, tmp_path):
    peaceful, folder = short(), tmp_path / "damaged"
    shutil.copytree(peaceful, folder)
    parts = sorted((folder / "scores").iterdir())
    parts[2].write_bytes(parts[2].read_bytes()[:-40])
    parts[4].write_bytes(b"")

    code, _, err = call("score", folder, "-q")
    assert code == 2
    assert f"{parts[2]}: damaged or edited: its SHA-256 is not the one in written.sha256." in err
    assert "Issue the command of the run again: it sets the part aside and evaluates" in err

    code, _, err = call(*arguments(folder))

    assert code == 0
    for part in (parts[2], parts[4]):
        assert f"note: scores/{part.name} was damaged or edited" in err
    assert f"it is now in {folder}/damaged, its images are evaluated again." in err
    assert {p.name for p in (folder / "damaged").iterdir()} == {parts[2].name, parts[4].name}
    check_nothing_lost(folder, peaceful)


def test_a_damaged_table_is_written_anew(short, call, arguments, tmp_path):
    peaceful = short()
    for name in ("plan.parquet", "not_applicable.parquet", "data.parquet", "texts"):
        folder = shutil.copytree(peaceful, tmp_path / f"damaged {name}")
        file = folder / name
        file = next(file.iterdir()) if file.is_dir() else file
        whole = pl.read_parquet(file)
        file.write_bytes(file.read_bytes()[:100])

        assert call(*arguments(folder))[0] == 0, name

        assert pl.read_parquet(file).equals(whole), name
        check_nothing_lost(folder, peaceful)


def test_a_full_disk_says_so_and_the_run_continues(short, call, arguments, tmp_path):
    """A limit on the size of files stands for the disk: the system refuses in the same place."""
    peaceful, folder = short(), tmp_path / "full"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    smallest = min(p.stat().st_size for p in (peaceful / "scores").iterdir())
    assert smallest > 2048
    for limit in (1024, smallest - 1):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        try:
            code, _, err = call(*arguments(folder))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert code == 2
        assert f"error: {folder}" in err
        assert "cannot be written (File too large). A place that takes new files is needed" in err
        assert "Free space, make it writable or choose another; the same command then" in err
        assert not [p for p in folder.rglob("*") if p.name.endswith(".tmp")]

    assert call(*arguments(folder))[0] == 0
    check_nothing_lost(folder, peaceful)


@pytest.mark.parametrize("backend", ["torch", pytest.param("openvino", marks=pytest.mark.slow)])
def test_an_image_that_breaks_in_the_middle_is_run_again_once_repaired(
    short, call, arguments, photo_root, tmp_path, monkeypatch
):
    peaceful, folder = short(), tmp_path / "broken"
    image = photo_root / "kvasir_polyp" / "images" / "test_2.png"
    content = image.read_bytes()
    opened = RunStore.open

    def spoil(*given, **more):
        opened(*given, **more)
        image.write_bytes(content[:200])

    monkeypatch.setattr(RunStore, "open", spoil)
    assert call(*arguments(folder))[0] == 3
    monkeypatch.undo()
    monkeypatch.setattr("harness.engine.shards.PAIRS_PER_SHARD", PAIRS)
    monkeypatch.setenv("VLSM_DATA_ROOT", str(photo_root))
    failed = RunStore(folder).scores().filter(pl.col("status") != DONE)
    assert failed["error"].str.contains("test_2.png: the image cannot be decoded").all()
    assert 0 < failed.height < 100
    image.write_bytes(content)

    assert call(*arguments(folder))[0] == 0
    check_nothing_lost(folder, peaceful)


def test_a_mask_that_is_repaired_is_evaluated_again_and_the_rest_is_kept(
    short, call, arguments, photo_root, tmp_path
):
    """Its size is read at planning, its pixels cannot be; the repair is another file."""
    mask, folder = photo_root / "kvasir_polyp" / "masks" / "test_2.png", tmp_path / "repaired"
    content = mask.read_bytes()
    mask.write_bytes(content[:-30])
    assert call(*arguments(folder))[0] == 3
    parts = {p.name: p.stat().st_mtime_ns for p in (folder / "scores").iterdir()}
    Image.open(BytesIO(content)).save(mask, compress_level=0)
    assert mask.read_bytes() != content

    code, _, err = call(*arguments(folder))

    assert code == 0, err
    (note,) = (line for line in err.splitlines() if line.startswith("note: "))
    assert "held samples that were repaired; it is now in" in note
    (aside,) = (folder / "damaged").iterdir()
    after = {p.name: p.stat().st_mtime_ns for p in (folder / "scores").iterdir()}
    assert {k for k, v in after.items() if parts.get(k) != v} == {aside.name}
    check_nothing_lost(folder, short())

    mask.write_bytes(content)
    code, _, err = call(*arguments(folder))
    assert code == 2
    assert (
        f"{folder}: picture or mask of kvasir_polyp/test/test_2.png changed after their cases were "
        "evaluated. A run holds one plan, metric and data. Put the old files back" in err
    )


def test_logits_that_were_not_finite_once_are_run_again(short, call, arguments, tmp_path):
    glitch, folder = tmp_path / "glitch", tmp_path / "nan"
    peaceful = short(glitch=str(glitch))
    glitch.touch()
    code, _, _ = call(*arguments(folder, glitch=str(glitch)))
    assert code == 3
    assert RunStore(folder).scores()["error"].str.contains("are not finite").all()
    glitch.unlink()

    assert call(*arguments(folder, glitch=str(glitch)))[0] == 0
    check_nothing_lost(folder, peaceful)


def test_a_second_process_is_refused_and_changes_nothing(short, call, arguments, tmp_path):
    peaceful, folder = short(), tmp_path / "shared"
    shutil.copytree(peaceful, folder)
    files = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    with RunStore(folder).locked():
        for more in ([], ["--fresh"]):
            code, _, err = call(*arguments(folder), *more)
            assert code == 2
            assert f"{folder}: another process works on this run. One process at a time" in err
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == files


@pytest.mark.parametrize("backend", ["torch", pytest.param("openvino", marks=pytest.mark.slow)])
def test_a_killed_process_loses_nothing(run, short, call):
    """SIGKILL once some parts are there; the slow form kills at 20 random moments.

    The process has others of its own, and the run is finished by one without.
    """
    peaceful, killed = short(delay_s=0.02), run("killed", delay_s=0.02)
    process = killed.start()
    killed.wait_for_parts(2)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert killed.n_parts() >= 2
    (killed.folder / "scores" / ".part-x.parquet.1.tmp").write_bytes(b"PAR1 half")

    assert call(*killed.arguments)[0] == 0
    check_nothing_lost(killed.folder, peaceful)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", pytest.param("openvino", marks=pytest.mark.slow)])
def test_killed_at_twenty_random_moments(run):
    peaceful = run("peaceful", delay_s=0.05)
    start = time.monotonic()
    assert peaceful.finish()[0] == 0
    lasts_s = time.monotonic() - start
    rng = random.Random(8)
    interrupted = 0
    for number in range(20):
        killed = run(f"killed{number % 10}", delay_s=0.05)  # each folder is killed in twice
        process = killed.start()
        time.sleep(rng.uniform(0, lasts_s))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        interrupted += process.returncode == -signal.SIGKILL
    assert interrupted > 10
    for number in range(10):
        killed = run(f"killed{number}", delay_s=0.05)
        code, err = killed.finish()
        assert code == 0, err
        check_nothing_lost(killed.folder, peaceful.folder)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", pytest.param("openvino", marks=pytest.mark.slow)])
def test_interrupted_at_random_moments(run):
    peaceful, stopped = run("peaceful", delay_s=0.05), run("stopped", delay_s=0.05)
    assert peaceful.finish()[0] == 0
    for n_parts in (1, 3, 5):
        process = stopped.start()
        stopped.wait_for_parts(n_parts)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 130
        assert "Interrupted. The same command again continues from here." in err
        assert "Traceback" not in err
        assert RunStore(stopped.folder).manifest["status"] == "interrupted"
    assert stopped.finish()[0] == 0
    check_nothing_lost(stopped.folder, peaceful.folder)


def disk_free(disk):
    return shutil.disk_usage(disk).free


@pytest.mark.slow
def test_a_disk_that_runs_full_and_is_cleared(run, tmp_path):
    peaceful = run("peaceful")
    assert peaceful.finish()[0] == 0
    with small_disk(tmp_path / "disk", "4m") as disk:
        full = run(str(disk / "run"))
        full.folder.mkdir()
        codes = []
        for room in (20, 70, 100, 250, 500, 900):
            ballast = disk / "ballast"
            ballast.unlink(missing_ok=True)
            ballast.write_bytes(b"0" * (disk_free(disk) - room * 1024))
            code, err = full.finish()
            codes.append(code)
            if code:
                assert code == 2, err
                assert "cannot be written (No space left on device)" in err
                assert "Traceback" not in err
        assert codes[0] == 2
        (disk / "ballast").unlink()
        assert full.finish()[0] == 0
        check_nothing_lost(full.folder, peaceful.folder)


@pytest.mark.slow
def test_an_output_that_turns_read_only(run, tmp_path):
    peaceful = run("peaceful", delay_s=0.05)
    assert peaceful.finish()[0] == 0
    with small_disk(tmp_path / "disk", "20m") as disk:
        locked = run(str(disk / "run"), delay_s=0.05)
        process = locked.start()
        locked.wait_for_parts(2)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        remount(disk, "ro")
        code, err = locked.finish()
        assert code == 2
        assert f"{locked.folder}: cannot be written (Read-only file system)" in err
        assert "Traceback" not in err
        remount(disk, "rw")
        assert locked.finish()[0] == 0
        check_nothing_lost(locked.folder, peaceful.folder)


@pytest.mark.slow
def test_two_processes_on_one_run(run):
    peaceful, first = run("peaceful", delay_s=0.5), run("shared", delay_s=0.5)
    process = first.start()
    first.wait_for_parts(1)
    code, err = first.finish()
    assert code == 2
    assert "another process works on this run" in err
    process.communicate(timeout=300)
    assert process.returncode == 0
    assert peaceful.finish()[0] == 0
    check_nothing_lost(first.folder, peaceful.folder)


@pytest.mark.slow
def test_a_clock_that_goes_backwards(run):
    peaceful, jumpy = run("peaceful", delay_s=0.05), run("jumpy", delay_s=0.05)
    assert peaceful.finish()[0] == 0
    process = jumpy.start(BACKWARDS + PROGRAM)
    jumpy.wait_for_parts(2)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    for path in jumpy.folder.rglob("*"):  # as if written tomorrow
        os.utime(path, (time.time() + 86_400,) * 2)
    assert jumpy.finish(BACKWARDS + PROGRAM)[0] == 0
    check_nothing_lost(jumpy.folder, peaceful.folder)


@pytest.mark.slow
def test_an_image_that_breaks_while_the_command_runs(run, photo_root):
    peaceful, broken = run("peaceful", delay_s=0.1), run("broken", delay_s=0.1)
    assert peaceful.finish()[0] == 0
    image = photo_root / "kvasir_polyp" / "images" / "test_4.png"
    content = image.read_bytes()
    process = broken.start()
    broken.wait_for_parts(1)
    image.write_bytes(content[:100])
    process.communicate(timeout=300)
    image.write_bytes(content)
    assert process.returncode == 3
    assert broken.finish()[0] == 0
    check_nothing_lost(broken.folder, peaceful.folder)
