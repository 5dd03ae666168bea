"""Runs a plan on a Ray cluster: workers that hold the model, a driver that holds the run.

The driver cuts shards, hands each free worker one and names the one after it, whose pictures the
worker reads meanwhile; it alone writes into the run directory, so that no worker thought dead can
double a case. The shards of a worker that dies go back to the queue and it is replaced; the driver
may die too, and the same command then continues. Ray's own restarts and retries are off: they would
tie a shard to its worker, which waits for ever where a machine went away. Batches are cut from the
plan alone, so that on the same type of device counts are the same bit for bit.
"""

import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from harness.engine.cluster import ClusterOptions
from harness.engine.executors import Advance, Answer, silent
from harness.engine.local import Recorder
from harness.engine.shard_worker import Job, ShardWorker, WorkerIdentity
from harness.engine.shards import Shard
from harness.errors import RunError, UsageError
from harness.runs.store import RunStore

# A shard that takes its worker down this often would take down every other one.
MAX_FAILURES = 4
# Clusters that grow on demand take minutes for a machine.
MAX_WAIT_S = 900.0
_POLL_S = 10.0
# Ray would report home, and warn of a variable that it sets itself.
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


@contextmanager
def connect(options: ClusterOptions, job: Job) -> Iterator["RayExecutor"]:
    """Connect to a cluster, or start one here, and take the workers down at the end."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    ray = _import_ray()
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if options.address is None:
        quiet["include_dashboard"] = False
    try:
        ray.init(address=options.address, **quiet)
    except (ConnectionError, ValueError, RuntimeError) as problem:
        raise UsageError(
            f"--address: {options.address!r} does not answer as a Ray cluster "
            f"({str(problem).splitlines()[0]}). HOST:PORT of a running head node, 'auto', or no "
            "--address for a cluster on this machine is needed. Start one with `ray start --head`."
        ) from None
    try:
        yield RayExecutor(ray, options, job)
    finally:
        ray.shutdown()


def _import_ray() -> Any:
    try:
        import ray
    except ImportError:
        raise UsageError(
            "--executor ray: Ray is not installed. The extra 'ray' brings it. Install it with "
            "`pip install 'vlsm-harness[ray]'` on every machine, or use --executor local."
        ) from None
    return ray


@dataclass(eq=False)
class _WorkerSlot:
    """A worker, the shard it evaluates and the one whose pictures it reads."""

    actor: Any
    current: Shard | None = None
    following: Shard | None = None


class _ShardQueue:
    """Shards that no worker has: first those given back, then the plan's next."""

    def __init__(self, shards: Iterator[Shard]) -> None:
        self._shards = shards
        self._returned: deque[Shard] = deque()
        self.is_empty = False

    def take(self) -> Shard | None:
        if self._returned:
            return self._returned.popleft()
        shard = next(self._shards, None)
        self.is_empty = shard is None
        return shard

    def give_back(self, *shards: Shard | None) -> None:
        given = [shard for shard in shards if shard is not None]
        self._returned.extend(given)
        self.is_empty = self.is_empty and not given


