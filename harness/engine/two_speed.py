"""Two speeds: half precision for every pair, and float32 for those whose Dice that could move.

Half precision moves logits a little. Only pixels whose logit lies within a *band* about the
threshold may fall on the other side of it, so that the counts of a case lie between what they
would be if all of these fell one way or the other. A pair of which a case's Dice could so move by
more than the tolerance, or whose mask could turn from a refusal into an answer, is decoded again
in float32.

The band is measured on some pairs of the plan (`calibration_sample`) that are computed both ways:
`MARGIN` times the largest difference of two logits near the threshold. It is checked on others:
of one picture in `CHECKED` all pairs are computed both ways, and where a pixel outside the band
fell on the other side, or a case moved by more than the tolerance, the band does not hold for
the shard, which is then evaluated in float32 as a whole.

Conventions: logits are ``(N, H, W)``; Dice and the tolerance are in [0, 1]. All that is decided
follows from the plan, the model and the band.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.data.images import with_image
from harness.engine.batches import decoded
from harness.engine.counts import area, is_finite, overlap
from harness.engine.shards import Shard
from harness.engine.tally import Decoded, Tally
from harness.engine.thresholds import MaskKey
from harness.errors import DataError, UsageError
from harness.metrics import REFUSAL_PIXELS, Scores, dice
from harness.model.features import binarise, cut_at, select
from harness.model.loading import LoadedModel
from harness.records import BY_CONTENT, Readings

MARGIN = 2.0
"""The band is so many times as wide as the differences that were seen in the sample."""

NEAR = 1.0
"""Logits nearer to the threshold than this count for the band: probabilities 0.27 to 0.73."""

CHECKED = 20
"""Of one picture in so many, and of one in a shard at least, all pairs are computed both ways."""

WORTH_IT = 0.5
"""Share of pairs decoded again beyond which two speeds gain next to nothing."""

N_PICTURES, N_PROMPTS = 6, 8
"""Pairs on which the band is measured."""

SPEED_SCHEMA = pl.Schema(
    {
        "n_pairs": pl.Int64,
        "n_again": pl.Int64,
        "n_checked": pl.Int64,
        "largest_difference": pl.Float64,
        "band": pl.Float64,
        "held": pl.Boolean,
    }
)
"""One row a shard: pairs, those decoded again for doubt, those of them computed both ways in any
case, the largest difference of Dice among the cases of these that no doubt would have caught,
the band, and whether it held."""


@dataclass(frozen=True)
class TwoSpeeds:
    """What decides where float32 is needed.

    `sample` are rows of the plan, `refusal_area` the share of a picture up to which a mask is a
    refusal. `band` is half of the band's width in logits, once it is measured.
    """

    sample: pl.DataFrame
    tolerance: float
    refusal_area: float
    band: float = math.nan

    @classmethod
    def of(cls, cases: pl.LazyFrame, tolerance: float, refusal_area: float) -> "TwoSpeeds":
        """Of a plan, whose pictures are drawn evenly."""
        image = pl.col("image").unique(maintain_order=True)
        images = cases.select(image).collect()["image"]
        chosen = images.gather_every(max(1, len(images) // N_PICTURES)).head(N_PICTURES)
        first = pl.int_range(pl.len()).over("image") < N_PROMPTS
        columns = cases.select("image", "dataset", "prompt").filter(
            pl.col("image").is_in(chosen.implode())
        )
        sample = columns.unique(maintain_order=True).filter(first).collect()
        return cls(sample, tolerance, refusal_area)


def refuse_further_counts(*, thresholds: bool, columns: Sequence[str]) -> None:
    """Two speeds keep Dice and IoU to a tolerance, and nothing else.

    Raises:
        UsageError: Counts at other thresholds are asked for, or distances.
    """
    asked = [*(["--thresholds"] if thresholds else []), *(c for c in columns if c != "iou")]
    if asked:
        raise UsageError(
            f"--dtype two-speed: found {', '.join(asked)}. Two speeds keep Dice to a tolerance at "
            "the model's own threshold, and nothing else. Leave that out, or give --dtype float32."
        )


def measured(
    speeds: TwoSpeeds | None, model: LoadedModel, root: Path, *, readings: Readings
) -> TwoSpeeds | None:
    """With the band of a model of two speeds; None of every other model."""
    if speeds is None or model.exact is None:
        return None
    return replace(speeds, band=measure_band(model, speeds.sample, root, readings))


def measure_band(model: LoadedModel, sample: pl.DataFrame, root: Path, readings: Readings) -> float:
    """Half the band's width in logits; infinite where nothing tells how wide it must be."""
    near, anywhere = [0.0], [0.0]
    cut = cut_at(model.threshold)
    for (image, dataset), rows in sample.group_by("image", "dataset", maintain_order=True):
        try:
            reading = readings.get(str(dataset), BY_CONTENT)
            pixels = with_image(root / str(image), reading, model.adapter.preprocess)
        except DataError:
            continue
        short, exact = (_logits(one, pixels, rows["prompt"].to_list()) for one in _both(model))
        apart = (short - exact).abs().nan_to_num(torch.inf, posinf=torch.inf)
        is_near = torch.minimum((short - cut).abs(), (exact - cut).abs()) <= NEAR
        near.append(float(torch.where(is_near, apart, 0).max()))
        anywhere.append(float(apart.max()))
    if len(near) == 1:
        return math.inf
    # Without a pixel near the threshold, or with a band that reaches beyond "near", all count.
    band = MARGIN * max(near)
    return band if 0 < band <= NEAR else MARGIN * max(anywhere)


