"""Loads the model of a card, and names it by its content."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch

from harness.cards import ModelCard, ResolvedCard, load_model_card
from harness.errors import CheckpointError, ModelError
from harness.model.adapters import Files, build_traced, find_files, no_weights
from harness.model.backends import Backend, Choice, accelerate, choose_backend
from harness.model.callables import FunctionAdapter
from harness.model.contract import (
    Family,
    Note,
    Noted,
    PredictOnly,
    Predicts,
    Staged,
    StagedAdapter,
)
from harness.model.offers import Configured, Translates, Translation
from harness.model.precision import (
    TWO_SPEED,
    Precision,
    building,
    choose_device,
    choose_precision,
    computing,
)
from harness.model.sampling import Sampled, is_sampled
from harness.weights.loading import fill, load_into, read_shapes, read_tensors, watched_loading
from harness.weights.lora import merge
from harness.weights.pretrained import check_normalisation


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to run: on its device, in evaluation mode.

    `adapter` is staged whatever the model offers; `raw` is the adapter as its
    author wrote it, to be asked for further capabilities (`EmbedsText`,
    `Tokenizes`). Weights stay float32; `precision` is that of `autocast`. `stages`
    says what computes each stage, where the backend is not torch. A model of two speeds has
    itself in float32 as `exact`, which it asks where its Dice could move by `tolerance`.
    """

    card: ModelCard
    resolved: ResolvedCard
    adapter: StagedAdapter
    raw: Any
    model_id: str
    device: torch.device
    precision: Precision
    weights_sha256: str | None
    random_weights: bool
    notes: tuple[Note, ...] = ()
    backend: Backend = "torch"
    stages: Mapping[str, str] = field(default_factory=dict)
    exact: "LoadedModel | None" = None
    tolerance: float | None = None

    @property
    def arithmetic(self) -> str:
        """What a run records as its precision."""
        if self.tolerance is None:
            return self.precision
        return f"{TWO_SPEED}:{self.tolerance:g} ({self.precision})"

    @property
    def threshold(self) -> float:
        """Probability above which a pixel belongs to the mask."""
        return self.card.threshold

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """The context in which the model computes."""
        return computing(self.device, self.precision)


def load_model(
    name_or_card: str | Path | ResolvedCard,
    checkpoint: str | Path | None = None,
    device: str = "auto",
    *,
    dtype: str = "auto",
    backend: str = "torch",
    random_weights: bool = False,
    seed: int = 0,
) -> LoadedModel:
    """Build the model of a card, fill it with weights, and name it by its content.

    A checkpoint fills the whole model, so with one the card's pretrained weights
    are not fetched.

    Args:
        name_or_card: Name of a built-in model, path of a card or of its folder.
        checkpoint: A finetuned file; the card's own when None.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        dtype: Precision of the computation: ``auto``, ``float32``, ``bfloat16``,
            ``float16`` or ``mixed``; see `harness.model.precision`.
        backend: What computes: ``torch``, its compiler ``inductor``, or ``openvino`` on a
            CPU; see `harness.model.backends`. A function computes as it does.
        random_weights: Fill with random numbers from `seed`, for speed and
            plumbing; the seed enters the model's id.
        seed: Seed of the random numbers.

    Raises:
        CardError: The card or its settings are wrong.
        ModelError: There is nothing to fill the model with, the adapter cannot
            be imported or misses the contract, or the device is not there.
        CheckpointError: A file of weights is missing, unsafe, or does not fit.
    """
    card = name_or_card if isinstance(name_or_card, ResolvedCard) else load_model_card(name_or_card)
    if card.card.kind == "callable":
        return _load_function(card, checkpoint)
    place = choose_device(choose_backend(backend, device))
    precision = choose_precision(dtype, place, where=f"model {card.card.name!r}")
    changed: list[str] = []
    with building([]), watched_loading() as loaded:
        files = find_files(card, checkpoint, random_weights=random_weights)
        raw, sources = build_traced(card, files, seed=seed, changed=changed)
        if files.checkpoint is not None and isinstance(raw, Configured):
            raw.configure(files.checkpoint)
        if files.checkpoint is not None and isinstance(raw, Family):
            raw.fit_to(read_shapes(files.checkpoint))
        adapter = _staged(raw, card)
        if files.is_bare and any(True for _ in adapter.module.parameters()):
            raise no_weights(card)
        notes = _notes(raw, card, random_weights=random_weights)
        _fill(adapter.module, raw, files, card.card)
        if place_of_weights := files.checkpoint or files.arguments["weights"]:
            check_normalisation(raw.preprocess, adapter.module, place_of_weights)
    notes += tuple(Note(one.note) for one in loaded if one.note) + _note_of_settings(
        list(dict.fromkeys(changed))
    )
    adapter.module.eval().to(place)
    chosen = [one.chosen for one in loaded if one.chosen]
    # Ids are older than backends: torch's have none in them.
    how = [precision, *chosen, *([] if backend == "torch" else [backend])]
    digest = _digest(card.card, files, sources, how, seed if random_weights else None)
    tag = f"-random{seed}" if random_weights else ""
    model = LoadedModel(
        card=card.card,
        resolved=card,
        adapter=adapter,
        raw=raw,
        model_id=f"{card.card.name}{tag}@{digest[:12]}",
        device=place,
        precision=precision,
        weights_sha256=files.sha256,
        random_weights=random_weights,
        notes=notes,
    )
    return model if backend == "torch" else _accelerated(model, cast(Backend, backend))


