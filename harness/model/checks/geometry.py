"""Checks of where a picture's pixels end up, and of where masks are cut.

Conventions: what an adapter does to a picture's shape is measured on ramps, brightness rising
along one side: a column (or row) of the pixels shows which place of the picture it came from, as
a share of the side. A function's insides cannot be seen; it is asked about a wide picture,
about the same picture stretched to a square, and about it with bars.
"""

import ast
import inspect
import textwrap
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from harness.model.callables import FunctionAdapter
from harness.model.checks.record import Found, finding, holds, skipped
from harness.model.checks.subject import Subject, default_pictures

_SIDES = (96, 192)  # height and width of the picture with the ramps
_SAME_SCALE = 1.1
_WHOLE = 0.04  # shares of a side that resampling may lose
_STRETCHED = 4.0  # times as far from the one as from the other


class _Seen(NamedTuple):
    """What part of a side is in the pixels, in shares of it, and on how many pixels it lies."""

    start: float
    stop: float
    n_pixels: int


def aspect(subject: Subject) -> Found:
    """What becomes of a picture that is twice as wide as high."""
    if subject.is_any_size:
        return _of_function(subject)
    rows, columns = _seen(subject, axis=1), _seen(subject, axis=2)
    if rows is None or columns is None:
        return skipped("aspect: the pixels do not show where they come from.")
    for name, seen in (("height", rows), ("width", columns)):
        if seen.stop - seen.start < 1 - _WHOLE:
            return finding(
                f"aspect: of a picture of {_SIDES[0]} x {_SIDES[1]} the pixels hold "
                f"{seen.start:.0%} to {seen.stop:.0%} of its {name}: it is cut. Logits must cover "
                "the whole picture. Resize without cropping, or see that `decode` undoes it."
            )
    stretch = (columns.n_pixels / _SIDES[1]) / (rows.n_pixels / _SIDES[0])
    height, width = subject.model.adapter.input_size
    if 1 / _SAME_SCALE < stretch < _SAME_SCALE:
        return holds("aspect: kept; a picture of any shape is scaled alike along both sides.")
    what = (
        f"aspect: a picture of {_SIDES[0]} x {_SIDES[1]} becomes {height} x {width}: circles "
        f"become ellipses ({stretch:.2g} times as wide)."
    )
    if subject.model.card.aspect == "stretched":
        return holds(f"{what} The card says that the model was trained so.")
    return finding(
        f"{what} Shapes and sizes in prompts then mean something else. If the model was trained on "
        "stretched pictures, as with torchvision's Resize to a square, write `aspect: stretched` "
        "on the card; else scale both sides alike, pad, and undo it in the logits."
    )


def _seen(subject: Subject, *, axis: int) -> _Seen | None:
    """Which part of a side of a picture its pixels hold, by a ramp along it."""
    ramp = np.linspace(0, 1, _SIDES[axis - 1])
    shape = (-1, 1, 1) if axis == 1 else (1, -1, 1)
    values = np.broadcast_to(255 * ramp.reshape(shape), (*_SIDES, 3))
    black, white, found = (
        subject.model.adapter.preprocess(picture.astype(np.uint8)).double()
        for picture in (np.zeros((*_SIDES, 3)), np.full((*_SIDES, 3), 255), values.round())
    )
    filled = (white - black).abs() > 1e-6
    if not filled.any():
        return None
    share = torch.where(
        filled, (found - black) / torch.where(filled, white - black, 1.0), torch.nan
    )
    line = share.nanmean(dim=(0, 3 - axis))
    line = line[~line.isnan()]
    is_rising = len(line) > 3 and bool((line.diff() > -0.02).all())
    if not is_rising or float(line[-1] - line[0]) < 0.2:
        return None  # two pictures in one, or tiles
    # Half a pixel at each end belongs to the outermost ones.
    half = float(line.diff().median()) / 2
    return _Seen(max(0.0, float(line[0]) - half), min(1.0, float(line[-1]) + half), len(line))


def _of_function(subject: Subject) -> Found:
    """Whether a function's answer follows the stretched picture or the one with bars."""
    wide = _wide_picture()
    height, width = wide.shape[:2]
    stretched = np.array(Image.fromarray(wide).resize((width, width), Image.Resampling.BILINEAR))
    bars = np.zeros((width, width, 3), dtype=np.uint8)
    top = (width - height) // 2
    bars[top : top + height] = wide
    text = subject.prompts[0]
    plain = _asked(subject, wide, text)
    from_stretched = _scaled(_asked(subject, stretched, text), (height, width))
    from_bars = _asked(subject, bars, text)[top : top + height]
    to_stretched, to_bars = (
        float((plain - other).abs().mean()) for other in (from_stretched, from_bars)
    )
    if float(plain.std()) == 0 or to_bars <= max(1e-6, _STRETCHED * to_stretched):
        return holds(
            f"aspect: a picture of {height} x {width} has a mask of its size; nothing says that "
            "its shape is lost on the way."
        )
    what = (
        f"aspect: the mask of a picture of {height} x {width} is that of the picture stretched to "
        f"a square (mean difference {to_stretched:.2g}), not that of the picture with bars "
        f"({to_bars:.2g}): it is resized without its shape."
    )
    if subject.model.card.aspect == "stretched":
        return holds(f"{what} The card says that the model was trained so.")
    return finding(
        f"{what} If the model was trained so, write `aspect: stretched` on the card; else scale "
        "both sides alike and pad."
    )


def _wide_picture() -> NDArray[np.uint8]:
    picture = Image.fromarray(default_pictures()[0]).resize((160, 120), Image.Resampling.BILINEAR)
    return np.array(picture.crop((0, 20, 160, 100)))


def _asked(subject: Subject, picture: NDArray[np.uint8], text: str) -> Tensor:
    pixels = subject.model.adapter.preprocess(picture)[None].to(subject.model.device)
    return subject.staged(pixels, [text])[0]


def _scaled(logits: Tensor, size: tuple[int, int]) -> Tensor:
    return torch.nn.functional.interpolate(
        logits[None, None], size, mode="bilinear", align_corners=False
    )[0, 0]


def cut_of_logits(subject: Subject) -> Found:
    """Whether the text of the model compares logits with 0.5."""
    lines = _cuts(subject.model.raw)
    if lines is None:
        return skipped("cut: the text of the model cannot be read.")
    if not lines:
        return holds("cut: no line of the model compares logits with 0.5.")
    return finding(
        f"cut: `{lines[0]}` compares logits with 0.5, a probability of 0.62. A logit of 0 is a "
        "probability of 0.5. Compare with 0, or take the sigmoid first."
    )


def _cuts(raw: Any) -> list[str] | None:
    """Comparisons of something called logits with 0.5 in a function or class."""
    written = raw.function if isinstance(raw, FunctionAdapter) else type(raw)
    written = written if inspect.isroutine(written) or isinstance(written, type) else type(written)
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(written)))
    except (OSError, TypeError, SyntaxError, ValueError):
        return None
    comparisons = [node for node in ast.walk(tree) if isinstance(node, ast.Compare)]
    return [ast.unparse(node)[:80] for node in comparisons if _is_slip(node)]


def _is_slip(node: ast.Compare) -> bool:
    sides = [node.left, *node.comparators]
    has_half = any(isinstance(side, ast.Constant) and side.value == 0.5 for side in sides)
    text = ast.unparse(node).lower()
    is_probability = any(word in text for word in ("sigmoid", "softmax", "prob", "expit"))
    return has_half and "logit" in text and not is_probability
