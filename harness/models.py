"""The contract of a vision-language segmentation model (VLSM), and how one is loaded.

An adapter wraps one model. Three levels, the first is enough:

1. `Predicts`: ``predict(pixels, texts) -> logits``.
2. `Staged`: ``encode_images``, ``encode_texts``, ``decode``, so that each image
   and each text is encoded once.
3. `EmbedsText`: ``text_embedding``, which tells a deaf text tower from a deaf fusion.

Every adapter also says how it preprocesses (`Adapter`). Its constructor is
``Adapter(settings, *, weights)``: `settings` is the card's mapping, to be checked
with `read_settings`; `weights` is a local file or folder, or None for random
numbers. Where the card names `further_weights` or a `tokenizer`, it also gets these:
local files by name, and the vocabulary's file or None. It neither downloads nor
moves anything to a device.

Conventions: pixels are float ``(N, 3, H, W)`` as `preprocess` returns them;
logits are ``(N, h, w)`` before the sigmoid and cover the whole original image,
stretched; sizes are ``(height, width)``. Features are NamedTuples of tensors,
every leaf with leading axis N and a trailing shape that is fixed per model, so
that callers may select and concatenate rows. Pixels and features lie on the
device of `module`; texts are plain strings.
"""

import contextlib
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar, cast, runtime_checkable

import numpy as np
import pydantic
import torch
from numpy.typing import NDArray
from PIL import Image

from harness.adapters import Files, build_traced, find_files
from harness.cards import ModelCard, ResolvedCard, load_model_card
from harness.checkpoints import load_into, watched_loading
from harness.errors import CardError, ModelError
from harness.files import Document, validate
from harness.precision import Precision, building, choose_device, choose_precision, computing
from harness.pretrained import check_normalisation

Picture = NDArray[np.uint8] | Image.Image
Features = tuple[torch.Tensor, ...]
Schema = TypeVar("Schema", bound=pydantic.BaseModel)


class TokenCounts(NamedTuple):
    """How long each text is for a model's tokenizer, special tokens included.

    `n_tokens` counts before truncation; `truncated` says that the end of the
    text does not reach the model.
    """

    n_tokens: tuple[int, ...]
    truncated: tuple[bool, ...]


class Adapter(Protocol):
    """What every wrapped model has.

    `input_size` is (height, width) of the pixels; `module` holds all weights: it
    is what moves to a device and what a checkpoint is loaded into.
    """

    input_size: tuple[int, int]
    module: torch.nn.Module

    def preprocess(self, image: Picture) -> torch.Tensor:
        """One picture, ``(H, W, 3)`` uint8 RGB of any size -> ``(3, h, w)`` float32."""
        ...

    def count_tokens(self, texts: Sequence[str]) -> TokenCounts:
        """Length of each text in tokens; zeros where the model reads no text."""
        ...


@runtime_checkable
class Predicts(Protocol):
    """Level 1: a black box."""

    def predict(self, pixels: torch.Tensor, texts: Sequence[str]) -> torch.Tensor:
        """``(N, 3, H, W)`` and N texts -> logits ``(N, h, w)``."""
        ...


@runtime_checkable
class Staged(Protocol):
    """Level 2: all work without text in `encode_images`, all without image in `encode_texts`."""

    def encode_images(self, pixels: torch.Tensor) -> Features:
        """``(N, 3, H, W)`` -> features of N images."""
        ...

    def encode_texts(self, texts: Sequence[str]) -> Features:
        """N texts -> features of N texts."""
        ...

    def decode(self, image_features: Any, text_features: Any) -> torch.Tensor:
        """N rows of each, paired -> logits ``(N, h, w)``."""
        ...


