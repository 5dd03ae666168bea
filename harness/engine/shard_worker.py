"""What one worker of several does: it loads the model once and turns shards into scores.

Conventions: nothing here knows whether Ray or a pool of processes calls it, so that a worker can
be tested as the plain class it is. While a shard is evaluated the pictures of the next are read.
"""

import os
import socket
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from harness.engine.executors import Answer, ModelSource
from harness.engine.local import EvaluatedShard, Worker, evaluate, load_pictures
from harness.engine.shards import Shard
from harness.engine.tally import Pictures
from harness.engine.two_speed import TwoSpeeds, measured
from harness.model.loading import LoadedModel
from harness.runs.kept_masks import Selection
from harness.suite.schema import Metric


class WorkerIdentity(NamedTuple):
    """Where a worker runs and which model it holds."""

    host: str
    pid: int
    model_id: str
    device: str
    sees_root: bool


class Job(NamedTuple):
    """What every worker of a model needs; `kept_masks` are how many cases a group keeps."""

    source: ModelSource
    root: Path
    metric: Metric
    texts: list[str]
    kept_masks: int = 0
    thresholds: bool = False
    speeds: TwoSpeeds | None = None


class ShardWorker:
    """One worker: a process here or somewhere in a cluster, with the model loaded once."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._loaded: LoadedModel | None = None
        self._worker: Worker | None = None
        self._reader = ThreadPoolExecutor(max_workers=1)
        self._ahead: dict[int, Future[Pictures]] = {}

    @property
    def _model(self) -> LoadedModel:
        # Not in the constructor, whose errors would reach the driver as text alone.
        if self._loaded is None:
            self._loaded = self._job.source.load()
        return self._loaded

    def identity(self) -> WorkerIdentity:
        """Load the model; say where it is and whether the data are visible here."""
        return WorkerIdentity(
            socket.gethostname(),
            os.getpid(),
            self._model.model_id,
            self._model.device.type,
            self._job.root.is_dir(),
        )

    def answer(self, question: Callable[..., Answer], *arguments: Any, **more: Any) -> Answer:
        """``question(model, *arguments)``."""
        return question(self._model, *arguments, **more)

    def evaluate(self, shard: Shard, following: Shard | None, batch_size: int) -> EvaluatedShard:
        """Evaluate a shard; the pictures of `following` are read meanwhile."""
        if self._worker is None:
            self._worker = Worker(
                self._model,
                self._job.texts,
                metric=self._job.metric,
                batch_size=batch_size,
                thresholds=self._job.thresholds,
                speeds=measured(
                    self._job.speeds, self._model, self._job.root, readings=shard.readings
                ),
            )
            self._worker.known = Selection(self._job.kept_masks) if self._job.kept_masks else None
        reading = self._ahead.pop(shard.index, None) or self._read(shard)
        self._ahead.clear()  # a shard that was taken back
        if following is not None:
            self._ahead[following.index] = self._read(following)
        found = evaluate(self._worker, shard, reading.result())
        if self._worker.known is not None:
            # What this worker has seen sets its bar; the driver chooses among all of them.
            for kept in found.kept:
                self._worker.known.offer(replace(kept, masks=None))
        return found

    def _read(self, shard: Shard) -> Future[Pictures]:
        return self._reader.submit(load_pictures, shard, self._model, self._job.root)
