"""Finds the class that wraps a model and the files its card names, and builds it.

A card may name three kinds of files besides a finetuned checkpoint: pretrained
`weights`, `further_weights` (parts that come from elsewhere, by the adapter's names
for them) and the `tokenizer`'s vocabulary. A checkpoint fills the whole model, so
that with one only the vocabulary is looked for.

Conventions: an adapter is ``adapter.py:Class`` beside its card or
``package.module:Class``. A file beside a card is loaded under a private package
name, ``_vlsm_adapter_<hash>``, so that no top-level ``models`` exists; it may
import its neighbours relatively (``from .layers import Neck``). Paths on a card
start at the card's folder. Hashes are lower-case hexadecimal SHA-256.
"""

import hashlib
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

import torch

from harness.cards import ModelCard, ResolvedCard, Weights
from harness.errors import CardError, CheckpointError, HarnessError, ModelError, nearest
from harness.files.trust import check_trust
from harness.model.callables import FunctionAdapter, Settings
from harness.model.contract import read_settings
from harness.model.precision import building
from harness.model.sources import PRIVATE, forget, trace, watched_imports
from harness.weights.files import FOLDER_FILES, file_sha256, weights_sha256
from harness.weights.hub import fetch
from harness.weights.lora import CONFIG as LORA_CONFIG
from harness.weights.lora import lora_file
from harness.weights.packages import installed_file, is_absent

# Pickled weights are left on the hub where the repository also holds safetensors.
_SETTINGS = ("*.json", "*.txt", "*.model")
_HUB_FILES = ("*.safetensors", *_SETTINGS)
_TOKENIZER_FILES = ("vocab.txt", "tokenizer.json")


def build_traced(
    card: ResolvedCard, files: "Files", *, seed: int, changed: list[str]
) -> tuple[Any, str]:
    """Build the adapter of a card, and hash the programs it is made of.

    Modules that changed on disk since this process imported them, or that another model's
    of the same name hides, are imported anew. Settings of torch that the adapter changes are
    restored, and added to `changed`.

    The hash is SHA-256 over the names and bytes of its Python files and the versions of its
    libraries: an edited layer is another model.

    Raises:
        ModelError: The adapter cannot be imported or built.
        CardError: The settings are wrong.
    """
    for _ in range(2):
        with watched_imports() as watched:
            with building(changed):
                module, member = adapter_member(card)
            with building(changed):
                raw = build(member, card, files, seed=seed)
        _prefer(card.adapter_folder)
        # A function may come from elsewhere; a class says where its text is.
        home = module if card.card.kind == "callable" else sys.modules[member.__module__]
        traced = trace(home, raw, watched)
        if not traced.outdated:
            return raw, traced.sha256
        forget(traced)
    raise ModelError(
        f"{card.path}: adapter: {traced.outdated[0]} is not what was imported: this process holds "
        "another module of that name. A model must be made of its own files. Load it in a process "
        "of its own, or import the file relatively (`from .network import Network`)."
    )


def adapter_class(card: ResolvedCard) -> Any:
    """The class that wraps the card's model, or the function that is it.

    Raises:
        ModelError: The file, module or class does not exist or cannot be imported.
    """
    return adapter_member(card)[1]


