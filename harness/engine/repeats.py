"""How much a score would move if a sampling model were asked again: its repeat noise.

The samples of an answer fall into two halves, which are two answers of their own. If their
scores differ by d, an answer from all samples has the variance ``d^2 / 4``, on average over
cases: half of that of half an answer, which is ``d^2 / 2``. Nothing is computed twice.

Conventions: counts are pixels at the model's resolution; Dice in points (0 to 100). Noise is
drawn anew for every picture, so that the spread between pictures contains it, and with it
every interval over clusters of pictures. Of a function that is no sampling model by its card,
`repeat_noise` asks twice.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from torch import Tensor

from harness.data.images import with_image
from harness.engine.counts import area, overlap, resize_mask
from harness.engine.shards import Shard
from harness.engine.tally import Pictures
from harness.errors import DataError
from harness.metrics import EMPTY_SCORES, dice
from harness.model.features import binarise
from harness.model.loading import LoadedModel
from harness.model.sampling import Halves
from harness.records import BY_CONTENT, Readings

REPEAT_SCHEMA = pl.Schema(
    {
        "case_id": pl.UInt64,
        "tp_first": pl.Int64,
        "n_pred_first": pl.Int64,
        "tp_second": pl.Int64,
        "n_pred_second": pl.Int64,
        "n_gt": pl.Int64,
    }
)


class RepeatCounts:
    """Collects both halves' counts of a shard's cases while its pairs are decoded."""

    def __init__(self, shard: Shard, pictures: Pictures, *, threshold: float) -> None:
        self._pictures, self._threshold = pictures, threshold
        self._cases_of: dict[int, list[int]] = {}
        for case, pair in enumerate(shard.pair_of_case.tolist()):
            self._cases_of.setdefault(pair, []).append(case)
        self._ids = shard.cases["case_id"].to_list()
        self._names: list[tuple[str, str]] = shard.cases.select("dataset", "mask").rows()
        self._rows: list[tuple[int, ...]] = []

    def add(self, start: int, halves: Halves) -> None:
        """Take both halves of the pairs from `start` on, in order."""
        masks = [binarise(half.logit(), self._threshold) for half in halves]
        for offset, (first, second) in enumerate(zip(*masks, strict=True)):
            for case in self._cases_of.get(start + offset, ()):
                truth = self._pictures.truths[self._names[case]]
                if not isinstance(truth, str):
                    self._rows.append((self._ids[case], *_counts(first, second, truth)))

    def frame(self) -> pl.DataFrame:
        """One row a case, with `REPEAT_SCHEMA`."""
        return pl.DataFrame(self._rows, schema=REPEAT_SCHEMA, orient="row")


def _counts(first: Tensor, second: Tensor, truth: np.ndarray) -> tuple[int, ...]:
    target = torch.from_numpy(np.array(resize_mask(truth, *first.shape))).to(first.device)
    columns = [overlap(first, target), area(first), overlap(second, target), area(second)]
    return (*(int(column) for column in columns), int(area(target)))


class RepeatNoise(NamedTuple):
    """Standard deviation of one case's Dice, and of its change, by the samples alone; in points."""

    n_cases: int
    score_sd: float
    change_sd: float

    def sentence(self, samples: int) -> str:
        """What a reader of the numbers should know."""
        what = f"it draws random numbers: an answer is the mean of {samples} samples"
        if samples < 2 or not self.n_cases:
            return f"{what}, too few to measure how far a repetition would differ."
        return (
            f"{what}. Drawn again, one case's Dice would move by {self.score_sd:.2g} points, its "
            f"change against the original prompt by {self.change_sd:.2g} (standard deviations "
            f"over {self.n_cases} cases, measured between halves of the samples). Every picture "
            "has noise of its own, the same for all its prompts: the intervals contain it."
        )


def sampling_noise(counts: pl.DataFrame, cases: pl.LazyFrame, *, empty: str) -> RepeatNoise:
    """The repeat noise of a run.

    Args:
        counts: With `REPEAT_SCHEMA`.
        cases: Of the plan.
        empty: The metric's rule for a pair of empty masks.
    """
    scores = {
        half: 100
        * dice(counts[f"tp_{half}"], counts[f"n_pred_{half}"], counts["n_gt"], empty=_rule(empty))
        for half in ("first", "second")
    }
    frame = counts.select("case_id").with_columns(apart=scores["first"] - scores["second"])
    pairs = (
        cases.filter(pl.col("case_id") != pl.col("original_case_id"))
        .select("case_id", "original_case_id")
        .collect()
        .join(frame, on="case_id")
        .join(frame, left_on="original_case_id", right_on="case_id", suffix="_original")
    )
    changes = (pairs["apart"] - pairs["apart_original"]).to_numpy()
    return RepeatNoise(counts.height, _deviation(frame["apart"].to_numpy()), _deviation(changes))


def _rule(empty: str) -> float:
    scores: Mapping[str, float] = EMPTY_SCORES
    return scores[empty]


def _deviation(apart: np.ndarray) -> float:
    """Of an answer from all samples, from differences between halves; NaN without any."""
    known = apart[np.isfinite(apart)]
    return float(np.sqrt(np.mean(known**2) / 4)) if len(known) else float("nan")


N_PROMPTS = 4


def repeat_noise(
    model: LoadedModel, cases: pl.DataFrame, root: Path, readings: Readings
) -> dict[str, float] | None:
    """Ask a model twice the same, of the first picture that can be read and some prompts of it.

    Returns:
        ``logits``, the largest difference of two logits, ``pixels_percent``, the share of
        pixels of the masks that differ, and ``calls``; None where no picture can be read.
    """
    adapter = model.adapter
    for image, dataset in cases.select("image", "dataset").unique(maintain_order=True).iter_rows():
        try:
            pixels = with_image(root / image, readings.get(dataset, BY_CONTENT), adapter.preprocess)
        except DataError:
            continue
        asked = cases.filter(image=image)["prompt"].unique(maintain_order=True).head(N_PROMPTS)
        with torch.inference_mode(), model.autocast():
            features = adapter.encode_images(pixels[None].to(model.device))
            pairs = [(features, adapter.encode_texts([text])) for text in asked]
            first, again = (
                torch.cat([adapter.decode(*pair).float() for pair in pairs]) for _ in range(2)
            )
        masks = [binarise(logits, model.card.threshold) for logits in (first, again)]
        return {
            "calls": 2.0 * len(pairs),
            "logits": float((first - again).abs().nan_to_num(torch.inf).max()),
            "pixels_percent": 100 * float((masks[0] != masks[1]).double().mean()),
        }
    return None