@dataclass
class RayExecutor:
    """Gives shards to workers and takes their scores."""

    ray: Any
    options: ClusterOptions
    job: Job
    starting: dict[Any, _WorkerSlot] = field(default_factory=dict)
    busy: dict[Any, _WorkerSlot] = field(default_factory=dict)
    idle: list[_WorkerSlot] = field(default_factory=list)
    identities: list[WorkerIdentity] = field(default_factory=list)
    failed_starts: int = 0

    def machines(self) -> dict[str, int]:
        """Workers by host, those included that died."""
        return dict(Counter(identity.host for identity in self.identities))

    def ask(
        self, question: Callable[..., Answer], *arguments: Any, advance: Advance | None = None
    ) -> Answer:
        """Ask the first worker that is ready; another one when it dies."""
        more = {} if advance is None else {"advance": silent}
        while True:
            self._wait_for_a_worker()
            slot = self.idle[0]
            outcome = self._outcome(slot.actor.answer.remote(question, *arguments, **more))
            if not isinstance(outcome, _WorkerFailure):
                return outcome  # type: ignore[no-any-return]
            self.idle.remove(slot)
            self._count_failed_start(outcome)

    def execute(
        self,
        store: RunStore,
        *,
        batch_size: int,
        advance: Advance = silent,
        halved: Advance = silent,
    ) -> None:
        """Evaluate every case of the stored plan that has no score yet."""
        self._wait_for_a_worker()
        model_id = self.identities[0].model_id
        kept_masks = self.job.kept_masks
        recorder = Recorder(store, model_id, kept_masks, batch_size, advance, halved)
        queue = _ShardQueue(recorder.open_shards(self.job.texts))
        failures = Counter[int]()
        self._hand_out(queue, batch_size)
        while self.busy or not queue.is_empty:
            for slot, outcome in self._finished():
                shard = slot.current
                assert shard is not None, "a worker that was busy has a shard"
                if isinstance(outcome, _WorkerFailure):
                    failures[shard.index] += 1
                    _refuse_deadly(shard, failures[shard.index], outcome, store)
                    queue.give_back(shard, slot.following)
                    continue
                recorder.take(shard, outcome)
                self.idle.append(slot)
            self._hand_out(queue, recorder.batch_size)

    def _hand_out(self, queue: _ShardQueue, batch_size: int) -> None:
        """Give every free worker a shard and the next one; replace the workers that died."""
        for slot in list(self.idle):
            slot.current, slot.following = slot.following or queue.take(), None
            if slot.current is None:
                continue
            slot.following = queue.take()
            self.idle.remove(slot)
            ref = slot.actor.evaluate.remote(slot.current, slot.following, batch_size)
            self.busy[ref] = slot
        if not queue.is_empty:
            self._start_workers()

    def _wait_for_a_worker(self) -> None:
        since = time.monotonic()
        while not self.idle:
            self._start_workers()
            self._finished()
            if not self.idle and time.monotonic() - since > MAX_WAIT_S:
                raise RunError(
                    f"--executor ray: no worker started within {MAX_WAIT_S:.0f} s. A worker "
                    f"takes one CPU and {self._gpus_per_worker():g} GPUs; the cluster has "
                    f"{self.ray.cluster_resources()}. Free some of it, or give another "
                    "--gpus-per-worker."
                )

    def _start_workers(self) -> None:
        gpus = self._gpus_per_worker()
        worker = self.ray.remote(ShardWorker).options(
            num_cpus=1, num_gpus=gpus, scheduling_strategy="SPREAD", max_restarts=0
        )
        present = len(self.idle) + len(self.busy) + len(self.starting)
        for _ in range(self._n_workers(gpus) - present):
            actor = worker.remote(self.job)
            self.starting[actor.identity.remote()] = _WorkerSlot(actor)

    def _gpus_per_worker(self) -> float:
        """What was asked for; else a whole GPU each, where the cluster has any and may use it."""
        if self.options.gpus_per_worker is not None:
            return self.options.gpus_per_worker
        has_gpus = self.ray.cluster_resources().get("GPU", 0) > 0
        return 1.0 if has_gpus and self.job.source.device != "cpu" else 0.0

    def _n_workers(self, gpus_per_worker: float) -> int:
        if self.options.workers is not None:
            return self.options.workers
        resources = self.ray.cluster_resources()
        room = resources.get("CPU", 1.0)
        if gpus_per_worker:
            room = min(room, resources.get("GPU", 0.0) / gpus_per_worker)
        return max(1, int(room))

    def _finished(self) -> "list[tuple[_WorkerSlot, Any]]":
        """Wait for workers; admit those that started, return those that are done or failed."""
        pending = [*self.busy, *self.starting]
        done, _ = self.ray.wait(pending, num_returns=1, timeout=_POLL_S)
        finished = []
        for ref in done:
            outcome = self._outcome(ref)
            if ref in self.busy:
                finished.append((self.busy.pop(ref), outcome))
                continue
            slot = self.starting.pop(ref)
            if isinstance(outcome, _WorkerFailure):
                self._count_failed_start(outcome)
            else:
                self._admit(outcome)
                self.idle.append(slot)
        return finished

    def _outcome(self, ref: Any) -> Any:
        """What a call returned, or a `_WorkerFailure`; what the model itself raised is raised."""
        errors = self.ray.exceptions
        try:
            return self.ray.get(ref)
        except errors.RayTaskError as problem:
            raise problem.cause from None
        except (
            errors.RayActorError,
            errors.ObjectLostError,
            errors.WorkerCrashedError,
            errors.OutOfMemoryError,
            errors.NodeDiedError,
        ) as problem:
            return _WorkerFailure(str(problem).strip().splitlines()[0])

    def _admit(self, identity: WorkerIdentity) -> None:
        """All workers must hold the same model and see the data."""
        if not identity.sees_root:
            raise RunError(
                f"--data-root: {self.job.root} does not exist on {identity.host}. Every worker "
                "reads pictures and masks at this path. Mount the folder there, or give a path "
                "that all machines share."
            )
        first = self.identities[0] if self.identities else identity
        if (identity.model_id, identity.device) != (first.model_id, first.device):
            raise RunError(
                f"--executor ray: {identity.host} holds {identity.model_id} on {identity.device}, "
                f"{first.host} {first.model_id} on {first.device}. All workers must hold the same "
                "model on the same type of device. Give --device and --dtype, and install the "
                "same version and files everywhere."
            )
        self.failed_starts = 0
        self.identities.append(identity)

    def _count_failed_start(self, failure: "_WorkerFailure") -> None:
        self.failed_starts += 1
        if self.failed_starts >= MAX_FAILURES:
            raise RunError(
                f"--executor ray: {self.failed_starts} workers died one after another before they "
                f"had any work ({failure.reason}). A worker loads the whole model. Give fewer "
                "--workers, or machines with more memory; the same command then continues."
            )


class _WorkerFailure(NamedTuple):
    reason: str


def _refuse_deadly(shard: Shard, times: int, failure: _WorkerFailure, store: RunStore) -> None:
    if times >= MAX_FAILURES:
        raise RunError(
            f"{store.folder}: {times} workers died while they evaluated {shard.images[0]} and its "
            f"neighbours ({failure.reason}). A worker needs memory for the model and one batch. "
            "Give a smaller --batch-size or machines with more memory; --executor local shows "
            "what the model says."
        )
