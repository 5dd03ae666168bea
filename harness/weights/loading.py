"""Reads files of weights safely and fits them to a model.

Conventions: tensors come back on the CPU in the file's dtype; keys are those of
``state_dict()``. A file's content decides how it is read, not its name. No file is
ever executed: safetensors cannot carry code, and what torch wrote is read by
`harness.weights.archives`. A file may hold several *states*, such as the trained weights and
their running average; a state has a dotted place in the file, empty at its top.
"""

import contextlib
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open

from harness.errors import CheckpointError
from harness.weights.archives import is_legacy, is_zip, open_legacy, open_zip
from harness.weights.files import (
    WeightFiles,
    file_sha256,
    split_choice,
    weight_files,
    weights_sha256,
)
from harness.weights.fitting import (
    LONGEST_KEY,
    Match,
    describe_misfit,
    describe_rest,
    is_counter,
    search,
    several,
)
from harness.weights.pretrained import check_configuration

__all__ = ["file_sha256", "fill", "fit", "load_into", "read_shapes", "read_tensors"]
__all__ += ["tell", "weights_sha256"]

# A safetensors file begins with the length of its header, which is a JSON object.
_HEADER_LIMIT = 100_000_000
_TOP = ""
_FLOATING = {torch.float32, torch.float64, torch.float16, torch.bfloat16}
_State = Mapping[str, torch.Tensor]


class _Weights(NamedTuple):
    """An open file of weights, or a model's open shards: keys by state, and how one is read.

    `shape` reads none of a tensor's numbers.
    """

    states: Mapping[str, Collection[str]]
    get: Callable[[str, str], torch.Tensor]
    shape: Callable[[str, str], tuple[int, ...]]


def _shards(file_of: Mapping[str, Path], stack: contextlib.ExitStack) -> _Weights:
    """A model in several files, of which each is opened when it is first needed."""
    opened: dict[Path, _Weights] = {}

    def place(key: str) -> tuple[_Weights, str]:
        shard = file_of[key]
        if shard not in opened:
            opened[shard] = stack.enter_context(_open_file(shard))
        for state, keys in opened[shard].states.items():
            if key in keys:
                return opened[shard], state
        raise CheckpointError(
            f"{shard}: the shard lacks {key[:120]!r}, which the index says it holds. Index and "
            "shards must belong together. Copy the folder again."
        )

    def get(_: str, key: str) -> torch.Tensor:
        shard, state = place(key)
        return shard.get(state, key)

    def shape(_: str, key: str) -> tuple[int, ...]:
        shard, state = place(key)
        return shard.shape(state, key)

    return _Weights({_TOP: file_of}, get, shape)


def _in_memory(tensors: _State) -> _Weights:
    return _Weights(
        {_TOP: tensors}, lambda _, key: tensors[key], lambda _, key: tuple(tensors[key].shape)
    )


class Loaded(NamedTuple):
    """What was loaded from a file: the state chosen where there were several, and a note."""

    chosen: str
    note: str


_LOADED: ContextVar[list[Loaded] | None] = ContextVar("_LOADED", default=None)


@contextlib.contextmanager
def watched_loading() -> Iterator[list[Loaded]]:
    """A list to which every `load_into` adds what it did, an adapter's own included."""
    loaded: list[Loaded] = []
    token = _LOADED.set(loaded)
    try:
        yield loaded
    finally:
        _LOADED.reset(token)


