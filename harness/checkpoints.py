"""Reads files of weights safely and fits them to a model.

Conventions: tensors come back on the CPU in the file's dtype; keys are those of
``state_dict()``. A file's content decides how it is read, not its name. No file is
ever executed: safetensors cannot carry code, and what torch wrote is read by
`harness.archives`.
"""

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open

from harness.archives import is_legacy, is_zip, open_legacy, open_zip
from harness.errors import CheckpointError
from harness.likeness import likeness
from harness.weight_files import file_sha256, weight_files, weights_sha256

__all__ = ["file_sha256", "fill", "fit", "load_into", "read_tensors", "weights_sha256"]

_PREFIX_DEPTH = 4
# A safetensors file begins with the length of its header, which is a JSON object.
_HEADER_LIMIT = 100_000_000


class _Store(Protocol):
    """An open file of weights."""

    def keys(self) -> Iterable[str]: ...

    def get_tensor(self, key: str) -> torch.Tensor: ...


def read_tensors(path: Path, *, under: str = "") -> dict[str, torch.Tensor]:
    """The tensors of a file of weights, of its shards, or of a folder in hub format.

    Args:
        path: A file, an index of shards, or a folder.
        under: Read one part of the model only, such as ``decoder.``; its keys come
            back without it. A wrapper's prefix may stand in front of it in the file
            (``net.clipseg.decoder.film_mul.bias``): of several such places the one
            with most keys is meant. The rest of the file is not read.

    Raises:
        CheckpointError: The file is missing, damaged, no checkpoint, or has no
            tensor `under` that name.
    """
    files = weight_files(path)
    part = under.removesuffix(".")
    if files.file_of is None:
        with _open(files.paths[0]) as store:
            chosen = _part(list(store.keys()), part, where=str(path))
            return {short: store.get_tensor(full) for short, full in chosen.items()}
    chosen = _part(list(files.file_of), part, where=str(path))
    read: dict[str, torch.Tensor] = {}
    for shard in files.paths:
        here = {short: full for short, full in chosen.items() if files.file_of[full] == shard}
        with _open(shard) as store:
            _check_shard(shard, here.values(), set(store.keys()))
            read |= {short: store.get_tensor(full) for short, full in here.items()}
    return {short: read[short] for short in chosen}


@contextlib.contextmanager
def _open(path: Path) -> Iterator[_Store]:
    """Whatever the file's first bytes say it is."""
    try:
        with path.open("rb") as file:
            head = file.read(64)
        if is_zip(head):
            with open_zip(path) as archive:
                yield archive
        elif is_legacy(head):
            with open_legacy(path) as archive:
                yield archive
        elif path.suffix == ".safetensors" or _is_safetensors(head):
            with safe_open(path, framework="pt") as store:
                yield store
        else:
            raise CheckpointError(
                f"{path}: neither safetensors nor a file that torch.save wrote. One of them is "
                "needed; other pickles are not opened. Save the model's state_dict() again."
            )
    except SafetensorError as problem:
        raise CheckpointError(
            f"{path}: not a whole safetensors file ({str(problem)[:120]}). Copy the file again."
        ) from None
    except OSError as problem:
        raise CheckpointError(
            f"{path}: the file cannot be read ({problem.strerror or problem}). It must be readable "
            "to the end. Check its permissions and the disk, or copy it again."
        ) from None


def _is_safetensors(head: bytes) -> bool:
    return 2 <= int.from_bytes(head[:8], "little") <= _HEADER_LIMIT and head[8:9] == b"{"


def _check_shard(path: Path, wanted: Iterable[str], held: set[str]) -> None:
    absent = [key for key in wanted if key not in held]
    if absent:
        raise CheckpointError(
            f"{path}: the shard lacks {absent[0][:120]!r}, which the index says it holds. Index "
            "and shards must belong together. Copy the folder again."
        )


def _part(keys: Sequence[str], under: str, *, where: str) -> dict[str, str]:
    """Keys of one part of the model, by their names inside the part."""
    if not under:
        return {key: key for key in keys}
    places = Counter(place for key in keys for place in _places(key, under))
    if not places:
        shown = ", ".join(repr(key[:120]) for key in keys[:3])
        raise CheckpointError(
            f"{where}: no tensor lies under {under!r}; the file has {len(keys)} keys, first "
            f"{shown}. A model with that part is needed. Give another file."
        )
    place = max(places, key=lambda prefix: (places[prefix], -len(prefix)))
    return {key.removeprefix(place): key for key in keys if key.startswith(place)}


