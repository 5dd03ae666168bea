"""Runs a plan with one model on this machine: encode once, decode many, count pixels.

Per image: read, resize and encode once. Per distinct text: encode once. Per
distinct (image, text) pair: only the decoder. Per case: three overlaps.

Conventions: the content of every batch is a pure function of (plan, model, batch
size). An image that cannot be read keeps its place in its batch as zeros and its
cases become error rows, so that the others' counts do not depend on it.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.data.images import read_mask, with_image
from harness.data.readings import readings_of
from harness.engine.batches import decoded
from harness.engine.mask_selector import MaskSelector
from harness.engine.repeats import RepeatCounts
from harness.engine.shards import Shard, cut, distinct_texts
from harness.engine.tally import Decoded, Pictures, Tally
from harness.engine.text_cache import TextCache
from harness.engine.two_speed import SecondLook, TwoSpeeds, measured
from harness.errors import DataError
from harness.model.contract import AnySize, Features, PredictOnly, ScoresPresence
from harness.model.features import concatenate, select
from harness.model.loading import LoadedModel
from harness.model.sampling import Sampled, seeded
from harness.records import Reading
from harness.runs.kept_masks import Kept, Selection, open_saved_masks
from harness.runs.store import RunStore
from harness.suite.schema import Metric

READERS = 4
"""Threads that read pictures; decoding lets go of Python's lock."""

IMAGES_PER_BATCH = 8
"""Images encoded at once, or fewer where fewer pairs are decoded at once."""


def load_pictures(shard: Shard, model: LoadedModel, root: Path) -> Pictures:
    """Read every image and mask of a shard; failures are kept as messages."""
    read = read_pictures(shard, root, model.adapter.preprocess, model.adapter.input_size)
    if isinstance(model.raw, AnySize):
        return read
    stacked = torch.stack(list(read.pixels))
    # From pinned memory a device fetches them itself while it computes.
    return replace(read, pixels=stacked.pin_memory() if model.device.type == "cuda" else stacked)


def read_pictures(
    shard: Shard,
    root: Path,
    preprocess: Callable[[NDArray[np.uint8]], Tensor],
    blank_size: tuple[int, int],
) -> Pictures:
    """Read every image and mask of a shard; a black picture stands for one that is unreadable."""
    rows = shard.cases.select("image", "mask", "dataset").unique(maintain_order=True).rows()
    first_of = {image: dataset for image, _, dataset in reversed(rows)}
    one_at_a_time = Lock()

    def image(name: str) -> _Image:
        def use(image: NDArray[np.uint8]) -> _Image:
            with one_at_a_time:  # adapters need not stand more
                pixels = preprocess(image)
            return _Image(pixels, (image.shape[0], image.shape[1]))

        try:
            return with_image(root / name, shard.reading(first_of[name]), use)
        except DataError as problem:
            return use(np.zeros((*blank_size, 3), dtype=np.uint8))._replace(error=str(problem))

    with ThreadPoolExecutor(max_workers=READERS) as readers:
        images = dict(zip(shard.images, readers.map(image, shard.images), strict=True))
        truths = readers.map(
            lambda row: _truth(root / row[1], images[row[0]], shard.reading(row[2])), rows
        )
        found = {(row[2], row[1]): truth for row, truth in zip(rows, truths, strict=True)}
    pixels = tuple(images[name].pixels for name in shard.images)
    return Pictures(pixels, [images[name].size for name in shard.images], found)


class _Image(NamedTuple):
    """One image as the model sees it, its size as read, and why it could not be read."""

    pixels: Tensor
    size: tuple[int, int]
    error: str | None = None


def _truth(path: Path, image: _Image, reading: Reading) -> NDArray[np.bool_] | str:
    if image.error is not None:
        return image.error
    size = image.size
    try:
        mask = read_mask(path, reading)
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
    kept_masks: int = 0,
) -> None:
    """Evaluate every case of the stored plan that has no score yet.

    Cases are counted at other thresholds as well where the run's record of the model says so.

    Args:
        store: An opened run.
        model: The model, on its device.
        root: Data root of the plan's paths.
        metric: How cases are scored.
        batch_size: Pairs per decoder call. Out of memory halves it and goes on.
        advance: Called with the number of cases of each finished shard.
        halved: Called with the new batch size after an out-of-memory error.
        kept_masks: Cases a group whose masks are kept for the report.
    """
    recorder = Recorder(store, model.model_id, kept_masks, batch_size, advance, halved)
    texts = distinct_texts(store.plan_scan())
    thresholds = store.keeps_thresholds(model.model_id)
    worker = Worker(
        model,
        texts,
        metric=metric,
        batch_size=batch_size,
        thresholds=thresholds,
        speeds=_speeds(store, model, root),
    )
    worker.known = recorder.saved.selection if recorder.saved else None
    with ThreadPoolExecutor(max_workers=1) as pool:
        todo = recorder.open_shards(texts)
        for shard, pictures in _prefetched(todo, pool, lambda s: load_pictures(s, model, root)):
            recorder.take(shard, evaluate(worker, shard, pictures))


