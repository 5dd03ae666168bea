"""Picks the cases of a shard whose masks are kept for the report, batch by batch.

Conventions: counts are those of `harness.engine.tally`; masks are bool tensors ``(N, H, W)``
on the model's device, and only those that are kept leave it. The *worst* cases lose most Dice
against their own target; the *steadiest* have the highest agreement with the mask of the
original prompt, where that mask was right to begin with (`RIGHT`).
"""

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray
from torch import Tensor

from harness.metrics import dice
from harness.runs.kept_masks import GROUP, STEADY, WORST, Bits, Group, Kept, Masks, Selection

RIGHT = 0.5
"""Least Dice of an original whose steadiness is worth showing."""


class MaskSelector:
    """What one shard offers to the saved masks of its run."""

    def __init__(self, cases: pl.DataFrame, known: Selection) -> None:
        """Make ready for a shard.

        Args:
            cases: Of the shard.
            known: What the run keeps already: what is worse is not looked at.
        """
        self._own = Selection(known.k)
        self._known = known
        self._ids: list[int] = cases["case_id"].to_list()
        place = {case: row for row, case in enumerate(self._ids)}
        self._original = np.array([place[c] for c in cases["original_case_id"]], dtype=np.int64)
        self._samples: list[str] = cases["sample_id"].to_list()
        groups = cases.select(GROUP).rows()
        self._groups: list[Group] = list(dict.fromkeys(groups))
        codes = {group: code for code, group in enumerate(self._groups)}
        self._code = np.array([codes[group] for group in groups], dtype=np.int64)
        self._is_variant = (cases["probe"] != "original").to_numpy()
        self._case_ids = cases["case_id"].to_numpy()
        # Rank of the last kept case of each group: its score, negative, and its id.
        n = len(self._groups)
        self._bars = {kind: np.zeros(n) for kind in (WORST, STEADY)}
        self._bar_ids = {kind: np.zeros(n, dtype=np.uint64) for kind in (WORST, STEADY)}
        for kind in (WORST, STEADY):
            for code in range(n):
                self._raise_bar(kind, code)

    def take(
        self,
        cases: Sequence[int],
        counts: NDArray[np.int64],
        masks: tuple[Tensor, Tensor, Tensor],
    ) -> None:
        """Look at the cases of one batch.

        Args:
            cases: Rows of the shard.
            counts: Of all its rows, ``(N, 7)``; those of `cases` and their originals are there.
            masks: Of `cases`: variant, original, truth.
        """
        rows = np.asarray(cases)
        own, original = counts[rows], counts[self._original[rows]]
        usable = self._is_variant[rows] & (own[:, 4] > 0)
        if not usable.any():
            return
        after = dice(*own[:, :3].T, empty=1.0)
        before = dice(*original[:, :3].T, empty=1.0)
        agreement = dice(own[:, 3], own[:, 1], own[:, 4], empty=1.0)
        right = before >= RIGHT
        scores = {WORST: before - after, STEADY: np.where(right, agreement, -np.inf)}
        chosen = {kind: usable & self._passes(kind, rows, score) for kind, score in scores.items()}
        wanted = np.flatnonzero(chosen[WORST] | chosen[STEADY])
        if not len(wanted):
            return
        # One transfer a batch.
        on_host = [part[wanted.tolist()].cpu().numpy() for part in masks]
        for place, k in enumerate(wanted):
            picture = Masks(*(Bits.of(part[place]) for part in on_host))
            figures = float(after[k]), float(before[k]), float(agreement[k])
            for kind in (WORST, STEADY):
                if chosen[kind][k]:
                    self._offer(kind, int(rows[k]), float(scores[kind][k]), figures, picture)

    def _offer(
        self,
        kind: str,
        row: int,
        score: float,
        figures: tuple[float, float, float],
        picture: Masks,
    ) -> None:
        code = int(self._code[row])
        group, original = self._groups[code], self._ids[int(self._original[row])]
        kept = Kept(
            kind, group, self._samples[row], self._ids[row], original, score, *figures, picture
        )
        if self._own.offer(kept):
            self._raise_bar(kind, code)

    def _passes(
        self, kind: str, rows: NDArray[np.int64], score: NDArray[np.float64]
    ) -> NDArray[np.bool_]:
        """Whether cases rank before the last one that is kept; a model that never moves ties."""
        code = self._code[rows]
        bar = self._bars[kind][code]
        earlier = self._case_ids[rows] < self._bar_ids[kind][code]
        passes: NDArray[np.bool_] = (-score < bar) | ((-score == bar) & earlier)
        return passes & np.isfinite(score)

    def _raise_bar(self, kind: str, code: int) -> None:
        """What a case must rank before, from this shard and from the run before it."""
        group = self._groups[code]
        bar = min(self._own.bar(group, kind), self._known.bar(group, kind))
        self._bars[kind][code], self._bar_ids[kind][code] = bar

    def kept(self) -> list[Kept]:
        """What the shard offers."""
        return self._own.all()
