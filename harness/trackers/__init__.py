"""Writes a summarised run to the trackers people already use, through their own clients.

Conventions: a tracker is an optional extra of the same name; what is needed of it is checked
before a run begins and imported when it has ended. One model of a run is one run of a tracker,
whose id is kept in ``run.json``: the same command again continues it.
"""

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from types import MappingProxyType

from harness.errors import UsageError, choose
from harness.files.writing import writing
from harness.runs.store import RunStore
from harness.trackers.clients import log_to_mlflow, log_to_tensorboard, log_to_wandb
from harness.trackers.content import TrackedModel, tracked_models

Writer = Callable[[TrackedModel, str | None, RunStore], str]
"""Writes a model into its run with this id, or into a new one, and returns the id."""

TRACKERS: Mapping[str, Writer] = MappingProxyType(
    {"mlflow": log_to_mlflow, "tensorboard": log_to_tensorboard, "wandb": log_to_wandb}
)


def check_trackers(names: Sequence[str]) -> list[str]:
    """The trackers to log to, each once; refuses unknown ones and those that are not installed."""
    chosen = list(dict.fromkeys(names))
    for name in chosen:
        choose(name, TRACKERS, kind="tracker", where="--log", error=UsageError)
        if find_spec(name) is None:
            raise UsageError(
                f"--log {name}: the package {name!r} is not installed. It is an optional extra. "
                f"Install it: pip install 'vlsm-harness[{name}]'."
            )
    return chosen


def log_run(store: RunStore, names: Sequence[str]) -> dict[str, str]:
    """Write a summarised run to the trackers in `names`; returns where each one's last run is."""
    run_ids = {}
    for name in names:
        for model in tracked_models(store):
            known = store.manifest.get("trackers", {})
            own = dict(known.get(name, {}))
            with writing(store.folder):
                run_ids[name] = TRACKERS[name](model, own.get(model.model_id), store)
            own[model.model_id] = run_ids[name]
            store.update(trackers=known | {name: own})
    return run_ids
