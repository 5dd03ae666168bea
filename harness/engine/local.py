"""Runs a plan with one model on this machine: encode once, decode many, count pixels.

Per image: read, resize and encode once. Per distinct text: encode once. Per
distinct (image, text) pair: only the decoder. Per case: three overlaps.

Conventions: the content of every batch is a pure function of (plan, model, batch
size). An image that cannot be read keeps its place in its batch as zeros and its
cases become error rows, so that the others' counts do not depend on it.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.data.images import read_image, read_mask
from harness.engine.counts import area, binarise, hausdorff_px, overlap, resize_mask
from harness.engine.features import TextCache, concatenate, select
from harness.engine.shards import Shard, cut, distinct_texts
from harness.errors import DataError, ModelError
from harness.models import Features, LoadedModel
from harness.store import DONE, FAILED, SCORE_SCHEMA, RunStore
from harness.suites import Metric

IMAGES_PER_BATCH = 8


@dataclass(frozen=True)
class Pictures:
    """The decoded inputs of one shard.

    `pixels` is ``(I, 3, H, W)`` float32; `sizes` the original (height, width) of
    each image; `truths` the masks of each sample, by mask path, or the error that
    stands for it.
    """

    pixels: Tensor
    sizes: list[tuple[int, int]]
    image_errors: dict[int, str]
    truths: dict[str, NDArray[np.bool_] | str]


def load_pictures(shard: Shard, model: LoadedModel, root: Path) -> Pictures:
    """Read every image and mask of a shard; failures are kept as messages."""
    pixels, sizes, errors = [], [], {}
    for index, name in enumerate(shard.images):
        try:
            image = read_image(root / name)
        except DataError as problem:
            errors[index] = str(problem)
            image = np.zeros((*model.adapter.input_size, 3), dtype=np.uint8)
        pixels.append(model.adapter.preprocess(image))
        sizes.append((image.shape[0], image.shape[1]))
    truths: dict[str, NDArray[np.bool_] | str] = {}
    by_mask = shard.cases.select("mask", "image").unique(maintain_order=True)
    for mask, image_name in by_mask.iter_rows():
        index = shard.images.index(image_name)
        truths[mask] = _truth(root / mask, sizes[index], errors.get(index))
    return Pictures(torch.stack(pixels), sizes, errors, truths)


def _truth(path: Path, size: tuple[int, int], image_error: str | None) -> NDArray[np.bool_] | str:
    if image_error is not None:
        return image_error
    try:
        mask = read_mask(path)
    except DataError as problem:
        return str(problem)
    if mask.shape != size:
        return (
            f"{path}: the mask has {mask.shape[0]} x {mask.shape[1]} pixels, its image "
            f"{size[0]} x {size[1]}. Both must have one size. Export the mask again."
        )
    return mask


def execute(
    store: RunStore,
    model: LoadedModel,
    *,
    root: Path,
    metric: Metric,
    batch_size: int,
    advance: Callable[[int], None] = lambda _: None,
    halved: Callable[[int], None] = lambda _: None,
) -> None:
    """Evaluate every case of the stored plan that has no score yet.

    Args:
        store: An opened run.
        model: The model, on its device.
        root: Data root of the plan's paths.
        metric: How cases are scored.
        batch_size: Pairs per decoder call. Out of memory halves it and goes on.
        advance: Called with the number of cases of each finished shard.
        halved: Called with the new batch size after an out-of-memory error.
    """
    cases = store.plan_cases()
    texts = distinct_texts(cases)
    worker = Worker(model, texts, metric=metric, batch_size=batch_size)
    settled = store.settled_shards(model.model_id)
    with ThreadPoolExecutor(max_workers=1) as pool:
        todo = (shard for shard in cut(cases, texts) if shard.index not in settled)
        for shard, pictures in _prefetched(todo, pool, lambda s: load_pictures(s, model, root)):
            scores = _with_less_memory(worker, shard, pictures, halved)
            store.write_part(model.model_id, shard.index, scores)
            advance(shard.cases.height)


def _prefetched(
    shards: Iterator[Shard], pool: ThreadPoolExecutor, load: Callable[[Shard], Pictures]
) -> Iterator[tuple[Shard, Pictures]]:
    """Reads the pictures of the next shard while this one is evaluated."""
    waiting: tuple[Shard, Future[Pictures]] | None = None
    for shard in shards:
        ahead = (shard, pool.submit(load, shard))
        if waiting is not None:
            yield waiting[0], waiting[1].result()
        waiting = ahead
    if waiting is not None:
        yield waiting[0], waiting[1].result()


def _with_less_memory(
    worker: "Worker", shard: Shard, pictures: Pictures, halved: Callable[[int], None]
) -> pl.DataFrame:
    while True:
        try:
            return worker.run(shard, pictures)
        except (torch.OutOfMemoryError, RuntimeError) as problem:
            if not _out_of_memory(problem) or worker.batch_size == 1:
                raise
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        worker.batch_size //= 2
        halved(worker.batch_size)


def _out_of_memory(problem: Exception) -> bool:
    """CUDA has a class for it; the CPU allocator only a message."""
    return isinstance(problem, torch.OutOfMemoryError) or "can't allocate memory" in str(problem)


class Worker:
    """One loaded model that turns shards into scores."""

    def __init__(
        self, model: LoadedModel, texts: Sequence[str], *, metric: Metric, batch_size: int
    ) -> None:
        self.model = model
        self.metric = metric
        self.batch_size = batch_size
        self._texts = TextCache(texts, self._encode_texts)

    def run(self, shard: Shard, pictures: Pictures) -> pl.DataFrame:
        """Scores of one shard, one row a case, in the order of its cases."""
        # TF32 convolutions would lift float32 logits out of the model's noise floor.
        exact = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
        with torch.inference_mode(), exact, self.model.autocast():
            features = self._encode_images(pictures.pixels)
            tally = _Tally(shard, pictures, self.metric, self.model)
            for start in range(0, len(shard.pairs), self.batch_size):
                batch = shard.pairs[start : start + self.batch_size]
                images = torch.from_numpy(batch[:, 0].copy()).to(self.model.device)
                texts = self._texts.rows(torch.from_numpy(batch[:, 1].copy()))
                logits = self.model.adapter.decode(select(features, images), texts)
                tally.add(start, logits.float())
        return tally.frame()

    def _encode_images(self, pixels: Tensor) -> Features:
        parts = [
            self.model.adapter.encode_images(part.to(self.model.device))
            for part in torch.split(pixels, IMAGES_PER_BATCH)
        ]
        return concatenate(parts)

    def _encode_texts(self, texts: list[str]) -> Features:
        return self.model.adapter.encode_texts(texts)


class _Tally:
    """Collects the counts of a shard's cases while its pairs are decoded.

    The masks of original prompts are kept until the shard is done: every variant
    of an image is compared with its original's, and originals come first.
    """

    def __init__(
        self, shard: Shard, pictures: Pictures, metric: Metric, model: LoadedModel
    ) -> None:
        self._shard, self._pictures, self._metric, self._model = shard, pictures, metric, model
        self._cases_of_pair: dict[int, list[int]] = {}
        for case, pair in enumerate(shard.pair_of_case.tolist()):
            self._cases_of_pair.setdefault(pair, []).append(case)
        self._original_pairs = set(shard.original_pair.tolist())
        self._masks: dict[int, Tensor] = {}
        self._unusable: set[int] = set()
        self._truths: dict[tuple[str, int, int], Tensor] = {}
        self._mask_names = shard.cases["mask"].to_list()
        self._named = _named_masks(shard)
        self._rows: dict[int, dict[str, object]] = {}

    def add(self, start: int, logits: Tensor) -> None:
        """Take the logits ``(B, h, w)`` of the pairs from `start` on."""
        # A sum is finite exactly when its terms are, and five times cheaper to look at.
        finite = torch.isfinite(logits.sum(dim=(-2, -1), dtype=torch.float64)).tolist()
        for part, masks in self._masks_of(start, logits):
            for offset, pair in enumerate(part):
                if not finite[pair - start]:
                    self._unusable.add(pair)
                if pair in self._original_pairs:
                    self._masks[pair] = masks[offset]
            self._count(part, masks)

    def _masks_of(self, start: int, logits: Tensor) -> Iterator[tuple[list[int], Tensor]]:
        """Masks at the metric's resolution; images of unequal size come one by one."""
        pairs = list(range(start, start + logits.shape[0]))
        if self._metric.resolution == "model":
            yield pairs, binarise(logits, self._model.card.threshold)
            return
        for pair in pairs:
            size = self._pictures.sizes[int(self._shard.pairs[pair, 0])]
            native = torch.nn.functional.interpolate(
                logits[pair - start][None, None], size=size, mode="bilinear", align_corners=False
            )
            yield [pair], binarise(native[0], self._model.card.threshold)

    def _count(self, pairs: list[int], masks: Tensor) -> None:
        cases, sources = [], []
        for offset, pair in enumerate(pairs):
            for case in self._cases_of_pair[pair]:
                error = self._error(case, pair)
                if error is None:
                    cases.append(case)
                    sources.append(offset)
                else:
                    self._rows[case] = self._blank(case, error)
        if not cases:
            return
        chosen = masks[torch.tensor(sources, device=masks.device)]
        truths = torch.stack([self._truth(self._mask_names[case], masks) for case in cases])
        originals = torch.stack(
            [self._masks[int(self._shard.original_pair[case])] for case in cases]
        )
        counts = torch.stack(
            [
                overlap(chosen, truths),
                area(chosen),
                area(truths),
                overlap(chosen, originals),
                area(originals),
            ],
            dim=1,
        ).tolist()
        for case, row, mask, truth in zip(cases, counts, chosen, truths, strict=True):
            self._rows[case] = self._row(case, row, mask, truth)

    def _row(self, case: int, counts: list[int], mask: Tensor, truth: Tensor) -> dict[str, object]:
        tp, n_pred, n_gt, tp_original, n_original = counts
        lost = int(self._shard.original_pair[case]) in self._unusable
        row: dict[str, object] = self._blank(case, None) | {
            "tp": tp,
            "n_pred": n_pred,
            "n_gt": n_gt,
            "tp_original": None if lost else tp_original,
            "n_pred_original": None if lost else n_original,
            "height": mask.shape[-2],
            "width": mask.shape[-1],
            "status": DONE,
        }
        named = self._named.get(case)
        if named is not None and not isinstance(self._pictures.truths[named], str):
            target = self._truth(named, mask[None])
            row |= {"tp_named": int(overlap(mask, target)), "n_named": int(area(target))}
        if "hausdorff" in self._metric.columns:
            row["hausdorff_px"] = hausdorff_px(mask, truth)
        return row

    def _error(self, case: int, pair: int) -> str | None:
        truth = self._pictures.truths[self._mask_names[case]]
        if isinstance(truth, str):
            return truth
        if pair in self._unusable:
            text = self._shard.cases["prompt"][case]
            return (
                f"{self._model.model_id}: logits for {text!r} are not finite. Every logit must be "
                "a finite number. Check the weights, or run with --dtype float32."
            )
        return None

    def _blank(self, case: int, error: str | None) -> dict[str, object]:
        empty: dict[str, object] = dict.fromkeys(SCORE_SCHEMA)
        return empty | {
            "model_id": self._model.model_id,
            "case_id": self._shard.cases["case_id"][case],
            "status": FAILED,
            "error": error,
        }

    def _truth(self, name: str, masks: Tensor) -> Tensor:
        height, width = int(masks.shape[-2]), int(masks.shape[-1])
        key = (name, height, width)
        if key not in self._truths:
            truth = self._pictures.truths[name]
            if isinstance(truth, str):
                raise ModelError(f"{name}: a mask that could not be read was asked for.")
            resized = resize_mask(truth, height, width)
            self._truths[key] = torch.from_numpy(np.array(resized)).to(masks.device)
        return self._truths[key]

    def frame(self) -> pl.DataFrame:
        """The scores, in the order of the shard's cases."""
        rows = [self._rows[case] for case in range(self._shard.cases.height)]
        return pl.DataFrame(rows, schema=SCORE_SCHEMA, orient="row")


def _named_masks(shard: Shard) -> dict[int, str]:
    """Case -> path of the named target's mask, where the plan names one.

    A named target is a sample of the same image, so its mask is in the shard.
    """
    cases = shard.cases
    masks = {
        (dataset, split, sample): mask
        for dataset, split, sample, mask in cases.select(
            "dataset", "split", "sample_id", "mask"
        ).iter_rows()
    }
    named = cases.select("dataset", "split", "named_sample_id").iter_rows()
    return {
        index: masks[key] for index, key in enumerate(named) if key[2] is not None and key in masks
    }
