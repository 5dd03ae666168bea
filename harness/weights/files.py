"""Finds the files of weights that a path means, and names them by their content.

Conventions: hashes are lower-case hexadecimal SHA-256. A model in one file has the
file's hash; one in shards that of the lines ``<hash>  <name>`` of its shards in the
order of their names, which is what ``sha256sum model-*.safetensors | sha256sum``
prints. A folder's links are followed, since the hub's cache consists of them; the
names that an index gives are not paths.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from harness.errors import CheckpointError
from harness.files import name_problem

SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
# What a folder in a hub's format may hold, best first; an index stands for its shards.
FOLDER_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "open_clip_model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "open_clip_pytorch_model.bin",
    "model.ckpt",
)
_INDEX = ".index.json"


class WeightFiles(NamedTuple):
    """One model's files; `file_of` says which key lies in which shard, None for one file."""

    paths: tuple[Path, ...]
    file_of: dict[str, Path] | None = None


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, lower-case hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def weights_sha256(path: Path) -> str:
    """The hash of a model's weights, in one file or in shards."""
    paths = weight_files(path).paths
    if len(paths) == 1:
        return file_sha256(paths[0])
    lines = (f"{file_sha256(shard)}  {shard.name}\n" for shard in paths)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def split_choice(path: Path) -> tuple[Path, str | None]:
    """``FILE#ema_state_dict`` -> the file, and which of its sets of weights is meant.

    A file whose own name has a ``#`` is meant as it is.
    """
    head, mark, choice = str(path).rpartition("#")
    return (Path(head), choice) if mark and not path.exists() else (path, None)


def weight_files(path: Path) -> WeightFiles:
    """The files of weights that `path` means, without what follows a ``#`` (`split_choice`).

    In a folder one of the hub's names is looked for, then a single file of any name with a known
    suffix.
    """
    path, _ = split_choice(path)
    if path.is_file():
        return _read_index(path) if path.name.endswith(_INDEX) else WeightFiles((path,))
    if not path.is_dir():
        raise CheckpointError(
            f"{path}: no such file or folder. A file of weights ({', '.join(SUFFIXES)}) or a "
            "folder with 'model.safetensors' is needed. Check the path."
        )
    for name in FOLDER_FILES:
        if (path / name).is_file():
            return weight_files(path / name)
    return WeightFiles((_only_file(path),))


def _only_file(folder: Path) -> Path:
    files = [p for p in folder.iterdir() if p.suffix in SUFFIXES and p.is_file()]
    if len(files) == 1:
        return files[0]
    if files:
        raise CheckpointError(
            f"{folder}: the folder holds {_some(p.name for p in files)}. Only one of them can be "
            "meant. Give the file's own path."
        )
    raise CheckpointError(
        f"{folder}: the folder holds {_some(p.name for p in folder.iterdir())}. One of "
        f"{', '.join(map(repr, FOLDER_FILES))} or a single file of weights "
        f"({', '.join(SUFFIXES)}) is needed. Check the path."
    )


def _some(names: Iterable[str]) -> str:
    found = sorted(map(repr, names))
    return (
        ", ".join(found[:8]) + (f" and {len(found) - 8} more" if len(found) > 8 else "")
        or "nothing"
    )


def _read_index(path: Path) -> WeightFiles:
    """The shards of an index in the hub's format, ``{"weight_map": {key: file}}``."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        names = content["weight_map"]
        pairs = [(str(key), str(name)) for key, name in names.items()]
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError) as problem:
        raise CheckpointError(
            f"{path}: not an index of shards ({type(problem).__name__}). JSON with 'weight_map', "
            "the file of each key, is needed. Copy the file again."
        ) from None
    for key, name in pairs:
        is_plain = Path(name).name == name and "\\" not in name and not name_problem(name)
        if not is_plain or Path(name).suffix not in SUFFIXES:
            raise CheckpointError(
                f"{path}: weight_map: {key[:120]!r} lies in {name[:120]!r}. The name of a file of "
                "weights in the same folder is needed. Do not use this folder: no library writes "
                "such an index."
            )
    shards = {name: path.parent / name for _, name in pairs}
    absent = sorted(name for name, shard in shards.items() if not shard.is_file())
    if absent or not shards:
        raise CheckpointError(
            f"{path}: {len(absent)} of {len(shards)} shards are not there, first "
            f"{absent[0] if absent else None!r}. All that the index names must lie beside it. "
            "Copy them."
        )
    paths = tuple(shards[name] for name in sorted(shards))
    return WeightFiles(paths, {key: shards[name] for key, name in pairs})