def read_tensors(
    path: Path, *, under: str = "", having: Callable[[str], bool] | None = None
) -> dict[str, torch.Tensor]:
    """The tensors of a file of weights, of its shards, or of a folder in hub format.

    Of several states in a file the one that ``#PLACE`` behind the path names is read, else the
    one under ``state_dict``, ``model_state_dict`` or ``model``, else that at the top.

    Args:
        path: A file, an index of shards, or a folder.
        under: Read one part of the model only, such as ``decoder.``, without this prefix. A
            wrapper's may stand before it; of several such places the one with most keys is meant.
        having: Of several states, the first with such a key is meant.

    Raises:
        CheckpointError: The file is missing, damaged, or has no tensor `under` that name.
    """
    file, choice = split_choice(path)
    with _opened(weight_files(file)) as weights:
        fitting = [
            state
            for state, keys in weights.states.items()
            if (choice is None or state == choice) and (having is None or any(map(having, keys)))
        ]
        state = next(iter(fitting or weights.states))
        chosen = _part(list(weights.states[state]), under.removesuffix("."), where=str(path))
        return {short: weights.get(state, full) for short, full in chosen.items()}


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Key -> shape of the tensors of a file of weights; no number is read.

    Of several states the one with most keys is read, since further ones repeat it; with
    ``#PLACE`` behind the path, the one that is named.

    Raises:
        CheckpointError: The file is missing, damaged, or a shape has more numbers than it has
            bytes.
    """
    file, choice = split_choice(path)
    files = weight_files(file)
    n_bytes = sum(one.stat().st_size for one in files.paths)
    with _opened(files) as weights:
        named = [
            state for state in weights.states if state and f"{choice}.".startswith(f"{state}.")
        ]
        state = max(named or weights.states, key=lambda name: len(weights.states[name]))
        shapes = {key: weights.shape(state, key) for key in weights.states[state]}
    for key, shape in shapes.items():
        if math.prod(shape) > n_bytes:
            raise CheckpointError(
                f"{file}: the tensor {key[:120]!r} says {shape} numbers, the file has {n_bytes} "
                "bytes. Every number has bytes of its own. The file is damaged: copy it again."
            )
    return shapes


@contextlib.contextmanager
def _opened(files: WeightFiles) -> Iterator[_Weights]:
    with contextlib.ExitStack() as stack:
        if files.file_of is None:
            yield stack.enter_context(_open_file(files.paths[0]))
        else:
            yield _shards(files.file_of, stack)


@contextlib.contextmanager
def _open_file(path: Path) -> Iterator[_Weights]:
    """Whatever the file's first bytes say it is."""
    try:
        with path.open("rb") as file:
            head = file.read(64)
        if is_zip(head):
            with open_zip(path) as archive:
                yield _Weights(archive.states, archive.get, archive.shape)
        elif is_legacy(head):
            with open_legacy(path) as archive:
                yield _Weights(archive.states, archive.get, archive.shape)
        elif path.suffix == ".safetensors" or _is_safetensors(head):
            with safe_open(path, framework="pt") as store:
                keys = dict.fromkeys(store.keys())
                yield _Weights(
                    {_TOP: keys},
                    lambda _, key: store.get_tensor(key),
                    lambda _, key: tuple(store.get_slice(key).get_shape()),
                )
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
    steps = key[:LONGEST_KEY].split(".")
    part = under.split(".")
    for depth in range(len(steps) - len(part)):
        if steps[depth : depth + len(part)] == part:
            yield ".".join([*steps[: depth + len(part)], ""])


def fit(
    module: torch.nn.Module, tensors: Mapping[str, torch.Tensor], *, where: str
) -> dict[str, torch.Tensor]:
    """Rename `tensors` of the file `where` to the keys of `module`, all of which must be there.

    Wrappers are taken off: prefixes of any depth (``net.``, ``model.clipseg.`` ...), and
    ``module``, ``_orig_mod`` and their like anywhere. What lies beside the model is left out, as
    are buffers that the module does not save. Batch norm's counters of training steps, which old
    files lack and no result depends on, stay as they are. What comes back
    ``load_state_dict(strict=True)`` accepts.
    """
    return _fit(module, _in_memory(tensors), choice=None, where=where)[0]


def _card_beside(file: Path) -> str:
    """That `finetune` has left a card with the file, which says of what size the model is."""
    for folder in (file.parent, file.parent.parent):
        if (folder / "card.yaml").is_file() and (folder / "training.json").is_file():
            return f" It is of a training whose card is --model {folder}, or its base's."
    return ""


def _fit(
    module: torch.nn.Module, weights: _Weights, *, choice: str | None, where: str
) -> tuple[dict[str, torch.Tensor], Loaded]:
    wanted = module.state_dict()
    unsaved = {name for name, _ in module.named_buffers()} - set(wanted)
    found = search(wanted, weights.states, choice=choice, where=where)
    match, given = _only(found.matches, wanted, weights, where=where)
    states = weights.states
    if problem := describe_misfit(given, match, wanted, unsaved=unsaved, states=states):
        problem += _card_beside(Path(where))
        raise CheckpointError(f"{where}: the checkpoint does not fit the model: {problem}")
    _check_dtypes(given, wanted, where=where)
    notes = [describe_rest(match, states, unsaved=unsaved), _rounded(given, wanted)]
    said = "; ".join(filter(None, notes))
    fitted = {key: given.get(key, value).to(value.dtype) for key, value in wanted.items()}
    return fitted, Loaded(
        match.path if found.was_chosen else "", said and f"{Path(where).name}: {said}."
    )


