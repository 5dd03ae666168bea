"""Which samples are independent of each other.

Conventions: a cluster id is unique within a dataset. Frames of one video are
near copies: intervals that take them for independent are too narrow, so video
sets are clustered by sequence, from a table of frame ranges where one is
published, else from the pictures themselves, which is labelled *estimated*.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from harness.cards import DatasetCard
from harness.data.images import with_image
from harness.errors import DataError
from harness.records import BY_CONTENT, Reading, Sample

# Similarity of two colour histograms from which neighbouring frames count as one
# sequence. On the 61 ClinicDB test frames, against the published table of its videos, it
# finds 0.89 of the true pairs and 0.52 of its pairs are true: groups come out too
# large rather than too small, so intervals too wide rather than too narrow.
SAME_SEQUENCE = 0.78


def cluster_kind(card: DatasetCard) -> str:
    """How the clusters of a dataset came about, as it stands in reports."""
    rule = card.clusters
    if rule.rule == "patient":
        return "patient"
    if rule.rule == "image":
        return "image (assumed independent)"
    if rule.rule == "annotated":
        return f"annotated ({rule.source})" if rule.source else "annotated"
    return "sequence" if rule.ranges else "sequence (estimated)"


def assign_clusters(card: DatasetCard, samples: Sequence[Sample]) -> list[str]:
    """The cluster of each sample, in the order of `samples`.

    Raises:
        DataError: An image's name does not hold what the card's rule looks for.
    """
    rule = card.clusters
    if rule.rule == "image":
        return [sample.image_id for sample in samples]
    if rule.rule == "annotated":
        return [sample.cluster_id for sample in samples]
    if rule.rule == "patient":
        return _by_pattern(rule.pattern or "", samples)
    if rule.ranges:
        return [_by_range(rule.ranges, sample) for sample in samples]
    paths = list(dict.fromkeys(sample.image for sample in samples))
    groups = dict(zip(paths, near_duplicates(paths, card.reading), strict=True))
    return [f"group{groups[sample.image]:04d}" for sample in samples]


def _by_pattern(pattern: str, samples: Sequence[Sample]) -> list[str]:
    # Not `re`: on a stranger's pattern its time can grow exponentially with a name's length.
    names = pl.Series([sample.image.name for sample in samples], dtype=pl.String)
    found = names.str.extract(pattern, 1).to_list()
    for sample, patient in zip(samples, found, strict=True):
        if not patient:
            raise DataError(
                f"{sample.image}: the name holds no patient. The card's cluster rule looks for "
                f"{pattern!r}. Rename the image or correct the rule."
            )
    return found


def _frame(path: Path) -> int:
    number = re.search(r"\d+", path.stem)
    return int(number.group()) if number else -1


def _by_range(ranges: Sequence[tuple[int, int]], sample: Sample) -> str:
    frame = _frame(sample.image)
    for index, (first, last) in enumerate(ranges):
        if first <= frame <= last:
            return f"sequence{index + 1:02d}"
    raise DataError(
        f"{sample.image}: frame {frame} lies in no sequence of the card. Frames "
        f"{ranges[0][0]} to {ranges[-1][1]} are known. Rename the image or correct 'ranges'."
    )


def near_duplicates(paths: Sequence[Path], reading: Reading = BY_CONTENT) -> list[int]:
    """Group pictures that look like frames of one video, numbered from 0.

    Frames of the released video sets are numbered in the order of their videos, so
    only neighbours are compared: a sequence ends where the colours of two
    neighbouring frames differ (Bhattacharyya coefficient below `SAME_SEQUENCE`).
    """
    order = sorted(range(len(paths)), key=lambda i: (_frame(paths[i]), paths[i].name))
    groups = [0] * len(paths)
    group, before = -1, None
    for index in order:
        colors = with_image(paths[index], reading, _color_histogram)
        if before is None or float(before @ colors) < SAME_SEQUENCE:
            group += 1
        groups[index], before = group, colors
    return groups


def _color_histogram(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Square roots of the shares of 8 x 8 x 8 colours, ``(512,)``, unit length.

    The darkest cell is left out: it is the black frame around an endoscope's picture.
    """
    cells = (image.reshape(-1, 3) // 32).astype(np.int64) @ np.array([64, 8, 1])
    counts = np.bincount(cells, minlength=512).astype(np.float64)
    counts[0] = 0.0
    share: NDArray[np.float64] = counts / max(counts.sum(), 1.0)
    return np.sqrt(share)
