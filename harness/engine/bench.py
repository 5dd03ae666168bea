"""How fast the engine is, against the plain loop and against the arithmetic.

Conventions: times are seconds, each the median over interleaved blocks in one process at the same
number of threads, since machines drift. *Ideal* is ``N_images t_image + N_texts t_text + N_cases
t_decode``, each the minimum over batch sizes. *Engine* is the real one: it reads files, encodes,
decodes, counts and writes scores. *Plain* is the full forward per case at its best batch size,
without reading or counting. Ratios are of the wall clock and of the processor's time (`cpu`), which
other programs disturb less; on CUDA only the wall clock means anything. Memory is MiB: on CUDA the
most that the engine held, on a CPU the most that the process has held so far.
`torch.utils.benchmark` reads one clock and sets the number of threads; both clocks are read here.
"""

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import torch

from harness.data.readings import kept_readings
from harness.engine.bench_plan import BENCH, Picture, bench_cases
from harness.engine.local import IMAGES_PER_BATCH, execute, load_pictures
from harness.engine.shards import cut, distinct_texts
from harness.engine.tally import Decoded, Tally
from harness.errors import UsageError
from harness.files.writing import temporary_folder
from harness.model.contract import Predicts, reads_pairs
from harness.model.features import select
from harness.model.loading import LoadedModel
from harness.model.precision import (
    Precision,
    bfloat16_gain,
    computing,
    device_name,
    watched_memory,
)
from harness.records import Readings
from harness.runs.store import RunStore
from harness.suite.schema import Metric

SIZES = {
    "image": (1, 2, 4, IMAGES_PER_BATCH),
    "text": (8, 32, 64),
    "decode": (1, 4, 8, 32),
    "plain": (1, 4, 8),
}


class Lap(NamedTuple):
    """Seconds per item, by the wall clock and by the time of the processor."""

    wall: float
    cpu: float


Laps = dict[tuple[str, int], list[Lap]]


@dataclass(frozen=True)
class Bench:
    """Measured times of one model, in seconds, and the ratios they give.

    `pair_s` is the part of `decode_s` in which a text is encoded under its picture, 0 where
    texts do not depend on pictures. `processor_s` holds the time of the processor per item of
    each stage, of the plain loop and of the engine (per case). `bfloat16_gain` is how many times
    as fast an image with its prompts is encoded and decoded in bfloat16: of torch in float32 on a
    CPU; where that multiplies matrices slower in bfloat16, it is the ratio of those alone.
    """

    model_id: str
    device: str
    device_name: str
    precision: str
    backend: str
    threads: int
    blocks: int
    n_images: int
    n_texts: int
    n_cases: int
    batch_size: int
    load_s: float
    image_s: float
    text_s: float
    pair_s: float
    decode_s: float
    count_s: float
    plain_case_s: float
    engine_s: float
    ideal_s: float
    plain_s: float
    plain_over_engine: float
    engine_over_ideal: float
    plain_over_engine_cpu: float
    engine_over_ideal_cpu: float
    images_per_s: float
    texts_per_s: float
    cases_per_s: float
    peak_memory_mib: float
    bfloat16_gain: float | None
    processor_s: Mapping[str, float]

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self)


def bench(
    model: LoadedModel,
    pictures: Sequence[Picture],
    *,
    root: Path,
    n_prompts: int = 41,
    distinct: float = 0.5,
    batch_size: int = 32,
    blocks: int = 3,
    tick: Callable[[], None] = lambda: None,
) -> Bench:
    """Time the engine on pictures below `root`, each with `n_prompts` prompts.

    About a share `distinct` of all texts is distinct. `batch_size` is pairs per decoder call of
    the engine; `blocks` are interleaved repetitions, each on its share of the pictures, of which
    there are at least as many; `tick` is called after each.
    """
    laps: Laps = defaultdict(list)
    counts, memory = [0, 0, 0], list[float]()
    benched = _BenchedModel(model, root, n_prompts, batch_size, {BENCH: pictures[0].reading})
    for block in range(blocks):
        cases = bench_cases(pictures[block::blocks], n_prompts, distinct=distinct)
        sizes = cases["image"].n_unique(), cases["prompt"].n_unique(), cases.height
        counts = [a + b for a, b in zip(counts, sizes, strict=True)]
        if block == 0:
            benched.warm_up(cases)
        benched.time_stages(cases, laps)
        with watched_memory(model.device, memory):
            laps["engine", 0].append(benched.engine(cases))
        benched.time_plain(cases, laps)
        tick()
    gain = benched.bfloat16_gain(cases)
    found = _summary(model, laps, counts, batch_size=batch_size, blocks=blocks, memory=max(memory))
    return replace(found, bfloat16_gain=gain)


