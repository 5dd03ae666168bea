"""Masks that another program made for the cases of a plan, found by case id.

A folder holds, side by side or mixed:

- pictures named by their case: ``<case_id>.png``, or ``<case_id>-<repeat>.png``;
- ``*.jsonl``: a JSON object a line, ``{"case_id": ..., "segmentation": <COCO run lengths>}``, with
  ``repeat`` where a case has several answers;
- ``*.npz``: two-dimensional arrays, named as pictures are without their ending;
- ``answers.csv``: the columns ``case_id``, ``file`` and, if wanted, ``repeat``: pictures under
  other names, below the folder.

Conventions: a case id is the plan's whole number, as a number or as text. Repeats are whole numbers
from 0. A mask is ``(H, W)`` bool; what of it is foreground is decided as for masks of data sets
(`harness.data.foreground`). Everything comes from strangers: no path leaves the folder, arrays are
read without unpickling and no larger than their file says, sizes are bounded.
"""

import hashlib
import io
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.data.decoding import MAX_PIXELS
from harness.data.foreground import Foreground, foreground
from harness.data.images import look_at_mask
from harness.data.rle import decode_rle
from harness.data.table_files import READERS
from harness.errors import DataError, EncodingError
from harness.files import inside
from harness.files.canonical import parse_json
from harness.records import BY_CONTENT, Reading

PICTURES = (".png", ".bmp", ".tif", ".tiff", ".jpg", ".jpeg")
TABLE = "answers.csv"
_STEM = re.compile(r"(\d{1,20})(?:-(\d{1,4}))?")
_MOST_REPEATS = 1000
_MOST_ANSWERS = 5_000_000
_LONGEST_LINE = 64 << 20
# A deflated array of zeros is a thousand times its file; whoever unfolds more means harm.
_MOST_ARRAY_BYTES = 8 * MAX_PIXELS

Key = tuple[int, int]
"""Case id and repeat."""


@dataclass(frozen=True)
class Answer:
    """One mask of a folder: where it is, what its bytes are, and how they are read."""

    where: str
    content: Callable[[], bytes] = field(repr=False)
    read: Callable[[Reading], Foreground] = field(repr=False)


@dataclass(frozen=True)
class Answers:
    """The masks of a folder by case and repeat; `strange` are names that are no case's."""

    folder: Path
    reading: Reading
    found: Mapping[Key, Answer]
    strange: tuple[str, ...]

    @property
    def n_repeats(self) -> int:
        """Answers of the case that has most."""
        return 1 + max((repeat for _, repeat in self.found), default=0)

    def mask(self, key: Key) -> Foreground:
        """The mask of a case, and how it was read.

        Raises:
            DataError: It cannot be read, or what of it is foreground is not known.
        """
        answer = self.found[key]
        try:
            return answer.read(self.reading)
        except EncodingError as problem:
            # There is no card of predictions: the option says the same.
            text = str(problem).replace("`masks: ", "`")
            text = text.replace("on the dataset's card", "as --mask-rule RULE").replace(
                "the dataset's card", "--mask-rule"
            )
            text = text if text.startswith(answer.where) else f"{answer.where}: {text}"
            raise EncodingError(text) from None

    def sha256(self) -> str:
        """Hash of every answer's key and bytes, and of the rule by which they are read."""
        total = hashlib.sha256(repr(self.reading).encode())
        for key in sorted(self.found):
            try:
                content = self.found[key].content()
            except DataError as problem:  # its case says so
                content = str(problem).encode("utf-8", "replace")
            named = f"{key[0]} {key[1]} {hashlib.sha256(content).hexdigest()}\n"
            total.update(named.encode())
        return total.hexdigest()


@contextmanager
def opened(folder: Path, reading: Reading = BY_CONTENT) -> Iterator[Answers]:
    """Find the answers of a folder; files stay open until the end.

    Raises:
        DataError: The folder is missing, a file of it cannot be read, or a case is answered
            twice.
    """
    if not folder.is_dir():
        raise DataError(
            f"{folder}: no such folder. One with masks named by case id ('<case_id>.png'), or with "
            "'*.jsonl' or '*.npz', is needed. `vlsm-harness plan SUITE --export FOLDER` lists the "
            "cases."
        )
    found: dict[Key, Answer] = {}
    strange: list[str] = []
    with ExitStack() as held:
        for place, key, answer in _entries(folder, held):
            if key is None:
                strange.append(place)
            elif key in found:
                raise DataError(
                    f"{place}: case {key[0]} is answered twice (repeat {key[1]}), by this and by "
                    f"{found[key].where}. One mask a case and repeat is needed. Remove one, or "
                    "number them: '<case_id>-0.png', '<case_id>-1.png'."
                )
            else:
                found[key] = answer
            if len(found) > _MOST_ANSWERS:
                raise DataError(
                    f"{folder}: more than {_MOST_ANSWERS:,} answers. At most so many are read. "
                    "Score the plan in parts."
                )
        yield Answers(folder, reading, found, tuple(strange))


