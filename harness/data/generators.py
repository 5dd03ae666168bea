"""Makes the files of a dataset whose card names a generator, where there are none.

A generator is a class in a file beside the card (``generator: generator.py:Class``) that
keeps the contract of `Generator`. It is a program, and runs with all rights of the user:
only what ships with the harness is run. Its file is loaded under a private package name,
``_vlsm_generator_<hash>``, and may import its neighbours relatively.

Conventions: a set is written in the layout every other data set has,
``<root>/<data set>/{anns/<split>.json, images/, masks/}``, beside ``generated.json``, which
says what the folder was made from. Hashes are lower-case hexadecimal SHA-256.
"""

import hashlib
import importlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, Protocol, runtime_checkable

from harness.cards import DatasetCard
from harness.data.layout import load_samples
from harness.errors import DataError, HarnessError, choose, nearest
from harness.files import inside
from harness.files.trust import check_trust
from harness.files.writing import temporary_folder, write_json, writing

_RECORD = "generated.json"
_MEMBERS = ("sizes", "write_split")


@runtime_checkable
class Generator(Protocol):
    """What the class that a dataset card's `generator` names must offer.

    It is built with the card alone, ``Class(card)``, and reads and writes nothing until
    it is asked. `sizes` is the released set: how many scenes each split has.
    """

    sizes: Mapping[str, int]

    def write_split(
        self, folder: Path, split: str, count: int, *, seed: int, tick: Callable[[], None]
    ) -> None:
        """Write the first `count` scenes of a split, and nothing else.

        The same arguments give the same pictures and the same bytes of annotations on
        every machine, and a longer split begins with the scenes of a shorter one. Splits
        and seeds share no random numbers. No other file is read, no network asked, and the
        random state of the process left as it was.

        Args:
            folder: The set's folder, which exists; nothing is written outside it. Images and
                masks go where the card's `layout` has them, annotations to
                ``anns/<split>.json``.
            split: One of the card's splits.
            count: Number of scenes, at least 1.
            seed: Names a family of streams; the released sets have 0.
            tick: To be called after each scene, for a progress bar.

        Raises:
            DataError: The split cannot be generated.
        """
        ...


def load_generator(card: DatasetCard) -> Generator:
    """Build the generator that a card names.

    Raises:
        DataError: The card names none, its file or class is missing, may not be run, fails,
            or does not keep the contract.
    """
    return _load(card)[0]


def generate(
    card: DatasetCard,
    root: Path,
    *,
    sizes: Mapping[str, int] | None = None,
    seed: int = 0,
    tick: Callable[[], None] = lambda: None,
) -> Path:
    """Write a generated set below a data root, unless it is there already.

    The folder appears complete or not at all: it is made beside its place and renamed.

    Args:
        card: The set's card, read from its file.
        root: The data root; made if it is missing.
        sizes: Number of scenes per split; None writes the released set.
        seed: Names a family of streams; the released sets have 0.
        tick: Called after each scene, for a progress bar.

    Returns:
        The set's folder.

    Raises:
        DataError: The generator cannot be used (see `load_generator`), a split is unknown, a
            size is not positive, or the place holds something that no generator has made.
        RunError: The disk does not take the files.
    """
    generator, sources = _load(card)
    wanted = dict(generator.sizes if sizes is None else sizes)
    _check_sizes(wanted, card)
    name = card.layout.folder or card.name
    inside(root, name, where=f"dataset {card.name!r}")
    folder = root / name
    content = {"dataset": card.name, "sizes": wanted, "seed": seed, "generator": sources}
    if _is_current(card, root, folder, content):
        return folder
    _refuse_foreign(folder)
    with temporary_folder(beside=folder) as made, writing(folder):
        for split, count in wanted.items():
            with _explained(card):
                generator.write_split(made, split, count, seed=seed, tick=tick)
        _require_annotations(made, wanted, card)
        write_json(made / _RECORD, content | {"annotations": _digests(made)})
        made.chmod(0o755)  # temporary folders are such that nobody else may read them
        _move(made, folder)
    return folder


def generator_module(card: DatasetCard, name: str) -> ModuleType:
    """A module of the folder of a card's generator, for those who look inside it.

    Raises:
        DataError: The card names no generator, it may not be run, or there is no such module.
    """
    found = _found(card)
    with _explained(card):
        return _imported(found, name)


class _Found(NamedTuple):
    """A generator's file, which may be run; its class; the hash of what lies in its folder."""

    file: Path
    name: str
    where: str
    sha256: str


