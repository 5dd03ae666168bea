"""Weights & Biases: one run a model, in the project its own environment variables name.

Conventions: WANDB_PROJECT, WANDB_ENTITY and WANDB_MODE mean what they always do; without a
project it is called like the suite. Figures are the run's summary, verdicts part of it.
"""

import os

from harness.errors import RunError
from harness.store import RunStore
from harness.trackers.content import Tracked


def log_to_wandb(tracked: Tracked, known: str | None, store: RunStore) -> str:
    """Write to the run `known`, or to a new one; its id.

    Raises:
        RunError: The service refuses; the run directory is whole.
    """
    import wandb

    try:
        with wandb.init(
            project=os.environ.get("WANDB_PROJECT") or tracked.suite,
            name=tracked.name,
            id=known,
            resume="allow",
            dir=str(store.folder),
            config=dict(tracked.params),
        ) as run:
            run.summary.update({**tracked.metrics, **tracked.tags})
            files = wandb.Artifact(f"summary-{run.id}", type="audit")
            for path in tracked.files:
                files.add_file(str(path))
            run.log_artifact(files)
            return str(run.id)
    except wandb.errors.Error as problem:
        raise RunError(
            f"--log wandb: {problem}. The run is whole in {store.folder}. Log in (wandb login) or "
            "set WANDB_MODE=offline, and give the same command again: it only logs."
        ) from None
