"""MedCLIPSeg: two towers with probabilistic adapters between them, in stages.

Conventions: pixels are ``(N, 3, S, S)`` with S the card's `input_size`, **BGR**, standardised
with ImageNet's mean and deviation in channel order; T image tokens, class token first; L text
tokens. Logits are ``(N, S, S)``.

It draws random numbers in evaluation too (`decode` takes a generator): the answer is the mean
of the sigmoids of the card's `samples`, 30 in its own test. Without a generator the mean of
every value is used, which is not the model's own answer.

Quirks that change results, kept on purpose:

- Pictures are never converted to RGB; they are resized as OpenCV does (bilinear, without
  antialiasing).
- The adapters see all text positions, padding included: texts are never cut short.
- Both towers are changed by the adapters between blocks 1 and 10, so that block 0 is all that
  can be computed without the other side.
- The original makes one discarded pass before those it keeps, and draws for a batch as a
  whole; here noise is a function of picture and sample alone.
- The weight `beta` of the keys' variance stands in no checkpoint: the card says it.
- CLIP's own kinds refuse prompts of more than 77 tokens; here they lose their end, as is said.

Source: MedCLIPSeg, CVPR 2026 (Apache-2.0).
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, normalize

from harness.errors import CardError
from harness.model.opencv import standardise_as_opencv
from harness.model.tokenizers import ClipTokenizer
from harness.model.wordpiece import WordPiece, read_vocabulary, stand_in
from harness.models import Note, Picture, TokenCounts, device_of, read_settings, without_prefix
from harness.weights.loading import load_into

from .fusion import Draw, FusionAdapter, Upscale, mask_head
from .settings import BERT_VOCABULARY, CLIP_TEXT, Settings
from .towers import BertText, ClipText, TimmVision, clip_vision, whole_clip

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_MAKESHIFT = Note(
    "the tokens are those of a stand-in: BiomedBERT's vocabulary lies only on a hub and is not at "
    "hand. Trained weights need the vocabulary they were trained with. Download 'vocab.txt' of "
    "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract and put it beside the checkpoint, or "
    "write `tokenizer: {path: FILE}` on the card.",
    untrained_only=True,
)


class ImageFeatures(NamedTuple):
    """`tokens` ``(N, T, V)`` behind block 0 of the image tower."""

    tokens: Tensor


class TextFeatures(NamedTuple):
    """`tokens` ``(N, L, W)`` behind block 0 of the text tower; `ids` and `mask` ``(N, L)``."""

    tokens: Tensor
    ids: Tensor
    mask: Tensor


class Network(nn.Module):
    """Towers, adapters and mask head; the state dict has the published keys."""

    def __init__(self, settings: Settings) -> None:
        """Build all layers with random numbers."""
        super().__init__()
        self.vision_model: Any
        self.text_model: Any
        if settings.kind == "clip":
            self.clip_model = whole_clip(settings)
            self.vision_model = self.clip_model.visual
            self.text_model = ClipText(self.clip_model)
            self.logit_scale = self.clip_model.logit_scale
        else:
            is_timm = settings.kind == "biomedclip"
            self.vision_model = TimmVision(settings) if is_timm else clip_vision(settings)
            self.text_model = BertText(settings)
            self.logit_scale = nn.Parameter(torch.tensor(np.log(1 / 0.07), dtype=torch.float32))
        joint = settings.projection_dim
        self.mask_head = mask_head(joint)
        self.upscale = nn.Sequential(*(Upscale(joint) for _ in range(settings.upscale_blocks)))
        self.pvl_adapters = nn.ModuleList(
            FusionAdapter(
                settings.vision_hidden_size, settings.text_hidden_size, settings.adapter_width
            )
            for _ in range(settings.layers - 2)
        )


class MedClipSeg:
    """MedCLIPSeg; `module` is a `Network`."""

    def __init__(
        self,
        settings: Mapping[str, Any],
        *,
        weights: Path | None,
        tokenizer: Path | None = None,
    ) -> None:
        """Build the model.

        Args:
            settings: The card's settings, all of `Settings`.
            weights: A file of weights for the whole network, or None.
            tokenizer: BiomedBERT's vocabulary, or None.
        """
        self._given, self._file = dict(settings), tokenizer
        self._build(read_settings(Settings, settings))
        if weights is not None:
            load_into(self.module, weights)

    def _build(self, settings: Settings) -> None:
        self.settings = settings
        self.input_size = (settings.input_size, settings.input_size)
        self.module = Network(settings)
        is_bert = settings.kind != "clip"
        makeshift = is_bert and self._file is None and settings.vocabulary == "published"
        self.notes = (_MAKESHIFT,) * makeshift
        self.__dict__.pop("_wordpiece", None)
        self._byte_pairs = ClipTokenizer(
            context_length=settings.context_length,
            vocabulary_size=settings.vocabulary_size,
        )

    def fit_to(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Become the kind that a checkpoint has."""
        own = without_prefix(shapes, "pvl_adapters.0.proj_vis_up.weight")
        if not own:
            return
        changes: dict[str, Any] = {}
        if "clip_model.token_embedding.weight" in own:
            changes = {} if self.settings.kind == "clip" else dict(CLIP_TEXT)
            kernel = own.get("vision_model.conv1.weight", ())
            if len(kernel) == 4 and self.settings.input_size % max(kernel[3], 1) == 0:
                changes["patch_size"] = kernel[3]
        else:
            is_timm = any(key.startswith("vision_model.trunk.") for key in own)
            changes["kind"] = "biomedclip" if is_timm else "unimedclip"
        settings = read_settings(Settings, {**self._given, **changes})
        if settings != self.settings:
            self._build(settings)

    @cached_property
    def _wordpiece(self) -> WordPiece:
        settings = self.settings
        if self._file is not None and settings.vocabulary == "stand_in":
            raise CardError(
                f"settings.vocabulary: found 'stand_in', but 'tokenizer' names {self._file}. A "
                "model has one vocabulary. Write `tokenizer: null` on the card, or `vocabulary: "
                "published`."
            )
        size = settings.vocabulary_size
        known = stand_in(BERT_VOCABULARY)
        if self._file is not None:
            known = dict(read_vocabulary(self._file, size=size))
        return WordPiece(known, context_length=settings.context_length, size=size)

    def preprocess(self, image: Picture) -> Tensor:
        """``(H, W, 3)`` uint8 RGB -> ``(3, S, S)`` BGR, standardised."""
        return standardise_as_opencv(
            image, self.input_size, method="bilinear", mean=_MEAN, std=_STD, order="BGR"
        )

    def count_tokens(self, texts: Sequence[str]) -> TokenCounts:
        """Tokens with start and end; more than `context_length` are cut."""
        if self.settings.kind == "clip":
            return self._byte_pairs.count(texts)
        counts = tuple(self._wordpiece.count(text) for text in texts)
        return TokenCounts(counts, tuple(n > self.settings.context_length for n in counts))

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """N texts -> ids padded with 0, and mask; ``(N, context_length)`` int64."""
        if self.settings.kind == "clip":
            ids, mask = self._byte_pairs(texts)
            return ids * mask, mask
        return self._wordpiece.tokenize(texts)

    def encode_tokens(self, input_ids: Tensor, attention_mask: Tensor) -> TextFeatures:
        """Ids and mask ``(N, L)`` at full length -> tokens behind block 0."""
        device, tower = device_of(self.module), self.module.text_model
        ids, mask = input_ids.to(device), attention_mask.to(device)
        return TextFeatures(tower.block(0, tower.enter(ids), mask), ids, mask)

    def encode_texts(self, texts: Sequence[str]) -> TextFeatures:
        """N texts -> tokens behind block 0, padding included."""
        return self.encode_tokens(*self.tokenize(texts))

    def encode_images(self, pixels: Tensor) -> ImageFeatures:
        """``(N, 3, S, S)`` -> tokens behind block 0."""
        tower = self.module.vision_model
        return ImageFeatures(tower.block(0, tower.enter(pixels)))

    def decode(
        self,
        image_features: ImageFeatures,
        text_features: TextFeatures,
        generator: np.random.Generator | np.random.RandomState | None = None,
    ) -> Tensor:
        """One sample for N images with N texts -> logits ``(N, S, S)``.

        Args:
            image_features: Of N images.
            text_features: Of N texts.
            generator: Its normal numbers are drawn once and serve every row; None takes
                the mean of every value.
        """
        draw = None if generator is None else _drawing(generator)
        image, text, mask = image_features.tokens, text_features.tokens, text_features.mask
        seeing, reading = self.module.vision_model, self.module.text_model
        for number in range(1, self.settings.layers):
            if number <= len(self.module.pvl_adapters):
                fuse = self.module.pvl_adapters[number - 1]
                more_image, more_text = fuse(image, text, beta=self.settings.beta, draw=draw)
                image, text = image + more_image, text + more_text
            image, text = seeing.block(number, image), reading.block(number, text, mask)
        sentence = normalize(reading.leave(text, text_features.ids), dim=-1)
        patches = normalize(seeing.leave(image), dim=-1)[:, 1:]
        side = self.settings.input_size // self.settings.patch_size
        maps = self.module.upscale(patches.transpose(1, 2).reshape(len(patches), -1, side, side))
        scores = torch.einsum("nchw,nc->nhw", maps, self.module.mask_head(sentence))
        return interpolate(
            scores[:, None], size=self.input_size, mode="bilinear", align_corners=False
        ).squeeze(1)

    def decoder_modules(self) -> Sequence[nn.Module]:
        """What the original trains."""
        return [self.module.pvl_adapters, self.module.upscale, self.module.mask_head]


def _drawing(generator: np.random.Generator | np.random.RandomState) -> Draw:
    """Standard normal numbers, the same on every device."""
    return lambda shape: torch.from_numpy(
        np.asarray(generator.standard_normal(shape), dtype=np.float32)
    )
