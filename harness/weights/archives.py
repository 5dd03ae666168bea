"""Reads the two formats of ``torch.save`` without executing what is pickled in them.

A ``.ckpt`` of Lightning holds, beside its tensors, losses, ``functools.partial`` and optimizers.
`harness.files.pickles` reads them as data; only functions that rebuild tensors have a meaning
here. Tensors are described first and read when asked for; what is allocated is bounded by the size
of the file. Since torch 1.6 a file is a zip archive of ``<root>/data.pkl`` and
``<root>/data/<key>``, stored without compression; before, five pickles (magic number, version,
system, content, keys) and each storage after its count as a 64-bit integer
(``torch/serialization.py``).
"""

import contextlib
import io
import itertools
import math
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from harness.errors import CheckpointError
from harness.files.pickles import DAMAGE, Name, Unknown, read_pickle

_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
}
_MAGIC = 0x1950A86A20F9469CFC6C
# Checkpoints describe a thousand tensors in half a megabyte; the reader's values take sixty
# times the bytes that describe them.
PICKLE_LIMIT = 32 << 20
_MOST_AXES = 64
_STATE_KEYS = ("state_dict", "model_state_dict", "model")
# Trainers nest a few dozen states three deep; what a hostile file nests is not followed on.
_STATE_DEPTH = 8
_MOST_PLACES = 10_000
_LONGEST_NAME = 200


@dataclass(frozen=True)
class _Storage:
    """A block of numbers of the file, not read yet."""

    key: str
    dtype: torch.dtype


@dataclass(frozen=True)
class _Tensor:
    """A tensor of the file, not read yet; its parts are as the file gives them."""

    storage: Any
    offset: Any
    size: Any
    stride: Any


@dataclass(frozen=True)
class _Unread:
    """A tensor of a kind that is not read, such as a sparse one."""

    kind: str


_State = dict[str, "_Tensor | _Unread"]


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> _Tensor:
    return _Tensor(storage, offset, size, stride)


def _parameter(data: Any, *_: Any) -> Any:
    return data


def _dictionary(*_: Any) -> dict[str, Any]:
    return {}


def _from_type(function: Any, _: Any, arguments: Any, *__: Any) -> Any:
    """A tensor that carries attributes of its own, which are forgotten."""
    known = isinstance(function, Name) and (function.module, function.name) in _TENSORS
    return _TENSORS[function.module, function.name](*arguments) if known else Unknown()


_TENSORS: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
}
_BUILDERS = {
    **_TENSORS,
    ("torch._tensor", "_rebuild_from_type_v2"): _from_type,
    ("collections", "OrderedDict"): _dictionary,
    ("collections", "defaultdict"): _dictionary,
}


def _persistent(pid: Any) -> _Storage | Unknown:
    match pid:
        case ("storage", Name("torch", kind), str() as key, _, _, *view) if kind in _DTYPES:
            # Before torch 0.4 a storage could be a view of another one.
            return _Storage(key, _DTYPES[kind]) if view in ([], [None]) else Unknown()
    return Unknown()


def _unpickle(stream: io.BytesIO) -> Any:
    return read_pickle(stream, builders=_BUILDERS, persistent=_persistent)


