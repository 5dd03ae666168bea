"""Finds the class that wraps a model, and the files of weights its card names.

Conventions: an adapter is ``adapter.py:Class`` beside its card or
``package.module:Class``. A file beside a card is loaded under a private package
name, ``_vlsm_adapter_<hash>``, so that no top-level ``models`` exists; it may
import its neighbours relatively (``from .layers import Neck``). Paths on a card
start at the card's folder. Hashes are lower-case hexadecimal SHA-256.
"""

import hashlib
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from harness.cards import ResolvedCard, Weights
from harness.errors import CheckpointError, ModelError, nearest
from harness.weight_files import weights_sha256

# Pickled weights are left on the hub: every repository of note also holds safetensors.
_HUB_FILES = ["*.safetensors", "*.json", "*.txt", "*.model"]


def adapter_class(card: ResolvedCard) -> tuple[type, str]:
    """The class that wraps the card's model, and the hash of its sources.

    Returns:
        The class, and SHA-256 over the names and bytes of the Python files in
        its folder: an edited layer is another model.

    Raises:
        ModelError: The file, module or class does not exist or cannot be imported.
    """
    target, _, name = card.card.adapter.rpartition(":")
    where = f"{card.path}: adapter"
    if target.endswith(".py"):
        file = (card.adapter_folder / target).resolve()
        if not file.is_file():
            raise ModelError(
                f"{where}: there is no file {str(file)!r}. 'adapter.py:Class' names a file beside "
                "the card. Correct the key."
            )
        digest = _sources_sha256(file.parent)
        module = _import_file(file, digest=digest, where=where)
    else:
        module = _import_module(target, where=where)
        file = Path(module.__file__ or "")
        digest = _sources_sha256(file.parent if "." in target else file)
    return _member(module, name, where=where), digest


def _sources_sha256(place: Path) -> str:
    files = sorted(place.glob("*.py")) if place.is_dir() else [place]
    digest = hashlib.sha256()
    for file in files:
        content = file.read_bytes()
        digest.update(f"{file.name}:{len(content)}:".encode() + content)
    return digest.hexdigest()


def _import_file(file: Path, *, digest: str, where: str) -> ModuleType:
    place = hashlib.sha256(f"{file.parent}:{digest}".encode()).hexdigest()[:12]
    package_name = f"_vlsm_adapter_{place}"
    if package_name not in sys.modules:
        package = ModuleType(package_name)
        package.__path__ = [str(file.parent)]
        sys.modules[package_name] = package
    importlib.invalidate_caches()
    return _import_module(f"{package_name}.{file.stem}", where=where)


def _import_module(name: str, *, where: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (ImportError, SyntaxError) as problem:
        raise ModelError(
            f"{where}: the module cannot be imported ({type(problem).__name__}: {problem}). "
            "The adapter and the libraries it needs must be importable. Correct the file or "
            "install what is missing."
        ) from problem


def _member(module: ModuleType, name: str, *, where: str) -> type:
    found = vars(module).get(name)
    if isinstance(found, type):
        return found
    classes = [key for key, value in vars(module).items() if isinstance(value, type)]
    raise ModelError(
        f"{where}: {module.__file__} has no class {name!r}.{nearest(name, classes)} "
        "The part after ':' names the adapter's class. Correct the key."
    )


def resolve_weights(card: ResolvedCard) -> tuple[Path, str]:
    """The local file or folder of the card's pretrained weights, and its file's hash.

    Raises:
        ModelError: The hub repository cannot be had.
        CheckpointError: The file is missing or is not the one the card means.
    """
    weights = card.card.weights
    assert weights is not None, "the caller asks only where the card names weights"
    place = card.folder / weights.path if weights.path else _from_hub(weights, card.path)
    return place, checked_sha256(place, expected=weights.sha256)


def checked_sha256(place: Path, *, expected: str | None) -> str:
    """The hash of a model's weights, compared with the card's.

    Raises:
        CheckpointError: The file is missing, or its hash is another.
    """
    found = weights_sha256(place)
    if expected not in (None, found):
        raise CheckpointError(
            f"{place}: the SHA-256 of the weights is {found}, the card says {expected}. "
            "They must be equal. Get the right file, or correct 'sha256' on the card."
        )
    return found


def _from_hub(weights: Weights, path: Path) -> Path:
    """A snapshot of the repository in the hub's cache; only weights, settings and vocabulary."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError

    assert weights.hub is not None, "a card gives 'hub' or 'path'"
    try:
        return Path(
            snapshot_download(
                weights.hub, revision=weights.revision, allow_patterns=list(_HUB_FILES)
            )
        )
    except (OSError, EntryNotFoundError, HFValidationError) as problem:
        reason = (str(problem).splitlines() or [type(problem).__name__])[0][:200]
        raise ModelError(
            f"{path}: weights.hub: {weights.hub!r} cannot be had ({type(problem).__name__}: "
            f"{reason}). The repository must be reachable or in the hub's cache. Download its "
            "'model.safetensors' and 'config.json' elsewhere into a folder FOLDER, and write a "
            f"card with `extends: {path}` and `weights: {{path: FOLDER}}`; or give a finetuned "
            "file with --checkpoint, which needs no pretrained weights."
        ) from None