def _summary(
    model: LoadedModel,
    laps: Laps,
    counts: Sequence[int],
    *,
    batch_size: int,
    blocks: int,
    memory: float,
) -> Bench:
    n_images, n_texts, n_cases = counts
    kinds = {kind for kind, _ in laps}
    wall, cpu = ({kind: _best(laps, kind, clock) for kind in kinds} for clock in (0, 1))
    ideal, ideal_cpu = (
        n_images * t["image"] + n_texts * t["text"] + n_cases * t["decode"] for t in (wall, cpu)
    )
    return Bench(
        model_id=model.model_id,
        device=str(model.device),
        device_name=device_name(model.device),
        precision=model.precision,
        backend=model.backend,
        threads=torch.get_num_threads(),
        blocks=blocks,
        n_images=n_images,
        n_texts=n_texts,
        n_cases=n_cases,
        batch_size=batch_size,
        load_s=wall["load"],
        image_s=wall["image"],
        text_s=wall["text"],
        pair_s=wall.get("pair", 0.0),
        decode_s=wall["decode"],
        count_s=wall["count"],
        plain_case_s=wall["plain"],
        engine_s=wall["engine"] * n_cases,
        ideal_s=ideal,
        plain_s=wall["plain"] * n_cases,
        plain_over_engine=wall["plain"] / wall["engine"],
        engine_over_ideal=wall["engine"] * n_cases / ideal,
        plain_over_engine_cpu=cpu["plain"] / cpu["engine"],
        engine_over_ideal_cpu=cpu["engine"] * n_cases / ideal_cpu,
        images_per_s=1 / wall["image"],
        texts_per_s=1 / wall["text"],
        cases_per_s=1 / wall["engine"],
        peak_memory_mib=memory,
        bfloat16_gain=None,
        processor_s=dict(sorted(cpu.items())),
    )


def _best(laps: Laps, kind: str, clock: int) -> float:
    """The median over blocks at the batch size where it is least."""
    return min(
        statistics.median(lap[clock] for lap in found)
        for (name, _), found in laps.items()
        if name == kind
    )


def plain_forward(model: LoadedModel, pixels: torch.Tensor, texts: list[str]) -> torch.Tensor:
    """The model's own full forward: `predict` where its author wrote one."""
    with torch.inference_mode(), model.autocast():
        if isinstance(model.raw, Predicts):
            return model.raw.predict(pixels, texts)
        adapter = model.adapter
        return adapter.decode(adapter.encode_images(pixels), adapter.encode_texts(texts))


def _stacked(pictures: torch.Tensor | Sequence[torch.Tensor]) -> torch.Tensor:
    sizes = sorted({(p.shape[-2], p.shape[-1]) for p in pictures})
    if len(sizes) > 1:
        raise UsageError(
            f"bench: the model takes pictures as they are, and these have {len(sizes)} sizes, such "
            f"as {sizes[0]} and {sizes[1]}. Times are of pictures of one size. Leave --datasets "
            "out for invented ones, or name a set of one size."
        )
    return torch.stack(list(pictures))


def _count(tally: Tally, logits: torch.Tensor, n_pairs: int) -> None:
    for start in range(0, n_pairs, len(logits)):
        tally.add(start, Decoded(logits[: n_pairs - start]))
    tally.finish()