def adapter_member(card: ResolvedCard) -> tuple[ModuleType, Any]:
    """The module that a card names, and its class or function.

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
        check_trust(file, where=where, error=ModelError)
        module = _import_file(file, where=where)
    else:
        # A module beside the command is a file of whoever wrote the card, too.
        for place in (Path(*target.split(".")).with_suffix(".py"), Path(target.partition(".")[0])):
            if place.exists():
                program = place / "__init__.py" if place.is_dir() else place
                check_trust(program, where=where, error=ModelError)
        module = _import_module(target, where=where)
    if card.card.kind == "callable":
        return module, _function(module, name, where=where)
    return module, _member(module, name, where=where)


def _import_file(file: Path, *, where: str) -> ModuleType:
    package_name = PRIVATE + hashlib.sha256(str(file.parent).encode()).hexdigest()[:12]
    _prefer(file.parent)
    if package_name not in sys.modules:
        package = ModuleType(package_name)
        package.__path__ = [str(file.parent)]
        sys.modules[package_name] = package
    importlib.invalidate_caches()
    return _import_module(f"{package_name}.{file.stem}", where=where)


def _prefer(folder: Path) -> None:
    """Put what an adapter of this folder added to the path before what other models added."""
    own = folder.resolve()
    sys.path.sort(key=lambda entry: not Path(entry or ".").resolve().is_relative_to(own))


def _import_module(name: str, *, where: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except HarnessError:
        raise
    except (Exception, SystemExit) as problem:  # a stranger's module may raise anything
        raise ModelError(
            f"{where}: the module cannot be imported ({_said(problem)}). "
            "The adapter and the libraries it needs must be importable. Correct the file or "
            "install what is missing."
        ) from problem


def _said(problem: BaseException) -> str:
    """The class and first line of what was raised, and the line that raised it."""
    frames = traceback.extract_tb(problem.__traceback__)
    package = str(Path(__file__).parent.parent)
    own = [f for f in frames if not f.filename.startswith(("<frozen", package))]
    place = f", {Path(own[-1].filename).name}:{own[-1].lineno}" if own else ""
    text = (str(problem).strip().splitlines() or ["no message"])[0][:200]
    if isinstance(problem, ImportError | SyntaxError):
        return f"{type(problem).__name__}: {text}"
    return f"{type(problem).__name__}: {text}{place}"


def _member(module: ModuleType, name: str, *, where: str) -> type:
    found = vars(module).get(name)
    if isinstance(found, type):
        return found
    classes = [key for key, value in vars(module).items() if isinstance(value, type)]
    raise ModelError(
        f"{where}: {module.__file__} has no class {name!r}.{nearest(name, classes)} "
        "The part after ':' names the adapter's class. Correct the key."
    )


def _function(module: ModuleType, name: str, *, where: str) -> Any:
    found = vars(module).get(name)
    if callable(found):
        return found
    known = [key for key, value in vars(module).items() if isinstance(value, FunctionType)]
    raise ModelError(
        f"{where}: {module.__file__} has no function {name!r}.{nearest(name, known)} "
        "The part after ':' names a function f(image, prompt). Correct the key."
    )


class Files(NamedTuple):
    """What fills a model.

    `arguments` are the keywords that the adapter's constructor gets besides the
    settings: ``weights`` always, ``further_weights`` and ``tokenizer`` where the card
    names such files. `sha256` is the hash of the main file of weights,
    `further_sha256` holds the others'. `lora` are additions to them. `is_bare`: there are
    none, which is right for a model without parameters alone.
    """

    arguments: Mapping[str, Any]
    checkpoint: Path | None = None
    sha256: str | None = None
    further_sha256: Mapping[str, str] = {}
    is_bare: bool = False
    lora: Path | None = None


def find_files(
    card: ResolvedCard, checkpoint: str | Path | None, *, random_weights: bool = False
) -> Files:
    """The checkpoint given, else the card's, else its pretrained weights; and the vocabulary.

    Random weights need none of them, so that no hub is asked; a vocabulary that lies on
    this machine is used all the same.

    Raises:
        ModelError: The card names nothing, or a hub repository cannot be had.
        CheckpointError: A file is missing or is not the one the card means.
    """
    found = Files({"weights": None}) if random_weights else _weights(card, checkpoint)
    if card.card.lora is not None and not random_weights:
        found = _with_lora(found, card.folder / card.card.lora.path, card.card.lora.sha256)
    place = card.card.tokenizer
    if place is None:
        return found
    vocabulary = None
    if not (random_weights and (place.hub is not None or is_absent(place))):
        vocabulary = _tokenizer(card, beside=found.checkpoint or found.arguments["weights"])
    arguments, hashes = {**found.arguments, "tokenizer": vocabulary}, found.further_sha256
    if vocabulary is not None:
        digest = _equal_sha256(vocabulary, file_sha256(vocabulary), place.sha256)
        hashes = {**hashes, "tokenizer": digest}
    return found._replace(arguments=arguments, further_sha256=hashes)


def _with_lora(files: Files, place: Path, expected: str | None) -> Files:
    file = lora_file(place)
    config = file.parent / LORA_CONFIG
    digest = _equal_sha256(file, file_sha256(file), expected)
    hashes = {**files.further_sha256, "lora": digest}
    if config.is_file():
        hashes |= {"lora_config": file_sha256(config)}
    return files._replace(lora=file, further_sha256=hashes)


def _weights(card: ResolvedCard, checkpoint: str | Path | None) -> Files:
    own = card.card.checkpoint
    if checkpoint is not None:
        path, expected = Path(checkpoint), None
    elif own is not None:
        path, expected = card.folder / own.path, own.sha256
    else:
        return _pretrained(card)
    arguments: dict[str, Any] = {"weights": None}
    if card.card.further_weights:
        arguments["further_weights"] = {}
    return Files(arguments, path, checked_sha256(path, expected=expected))


def no_weights(card: ResolvedCard) -> ModelError:
    """What is said of a model that has weights where neither card nor command names a file."""
    advice = f"{card.card.obtain} Or give" if card.card.obtain else "Give"
    return ModelError(
        f"{card.path}: the card names neither 'weights' nor 'checkpoint', and none was given. "
        f"A model needs numbers. {advice} a finetuned file ({card.card.name}=FILE or "
        "--checkpoint FILE), finetune one with `vlsm-harness finetune`, or ask for random "
        "weights where only the speed matters."
    )


def _may_have_none(card: ModelCard) -> bool:
    """Whether nothing on a card speaks of weights; a model of rules alone has none."""
    said = (card.obtain, card.recognised_by, card.further_weights, card.tokenizer, card.training)
    return not any(said)


def _pretrained(card: ResolvedCard) -> Files:
    if card.card.weights is None:
        if _may_have_none(card.card):
            return Files({"weights": None}, is_bare=True)
        raise no_weights(card)
    places = {"weights": card.card.weights} | {
        f"further_weights.{name}": place for name, place in card.card.further_weights.items()
    }
    found = {key: _located(key, places, card) for key in places}
    hashes = {key: checked_sha256(found[key], expected=places[key].sha256) for key in places}
    arguments: dict[str, Any] = {"weights": found["weights"]}
    if card.card.further_weights:
        arguments["further_weights"] = {
            name: found[f"further_weights.{name}"] for name in card.card.further_weights
        }
    return Files(arguments, None, hashes.pop("weights"), hashes)


def _located(key: str, places: Mapping[str, Weights], card: ResolvedCard) -> Path:
    """The local file or folder of one of the card's places."""
    place = places[key]
    if place.package is not None:
        return installed_file(place, where=f"{card.path}: {key}")
    folder = card.folder / place.path if place.path else _weights_of_hub(key, places, card.path)
    return folder / place.file if place.file else folder


