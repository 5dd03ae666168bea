"""BiomedCLIPSeg and BiomedCLIPSeg-D in stages: BiomedCLIP's towers under CLIPSeg's decoder.

Conventions: pixels are ``(N, 3, S, S)`` with S the card's `input_size`,
standardised with OpenAI's mean and deviation (CLIPSeg has ImageNet's); T is the
number of tokens of an image, class token first; R is `reduce_dim`, D is
`projection_dim`. Logits are ``(N, S, S)`` (``(N, S/2, S/2)`` for patches of 8 with
the complex transposed convolution).

The two models have the same keys, shapes and forward: they are two cards, which
differ in where an untrained decoder starts. Neither has a zero-shot form.

Quirks that change results, kept on purpose:

- Pictures are 224 pixels wide, the size the positions were learnt at: nothing is
  interpolated. The threshold is 0.5.
- The reference looks up layers 3, 6 and 9 in a list that lacks the embeddings, so
  that the decoder reads the outputs of blocks 4, 7 and 10 (from zero), one later than
  CLIPSeg's. `extract_layers` says what is read. The activations carry no final norm.
- The blocks behind the last one that is read, the final norm, the image projection
  and the temperature are loaded and do not reach a mask; the stages leave them out.
- Texts are PubMedBERT's WordPiece of the raw text (open_clip's cleaning is skipped),
  padded with ``[PAD]`` to 256 ids; longer ones lose their end, and the last id is
  ``[SEP]``. Padding is masked, so that texts are encoded at the length of the
  longest in the batch.
- The text vector is the last hidden state of ``[CLS]`` (not BERT's pooler), projected
  by two layers without bias, and not normalised. The empty prompt is
  ``[CLS] [SEP]``: a constant vector, not zero.
- The old decoder squeezed every axis of length 1 and so lost the batch axis of a
  single image; here it is always kept.
- The reference froze both towers, and its image tower ran in inference mode. The
  stages here let gradients flow unless the card's `trainable` is ``decoder``.
- Layer norms add 1e-6 in the image tower, 1e-12 in BERT and 1e-5 in the decoder, whose
  activation is ReLU whatever the configuration says.
- Built from scratch, the libraries draw layers that drown the text:
  ``initialisation: fan_in`` repairs it.
- A `vocabulary_size` V below the vocabulary's folds the ids into V, the special ones
  apart (a hashed embedding, for small models).

Sources: S. Zhang et al., 2023, arXiv 2303.00915; T. Lüddecke, A. Ecker, CVPR 2022,
arXiv 2112.10003; K. Poudel et al., MIDL 2024, arXiv 2308.07706.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from harness.errors import CardError
from harness.model.wordpiece import WordPiece, read_vocabulary, stand_in
from harness.models import Note, Picture, TokenCounts, device_of, read_settings, standardise

from .network import Network
from .settings import VOCABULARY, Settings
from .start import MEAN, STD, load_start

_MAKESHIFT = Note(
    "the tokens are those of a stand-in: PubMedBERT's vocabulary lies only on a hub and is not at "
    "hand. Trained weights need the vocabulary they were trained with. Download 'vocab.txt' of "
    "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract and write `tokenizer: {path: FILE}` on "
    "the card; or write `vocabulary: stand_in` under 'settings' to train from scratch with it.",
    untrained_only=True,
)
_UNTRAINED = Note(
    "the decoder was never trained on these towers: its masks mean nothing yet. Finetune the "
    "model, or give a finetuned file with --checkpoint."
)


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
            weights: BiomedCLIP's towers in open_clip's format, or None.
            further_weights: ``decoder``: a CLIPSeg whose decoder to start from.
            tokenizer: PubMedBERT's vocabulary, or None.
        """
        self.settings = read_settings(Settings, settings)
        self.input_size = (self.settings.input_size, self.settings.input_size)
        self.module = Network(self.settings)
        self._vocabulary = self._read_vocabulary(tokenizer)
        start = dict(further_weights or {})
        decoder = start.pop("decoder", None)
        if start:
            raise CardError(
                f"further_weights: found {', '.join(map(repr, start))}. Only 'decoder' can be "
                "filled from elsewhere. Correct the card."
            )
        if weights is not None:
            load_start(self.module, self.settings, weights, decoder)
        makeshift = self._vocabulary is None and self.settings.vocabulary == "published"
        self.notes = (_MAKESHIFT,) * makeshift + (_UNTRAINED,) * (weights is not None)

    def _read_vocabulary(self, file: Path | None) -> Mapping[str, int] | None:
        if file is None:
            return None
        if self.settings.vocabulary == "stand_in":
            raise CardError(
                f"settings.vocabulary: found 'stand_in', but 'tokenizer' names {file}. A model "
                "has one vocabulary. Write `tokenizer: null` on the card, or `vocabulary: "
                "published`."
            )
        return read_vocabulary(file, size=self.settings.vocabulary_size)

    @cached_property
    def _wordpiece(self) -> WordPiece:
        return WordPiece(
            self._vocabulary or stand_in(VOCABULARY),
            context_length=self.settings.context_length,
            size=self.settings.vocabulary_size,
        )

    def preprocess(self, image: Picture) -> Tensor:
        """``(H, W, 3)`` uint8 -> ``(3, S, S)``, standardised."""
        return standardise(image, self.input_size, mean=MEAN, std=STD)

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
        # The last column in use: a "[PAD]" that stands in a text leaves a gap before it.
        needed = int(attention_mask.any(dim=0).nonzero().max()) + 1
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
