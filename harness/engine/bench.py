"""How fast the engine is, against the plain loop and against the arithmetic.

Conventions: times are seconds of wall clock, medians over interleaved blocks, all in
one process at the same number of threads, since machines drift. *Ideal* is
``N_images t_image + N_texts t_text + N_cases t_decode``, each the minimum over batch
sizes. *Plain* is the unmodified full forward per case at its best batch size and
full text length, timed on a sample of the cases and scaled up. Memory is MiB: on CUDA
the most that the engine held on the device, on a CPU the most that the process has
held so far, libraries and plain loop included.
"""

import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from harness.engine.features import select
from harness.engine.local import Worker
from harness.engine.plain import forward
from harness.engine.shards import cut, distinct_texts
from harness.engine.tally import Pictures
from harness.models import LoadedModel
from harness.plan import PLAN_SCHEMA
from harness.precision import device_name, watched_memory
from harness.suites import Metric

BATCHES = (1, 4, 8, 16, 32)


@dataclass(frozen=True)
class Bench:
    """Measured times of one model, in seconds, and the two ratios they give."""

    model_id: str
    device: str
    device_name: str
    precision: str
    threads: int
    n_images: int
    n_texts: int
    n_cases: int
    batch_size: int
    image_s: float
    text_s: float
    decode_s: float
    plain_case_s: float
    engine_s: float
    ideal_s: float
    plain_s: float
    plain_over_engine: float
    engine_over_ideal: float
    images_per_s: float
    texts_per_s: float
    cases_per_s: float
    peak_memory_mib: float

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self)


def bench(
    model: LoadedModel,
    prompts: Sequence[str],
    *,
    n_images: int = 24,
    batch_size: int = 32,
    blocks: int = 3,
    plain_cases: int = 6,
    tick: Callable[[], None] = lambda: None,
) -> Bench:
    """Time the engine on `n_images` synthetic pictures, each with all `prompts`.

    Args:
        model: The model, on its device.
        prompts: Distinct prompts; the first is each picture's original.
        n_images: Pictures; the engine sees ``n_images * len(prompts)`` cases.
        batch_size: Pairs per decoder call of the engine.
        blocks: Interleaved repetitions; medians are reported.
        plain_cases: Cases per batch size on which the plain loop is timed.
        tick: Called after each block and batch size, for a progress bar.
    """
    images = _pictures(model, n_images)
    engine_times, plain_times, parts = [], [], []
    memory: list[float] = []
    sizes = [b for b in BATCHES if b <= max(1, plain_cases)]
    for _ in range(blocks):
        with watched_memory(model.device, memory):
            engine_times.append(_engine(model, images, prompts, batch_size))
        tick()
        plain_times.append(min(_plain(model, images, prompts, size, plain_cases) for size in sizes))
        tick()
        parts.append(_parts(model, images, prompts))
        tick()
    image_s, text_s, decode_s = (min(part[k] for part in parts) for k in range(3))
    n_cases = n_images * len(prompts)
    engine_s, plain_case_s = statistics.median(engine_times), statistics.median(plain_times)
    ideal_s = n_images * image_s + len(prompts) * text_s + n_cases * decode_s
    return Bench(
        model_id=model.model_id,
        device=str(model.device),
        device_name=device_name(model.device),
        precision=model.precision,
        threads=torch.get_num_threads(),
        n_images=n_images,
        n_texts=len(prompts),
        n_cases=n_cases,
        batch_size=batch_size,
        image_s=image_s,
        text_s=text_s,
        decode_s=decode_s,
        plain_case_s=plain_case_s,
        engine_s=engine_s,
        ideal_s=ideal_s,
        plain_s=plain_case_s * n_cases,
        plain_over_engine=plain_case_s * n_cases / engine_s,
        engine_over_ideal=engine_s / ideal_s,
        images_per_s=1 / image_s,
        texts_per_s=1 / text_s,
        cases_per_s=n_cases / engine_s,
        peak_memory_mib=max(memory),
    )


