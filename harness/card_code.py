"""Loads the Python that a card names: a class in a file beside it, or in an installed module.

Conventions: a file beside a card is loaded under a private package name,
``_vlsm_<kind>_<hash>``, so that no top-level package of its folder's name exists; it may
import its neighbours relatively (``from .layers import Neck``). Files of equal content at
one place are loaded once. Hashes are lower-case hexadecimal SHA-256. Whether a file may be
run is the caller's question, to be asked before anything is imported.
"""

import hashlib
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from harness.errors import HarnessError, nearest


class CodeKey(NamedTuple):
    """The key of a card that names code: which kind it names, where it stands, what is raised."""

    kind: str
    where: str
    error: type[HarnessError]


def file_beside(folder: Path, target: str, key: CodeKey) -> Path:
    """The file that a key's path, which starts at `folder`, leads to.

    Raises:
        HarnessError: There is none.
    """
    file = (folder / target).resolve()
    if not file.is_file():
        raise key.error(
            f"{key.where}: there is no file {str(file)!r}. '{key.kind}.py:Class' names a file "
            "beside the card. Correct the key."
        )
    return file


def sources_sha256(place: Path) -> str:
    """Hash over the names and bytes of a file, or of the Python files in a folder."""
    files = sorted(place.glob("*.py")) if place.is_dir() else [place]
    digest = hashlib.sha256()
    for file in files:
        content = file.read_bytes()
        digest.update(f"{file.name}:{len(content)}:".encode() + content)
    return digest.hexdigest()


def import_file(file: Path, key: CodeKey, *, sha256: str | None = None) -> ModuleType:
    """Import a file and what it imports from its folder.

    Args:
        file: The file.
        key: The key that names it.
        sha256: `sources_sha256` of its folder, where it is known already.

    Raises:
        HarnessError: It cannot be imported.
    """
    sources = sha256 or sources_sha256(file.parent)
    place = hashlib.sha256(f"{file.parent}:{sources}".encode()).hexdigest()[:12]
    package_name = f"_vlsm_{key.kind}_{place}"
    if package_name not in sys.modules:
        package = ModuleType(package_name)
        package.__path__ = [str(file.parent)]
        sys.modules[package_name] = package
    importlib.invalidate_caches()
    return import_module(f"{package_name}.{file.stem}", key)


def import_module(name: str, key: CodeKey) -> ModuleType:
    """Import an installed module.

    Raises:
        HarnessError: It cannot be imported.
    """
    try:
        return importlib.import_module(name)
    except (ImportError, SyntaxError) as problem:
        raise key.error(
            f"{key.where}: the module cannot be imported ({type(problem).__name__}: {problem}). "
            f"The {key.kind} and the libraries it needs must be importable. Correct the file or "
            "install what is missing."
        ) from problem


def class_of(module: ModuleType, name: str, key: CodeKey) -> type:
    """The class of a module.

    Raises:
        HarnessError: There is none of that name.
    """
    found = vars(module).get(name)
    if isinstance(found, type):
        return found
    classes = [known for known, value in vars(module).items() if isinstance(value, type)]
    raise key.error(
        f"{key.where}: {module.__file__} has no class {name!r}.{nearest(name, classes)} "
        f"The part after ':' names the {key.kind}'s class. Correct the key."
    )
