"""Writes how fast this build is on a CPU, beside an earlier one: ``python reports/speed.py``.

Conventions: every way to compute runs in a process of its own, which loads the model once and
evaluates a block of pictures when it is told to: the ways take turns, so that what else the
machine does meets all of them. Times are seconds of the whole engine (files read, counted and
written) and medians over blocks; *times as fast* compares medians with the earlier build's.
Untrained weights from one seed, since times do not depend on the numbers; that pixel counts are
equal is said of these weights.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from harness import __version__
from harness.model.exports import import_openvino
from harness.model.precision import bfloat16_gain

HERE = Path(__file__).resolve().parent
EARLIER = "e2e2f76"
FEWER = {"cris": {"images": 6, "prompts": 21}}
"""A case of CRIS takes 16 to 25 times as long, so that fewer are measured."""

# Runs in the folder of either build, whose rooms have the same names where it matters.
PROGRAM = """
import json, sys, tempfile, time
from pathlib import Path
import torch
from harness.engine import bench as room
from harness.engine.batches import usual_batch_size
from harness.engine.bench_plan import bench_cases, invent
from harness.models import load_model

told = json.loads(sys.argv[1])
torch.set_num_threads(told["threads"])
start = time.perf_counter()
model = load_model(told["model"], device="cpu", random_weights=True, **told["options"])
loaded = time.perf_counter() - start
root = Path(tempfile.mkdtemp(dir=told["folder"]))
pictures = invent(root, told["images"], model.adapter.input_size)
size = usual_batch_size(model)

def evaluate(own, n_prompts):
    store = room.RunStore(Path(tempfile.mkdtemp(dir=root)))
    cases = bench_cases(own, n_prompts, distinct=0.5)
    if hasattr(store, "begin"):
        store.begin(cases)
    else:
        (store.folder / "scores").mkdir()
        cases.write_parquet(store.folder / "plan.parquet")
    wall, cpu = time.perf_counter(), time.process_time()
    room.execute(store, model, root=root, metric=room.Metric(), batch_size=size)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    counts = store.scores().sort("case_id")["n_pred"].to_list()
    return {"wall": wall / len(counts), "cpu": cpu / len(counts), "counts": counts}

evaluate(pictures[:1], 8)  # first calls choose kernels
print(json.dumps({"loaded": loaded, "stages": dict(getattr(model, "stages", {}))}), flush=True)
for line in sys.stdin:
    first, step = json.loads(line)
    print(json.dumps(evaluate(pictures[first::step], told["prompts"])), flush=True)
"""


@dataclass(frozen=True)
class Size:
    """How much is evaluated, and with how many threads."""

    images: int = 64
    prompts: int = 41
    threads: int = 2
    blocks: int = 3

    def of(self, model: str) -> "Size":
        """The same, or fewer where the model is slow."""
        most = {name: min(vars(self)[name], n) for name, n in FEWER.get(model, {}).items()}
        return replace(self, **most)


@dataclass
class Way:
    """One way to compute a model, and what its blocks took."""

    model: str
    build: str
    options: dict[str, str] = field(default_factory=dict)
    laps: list[dict[str, Any]] = field(default_factory=list)
    stages: dict[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """What the table calls it."""
        how = self.options.get("backend", "torch"), self.options.get("dtype", "float32")
        return f"{self.build}: {' '.join(how)}"

    def median(self, clock: str) -> float:
        """Seconds a case by the wall clock or of the processor."""
        return statistics.median(lap[clock] for lap in self.laps)


@contextmanager
def earlier_build(commit: str) -> Iterator[Path]:
    """The files of a commit, in a folder that is removed afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        packed = Path(folder) / "build.tar"
        subprocess.run(
            ["git", "-C", str(HERE), "archive", f"--output={packed}", f"{commit}^{{tree}}"],
            check=True,
            cwd=HERE.parent,
        )
        there = Path(folder) / "build"
        there.mkdir()
        subprocess.run(["tar", "-xf", str(packed), "-C", str(there)], check=True)
        yield there


def ways_of(model: str, earlier: str) -> list[Way]:
    """The earlier build, and all ways in which this machine computes today; that first."""
    ways = [
        Way(model, earlier),
        Way(model, "today"),
        Way(model, "today", {"backend": "openvino"}),
    ]
    # To compile CRIS takes longer than to measure it.
    if shutil.which("g++") and model not in FEWER:
        ways.append(Way(model, "today", {"backend": "inductor"}))
    if "BF16" in import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        ways.append(Way(model, "today", {"backend": "openvino", "dtype": "bfloat16"}))
    if bfloat16_gain() > 1:
        ways.append(Way(model, "today", {"dtype": "bfloat16"}))
    return ways


def measure(ways: Sequence[Way], builds: dict[str, Path], size: Size) -> list[float]:
    """Fill `laps` of every way, which take turns; returns the machine's load at each block."""
    loads = []
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        running = [stack.enter_context(_process(way, builds, size, folder)) for way in ways]
        for way, process in zip(ways, running, strict=True):
            way.stages = _answer(process, way)["stages"]
        for block in range(size.blocks):
            loads.append(os.getloadavg()[0])
            for way, process in zip(ways, running, strict=True):
                assert process.stdin is not None
                process.stdin.write(json.dumps([block, size.blocks]) + "\n")
                process.stdin.flush()
                way.laps.append(_answer(process, way))
                lap = way.laps[-1]
                sys.stderr.write(f"{way.model} {way.label}: {lap['wall']:.4f} s a case\n")
    return loads


