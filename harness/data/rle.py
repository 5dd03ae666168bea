"""Run-length masks of COCO: ``{"size": [height, width], "counts": ...}``.

Conventions: runs go down the columns, background first. `counts` is a list of run lengths
("uncompressed") or COCO's text, in which each run is written in groups of five bits, least first,
from the third run on as its difference from the run before the last one. Text of strangers is
read as data: nothing is allocated before the runs are known to fill the picture exactly.
"""

from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from harness.data.decoding import MAX_PIXELS
from harness.errors import DataError

_FIRST, _LAST = 48, 48 + 63
# Twelve groups of five bits hold any run of a picture that is read.
_MOST_GROUPS = 12


def decode_rle(mask: Any, *, where: str) -> NDArray[np.bool_]:
    """The mask of a run-length encoding, ``(H, W)`` bool.

    Raises:
        DataError: It is no run-length mask, or its runs do not fill the picture.

    Example:
        >>> decode_rle({"size": [2, 3], "counts": [1, 2, 3]}, where="a.jsonl:1").astype(int)
        array([[0, 1, 0],
               [1, 0, 0]])
    """
    size = mask.get("size") if isinstance(mask, dict) else None
    is_size = isinstance(size, list) and len(size) == 2 and all(type(n) is int for n in size)
    if size is None or not is_size or min(size) < 1:
        _refuse(where, f"found {str(mask)[:80]!r}", "`size` is [height, width]")
    height, width = size
    if height * width > MAX_PIXELS:
        raise DataError(
            f"{where}: the mask has {width} x {height} pixels. At most {MAX_PIXELS} are read. "
            "Scale it down."
        )
    runs = _runs(mask.get("counts"), where)
    if len(runs) and (runs.min() < 0 or runs.max() > MAX_PIXELS):
        _refuse(where, "a run is negative or longer than any mask", "Runs are pixels")
    total = int(runs.sum())
    if total != height * width:
        _refuse(
            where, f"the runs fill {total} pixels, the size {height} x {width}", "Both are equal"
        )
    values = np.zeros(len(runs), dtype=np.bool_)
    values[1::2] = True
    return np.repeat(values, runs).reshape(width, height).T


def _refuse(where: str, found: str, right: str) -> NoReturn:
    raise DataError(
        f"{where}: {found}. {right}, as in COCO's run-length encoding. Write the mask again, for "
        "instance with pycocotools.mask.encode."
    )


def _runs(counts: Any, where: str) -> NDArray[np.int64]:
    if isinstance(counts, str):
        return _runs_of_text(counts, where)
    if not isinstance(counts, list) or not all(type(n) is int for n in counts):
        _refuse(where, f"found counts {str(counts)[:60]!r}", "They are runs, or their text")
    if any(abs(n) > MAX_PIXELS for n in counts):
        _refuse(where, "a run is negative or longer than any mask", "Runs are pixels")
    return np.array(counts, dtype=np.int64)


def _runs_of_text(text: str, where: str) -> NDArray[np.int64]:
    codes = np.frombuffer(text.encode("utf-8", "surrogatepass"), dtype=np.uint8).astype(np.int64)
    if not len(codes):
        return codes
    groups = codes - _FIRST
    ends = (groups & 32) == 0
    if codes.min() < _FIRST or codes.max() > _LAST or not ends[-1]:
        _refuse(where, f"the counts {text[:40]!r} are no such text", "Each run ends in it")
    last = np.flatnonzero(ends)
    first = np.concatenate([[0], last[:-1] + 1])
    lengths = last - first + 1
    if lengths.max() > _MOST_GROUPS:
        _refuse(where, "a run has more digits than any mask needs", "Runs are pixels")
    place = np.arange(len(codes)) - np.repeat(first, lengths)
    runs = np.add.reduceat((groups & 31) << (5 * place), first)
    runs -= np.where(groups[last] & 16, 1 << (5 * lengths), 0)
    for start in (1, 2):  # the first run is itself; the others add to the last but one
        runs[start::2] = np.cumsum(runs[start::2])
    return runs