def _entries(folder: Path, held: ExitStack) -> Iterator[tuple[str, Key | None, Answer]]:
    """Every answer with its place and key; a key of None is no case's."""
    listed: set[str] = set()
    if (folder / TABLE).exists():
        for entry in _of_table(folder):
            listed.add(entry[2].where)
            yield entry
    for path in sorted(folder.iterdir()):
        suffix = path.suffix.lower()
        if path.name.startswith(".") or str(path) in listed or path.name == TABLE:
            continue
        if suffix in PICTURES:
            yield _of_picture(folder, path.name, _key_of(path.stem))
        elif suffix == ".jsonl":
            yield from _of_lines(inside(folder, path.name, where=str(folder)), held)
        elif suffix == ".npz":
            yield from _of_arrays(inside(folder, path.name, where=str(folder)), held)
        else:
            yield str(path), None, _of_picture(folder, path.name, None)[2]


def _key_of(stem: str) -> Key | None:
    named = _STEM.fullmatch(stem)
    return (int(named[1]), int(named[2] or 0)) if named else None


def _key(case: Any, repeat: Any, where: str) -> Key:
    """A case id and repeat of a table or line, both numbers or texts."""
    texts = [str(value).strip() for value in (case, repeat) if type(value) in (int, str)]
    if len(texts) != 2 or not all(text.isdecimal() and len(text) <= 20 for text in texts):
        raise DataError(
            f"{where}: found case_id {str(case)[:40]!r}, repeat {str(repeat)[:40]!r}. Both are "
            "whole numbers from 0; a program without 64-bit integers keeps case ids as text. "
            "Correct them."
        )
    if int(texts[1]) >= _MOST_REPEATS:
        raise DataError(
            f"{where}: repeat {texts[1]}. Repeats are numbered from 0, at most {_MOST_REPEATS}. "
            "Number them anew."
        )
    return int(texts[0]), int(texts[1])


def _of_picture(folder: Path, name: str, key: Key | None) -> tuple[str, Key | None, Answer]:
    place = folder / name

    def checked() -> Path:
        if "/" in name or place.is_symlink():  # a link may lead out of the folder
            inside(folder, name, where=str(folder))
        return place

    def content() -> bytes:
        return _plain_bytes(checked())

    return str(place), key, Answer(str(place), content, lambda r: look_at_mask(checked(), r))


def _plain_bytes(path: Path) -> bytes:
    """The bytes of a file; of something else or a broken link none, reading it tells why."""
    try:
        return path.read_bytes() if path.is_file() else b""
    except OSError:
        return b""


def _of_table(folder: Path) -> Iterator[tuple[str, Key | None, Answer]]:
    path = inside(folder, TABLE, where=str(folder))
    header = path.read_bytes()[:65536].partition(b"\n")[0].decode("utf-8-sig", "replace")
    has_repeat = "repeat" in [name.strip().strip('"') for name in header.split(",")]
    columns = ["case_id", "file"] + ["repeat"] * has_repeat
    for number, row in enumerate(READERS[".csv"](path, columns), start=2):
        where = f"{path}:{number}"
        key = _key(row[0] or "", (row[2] or "0") if has_repeat else "0", where)
        name = str(row[1] or "")
        if not name:
            raise DataError(f"{where}: no file. Each row names a mask. Fill the cell.")
        inside(folder, name, where=where)
        yield _of_picture(folder, name, key)


def _of_lines(path: Path, held: ExitStack) -> Iterator[tuple[str, Key | None, Answer]]:
    file = held.enter_context(path.open("rb"))
    place = 0
    for number in range(1, _MOST_ANSWERS + 1):
        line = file.readline(_LONGEST_LINE + 1)
        where, start, place = f"{path}:{number}", place, place + len(line)
        if len(line) > _LONGEST_LINE:
            raise DataError(
                f"{where}: longer than {_LONGEST_LINE:,} bytes. At most so many are read of a "
                "line. Write one object a line."
            )
        if not line:
            return
        if not line.strip():
            continue
        row = _object(line, where)
        key = _key(row.get("case_id"), row.get("repeat", 0), where)
        content = partial(_part, file, start, len(line))
        yield where, key, Answer(where, content, partial(_mask_of_line, content, where))
        file.seek(place)


def _part(file: IO[bytes], start: int, length: int) -> bytes:
    file.seek(start)
    return file.read(length)


