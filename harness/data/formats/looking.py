"""What the card must say of pictures and masks so that they can be read: found, or asked.

Conventions: pictures are judged by their headers, masks are decoded. What is asked has a default;
what no key of the card can repair is an error of the reader, which names the file.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from harness.data.decoding import FORMATS, with_picture
from harness.data.formats.entries import Choices
from harness.data.images import look_at_mask
from harness.errors import DataError, EncodingError, UsageError
from harness.records import Reading

_ORIENTATION = 0x0112
_FEW = 4
_MOST_COLOURS = 64
_LOSSY = {"JPEG", "MPO"}


@dataclass(frozen=True)
class Look:
    """What pictures and masks are, and the keys of the card that follow from it."""

    sizes: Mapping[tuple[int, int], int]  # height and width of the pictures, and how many have them
    encodings: Mapping[str, int]  # how the masks are read, and how many so
    keys: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Header:
    size: tuple[int, int]
    mode: str
    tag: int


def look_at(
    images: Sequence[Path], masks: Sequence[Path], choices: Choices, tick: Callable[[], None]
) -> Look:
    """Look at distinct pictures and masks.

    Raises:
        DataError: One cannot be decoded.
    """
    with ThreadPoolExecutor() as pool:
        headers = list(pool.map(_header, images))
        orientation = _orientation(headers, images, masks, choices)
        reading = Reading(orientation=orientation)
        looked = list(pool.map(lambda path: _encoding(path, reading, tick), masks))
    keys: dict[str, Any] = {} if orientation is None else {"orientation": orientation}
    deep = [path for path, one in zip(images, headers, strict=True) if one.mode[0] in "IF"]
    if deep:
        keys["intensity"] = _intensity(deep, choices)
    refused = [path for path, one in zip(masks, looked, strict=True) if one is None]
    if refused:
        keys["masks"] = _rule(refused, len(masks), choices)
    _ask_of_colours(
        [p for p, one in zip(masks, looked, strict=True) if _may_be_classes(one)], choices
    )
    encodings = Counter(one or f"by the card's rule {keys['masks']}" for one in looked)
    return Look(Counter(one.size for one in headers), dict(encodings.most_common()), keys)


def _header(path: Path) -> _Header:
    try:
        with Image.open(path, formats=FORMATS) as picture:
            tag = picture.getexif().get(_ORIENTATION, 1)
            return _Header((picture.height, picture.width), picture.mode, tag)
    except Exception as problem:  # noqa: BLE001, decoders raise whatever they run into
        raise DataError(
            f"{path}: the picture cannot be opened ({str(problem)[:160]}). A whole PNG, JPEG or "
            "TIFF file is needed, such as images/1.png. Copy the file again."
        ) from None


def _encoding(path: Path, reading: Reading, tick: Callable[[], None]) -> str | None:
    """How a mask is read; None where the card must say it."""
    tick()
    try:
        return look_at_mask(path, reading).encoding
    except EncodingError:
        return None


def _orientation(
    headers: Sequence[_Header], images: Sequence[Path], masks: Sequence[Path], choices: Choices
) -> str | None:
    """Whether tags turn pictures; masks of the turned size say that they do."""
    turned = [
        (path, one) for path, one in zip(images, headers, strict=True) if one.tag in range(2, 9)
    ]
    if not turned:
        return None
    upright = {_header(path).size for path in masks}
    sizes = {one.size for _, one in turned}
    is_displayed = not (sizes & upright) and {size[::-1] for size in sizes} <= upright
    return _one_of(
        f"{len(turned)} pictures have a tag that turns them, the first {turned[0][0].name}: do the "
        "masks fit them as stored or as displayed?",
        "displayed" if is_displayed else "stored",
        ("stored", "displayed"),
        choices,
    )


def _intensity(deep: Sequence[Path], choices: Choices) -> str:
    return _one_of(
        f"{len(deep)} pictures have more than 8 bits, the first {deep[0].name}: is their whole "
        "range shown (full), or each picture's own (minmax)?",
        "minmax",
        ("full", "minmax"),
        choices,
    )


def _rule(refused: Sequence[Path], n: int, choices: Choices) -> Mapping[str, Any]:
    """Which values of masks are foreground, where they do not say it themselves."""
    values, is_lossy = _values(refused[0])
    shown = ", ".join(map(str, values[:8])) + (", ..." if len(values) > 8 else "")
    # Class maps count from 1; many values up to the brightest are edges.
    has_edges = len(values) > _FEW and values[-1] > 127
    default = "127" if is_lossy or has_edges else "nonzero"
    answer = choices.ask(
        f"{len(refused)} of {n} masks hold several values ({shown} in {refused[0].name}): is the "
        "target all but 0 (nonzero), what is above a number (127), or some values (=1,2)?",
        default,
    ).strip()
    if answer == "nonzero":
        return {"foreground": "nonzero"}
    try:
        if answer.startswith("="):
            return {"values": [int(one) for one in answer[1:].split(",")]}
        return {"above": float(answer)}
    except ValueError:
        raise UsageError(
            f"the rule for masks: found {answer!r}. 'nonzero', a number such as '127', or values "
            "such as '=1,2' are possible. Answer one of them."
        ) from None


def _may_be_classes(encoding: str | None) -> bool:
    return encoding is not None and ("colour" in encoding or "palette" in encoding)


def _ask_of_colours(masks: Sequence[Path], choices: Choices) -> None:
    """Several colours may be several classes, which are not told apart here."""
    with ThreadPoolExecutor() as pool:
        found = [
            (p, c) for p, c in zip(masks, pool.map(_colours, masks), strict=True) if len(c) > 1
        ]
    if not found:
        return
    path, colours = found[0]
    question = (
        f"{len(found)} masks hold several colours ({', '.join(colours[:4])} in {path.name}): are "
        "all of them the target (yes, no)?"
    )
    if choices.ask(question, "yes").strip().lower() not in {"yes", "y"}:
        raise UsageError(
            f"{path}: its colours are several targets. A mask holds one target, or numbers of "
            "classes as a grey label map. Export a file for each class, or such a map."
        )


def _colours(path: Path) -> list[str]:
    """A colour of each hue in a mask that is stored without loss; shades of one hue are one."""

    def look(picture: Image.Image, depth: int) -> list[str]:
        counts = picture.convert("RGB").getcolors(_MOST_COLOURS)
        if picture.format in _LOSSY or counts is None:
            return []
        shown = [np.array(colour) for _, colour in counts]
        hues = {tuple(np.rint(4 * c / c.max())): c.tolist() for c in shown if c.max() > 0}
        return sorted("#" + bytes(colour).hex() for colour in hues.values())

    return with_picture(path, "mask", Reading(orientation="stored"), look)


def _values(path: Path) -> tuple[list[int], bool]:
    def look(picture: Image.Image, depth: int) -> tuple[list[int], bool]:
        is_plain = picture.mode in {"L", "P", "1", "I", "F"} or picture.mode.startswith("I;")
        held = np.asarray(picture if is_plain else picture.convert("L"))
        return [int(v) for v in np.unique(held)], picture.format in _LOSSY

    return with_picture(path, "mask", Reading(orientation="stored"), look)


def _one_of(question: str, default: str, known: Iterable[str], choices: Choices) -> str:
    answer = choices.ask(question, default).strip()
    if answer not in known:
        listed = ", ".join(map(repr, known))
        raise UsageError(
            f"{question} Found {answer!r}. Known answers: {listed}. Answer one of them."
        )
    return answer
