"""A function as a model: ``f(image, prompt)`` or ``f(images, prompts)`` that returns masks.

What a function returns is read by what it holds, the same way in every call:

- bool, a PIL mask, or numbers that are 0 and 1, or 0 and 255: a mask;
- decimal numbers that all lie in [0, 1]: probabilities, cut at the card's threshold;
- decimal numbers of which some are negative: logits, cut where the sigmoid is the threshold;
- a list of masks or of ``{"mask": ...}``, or ``{"masks": ...}``, as pipelines of transformers
  return them: their union; an empty list is an empty mask.

Anything else is refused with what would be right; ``output=`` says it where the numbers do not. A
mask has the size of the picture. One of the same shape but another size is scaled to it, with a
note; one of another shape is refused, for how it lies on the picture is not known.

Conventions: a picture reaches the function as ``array`` (``(H, W, 3)`` uint8 RGB), ``pil`` (RGB) or
``tensor`` (``(3, H, W)`` float32 in [0, 1]), never resized. Logits that leave are ``(N, H, W)``
float32; a mask becomes +/- `CERTAIN`.
"""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from harness.cards import Strict
from harness.data.foreground import foreground
from harness.errors import DataError, HarnessError, ModelError
from harness.model.contract import Note, Picture, TokenCounts
from harness.model.function_state import state_sha256
from harness.records import BY_CONTENT

CERTAIN = 20.0
"""Logit of a pixel of a mask: a probability of 1 - 2e-9."""

Input = Literal["array", "pil", "tensor"]
Output = Literal["auto", "mask", "probabilities", "logits"]

_IMAGES = {"images", "pictures", "imgs", "arrays", "frames", "batch"}
_PROMPTS = {"prompts", "texts", "sentences", "captions", "queries", "phrases", "expressions"}
# Sides may be rounded when a picture is scaled down.
_ROUNDING = 1.0


class Settings(Strict):
    """How a function is called: the ``settings`` of a card with ``kind: callable``."""

    input: Input = "array"
    output: Output = "auto"
    batched: bool | None = None


class _Read(NamedTuple):
    """What a function returned for one picture: numbers ``(h, w)``, and what they are."""

    values: NDArray[np.float32]
    kind: str


