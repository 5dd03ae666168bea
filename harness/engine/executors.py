"""Who evaluates a plan: this process, or the workers of a cluster.

Conventions: an executor holds loaded models; the caller never touches one. `ask` puts a
question to a model and `execute` gives it a run's open shards. Which of them does it
changes no count: shards and batches are cut from the plan alone.
"""

import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from harness.cards import load_model_card, model_names
from harness.engine import local
from harness.errors import ModelError
from harness.model.loading import LoadedModel, load_model, load_two_speed
from harness.model.precision import tolerance_of
from harness.model.wrapping import WrappedFunction
from harness.runs.store import RunStore
from harness.suite.schema import Metric

Answer = TypeVar("Answer")
Advance = Callable[[int], None]


def silent(_: int) -> None:
    """Counts nothing: where there is no progress bar."""


@dataclass(frozen=True)
class ModelSource:
    """What `harness.models.load_model` needs, so that any machine can load the same model."""

    name: str | WrappedFunction
    checkpoint: Path | None = None
    device: str = "auto"
    dtype: str = "auto"
    random_weights: bool = False
    backend: str = "torch"

    def anywhere(self) -> "ModelSource":
        """The same with absolute paths, for processes that stand in another folder.

        Raises:
            ModelError: It is a function of this process.
        """
        if isinstance(self.name, WrappedFunction):
            raise ModelError(
                f"{self.name.card.name}: a function of this process. Other processes need a file. "
                "Write a card with `kind: callable` and `adapter: FILE.py:FUNCTION`."
            )
        path = load_model_card(self.name).path
        is_built_in = model_names().get(self.name) == path
        name = self.name if is_built_in else str(path.resolve())
        return replace(self, name=name, checkpoint=self.checkpoint and self.checkpoint.resolve())

    def load(self) -> LoadedModel:
        """The model, on its device."""
        if isinstance(self.name, WrappedFunction):
            return self.name.load()
        how: dict[str, Any] = {"backend": self.backend, "random_weights": self.random_weights}
        where = self.name, self.checkpoint, self.device
        if (tolerance := tolerance_of(self.dtype)) is not None:
            return load_two_speed(*where, tolerance=tolerance, **how)
        return load_model(*where, dtype=self.dtype, **how)


class Executor(Protocol):
    """Holds one model, somewhere."""

    def machines(self) -> dict[str, int]:
        """Workers by host, those included that died; this process counts as one."""
        ...

    def ask(
        self, question: Callable[..., Answer], *arguments: Any, advance: Advance | None = None
    ) -> Answer:
        """``question(model, *arguments)``; with `advance` it is given as a keyword.

        The question is a function of a module, so that it can be asked elsewhere.
        """
        ...

    def execute(
        self,
        store: RunStore,
        *,
        batch_size: int,
        advance: Advance = silent,
        halved: Advance = silent,
    ) -> None:
        """Evaluate every case of the stored plan that has no score yet."""
        ...


@dataclass(frozen=True)
class Local:
    """One model in this process."""

    model: LoadedModel
    root: Path
    metric: Metric
    kept_masks: int = 0

    def machines(self) -> dict[str, int]:
        """This one."""
        return {socket.gethostname(): 1}

    def ask(
        self, question: Callable[..., Answer], *arguments: Any, advance: Advance | None = None
    ) -> Answer:
        """Answered at once."""
        more = {} if advance is None else {"advance": advance}
        return question(self.model, *arguments, **more)

    def execute(
        self,
        store: RunStore,
        *,
        batch_size: int,
        advance: Advance = silent,
        halved: Advance = silent,
    ) -> None:
        """As `harness.engine.local.execute`."""
        local.execute(
            store,
            self.model,
            root=self.root,
            metric=self.metric,
            batch_size=batch_size,
            advance=advance,
            halved=halved,
            kept_masks=self.kept_masks,
        )