def _only(
    matches: Sequence[Match], wanted: _State, weights: _Weights, *, where: str
) -> tuple[Match, _State]:
    """The one match that is meant, with its tensors; refuses several of different numbers."""
    read = [
        (match, {name: weights.get(match.state, key) for name, key in match.keys.items()})
        for match in matches
    ]
    same = [
        (match, given)
        for match, given in read
        if all(value.shape == wanted[name].shape for name, value in given.items())
    ]
    (match, given), *others = same or read
    rivals = [other for other, values in others if not _equal(given, values)]
    if rivals:
        raise CheckpointError(several(where, [match, *rivals]))
    return match, given


def _equal(first: _State, second: _State) -> bool:
    """Whether two sets of weights are the same numbers, so that either may be meant."""
    return all(
        value.dtype == second[name].dtype and torch.equal(value, second[name])
        for name, value in first.items()
        if not is_counter(name)
    )


def _check_dtypes(given: _State, wanted: _State, *, where: str) -> None:
    """Refuse numbers that stand for others: quantised weights need their scales."""
    for key, value in given.items():
        if wanted[key].is_floating_point() and value.dtype not in _FLOATING:
            raise CheckpointError(
                f"{where}: the tensor {key!r} holds {_name(value.dtype)}, the model has "
                f"{_name(wanted[key].dtype)}. Quantised numbers mean nothing without their scales; "
                "float32, float64, float16 or bfloat16 is needed. Save the model before it is "
                "quantised, or dequantise it first."
            )
        if value.is_floating_point() and not (wanted[key].is_floating_point() or is_counter(key)):
            raise CheckpointError(
                f"{where}: the tensor {key!r} holds {_name(value.dtype)}, the model has "
                f"{_name(wanted[key].dtype)}. Whole numbers are needed there. Save the model's "
                "state_dict() as it is, without a cast."
            )


def _rounded(given: _State, wanted: _State) -> str:
    """What is to be said of numbers that the model cannot hold; widening changes none."""
    kinds = Counter(
        _name(value.dtype)
        for key, value in given.items()
        if wanted[key].is_floating_point() and value.dtype.itemsize > wanted[key].dtype.itemsize
    )
    return " and ".join(f"{n} tensors of {name} were rounded" for name, n in kinds.items())


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def load_into(module: torch.nn.Module, path: Path, *, part: str = "") -> None:
    """Fill `module` with the weights of a file or folder, strictly.

    What else the file holds is left out, and said in a note of the loaded model. A ``config.json``
    in a folder of a hub must say what the module's own configuration says.

    Args:
        module: The model, or the part of one.
        path: The file or folder; with ``#PLACE`` behind it where it holds several sets of weights,
            such as ``last.ckpt#ema_state_dict``.
        part: What `module` is called in the file's model (``decoder``): only that part is read.

    Raises:
        CheckpointError: The file cannot be read safely, does not fit, or is not finite.
        CardError: The folder's configuration is another than the card's.
    """
    if part:
        fill(module, read_tensors(path, under=part), where=str(path))
        return
    check_configuration(module, path)
    file, choice = split_choice(path)
    with _opened(weight_files(file)) as weights:
        _fill(module, weights, choice=choice, where=str(file))


def fill(
    module: torch.nn.Module, tensors: Mapping[str, torch.Tensor], *, where: str, note: str = ""
) -> None:
    """Fill `module` with `tensors`, strictly; `where` names their file in messages."""
    _fill(module, _in_memory(tensors), choice=None, where=where)
    tell(note)


def tell(note: str) -> None:
    """Add a sentence to the notes of the model that is being loaded."""
    if (watcher := _LOADED.get()) is not None and note:
        watcher.append(Loaded("", note))


def _fill(module: torch.nn.Module, weights: _Weights, *, choice: str | None, where: str) -> None:
    fitted, loaded = _fit(module, weights, choice=choice, where=where)
    for key, value in fitted.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise CheckpointError(
                f"{where}: the tensor {key!r} holds numbers that are not finite. Every weight must "
                "be finite. The training diverged or the file is damaged: use another checkpoint."
            )
    module.load_state_dict(fitted, strict=True)
    if (watcher := _LOADED.get()) is not None:
        watcher.append(loaded)
