"""Builds models of transformers from a card, and fills them from a local folder.

A card says what differs from the configuration's defaults, those of the published model. A folder
in the hub's format decides its own configuration, which the card must not contradict; where the
card decides the whole architecture, all that both say of the answer must be equal. transformers'
own reader is used, because keys in such files are often those of an older version, or left out
where weights are tied. Weights are float32 on the CPU; nothing is downloaded or executed.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from harness.errors import CardError, CheckpointError, choose
from harness.files.canonical import read_object
from harness.weights.files import FOLDER_FILES, split_choice

_SETTINGS = "settings"
# They say how a model is stored, trained or called; its logits in evaluation are the same.
_NO_MATTER = {"architectures", "transformers_version", "dtype", "torch_dtype", "use_cache"}
_NO_MATTER |= {"id2label", "label2id", "num_labels", "problem_type", "chunk_size_feed_forward"}
_NO_MATTER |= {"initializer_range", "initializer_factor", "logit_scale_init_value"}
_NO_MATTER |= {"return_dict", "output_attentions", "output_hidden_states", "tie_word_embeddings"}
_NO_MATTER |= {"bos_token_id", "pad_token_id", "sep_token_id", "is_encoder_decoder"}
# Until its id was read, configurations of CLIP said 2 whatever their tokenizer had.
_UNREAD_EOS = 2
# Pixels are standardised to about one; what rounding and resizing do to them is less.
_SAME_PIXEL = 0.02


def configured(kind: Any, changes: Mapping[str, Any], *, key: str) -> Any:
    """A configuration of transformers with some defaults changed, key by key at every depth.

    `key` is that of the card's settings which holds `changes`, for messages.
    """
    keywords = _keywords(kind(), changes, where=f"{_SETTINGS}.{key}")
    try:
        return kind(**keywords)
    except (StrictDataclassError, TypeError, ValueError) as problem:
        reason = (str(problem).strip().splitlines() or [type(problem).__name__])[-1].strip()
        raise CardError(
            f"{_SETTINGS}.{key}: {kind.__name__} refuses it ({reason}). Its documentation says "
            "what is possible. Correct the values."
        ) from None


def _keywords(default: Any, changes: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    """What builds `default` again with `changes`.

    Keywords that follow from others must be left out, or they would not follow the
    changes: only what differs from the class's own defaults is repeated.
    """
    whole, own = default.to_dict(), type(default)().to_dict()
    keywords = {name: value for name, value in whole.items() if value != own.get(name)}
    for name, value in changes.items():
        choose(name, whole, kind="setting", where=where, error=CardError)
        kind = whole[name].get("model_type") if isinstance(whole[name], Mapping) else None
        # A part of another kind has nothing in common with the default one.
        if kind and isinstance(value, Mapping) and value.get("model_type", kind) == kind:
            inner = _keywords(getattr(default, name), value, where=f"{where}.{name}")
            keywords[name] = inner | {"model_type": kind}
        else:
            keywords[name] = value
    return keywords


def pretrained(kind: Any, changes: Mapping[str, Any], *, weights: Path | None, key: str) -> Any:
    """A model of class `kind` with the weights of a folder in the hub's format, or random numbers.

    Args:
        kind: A model class of transformers, such as ``Sam3Model``.
        changes: What differs from the configuration's defaults.
        weights: The folder, or None.
        key: The key of the card's settings that holds `changes`.

    Raises:
        CardError: `changes` are impossible or contradict the folder.
        CheckpointError: The folder is not whole, or does not fill the model.
    """
    if weights is None:
        return kind(configured(kind.config_class, changes, key=key))
    folder = weights if weights.is_dir() else weights.parent
    config = _read_configuration(kind.config_class, folder, name=kind.__name__)
    _compare(changes, config.to_dict(), folder=folder, where=f"{_SETTINGS}.{key}")
    with _quietly():
        return _filled(kind, config, folder)


def check_configuration(module: torch.nn.Module, place: Path) -> None:
    """Refuse weights whose own ``config.json`` says another model than `module` is.

    Shapes alone do not tell: other heads, layers or activations fit all the same. `place` is the
    hub's folder or a file of it; nothing is compared without it, or with other than transformers'.
    """
    ours: Any = getattr(module, "config", None)
    file = beside(place, "config.json")
    if file is None or not callable(getattr(ours, "to_dict", None)):
        return
    theirs = _read_configuration(type(ours), file.parent, name=type(module).__name__)
    for key, found, wanted in _differences(theirs.to_dict(), ours.to_dict()):
        raise CardError(
            f"settings: {file} says {key} = {found!r}, the card {wanted!r}. They must be equal, or "
            "the same weights give other masks. Correct the card's settings, or give the folder "
            "that belongs to them."
        )


def read_configuration(kind: Any, folder: Path) -> Any:
    """The configuration of a folder in the hub's format for a model class of transformers.

    Raises:
        CheckpointError: It is missing, no configuration, or that of another model.
    """
    return _read_configuration(kind.config_class, folder, name=kind.__name__)


def beside(place: Path, name: str) -> Path | None:
    """A file of the hub's folder that `place` is or lies in; None where there is none."""
    place, _ = split_choice(place)
    folder = place.parent if place.name in FOLDER_FILES else place
    return folder / name if (folder / name).is_file() else None