def _speeds(store: RunStore, model: LoadedModel, root: Path) -> TwoSpeeds | None:
    """Where a model of two speeds needs float32."""
    if model.tolerance is None:
        return None
    area = store.suite().statistics.refusal_area
    speeds = TwoSpeeds.of(store.plan_scan(), model.tolerance, area)
    return measured(speeds, model, root, readings=readings_of(store.manifest))


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


class EvaluatedShard(NamedTuple):
    """What comes of a shard.

    `batch_size` is the one that fitted into memory, `kept` are masks that the run may save.
    `curves` are counts at other thresholds, `repeats` those of both halves of the answers of a
    model that samples, `speeds` what two speeds did, where there are such.
    """

    scores: pl.DataFrame
    batch_size: int
    kept: list[Kept]
    curves: pl.DataFrame | None = None
    repeats: pl.DataFrame | None = None
    speeds: pl.DataFrame | None = None


class Recorder:
    """Hands out the open shards of a run, and writes down what comes of them."""

    def __init__(
        self,
        store: RunStore,
        model_id: str,
        kept_masks: int,
        batch_size: int,
        advance: Callable[[int], None],
        halved: Callable[[int], None],
    ) -> None:
        self._store, self._model_id = store, model_id
        self.batch_size, self._advance, self._halved = batch_size, advance, halved
        self.saved = open_saved_masks(store, model_id, k=kept_masks)

    def open_shards(self, texts: Sequence[str]) -> Iterator[Shard]:
        """Those that are not settled yet, in order."""
        settled = self._store.settled_shards(self._model_id)
        shards = cut(self._store.plan_scan(), texts, readings_of(self._store.manifest))
        return (shard for shard in shards if shard.index not in settled)

    def take(self, shard: Shard, done: EvaluatedShard) -> None:
        """Write a shard's scores, and say how far it is."""
        # Both before the part: a shard that is lost in between is evaluated again.
        if done.batch_size < self.batch_size:
            self.batch_size = done.batch_size
            self._halved(done.batch_size)
        if self.saved is not None:
            self.saved.add(done.kept)
        self._store.write_part(
            self._model_id,
            shard.index,
            done.scores,
            curves=done.curves,
            tables={"repeats": done.repeats, "speeds": done.speeds},
        )
        self._advance(shard.cases.height)


def evaluate(worker: "Worker", shard: Shard, pictures: Pictures) -> EvaluatedShard:
    """Evaluate one shard; out of memory halves the worker's batches and tries again."""
    while True:
        try:
            return worker.run(shard, pictures)
        except (torch.OutOfMemoryError, RuntimeError) as problem:
            if not _out_of_memory(problem) or worker.batch_size == 1:
                raise
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        worker.batch_size //= 2


def _out_of_memory(problem: Exception) -> bool:
    """CUDA has a class for it; the CPU allocator only a message."""
    return isinstance(problem, torch.OutOfMemoryError) or "can't allocate memory" in str(problem)