def _tokenizer(card: ResolvedCard, *, beside: Path | None) -> Path | None:
    """The vocabulary's file: at the card's path, else beside the weights, else from the hub.

    None where it is optional and none of them has it.
    """
    place = card.card.tokenizer
    assert place is not None, "the caller asks only where the card names a tokenizer"
    if place.path is not None:
        return _vocabulary(card.folder / place.path)
    if place.package is not None:
        return installed_file(place, where=f"{card.path}: tokenizer")
    if beside is not None:
        folder = beside if beside.is_dir() else beside.parent
        if any((folder / name).is_file() for name in _TOKENIZER_FILES):
            return _vocabulary(folder)
    advice = (
        "Download its 'vocab.txt' or 'tokenizer.json' elsewhere and put it beside the file of "
        f"weights; or write a card with `extends: {card.path}` and `tokenizer: {{path: FILE}}`. "
        "With another vocabulary the model would read other words than it was trained on."
    )
    files = (place.file,) if place.file else _TOKENIZER_FILES
    try:
        folder = fetch(place, files, where=f"{card.path}: tokenizer.hub", advice=advice)
    except ModelError:
        if place.optional:
            return None
        raise
    return _vocabulary(folder / place.file if place.file else folder)


def _vocabulary(place: Path) -> Path:
    if place.is_file():
        return place
    for name in _TOKENIZER_FILES:
        if (place / name).is_file():
            return place / name
    raise ModelError(
        f"{place}: there is no vocabulary. A file, or a folder with one of "
        f"{', '.join(map(repr, _TOKENIZER_FILES))}, is needed. Correct 'tokenizer' on the card."
    )


