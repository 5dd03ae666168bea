"""Opens picture files: one place where strangers' bytes meet a decoder.

Conventions: a file is read by what it holds, whatever its name says, and only as one of
`FORMATS`: Pillow would start an interpreter for others. What comes out has its stored
orientation unless the card says otherwise.

Memory: up to `LARGE_PIXELS` files are read side by side by as many threads as ask; of larger
ones one at a time in the whole process. A picture of `MAX_PIXELS` takes at most 14 bytes a pixel
while it is read, 1.4 GB (what the allocator holds back included), however many readers wait.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

from PIL import Image, TiffImagePlugin

from harness.errors import DataError, EncodingError
from harness.records import Reading

# A hostile header must not allocate gigabytes; no set of the paper comes near this.
MAX_PIXELS = 100_000_000
LARGE_PIXELS = 4_000_000

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "DIB", "GIF", "WEBP", "JPEG2000", "PPM")
"""What is read. Encapsulated PostScript, for one, would run a program."""

_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_UNDONE = _TURNS | {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}

Result = TypeVar("Result")
_one_large = threading.Lock()


def with_picture(
    path: Path, kind: str, reading: Reading, use: Callable[[Image.Image, int], Result]
) -> Result:
    """What `use` makes of a decoded file; the picture must not outlive the call.

    `use` takes the loaded picture, oriented as `reading` says, with the attributes its file gave
    it, and the bits of a channel in the file, which Pillow may have cut to 8. `kind` is ``image``
    or ``mask``.

    Raises:
        DataError: The file is missing, no picture, cut short, damaged, of several frames, or
            larger than `MAX_PIXELS`.
        EncodingError: It has an orientation tag, and the card does not say what that means.
    """
    with ExitStack() as held:
        with _decoder_errors(path, kind):
            picture = held.enter_context(Image.open(path, formats=FORMATS))
            n_pixels = picture.width * picture.height
            if n_pixels > MAX_PIXELS:
                raise DataError(
                    f"{path}: the {kind} has {picture.width} x {picture.height} pixels. At most "
                    f"{MAX_PIXELS} are read. Scale the file down."
                )
            if n_pixels > LARGE_PIXELS:
                held.enter_context(_one_large)
                held.callback(picture.close)  # before the next one begins
            _refuse_frames(picture, path, kind)
            tag = _orientation(picture)
            if tag != 1 and reading.orientation is None:
                raise EncodingError(
                    f"{path}: the {kind} has the orientation tag {tag}: viewers turn it, and "
                    "whether the masks were drawn on the stored or on the turned pixels is not "
                    "known. Write `orientation: stored` or `orientation: displayed` on the "
                    "dataset's card."
                )
            depth = _depth(picture)
            picture.load()
            turned = _turned(picture, tag, reading)
        return use(turned, depth)


@contextmanager
def _decoder_errors(path: Path, kind: str) -> Iterator[None]:
    """Whatever a decoder raises on a damaged or odd file becomes a `DataError`.

    Pillow's decoders raise ValueError, struct.error, EOFError, KeyError, IndexError, TypeError,
    zlib.error, MemoryError and more, depending on the format and the byte: no list of them
    would stay complete.
    """
    try:
        yield
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(
            f"{path}: the {kind} is missing. Every annotation row needs its {kind} at this path. "
            "Add the file or remove the row."
        ) from None
    except Exception as problem:  # noqa: BLE001, at this boundary: see above
        why = str(problem).strip() or type(problem).__name__
        raise DataError(
            f"{path}: the {kind} cannot be decoded ({why[:200]}). A whole PNG, JPEG or TIFF file "
            "is needed. Copy the file again or remove its row."
        ) from None


def _refuse_frames(picture: Image.Image, path: Path, kind: str) -> None:
    # The second picture of an MPO is a camera's preview or depth.
    n_frames = 1 if picture.format == "MPO" else getattr(picture, "n_frames", 1)
    if n_frames > 1:
        raise EncodingError(
            f"{path}: the {kind} has {n_frames} frames. Which of them is meant is not known. "
            "Export that one as a file of its own."
        )


def _depth(picture: Image.Image) -> int:
    """Bits of one channel in the file; Pillow keeps the upper 8 of 16-bit colour without a word."""
    if picture.mode in {"I", "F"}:
        return 32
    if picture.mode.startswith("I;"):
        return 16
    raw = [one for tile in getattr(picture, "tile", []) for one in _flat(tile[3])]
    if picture.format == "PPM":
        return 16 if any(isinstance(one, int) and one > 255 for one in raw) else 8
    return 16 if any(";16" in one for one in raw if isinstance(one, str)) else 8


def _flat(arguments: object) -> tuple[object, ...]:
    return arguments if isinstance(arguments, tuple) else (arguments,)


def _orientation(picture: Image.Image) -> int:
    """The orientation tag; 1 where there is none, or none that a viewer would follow."""
    tag = picture.getexif().get(_ORIENTATION, 1)
    return tag if tag in _TURNS else 1


def _turned(picture: Image.Image, tag: int, reading: Reading) -> Image.Image:
    if tag == 1:
        return picture
    # Pillow turns TIFF while loading, and no other format.
    is_turned = isinstance(picture, TiffImagePlugin.TiffImageFile)
    if is_turned == (reading.orientation == "displayed"):
        return picture
    turned = picture.transpose((_UNDONE if is_turned else _TURNS)[tag])
    turned.format = picture.format
    turned.info = dict(picture.info)
    return turned