@contextmanager
def _process(
    way: Way, builds: dict[str, Path], size: Size, folder: str
) -> "Iterator[subprocess.Popen[str]]":
    place = str(builds.get(way.build, HERE.parent))
    told = {"model": way.model, "options": way.options, "folder": folder, **vars(size)}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, json.dumps(told)],
        cwd=place,
        env=os.environ | {"PYTHONPATH": place, "OMP_NUM_THREADS": str(size.threads)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _answer(process: "subprocess.Popen[str]", way: Way) -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        sys.exit(f"{way.model} {way.label}: the process ended; its error stands above.")
    found: dict[str, Any] = json.loads(line)
    return found


def rows(ways: Sequence[Way]) -> list[str]:
    """The table's rows of one model; the first way is what others are compared with."""
    base, found = ways[0], []
    for way in ways:
        mine, theirs = ([n for lap in w.laps for n in lap["counts"]] for w in (way, base))
        equal = sum(a == b for a, b in zip(mine, theirs, strict=True)) / len(theirs)
        most = max(abs(a - b) for a, b in zip(mine, theirs, strict=True))
        cells = [way.model, way.label]
        cells += [f"{way.median(clock):.4f}" for clock in ("wall", "cpu")]
        cells += [f"{base.median(clock) / way.median(clock):.2f}" for clock in ("wall", "cpu")]
        found.append(f"| {' | '.join([*cells, f'{100 * equal:.1f} %', f'{most:,}'])} |")
    return found


def page(tables: Sequence[Sequence[Way]], loads: Sequence[float], size: Size) -> str:
    """The tables as Markdown."""
    n_blocks = f"medians of {size.blocks} interleaved blocks"
    left = {
        f"`{way.model}` by {way.options['backend']}: {stage} ({why})"
        for ways in tables
        for way in ways
        for stage, why in way.stages.items()
        if why != way.options["backend"]
    }
    return "\n".join(
        [
            "# How fast it is on a CPU",
            "",
            f"Written by `python reports/speed.py` on {machine()}, {size.threads} threads, at a "
            f"load of {min(loads):.1f} to {max(loads):.1f} from other programs and these.",
            f"{_amounts(tables, size)}, half of the texts distinct, "
            f"untrained full-size weights, the model's usual batch, {n_blocks}. *Wall* and",
            "*processor* are seconds a case of the whole engine, then how many times as fast as "
            f"commit {tables[0][0].build}; with other programs about, the processor's are the",
            "ones to trust. *Equal* are cases with the same number of marked pixels as there, "
            "*most* the largest difference in pixels.",
            "",
            "| model | build | wall | processor | × wall | × processor | equal | most |",
            "|---|---|--:|--:|--:|--:|--:|--:|",
            *(row for ways in tables for row in rows(ways)),
            "",
            f"Blocks of one way differ by up to {_spread(tables):.0f} % of their median by the "
            "wall clock: smaller differences between ways mean nothing.",
            _of_bfloat16(tables),
            "Stages that are left to torch here: " + ("; ".join(sorted(left)) or "none")
            + ".",
            "",
            f"vlsm-harness {__version__}, torch {torch.__version__}, "
            f"OpenVINO {import_openvino().__version__}.",
        ]
    ) + "\n"  # fmt: skip


def _amounts(tables: Sequence[Sequence[Way]], size: Size) -> str:
    """How many invented images with how many prompts, and for which models fewer."""
    usual = f"{size.images} invented images x {size.prompts} prompts"
    sizes = [(ways[0].model, size.of(ways[0].model)) for ways in tables]
    fewer = [f"`{name}`: {own.images} x {own.prompts}" for name, own in sizes if own != size]
    return usual + (f" ({', '.join(fewer)})" if fewer else "")


def _spread(tables: Sequence[Sequence[Way]]) -> float:
    """The largest range of one way's blocks, in percent of its median."""
    ways = [(way, [lap["wall"] for lap in way.laps]) for ways in tables for way in ways]
    return max(100 * (max(walls) - min(walls)) / way.median("wall") for way, walls in ways)


def _of_bfloat16(tables: Sequence[Sequence[Way]]) -> str:
    if any(way.options.get("dtype") == "bfloat16" for ways in tables for way in ways):
        return f"Matrices multiply {bfloat16_gain():.1f} times as fast in bfloat16 here."
    return (
        "This CPU has no arithmetic for bfloat16 (torch multiplies matrices at "
        f"{bfloat16_gain():.2g} times float32's speed in it, OpenVINO not at all): no row has it."
    )


def machine() -> str:
    """The processor and what it can do that matters here."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    facts = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    known = {key.strip(): value.strip() for key, value in facts.items()}
    flags = set(known.get("flags", "").split())
    wanted = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
    has = ", ".join(name for name in wanted if name in flags) or "no vector extension known"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{known.get('model name') or platform.processor()} ({cores} cores, {has})"


def main() -> None:
    """Measure, then write ``speed.md`` beside this file."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--models", nargs="*", default=["clipseg", "biomedclipseg", "cris"])
    arguments.add_argument("--earlier", default=EARLIER)
    for name, value in vars(Size()).items():
        arguments.add_argument(f"--{name}", type=int, default=value)
    given = arguments.parse_args()
    size = Size(given.images, given.prompts, given.threads, given.blocks)
    tables, loads = [], []
    with earlier_build(given.earlier) as there:
        for model in given.models:
            tables.append(ways_of(model, given.earlier))
            loads += measure(tables[-1], {given.earlier: there}, size.of(model))
            (HERE / "speed.md").write_text(page(tables, loads, size), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