def _places(key: str, under: str) -> Iterator[str]:
    """``a.b.under.`` for every place in a key at which the part may begin."""
    steps = key.split(".")
    part = under.split(".")
    for depth in range(min(len(steps) - len(part), _PREFIX_DEPTH + 1)):
        if steps[depth : depth + len(part)] == part:
            yield ".".join([*steps[: depth + len(part)], ""])


def fit(
    module: torch.nn.Module, tensors: Mapping[str, torch.Tensor], *, where: str
) -> dict[str, torch.Tensor]:
    """Rename `tensors` to the keys of `module`; every key must fit.

    A wrapper's prefix (``net.``, ``module.``, ``model.clipseg.`` ...) is taken
    off: of all prefixes in the file the one that matches most keys. Buffers the
    module does not save (such as ``position_ids``, which older libraries saved)
    are left out. Batch norm's counters of training steps, which files from before
    torch 0.4.1 lack and no result depends on, stay as they are.

    Args:
        module: The model that is to hold the tensors.
        tensors: What a file holds.
        where: The file, for messages.

    Returns:
        A state dict that ``load_state_dict(strict=True)`` accepts.

    Raises:
        CheckpointError: Keys are missing, unexpected or of another shape.
    """
    wanted = module.state_dict()
    prefix = _prefix(wanted, tensors)
    unsaved = {name for name, _ in module.named_buffers()} - set(wanted)
    given = {
        key.removeprefix(prefix): value
        for key, value in tensors.items()
        if key.removeprefix(prefix) not in unsaved
    }
    counters = (key for key in wanted if key.endswith(".num_batches_tracked"))
    given |= {key: wanted[key] for key in counters if key not in given}
    missing = [repr(key) for key in wanted if key not in given]
    unexpected = [repr(key[:120]) for key in given if key not in wanted]
    shapes = [
        f"{key!r} {tuple(given[key].shape)} instead of {tuple(value.shape)}"
        for key, value in wanted.items()
        if key in given and given[key].shape != value.shape
    ]
    kinds = {"missing": missing, "unexpected": unexpected, "mis-shaped": shapes}
    parts = [f"{len(found)} {kind}, first {found[0]}" for kind, found in kinds.items() if found]
    if parts:
        advice = likeness(tensors) if missing or unexpected else _OTHER_SIZE
        raise CheckpointError(
            f"{where}: the checkpoint does not fit the model: {'; '.join(parts)}. {advice}"
            f"All {len(wanted)} keys must be there in the model's shapes. Give the card whose "
            "settings the checkpoint was trained with."
        )
    return given


_OTHER_SIZE = "Every key is there: it is the same architecture in another size. "


def _prefix(wanted: Iterable[str], tensors: Mapping[str, torch.Tensor]) -> str:
    wanted = set(wanted)
    matches = Counter({"": 0})
    for key in tensors:
        steps = key.split(".")
        for depth in range(min(len(steps), _PREFIX_DEPTH)):
            if ".".join(steps[depth:]) in wanted:
                matches[".".join([*steps[:depth], ""]) if depth else ""] += 1
    return max(matches, key=lambda prefix: (matches[prefix], -len(prefix)))


def load_into(module: torch.nn.Module, path: Path, *, part: str = "") -> None:
    """Fill `module` with the weights of a file or folder, strictly.

    Args:
        module: The model, or the part of one.
        path: The file or folder.
        part: What `module` is called in the file's model (``decoder``): only what
            stands under that name is read.

    Raises:
        CheckpointError: The file cannot be read safely, does not fit, or holds
            numbers that are not finite.
    """
    fill(module, read_tensors(path, under=part), where=str(path))


def fill(module: torch.nn.Module, tensors: Mapping[str, torch.Tensor], *, where: str) -> None:
    """Fill `module` with `tensors`, strictly; `where` names their file in messages.

    Raises:
        CheckpointError: They do not fit, or hold numbers that are not finite.
    """
    fitted = fit(module, tensors, where=where)
    for key, value in fitted.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise CheckpointError(
                f"{where}: the tensor {key!r} holds numbers that are not finite. Every weight must "
                "be finite. The training diverged or the file is damaged: use another checkpoint."
            )
    module.load_state_dict(fitted, strict=True)
