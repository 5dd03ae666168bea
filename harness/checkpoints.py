"""Reads files of weights safely and fits them to a model.

Conventions: tensors come back on the CPU in the file's dtype; keys are those of
``state_dict()``. No file is ever executed: safetensors cannot carry code, torch
archives are read by `harness.archives`, anything older by torch's own reader
with ``weights_only=True``.
"""

import hashlib
import pickle
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from harness.archives import is_archive, read_archive
from harness.errors import CheckpointError

# What a folder in hub format may hold, best first.
FOLDER_FILES = (
    "model.safetensors",
    "open_clip_model.safetensors",
    "pytorch_model.bin",
    "open_clip_pytorch_model.bin",
    "model.ckpt",
)
_PREFIX_DEPTH = 4


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, lower-case hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def weights_file(path: Path) -> Path:
    """The file of weights that `path` means: itself, or the one in a folder.

    Raises:
        CheckpointError: There is no such file, or the folder holds none of the
            known names.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise CheckpointError(
            f"{path}: no such file or folder. A file of weights (.safetensors, .ckpt, .pt, .pth, "
            ".bin) or a folder with 'model.safetensors' is needed. Check the path."
        )
    for name in FOLDER_FILES:
        if (path / name).is_file():
            return path / name
    found = ", ".join(sorted(repr(p.name) for p in path.iterdir())[:8]) or "nothing"
    raise CheckpointError(
        f"{path}: the folder holds {found}. One of {', '.join(map(repr, FOLDER_FILES))} is "
        "needed. Merge shards or save the model as one safetensors file."
    )


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file of weights, or of a folder in hub format.

    The file's content decides how it is read, not its name (safetensors apart).

    Raises:
        CheckpointError: The file is missing, damaged, no checkpoint, or cannot
            be read without executing it.
    """
    path = weights_file(path)
    if path.suffix == ".safetensors":
        try:
            return dict(load_file(path))
        except (SafetensorError, OSError) as problem:
            raise CheckpointError(
                f"{path}: not a whole safetensors file ({problem}). Copy the file again."
            ) from None
    if is_archive(path):
        return read_archive(path)
    return _read_legacy(path)


def _read_legacy(path: Path) -> dict[str, torch.Tensor]:
    """Files that torch wrote before 1.6; torch's allow-list decides what they may hold."""
    try:
        with warnings.catch_warnings():
            # Its hint goes to torch's authors; what matters here is whether the file can be read.
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        ValueError,
        LookupError,
        TypeError,
    ) as e:
        reason = (str(e).splitlines() or [type(e).__name__])[0][:160]
        raise CheckpointError(
            f"{path}: not a checkpoint that can be read without executing it ({reason}). A file "
            "written by torch.save, Lightning or safetensors is needed. Save the model's "
            "state_dict() again."
        ) from None
    mapping = content.get("state_dict", content) if isinstance(content, dict) else {}
    tensors = {k: v for k, v in mapping.items() if isinstance(v, torch.Tensor)}
    if not tensors:
        raise CheckpointError(
            f"{path}: the file holds no tensors. A model's state_dict is needed. Save the model."
        )
    return tensors


def fit(
    module: torch.nn.Module, tensors: Mapping[str, torch.Tensor], *, where: str
) -> dict[str, torch.Tensor]:
    """Rename `tensors` to the keys of `module`; every key must fit.

    A wrapper's prefix (``net.``, ``module.``, ``model.clipseg.`` ...) is taken
    off: of all prefixes in the file the one that matches most keys. Buffers the
    module does not save (such as ``position_ids``, which older libraries saved)
    are left out.

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
    missing = [key for key in wanted if key not in given]
    unexpected = [key for key in given if key not in wanted]
    shapes = [
        f"{key!r} {tuple(given[key].shape)} instead of {tuple(value.shape)}"
        for key, value in wanted.items()
        if key in given and given[key].shape != value.shape
    ]
    if missing or unexpected or shapes:
        parts = [
            _first(missing, "missing", quote=True),
            _first(unexpected, "unexpected", quote=True),
            _first(shapes, "mis-shaped", quote=False),
        ]
        raise CheckpointError(
            f"{where}: the checkpoint does not fit the model: {'; '.join(filter(None, parts))}. "
            f"All {len(wanted)} keys must be there in the model's shapes. Give the card whose "
            "settings the checkpoint was trained with."
        )
    return given


def _prefix(wanted: Iterable[str], tensors: Mapping[str, torch.Tensor]) -> str:
    wanted = set(wanted)
    matches = Counter({"": 0})
    for key in tensors:
        steps = key.split(".")
        for depth in range(min(len(steps), _PREFIX_DEPTH)):
            if ".".join(steps[depth:]) in wanted:
                matches[".".join([*steps[:depth], ""]) if depth else ""] += 1
    return max(matches, key=lambda prefix: (matches[prefix], -len(prefix)))


def _first(keys: list[str], kind: str, *, quote: bool) -> str:
    if not keys:
        return ""
    return (
        f"{len(keys)} {kind}, first {keys[0]!r}"
        if quote
        else f"{len(keys)} {kind}, first {keys[0]}"
    )


def _under(
    part: str, tensors: Mapping[str, torch.Tensor], *, where: Path
) -> dict[str, torch.Tensor]:
    """What stands under a part's name, whatever stands before it (``net.decoder.``)."""
    found = {}
    for key, value in tensors.items():
        _, name, rest = f".{key}".partition(f".{part}.")
        if name:
            found[rest] = value
    if not found:
        raise CheckpointError(
            f"{where}: no key lies under {part!r}; the first is {next(iter(tensors))!r}. The file "
            "must be of a model with that part. Give another file."
        )
    return found


def load_into(module: torch.nn.Module, path: Path, *, part: str | None = None) -> None:
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
    tensors = read_tensors(path)
    if part is not None:
        tensors = _under(part, tensors, where=path)
    tensors = fit(module, tensors, where=str(path))
    for key, value in tensors.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise CheckpointError(
                f"{path}: the tensor {key!r} holds numbers that are not finite. Every weight must "
                "be finite. The training diverged or the file is damaged: use another checkpoint."
            )
    module.load_state_dict(tensors, strict=True)