def load_two_speed(
    name_or_card: str | Path | ResolvedCard,
    *arguments: Any,
    tolerance: float,
    **options: Any,
) -> LoadedModel:
    """As `load_model`, in mixed precision and in float32; `harness.engine.two_speed` uses both.

    A function computes as it does.

    Raises:
        ModelError: The model draws random numbers, or as for `load_model`.
    """
    short = load_model(name_or_card, *arguments, dtype="mixed", **options)
    if short.card.kind == "callable":
        note = Note("--dtype two-speed: a function computes as it does, in one precision.")
        return replace(short, notes=(*short.notes, note))
    if isinstance(short.adapter, Sampled):
        raise ModelError(
            f"model {short.card.name!r}: --dtype two-speed: it draws random numbers, which differ "
            "between two computations of one answer. Give --dtype float32 or mixed."
        )
    if short.backend == "torch":
        exact = replace(short, precision="float32")
    else:
        exact = load_model(name_or_card, *arguments, dtype="float32", **options)
    name, _, digest = short.model_id.rpartition("@")
    both = hashlib.sha256(f"{digest} {TWO_SPEED} {tolerance!r}".encode()).hexdigest()
    return replace(short, model_id=f"{name}@{both[:12]}", exact=exact, tolerance=tolerance)


def _accelerated(model: LoadedModel, backend: Backend) -> LoadedModel:
    """The model with its stages compiled, as far as that goes."""
    floor = model.card.noise_floor
    choice = Choice(backend, model.device, model.model_id, model.precision, floor)
    adapter, stages, notes = accelerate(model.adapter, choice)
    return replace(
        model, adapter=adapter, backend=backend, stages=stages, notes=(*model.notes, *notes)
    )


def _fill(module: torch.nn.Module, raw: Any, files: Files, card: ModelCard) -> None:
    """Load the checkpoint, under whatever names it has, and merge additions."""
    translate = raw.translate if isinstance(raw, Translates) else None
    if files.checkpoint is not None and not _translated(module, files.checkpoint, translate):
        load_into(module, files.checkpoint)
    if files.lora is not None and card.lora is not None:
        merge(module, files.lora, card.lora, translate)


def _translated(
    module: torch.nn.Module,
    file: Path,
    translate: Callable[[Mapping[str, torch.Tensor]], Translation | None] | None,
) -> bool:
    """Load a checkpoint under another project's names; False where it has none of them."""
    if translate is None:
        return False
    names = read_shapes(file)
    try:
        # Names alone tell; a file of gigabytes is not read in vain.
        if translate({key: torch.empty(s, device="meta") for key, s in names.items()}) is None:
            return False
        told = translate(read_tensors(file))
    except CheckpointError as problem:
        raise CheckpointError(f"{file}: {problem}") from None
    if told is None:
        return False
    rest = "".join(
        f"; {len(told.left_out)} of its tensors have no place in it, first {first[:120]!r}"
        for first in told.left_out[:1]
    )
    note = (
        f"{file.name}: read under the names of its own project, {len(told.tensors)} tensors of "
        f"this model{rest}."
    )
    fill(module, told.tensors, where=str(file), note=note)
    return True


