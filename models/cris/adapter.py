"""CRIS on open_clip's CLIP towers, in stages.

Conventions: pixels are ``(N, 3, S, S)`` with S the card's `input_size`, standardised
with CLIP's mean and deviation; L is the context length, D `embed_dim`, C `neck_dims[1]`,
h = S / 16. Logits are ``(N, S, S)``.

Quirks that change results, kept on purpose:

- Input 416, against the 224 its positions were learnt at: the attention pool's table
  loses its first row and is resized (bicubic, ``align_corners=False``).
- Texts are padded with end-of-text (49407), as the reference's tokenizer does, to exactly
  77 ids. The decoder's padding mask looks for id 0, which never occurs then: **nothing is
  masked**, the image attends to the padding, and so texts are encoded at full length
  always. Ids padded with 0, as the original CRIS has them, are masked.
- The published weights were trained on 17 words; the reference gives them 77.
- The sentence vector is taken at the first largest id (end-of-text), projected and not
  normalised; the words are the text tower's last states, not projected.
- Scores are made at S / 4 and enlarged bicubically with ``align_corners=True``; inside,
  bilinear upsampling has ``align_corners=False``.
- The threshold is 0.35, strictly above.
- The batch norms of neck and projector need evaluation mode.
- Unlike the other three models the reference trained all of it, text tower included.
- CLIP's weights were rounded through half precision before the reference's training.

The noise floor is high (3e-4, where CLIPSeg's is 1e-5): logits reach +/- 50.

Sources: Z. Wang et al., CVPR 2022, arXiv 2111.15174; the towers are open_clip's.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.functional import interpolate

from harness.cards import Strict
from harness.model.tokenizers import CLIP_VOCABULARY, ClipTokenizer
from harness.models import Picture, TokenCounts, device_of, read_settings, standardise
from harness.weights.loading import load_into

from .backbone import build_backbone, image_maps, read_text
from .decoder import Decoder, Projector
from .neck import Neck, VisualTerms

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


class Settings(Strict):
    """The architecture. `position_size` is the image size the positions were learnt at."""

    input_size: int = Field(ge=64, multiple_of=32)
    position_size: int = Field(ge=32, multiple_of=32)
    vision_layers: tuple[int, int, int, int]
    vision_width: int = Field(ge=2, multiple_of=2)
    vision_heads: int = Field(ge=1)
    text_layers: int = Field(ge=1)
    text_heads: int = Field(ge=1)
    context_length: int = Field(ge=2)
    vocabulary_size: int = Field(default=CLIP_VOCABULARY, ge=64, le=CLIP_VOCABULARY)
    embed_dim: int = Field(ge=1)
    neck_dims: tuple[int, int, int]
    decoder_layers: int = Field(ge=1)
    decoder_heads: int = Field(ge=1)
    decoder_hidden: int = Field(ge=1)
    dropout: float = Field(default=0.1, ge=0, lt=1)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        width = self.neck_dims[1]
        if width % 4:
            raise ValueError(f"the second of 'neck_dims', {width}, must be a multiple of 4")
        for name, size, heads in (
            ("vision_heads", 32 * self.vision_width, self.vision_heads),
            ("text_heads", width, self.text_heads),
            ("decoder_heads", width, self.decoder_heads),
        ):
            if size % heads:
                raise ValueError(f"{size} channels must be a multiple of {name!r}, {heads}")
        return self


class ImageFeatures(NamedTuple):
    """The neck's terms without text: `VisualTerms`, for N images."""

    deep: Tensor
    middle: Tensor
    shallow: Tensor


class TextFeatures(NamedTuple):
    """All that neck, decoder and projector need of a text.

    `words` ``(N, L, C)``, `ignored` ``(N, L)`` bool (ids of 0), `factor`
    ``(N, C5, 1, 1)`` for the neck, `kernels` ``(N, 9 C / 2 + 1)`` for the projector.
    """

    words: Tensor
    ignored: Tensor
    factor: Tensor
    kernels: Tensor