@runtime_checkable
class Tokenizes(Protocol):
    """A model with a tokenizer: ``encode_texts(t) == encode_tokens(*tokenize(t))``."""

    def tokenize(self, texts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """N texts -> token ids and attention mask, both ``(N, L)`` int64."""
        ...

    def encode_tokens(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Features:
        """Token ids and attention mask, ``(N, L)`` -> features of N texts."""
        ...


@runtime_checkable
class EmbedsText(Protocol):
    """Level 3: shows the vector by which a text enters the model."""

    def text_embedding(self, texts: Sequence[str]) -> torch.Tensor:
        """N texts -> ``(N, D)``."""
        ...


@runtime_checkable
class PartlyTrainable(Protocol):
    """A model of which the decoder alone can be finetuned (``trainable: decoder``)."""

    def decoder_modules(self) -> Sequence[torch.nn.Module]:
        """The parts of `module` that are trained; all others are frozen."""
        ...


class Note(NamedTuple):
    """A sentence that whoever uses the model's numbers should read.

    `untrained_only` says that it is true of a makeshift that is good enough for a
    model with random weights alone: any other is refused with this sentence.
    """

    text: str
    untrained_only: bool = False


@runtime_checkable
class Noted(Protocol):
    """A model that has something to say of its numbers; known once it is built."""

    notes: Sequence[Note]


class StagedAdapter(Adapter, Staged, Protocol):
    """What the engine and the trainer work with: any wrapped model, in stages."""


def device_of(module: torch.nn.Module) -> torch.device:
    """Where a module's weights lie; the CPU if it has none."""
    return next((p.device for p in module.parameters()), torch.device("cpu"))


class _Pixels(NamedTuple):
    pixels: torch.Tensor


class _TextIndex(NamedTuple):
    places: torch.Tensor


class PredictOnly:
    """Makes a level-1 model look staged, so that the engine sees one interface.

    An image's features are its pixels; a text's feature is its place in a table
    of the texts seen so far, which grows with distinct texts only.
    """

    def __init__(self, adapter: Any) -> None:
        self.adapter = adapter
        self.input_size: tuple[int, int] = adapter.input_size
        self.module: torch.nn.Module = adapter.module
        self._texts: list[str] = []
        self._places: dict[str, int] = {}

    def preprocess(self, image: Picture) -> torch.Tensor:
        """The wrapped model's own."""
        return cast(Adapter, self.adapter).preprocess(image)

    def count_tokens(self, texts: Sequence[str]) -> TokenCounts:
        """The wrapped model's own."""
        return cast(Adapter, self.adapter).count_tokens(texts)

    def encode_images(self, pixels: torch.Tensor) -> _Pixels:
        """The pixels themselves."""
        return _Pixels(pixels)

    def encode_texts(self, texts: Sequence[str]) -> _TextIndex:
        """Places in the table, ``(N,)`` int64."""
        for text in texts:
            if text not in self._places:
                self._places[text] = len(self._texts)
                self._texts.append(text)
        places = [self._places[text] for text in texts]
        return _TextIndex(torch.tensor(places, dtype=torch.int64, device=device_of(self.module)))

    def decode(self, image_features: _Pixels, text_features: _TextIndex) -> torch.Tensor:
        """The whole model, for every pair."""
        texts = [self._texts[i] for i in text_features.places.tolist()]
        return cast(Predicts, self.adapter).predict(image_features.pixels, texts)


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to run: on its device, in evaluation mode.

    `adapter` is staged whatever the model offers; `raw` is the adapter as its
    author wrote it, to be asked for further capabilities (`EmbedsText`,
    `Tokenizes`). Weights stay float32; `precision` is that of `autocast`.
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

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """The context in which the model computes."""
        return computing(self.device, self.precision)


def load_model(
    name_or_card: str | Path | ResolvedCard,
    checkpoint: str | Path | None = None,
    device: str = "auto",
    *,
    dtype: str = "auto",
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
            ``float16`` or ``mixed``; see `harness.precision`.
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
    place = choose_device(device)
    precision = choose_precision(dtype, place, where=f"model {card.card.name!r}")
    changed: list[str] = []
    with building([]), watched_loading() as loaded:
        files = find_files(card, checkpoint, random_weights=random_weights)
        raw, sources = build_traced(card, files, seed=seed, changed=changed)
        adapter = _staged(raw, card)
        notes = _notes(raw, card, random_weights=random_weights)
        if files.checkpoint is not None:
            load_into(adapter.module, files.checkpoint)
        if place_of_weights := files.checkpoint or files.arguments["weights"]:
            check_normalisation(raw.preprocess, adapter.module, place_of_weights)
    notes += tuple(Note(one.note) for one in loaded if one.note) + _note_of_settings(
        list(dict.fromkeys(changed))
    )
    adapter.module.eval().to(place)
    chosen = [one.chosen for one in loaded if one.chosen]
    digest = _digest(
        card.card, files, sources, [precision, *chosen], seed if random_weights else None
    )
    tag = f"-random{seed}" if random_weights else ""
    return LoadedModel(
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
    content = {
        "card": card.model_dump(mode="json", exclude=places),
        "weights": files.sha256,
        **files.further_sha256,
        "sources": sources,
        "precision": chosen,
        "seed": seed,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_settings(schema: type[Schema], settings: Mapping[str, Any]) -> Schema:
    """Check a card's `settings` against an adapter's own schema.

    Raises:
        CardError: A key is unknown, missing or of the wrong kind; `load_model`
            puts the card's path in front.
    """
    try:
        return validate(Document(Path("settings"), dict(settings)), schema)
    except CardError as problem:
        # The mapping has no lines of its own: "settings:1: depth: ..." is "settings.depth: ...".
        text = re.sub(r"^settings:1: ([\w.\[\]]+): ", r"settings.\1: ", str(problem), flags=re.M)
        raise CardError(text.replace("settings:1: ", "settings: ")) from None


def standardise(
    image: Picture,
    size: tuple[int, int],
    *,
    mean: Sequence[float],
    std: Sequence[float],
) -> torch.Tensor:
    """Resize a picture (bilinear with antialiasing, aspect not kept) and standardise it.

    It is what torchvision's Resize, ToTensor and Normalize give on a PIL image.

    Args:
        image: ``(H, W, 3)`` uint8 RGB, or a PIL image of any mode.
        size: Height and width wanted.
        mean: Per channel, of values in [0, 1].
        std: Per channel, of values in [0, 1].

    Returns:
        float32 ``(3, *size)``.
    """
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    resized = picture.convert("RGB").resize((size[1], size[0]), Image.Resampling.BILINEAR)
    values = torch.from_numpy(np.array(resized)).permute(2, 0, 1).float() / 255
    channels = (3, 1, 1)
    # Whatever dtype new tensors have by default in this process.
    centre, spread = (torch.tensor(value, dtype=torch.float32) for value in (mean, std))
    return (values - centre.view(channels)) / spread.view(channels)