def _object(line: bytes, where: str) -> dict[str, Any]:
    repair = 'A line reads {"case_id": ..., "segmentation": {"size": [h, w], "counts": ...}}.'
    row = parse_json(line, Path(where), error=DataError, repair=repair)
    if not isinstance(row, dict):
        raise DataError(f"{where}: found {type(row).__name__}, no object. {repair} Correct it.")
    return row


def _mask_of_line(content: Callable[[], bytes], where: str, _: Reading) -> Foreground:
    mask = _object(content(), where).get("segmentation")
    return Foreground(decode_rle(mask, where=where), "run lengths")


def _of_arrays(path: Path, held: ExitStack) -> Iterator[tuple[str, Key | None, Answer]]:
    try:
        archive = held.enter_context(zipfile.ZipFile(path))
        members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as problem:
        raise DataError(
            f"{path}: cannot be read ({problem}). A file of numpy.savez is needed. Write it again."
        ) from None
    for member in members:
        stem = member.filename.removesuffix(".npy")
        where = f"{path}: {stem[:80]!r}"
        content = partial(_member_bytes, archive, member, where)
        yield where, _key_of(stem), Answer(where, content, partial(_mask_of_array, content, where))


def _member_bytes(archive: zipfile.ZipFile, member: zipfile.ZipInfo, where: str) -> bytes:
    if member.file_size > _MOST_ARRAY_BYTES:
        raise DataError(
            f"{where}: unfolds to {member.file_size:,} bytes. At most {_MOST_ARRAY_BYTES:,} are "
            "read. Write masks as bool or uint8."
        )
    try:
        with archive.open(member) as file:
            return file.read(_MOST_ARRAY_BYTES + 1)[:_MOST_ARRAY_BYTES]
    # zlib and zipfile raise a dozen kinds on damaged bytes, encrypted or unknown members.
    except Exception as problem:  # noqa: BLE001 - at this boundary, as in `harness.data.decoding`
        raise DataError(
            f"{where}: cannot be read ({str(problem)[:120]}). A file of numpy.savez is needed. "
            "Write it again."
        ) from None


def _mask_of_array(content: Callable[[], bytes], where: str, reading: Reading) -> Foreground:
    values = _array(content(), where)
    if values.ndim == 3 and values.shape[0] == 1:
        values = values[0]
    kind = values.dtype.kind
    if values.ndim != 2 or kind not in "biuf" or 0 in values.shape:
        raise DataError(
            f"{where}: an array of {values.dtype} {values.shape}. A mask (height, width) of bool, "
            "whole or decimal numbers is needed. Write one array a case."
        )
    if kind == "b":
        return Foreground(values.astype(np.bool_), "bool")
    return foreground(_picture_of(values, where), reading, depth=min(32, 8 * values.itemsize))


def _array(content: bytes, where: str) -> NDArray[Any]:
    """An array of ``.npy`` bytes; what its header claims is compared with what is there."""
    file = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0}.get(
            version, np.lib.format.read_array_header_2_0
        )
        shape, fortran, dtype = read(file)
        n_items = int(np.prod(shape, dtype=object)) if shape else 1
        if dtype.hasobject or n_items * dtype.itemsize != len(content) - file.tell():
            raise ValueError("the header does not fit what follows it")
        flat = np.frombuffer(content, dtype=dtype, offset=file.tell())
        return flat.reshape(shape, order="F" if fortran else "C")
    # numpy's header is Python text, of which nearly every exception can come.
    except Exception as problem:  # noqa: BLE001 - at this boundary
        raise DataError(
            f"{where}: no array ({str(problem)[:120]}). An array of numbers as numpy.save writes it"
            ", without objects, is needed. Write it again."
        ) from None


def _picture_of(values: NDArray[Any], where: str) -> Image.Image:
    """Numbers as a grey picture, so that the rules for masks apply to them."""
    if values.size > MAX_PIXELS:
        raise DataError(
            f"{where}: the mask has {values.shape[1]} x {values.shape[0]} pixels. At most "
            f"{MAX_PIXELS} are read. Scale it down."
        )
    if values.dtype.kind == "f":
        return Image.fromarray(np.ascontiguousarray(values, dtype=np.float32))
    if values.dtype.itemsize <= 2 and values.dtype.kind == "u":
        return Image.fromarray(np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("=")))
    low, high = int(values.min()), int(values.max())
    if low < -(2**31) or high >= 2**31:
        raise DataError(
            f"{where}: whole numbers from {low} to {high}. At most 32 bits are read. Write masks "
            "as bool or uint8."
        )
    return Image.fromarray(np.ascontiguousarray(values, dtype=np.int32))
