"""Trackers through their own clients, read back."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.errors import UsageError
from harness.trackers import TRACKERS, check_trackers, clients, log_run
from harness.trackers.content import tracked_models

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", TRACKERS)
def test_a_missing_client_is_named_with_its_extra(monkeypatch, name):
    monkeypatch.setattr("harness.trackers.find_spec", lambda _: None)
    message = (
        f"--log {name}: the package '{name}' is not installed. It is an optional extra. "
        f"Install it: pip install 'vlsm-harness[{name}]'."
    )
    with pytest.raises(UsageError) as refused:
        check_trackers([name])
    assert str(refused.value) == message


def test_an_unknown_tracker_is_answered_with_the_known():
    message = "unknown tracker 'mlfow'. Did you mean 'mlflow'? Known trackers: 'mlflow', "
    with pytest.raises(UsageError) as refused:
        check_trackers(["mlfow"])
    assert message in str(refused.value)


def test_every_tracker_is_an_extra_and_is_asked_once():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(TRACKERS) <= set(project["optional-dependencies"])
    assert check_trackers(["tensorboard", "tensorboard"]) == ["tensorboard"]


def events(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder))
    found.Reload()
    return found


def test_tensorboard_holds_the_figures_and_logging_again_replaces_them(store):
    (one,) = tracked_models(store)
    for _ in range(2):
        places = log_run(store, ["tensorboard"])
    assert places == {"tensorboard": str(store.folder / "tensorboard" / "m@1")}
    assert store.manifest["trackers"] == {"tensorboard": {"m@1": places["tensorboard"]}}
    found = events(places["tensorboard"])
    assert set(found.Tags()["scalars"]) == set(one.metrics)
    for name, value in one.metrics.items():
        (event,) = found.Scalars(name)
        assert (event.step, event.value) == (0, pytest.approx(value, rel=1e-6))
    texts = set(found.Tags()["tensors"])
    assert texts == {f"{t}/text_summary" for t in ("parameters", "verdicts", "summary")}


def test_a_run_logs_what_it_found(store, monkeypatch, tmp_path):
    """Where the client writes is a matter of its own: here its run is in memory."""
    seen = []

    def write(one, known, _):
        seen.append((one.model_id, known))
        return known or "first"

    monkeypatch.setattr("harness.trackers.TRACKERS", {"mlflow": write})
    assert log_run(store, ["mlflow"]) == {"mlflow": "first"}
    store.update(evaluated=["m@1", "blind@1"])
    log_run(store, ["mlflow"])
    assert seen == [("m@1", None), ("m@1", "first"), ("blind@1", None)]
    assert store.manifest["trackers"] == {"mlflow": {"m@1": "first", "blind@1": "first"}}


class Client:
    """As much of MLflow's client as is called, in memory."""

    def __init__(self, params):
        self.params, self.batches, self.files = dict(params), [], []

    def get_run(self, run_id):
        return SimpleNamespace(data=SimpleNamespace(params=self.params))

    def log_batch(self, run_id, **values):
        self.batches.append({k: {v.key: v.value for v in own} for k, own in values.items()})

    def log_artifact(self, run_id, path):
        self.files.append(Path(path).name)

    def set_terminated(self, run_id):
        self.batches.append("end")


def test_mlflow_is_written_in_batches_and_no_parameter_is_changed(store, monkeypatch):
    """The real store, which is slow, is asked below; here is what it is sent."""
    entity = SimpleNamespace(
        Metric=lambda k, v, at, step: SimpleNamespace(key=k, value=v),
        Param=lambda k, v: SimpleNamespace(key=k, value=v),
        RunTag=lambda k, v: SimpleNamespace(key=k, value=v),
    )
    monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace(entities=entity))
    monkeypatch.setitem(sys.modules, "mlflow.entities", entity)
    (one,) = tracked_models(store)
    one = replace(one, metrics={f"m{k}": float(k) for k in range(250)})
    client = Client({"plan_sha256": "0", "harness": "0.0.9"})

    clients._write(client, "id", one)

    *sent, end = client.batches
    assert end == "end"
    assert [len(b["metrics"]) for b in sent if "metrics" in b] == [100, 100, 50]
    params = {k: v for b in sent for k, v in b.get("params", {}).items()}
    tags = {k: v for b in sent for k, v in b.get("tags", {}).items()}
    assert params.keys() == one.params.keys() - {"plan_sha256", "harness"}
    assert tags == {**one.tags, "param.harness": "0.1.0"}
    assert client.files == ["summary.md", "summary.json", "verdicts.json"]


MLFLOW = """
import json, sys
from pathlib import Path
from harness.errors import RunError
from harness.runs.store import RunStore
from harness.trackers import log_run
from mlflow import MlflowClient
store = RunStore(Path(sys.argv[1]))
first = log_run(store, ["mlflow"])["mlflow"]
store.update(limit=8)
again = log_run(store, ["mlflow"])["mlflow"]
client = MlflowClient()
run = client.get_run(first)
names = [f.path for f in client.list_artifacts(first)]
experiments = [e.name for e in client.search_experiments()]
n_runs = len(client.search_runs([run.info.experiment_id]))
client.delete_run(first)
renewed = log_run(store, ["mlflow"])["mlflow"]
client.delete_experiment(run.info.experiment_id)
client.delete_run(renewed)
try:
    log_run(store, ["mlflow"])
except RunError as problem:
    refused = str(problem)
print("FOUND" + json.dumps({
    "same": first == again, "renewed": renewed != first, "n_runs": n_runs, "files": names,
    "refused": refused, "status": run.info.status, "name": run.info.run_name,
    "experiments": experiments,
    "params": run.data.params, "metrics": run.data.metrics, "tags": run.data.tags,
}))
"""


@pytest.mark.slow
def test_mlflow_holds_the_run_in_a_local_store(store, tmp_path):
    """In a process of its own: its imports and its store's migrations take seconds, and warn."""
    (one,) = tracked_models(store)
    environment = os.environ | {
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "PYTHONPATH": str(ROOT),
    }
    environment.pop("MLFLOW_EXPERIMENT_NAME", None)
    done = subprocess.run(
        [sys.executable, "-c", MLFLOW, str(store.folder)],
        env=environment, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.partition("FOUND")[2])
    assert found["same"]
    assert found["renewed"]
    assert found["n_runs"] == 1
    assert found["status"] == "FINISHED"
    assert found["name"] == "s/m"
    assert "s" in found["experiments"]
    assert sorted(found["files"]) == ["summary.json", "summary.md", "verdicts.json"]
    assert found["metrics"] == pytest.approx(dict(one.metrics))
    assert one.params.items() <= found["params"].items()
    assert one.tags.items() <= found["tags"].items()
    assert found["params"]["limit"] == "8"
    assert found["refused"].startswith("--log mlflow: ")
    assert f"The run is whole in {store.folder}. Repair the store that" in found["refused"]


def test_wandb_holds_the_run_offline(store, monkeypatch, tmp_path):
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    places = log_run(store, ["wandb"])
    assert log_run(store, ["wandb"]) == places
    runs = list((store.folder / "wandb").glob(f"offline-run-*-{places['wandb']}"))
    assert len(runs) >= 1
