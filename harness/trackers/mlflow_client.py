"""MLflow: one run a model, in the store that its own environment variables name.

Conventions: MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME mean what they always do; without
the latter the experiment is called like the suite.
"""

import os
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

from harness.errors import RunError
from harness.store import RunStore
from harness.trackers.content import Tracked

if TYPE_CHECKING:
    from mlflow import MlflowClient

_BATCH = 100
"""Most parameters and tags that its server takes at once."""


def log_to_mlflow(tracked: Tracked, known: str | None, store: RunStore) -> str:
    """Write to the run `known`, or to a new one where it is gone; its id.

    Raises:
        RunError: MLflow refuses; the run directory is whole.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        client = MlflowClient()
        run_id = known if known and _is_there(client, known) else _new(client, tracked)
        _write(client, run_id, tracked)
    except MlflowException as problem:
        raise RunError(
            f"--log mlflow: {problem}. The run is whole in {store.folder}. Repair the store that "
            "MLFLOW_TRACKING_URI names, and give the same command again: it only logs."
        ) from None
    return run_id


def _is_there(client: "MlflowClient", run_id: str) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        found: bool = client.get_run(run_id).info.lifecycle_stage == "active"
    except MlflowException:  # another store, or a run that was deleted for good
        return False
    return found


def _new(client: "MlflowClient", tracked: Tracked) -> str:
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or tracked.suite
    experiment = client.get_experiment_by_name(name)
    number = experiment.experiment_id if experiment else client.create_experiment(name)
    run_id: str = client.create_run(number, run_name=tracked.name).info.run_id
    return run_id


def _write(client: "MlflowClient", run_id: str, tracked: Tracked) -> None:
    import time

    from mlflow.entities import Metric, Param, RunTag

    now = int(time.time() * 1000)
    # A parameter cannot be changed: what a longer run knows better goes into tags.
    there = client.get_run(run_id).data.params
    new = {k: v for k, v in tracked.params.items() if k not in there}
    changed = {f"param.{k}": v for k, v in tracked.params.items() if there.get(k, v) != v}
    for part in _batches(tracked.metrics):
        client.log_batch(run_id, metrics=[Metric(k, v, now, 0) for k, v in part.items()])
    for part in _batches(new):
        client.log_batch(run_id, params=[Param(k, v) for k, v in part.items()])
    for part in _batches({**tracked.tags, **changed}):
        client.log_batch(run_id, tags=[RunTag(k, v) for k, v in part.items()])
    for path in tracked.files:
        client.log_artifact(run_id, str(path))
    client.set_terminated(run_id)


def _batches(values: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    rest = iter(values.items())
    while part := dict(islice(rest, _BATCH)):
        yield part
