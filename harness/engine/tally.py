"""Collects the counts of a shard's cases while its pairs are decoded.

Conventions: counts are pixels, one column each of `COUNTS`, -1 where there is none.
A case is counted in the batch that brings the later one of its two masks, the
variant's and the original's: a variant of one sample may be the original prompt of
another sample of the same image, and then stands before its own original.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.engine.counts import area, binarise, hausdorff_px, is_finite, overlap, resize_mask
from harness.engine.shards import Shard
from harness.engine.sketch import Sketch
from harness.metrics import EMPTY_SCORES, iou
from harness.models import LoadedModel
from harness.store import DONE, FAILED, SCORE_SCHEMA
from harness.suites import Metric

COUNTS = ("tp", "n_pred", "n_gt", "tp_original", "n_pred_original", "tp_named", "n_named")
NONE = -1


@dataclass(frozen=True)
class Pictures:
    """The decoded inputs of one shard.

    `pixels` is ``(I, 3, H, W)`` float32; `sizes` the original (height, width) of
    each image; `truths` the masks of each sample, by mask path, or the error that
    stands for it.
    """

    pixels: Tensor
    sizes: list[tuple[int, int]]
    truths: Mapping[str, NDArray[np.bool_] | str]


class Tally:
    """The counts of one shard."""

    def __init__(
        self,
        shard: Shard,
        pictures: Pictures,
        metric: Metric,
        model: LoadedModel,
        sketch: Sketch | None = None,
    ) -> None:
        self._sketch = sketch
        self._shard, self._pictures, self._metric, self._model = shard, pictures, metric, model
        self._pair = shard.pair_of_case.tolist()
        self._original = shard.original_pair.tolist()
        self._names: list[str] = shard.cases["mask"].to_list()
        self._named = _named_masks(shard)
        self._due: dict[int, list[int]] = {}
        for case, later in enumerate(map(max, self._pair, self._original)):
            self._due.setdefault(later, []).append(case)
        self._originals = set(self._original)
        # Masks of original prompts, kept until the shard is done; truths as tensors.
        self._kept: dict[int, Tensor] = {}
        self._truths: dict[tuple[str, int, int], Tensor] = {}
        self._unusable: set[int] = set()
        n = shard.cases.height
        self._counts = np.full((n, len(COUNTS)), NONE, dtype=np.int64)
        self._sizes = np.zeros((n, 2), dtype=np.int32)
        self._hausdorff = np.full(n, math.nan)
        self._errors: dict[int, str] = {}

    def add(self, start: int, logits: Tensor) -> None:
        """Take the logits ``(B, h, w)`` of the pairs from `start` on, in order."""
        for offset, fine in enumerate(is_finite(logits).tolist()):
            if not fine:
                self._unusable.add(start + offset)
        for first, masks in self._masks_of(start, logits):
            for pair in range(first, first + len(masks)):
                if pair in self._originals:
                    # A view would keep its whole batch in memory until the shard is done.
                    self._kept[pair] = masks[pair - first].clone()
            self._count(first, masks)

    def _masks_of(self, start: int, logits: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Masks at the metric's resolution; images of unequal size come one by one."""
        if self._metric.resolution == "model":
            yield start, binarise(logits, self._model.card.threshold)
            return
        for offset, single in enumerate(logits):
            size = self._pictures.sizes[int(self._shard.pairs[start + offset, 0])]
            native = torch.nn.functional.interpolate(
                single[None, None], size=size, mode="bilinear", align_corners=False
            )
            yield start + offset, binarise(native[0], self._model.card.threshold)

    def _count(self, first: int, masks: Tensor) -> None:
        due = [c for pair in range(first, first + len(masks)) for c in self._due.get(pair, [])]
        cases = [case for case in due if self._is_usable(case)]
        if not cases:
            return
        chosen = torch.stack([self._mask(self._pair[case], first, masks) for case in cases])
        height, width = int(chosen.shape[-2]), int(chosen.shape[-1])
        truths = torch.stack([self._truth(self._names[c], height, width) for c in cases])
        originals = torch.stack([self._kept[self._original[case]] for case in cases])
        columns = [
            overlap(chosen, truths),
            area(chosen),
            area(truths),
            overlap(chosen, originals),
            area(originals),
        ]
        self._counts[cases, :5] = torch.stack(columns, dim=1).cpu().numpy()
        self._sizes[cases] = height, width
        lost = [case for case in cases if self._original[case] in self._unusable]
        self._counts[lost, 3:5] = NONE
        self._count_further(cases, chosen, truths)
        if self._sketch is not None:
            self._sketch.take(cases, self._counts, (chosen, originals, truths))

    def _count_further(self, cases: list[int], chosen: Tensor, truths: Tensor) -> None:
        """What only some cases or suites have: named targets and distances."""
        for row, case in enumerate(cases):
            named = self._named.get(case)
            if named is not None and not isinstance(self._pictures.truths[named], str):
                target = self._truth(named, int(chosen.shape[-2]), int(chosen.shape[-1]))
                self._counts[case, 5] = int(overlap(chosen[row], target))
                self._counts[case, 6] = int(area(target))
            if "hausdorff" in self._metric.columns:
                self._hausdorff[case] = hausdorff_px(chosen[row], truths[row])

    def _mask(self, pair: int, first: int, masks: Tensor) -> Tensor:
        """The mask of a pair of this batch, or of an original prompt before it."""
        return masks[pair - first] if pair >= first else self._kept[pair]

    def _is_usable(self, case: int) -> bool:
        truth = self._pictures.truths[self._names[case]]
        if isinstance(truth, str):
            self._errors[case] = truth
        elif self._pair[case] in self._unusable:
            text = self._shard.cases["prompt"][case]
            self._errors[case] = (
                f"{self._model.model_id}: logits for {text!r} are not finite. Every logit must be "
                "a finite number. Check the weights, or run with --dtype float32."
            )
        return case not in self._errors

    def _truth(self, name: str, height: int, width: int) -> Tensor:
        key = (name, height, width)
        if key not in self._truths:
            truth = self._pictures.truths[name]
            assert not isinstance(truth, str)  # such cases were sorted out before
            resized = np.array(resize_mask(truth, height, width))
            self._truths[key] = torch.from_numpy(resized).to(self._model.device)
        return self._truths[key]

    def frame(self) -> pl.DataFrame:
        """The scores, in the order of the shard's cases."""
        n = self._shard.cases.height
        failed = np.isin(np.arange(n), list(self._errors))
        columns: dict[str, object] = {
            "model_id": [self._model.model_id] * n,
            "case_id": self._shard.cases["case_id"],
            **{name: self._counts[:, k] for k, name in enumerate(COUNTS)},
            "height": self._sizes[:, 0],
            "width": self._sizes[:, 1],
            "status": np.where(failed, FAILED, DONE),
            "error": [self._errors.get(case) for case in range(n)],
            "iou": self._iou(failed),
            "hausdorff_px": self._hausdorff,
        }
        blank = pl.lit(None)
        return (
            pl.DataFrame(columns)
            .with_columns(
                pl.when(pl.col(name) == NONE).then(blank).otherwise(pl.col(name)).alias(name)
                for name in COUNTS
            )
            .with_columns(
                pl.when(pl.col("status") == FAILED).then(blank).otherwise(pl.col(name)).alias(name)
                for name in ("height", "width")
            )
            .with_columns(
                blank.alias(column)
                for name, column in (("iou", "iou"), ("hausdorff", "hausdorff_px"))
                if name not in self._metric.columns
            )
            .select(SCORE_SCHEMA.names())
            .cast(SCORE_SCHEMA)
        )

    def _iou(self, failed: NDArray[np.bool_]) -> NDArray[np.float64]:
        tp, n_pred, n_gt = np.where(failed[:, None], 0, self._counts[:, :3]).T
        return np.where(
            failed, math.nan, iou(tp, n_pred, n_gt, empty=EMPTY_SCORES[self._metric.empty])
        )


def _named_masks(shard: Shard) -> dict[int, str]:
    """Case -> path of the named target's mask, where the plan names one.

    A named target is a sample of the same image, so its mask is in the shard.
    """
    key = ["dataset", "split", "sample_id"]
    masks = {row[:3]: row[3] for row in shard.cases.select(*key, "mask").unique().iter_rows()}
    named = shard.cases.select("dataset", "split", "named_sample_id").iter_rows()
    return {case: masks[target] for case, target in enumerate(named) if target in masks}