def _differences(
    theirs: Mapping[str, Any], ours: Mapping[str, Any], place: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """Keys that change the answer and differ, with both values; nested ones with dots."""
    for key in (key for key in ours if key in theirs):
        found, wanted = theirs[key], ours[key]
        if key in _NO_MATTER or key.startswith("_") or "drop" in key:
            continue
        if isinstance(found, Mapping) and isinstance(wanted, Mapping):
            yield from _differences(found, wanted, f"{place}{key}.")
        elif _plain(found) != _plain(wanted) and (key, found) != ("eos_token_id", _UNREAD_EOS):
            yield f"{place}{key}", _plain(found), _plain(wanted)


def _read_configuration(kind: Any, folder: Path, *, name: str) -> Any:
    """The configuration of a folder, as the class `kind` of the model `name` reads it."""
    file = folder / "config.json"
    if not file.is_file():
        raise CheckpointError(
            f"{folder}: there is no 'config.json'. {name} is read from a folder in the "
            "hub's format, with 'config.json' and 'model.safetensors'. Add the file."
        )
    # First of all: a relative's configuration is read without a word, and fails later.
    content = _read_json(file)
    found = content.get("model_type", kind.model_type)
    # A part of a larger model is taken out of its configuration, as transformers does.
    parts = [part.get("model_type") for part in content.values() if isinstance(part, dict)]
    if kind.model_type not in (found, *parts):
        raise CheckpointError(
            f"{file}: model_type is {found!r}, {name} has {kind.model_type!r}. It is the folder of "
            "another model. Give the card of that model, or another folder."
        )
    try:
        return kind.from_pretrained(str(folder), local_files_only=True)
    # transformers takes values apart before it looks at their kind.
    except (
        *(OSError, StrictDataclassError, TypeError, ValueError),
        *(AttributeError, LookupError, RecursionError, ArithmeticError),
    ) as problem:
        raise CheckpointError(
            f"{file}: not a configuration of {name} ({_first_line(problem)}). Download the folder "
            f"of a {name} again."
        ) from None


def _read_json(file: Path) -> dict[str, Any]:
    repair = "Download the file of the hub's folder again."
    return read_object(file, error=CheckpointError, missing=repair, repair=repair)


def check_normalisation(
    preprocess: Callable[[Any], torch.Tensor], module: torch.nn.Module, place: Path
) -> None:
    """Refuse weights whose ``preprocessor_config.json`` standardises pixels otherwise.

    What the adapter's `preprocess` does is measured on a black and a white picture; models that are
    not of transformers are left alone.
    """
    file = beside(place, "preprocessor_config.json")
    if file is None or not callable(getattr(getattr(module, "config", None), "to_dict", None)):
        return
    content = _read_json(file)
    mean, std = content.get("image_mean"), content.get("image_std")
    if mean is None or std is None or not content.get("do_normalize", True):
        return
    factor = content.get("rescale_factor", 1 / 255) if content.get("do_rescale", True) else 1
    try:
        sides = [(np.float64(v * factor) - np.array(mean)) / np.array(std) for v in (0, 255)]
        values = np.array([np.broadcast_to(side, 3) for side in sides])
    except (TypeError, ValueError):
        raise CheckpointError(
            f"{file}: image_mean is {mean!r}, image_std {std!r}. A number a channel is needed. "
            "Download the file again."
        ) from None
    ours = np.array(
        [
            preprocess(np.full((48, 48, 3), value, np.uint8)).float().mean(dim=(1, 2)).numpy()
            for value in (0, 255)
        ]
    )
    if not np.allclose(ours, values, atol=_SAME_PIXEL):
        raise CardError(
            f"settings: {file} makes black {_shown(values[0])} and white {_shown(values[1])}, the "
            f"adapter {_shown(ours[0])} and {_shown(ours[1])}. Pixels must be standardised as in "
            "training. Give weights of this model, or an adapter that standardises as the file "
            "says."
        )


def _shown(values: Any) -> str:
    return str([round(float(value), 3) for value in values])


def _compare(
    changes: Mapping[str, Any], found: Mapping[str, Any], *, folder: Path, where: str
) -> None:
    """Refuse a card that says another thing than the folder."""
    for name, value in changes.items():
        theirs = found.get(name)
        if isinstance(value, Mapping) and isinstance(theirs, Mapping):
            _compare(value, theirs, folder=folder, where=f"{where}.{name}")
        elif _plain(value) != _plain(theirs):
            raise CardError(
                f"{where}.{name}: found {value!r}, {folder / 'config.json'} says {theirs!r}. They "
                "must be equal. Correct the card, or leave the key to the folder."
            )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _filled(kind: Any, config: Any, folder: Path) -> Any:
    try:
        module, report = kind.from_pretrained(
            str(folder),
            config=config,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
            dtype=torch.float32,
        )
    except (OSError, RuntimeError, ValueError, SafetensorError) as problem:
        raise CheckpointError(
            f"{folder}: the weights cannot be read into {kind.__name__} ({_first_line(problem)}). "
            "'model.safetensors' must be whole and belong to 'config.json'. Download both again."
        ) from None
    missing, unexpected = (sorted(report[name]) for name in ("missing_keys", "unexpected_keys"))
    if missing or unexpected:
        first = f"; first missing {missing[0]!r}" if missing else ""
        first += f"; first unexpected {unexpected[0]!r}" if unexpected else ""
        raise CheckpointError(
            f"{folder}: the weights do not fill {kind.__name__}: {len(missing)} keys are missing, "
            f"{len(unexpected)} unexpected{first}. Missing ones would be random numbers. Get the "
            "whole file, or one of this architecture."
        )
    _check_finite(module, folder)
    return module


def _check_finite(module: torch.nn.Module, folder: Path) -> None:
    for name, value in module.named_parameters():
        if not torch.isfinite(value).all():
            raise CheckpointError(
                f"{folder}: the tensor {name!r} holds numbers that are not finite. Every weight "
                "must be finite. The file is damaged: download it again."
            )


def _first_line(problem: Exception) -> str:
    return (str(problem).strip().splitlines() or [type(problem).__name__])[0][:200]


@contextmanager
def _quietly() -> Iterator[None]:
    """Without transformers' progress bars and reports: what matters becomes an error here."""
    from transformers.utils import logging

    bars, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
