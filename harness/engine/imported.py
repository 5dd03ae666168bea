"""Counts masks that another program made, as those of a model are counted.

Conventions: every case has an answer of its own, even where two cases ask one text of one image.
Masks are ``(H, W)`` bool, one a case. With the metric's ``resolution: native`` a mask has the size
of its picture. With ``model`` it may, too; or all have one size, the network's, and truths are
brought to that size as for a model's logits. Anything else is an error of its case. Cases without
an answer have no score.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from harness.data.answers import Answers
from harness.data.images import with_image
from harness.data.readings import readings_of
from harness.engine.local import read_pictures
from harness.engine.mask_selector import MaskSelector
from harness.engine.shards import Shard, cut, distinct_texts
from harness.engine.tally import Pictures, Tally
from harness.errors import DataError
from harness.records import BY_CONTENT, Readings
from harness.runs.kept_masks import open_saved_masks
from harness.runs.store import RunStore
from harness.suite.schema import Metric

MASKS_PER_BATCH = 64
_PIXELS_PER_BATCH = 1 << 26
_MISSING = "no answer"

Size = tuple[int, int]


@dataclass(frozen=True)
class Imported:
    """Predictions under the name of whatever made them.

    `keys` says which answer a case of the plan has; `size` is the network's, None where masks
    have the sizes of their pictures.
    """

    model_id: str
    answers: Answers
    keys: dict[int, tuple[int, int]]
    size: Size | None = None

    @property
    def device(self) -> torch.device:
        """Masks are read here."""
        return torch.device("cpu")

    @property
    def threshold(self) -> float:
        """Not known: whoever made the masks applied it."""
        return math.nan

    def __contains__(self, case: int) -> bool:
        return self.keys[case] in self.answers.found


def network_size(
    imported: Imported, cases: pl.DataFrame, *, root: Path, readings: Readings
) -> Size | None:
    """The one size of masks that do not have those of their pictures, by the first that is read.

    Args:
        imported: The predictions.
        cases: Of the plan.
        root: Data root of the plan's paths.
        readings: How each dataset's pictures are read.
    """
    for case, image, dataset in cases.select("case_id", "image", "dataset").iter_rows():
        if case in imported:
            try:
                shape = imported.answers.mask(imported.keys[case]).mask.shape
                reading = readings.get(dataset, BY_CONTENT)
                size = with_image(root / image, reading, lambda picture: picture.shape[:2])
            except DataError:
                continue
            # Turned masks are a slip, not a network.
            return None if shape in (size, size[::-1]) else (shape[0], shape[1])
    return None


def execute_imported(
    store: RunStore,
    imported: Imported,
    *,
    root: Path,
    metric: Metric,
    advance: Callable[[int], None] = lambda _: None,
    kept_masks: int = 0,
) -> None:
    """Score every answered case of the stored plan that has no score yet.

    Args:
        store: An opened run.
        imported: The predictions.
        root: Data root of the plan's paths.
        metric: How cases are scored.
        advance: Called with the number of cases of each finished shard.
        kept_masks: Cases a group whose masks are kept for the report.
    """
    saved = open_saved_masks(store, imported.model_id, k=kept_masks)
    cases = store.plan_scan()
    settled = store.settled_shards(imported.model_id)
    for shard in cut(cases, distinct_texts(cases), readings_of(store.manifest)):
        if shard.index in settled:
            continue
        own = _answered(_one_pair_a_case(shard), imported)
        if own is not None:
            selector = MaskSelector(own.cases, saved.selection) if saved else None
            scores = _scores(own, imported, root, metric, selector)
            if saved is not None and selector is not None:
                saved.add(selector.kept())
            store.write_part(imported.model_id, shard.index, scores)
        advance(shard.cases.height)


def _one_pair_a_case(shard: Shard) -> Shard:
    """A pair for each case, those of an image together, originals first."""
    places = {name: place for place, name in enumerate(shard.images)}
    image = np.array([places[name] for name in shard.cases["image"]], dtype=np.int64)
    order = np.lexsort((shard.cases["probe"] != "original", image))
    pair_of_case = np.empty(len(order), dtype=np.int64)
    pair_of_case[order] = np.arange(len(order))
    pairs = np.stack([image[order], np.zeros(len(order), dtype=np.int64)], axis=1)
    rows = {case: row for row, case in enumerate(shard.cases["case_id"])}
    originals = [pair_of_case[rows[case]] for case in shard.cases["original_case_id"]]
    return replace(
        shard, pairs=pairs, pair_of_case=pair_of_case, original_pair=np.array(originals, np.int64)
    )


def _answered(shard: Shard, imported: Imported) -> Shard | None:
    """The shard if any case of it has an answer."""
    return shard if any(case in imported for case in shard.cases["case_id"]) else None


def _scores(
    shard: Shard,
    imported: Imported,
    root: Path,
    metric: Metric,
    selector: MaskSelector | None,
) -> pl.DataFrame:
    """Scores of the answered cases of a shard."""
    nothing = torch.empty(0)
    pictures = read_pictures(shard, root, lambda _: nothing, (1, 1))
    tally = Tally(shard, pictures, metric, imported, selector)
    for batch in _batches(shard, pictures, imported):
        tally.add_masks(batch.start, torch.from_numpy(batch.masks), batch.problems)
    missing = [case not in imported for case in shard.cases["case_id"]]
    return tally.frame().filter(~pl.Series(missing))


class _Batch(NamedTuple):
    """Masks ``(B, H, W)`` of one image's pairs from `start` on; `problems` says which are blank."""

    start: int
    masks: NDArray[np.bool_]
    problems: dict[int, str]


def _batches(shard: Shard, pictures: Pictures, imported: Imported) -> Iterator[_Batch]:
    case_of_pair = np.argsort(shard.pair_of_case)
    ids: list[int] = shard.cases["case_id"].to_list()
    images = shard.pairs[:, 0]
    for image, size in enumerate(pictures.sizes):
        wanted = imported.size or size
        first, last = np.searchsorted(images, [image, image + 1]).tolist()
        step = max(1, min(MASKS_PER_BATCH, _PIXELS_PER_BATCH // (wanted[0] * wanted[1])))
        for start in range(first, last, step):
            pairs = range(start, min(start + step, last))
            masks = np.zeros((len(pairs), *wanted), dtype=np.bool_)
            problems = {}
            for pair in pairs:
                case = ids[case_of_pair[pair]]
                found = _mask(imported, case, wanted, size)
                if isinstance(found, str):
                    problems[pair] = found
                else:
                    masks[pair - start] = found
            yield _Batch(start, masks, problems)


def _mask(imported: Imported, case: int, wanted: Size, picture: Size) -> NDArray[np.bool_] | str:
    """The mask of a case, or why there is none."""
    if case not in imported:
        return _MISSING
    key = imported.keys[case]
    try:
        mask = imported.answers.mask(key).mask
    except DataError as problem:
        return str(problem)
    if mask.shape == wanted:
        return mask
    turned = " It looks turned: transpose it." if mask.shape == wanted[::-1] else ""
    what = (
        "its picture" if wanted == picture else "the first mask, whose size is not its picture's,"
    )
    return (
        f"{imported.answers.found[key].where}: the mask has {mask.shape[0]} x {mask.shape[1]} "
        f"pixels (height x width), {what} {wanted[0]} x {wanted[1]}. All must be of that size. "
        f"Export the mask at the size of its picture.{turned}"
    )
