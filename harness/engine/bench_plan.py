"""The plan that a bench runs: pictures, and so many prompts for each.

Conventions: of the prompts of a picture a share is its own, the others are the same for
every picture, so that the number of distinct texts of the plan can be chosen. Own prompts
are the picture's prompt with one word replaced by an uncommon one, as a suite does.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from PIL import Image

from harness.files.writing import write_picture
from harness.plan.build import PLAN_SCHEMA
from harness.prompts.words import uncommon_words
from harness.records import Reading

BENCH = "bench"
"""What the plan calls the dataset of its pictures."""

INVENTED = "one small pink round polyp, located in top left of the image"


class Picture(NamedTuple):
    """A picture and its mask, paths below the data root, its prompt, and how both are read."""

    image: str
    mask: str
    prompt: str
    reading: Reading = Reading()


def invent(folder: Path, n: int, size: tuple[int, int]) -> list[Picture]:
    """Write noise as pictures, with empty masks, where there is no dataset at hand."""
    rng = np.random.default_rng(0)
    found = []
    for index in range(n):
        noise = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        names = [f"{kind}_{index}.png" for kind in ("image", "mask")]
        write_picture(folder / names[0], Image.fromarray(noise))
        write_picture(folder / names[1], Image.fromarray(np.zeros(size, dtype=np.uint8)))
        found.append(Picture(names[0], names[1], INVENTED))
    return found


def bench_cases(pictures: Sequence[Picture], n_prompts: int, *, distinct: float) -> pl.DataFrame:
    """A plan of ``len(pictures) * n_prompts`` cases, in the pictures' order, with `PLAN_SCHEMA`.

    About the share `distinct`, in [0, 1], of all texts is distinct.
    """
    n_own = max(1, round(n_prompts * distinct))
    shared = list(_changed(pictures[0].prompt, 0))[: n_prompts - n_own]
    rows: list[dict[str, Any]] = []
    for index, picture in enumerate(pictures):
        # Each picture starts elsewhere in the list of words, behind those of the shared ones.
        changed = _changed(picture.prompt, n_prompts + index * n_own)
        own = [picture.prompt, *(next(changed) for _ in range(n_own - 1))]
        for number, text in enumerate([*own, *shared]):
            rows.append(
                {
                    "case_id": len(rows),
                    "original_case_id": len(rows) - number,
                    "image": picture.image,
                    "image_id": picture.image,  # whose noise a model that samples draws
                    "mask": picture.mask,
                    "dataset": BENCH,
                    "sample_id": str(index),
                    "probe": "bench" if number else "original",
                    "prompt": text,
                }
            )
    known = pl.DataFrame(rows, schema_overrides=PLAN_SCHEMA)
    return known.select(
        pl.col(name) if name in known.columns else pl.lit(None, dtype=kind).alias(name)
        for name, kind in PLAN_SCHEMA.items()
    )


def _changed(prompt: str, start: int) -> Iterator[str]:
    """The prompt with one word replaced, another word and another place each time."""
    listed, words = uncommon_words(), prompt.split() or [""]
    for number in range(start, start + len(listed) * len(words)):
        place = (number + number // len(listed)) % len(words)
        changed = [*words]
        changed[place] = listed[number % len(listed)]
        yield " ".join(changed)
