"""Collects the counts of a shard's cases while its pairs are decoded.

Conventions: counts are pixels, one column each of `COUNTS`, -1 where there is none.
A case is counted in the batch that brings the later one of its two masks, the
variant's and the original's: a variant of one sample may be the original prompt of
another sample of the same image, and then stands before its own original. On a CUDA device
counts are read a batch later than they are asked for, so that it never waits for this process:
while the counts of one batch are on their way the next one is being decoded.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.engine.counts import area, is_finite, overlap, resize_mask
from harness.engine.mask_selector import MaskSelector
from harness.engine.shards import Shard
from harness.engine.surface import surface_distances
from harness.engine.thresholds import MaskKey, ThresholdCounts, with_presence
from harness.metrics import EMPTY_SCORES, iou
from harness.model.features import binarise
from harness.runs.store import DONE, FAILED, NO_ANSWER, SCORE_SCHEMA
from harness.suite.schema import Metric

COUNTS = ("tp", "n_pred", "n_gt", "tp_original", "n_pred_original", "tp_named", "n_named")
NONE = -1
_SURFACE = {"hausdorff": "hausdorff_px", "hd95": "hd95_px", "nsd": "nsd"}
"""Columns that a metric may ask for -> of the scores."""


@dataclass(frozen=True)
class Pictures:
    """The decoded inputs of one shard.

    `pixels` is ``(I, 3, H, W)`` float32, or ``(3, H, W)`` each where a model takes any size;
    `sizes` the original (height, width) of each image; `truths` the masks of each sample, by
    dataset and mask path, or the error that stands for it: two datasets may read one file by
    different rules.
    """

    pixels: Tensor | Sequence[Tensor]
    sizes: list[tuple[int, int]]
    truths: Mapping[MaskKey, NDArray[np.bool_] | str]


class MaskSource(Protocol):
    """Whoever made the masks: a loaded model, or predictions from elsewhere."""

    @property
    def model_id(self) -> str:
        """Key of its scores."""
        ...

    @property
    def device(self) -> torch.device:
        """Where its masks lie."""
        ...

    @property
    def threshold(self) -> float:
        """Probability above which a pixel belongs to the mask, where logits are given."""
        ...


class Decoded(NamedTuple):
    """What a model says of some pairs.

    `logits` are ``(B, h, w)``. Presence scores ``(B,)`` bear on the counts at other thresholds
    alone. `answered` says which pairs have an answer; None where all have.
    """

    logits: Tensor
    presence: Tensor | None = None
    answered: Sequence[bool] | None = None


class _Asked(NamedTuple):
    """Counts of some cases that may still be on their way from the device.

    `fine` says of the pairs from `first` on whether their logits are finite, `five` are the
    first columns of `COUNTS`, `named` the last two of the cases at `named_rows`; `masks` are the
    cases' own, their originals' and the truths.
    """

    first: int
    fine: Tensor
    cases: list[int]
    five: Tensor
    named_rows: list[int]
    named: Tensor
    masks: tuple[Tensor, Tensor, Tensor] | None
    arrival: "torch.cuda.Event | None"


class Tally:
    """The counts of one shard."""

    def __init__(
        self,
        shard: Shard,
        pictures: Pictures,
        metric: Metric,
        source: MaskSource,
        selector: MaskSelector | None = None,
        *,
        thresholds: bool = False,
    ) -> None:
        self._selector = selector
        self._shard, self._pictures, self._metric, self._source = shard, pictures, metric, source
        self._pair = shard.pair_of_case.tolist()
        self._original = shard.original_pair.tolist()
        self._names: list[MaskKey] = shard.cases.select("dataset", "mask").rows()
        self._named = shard.named_masks()
        self._at_thresholds = ThresholdCounts(shard, self._names) if thresholds else None
        self._due: dict[int, list[int]] = {}
        for case, later in enumerate(map(max, self._pair, self._original)):
            self._due.setdefault(later, []).append(case)
        self._originals = set(self._original)
        # Masks of original prompts, kept until the shard is done; truths as tensors.
        self._kept: dict[int, Tensor] = {}
        self._truths: dict[tuple[MaskKey, int, int], Tensor] = {}
        # Pairs without a usable mask, and why; None where the logits are no numbers.
        self._unusable: dict[int, str | None] = {}
        self._without_answer: set[int] = set()
        n = shard.cases.height
        self._counts = np.full((n, len(COUNTS)), NONE, dtype=np.int64)
        self._sizes = np.zeros((n, 2), dtype=np.int32)
        wanted = [name for name in _SURFACE if name in metric.columns]
        self._surface = {name: np.full(n, math.nan) for name in wanted}
        self._errors: dict[int, str] = {}
        self._asked: list[_Asked] = []

    @property
    def threshold(self) -> float:
        """Probability above which a pixel belongs to the mask."""
        return self._source.threshold

    @property
    def empty(self) -> float:
        """Dice of a case in which both masks are empty."""
        return EMPTY_SCORES[self._metric.empty]

    def truths_of(self, case: int) -> list[MaskKey]:
        """The true masks that a case is compared with."""
        return [self._names[case], *([self._named[case]] if case in self._named else [])]

    def add(self, start: int, decoded: Decoded) -> None:
        """Take what was said of the pairs from `start` on, in order."""
        logits, presence, answered = decoded
        without = (place for place, has in enumerate(answered or ()) if not has)
        self._without_answer.update(start + place for place in without)
        self._add(start, self._masks_of(start, logits, presence), is_finite(logits))

    def add_masks(self, start: int, masks: Tensor, problems: Mapping[int, str]) -> None:
        """Take the masks ``(B, H, W)`` of the pairs from `start` on, in order.

        `problems` says of pairs that have no usable mask why; their rows are blank.
        """
        self._unusable |= problems
        pairs = range(start, start + len(masks))
        fine = torch.tensor([pair not in problems for pair in pairs], dtype=torch.bool)
        self._add(start, iter([(start, masks)]), fine)

    def _masks_of(
        self, start: int, logits: Tensor, presence: Tensor | None
    ) -> Iterator[tuple[int, Tensor]]:
        """Masks at the metric's resolution; counts at other thresholds are taken on the way."""
        for first, sized in self.at_metric_size(start, logits):
            if self._at_thresholds is not None:
                own = presence if presence is None else presence[first - start :][: len(sized)]
                shown = sized if own is None else with_presence(sized, own)
                self._at_thresholds.add(first, shown, self.known_truth)
            yield first, binarise(sized, self.threshold)

    def _add(self, start: int, parts: Iterator[tuple[int, Tensor]], fine: Tensor) -> None:
        asked = []
        for first, masks in parts:
            for pair in range(first, first + len(masks)):
                if pair in self._originals:
                    # A view would keep its whole batch in memory until the shard is done.
                    self._kept[pair] = masks[pair - first].clone()
            own = fine[first - start : first - start + len(masks)]
            asked.append(self._ask(first, masks, own))
        self.finish()
        self._asked = asked

    def finish(self) -> None:
        """Read the counts that are still on their way."""
        for asked in self._asked:
            self._take(asked)
        self._asked = []

    def at_metric_size(self, start: int, logits: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Logits at the metric's resolution; images of unequal size come one by one."""
        if self._metric.resolution == "model":
            yield start, logits
            return
        for offset, single in enumerate(logits):
            size = self._pictures.sizes[int(self._shard.pairs[start + offset, 0])]
            native = torch.nn.functional.interpolate(
                single[None, None], size=size, mode="bilinear", align_corners=False
            )
            yield start + offset, native[0]

    def _ask(self, first: int, masks: Tensor, fine: Tensor) -> _Asked:
        """Start the counts of all cases that are due, and their way to this process."""
        due = [c for pair in range(first, first + len(masks)) for c in self._due.get(pair, [])]
        cases = [case for case in due if self._has_truth(case)]
        if not cases:
            nothing = torch.empty(0, dtype=torch.int64)
            return _Asked(first, _on_host(fine), [], nothing, [], nothing, None, _arrival(fine))
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
        rows, named = self._named_counts(cases, chosen)
        return _Asked(
            first,
            _on_host(fine),
            cases,
            _on_host(torch.stack(columns, dim=1)),
            rows,
            _on_host(named),
            (chosen, originals, truths),
            _arrival(fine),
        )

    def _named_counts(self, cases: list[int], chosen: Tensor) -> tuple[list[int], Tensor]:
        """Overlap with the named target's mask and its area, of the rows that have one."""
        names = [self._named.get(case) for case in cases]
        named = {
            row: name
            for row, name in enumerate(names)
            if name is not None and not isinstance(self._pictures.truths[name], str)
        }
        if not named:
            return [], torch.empty((0, 2), dtype=torch.int64)
        height, width = int(chosen.shape[-2]), int(chosen.shape[-1])
        targets = torch.stack([self._truth(name, height, width) for name in named.values()])
        own = torch.stack([chosen[row] for row in named])
        return list(named), torch.stack([overlap(own, targets), area(targets)], dim=1)

    def _take(self, asked: _Asked) -> None:
        """Put counts in their places once they are here; sort out logits that are no numbers."""
        if asked.arrival is not None:
            asked.arrival.synchronize()
        for offset, fine in enumerate(asked.fine.tolist()):
            if not fine:
                self._unusable.setdefault(asked.first + offset, None)
        if asked.masks is None:
            return
        self._counts[asked.cases, :5] = asked.five.numpy()
        self._counts[[asked.cases[row] for row in asked.named_rows], 5:] = asked.named.numpy()
        self._sizes[asked.cases] = asked.masks[0].shape[-2:]
        usable = [row for row, case in enumerate(asked.cases) if self._is_usable(case)]
        kept = {asked.cases[row] for row in usable}
        self._counts[[case for case in asked.cases if case not in kept]] = NONE
        lost = [case for case in kept if self._original[case] in self._unusable]
        self._counts[lost, 3:5] = NONE
        self._measure(asked, usable)

    def _measure(self, asked: _Asked, usable: list[int]) -> None:
        """What needs the masks themselves: distances, where asked for, and what is kept."""
        assert asked.masks is not None, "cases have masks"
        chosen, _, truths = asked.masks
        if self._surface:
            for row in usable:
                self._measure_surface(asked.cases[row], chosen[row], truths[row])
        if self._selector is not None and usable:
            masks = asked.masks
            if len(usable) < len(asked.cases):
                masks = masks[0][usable], masks[1][usable], masks[2][usable]
            self._selector.take([asked.cases[row] for row in usable], self._counts, masks)

    def _measure_surface(self, case: int, mask: Tensor, truth: Tensor) -> None:
        found = surface_distances(mask.cpu().numpy(), truth.cpu().numpy())
        for name, values in self._surface.items():
            if name == "nsd":
                dataset = self._shard.cases["dataset"][case]
                values[case] = found.nsd(self._metric.tolerance_px[dataset])
            else:
                values[case] = getattr(found, name)

    def _mask(self, pair: int, first: int, masks: Tensor) -> Tensor:
        """The mask of a pair of this batch, or of an original prompt before it."""
        return masks[pair - first] if pair >= first else self._kept[pair]

    def _has_truth(self, case: int) -> bool:
        truth = self._pictures.truths[self._names[case]]
        if isinstance(truth, str):
            self._errors[case] = truth
        return case not in self._errors

    def _is_usable(self, case: int) -> bool:
        if self._pair[case] in self._unusable:
            text = self._shard.cases["prompt"][case]
            self._errors[case] = self._unusable[self._pair[case]] or (
                f"{self._source.model_id}: logits for {text!r} are not finite. Every logit must be "
                "a finite number. Check the weights, or run with --dtype float32."
            )
        return case not in self._errors

    def _truth(self, name: MaskKey, height: int, width: int) -> Tensor:
        key = (name, height, width)
        if key not in self._truths:
            truth = self._pictures.truths[name]
            assert not isinstance(truth, str)  # such cases were sorted out before
            resized = np.array(resize_mask(truth, height, width))
            self._truths[key] = torch.from_numpy(resized).to(self._source.device)
        return self._truths[key]

    def known_truth(self, name: MaskKey, height: int, width: int) -> Tensor | None:
        """A true mask at a size; None where it could not be read."""
        is_lost = isinstance(self._pictures.truths[name], str)
        return None if is_lost else self._truth(name, height, width)

    def curves(self) -> pl.DataFrame | None:
        """Counts at other thresholds of the cases that were done; None where nobody asked."""
        if self._at_thresholds is None:
            return None
        self.finish()
        failed = np.isin(np.arange(self._shard.cases.height), list(self._errors))
        return self._at_thresholds.frame(~failed)

    def frame(self) -> pl.DataFrame:
        """The scores, in the order of the shard's cases."""
        self.finish()
        n = self._shard.cases.height
        failed = np.isin(np.arange(n), list(self._errors))
        columns: dict[str, object] = {
            "model_id": [self._source.model_id] * n,
            "case_id": self._shard.cases["case_id"],
            **{name: self._counts[:, k] for k, name in enumerate(COUNTS)},
            "height": self._sizes[:, 0],
            "width": self._sizes[:, 1],
            "status": np.where(failed, FAILED, DONE),
            "error": [self._said_of(case) for case in range(n)],
            "iou": self._iou(failed),
            **{_SURFACE[name]: values for name, values in self._surface.items()},
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
                for name, column in {"iou": "iou", **_SURFACE}.items()
                if name not in self._metric.columns
            )
            .select(SCORE_SCHEMA.names())
            .cast(SCORE_SCHEMA)
        )

    def _said_of(self, case: int) -> str | None:
        """Why a case failed, or that its empty mask is no answer."""
        silent = NO_ANSWER if self._pair[case] in self._without_answer else None
        return self._errors.get(case, silent)

    def _iou(self, failed: NDArray[np.bool_]) -> NDArray[np.float64]:
        tp, n_pred, n_gt = np.where(failed[:, None], 0, self._counts[:, :3]).T
        return np.where(failed, math.nan, iou(tp, n_pred, n_gt, empty=self.empty))


def _on_host(tensor: Tensor) -> Tensor:
    """The same in this process's memory; from a CUDA device it is only on its way."""
    if tensor.device.type != "cuda":
        return tensor.cpu()
    return torch.empty_like(tensor, device="cpu", pin_memory=True).copy_(tensor, non_blocking=True)


def _arrival(tensor: Tensor) -> "torch.cuda.Event | None":
    """What says that all is here that was sent before; None where nothing is on its way."""
    if tensor.device.type != "cuda":
        return None
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record()
    return event