def _pictures(model: LoadedModel, n_images: int) -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(0)
    height, width = model.adapter.input_size
    return [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(n_images)]


def _clock(model: LoadedModel, work: Callable[[], object]) -> float:
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
    start = time.perf_counter()
    work()
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
    return time.perf_counter() - start


def _engine(
    model: LoadedModel, images: Sequence[NDArray[np.uint8]], prompts: Sequence[str], batch_size: int
) -> float:
    """The real worker on real shards; only the reading of files is left out."""
    cases = _cases(len(images), prompts)
    texts = distinct_texts(cases)

    def work() -> None:
        worker = Worker(model, texts, metric=Metric(), batch_size=batch_size)
        for shard in cut(cases, texts):
            numbers = [int(name) for name in shard.images]
            pixels = torch.stack([model.adapter.preprocess(images[n]) for n in numbers])
            sizes = [(images[n].shape[0], images[n].shape[1]) for n in numbers]
            truths: dict[str, Any] = {
                str(n): np.zeros(size, dtype=np.bool_)
                for n, size in zip(numbers, sizes, strict=True)
            }
            worker.run(shard, Pictures(pixels, sizes, truths))

    return _clock(model, work)


def _cases(n_images: int, prompts: Sequence[str]) -> Any:
    import polars as pl

    pairs = list(itertools.product(range(n_images), range(len(prompts))))
    rows = [
        {
            "case_id": image * len(prompts) + text,
            "original_case_id": image * len(prompts),
            "image": str(image),
            "mask": str(image),
            "sample_id": str(image),
            "probe": "original" if text == 0 else "bench",
            "prompt": prompts[text],
        }
        for image, text in pairs
    ]
    return pl.DataFrame(rows, schema_overrides=PLAN_SCHEMA).with_columns(
        *(
            pl.lit(None, dtype=kind).alias(name)
            for name, kind in PLAN_SCHEMA.items()
            if name not in rows[0]
        )
    )


def _plain(
    model: LoadedModel,
    images: Sequence[NDArray[np.uint8]],
    prompts: Sequence[str],
    size: int,
    n_cases: int,
) -> float:
    """Seconds per case of the full forward at one batch size."""
    batches = max(1, n_cases // size)
    pixels = torch.stack([model.adapter.preprocess(images[i % len(images)]) for i in range(size)])
    pixels = pixels.to(model.device)
    texts = [prompts[i % len(prompts)] for i in range(size)]

    def work() -> None:
        for _ in range(batches):
            forward(model, pixels, texts)

    return _clock(model, work) / (batches * size)


def _parts(
    model: LoadedModel, images: Sequence[NDArray[np.uint8]], prompts: Sequence[str]
) -> tuple[float, float, float]:
    """Seconds per image, text and decode, each at its best batch size."""
    adapter = model.adapter
    pixels = torch.stack([adapter.preprocess(image) for image in images[:8]]).to(model.device)
    texts = list(prompts)
    with torch.inference_mode(), model.autocast():
        image_features = adapter.encode_images(pixels[:1])
        text_features = adapter.encode_texts(texts[:1])
    best = [float("inf")] * 3
    for size in BATCHES:
        zeros = torch.zeros(size, dtype=torch.int64, device=model.device)
        repeated = (select(image_features, zeros), select(text_features, zeros))
        works: list[tuple[int, Callable[[], object]]] = []
        if size <= len(pixels):
            works.append((0, lambda n=size: adapter.encode_images(pixels[:n])))  # type: ignore[misc]
        works.append((1, lambda n=size: adapter.encode_texts(_cycle(texts, n))))  # type: ignore[misc]
        works.append((2, lambda f=repeated: adapter.decode(*f)))  # type: ignore[misc]
        for kind, work in works:
            with torch.inference_mode(), model.autocast():
                best[kind] = min(best[kind], _clock(model, work) / size)
    return best[0], best[1], best[2]


def _cycle(texts: Sequence[str], n: int) -> list[str]:
    return [texts[i % len(texts)] for i in range(n)]