def checked_sha256(place: Path, *, expected: str | None) -> str:
    """The hash of a model's weights, compared with the card's.

    Raises:
        CheckpointError: The file is missing, or its hash is another.
    """
    return _equal_sha256(place, weights_sha256(place), expected)


def _equal_sha256(place: Path, found: str, expected: str | None) -> str:
    if expected not in (None, found):
        raise CheckpointError(
            f"{place}: its SHA-256 is {found}, the card says {expected}. They "
            "must be equal. Get the right file, or correct 'sha256' on the card."
        )
    return found


def _weights_of_hub(key: str, places: Mapping[str, Weights], path: Path) -> Path:
    keys = ", ".join(f"`{_nested(other, '{path: FOLDER}')}`" for other in places)
    advice = (
        "Download its file of weights ('model.safetensors' or as the repository calls it) and its "
        f"'.json' files elsewhere into a folder FOLDER, and write a card with `extends: {path}` "
        f"and {keys}; or give a finetuned file with --checkpoint, which needs no pretrained "
        "weights."
    )
    place, where = places[key], f"{path}: {key}.hub"
    if place.file is not None:
        return fetch(place, (place.file, *_SETTINGS), where=where, advice=advice)
    folder = fetch(place, _HUB_FILES, where=where, advice=advice)
    if any((folder / name).is_file() for name in FOLDER_FILES):
        return folder
    # Pickles are read without executing them, but only where there is nothing better.
    return fetch(place, (*_HUB_FILES, *FOLDER_FILES), where=where, advice=advice)


def _nested(key: str, value: str) -> str:
    """``("a.b", "x")`` -> ``a: {b: x}``, as a card writes it."""
    head, _, rest = key.partition(".")
    return f"{head}: {{{_nested(rest, value)}}}" if rest else f"{head}: {value}"


def build(kind: Any, card: ResolvedCard, files: Files, *, seed: int) -> Any:
    """Construct the adapter; its random numbers neither depend on nor move the global generator.

    Raises:
        ModelError: The constructor does not take what the card names.
        CardError: The settings are wrong.
    """
    if card.card.kind == "callable":
        return _wrapped(kind, card)
    try:
        inspect.signature(kind).bind(card.card.settings, **files.arguments)
    except TypeError as problem:
        raise ModelError(
            f"{card.path}: the adapter {kind.__name__!r} cannot be built from this card "
            f"({problem}). Its constructor takes the settings and {', '.join(files.arguments)}. "
            "Correct the adapter, or take the key off the card."
        ) from None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return kind(card.card.settings, **files.arguments)
        except CardError as problem:
            raise CardError(f"{card.path}: {problem}") from None
        except HarnessError:
            raise
        except (Exception, SystemExit) as problem:  # a stranger's constructor may raise anything
            raise ModelError(
                f"{card.path}: the adapter {kind.__name__!r} cannot be built ({_said(problem)}). "
                "Its constructor must return with these settings and files. Correct the adapter "
                "or the card."
            ) from problem


def _wrapped(function: Any, card: ResolvedCard) -> FunctionAdapter:
    try:
        settings = read_settings(Settings, card.card.settings)
    except CardError as problem:
        raise CardError(f"{card.path}: {problem}") from None
    called = function() if isinstance(function, type) else function
    return FunctionAdapter(called, settings, where=f"{card.path}: {card.card.adapter}")