class Archive:
    """The tensors of a file; `get` reads one.

    `states` names the keys of every dictionary of tensors in the file by its dotted
    place, such as ``state_dict``; the place of the file's top is empty. The first is
    the one that is meant where nothing else is said.
    """

    def __init__(
        self, states: Mapping[str, _State], read_block: Callable[[_Storage], bytearray], path: Path
    ) -> None:
        self.states: Mapping[str, Collection[str]] = states
        self._described, self._read_block, self._path = states, read_block, path
        self._blocks: dict[str, bytearray] = {}

    def shape(self, state: str, key: str) -> tuple[int, ...]:
        """The shape that the file says; none of its numbers is read."""
        described = self._described[state][key]
        size = () if isinstance(described, _Unread) else described.size
        if not isinstance(size, tuple) or not all(type(n) is int and n >= 0 for n in size):
            raise ValueError("a tensor of no size")
        return size

    def get(self, state: str, key: str) -> torch.Tensor:
        """One tensor, on the CPU; tensors that share numbers in the file share them here."""
        described = self._described[state][key]
        if isinstance(described, _Unread):
            raise CheckpointError(
                f"{self._path}: the tensor {key[:120]!r} is of a kind that is not read "
                f"({described.kind[:60]!r}). Dense tensors of numbers are read. Save the model "
                "without sparse, quantised or nested tensors."
            )
        storage = described.storage
        if not isinstance(storage, _Storage):
            raise ValueError("a tensor without numbers")
        if storage.key not in self._blocks:
            self._blocks[storage.key] = self._read_block(storage)
        block = self._blocks[storage.key]
        offset, size, stride = described.offset, described.size, described.stride
        _check_extent(offset, size, stride, available=len(block) // storage.dtype.itemsize)
        if math.prod(size) == 0:
            return torch.empty(size, dtype=storage.dtype)
        return torch.frombuffer(block, dtype=storage.dtype).as_strided(size, stride, offset)


def is_zip(head: bytes) -> bool:
    """Whether a file that begins so is a zip archive."""
    return head.startswith(b"PK\x03\x04")


def is_legacy(head: bytes) -> bool:
    """Whether a file that begins so was written by torch before 1.6."""
    return head.startswith(b"\x80") and _MAGIC.to_bytes(10, "little") in head[:24]


@contextlib.contextmanager
def open_zip(path: Path) -> Iterator[Archive]:
    """The tensors of a model saved by ``torch.save`` or Lightning.

    Those under ``state_dict``, ``model_state_dict`` and ``model`` come first, then those at the
    top, then what lies elsewhere, such as averaged weights.
    """
    with _readable(path), zipfile.ZipFile(path) as archive:
        root = _root(archive, path)
        if archive.getinfo(f"{root}data.pkl").file_size > PICKLE_LIMIT:
            raise CheckpointError(
                f"{path}: its pickle is longer than {PICKLE_LIMIT >> 20} MiB. Tensors lie beside "
                "the pickle, which only describes them. Save the model's state_dict() alone."
            )
        content = _unpickle(io.BytesIO(archive.read(f"{root}data.pkl")))
        yield Archive(
            _states(content, path),
            lambda storage: bytearray(archive.read(f"{root}data/{storage.key}")),
            path,
        )


@contextlib.contextmanager
def open_legacy(path: Path) -> Iterator[Archive]:
    """The tensors of a file that torch wrote before 1.6; the same places are looked at."""
    with _readable(path), path.open("rb") as file:
        stream = io.BytesIO(file.read(PICKLE_LIMIT))
        if _unpickle(stream) != _MAGIC or _unpickle(stream) != 1001:
            raise ValueError("the numbers at its head are not torch's")
        system = _unpickle(stream)
        if not isinstance(system, dict) or system.get("little_endian") is not True:
            raise _big_endian(path)
        storages: dict[str, _Storage] = {}
        content = read_pickle(stream, builders=_BUILDERS, persistent=_noting(storages))
        places = _places(_unpickle(stream), storages, start=stream.tell(), path=path)

        def read_block(storage: _Storage) -> bytearray:
            start, length = places[storage.key]
            file.seek(start)
            return bytearray(file.read(length))

        yield Archive(_states(content, path), read_block, path)


def _noting(storages: dict[str, _Storage]) -> Callable[[Any], _Storage | Unknown]:
    """`_persistent`, which also notes every storage by its key."""

    def persistent(pid: Any) -> _Storage | Unknown:
        found = _persistent(pid)
        if isinstance(found, _Storage):
            storages[found.key] = found
        return found

    return persistent


def _places(
    keys: Any, storages: Mapping[str, _Storage], *, start: int, path: Path
) -> dict[str, tuple[int, int]]:
    """Where the numbers of each storage lie in an old file: first byte and length."""
    end, places = path.stat().st_size, {}
    if not isinstance(keys, list):
        raise ValueError("no list of storages")
    with path.open("rb") as file:
        for key in keys:
            file.seek(start)
            count = int.from_bytes(file.read(8), "little")
            length = count * storages[key].dtype.itemsize
            if start + 8 + length > end:
                raise ValueError(f"a storage of {count} numbers ends behind the file")
            places[key] = (start + 8, length)
            start += 8 + length
    return places


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn what a damaged file causes into one error."""
    try:
        yield
    except (*DAMAGE, zipfile.BadZipFile, RuntimeError, NotImplementedError, MemoryError) as problem:
        # A hostile file decides what stands in the message, and how long it is.
        reason = " ".join(str(problem)[:120].split())
        raise CheckpointError(
            f"{path}: the file is damaged or cut short ({type(problem).__name__}: {reason}). "
            "A whole file written by torch.save or Lightning is needed. Copy it again."
        ) from None


def _root(archive: zipfile.ZipFile, path: Path) -> str:
    """The prefix of all names; refuses what could grow beyond the file's size."""
    entries = archive.infolist()
    if any(e.compress_type != zipfile.ZIP_STORED for e in entries):
        raise CheckpointError(
            f"{path}: the archive is compressed. torch.save stores without compression. "
            "Save the checkpoint again with torch.save."
        )
    if sum(e.file_size for e in entries) > path.stat().st_size:
        raise CheckpointError(
            f"{path}: the entries of the archive overlap. Each must have bytes of its own. "
            "Do not use this file: torch.save does not write such archives."
        )
    names = [e.filename for e in entries]
    roots = [n.removesuffix("data.pkl") for n in names if n.endswith("data.pkl")]
    if len(roots) != 1 or f"{roots[0]}constants.pkl" in names:
        kinds = {0: "no 'data.pkl'", 1: "a TorchScript program"}
        kind = kinds.get(len(roots), f"{len(roots)} entries named 'data.pkl'")
        raise CheckpointError(
            f"{path}: the archive holds {kind}. A checkpoint of tensors is needed. "
            "Save the model's state_dict() with torch.save or safetensors."
        )
    if f"{roots[0]}byteorder" in names and archive.read(f"{roots[0]}byteorder") != b"little":
        raise _big_endian(path)
    return roots[0]


def _big_endian(path: Path) -> CheckpointError:
    return CheckpointError(
        f"{path}: the numbers are stored big-endian. Little-endian files are read. "
        "Save the model again on a little-endian machine."
    )


def _states(content: Any, path: Path) -> dict[str, _State]:
    """Every dictionary or list of tensors in the file, the most usual place first."""
    found = dict(_walk(content))
    if not found:
        raise CheckpointError(
            f"{path}: the file holds no tensors under 'state_dict' or at its top"
            f"{_whole(content)}. A model's state_dict is needed. Save the model's state_dict(), "
            "not only its settings or the whole object."
        )
    first = [place for place in (*_STATE_KEYS, "") if place in found]
    return {place: found[place] for place in dict.fromkeys((*first, *found))}


def _walk(content: Any) -> Iterator[tuple[str, _State]]:
    """Places that hold tensors; shared parts are entered once, so that none is written out."""
    waiting, seen = [("", content, 0)] * isinstance(content, dict | list), set[int]()
    for place, value, depth in waiting:
        if id(value) in seen:
            continue
        seen.add(id(value))
        items = value if isinstance(value, dict) else _listed(value)
        if state := {key: tensor for key, item in items.items() if (tensor := _known(item))}:
            yield place, state
        inner = (
            (f"{place}.{key}".removeprefix("."), item, depth + 1)
            for key, item in items.items()
            if isinstance(item, dict | list) and len(key) <= _LONGEST_NAME
        )
        if depth < _STATE_DEPTH:
            waiting.extend(itertools.islice(inner, _MOST_PLACES - len(waiting)))


def _listed(values: list[Any]) -> dict[str, Any]:
    """A list of nothing but tensors, by their numbers: averages are kept so."""
    whole = all(isinstance(value, _Tensor) for value in values)
    return {str(number): value for number, value in enumerate(values)} if whole else {}


def _known(value: Any) -> _Tensor | _Unread | None:
    """A tensor, even of a kind that is not read: it must not vanish from a state unseen."""
    if isinstance(value, _Tensor):
        return value
    maker = value.made_by if isinstance(value, Unknown) else None
    is_tensor = maker and maker.module.startswith("torch._") and maker.name.startswith("_rebuild")
    return _Unread(maker.name) if maker and is_tensor else None


def _whole(content: Any) -> str:
    """Names the object that was pickled whole, where a state dict should be."""
    inner = [content.get(key) for key in _STATE_KEYS] if isinstance(content, dict) else []
    places = [content, *inner]
    makers = [place.made_by for place in places if isinstance(place, Unknown) and place.made_by]
    return f" but the object {f'{makers[0].module}.{makers[0].name}'[:80]!r}" if makers else ""


def _check_extent(offset: Any, size: Any, stride: Any, *, available: int) -> None:
    """Refuse a tensor beyond its numbers. Nothing that is not a number gets into a message."""
    if not (isinstance(size, tuple) and isinstance(stride, tuple)):
        raise ValueError("a tensor without size or stride")
    # More axes than torch has would make the product below as long as the file.
    if len(size) != len(stride) or len(size) > _MOST_AXES:
        raise ValueError(f"a tensor of {len(size)} sizes and {len(stride)} strides")
    if not all(type(n) is int and 0 <= n < 1 << 62 for n in (offset, *size, *stride)):
        raise ValueError("a tensor whose size, stride or offset is no count")
    count = math.prod(size)
    last = offset + sum((s - 1) * step for s, step in zip(size, stride, strict=True))
    # A stride of 0 would let a small file claim a huge tensor.
    if count and (last >= available or count > available):
        raise ValueError(f"a tensor of {count} numbers in a block of {available}")
