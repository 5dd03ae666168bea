"""The contract of a vision-language segmentation model (VLSM), and how one is loaded.

An adapter wraps one model. Three levels, the first is enough:

1. `Predicts`: ``predict(pixels, texts) -> logits``.
2. `Staged`: ``encode_images``, ``encode_texts``, ``decode``, so that each image
   and each text is encoded once.
3. `EmbedsText`: ``text_embedding``, which tells a deaf text tower from a deaf fusion.

Two kinds of model stand beside these levels. One whose text depends on the picture has
`EncodesPairs`. One that draws random numbers in evaluation too has a third argument,
``decode(image_features, text_features, generator)``, and gives one sample a call: a
``numpy.random.Generator`` whose normal numbers, drawn once, serve every row. The harness calls
it for pairs of one picture at a time, and takes the mean of the sigmoids of the card's
`samples` (`harness.model.sampling`).

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

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar, cast, runtime_checkable

import numpy as np
import pydantic
import torch
from numpy.typing import NDArray
from PIL import Image

from harness.errors import CardError
from harness.files import Document, validate
from harness.model.offers import MayNotAnswer

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
class ScoresPresence(Protocol):
    """A model that says how sure it is that what a text names is there at all."""

    def decode_with_presence(
        self, image_features: Any, text_features: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As `decode`, and with the logits N probabilities that there is anything to mark."""
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


@runtime_checkable
class EncodesPairs(Protocol):
    """A model in which a text's features depend on the picture it is read with.

    `encode_images` and `encode_texts` do what each side can do alone, once; `decode` begins
    with `encode_pairs`, once a pair. `text_depends_on_image` says whether this is such a model:
    of a family some members may not be.
    """

    text_depends_on_image: bool

    def encode_pairs(self, image_features: Any, text_features: Any) -> Features:
        """N rows of each, paired -> features of the N texts under their pictures."""
        ...


@runtime_checkable
class Family(Protocol):
    """A model whose parts differ from checkpoint to checkpoint: keys and shapes tell which."""

    def fit_to(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Rebuild `module` with the parts of a checkpoint, before it is loaded.

        Args:
            shapes: Key -> shape as the file has them, behind whatever prefix
                (`without_prefix`). Where they are no member's, `module` stays, and
                loading says what the file looks like.

        Raises:
            CheckpointError: It is a member that cannot be built.
        """
        ...


@runtime_checkable
class AnySize(Protocol):
    """A model that takes pictures as they are.

    Pixels of one call are of one size, which differs between calls, and logits have it;
    `input_size` is that of made-up pictures alone.
    """

    any_size: bool


class StagedAdapter(Adapter, Staged, Protocol):
    """What the engine and the trainer work with: any wrapped model, in stages."""


def without_prefix(
    shapes: Mapping[str, tuple[int, ...]], *endings: str
) -> dict[str, tuple[int, ...]]:
    """The keys below the place where the first of `endings` stands, without its prefix.

    Example:
        >>> without_prefix({"net.head.weight": (2,), "net.bias": (3,), "epoch": ()}, "head.weight")
        {'head.weight': (2,), 'bias': (3,)}
    """
    for ending in endings:
        for key in shapes:
            if key == ending or key.endswith(f".{ending}"):
                prefix = key.removesuffix(ending)
                return {k.removeprefix(prefix): shapes[k] for k in shapes if k.startswith(prefix)}
    return {}


def reads_pairs(adapter: Any) -> bool:
    """Whether a text's features depend on the picture."""
    return isinstance(adapter, EncodesPairs) and adapter.text_depends_on_image


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
        return cast(Predicts, self.adapter).predict(
            image_features.pixels, self._read(text_features)
        )

    def decode_with_answers(
        self, image_features: Any, text_features: Any
    ) -> tuple[torch.Tensor, Sequence[bool] | None]:
        """The same, and which rows have an answer; None of a model that always has one."""
        if not isinstance(self.adapter, MayNotAnswer):
            return self.decode(image_features, text_features), None
        return self.adapter.predict_with_answers(image_features.pixels, self._read(text_features))

    def _read(self, text_features: _TextIndex) -> list[str]:
        return [self._texts[i] for i in text_features.places.tolist()]


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
