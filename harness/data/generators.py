"""Makes the files of a dataset whose card names a generator, where there are none.

A generator is a class in a file beside the card (``generator: generator.py:Class``) that
keeps the contract of `Generator`. It is a program, and runs with all rights of the user:
only what ships with the harness is run.

Conventions: a set is written in the layout every other data set has,
``<root>/<data set>/{anns/<split>.json, images/, masks/}``, beside ``generated.json``, which
says what the folder was made from.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, Protocol, runtime_checkable

from harness.card_code import CodeKey, class_of, file_beside, import_file, sources_sha256
from harness.cards import DatasetCard
from harness.data.layout import load_samples
from harness.errors import DataError, HarnessError, choose
from harness.files import inside, shipped

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


def is_trusted(file: Path) -> bool:
    """Whether a generator may be run: it ships with the harness.

    The one place that decides, asked before anything of the file is imported.
    """
    return file.resolve().is_relative_to(shipped("suites").resolve())


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
    root.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=root))
    try:
        for split, count in wanted.items():
            with _explained(card):
                generator.write_split(made, split, count, seed=seed, tick=tick)
        _require_annotations(made, wanted, card)
        record = content | {"annotations": _digests(made)}
        (made / _RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        made.chmod(0o755)  # mkdtemp makes folders that nobody else may read
        _move(made, folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return folder


def generator_module(card: DatasetCard, name: str) -> ModuleType:
    """A module of the folder of a card's generator, for those who look inside it.

    Raises:
        DataError: The card names no generator, it may not be run, or there is no such module.
    """
    found = _found(card)
    with _explained(card):
        return import_file(found.file.with_name(f"{name}.py"), found.key, sha256=found.sha256)


class _Found(NamedTuple):
    """A generator's file, which may be run; its class; the hash of what lies in its folder."""

    file: Path
    name: str
    key: CodeKey
    sha256: str


def _found(card: DatasetCard) -> _Found:
    if card.generator is None or card.path is None:
        raise DataError(
            f"dataset {card.name!r}: no generator is known. A card that was read from a file and "
            "has the key 'generator' is needed. Get the dataset's files instead."
        )
    key = CodeKey("generator", f"{card.path}: generator", DataError)
    target, _, name = card.generator.rpartition(":")
    inside(card.path.parent, target, where=key.where)
    file = file_beside(card.path.parent, target, key)
    if not is_trusted(file):
        raise DataError(
            f"{key.where}: {str(file)!r} does not ship with the harness. A generator is a program "
            "that runs with all your rights, and only those that ship are run. Read it, write the "
            f"files of {card.name!r} with it yourself, and take the key off the card."
        )
    return _Found(file, name, key, sources_sha256(file.parent))


def _load(card: DatasetCard) -> tuple[Generator, str]:
    """The generator, and the hash of its sources: what another one made is made again."""
    file, name, key, sources = _found(card)
    with _explained(card):
        kind = class_of(import_file(file, key, sha256=sources), name, key)
        generator = kind(card)
    if isinstance(generator, Generator):
        return generator, sources
    lacking = ", ".join(repr(member) for member in _MEMBERS if member not in dir(generator))
    raise DataError(
        f"{key.where}: the class {name!r} lacks {lacking}. A generator has "
        f"{' and '.join(map(repr, _MEMBERS))}, see harness.data.generators.Generator. "
        "Correct the class."
    )


@contextmanager
def _explained(card: DatasetCard) -> Iterator[None]:
    """What a generator raises, as a message; its own messages stay."""
    try:
        yield
    except HarnessError:
        raise
    except Exception as problem:
        raise DataError(
            f"{card.path}: generator: it raised {type(problem).__name__}: {problem}. A generator "
            "makes its files or says with a DataError why not. Correct it, or make room if the "
            "disk is full."
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
    except (OSError, ValueError, HarnessError):
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
