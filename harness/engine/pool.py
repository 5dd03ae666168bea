"""Runs a plan with several processes of this machine, one thread of arithmetic each.

A small model leaves cores idle: what its operations compute is over before a second thread has
begun. The driver alone writes into the run directory, as on a cluster, and shards are cut from the
plan alone, so that parts and counts are those of one process. The processes outlive a model: those
that are done with its shards begin the next.
"""

import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import forkserver, get_context, parent_process
from multiprocessing.context import BaseContext
from threading import Thread
from typing import Any
from uuid import uuid4

import torch

from harness.engine.executors import Advance, Answer, Local, silent
from harness.engine.local import EvaluatedShard, Recorder
from harness.engine.shard_worker import Job, ShardWorker
from harness.engine.shards import PAIRS_PER_SHARD, Shard
from harness.errors import RunError
from harness.model.loading import LoadedModel
from harness.runs.store import RunStore

SMALL = 5_000_000
"""Parameters up to which one thread a process is faster than several threads: measured on the
models that ship (1 million), where two threads gain nothing, and CLIPSeg (150), where they do."""

WORTH_IT = 4 * PAIRS_PER_SHARD
"""Cases from which on a pool's start, a second or two, is soon won back."""

_LIBRARIES = ("open_clip", "segmentation_models_pytorch", "timm", "torchvision", "transformers")
"""What takes each process seconds to import, where models use it."""

_workers: dict[str, ShardWorker] = {}


def is_small(model: LoadedModel) -> bool:
    """Whether a model leaves cores idle."""
    module = getattr(model.adapter, "module", None)
    if model.device.type != "cpu" or module is None:
        return False
    size: int = sum(p.numel() for p in module.parameters())
    return size <= SMALL


def usual_workers(model: LoadedModel, n_cases: int) -> int:
    """How many processes a model runs fastest in, on this machine."""
    if not is_small(model) or n_cases < WORTH_IT:
        return 1
    return min(usable_cores(), n_cases // PAIRS_PER_SHARD)


def usable_cores() -> int:
    """Cores that this process may use."""
    has_affinity = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1


def nobody() -> None:
    """No model follows."""


@dataclass
class _Line:
    """A model's open shards on their way through the processes, and what takes their scores."""

    processes: ProcessPoolExecutor
    job: Job
    batch_size: int
    shards: Iterator[Shard]
    key: str = field(default_factory=lambda: uuid4().hex)
    under_way: dict[Future[EvaluatedShard], Shard] = field(default_factory=dict)

    def fill(self, places: int) -> int:
        """Send shards until so many are under way; returns how many places are left."""
        while len(self.under_way) < places and (shard := next(self.shards, None)) is not None:
            task = self.processes.submit(_evaluate, self.key, self.job, shard, self.batch_size)
            self.under_way[task] = shard
        return places - len(self.under_way)


@dataclass(frozen=True)
class Pool(Local):
    """One model in this process for questions, and in `workers` others for shards.

    `behind` begins the next model of the run, whose first shards are evaluated beside the last
    ones of this; None where there is none.
    """

    job: Job | None = None
    workers: int = 2
    behind: "Callable[[], Pool | None]" = nobody
    _lines: list[_Line] = field(default_factory=list)

    def machines(self) -> dict[str, int]:
        """This one."""
        return {socket.gethostname(): self.workers}

    def ask(
        self, question: Callable[..., Answer], *arguments: Any, advance: Advance | None = None
    ) -> Answer:
        """Answered at once, with one process's threads: the others are at work meanwhile."""
        usual = torch.get_num_threads()
        torch.set_num_threads(_threads(self.workers))
        try:
            return super().ask(question, *arguments, advance=advance)
        finally:
            torch.set_num_threads(usual)

    def begin(self, store: RunStore, batch_size: int) -> _Line:
        """Send the first shards, before `execute` takes what comes of them."""
        assert self.job is not None
        if not self._lines:
            todo = Recorder(store, self.model.model_id, 0, batch_size, silent, silent)
            shards = todo.open_shards(self.job.texts)
            self._lines.append(_Line(_processes(self.workers), self.job, batch_size, shards))
            self._lines[0].fill(self.workers + 1)
        return self._lines[0]

    def execute(
        self,
        store: RunStore,
        *,
        batch_size: int,
        advance: Advance = silent,
        halved: Advance = silent,
    ) -> None:
        """Evaluate every case of the stored plan that has no score yet."""
        assert self.job is not None
        line = self.begin(store, batch_size)
        recorder = Recorder(
            store, self.model.model_id, self.job.kept_masks, batch_size, advance, halved
        )
        for shard, done in _answers(line, self.workers, self._fill_behind):
            recorder.take(shard, done)

    def _fill_behind(self, places: int) -> None:
        if (following := self.behind()) is not None:
            for line in following._lines:
                line.fill(places)


_pools: dict[int, ProcessPoolExecutor] = {}


def _processes(workers: int) -> ProcessPoolExecutor:
    if workers not in _pools:
        _pools[workers] = ProcessPoolExecutor(
            workers, prepare(), initializer=_start, initargs=(_threads(workers),)
        )
    return _pools[workers]


def _threads(workers: int) -> int:
    """Of arithmetic, in each process."""
    return max(1, usable_cores() // workers)


def prepare() -> BaseContext:
    """Let the process off which others are forked import, meanwhile, what this one has imported.

    It has computed nothing, so that no thread of it waits for another when it is forked.
    """
    context = get_context("forkserver")
    ours = [name for name in list(sys.modules) if name.partition(".")[0] in _LIBRARIES]
    context.set_forkserver_preload([__name__, *ours])
    forkserver.ensure_running()
    return context


def _start(threads: int) -> None:
    torch.set_num_threads(threads)
    # Control-C reaches all; the driver alone says what was interrupted, and ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_the_driver, daemon=True).start()


def _end_with_the_driver() -> None:
    """A driver that is killed can tell nobody, and a worker would wait for its next shard."""
    driver = parent_process()
    if driver is not None:
        driver.join()
        os._exit(1)


def _answers(
    line: _Line, workers: int, fill_behind: Callable[[int], None]
) -> Iterator[tuple[Shard, EvaluatedShard]]:
    """Each shard with its scores, as they come; one more than there are processes is under way."""
    while True:
        if (places := line.fill(workers + 1)) > 0:
            fill_behind(places)
        if not line.under_way:
            return
        done, _ = wait(line.under_way, return_when=FIRST_COMPLETED)
        for future in done:
            answer = future.result()
            line.batch_size = min(line.batch_size, answer.batch_size)
            yield line.under_way.pop(future), answer


@contextmanager
def ended_by_errors() -> Iterator[None]:
    """An error ends the processes at once: whatever they are at is evaluated again."""
    try:
        yield
    except BrokenProcessPool:
        _stop()
        raise RunError(
            "--workers: one of the processes died, most likely for want of memory: each holds the "
            "model and its pictures. What is evaluated is kept. Give --workers 1; the same "
            "command then continues."
        ) from None
    except BaseException:
        _stop()
        raise


def _stop() -> None:
    while _pools:
        _, processes = _pools.popitem()
        for process in list((processes._processes or {}).values()):
            process.terminate()
        processes.shutdown(wait=False, cancel_futures=True)


def _evaluate(key: str, job: Job, shard: Shard, batch_size: int) -> EvaluatedShard:
    """In a process of the pool, which holds one model at a time."""
    if key not in _workers:
        _workers.clear()
        _workers[key] = ShardWorker(job)
    return _workers[key].evaluate(shard, None, batch_size)