def _both(model: LoadedModel) -> tuple[LoadedModel, LoadedModel]:
    assert model.exact is not None, "a model of two speeds has both"
    return model, model.exact


def _logits(model: LoadedModel, pixels: Tensor, prompts: list[str]) -> Tensor:
    """Of one picture and its prompts, ``(P, h, w)`` float32 in this process's memory."""
    with torch.inference_mode(), model.autocast():
        image = model.adapter.encode_images(pixels[None].to(model.device))
        texts = model.adapter.encode_texts(prompts)
        images = select(image, torch.zeros(len(prompts), dtype=torch.int64, device=model.device))
        return decoded(model, images, texts).float().cpu()


class SecondLook:
    """Decides, pair by pair, what of one shard is computed in float32, and keeps account of it."""

    def __init__(self, shard: Shard, speeds: TwoSpeeds, tally: Tally) -> None:
        self._speeds, self._band, self._tally = speeds, speeds.band, tally
        self._cut = cut_at(tally.threshold)
        # The masks that a pair's own is compared with.
        self._truths: dict[int, dict[MaskKey, None]] = {}
        for case, pair in enumerate(shard.pair_of_case.tolist()):
            self._truths.setdefault(pair, {}).update(dict.fromkeys(tally.truths_of(case)))
        chosen = _checked_images(shard)
        self._is_checked = np.array([int(image) in chosen for image in shard.pairs[:, 0]])
        self._again = np.zeros(len(shard.pairs), dtype=bool)
        self._largest, self._outside = 0.0, 0

    def settle(self, start: int, short: Decoded, exact: Callable[[list[int]], Decoded]) -> Decoded:
        """The answers for the pairs from `start` on, of float32 where it is needed.

        Args:
            start: Number of the first pair.
            short: What half precision says.
            exact: What float32 says of some pairs.
        """
        own = slice(start, start + len(short.logits))
        self._again[own] = ~is_finite(short.logits).cpu().numpy()
        for first, sized in self._tally.at_metric_size(start, short.logits):
            self._again[first : first + len(sized)] |= self._doubts(first, sized)
        rows = np.flatnonzero(self._again[own] | self._is_checked[own]).tolist()
        if not rows:
            return short
        found = exact([start + row for row in rows])
        logits = short.logits.clone()
        logits[rows] = found.logits
        parts = (self._tally.at_metric_size(start, both) for both in (short.logits, logits))
        for (first, before), (_, after) in zip(*parts, strict=True):
            self._compare(first, before, after)
        answered = list(short.answered) if short.answered is not None else None
        for place, has in zip(rows, found.answered or (), strict=answered is not None):
            assert answered is not None, "one model says of all pairs whether it answers"
            answered[place] = has
        return short._replace(logits=logits, answered=answered)

    def frame(self) -> pl.DataFrame:
        """One row, with `SPEED_SCHEMA`."""
        held = self._outside == 0 and self._largest <= self._speeds.tolerance
        n_again = int(self._again.sum()) if held else len(self._again)
        n_checked = int(self._is_checked.sum())
        row = (len(self._again), n_again, n_checked, self._largest, self._band, held)
        return pl.DataFrame([row], schema=SPEED_SCHEMA, orient="row")

    def _doubts(self, first: int, logits: Tensor) -> NDArray[np.bool_]:
        """Of which pairs a pixel in the band could decide something."""
        doubts = np.zeros(len(logits), dtype=bool)
        places, truths = self._compared(first, logits)
        if not places:
            return doubts
        cuts = (self._cut, self._cut + self._band, self._cut - self._band)
        now, least, most = (_count((logits > cut)[places], truths) for cut in cuts)
        # Dice is lowest where the band's pixels are marked exactly outside the truth, and highest
        # where exactly those inside are.
        low = least.tp, least.tp + most.n_pred - most.tp
        high = most.tp, most.tp + least.n_pred - least.tp
        dice = self._dice(now)
        ends = [self._dice(now._replace(tp=tp, n_pred=n_pred)) for tp, n_pred in (low, high)]
        moved = np.maximum(abs(dice - ends[0]), abs(dice - ends[1]))
        limits = 0, max(self._speeds.refusal_area * logits[0].numel(), REFUSAL_PIXELS)
        turns = [(least.n_pred <= limit) & (limit < most.n_pred) for limit in limits]
        np.logical_or.at(doubts, places, (moved > self._speeds.tolerance) | turns[0] | turns[1])
        return doubts

    def _compare(self, first: int, short: Tensor, exact: Tensor) -> None:
        """What half precision would have changed, of the pairs that were computed both ways."""
        before, after = (binarise(logits, self._tally.threshold) for logits in (short, exact))
        beyond = (short - self._cut).abs() > self._band
        self._outside += int(((before != after) & beyond).sum())
        own = slice(first, first + len(short))
        is_asked = self._is_checked[own] & ~self._again[own]
        places, truths = self._compared(first, short)
        if not is_asked[places].any():
            return
        scores = [self._dice(_count(masks[places], truths)) for masks in (before, after)]
        moved = abs(scores[0] - scores[1])[is_asked[places]]
        self._largest = max(self._largest, float(moved.max()))

    def _dice(self, counts: "_Counts") -> Scores:
        # A score that is not defined is one apart from every other.
        return np.nan_to_num(dice(*counts, empty=self._tally.empty), nan=-1.0)

    def _compared(self, first: int, logits: Tensor) -> tuple[list[int], Tensor]:
        """Places of a batch and the masks that they are compared with, as far as there are."""
        height, width = int(logits.shape[-2]), int(logits.shape[-1])
        found = [
            (place, truth)
            for place in range(len(logits))
            for name in self._truths.get(first + place, ())
            if (truth := self._tally.known_truth(name, height, width)) is not None
        ]
        places = [place for place, _ in found]
        return places, torch.stack([truth for _, truth in found]) if found else logits[:0] > 0