class FunctionAdapter:
    """Level 1 of the contract around a function; pictures keep their size."""

    any_size = True
    input_size = (64, 64)  # of pictures that are made up

    def __init__(self, function: Callable[..., Any], settings: Settings, *, where: str) -> None:
        """Wrap a function.

        Raises:
            ModelError: It cannot be called with a picture and a prompt.
        """
        self.function, self.settings, self.where = function, settings, where
        self.is_batched = _is_batched(function, settings.batched, where)
        self.module = torch.nn.Module().eval()
        self.notes: list[Note] = []
        self._kind = None if settings.output == "auto" else settings.output
        # Before any call: a function may keep what it computed.
        self.state = state_sha256(function)

    def preprocess(self, image: Picture) -> torch.Tensor:
        """The picture as it is, ``(3, H, W)`` uint8."""
        picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
        return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)

    def count_tokens(self, texts: Sequence[str]) -> TokenCounts:
        """Words: what a function makes of a text is not known, nor whether it cuts it."""
        return TokenCounts(tuple(len(text.split()) for text in texts), (False,) * len(texts))

    def predict(self, pixels: torch.Tensor, texts: Sequence[str]) -> torch.Tensor:
        """Pictures ``(N, 3, H, W)`` uint8 of one size and N texts -> logits ``(N, H, W)``."""
        size = (int(pixels.shape[-2]), int(pixels.shape[-1]))
        images = self._images(pixels)
        if self.is_batched:
            given = torch.stack(images) if self.settings.input == "tensor" else images
            found = self._call(size, given, list(texts))
            answers = _as_list(found, len(texts), self.where)
        else:
            pairs = zip(images, texts, strict=True)
            answers = [self._call(size, image, text) for image, text in pairs]
        with torch.inference_mode(False):
            return torch.stack([self._logits(answer, size) for answer in answers])

    def _images(self, pixels: torch.Tensor) -> list[Any]:
        """The pictures as the function wants them."""
        return [self._image(row) for row in pixels.cpu()]

    def _image(self, row: torch.Tensor) -> Any:
        """A picture of its own for every call: a function may draw on it."""
        if self.settings.input == "tensor":
            return row.float() / 255
        array = row.permute(1, 2, 0).numpy().copy(order="C")
        return Image.fromarray(array) if self.settings.input == "pil" else array

    def _call(self, size: tuple[int, int], images: Any, texts: Any) -> Any:
        """Ask the function, outside the modes in which the harness computes."""
        try:
            with torch.inference_mode(False), torch.no_grad():
                return self.function(images, texts)
        except (MemoryError, torch.OutOfMemoryError, HarnessError):
            raise
        except Exception as problem:
            if isinstance(problem, RuntimeError) and "can't allocate memory" in str(problem):
                raise
            said = (str(problem).strip().splitlines() or ["no message"])[0][:200]
            raise ModelError(
                f"{self.where}: {type(problem).__name__}: {said} (for the prompt "
                f"{str(texts)[:80]!r} on a picture of {size[0]} x {size[1]}). It must return a "
                "mask for any picture and text. Repair it there."
            ) from problem

    def _logits(self, answer: Any, size: tuple[int, int]) -> torch.Tensor:
        read = _read(answer, self._kind, self.where)
        if read.kind == "nothing":
            return torch.full(size, -CERTAIN)
        self._kind = self._settle(read.kind)
        values = self._fit(read.values, size)
        if read.kind == "mask":
            values = np.where(values > 0.5, CERTAIN, -CERTAIN)
        elif read.kind == "probabilities":
            # The nearest numbers to 0 and 1 whose logit is finite in float32.
            least = np.float64(2.0**-24)
            share = np.clip(values.astype(np.float64), least, 1 - least)
            values = np.log(share / (1 - share))
        return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))

    def _settle(self, kind: str) -> Any:
        """One function returns one kind of decimal numbers; what was said first holds."""
        if kind not in _RULES or self._kind in (kind, "mask"):
            return self._kind
        if self._kind is None:
            self.notes.append(
                Note(
                    f"{self.where} returns decimal numbers that are read as {kind} "
                    f"({_RULES[kind]}); `output` says otherwise."
                )
            )
        return kind

    def _fit(self, values: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
        """Numbers at the size of the picture."""
        if values.shape == size:
            return values
        (h, w), (height, width) = values.shape, size
        if not _same_shape((h, w), size):
            turned = " It looks turned: transpose it." if (w, h) == size else ""
            raise ModelError(
                f"{self.where}: returned a mask of {h} x {w} for a picture of {height} x {width} "
                "(height x width). Whether it was stretched, padded or cut is not known. Return "
                f"the mask at the size of the picture.{turned}"
            )
        note = Note(
            f"{self.where} returns masks of another size than the picture's ({h} x {w} for {height}"
            f" x {width}), which are scaled to it (bilinear; masks to the nearest)."
        )
        if not any("another size" in known.text for known in self.notes):
            self.notes.append(note)
        is_mask = bool(np.isin(values, (0, 1)).all())
        given = torch.from_numpy(np.ascontiguousarray(values))[None, None]
        mode: dict[str, Any] = (
            {"mode": "nearest-exact"} if is_mask else {"mode": "bilinear", "align_corners": False}
        )
        scaled: NDArray[np.float32] = torch.nn.functional.interpolate(given, size, **mode)[
            0, 0
        ].numpy()
        return scaled


_RULES = {
    "probabilities": "all lie in [0, 1]",
    "logits": "some are negative",
}


def _same_shape(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether one is the other, scaled, up to rounding of its sides."""
    (h, w), (height, width) = one, other
    return abs(h * width / height - w) <= _ROUNDING and abs(w * height / width - h) <= _ROUNDING


def _is_batched(function: Callable[..., Any], said: bool | None, where: str) -> bool:
    """Whether a function takes lists: as it says, or by the names of its two parameters."""
    if not callable(function):
        raise ModelError(
            f"{where}: found {type(function).__name__}. A function f(image, prompt) or "
            "f(images, prompts) that returns masks is needed. Give one."
        )
    try:
        parameters = list(inspect.signature(function).parameters.values())
        inspect.signature(function).bind(None, None)
    except TypeError as problem:
        raise ModelError(
            f"{where}: cannot be called with a picture and a prompt ({problem}). f(image, prompt) "
            "or f(images, prompts) is needed, in this order. Wrap it: lambda image, prompt: ..."
        ) from None
    except ValueError:  # written in C, it shows no signature
        parameters = []
    names = [p.name.lower() for p in parameters[:2]]
    plural = [name in kind for name, kind in zip(names, (_IMAGES, _PROMPTS), strict=False)]
    if said is not None or len(plural) < 2:
        return bool(said)
    if plural[0] != plural[1]:
        raise ModelError(
            f"{where}: takes ({', '.join(names)}): one of the two is called as a list. Whether it "
            "takes one pair or a list of pairs is not known. Say `batched=True` or `batched=False`."
        )
    return plural[0]


def _as_list(found: Any, n: int, where: str) -> list[Any]:
    """The answers of a function of lists, one a pair."""
    if isinstance(found, Mapping) and "masks" in found:
        found = found["masks"]
    if isinstance(found, Mapping) or not hasattr(found, "__len__"):
        raise ModelError(
            f"{where}: returned {type(found).__name__} for {n} pictures and prompts. One mask a "
            "pair is needed, as a list or with a leading axis. Return them in order."
        )
    if len(found) != n:
        raise ModelError(
            f"{where}: returned {len(found)} masks for {n} pictures and prompts. One mask a pair "
            "is needed. Return them in order, an empty one where nothing was found."
        )
    return list(found)


def _read(answer: Any, kind: str | None, where: str) -> _Read:
    """What a function returned for one pair."""
    if isinstance(answer, Mapping):
        answer = _of_mapping(answer, where)
    if isinstance(answer, list | tuple):
        return _union(answer, kind, where)
    if isinstance(answer, Image.Image):
        return _of_picture(answer, kind, where)
    values = _flat(_array(answer, where), where)
    if kind in ("logits", "probabilities"):
        return _stated(values, kind, where)
    return _guessed(values, kind, where)


def _of_mapping(answer: Mapping[Any, Any], where: str) -> Any:
    for key in ("mask", "masks", "pred_masks"):
        if key in answer:
            return list(answer[key]) if key != "mask" else answer[key]
    raise ModelError(
        f"{where}: returned a mapping with the keys {sorted(map(str, answer))[:6]}. A mask, or a "
        "mapping with 'mask' or 'masks', is needed. Return the mask alone."
    )


def _union(answer: Sequence[Any], kind: str | None, where: str) -> _Read:
    """Several masks of one picture, as instances: what any of them covers."""
    if not answer:
        return _Read(np.zeros((0, 0), dtype=np.float32), "nothing")
    is_nested = all(isinstance(one, int | float | bool | list) for one in answer)
    if is_nested:  # numbers in lists of lists
        return _read(_array(answer, where), kind, where)
    parts = [_read(one, kind, where) for one in answer]
    kinds = {part.kind for part in parts}
    shapes = {part.values.shape for part in parts}
    if len(kinds) > 1 or len(shapes) > 1:
        raise ModelError(
            f"{where}: returned {len(answer)} masks for one pair, of shapes {sorted(shapes)} and "
            f"kinds {sorted(kinds)}. Masks of one picture have one size and kind. Return their "
            "union."
        )
    return _Read(np.max([part.values for part in parts], axis=0), parts[0].kind)


def _of_picture(picture: Image.Image, kind: str | None, where: str) -> _Read:
    if kind in ("logits", "probabilities") or picture.mode == "F":
        return _read(np.asarray(picture), kind, where)
    try:
        mask = foreground(picture, BY_CONTENT).mask
    except DataError as problem:
        text = str(problem).partition(" Write ")[0]
        raise ModelError(f"{where}: {text} Return a bool array.") from None
    return _Read(mask.astype(np.float32), "mask")


def _array(answer: Any, where: str) -> NDArray[Any]:
    if isinstance(answer, torch.Tensor):
        moved = answer.detach().cpu()
        return (moved.float() if moved.dtype in (torch.bfloat16, torch.float16) else moved).numpy()
    if answer is not None:
        try:
            values = np.asarray(answer)
        except ValueError:
            values = np.empty(0, dtype=object)
        if values.dtype.kind in "biuf" and values.ndim:
            return values
    raise ModelError(
        f"{where}: returned {type(answer).__name__}. A mask (height, width) of bool, whole or "
        "decimal numbers is needed: an array, a tensor or a PIL picture. Where nothing is found "
        "return an empty mask or an empty list."
    )


def _flat(values: NDArray[Any], where: str) -> NDArray[Any]:
    """``(H, W)`` of an array with axes of one besides."""
    shape = values.shape
    while values.ndim > 2 and 1 in (values.shape[0], values.shape[-1]):
        values = values[0] if values.shape[0] == 1 else values[..., 0]
    if values.ndim != 2 or 0 in values.shape:
        raise ModelError(
            f"{where}: returned an array of shape {shape} for one picture and prompt. (height, "
            "width) is needed; several masks, classes or colours in one array could mean anything. "
            "Pick one, or return their union."
        )
    return values


def _stated(values: NDArray[Any], kind: str, where: str) -> _Read:
    """Numbers of which was said what they are."""
    found = values.astype(np.float32)
    if kind == "probabilities" and ((found < 0) | (found > 1)).any():
        raise ModelError(
            f"{where}: returned numbers from {found.min():.3g} to {found.max():.3g}, and "
            "probabilities before or by `output`. Probabilities lie in [0, 1]; a function returns "
            "one kind. Return logits or probabilities alone, and say `output=` which."
        )
    return _Read(found, kind)


def _guessed(values: NDArray[Any], kind: str | None, where: str) -> _Read:
    """Numbers that say themselves what they are."""
    if values.dtype.kind == "b":
        return _Read(values.astype(np.float32), "mask")
    least, most = float(values.min()), float(values.max())
    if not math.isfinite(least + most):
        return _Read(values.astype(np.float32), "broken")  # the engine says for which prompt
    held = set(np.unique(values[:: max(1, len(values) // 64)]).tolist()) | {least, most}
    if held <= {0, 1} and bool(np.isin(values, (0, 1)).all()):
        return _Read(values.astype(np.float32), "mask")
    if held <= {0, 255} and bool(np.isin(values, (0, 255)).all()):
        return _Read((values > 0).astype(np.float32), "mask")
    if kind == "mask" and len(np.unique(values)) <= 2 and 0 in (least, most):
        return _Read((values != 0).astype(np.float32), "mask")
    if values.dtype.kind == "f" and kind != "mask":
        if least >= 0 and most <= 1:
            return _Read(values.astype(np.float32), "probabilities")
        if least < 0:
            return _Read(values.astype(np.float32), "logits")
    raise ModelError(
        f"{where}: returned {values.dtype} from {least:g} to {most:g}: neither a mask (bool, 0 and "
        "1, 0 and 255) nor probabilities (decimal, in [0, 1]) nor logits (decimal, of both signs). "
        "Return one of these; or say which it is: `output='logits'`, 'probabilities' or 'mask'."
    )