class CrisModule(nn.Module):
    """The whole network; its state dict has the reference's keys."""

    def __init__(self, settings: Settings) -> None:
        """Build all layers with random numbers."""
        super().__init__()
        width, stage = settings.neck_dims[1], 8 * settings.vision_width
        self.backbone = build_backbone(
            vision={
                "layers": settings.vision_layers,
                "width": settings.vision_width,
                "image_size": settings.position_size,
            },
            text={
                "context_length": settings.context_length,
                "vocab_size": settings.vocabulary_size,
                "width": width,
                "heads": settings.text_heads,
                "layers": settings.text_layers,
            },
            embed_dim=settings.embed_dim,
            vision_heads=settings.vision_heads,
        )
        self.neck = Neck(
            (stage, 2 * stage, settings.embed_dim), settings.neck_dims, sentence=settings.embed_dim
        )
        self.decoder = Decoder(
            layers=settings.decoder_layers,
            width=width,
            heads=settings.decoder_heads,
            hidden=settings.decoder_hidden,
            words=settings.context_length,
            dropout=settings.dropout,
        )
        self.proj = Projector(sentence=settings.embed_dim, width=width // 2)

    def forward(self, pixels: Tensor, input_ids: Tensor) -> Tensor:
        """Plainly, as the paper has it: ``(N, 3, S, S)`` and ids ``(N, L)`` -> ``(N, S, S)``."""
        sentence = read_text(self.backbone, input_ids)
        fused = self.neck(image_maps(self.backbone, pixels), sentence.state)
        seen = self.decoder(fused, sentence.words, input_ids == 0)
        return enlarge(self.proj(seen, self.proj.kernels(sentence.state)))


def enlarge(scores: Tensor) -> Tensor:
    """Scores ``(N, S / 4, S / 4)`` at the input's size, ``(N, S, S)``."""
    enlarged = interpolate(scores[:, None], scale_factor=4, mode="bicubic", align_corners=True)
    return enlarged.squeeze(1)


class Cris:
    """CRIS; `module` is a `CrisModule`."""

    def __init__(self, settings: Mapping[str, Any], *, weights: Path | None) -> None:
        """Build the model.

        Args:
            settings: The card's settings, all of `Settings`.
            weights: A file of weights for the whole network, or None.
        """
        self.settings = read_settings(Settings, settings)
        self.input_size = (self.settings.input_size, self.settings.input_size)
        self._tokenizer = ClipTokenizer(
            context_length=self.settings.context_length,
            vocabulary_size=self.settings.vocabulary_size,
        )
        self.module = CrisModule(self.settings)
        if weights is not None:
            load_into(self.module, weights)

    def preprocess(self, image: Picture) -> Tensor:
        """``(H, W, 3)`` uint8 -> ``(3, S, S)``, standardised."""
        return standardise(image, self.input_size, mean=MEAN, std=STD)

    def count_tokens(self, texts: Sequence[str]) -> TokenCounts:
        """Tokens with start and end; more than `context_length` are cut."""
        return self._tokenizer.count(texts)

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """N texts -> ids padded with end-of-text, and mask; ``(N, context_length)`` int64."""
        return self._tokenizer(texts)

    def encode_tokens(self, input_ids: Tensor, attention_mask: Tensor) -> TextFeatures:
        """Ids ``(N, L)`` at full length -> features; the mask is not used, as in the reference."""
        ids = input_ids.to(device_of(self.module))
        sentence = read_text(self.module.backbone, ids)
        return TextFeatures(
            words=sentence.words,
            ignored=ids == 0,
            factor=self.module.neck.project(sentence.state),
            kernels=self.module.proj.kernels(sentence.state),
        )

    def encode_texts(self, texts: Sequence[str]) -> TextFeatures:
        """N texts -> words, and what the sentence is for neck and projector."""
        return self.encode_tokens(*self.tokenize(texts))

    def text_embedding(self, texts: Sequence[str]) -> Tensor:
        """The sentence vector, ``(N, D)``, not normalised."""
        ids, _ = self.tokenize(texts)
        return read_text(self.module.backbone, ids.to(device_of(self.module))).state

    def encode_images(self, pixels: Tensor) -> ImageFeatures:
        """``(N, 3, S, S)`` -> the terms of the neck that contain no text."""
        return ImageFeatures(*self.module.neck.visual(image_maps(self.module.backbone, pixels)))

    def decode(self, image_features: ImageFeatures, text_features: TextFeatures) -> Tensor:
        """N images with N texts -> logits ``(N, S, S)``."""
        fused = self.module.neck.fuse(VisualTerms(*image_features), text_features.factor)
        seen = self.module.decoder(fused, text_features.words, text_features.ignored)
        return enlarge(self.module.proj(seen, text_features.kernels))

    def predict(self, pixels: Tensor, texts: Sequence[str]) -> Tensor:
        """The plain forward: what the stages are held to."""
        ids, _ = self.tokenize(texts)
        logits: Tensor = self.module(pixels, ids.to(pixels.device))
        return logits

    def decoder_modules(self) -> Sequence[nn.Module]:
        """What follows the two towers."""
        return [self.module.neck, self.module.decoder, self.module.proj]