class _Counts(NamedTuple):
    """Pixels, one value a comparison."""

    tp: NDArray[np.int64]
    n_pred: NDArray[np.int64]
    n_gt: NDArray[np.int64]


def _count(masks: Tensor, truths: Tensor) -> _Counts:
    found = torch.stack([overlap(masks, truths), area(masks), area(truths)]).cpu().numpy()
    return _Counts(*found)


def _checked_images(shard: Shard) -> set[int]:
    """Places of the pictures all of whose pairs are computed both ways."""
    firsts = shard.cases.group_by("image", maintain_order=True).agg(pl.col("case_id").min())
    place = {image: index for index, image in enumerate(shard.images)}
    # Ids are hashes, so that this is a draw that everybody makes alike.
    drawn = firsts.filter(pl.col("case_id") % CHECKED == 0)
    chosen = drawn if drawn.height else firsts.sort("case_id").head(1)
    return {place[image] for image in chosen["image"]}


def speed_record(shards: pl.DataFrame, tolerance: float) -> dict[str, Any]:
    """What a run's record says of all its shards, of `SPEED_SCHEMA`."""
    sums = shards.select(pl.col("n_pairs", "n_again", "n_checked").sum()).row(0, named=True)
    return sums | {
        "tolerance": tolerance,
        "largest_difference": shards["largest_difference"].max(),
        "band": shards["band"].max(),
        "n_shards": shards.height,
        "n_failed": int((~shards["held"]).sum()),
    }


def speed_sentence(found: Mapping[str, Any]) -> str:
    """The same for a reader."""
    failed = (
        f" In {found['n_failed']} of {found['n_shards']} shards the band did not hold: all of "
        "these are of float32."
        if found["n_failed"]
        else ""
    )
    share = found["n_again"] / found["n_pairs"]
    little = " So many that float32 alone is about as fast." if share > WORTH_IT else ""
    return (
        f"two speeds: {100 * share:.1f} % of the pairs were decoded "
        f"again in float32, since pixels within {found['band']:.2g} of the threshold could have "
        f"moved the Dice of a case by more than {found['tolerance']:g}. Of {found['n_checked']} "
        f"pairs computed both ways whatever they are, those left to half precision differed by at "
        f"most {found['largest_difference']:.2g}.{failed}{little}"
    )