def _load_function(card: ResolvedCard, checkpoint: str | Path | None) -> LoadedModel:
    """The function a card names; `device` and `dtype` are its own affair."""
    if checkpoint is not None:
        raise ModelError(
            f"{card.path}: found the checkpoint {str(checkpoint)!r} for a function. A function "
            "brings its own weights. Let it read them, and leave the checkpoint out."
        )
    changed: list[str] = []
    with watched_loading():
        raw, sources = build_traced(card, Files({}), seed=0, changed=changed)
    model = load_function(card, raw, sources)
    return replace(model, notes=model.notes + _note_of_settings(list(dict.fromkeys(changed))))


def load_function(card: ResolvedCard, raw: FunctionAdapter, sources: str) -> LoadedModel:
    """A function as a loaded model; its masks lie in this process's memory."""
    digest = _digest(card.card, Files({}), sources, [raw.state], None)
    return LoadedModel(
        card=card.card,
        resolved=card,
        adapter=PredictOnly(raw),
        raw=raw,
        model_id=f"{card.card.name}@{digest[:12]}",
        device=torch.device("cpu"),
        precision="float32",
        weights_sha256=None,
        random_weights=False,
        notes=tuple(raw.notes),
    )


def _note_of_settings(changed: Sequence[str]) -> tuple[Note, ...]:
    if not changed:
        return ()
    return (
        Note(
            f"the adapter changes torch's settings when it is loaded ({', '.join(changed)}). They "
            "were restored: the run computes in the precision that it names."
        ),
    )


def _notes(raw: Any, card: ResolvedCard, *, random_weights: bool) -> tuple[Note, ...]:
    notes = tuple(raw.notes) if isinstance(raw, Noted) else ()
    for note in notes:
        if note.untrained_only and not random_weights:
            raise ModelError(f"{card.path}: {note.text}")
    return notes


def _staged(raw: Any, card: ResolvedCard) -> StagedAdapter:
    offered = set(dir(raw))
    missing = sorted({"preprocess", "count_tokens", "input_size", "module"} - offered)
    if not missing and isinstance(raw, Staged):
        if is_sampled(raw):
            return Sampled(raw, samples=card.card.samples)
        return cast(StagedAdapter, raw)
    if not missing and isinstance(raw, Predicts):
        return PredictOnly(raw)
    missing += [] if isinstance(raw, Predicts) else ["predict"]
    raise ModelError(
        f"{card.path}: the adapter {type(raw).__name__!r} lacks {', '.join(map(repr, missing))}. "
        "An adapter has 'input_size', 'module', 'preprocess', 'count_tokens' and either 'predict' "
        "or all of 'encode_images', 'encode_texts', 'decode'. Add what is missing."
    )


def _digest(
    card: ModelCard, files: Files, sources: str, chosen: Sequence[str], seed: int | None
) -> str:
    """Hash of what decides the numbers; where a file lies does not.

    `chosen` is the precision and, where a file holds several sets of weights, which was meant.
    """
    places = {"weights", "checkpoint", "further_weights", "tokenizer", "recognised_by"}
    places |= {"recognised_kinds", "lora", "group"}
    # Ids are older than these keys; the second describes the model, and changes nothing.
    places |= {"aspect", "kind"} if card.kind == "adapter" else {"aspect"}
    content: dict[str, Any] = {
        "card": card.model_dump(mode="json", exclude=places),
        "weights": files.sha256,
        **files.further_sha256,
        "sources": sources,
        "precision": chosen,
        "seed": seed,
    }
    if card.lora is not None:
        content["lora_alpha"] = card.lora.alpha
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
