"""Which pixels of a mask file are foreground, and why.

People store the same mask as 0/1, 0/255, 0/65535, as a palette, as colour, as alpha. Each file
is read by what it holds; a file that could mean two things is refused, with its values and the
card's key that decides (`masks:`). Without a rule on the card:

- Two values, one of them 0: the other one. One value: 0 is empty, the largest of the range full.
- A palette with colours: any index but 0. A palette of greys is read as those greys.
- Colour on black: whatever is not black. Equal channels are grey.
- Alpha, where alpha alone varies. Alpha that does not vary, or says the same, is left out.
- Grey with soft edges, lossy or resized: more than half of the range. The middle of the range
  is then an edge a few pixels wide; a block of it is a class, and refused.
- Everything else is refused: class maps of several values, two values without a 0, floats.

Conventions: values are ``(H, W)`` as the file holds them, colours ``(H, W, 3)`` uint8, masks bool.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.errors import EncodingError
from harness.records import Reading

KEYS = (
    "`masks: {foreground: nonzero}`, `masks: {above: 127}`, `masks: {values: [1]}`, "
    "`masks: {channel: g}` or `masks: {foreground: alpha}`"
)

Values = NDArray[Any]
Mask = NDArray[np.bool_]

_GREY = {"1", "L", "I", "F", "I;16", "I;16L", "I;16B", "I;16N"}
_COLOUR = {"RGB", "RGBX", "RGBA", "LA", "PA", "YCbCr"}
_LOSSY = {"JPEG", "MPO"}
# More colours than this are no classes but shades, or a photograph.
_MOST_COLOURS = 32
# Fewer greys than this are classes rather than edges.
_FEWEST_GREYS = 8
_SHOWN = 6
_ROWS = 256


class Foreground(NamedTuple):
    """A mask and how it was read, such as ``8-bit grey 0/255``."""

    mask: Mask
    encoding: str


class _Grey(NamedTuple):
    """One channel: its values, their distinct ones, the largest possible and what to call it."""

    values: Values
    distinct: list[float]
    top: float
    name: str
    is_lossy: bool = False


def foreground(picture: Image.Image, reading: Reading, *, depth: int = 8) -> Foreground:
    """The foreground of a loaded mask.

    Without a rule of the card what the file holds decides; `depth` is the bits of a channel in it.

    Raises:
        EncodingError: The file does not say which of its values are foreground, or does not
            hold what the card's rule asks for. The message lacks the file's name.
    """
    if picture.mode not in _GREY | _COLOUR | {"P"}:
        raise EncodingError(
            f"the mask is of mode {picture.mode}. A grey, palette, RGB or RGBA mask is needed. "
            "No key of `masks:` on the dataset's card reads this one: export it as grey PNG."
        )
    if depth > 8 and picture.mode in _COLOUR:
        raise EncodingError(
            f"the mask has {depth} bits in each channel of {picture.mode}, of which the decoder "
            "keeps 8: its values are not known. No key of `masks:` on the dataset's card reads "
            "it: export it as grey PNG."
        )
    if reading.channel:
        grey = _channel(picture, reading.channel)
        return _of_grey(grey) if reading.rule.endswith("auto") else _by_rule(grey, reading)
    if reading.rule != "auto":
        return _by_rule(_stored(picture, reading), reading)
    if picture.mode == "P":
        return _of_palette(picture)
    _refuse_transparent(picture)
    if picture.mode in _GREY:
        return _of_grey(_grey(picture))
    if "A" in picture.getbands():
        return _with_alpha(picture)
    return _of_colour(picture)


def refusal(found: str, *, why: str) -> EncodingError:
    """What is said of a file whose foreground is not known."""
    return EncodingError(
        f"the mask holds {found}: {why}. Which of them are foreground must be said. Write {KEYS} "
        "on the dataset's card."
    )


def _grey(picture: Image.Image) -> _Grey:
    values = np.asarray(picture)
    if values.dtype == np.bool_:
        return _Grey(values, _distinct(values), 1, "1-bit")
    top = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65_535}.get(values.dtype.newbyteorder("="))
    lossy = _is_lossy(picture)
    name = "JPEG grey" if lossy else f"{8 * values.dtype.itemsize}-bit grey"
    return _Grey(values, _distinct(values), top or np.inf, name, lossy)


def _is_lossy(picture: Image.Image) -> bool:
    return picture.format in _LOSSY or "jpeg" in str(picture.info.get("compression"))


def _distinct(values: Values) -> list[float]:
    """The distinct values, rising; counted a few rows at a time, for masks can be large."""
    found: set[float] = set()
    for row in range(0, len(values), _ROWS):
        strip = values[row : row + _ROWS]
        if strip.dtype == np.bool_:
            found |= {0.0} if not strip.all() else set()
            found |= {1.0} if strip.any() else set()
        elif strip.dtype == np.uint8:
            found.update(np.flatnonzero(np.bincount(strip.ravel())).tolist())
        else:
            found.update(np.unique(strip).tolist())
    return sorted(found)


def _named(distinct: Sequence[float]) -> str:
    """Values as a message shows them.

    Example:
        >>> _named([0, 1, 2])
        'the values 0, 1, 2'
    """
    shown = [f"{value:g}" for value in distinct]
    if len(shown) > _SHOWN:
        half = _SHOWN // 2
        listed = ", ".join([*shown[:half], "...", *shown[-half:]])
        return f"{len(shown)} values, {listed}"
    return ("the value " if len(shown) == 1 else "the values ") + ", ".join(shown)


def _of_grey(grey: _Grey) -> Foreground:
    """The foreground of one channel by its values alone."""
    values, distinct, top, name, is_lossy = grey
    if values.dtype.kind == "f":
        told = values[~np.isnan(values)]
        limits = (
            f" from {told.min():g} to {told.max():g}" if told.size else ", none of them a number"
        )
        found = f"floating-point values{limits}"
        raise refusal(found, why="floating-point masks have no level of their own")
    if distinct == [0]:
        return Foreground(np.zeros(values.shape, dtype=np.bool_), f"{name} 0")
    if distinct[0] >= (0.75 if is_lossy else 1) * top:
        return Foreground(np.ones(values.shape, dtype=np.bool_), f"{name} {top:g}")
    if is_lossy:
        return _soft(grey, "a lossy mask is dark and bright, with thin edges between")
    if len(distinct) == 1:
        raise refusal(_named(distinct), why="nothing says whether all or none of it is foreground")
    if 0 not in distinct:
        raise refusal(_named(distinct), why="without a 0 none of them is background")
    if len(distinct) == 2:
        return Foreground(values != 0, f"{name} {distinct[0]:g}/{distinct[1]:g}")
    if len(distinct) < _FEWEST_GREYS or not np.isfinite(top):
        raise refusal(_named(distinct), why="this is a map of several classes")
    return _soft(grey, "this is a map of several classes or a soft mask")


def _soft(grey: _Grey, why: str) -> Foreground:
    """Grey whose middle is an edge: more than half of the range."""
    values, distinct, top, name, is_lossy = grey
    is_wide = distinct[0] <= 0.25 * top and distinct[-1] >= (0.75 if is_lossy else 1) * top
    margin = (0.2 if is_lossy else 0.1) * top
    middle = (values > margin) & (values < top - margin)
    if not is_wide or _filled(middle, 7 if is_lossy else 5).any():
        raise refusal(_named(distinct), why=why)
    if not is_lossy and (_has_level(values, top) or _is_mostly_between(values, top - margin)):
        raise refusal(_named(distinct), why=why)
    # Half of 8 bits is 127, of 16 bits 32767.
    return Foreground(values > top // 2, f"{name} with soft edges, > {top // 2:g}")


def _is_mostly_between(values: Values, bright: float) -> bool:
    """Whether more pixels are neither 0 nor bright than are bright: an edge has an inside."""
    n_bright = np.count_nonzero(values >= bright)
    return bool(np.count_nonzero(values) - n_bright > n_bright)


def _has_level(values: Values, top: float) -> bool:
    """Whether a single value other than the two ends fills a square of 5 pixels."""
    same = (values[1:, 1:] == values[:-1, :-1]) & (values[1:, 1:] == values[:-1, 1:])
    same &= values[1:, 1:] == values[1:, :-1]
    same &= (values[1:, 1:] != 0) & (values[1:, 1:] != top)
    return bool(_filled(same, 4).any())


def _filled(band: Mask, side: int) -> Mask:
    """Where squares of `side` pixels are True throughout, ``(H - side + 1, W - side + 1)``."""
    rows, columns = (max(0, n - side + 1) for n in band.shape)
    across = np.ones((band.shape[0], columns), dtype=np.bool_)
    for shift in range(side):
        across &= band[:, shift : shift + columns]
    whole = np.ones((rows, columns), dtype=np.bool_)
    for shift in range(side):
        whole &= across[shift : shift + rows]
    return whole


def _of_palette(picture: Image.Image) -> Foreground:
    """Any index but 0, unless colours or transparency say something else."""
    index = np.asarray(picture)
    used = [int(value) for value in _distinct(index)]
    palette = np.array(picture.getpalette("RGB") or [], dtype=np.uint8).reshape(-1, 3)
    colours = [tuple(int(c) for c in palette[i]) if i < len(palette) else None for i in used]
    shown = ", ".join(f"{i} ({_hex(c)})" for i, c in zip(used[:_SHOWN], colours, strict=False))
    said = f"{len(used)} palette indexes, {shown}"
    clear = _transparent_indexes(picture)
    if any(i in clear for i in used if i != 0):
        raise refusal(said, why="an index other than 0 is transparent")
    if all(c is not None and c[0] == c[1] == c[2] for c in colours):
        greys = palette[:, 0][index]
        found = _of_grey(_Grey(greys, _distinct(greys), 255, "palette of greys"))
        if len(used) <= 2 and (found.mask != (index != 0)).any():
            raise refusal(said, why="index 0 is not the dark one")
        return found
    if used == [0]:
        raise refusal(said, why="index 0 is not black")
    if 0 not in used:
        raise refusal(said, why="none of them is index 0, the background")
    if (0, 0, 0) in colours[1:] and colours[0] != (0, 0, 0):
        raise refusal(said, why="index 0 is not the black one")
    return Foreground(index != 0, f"palette 0/{used[1]}" if len(used) == 2 else "palette indexes")


def _hex(colour: tuple[int, ...] | None) -> str:
    return "no colour" if colour is None else "#" + "".join(f"{c:02x}" for c in colour)


def _transparent_indexes(picture: Image.Image) -> set[int]:
    given = picture.info.get("transparency")
    if isinstance(given, bytes):
        return {index for index, alpha in enumerate(given) if alpha == 0}
    return set() if given is None else {int(given)}


def _refuse_transparent(picture: Image.Image) -> None:
    """A transparent grey or colour that is not the background contradicts its own value."""
    given = picture.info.get("transparency")
    if not isinstance(given, int | tuple) or not np.any(given):
        return
    values = np.asarray(picture).reshape(*picture.size[::-1], -1)
    if (values == np.asarray(given)).all(axis=-1).any():
        raise refusal(f"the transparent value {given}", why="a transparent value other than 0")


def _with_alpha(picture: Image.Image) -> Foreground:
    """Colour or alpha, whichever varies; both where they agree."""
    alpha = _channel(picture, "a")
    colour = picture.convert("RGB")
    low, high = np.array([colour.getchannel(band).getextrema() for band in "RGB"]).T
    is_flat, flat = bool((low == high).all()), tuple(low.tolist())
    if len(alpha.distinct) == 1:
        if alpha.distinct == [0] and is_flat and any(flat):
            raise refusal(
                f"{_hex(flat)}, all transparent", why="colour and alpha contradict each other"
            )
        return _of_colour(picture)
    if is_flat:
        return _of_grey(alpha)
    found = _of_colour(picture)
    if len(alpha.distinct) > 2 or (found.mask != (alpha.values != 0)).any():
        raise refusal(
            f"alpha of {_named(alpha.distinct)} beside {found.encoding}",
            why="colour and alpha both vary, and differ",
        )
    return found


def _of_colour(picture: Image.Image) -> Foreground:
    """Whatever is not black; equal channels are grey."""
    lossy = _is_lossy(picture)
    kind = "JPEG" if lossy else "8-bit"
    seen = _look_at_colours(picture)
    distinct = _distinct(seen.largest)
    if seen.is_grey:
        return _of_grey(_Grey(seen.largest, distinct, 255, f"{kind} grey", lossy))
    grey = _Grey(seen.largest, distinct, 255, f"{kind} colour", lossy)
    if lossy and distinct[0] > 64:
        raise refusal(f"colours, the darkest of {distinct[0]:g}", why="none of them is black")
    if lossy or sum(seen.is_lit) == 1:
        return _of_grey(grey)
    if len(distinct) >= _FEWEST_GREYS or len(seen.colours) > _MOST_COLOURS:
        return _soft(grey, "these are shades, not classes")
    return _of_classes(seen.largest, seen.colours)


class _Colours(NamedTuple):
    """A colour mask; `colours` are the distinct ones, or more than `_MOST_COLOURS` of them."""

    largest: NDArray[np.uint8]
    is_grey: bool
    is_lit: tuple[bool, ...]
    colours: Sequence[tuple[int, ...]]


def _look_at_colours(picture: Image.Image) -> _Colours:
    """A few rows at a time: three whole channels would double the memory of a large mask."""
    largest = np.empty((picture.height, picture.width), dtype=np.uint8)
    packed: set[int] = set()
    is_grey, is_lit = True, np.zeros(3, dtype=np.bool_)
    for top in range(0, picture.height, _ROWS):
        bottom = min(top + _ROWS, picture.height)
        strip = np.asarray(picture.crop((0, top, picture.width, bottom)).convert("RGB"))
        largest[top:bottom] = strip.max(axis=2)
        is_lit |= strip.any(axis=(0, 1))
        is_grey &= bool((strip[..., :1] == strip).all())
        if len(packed) <= _MOST_COLOURS:
            red, green, blue = (strip[..., k].astype(np.uint32) for k in range(3))
            packed.update(np.unique(red << 16 | green << 8 | blue).tolist())
    colours = [(one >> 16, one >> 8 & 255, one & 255) for one in sorted(packed)]
    return _Colours(largest, is_grey, tuple(is_lit.tolist()), colours)


def _of_classes(largest: Values, colours: Sequence[tuple[int, ...]]) -> Foreground:
    """A few colours: all but black are foreground."""
    said = f"{len(colours)} colours, {', '.join(map(_hex, colours[:_SHOWN]))}"
    if (0, 0, 0) not in colours:
        raise refusal(said, why="none of them is black, the background")
    lit = [colour for colour in colours if any(colour)]
    if any(len(set(colour)) == 1 for colour in lit):
        raise refusal(said, why="grey or white stands beside colours")
    if len(lit) > 1 and _are_shades(lit):
        raise refusal(said, why="these are shades of one colour")
    return Foreground(largest != 0, "8-bit colour on black")


def _are_shades(colours: Sequence[tuple[int, ...]]) -> bool:
    """Whether all colours are the brightest one made darker, to rounding."""
    most = max(colours, key=max)
    return all(
        abs(part * max(most) - whole * max(colour)) <= max(most)
        for colour in colours
        for part, whole in zip(colour, most, strict=True)
    )


def _channel(picture: Image.Image, name: str) -> _Grey:
    """One channel of a colour mask, or its alpha."""
    has_colour = picture.mode in _COLOUR - {"LA"} | {"P"}
    has_alpha = "A" in picture.getbands() or (has_colour and "transparency" in picture.info)
    if not (has_alpha if name == "a" else has_colour):
        raise EncodingError(
            f"the mask has the channels {', '.join(picture.getbands()).lower()}. The card's "
            f"`masks: {{channel: {name}}}` needs the channel {name!r}. Correct the card's rule."
        )
    values = np.asarray(picture.convert("RGBA").getchannel(name.upper()))
    kind = "alpha" if name == "a" else f"channel {name}"
    return _Grey(values, _distinct(values), 255, kind, _is_lossy(picture))


def _stored(picture: Image.Image, reading: Reading) -> _Grey:
    """The one channel that an explicit rule is about: indexes, greys, or the brightest of RGB."""
    if picture.mode in _GREY:
        return _grey(picture)
    if picture.mode == "P" and reading.above is None:
        index = np.asarray(picture)
        return _Grey(index, _distinct(index), 255, "palette")
    seen = _look_at_colours(picture)
    if reading.values and not seen.is_grey:
        raise EncodingError(
            "the mask has colours. The card's `masks: {values: ...}` needs one channel. Name it: "
            f"`masks: {{channel: g, values: {list(reading.values)}}}`."
        )
    name = "grey" if seen.is_grey else "colour"
    return _Grey(seen.largest, _distinct(seen.largest), 255, name)


def _by_rule(grey: _Grey, reading: Reading) -> Foreground:
    """The foreground by the card's rule."""
    values, distinct = grey.values, grey.distinct
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise EncodingError(
            "the mask holds values that are not finite numbers. Every value must be one for the "
            f"card's `masks: {reading.rule}` to decide. Export the mask again."
        )
    if reading.values:
        found = np.isin(values, reading.values)
    elif reading.above is not None:
        found = values > reading.above
        if len(distinct) == 2 and distinct[0] == 0 and 0 < distinct[1] <= reading.above:
            raise EncodingError(
                f"the mask holds {_named(distinct)}, none of them above {reading.above:g}, the "
                "rule `masks: {above: ...}` of the dataset's card. A rule that fits the file is "
                "needed. Copy the card and correct the rule, or export the mask as 0 and 255."
            )
    else:
        found = values != 0
    return Foreground(found, f"{grey.name}, {reading.rule}")
