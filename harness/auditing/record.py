"""What is written down about how a run was made.

Conventions: everything here is recorded, nothing is decided from it; times stand in
``run.json`` and nowhere else.
"""

import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness._version import __version__
from harness.auditing.listener import Listener

if TYPE_CHECKING:
    from collections.abc import Callable

    import polars as pl

    from harness.engine.executors import Executor
    from harness.model.loading import LoadedModel
    from harness.runs.store import RunStore

# What a model's id leaves out since the harness needs it itself (`harness.model.sources`).
LIBRARIES: tuple[str, ...] = (
    "torch",
    "torchvision",
    "transformers",
    "tokenizers",
    "open_clip_torch",
    "timm",
)
LIBRARIES += ("segmentation_models_pytorch", "safetensors", "huggingface_hub", "pillow", "numpy")
LIBRARIES += ("scipy", "polars", "pydantic", "torchmetrics", "hypothesis", "nltk")


def environment() -> dict[str, Any]:
    """Versions, commit, machine and time."""
    return {
        "harness": __version__,
        "git_commit": _git_commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "libraries": {name: metadata.version(name) for name in LIBRARIES},
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _git_commit() -> str | None:
    """The commit of the checkout the harness runs from; None for an installed copy."""
    package = Path(__file__).resolve().parent
    try:
        found = subprocess.run(
            ["git", "-C", str(package), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None if found.returncode == 0 else None


def model_entry(model: "LoadedModel") -> dict[str, Any]:
    """The model's line in ``run.json``, but for its batch size."""
    import torch

    from harness.engine.shards import IMAGES_PER_SHARD, PAIRS_PER_SHARD
    from harness.model.backends import described
    from harness.model.precision import device_name

    return {
        "model_id": model.model_id,
        "name": model.card.name,
        "card": model.card.model_dump(mode="json", exclude_none=True),
        "weights_sha256": model.weights_sha256,
        "random_weights": model.random_weights,
        "notes": [note.text for note in model.notes],
        "threshold": model.card.threshold,
        "trained_on": list(model.card.trained_on),
        "control": model.card.control,
        "device": model.device.type,
        "precision": model.arithmetic,
        "backend": model.backend,
        **({"computed_by": described(model.backend, model.stages)} if model.stages else {}),
        # `harness.model.precision.computing` sets it for everything that a run computes.
        "float32_products": "exact",
        "shard_size": [PAIRS_PER_SHARD, IMAGES_PER_SHARD],
        "hardware": {
            "device_name": device_name(model.device),
            "threads": torch.get_num_threads(),
        },
    }


def spoken_notes(model: "LoadedModel") -> list[str]:
    """What an adapter has to say by now; a function knows more after its first call."""
    return [note.text for note in getattr(model.raw, "notes", ())]


def write_texts(
    store: "RunStore",
    executor: "Executor",
    model_id: str,
    cases: "pl.LazyFrame",
    *,
    listener: Listener,
) -> None:
    """``texts/<model_id>.parquet``: tokens of every text, and what becomes of its edits."""
    import polars as pl

    from harness.engine.texts import CELL, STORED_SCHEMA
    from harness.files.writing import parquet_bytes

    name = f"texts/{model_id}.parquet"
    problem = store.ledger.problem(name)
    if not problem and pl.read_parquet_schema(store.folder / name) == STORED_SCHEMA:
        return  # plan and model are those of the run
    if problem and store.ledger.knows(name):
        listener.note(f"note: {name} was {problem}; it is written anew.")
    edits = cases.select(*CELL, "prompt", "original_prompt")
    asked = edits.unique(maintain_order=True).collect()
    n_texts = pl.concat([asked["prompt"], asked["original_prompt"]]).n_unique()
    with listener.progress(f"tokens of {model_id}", n_texts, unit="texts") as advance:
        rows = executor.ask(text_rows, asked, advance=advance)
        store.ledger.write({name: parquet_bytes(rows)})


def text_rows(
    model: "LoadedModel", cases: "pl.DataFrame", *, advance: "Callable[[int], None]"
) -> "pl.DataFrame":
    """What is stored of a plan's texts before a model."""
    from harness.engine.texts import text_table, with_shifts

    return with_shifts(text_table(model, cases, advance=advance), model, cases)
