"""What one worker of a cluster does: it loads the model once and turns shards into scores.

Conventions: nothing here imports Ray, so that a worker can be tested as the plain class it
is. While a shard is evaluated the pictures of the next one are read.
"""

import os
import socket
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from harness.engine.executors import Answer, ModelSource
from harness.engine.local import Worker, evaluate, load_pictures
from harness.engine.shards import Shard
from harness.engine.tally import Pictures
from harness.models import LoadedModel
from harness.suites import Metric


class Identity(NamedTuple):
    """What one worker says of itself."""

    host: str
    pid: int
    model_id: str
    device: str
    sees_root: bool


class Job(NamedTuple):
    """What every worker of a model needs."""

    source: ModelSource
    root: Path
    metric: Metric
    texts: list[str]


class Hand:
    """One worker: a process somewhere in the cluster, with the model loaded once."""

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

    def identity(self) -> Identity:
        """Who this is, and whether it sees the data; loads the model."""
        return Identity(
            socket.gethostname(),
            os.getpid(),
            self._model.model_id,
            self._model.device.type,
            self._job.root.is_dir(),
        )

    def answer(self, question: Callable[..., Answer], *arguments: Any, **more: Any) -> Answer:
        """``question(model, *arguments)``."""
        return question(self._model, *arguments, **more)

    def evaluate(
        self, shard: Shard, following: Shard | None, batch_size: int
    ) -> tuple[pl.DataFrame, int]:
        """Scores of a shard, and the batch size that fitted; reads `following` meanwhile."""
        if self._worker is None:
            self._worker = Worker(
                self._model, self._job.texts, metric=self._job.metric, batch_size=batch_size
            )
        reading = self._ahead.pop(shard.index, None) or self._read(shard)
        self._ahead.clear()  # a shard that was taken back
        if following is not None:
            self._ahead[following.index] = self._read(following)
        scores = evaluate(self._worker, shard, reading.result())
        return scores, self._worker.batch_size

    def _read(self, shard: Shard) -> Future[Pictures]:
        return self._reader.submit(load_pictures, shard, self._model, self._job.root)
