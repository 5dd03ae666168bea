"""Builds models of transformers from a card, and fills them from a local folder.

A card says what differs from the configuration's defaults, which are those of the
published model. A folder in the hub's format (``config.json`` and
``model.safetensors``, whole or in shards) decides its own configuration, and what the
card says must not contradict it. transformers' own reader is used, because keys in
such files are often those of an older version, or left out where weights are tied.

Conventions: weights are float32 on the CPU; nothing is downloaded, and no code or
pickle of the folder is executed.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from harness.errors import CardError, CheckpointError, choose

_SETTINGS = "settings"


def configured(kind: Any, changes: Mapping[str, Any], *, key: str) -> Any:
    """A configuration with some of its defaults changed, key by key at every depth.

    Args:
        kind: A configuration class of transformers, such as ``Sam3Config``.
        changes: What differs; nested mappings change nested configurations.
        key: The key of the card's settings that holds `changes`, for messages.

    Raises:
        CardError: A key is unknown or has an impossible value.
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
    """A model of class `kind` with the weights of a folder, or with random numbers.

    Args:
        kind: A model class of transformers, such as ``Sam3Model``.
        changes: What differs from the configuration's defaults.
        weights: A folder in the hub's format, or None.
        key: The key of the card's settings that holds `changes`.

    Raises:
        CardError: `changes` are impossible or contradict the folder.
        CheckpointError: The folder is not whole, or does not fill the model.
    """
    if weights is None:
        return kind(configured(kind.config_class, changes, key=key))
    folder = weights if weights.is_dir() else weights.parent
    config = _read_configuration(kind, folder)
    _compare(changes, config.to_dict(), folder=folder, where=f"{_SETTINGS}.{key}")
    with _quietly():
        return _filled(kind, config, folder)


def _read_configuration(kind: Any, folder: Path) -> Any:
    if not (folder / "config.json").is_file():
        raise CheckpointError(
            f"{folder}: there is no 'config.json'. {kind.__name__} is read from a folder in the "
            "hub's format, with 'config.json' and 'model.safetensors'. Add the file."
        )
    try:
        return kind.config_class.from_pretrained(str(folder), local_files_only=True)
    # transformers takes values apart before it looks at their kind.
    except (
        *(OSError, StrictDataclassError, TypeError, ValueError),
        *(AttributeError, LookupError, RecursionError, ArithmeticError),
    ) as problem:
        raise CheckpointError(
            f"{folder / 'config.json'}: not a configuration of {kind.__name__} "
            f"({_first_line(problem)}). Download the folder of a {kind.__name__} again."
        ) from None


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
