"""Encodes each distinct text once."""

from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from harness.model.contract import Features
from harness.model.features import bytes_per_row, concatenate, select

# Text features kept at once. CLIPSeg's take 2 KiB a text, CRIS's words 154 KiB.
TEXT_BUDGET_BYTES = 2 << 30
TEXTS_PER_BLOCK = 64


class TextCache:
    """Encodes each distinct text once, in fixed blocks, when it is first needed.

    Blocks are cut from the plan's list of texts, so their content does not depend
    on where a run was interrupted. When the budget is full the block used longest
    ago is dropped and encoded again if it comes back.
    """

    def __init__(
        self,
        texts: Sequence[str],
        encode: Callable[[list[str]], Features],
        *,
        budget_bytes: int = TEXT_BUDGET_BYTES,
    ) -> None:
        self._texts = texts
        self._encode = encode
        self._budget = budget_bytes
        self._blocks: OrderedDict[int, Features] = OrderedDict()

    def rows(self, indices: Tensor) -> Features:
        """Features of the texts at `indices` ``(M,)``, in that order."""
        wanted = indices // TEXTS_PER_BLOCK
        numbers = torch.unique(wanted)
        parts = [self._block(int(number)) for number in numbers]
        together = concatenate(parts)
        sizes = torch.tensor([part[0].shape[0] for part in parts])
        starts = torch.cumsum(sizes, 0) - sizes
        local = starts[torch.searchsorted(numbers, wanted)] + indices % TEXTS_PER_BLOCK
        return select(together, local.to(together[0].device))

    def _block(self, number: int) -> Features:
        if number in self._blocks:
            self._blocks.move_to_end(number)
            return self._blocks[number]
        start = number * TEXTS_PER_BLOCK
        block = self._encode(list(self._texts[start : start + TEXTS_PER_BLOCK]))
        self._blocks[number] = block
        held = bytes_per_row(block) * TEXTS_PER_BLOCK
        while len(self._blocks) > 1 and len(self._blocks) * held > self._budget:
            self._blocks.popitem(last=False)
        return block