def _found(card: DatasetCard) -> _Found:
    if card.generator is None or card.path is None:
        raise DataError(
            f"dataset {card.name!r}: no generator is known. A card that was read from a file and "
            "has the key 'generator' is needed. Get the dataset's files instead."
        )
    where = f"{card.path}: generator"
    target, _, name = card.generator.rpartition(":")
    file = inside(card.path.parent, target, where=where)
    if not file.is_file():
        raise DataError(
            f"{where}: there is no file {str(file)!r}. 'generator.py:Class' names a file beside "
            "the card. Correct the key."
        )
    check_trust(file, where=where, error=DataError)
    digest = hashlib.sha256()
    for path in sorted(file.parent.glob("*.py")):
        content = path.read_bytes()
        digest.update(f"{path.name}:{len(content)}:".encode() + content)
    return _Found(file, name, where, digest.hexdigest())


def _imported(found: _Found, stem: str) -> ModuleType:
    """A module of the generator's folder; other sources at the same place are other modules."""
    place = hashlib.sha256(f"{found.file.parent}:{found.sha256}".encode()).hexdigest()[:12]
    package = ModuleType(f"_vlsm_generator_{place}")
    package.__path__ = [str(found.file.parent)]
    sys.modules.setdefault(package.__name__, package)
    importlib.invalidate_caches()
    return importlib.import_module(f"{package.__name__}.{stem}")


def _load(card: DatasetCard) -> tuple[Generator, str]:
    """The generator, and the hash of its sources: what another one made is made again."""
    found = _found(card)
    with _explained(card):
        members = vars(_imported(found, found.file.stem))
        kind = members.get(found.name)
        if not isinstance(kind, type):
            classes = [name for name, value in members.items() if isinstance(value, type)]
            raise DataError(
                f"{found.where}: {found.file} has no class {found.name!r}."
                f"{nearest(found.name, classes)} The part after ':' names the generator's class. "
                "Correct the key."
            )
        generator = kind(card)
    if isinstance(generator, Generator):
        return generator, found.sha256
    lacking = ", ".join(repr(member) for member in _MEMBERS if member not in dir(generator))
    raise DataError(
        f"{found.where}: the class {found.name!r} lacks {lacking}. A generator has "
        f"{' and '.join(map(repr, _MEMBERS))}, see harness.data.generators.Generator. "
        "Correct the class."
    )


@contextmanager
def _explained(card: DatasetCard) -> Iterator[None]:
    """What a generator raises, as a message; its own messages stay."""
    try:
        yield
    except (HarnessError, OSError):
        raise  # a disk that takes no files is told by `writing`
    except Exception as problem:
        raise DataError(
            f"{card.path}: generator: it raised {type(problem).__name__}: {problem}. A generator "
            "makes its files or says with a DataError why not. Correct it, or install what it "
            "needs."
        ) from problem


def _check_sizes(sizes: Mapping[str, int], card: DatasetCard) -> None:
    where = f"dataset {card.name!r}"
    for split, count in sizes.items():
        choose(split, card.splits, kind="split", where=where, error=DataError)
        if count < 1:
            raise DataError(
                f"{where}: {count} scenes for the split {split!r}. At least one is needed. "
                "Leave the split out or give it a size."
            )
    if not sizes:
        raise DataError(f"{where}: no split to write. Give at least one split with its size.")


def _require_annotations(made: Path, sizes: Mapping[str, int], card: DatasetCard) -> None:
    missing = [split for split in sizes if not (made / "anns" / f"{split}.json").is_file()]
    if missing:
        raise DataError(
            f"{card.path}: generator: it wrote no 'anns/{missing[0]}.json'. Each split that is "
            "asked for needs its annotations. Correct the generator."
        )


def _digests(folder: Path) -> dict[str, str]:
    paths = sorted((folder / "anns").glob("*.json"))
    return {path.stem: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def _is_current(card: DatasetCard, root: Path, folder: Path, content: Mapping[str, Any]) -> bool:
    """Whether the folder holds exactly `content`, no annotation changed, no file missing."""
    try:
        record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
        digests = _digests(folder)
        if record != {**content, "annotations": digests}:
            return False
        samples = [s for split in digests for s in load_samples(card, root, split, pictures=False)]
        return all(s.image.is_file() and s.mask.is_file() for s in samples)
    except (OSError, ValueError, LookupError, TypeError, RecursionError, HarnessError):
        return False


def _refuse_foreign(folder: Path) -> None:
    if folder.exists() and not (folder / _RECORD).is_file():
        raise DataError(
            f"{folder}: the place is taken by something without {_RECORD!r}. Only folders that "
            "a generator made are replaced. Move it away or choose another data root."
        )


def _move(made: Path, folder: Path) -> None:
    """Put `made` in the place of `folder`, whose old content goes into `made`'s place."""
    if folder.exists():
        old = made.with_name(made.name + "-old")
        folder.rename(old)
        made.rename(folder)
        shutil.rmtree(old)
    else:
        made.rename(folder)
