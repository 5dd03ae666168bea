"""BiomedCLIPSeg in stages: BiomedCLIP's towers under CLIPSeg's decoder.

Conventions: pixels are ``(N, 3, S, S)`` with S the card's `input_size`,
standardised with OpenAI's mean and deviation (CLIPSeg has ImageNet's); T is the
number of tokens of an image, class token first; R is `reduce_dim`, D is
`projection_dim`. Logits are ``(N, S, S)`` (``(N, S/2, S/2)`` for patches of 8 with
the complex transposed convolution).
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from harness.models import Picture, TokenCounts, device_of, read_settings, standardise

from .network import Network
from .settings import VOCABULARY, Settings
from .wordpiece import WordPiece, stand_in

_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)


class ImageFeatures(NamedTuple):
    """All that the decoder needs of an image.

    `state` ``(N, T, R)`` is the decoder's signal just before the text enters;
    `skips` ``(N, K, T, R)`` are the reduced activations that are added after it.
    """

    state: Tensor
    skips: Tensor


class TextFeatures(NamedTuple):
    """`embedding` ``(N, D)`` is the projected text vector that modulates the decoder."""

    embedding: Tensor


class BiomedClipSeg:
    """BiomedCLIPSeg; `module` has the reference's names for every weight."""

    def __init__(self, settings: Mapping[str, Any], *, weights: Path | None) -> None:
        """Build the model.

        Args:
            settings: The card's settings, all of `Settings`.
            weights: BiomedCLIP's towers in open_clip's format, or None.
        """
        self.settings = read_settings(Settings, settings)
        self.input_size = (self.settings.input_size, self.settings.input_size)
        self.module = Network(self.settings)

    @cached_property
    def _wordpiece(self) -> WordPiece:
        return WordPiece(
            stand_in(VOCABULARY),
            context_length=self.settings.context_length,
            size=self.settings.vocabulary_size,
        )

    def preprocess(self, image: Picture) -> Tensor:
        """``(H, W, 3)`` uint8 -> ``(3, S, S)``, standardised."""
        return standardise(image, self.input_size, mean=_MEAN, std=_STD)

    def count_tokens(self, texts: Sequence[str]) -> TokenCounts:
        """Tokens with start and end; more than `context_length` are cut."""
        counts = tuple(self._wordpiece.count(text) for text in texts)
        return TokenCounts(counts, tuple(n > self.settings.context_length for n in counts))

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """N texts -> ids padded with ``[PAD]``, and mask; ``(N, context_length)`` int64."""
        return self._wordpiece.tokenize(texts)

    def encode_tokens(self, input_ids: Tensor, attention_mask: Tensor) -> TextFeatures:
        """Ids and mask ``(N, L)`` -> the text vectors, at the length of the longest text.

        Behind it all is padding, which the mask hides from every other token.
        """
        device = device_of(self.module)
        needed = int(attention_mask.any(dim=0).sum()) if len(attention_mask) else 1
        return TextFeatures(
            self.module.biomedclip.text(
                input_ids[:, :needed].to(device), attention_mask[:, :needed].to(device)
            )
        )

    def encode_texts(self, texts: Sequence[str]) -> TextFeatures:
        """N texts -> their projected vectors, not normalised."""
        return self.encode_tokens(*self.tokenize(texts))

    def text_embedding(self, texts: Sequence[str]) -> Tensor:
        """The vector that modulates the decoder, ``(N, D)``."""
        return self.encode_texts(texts).embedding

    def encode_images(self, pixels: Tensor) -> ImageFeatures:
        """``(N, 3, S, S)`` -> everything up to the point where the text enters."""
        decoder, entry = self.module.decoder, self.settings.conditional_layer
        activations = self.module.biomedclip.visual.activations(pixels)
        # The deepest activation enters the decoder first.
        reduced = [
            reduce(activation)  # (N, T, R)
            for reduce, activation in zip(decoder.reduces, activations[::-1], strict=True)
        ]
        state = reduced[0]
        for layer, following in zip(decoder.layers[:entry], reduced[1 : entry + 1], strict=True):
            state = following + layer(state, attention_mask=None)
        skips = reduced[entry + 1 :]
        return ImageFeatures(
            state, torch.stack(skips, dim=1) if skips else state.new_zeros(len(state), 0, 1, 1)
        )

    def decode(self, image_features: ImageFeatures, text_features: TextFeatures) -> Tensor:
        """N images with N texts -> logits ``(N, S, S)``."""
        decoder = self.module.decoder
        text = text_features.embedding[:, None]  # (N, 1, D)
        state = decoder.film_mul(text) * image_features.state + decoder.film_add(text)
        first, *others = decoder.layers[self.settings.conditional_layer :]
        state = first(state, attention_mask=None)
        for layer, skip in zip(others, image_features.skips.unbind(1), strict=True):
            state = layer(skip + state, attention_mask=None)
        side = self.settings.input_size // self.settings.patch_size
        grid = state[:, 1:].transpose(1, 2).unflatten(2, (side, side))  # (N, R, side, side)
        logits: Tensor = decoder.transposed_convolution(grid).squeeze(1)
        return logits

    def predict(self, pixels: Tensor, texts: Sequence[str]) -> Tensor:
        """The unmodified forward at full text length: what the stages are held to."""
        ids, mask = (tensor.to(pixels.device) for tensor in self.tokenize(texts))
        logits: Tensor = self.module(pixels, ids, mask)
        return logits

    def decoder_modules(self) -> Sequence[nn.Module]:
        """What the reference's finetuning trained."""
        return [self.module.decoder]

    def text_modules(self) -> Sequence[nn.Module]:
        """The parts of `module` that only text passes through."""
        return [self.module.biomedclip.text]
