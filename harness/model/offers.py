"""What an adapter may offer besides the contract, for families with ways of their own.

Conventions: as in `harness.model.contract`.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import torch


@runtime_checkable
class MayNotAnswer(Protocol):
    """A model that does not give a mask every time, such as one that writes polygons.

    Such a case is scored as an empty mask and counted by itself, beside empty masks.
    """

    def predict_with_answers(
        self, pixels: torch.Tensor, texts: Sequence[str]
    ) -> tuple[torch.Tensor, Sequence[bool]]:
        """As `Predicts.predict`, and of each row whether there was an answer."""
        ...


@runtime_checkable
class Configured(Protocol):
    """A model whose architecture a folder in a hub's format may say."""

    def configure(self, place: Path) -> None:
        """Rebuild `module` by the ``config.json`` of a checkpoint, before it is loaded.

        Args:
            place: The checkpoint, a file or folder; without such a file nothing changes.
        """
        ...


class Translation(NamedTuple):
    """Weights under the names of a module, and the file's keys that have no place in it."""

    tensors: Mapping[str, torch.Tensor]
    left_out: Sequence[str]


@runtime_checkable
class Translates(Protocol):
    """A model whose finetuned files may have another project's names for its weights."""

    def translate(self, tensors: Mapping[str, torch.Tensor]) -> Translation | None:
        """Rename, split or turn the tensors of a file or of a part of one.

        What is done to a weight is linear, so that additions to weights (LoRA) are translated
        alike; numbers may be on torch's device ``meta``, where names and shapes alone are asked.
        None where the names are not those of the other project.

        Raises:
            CheckpointError: They are, and some of them belong to no such model.
        """
        ...


@runtime_checkable
class ComputesOtherwise(Protocol):
    """A model that others compute in another way, too; ``check`` shows how far apart they lie."""

    def alternatives(self) -> Mapping[str, Callable[[torch.Tensor, Sequence[str]], torch.Tensor]]:
        """What the other way is -> it, as `Predicts.predict`."""
        ...
