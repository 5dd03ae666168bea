"""Reads torch's zip archives without executing what is pickled in them.

A ``.ckpt`` of Lightning holds, beside its tensors, pickled objects: the
reference's carry MONAI losses, ``functools.partial`` and optimizers. The pickle
is run on a machine that knows tensors and plain containers only; every other
global name becomes `Inert`, an object whose construction, call, state and items
do nothing. No name in the file is ever imported.

Conventions: tensors are described first and read when asked for, so optimizer
states cost nothing. What is allocated is bounded by the size of the file.

Sources: the format is that of ``torch.save`` since torch 1.6 (``<root>/data.pkl``
and ``<root>/data/<key>``, stored without compression).
"""

import io
import math
import pickle
import pickletools
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch

from harness.errors import CheckpointError

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
}
# Extensions and out-of-band buffers reach outside the file; BYTEARRAY8 allocates before it reads.
_REFUSED_OPCODES = {"EXT1", "EXT2", "EXT4", "NEXT_BUFFER", "READONLY_BUFFER", "BYTEARRAY8"}
_DAMAGE = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    struct.error,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    OverflowError,
    RuntimeError,
)


class Inert:
    """Stands in for every object the reader does not know; all it is told is forgotten."""

    def __new__(cls, *_: Any, **__: Any) -> Self:
        """An object of no content."""
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __call__(self, *_: Any, **__: Any) -> "Inert":
        """A further object of no content: calls do nothing."""
        return Inert()

    def __setstate__(self, state: Any) -> None: ...

    def __setitem__(self, key: Any, value: Any) -> None: ...

    def append(self, item: Any) -> None:
        """Forget one item of a pickled list."""

    def extend(self, items: Any) -> None:
        """Forget several items of a pickled list."""

    def add(self, item: Any) -> None:
        """Forget one item of a pickled set."""


class _Dict(dict[Any, Any]):
    """In place of OrderedDict: keeps items, forgets attributes (state dicts pickle `_metadata`)."""

    def __init__(self, *_: Any) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None: ...


class _Storage:
    """A block of numbers of the archive, not read yet."""

    def __init__(self, key: str, dtype: torch.dtype) -> None:
        self.key, self.dtype = key, dtype


class _Tensor:
    """A tensor of the archive, not read yet."""

    def __init__(
        self, storage: Any = None, offset: Any = 0, size: Any = (), stride: Any = (), *_: Any
    ):
        self.storage, self.offset, self.size, self.stride = storage, offset, size, stride

    def __setstate__(self, state: Any) -> None: ...


class _Parameter:
    """In place of the function that wraps a tensor as a parameter: gives the tensor back."""

    def __new__(cls, data: Any = None, *_: Any) -> Any:
        return data

    # Defined on every stand-in, so that a pickle cannot set attributes of the class itself.
    def __setstate__(self, state: Any) -> None: ...


_KNOWN: Mapping[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): _Dict,
    ("torch._utils", "_rebuild_tensor_v2"): _Tensor,
    ("torch._utils", "_rebuild_tensor"): _Tensor,
    ("torch._utils", "_rebuild_parameter"): _Parameter,
    **{("torch", name): type(name, (Inert,), {"dtype": dtype}) for name, dtype in _DTYPES.items()},
}


class _Reader(pickle.Unpickler):
    """A pickle machine that imports nothing."""

    def find_class(self, module: str, name: str) -> Any:
        return _KNOWN.get((module, name), Inert)

    def persistent_load(self, pid: Any) -> Any:
        match pid:
            case ("storage", type() as kind, str() as key, *_) if "dtype" in vars(kind):
                return _Storage(key, vars(kind)["dtype"])
        return Inert()


def is_archive(path: Path) -> bool:
    """Whether the file starts like a zip archive."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def read_archive(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a model saved by ``torch.save`` or Lightning, on the CPU.

    They are looked for under ``state_dict``, ``model_state_dict`` and ``model``,
    then at the top.

    Raises:
        CheckpointError: The archive is cut short, damaged, compressed, a
            TorchScript program, or holds no tensor.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            root = _root(archive, path)
            content = _unpickle(archive.read(f"{root}data.pkl"), path)
            described = _state(content, path)
            blocks: dict[str, bytearray] = {}
            return {k: _materialise(t, archive, root, blocks) for k, t in described.items()}
    except _DAMAGE as problem:
        raise CheckpointError(
            f"{path}: the archive is damaged or cut short ({type(problem).__name__}: {problem}). "
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
        kind = "a TorchScript program" if roots else "no 'data.pkl'"
        raise CheckpointError(
            f"{path}: the archive holds {kind}. A checkpoint of tensors is needed. "
            "Save the model's state_dict() with torch.save or safetensors."
        )
    if f"{roots[0]}byteorder" in names and archive.read(f"{roots[0]}byteorder") != b"little":
        raise CheckpointError(
            f"{path}: the numbers are stored big-endian. Little-endian files are read. "
            "Save the model again on a little-endian machine."
        )
    return roots[0]


def _unpickle(data: bytes, path: Path) -> Any:
    """Run the pickle after its opcodes were checked for what allocates or reaches outside."""
    for opcode, argument, _ in pickletools.genops(data):
        huge = "PUT" in opcode.name and isinstance(argument, int) and argument > len(data)
        if opcode.name in _REFUSED_OPCODES or huge:
            raise CheckpointError(
                f"{path}: the pickle uses the opcode {opcode.name}, which no checkpoint needs. "
                "Tensors and plain containers are read. Save the state_dict() alone."
            )
    return _Reader(io.BytesIO(data)).load()


def _state(content: Any, path: Path) -> dict[str, _Tensor]:
    if isinstance(content, dict):
        inner = [content.get(key) for key in ("state_dict", "model_state_dict", "model")]
        for mapping in [*(m for m in inner if isinstance(m, dict)), content]:
            found = {
                k: v for k, v in mapping.items() if isinstance(k, str) and isinstance(v, _Tensor)
            }
            if found:
                return found
    raise CheckpointError(
        f"{path}: the archive holds no tensors under 'state_dict' or at its top. "
        "A model's state_dict is needed. Save the model, not only its settings."
    )


def _materialise(
    described: _Tensor, archive: zipfile.ZipFile, root: str, blocks: dict[str, bytearray]
) -> torch.Tensor:
    storage = described.storage
    if not isinstance(storage, _Storage):
        raise ValueError("a tensor without numbers")
    if storage.key not in blocks:
        blocks[storage.key] = bytearray(archive.read(f"{root}data/{storage.key}"))
    block = blocks[storage.key]
    offset, size, stride = described.offset, tuple(described.size), tuple(described.stride)
    _check_extent(offset, size, stride, available=len(block) // storage.dtype.itemsize)
    if math.prod(size) == 0:
        return torch.empty(size, dtype=storage.dtype)
    return torch.frombuffer(block, dtype=storage.dtype).as_strided(size, stride, offset)


def _check_extent(
    offset: Any, size: tuple[Any, ...], stride: tuple[Any, ...], *, available: int
) -> None:
    numbers = (offset, *size, *stride)
    if len(size) != len(stride) or not all(type(n) is int and n >= 0 for n in numbers):
        raise ValueError(f"a tensor of size {size}, stride {stride}, offset {offset}")
    count = math.prod(size)
    last = offset + sum((s - 1) * step for s, step in zip(size, stride, strict=True))
    # A stride of 0 would let a small file claim a huge tensor.
    if count and (last >= available or count > available):
        raise ValueError(f"a tensor of {count} numbers in a block of {available}")