@dataclass(frozen=True)
class _BenchedModel:
    """Times a model on the pictures of a block."""

    model: LoadedModel
    root: Path
    n_prompts: int
    batch_size: int
    readings: Readings

    def clock(self, work: Callable[[], object], n: int) -> Lap:
        """Seconds per item of `work`, which handles `n`."""
        self._synchronise()
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        self._synchronise()
        return Lap((time.perf_counter() - wall) / n, (time.process_time() - cpu) / n)

    def _synchronise(self) -> None:
        if self.model.device.type == "cuda":
            torch.cuda.synchronize(self.model.device)

    def engine(self, cases: pl.DataFrame) -> Lap:
        """The engine itself, on a run directory of its own."""
        with temporary_folder() as folder:
            store = RunStore(folder)
            store.begin(cases)
            store.update(readings=kept_readings(self.readings))
            metric, size = Metric(), self.batch_size
            return self.clock(
                lambda: execute(store, self.model, root=self.root, metric=metric, batch_size=size),
                cases.height,
            )

    def warm_up(self, cases: pl.DataFrame) -> None:
        """First calls choose kernels and take memory."""
        self.engine(cases.head(self.n_prompts))

    def time_stages(self, cases: pl.DataFrame, laps: Laps) -> None:
        """Seconds per image read, image, text, decode and case counted."""
        adapter, texts = self.model.adapter, distinct_texts(cases)
        shard = next(cut(cases, texts, self.readings))
        pictures = load_pictures(shard, self.model, self.root)
        laps["load", 0].append(
            self.clock(lambda: load_pictures(shard, self.model, self.root), len(shard.images))
        )
        pixels = _stacked(pictures.pixels[:IMAGES_PER_BATCH]).to(self.model.device)
        sides = {
            "image": lambda n: adapter.encode_images(pixels[:n]),
            "text": lambda n: adapter.encode_texts(texts[:n]),
        }
        limits = {"image": len(pixels), "text": len(texts)}
        with torch.inference_mode(), self.model.autocast():
            for kind, work in sides.items():
                for size in (n for n in SIZES[kind] if n <= max(limits[kind], SIZES[kind][0])):
                    n = min(size, limits[kind])
                    laps[kind, size].append(self.clock(lambda w=work, n=n: w(n), n))  # type: ignore[misc]
            image, text = adapter.encode_images(pixels[:1]), adapter.encode_texts(texts[:1])
            paired: dict[str, Callable[..., object]] = {"decode": adapter.decode}
            if reads_pairs(self.model.raw):
                paired["pair"] = self.model.raw.encode_pairs
            for size in sorted({*SIZES["decode"], self.batch_size}):
                rows = torch.zeros(size, dtype=torch.int64, device=self.model.device)
                pair = select(image, rows), select(text, rows)
                for kind, call in paired.items():
                    laps[kind, size].append(self.clock(lambda c=call, p=pair: c(*p), size))  # type: ignore[misc]
            logits = adapter.decode(*pair).float()
        tally = Tally(shard, pictures, Metric(), self.model)
        counting = self.clock(lambda: _count(tally, logits, len(shard.pairs)), shard.cases.height)
        laps["count", 0].append(counting)

    def bfloat16_gain(self, cases: pl.DataFrame) -> float | None:
        """How many times as fast an image with its prompts is in bfloat16; see `Bench`."""
        model = self.model
        if (model.device.type, model.precision, model.backend) != ("cpu", "float32", "torch"):
            return None
        if (of_products := bfloat16_gain()) < 1:
            return of_products
        texts = distinct_texts(cases)[:1]
        pixels = torch.zeros(1, 3, *model.adapter.input_size)

        def once() -> None:
            image, text = model.adapter.encode_images(pixels), model.adapter.encode_texts(texts)
            for size in [self.batch_size] * max(1, self.n_prompts // self.batch_size):
                rows = torch.zeros(size, dtype=torch.int64)
                model.adapter.decode(select(image, rows), select(text, rows))

        laps: dict[Precision, list[float]] = {"float32": [], "bfloat16": []}
        for _ in range(3):
            for precision, found in laps.items():
                with torch.inference_mode(), computing(model.device, precision):
                    found.append(self.clock(once, 1).wall)
        exact, short = (statistics.median(found) for found in laps.values())
        return exact / short

    def time_plain(self, cases: pl.DataFrame, laps: Laps) -> None:
        """Seconds per case of the full forward, at several batch sizes."""
        texts = distinct_texts(cases)
        shard = next(cut(cases, texts, self.readings))
        pictures = load_pictures(shard, self.model, self.root).pixels
        pixels = _stacked(pictures).to(self.model.device)
        for size in SIZES["plain"]:
            images = torch.stack([pixels[i % len(pixels)] for i in range(size)])
            prompts = [texts[i % len(texts)] for i in range(size)]
            work = lambda i=images, p=prompts: plain_forward(self.model, i, p)  # noqa: E731
            laps["plain", size].append(self.clock(work, size))
