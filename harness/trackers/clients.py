"""MLflow, TensorBoard and Weights & Biases: one run a model, through each one's own client.

Conventions: MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME, WANDB_PROJECT, WANDB_ENTITY and
WANDB_MODE mean what they always do; without a name of its own an experiment or project is called
like the suite. An audit has no steps: everything stands at step 0. A client writes to the run
`known`, or to a new one, and returns its id.
"""

import os
import shutil
import time
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

from harness.errors import RunError
from harness.report.escape import escaped
from harness.runs.store import RunStore
from harness.trackers.content import TrackedModel

if TYPE_CHECKING:
    from mlflow import MlflowClient

_MLFLOW_BATCH = 100
"""Most parameters and tags that its server takes at once."""


def log_to_mlflow(model: TrackedModel, known: str | None, store: RunStore) -> str:
    """Write to MLflow."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        client = MlflowClient()
        run_id = known if known and _is_active(client, known) else _create_run(client, model)
        _write(client, run_id, model)
    except MlflowException as problem:
        raise RunError(
            f"--log mlflow: {problem}. The run is whole in {store.folder}. Repair the store that "
            "MLFLOW_TRACKING_URI names, and give the same command again: it only logs."
        ) from None
    return run_id


def _is_active(client: "MlflowClient", run_id: str) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        return bool(client.get_run(run_id).info.lifecycle_stage == "active")
    except MlflowException:  # another store, or a run that was deleted for good
        return False


def _create_run(client: "MlflowClient", model: TrackedModel) -> str:
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or model.suite
    experiment = client.get_experiment_by_name(name)
    number = experiment.experiment_id if experiment else client.create_experiment(name)
    return str(client.create_run(number, run_name=model.name).info.run_id)


def _write(client: "MlflowClient", run_id: str, model: TrackedModel) -> None:
    from mlflow.entities import Metric, Param, RunTag

    now = int(time.time() * 1000)
    # A parameter cannot be changed: what a longer run knows better goes into tags.
    logged = client.get_run(run_id).data.params
    new = {k: v for k, v in model.params.items() if k not in logged}
    changed = {f"param.{k}": v for k, v in model.params.items() if logged.get(k, v) != v}
    for part in _batches(model.metrics):
        client.log_batch(run_id, metrics=[Metric(k, v, now, 0) for k, v in part.items()])
    for part in _batches(new):
        client.log_batch(run_id, params=[Param(k, v) for k, v in part.items()])
    for part in _batches({**model.tags, **changed}):
        client.log_batch(run_id, tags=[RunTag(k, v) for k, v in part.items()])
    for path in model.files:
        client.log_artifact(run_id, str(path))
    client.set_terminated(run_id)


def _batches(values: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    rest = iter(values.items())
    while part := dict(islice(rest, _MLFLOW_BATCH)):
        yield part


def log_to_tensorboard(model: TrackedModel, known: str | None, store: RunStore) -> str:
    """Write events below ``tensorboard/`` in the run directory, in place of earlier ones."""
    from torch.utils.tensorboard.writer import SummaryWriter

    folder = store.folder / "tensorboard" / model.model_id
    if folder.is_dir():
        shutil.rmtree(folder)
    with SummaryWriter(str(folder)) as writer:
        for name, value in model.metrics.items():
            writer.add_scalar(name, value, 0)
        writer.add_text("parameters", _table(model.params), 0)
        writer.add_text("verdicts", _table(model.tags), 0)
        for path in model.files:
            if path.suffix == ".md":
                writer.add_text(path.stem, path.read_text(encoding="utf-8"), 0)
    return str(folder)


def _table(values: Mapping[str, str]) -> str:
    rows = (f"| {escaped(k)} | {escaped(v)} |" for k, v in values.items())
    return "\n".join(["| name | value |", "| --- | --- |", *rows])


def log_to_wandb(model: TrackedModel, known: str | None, store: RunStore) -> str:
    """Write to Weights & Biases; metrics and verdicts are the run's summary."""
    import wandb

    try:
        with wandb.init(
            project=os.environ.get("WANDB_PROJECT") or model.suite,
            name=model.name,
            id=known,
            resume="allow",
            dir=str(store.folder),
            config=dict(model.params),
        ) as run:
            run.summary.update({**model.metrics, **model.tags})
            files = wandb.Artifact(f"summary-{run.id}", type="audit")
            for path in model.files:
                files.add_file(str(path))
            run.log_artifact(files)
            return str(run.id)
    except wandb.errors.Error as problem:
        raise RunError(
            f"--log wandb: {problem}. The run is whole in {store.folder}. Log in (wandb login) or "
            "set WANDB_MODE=offline, and give the same command again: it only logs."
        ) from None
