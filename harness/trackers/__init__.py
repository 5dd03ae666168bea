"""Writes a summarised run to the trackers people already use, through their own clients.

Conventions: a tracker is an optional extra of the same name; what is needed of it is checked
before a run begins and imported when it has ended. One model of a run is one run of a tracker,
whose id stands in ``run.json``: the same command again goes on with it.
"""

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from types import MappingProxyType

from harness.errors import UsageError, choose
from harness.store import RunStore
from harness.trackers.content import Tracked, tracked
from harness.trackers.mlflow_client import log_to_mlflow
from harness.trackers.tensorboard_client import log_to_tensorboard
from harness.trackers.wandb_client import log_to_wandb
from harness.writing import writing

Writer = Callable[[Tracked, str | None, RunStore], str]
"""Writes what is tracked of a model into its run with this id, or a new one; gives the id."""

TRACKERS: Mapping[str, Writer] = MappingProxyType(
    {"mlflow": log_to_mlflow, "tensorboard": log_to_tensorboard, "wandb": log_to_wandb}
)


def check_trackers(names: Sequence[str]) -> list[str]:
    """The trackers to log to, each once.

    Raises:
        UsageError: One is unknown, or its client is not installed.
    """
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
    """Write a run that was summarised to trackers.

    Args:
        store: The run.
        names: Of `check_trackers`.

    Returns:
        For each tracker, where its last run is found.
    """
    places = {}
    for name in names:
        for one in tracked(store):
            known = store.manifest.get("trackers", {})
            own = dict(known.get(name, {}))
            with writing(store.folder):
                own[one.model_id] = TRACKERS[name](one, own.get(one.model_id), store)
            store.update(trackers=known | {name: own})
            places[name] = own[one.model_id]
    return places
