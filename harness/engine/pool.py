"""Runs a plan with several processes of this machine, one thread of arithmetic each.

A small model leaves cores idle: what its operations compute is over before a second thread has
begun. The driver alone writes into the run directory, as on a cluster, and shards are cut from the
plan alone, so that parts and counts are those of one process. The processes outlive a model: the
next one finds its libraries imported.
"""

import os
import signal
import socket
from collections.abc import Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context, parent_process
from threading import Thread
from uuid import uuid4

import torch

from harness.engine.executors import Advance, Local, silent
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

_workers: dict[str, ShardWorker] = {}


def usual_workers(model: LoadedModel, n_cases: int) -> int:
    """How many processes a model runs fastest in, on this machine."""
    parameters = getattr(model.adapter, "module", None)
    size = sum(p.numel() for p in parameters.parameters()) if parameters is not None else SMALL + 1
    if model.device.type != "cpu" or size > SMALL or n_cases < WORTH_IT:
        return 1
    return min(usable_cores(), n_cases // PAIRS_PER_SHARD)


def usable_cores() -> int:
    """Cores that this process may use."""
    has_affinity = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1


@dataclass(frozen=True)
class Pool(Local):
    """One model in this process for questions, and in `workers` others for shards."""

    job: Job | None = None
    workers: int = 2

    def machines(self) -> dict[str, int]:
        """This one."""
        return {socket.gethostname(): self.workers}

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
        model_id, kept_masks = self.model.model_id, self.job.kept_masks
        recorder = Recorder(store, model_id, kept_masks, batch_size, advance, halved)
        todo = recorder.open_shards(self.job.texts)
        with closing(_answers(self.job, model_id, todo, self.workers, batch_size)) as answers:
            for shard, done in answers:
                recorder.take(shard, done)


@cache
def _processes(workers: int) -> ProcessPoolExecutor:
    # Forked off a process that holds the libraries and has started no thread.
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    threads = max(1, usable_cores() // workers)
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_start, initargs=(threads,))


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
    job: Job, model_id: str, shards: Iterator[Shard], workers: int, batch_size: int
) -> Generator[tuple[Shard, EvaluatedShard], None, None]:
    """Each shard with its scores, as they come; one more than there are processes is under way."""
    processes, key = _processes(workers), f"{model_id} {uuid4()}"
    under_way: dict[Future[EvaluatedShard], Shard] = {}
    try:
        while True:
            while len(under_way) <= workers and (shard := next(shards, None)) is not None:
                under_way[processes.submit(_evaluate, key, job, shard, batch_size)] = shard
            if not under_way:
                return
            done, _ = wait(under_way, return_when=FIRST_COMPLETED)
            for future in done:
                answer = future.result()
                batch_size = min(batch_size, answer.batch_size)
                yield under_way.pop(future), answer
    except BrokenProcessPool:
        _stop(processes)
        raise RunError(
            "--workers: one of the processes died, most likely for want of memory: each holds the "
            "model and its pictures. What is evaluated is kept. Give --workers 1; the same "
            "command then continues."
        ) from None
    except BaseException:
        _stop(processes)
        raise


def _stop(processes: ProcessPoolExecutor) -> None:
    """At once: whatever they are at is evaluated again."""
    _processes.cache_clear()
    for process in list((processes._processes or {}).values()):
        process.terminate()
    processes.shutdown(wait=False, cancel_futures=True)


def _evaluate(key: str, job: Job, shard: Shard, batch_size: int) -> EvaluatedShard:
    """In a process of the pool, which holds one model at a time."""
    if key not in _workers:
        _workers.clear()
        _workers[key] = ShardWorker(job)
    return _workers[key].evaluate(shard, None, batch_size)
