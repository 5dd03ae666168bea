"""TensorBoard: one folder of events a model, below ``tensorboard/`` in the run directory.

Conventions: an audit has no steps; everything stands at step 0. Logging again replaces the
events, which only this module writes.
"""

import shutil
from collections.abc import Mapping

from harness.report.escape import escaped
from harness.store import RunStore
from harness.trackers.content import Tracked


def log_to_tensorboard(tracked: Tracked, known: str | None, store: RunStore) -> str:
    """Write the events of a model; the path of their folder."""
    from torch.utils.tensorboard.writer import SummaryWriter

    folder = store.folder / "tensorboard" / tracked.model_id
    if folder.is_dir():
        shutil.rmtree(folder)
    with SummaryWriter(str(folder)) as writer:
        for name, value in tracked.metrics.items():
            writer.add_scalar(name, value, 0)
        writer.add_text("parameters", _table(tracked.params), 0)
        writer.add_text("verdicts", _table(tracked.tags), 0)
        for path in tracked.files:
            if path.suffix == ".md":
                text = path.read_text(encoding="utf-8")
                writer.add_text(path.stem, text, 0)
    return str(folder)


def _table(values: Mapping[str, str]) -> str:
    rows = (f"| {escaped(k)} | {escaped(v)} |" for k, v in values.items())
    return "\n".join(["| name | value |", "| --- | --- |", *rows])
