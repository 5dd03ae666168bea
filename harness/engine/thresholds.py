"""Counts of every case at other thresholds, from the logits of the one pass.

Conventions: a mask holds the pixels whose probability is strictly above its threshold, as in
`harness.model.features.binarise`. A row of counts has one place for each of `THRESHOLDS`. Where a
model gives a presence score, a mask is empty at every threshold that the score does not pass.
"""

from collections.abc import Callable, Sequence

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.engine.shards import Shard
from harness.runs.store import CURVE_SCHEMA, THRESHOLDS

MaskKey = tuple[str, str]
"""Dataset and path of a mask."""

_BOUNDS = torch.tensor(THRESHOLDS, dtype=torch.float64).logit().float()
_N = len(THRESHOLDS)


class ThresholdCounts:
    """The counts of one shard: each pair against the mask of each of its samples."""

    def __init__(self, shard: Shard, names: Sequence[MaskKey]) -> None:
        self._cases = shard.cases["case_id"]
        asked: dict[int, dict[MaskKey, list[int]]] = {}
        for case, (pair, name) in enumerate(zip(shard.pair_of_case.tolist(), names, strict=True)):
            asked.setdefault(pair, {}).setdefault(name, []).append(case)
        self._asked = asked
        self._counts = np.zeros((len(names), 2, _N), dtype=np.uint32)
        self._is_counted = np.zeros(len(names), dtype=bool)

    def add(
        self, first: int, logits: Tensor, truth: Callable[[MaskKey, int, int], Tensor | None]
    ) -> None:
        """Count the logits ``(B, h, w)`` of the pairs from `first` on.

        Args:
            first: Number of the first pair.
            logits: At the size of the compared masks.
            truth: The mask of a name at a size; None where it could not be read.
        """
        height, width = int(logits.shape[-2]), int(logits.shape[-1])
        rows, truths, cases = [], [], []
        for offset in range(len(logits)):
            for name, own in self._asked.get(first + offset, {}).items():
                mask = truth(name, height, width)
                if mask is not None:
                    rows.append(offset)
                    truths.append(mask)
                    cases.append(own)
        if not rows:
            return
        # Every pair once, as nearly always, need not be copied.
        chosen = logits if rows == list(range(len(logits))) else logits[rows]
        counts = histograms(chosen, torch.stack(truths))
        for own, count in zip(cases, counts, strict=True):
            self._counts[own], self._is_counted[own] = count, True

    def frame(self, done: NDArray[np.bool_]) -> pl.DataFrame:
        """The counts of the cases that are `done`, in the order of the shard's cases."""
        kept = np.flatnonzero(done & self._is_counted)
        columns = {
            name: pl.Series(self._counts[kept, place].tolist(), dtype=pl.List(pl.UInt32))
            for place, name in enumerate(("n_pred", "tp"))
        }
        return pl.DataFrame({"case_id": self._cases[kept]} | columns, schema=CURVE_SCHEMA)


def histograms(logits: Tensor, truths: Tensor) -> NDArray[np.int64]:
    """``n_pred`` and ``tp`` at each threshold, ``(N, 2, 19)``.

    Only what passes the lowest threshold is looked at: of most masks, a small part.

    Args:
        logits: ``(N, h, w)``.
        truths: Of the same shape, bool.
    """
    flat_logits, flat_truths = (t.cpu().numpy().reshape(-1) for t in (logits, truths))
    bounds = _BOUNDS.numpy()
    places = np.flatnonzero(flat_logits > bounds[0])
    passed = np.searchsorted(bounds, flat_logits[places], side="left") - 1
    pairs = places // (logits.shape[-2] * logits.shape[-1])
    index = (2 * pairs + flat_truths[places]) * _N + passed
    found = np.bincount(index, minlength=2 * _N * len(logits)).reshape(-1, 2, _N)
    above = found[..., ::-1].cumsum(axis=-1)[..., ::-1]
    return np.stack([above.sum(axis=1), above[:, 1]], axis=1)


def with_presence(logits: Tensor, presence: Tensor) -> Tensor:
    """Logits that pass no threshold that the presence score ``(N,)`` in [0, 1] does not pass."""
    return torch.minimum(logits, presence.float().logit(eps=1e-6)[:, None, None])