class Worker:
    """One loaded model that turns shards into scores."""

    def __init__(
        self,
        model: LoadedModel,
        texts: Sequence[str],
        *,
        metric: Metric,
        batch_size: int,
        thresholds: bool = False,
        speeds: TwoSpeeds | None = None,
    ) -> None:
        self.model = model
        self.metric = metric
        self.batch_size = batch_size
        self._texts = TextCache(texts, self._encode_texts)
        # The masks that the run has kept so far.
        self.known: Selection | None = None
        self.thresholds = thresholds
        self._speeds = speeds
        self._exact: Worker | None = None
        if speeds is not None and model.exact is not None:
            self._exact = Worker(model.exact, texts, metric=metric, batch_size=batch_size)

    def run(self, shard: Shard, pictures: Pictures) -> EvaluatedShard:
        """Evaluate one shard; scores have one row a case, in the order of its cases."""
        found = self._evaluate(shard, pictures)
        if self._exact is None or found.speeds is None or found.speeds["held"].all():
            return found
        self._exact.known, self._exact.batch_size = self.known, self.batch_size
        return self._exact.run(shard, pictures)._replace(speeds=found.speeds)

    def _evaluate(self, shard: Shard, pictures: Pictures) -> EvaluatedShard:
        with torch.inference_mode(), self.model.autocast():
            features = self._encode_images(pictures.pixels)
            features = self._seeded(features, shard)
            batches = _batches(shard, self.batch_size, by_image=isinstance(features, list))
            selector = MaskSelector(shard.cases, self.known) if self.known else None
            tally = Tally(
                shard, pictures, self.metric, self.model, selector, thresholds=self.thresholds
            )
            repeats = self._repeat_counts(shard, pictures)
            look = SecondLook(shard, self._speeds, tally) if self._speeds else None
            exact = self._exact_answers(shard, pictures) if look else None
            pairs = torch.from_numpy(shard.pairs)
            images, places = pairs[:, 0].to(self.model.device), pairs[:, 1]
            for own in batches:
                texts = self._texts.rows(places[own].contiguous())
                rows = _rows(features, images[own])
                said = self._decode(own.start, rows, texts, repeats)
                if look is not None and exact is not None:
                    said = look.settle(own.start, said, exact)
                tally.add(own.start, said)
            return EvaluatedShard(
                tally.frame(),
                self.batch_size,
                selector.kept() if selector else [],
                curves=tally.curves(),
                repeats=repeats.frame() if repeats else None,
                speeds=look.frame() if look else None,
            )

    def _exact_answers(self, shard: Shard, pictures: Pictures) -> Callable[[list[int]], Decoded]:
        """Asks float32 for some pairs of a shard; its pictures are encoded when first asked for."""
        worker, known = self._exact, dict[int, Features]()
        assert worker is not None, "a model of two speeds has both"
        pairs = torch.from_numpy(shard.pairs)

        def answers(asked: list[int]) -> Decoded:
            images, texts = pairs[asked, 0].tolist(), pairs[asked, 1]
            with worker.model.autocast():
                for image in dict.fromkeys(images):
                    if image not in known:
                        pixels = pictures.pixels[image][None].to(worker.model.device)
                        known[image] = worker.model.adapter.encode_images(pixels)
                features = concatenate([known[image] for image in images])
                return worker._decode(asked[0], features, worker._texts.rows(texts), None)

        return answers

    def _decode(
        self, start: int, images: Features, texts: Features, repeats: RepeatCounts | None
    ) -> Decoded:
        """Logits, and what else the model says where it is wanted."""
        adapter = self.model.adapter
        if repeats is not None and isinstance(adapter, Sampled):
            halves = adapter.halves(images, texts)
            repeats.add(start, halves)
            return Decoded(adapter.together(halves))
        if self.thresholds and isinstance(adapter, ScoresPresence):
            logits, presence = adapter.decode_with_presence(images, texts)
            return Decoded(logits.float(), presence)
        if isinstance(adapter, PredictOnly):
            logits, answered = adapter.decode_with_answers(images, texts)
            return Decoded(logits.float(), answered=answered)
        return Decoded(decoded(self.model, images, texts).float())

    def _repeat_counts(self, shard: Shard, pictures: Pictures) -> RepeatCounts | None:
        """What measures the noise of a model that samples."""
        if not isinstance(self.model.adapter, Sampled) or self.model.adapter.samples < 2:
            return None
        return RepeatCounts(shard, pictures, threshold=self.model.card.threshold)

    def _seeded(
        self, features: Features | list[Features], shard: Shard
    ) -> Features | list[Features]:
        """With the noise of a model that samples: it follows the image's id in the plan."""
        if not isinstance(self.model.adapter, Sampled):
            return features
        known = dict(shard.cases.select("image", "image_id").rows())
        names = [known[image] for image in shard.images]
        if isinstance(features, list):
            pairs = zip(features, names, strict=True)
            return [seeded(self.model.adapter, one, [name]) for one, name in pairs]
        return seeded(self.model.adapter, features, names)

    def _encode_images(self, pixels: Tensor | Sequence[Tensor]) -> Features | list[Features]:
        """Features of all pictures; one by one where they have different sizes."""
        if not isinstance(pixels, Tensor):
            return [self.model.adapter.encode_images(one[None]) for one in pixels]
        parts = [
            self.model.adapter.encode_images(part.to(self.model.device, non_blocking=True))
            for part in torch.split(pixels, min(IMAGES_PER_BATCH, self.batch_size))
        ]
        return concatenate(parts)

    def _encode_texts(self, texts: list[str]) -> Features:
        return self.model.adapter.encode_texts(texts)


def _batches(shard: Shard, size: int, *, by_image: bool) -> Iterator[slice]:
    """Pairs that are decoded together; of one image each where pictures have different sizes."""
    n = len(shard.pairs)
    starts = [0, *(np.flatnonzero(np.diff(shard.pairs[:, 0])) + 1).tolist()] if by_image else [0]
    for first, last in zip(starts, [*starts[1:], n], strict=True):
        for start in range(first, last, size):
            yield slice(start, min(start + size, last))


def _rows(features: Features | list[Features], images: Tensor) -> Features:
    """Features of the images of a batch."""
    if not isinstance(features, list):
        return select(features, images)
    own = features[int(images[0])]
    # A view: a picture of many megabytes stands for all prompts of it.
    return type(own)(*(leaf.expand(len(images), *leaf.shape[1:]) for leaf in own))
