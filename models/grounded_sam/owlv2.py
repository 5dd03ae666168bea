"""OWLv2 and SAM: text finds boxes, boxes become masks (``boxes.py``).

Conventions: pixels are laid out as in ``canvas.py``, D = W = 960 for the published model
and S = 1024; P is the number of patches, each with one box, H the width of the image
tower, E that of the joint space; L is the context (16 tokens).

Quirks that change results, kept on purpose:

- The picture is padded to a square, below and to the right, before it is resized: boxes
  are shares of the square, and are made shares of the picture here.
- One prompt a call. The processor of transformers fills ragged lists of prompts up with
  the prompt of a space, which starts with a token like any other and is therefore never
  hidden: it takes part in the choice of each box's label. With one prompt there is none.
- A box counts if its score passes `box_threshold`; 0.1 is the processor's default. Which
  patches hold a box, and which box, does not depend on the text: only their scores do.
- The context is 16 tokens, start and end included. A longer text loses its end, and the
  last token is end-of-text; sentences of the data sets are often longer.
- A score that crosses its threshold adds or takes away a whole mask.

Sources: M. Minderer et al., Scaling Open-Vocabulary Object Detection, 2023, arXiv
2306.09683; transformers' ``models/owlv2``.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from harness.model.tokenizers import ClipTokenizer
from harness.models import TokenCounts, device_of, read_settings

from .boxes import corners
from .canvas import seen_sizes
from .pair import NO_WEIGHTS, DetectorAndSam, PairSettings


class Settings(PairSettings):
    """How the models, ``Owlv2Config`` and ``SamConfig``, are built and read."""

    box_threshold: float = Field(default=0.1, ge=0, lt=1)


class ImageFeatures(NamedTuple):
    """What is kept of an image.

    `patches` ``(N, P, H)`` and their `boxes` ``(N, P, 4)``, shares of the padded square;
    `embedding` ``(N, C, g, g)`` is SAM's, of a picture of which `embedded` ``(N, 2)`` is no
    padding.
    """

    patches: Tensor
    boxes: Tensor
    embedding: Tensor
    embedded: Tensor


class TextFeatures(NamedTuple):
    """`embedding` ``(N, E)``, of unit length."""

    embedding: Tensor


class Owlv2Sam(DetectorAndSam):
    """OWLv2 and SAM; `module` holds both as ``detector`` and ``segmenter``."""

    def __init__(
        self,
        settings: Mapping[str, Any],
        *,
        weights: Path | None,
        further_weights: Mapping[str, Path] = NO_WEIGHTS,
    ) -> None:
        """Build both models from the card's settings, and from folders or at random."""
        from transformers import Owlv2ForObjectDetection

        chosen = read_settings(Settings, settings)
        super().__init__(
            Owlv2ForObjectDetection, chosen, weights=weights, further_weights=further_weights
        )
        self.settings = chosen
        config = self._detector.config
        side = int(config.vision_config.image_size)
        self._look_through(partial(_processor, side), (side, side))
        self._tokenizer = ClipTokenizer(
            context_length=config.text_config.max_position_embeddings,
            vocabulary_size=config.text_config.vocab_size,
        )

    def count_tokens(self, texts: Sequence[str]) -> TokenCounts:
        """Tokens with start and end; more than L are cut."""
        return self._tokenizer.count(texts)

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """N texts -> ids padded with end-of-text, and mask; ``(N, L)`` int64."""
        return self._tokenizer(texts)

    def encode_tokens(self, input_ids: Tensor, attention_mask: Tensor) -> TextFeatures:
        """Ids and mask ``(N, L)`` -> the texts' vectors."""
        device = device_of(self.module)
        vectors = self._detector.owlv2.get_text_features(
            input_ids=input_ids.to(device), attention_mask=attention_mask.to(device)
        ).pooler_output
        return TextFeatures(vectors / vectors.norm(dim=-1, keepdim=True))

    def encode_texts(self, texts: Sequence[str]) -> TextFeatures:
        """N texts -> their vectors."""
        return self.encode_tokens(*self.tokenize(texts))

    def text_embedding(self, texts: Sequence[str]) -> Tensor:
        """The vector that patches are compared with, ``(N, E)``."""
        return self.encode_texts(texts).embedding

    def encode_images(self, pixels: Tensor) -> ImageFeatures:
        """``(N, 3, *input_size)`` -> patches, their boxes and SAM's embeddings."""
        model = self._detector
        grid, _ = model.image_embedder(self._canvas.detector_pixels(pixels))  # (N, h, w, H)
        patches = grid.flatten(1, 2)
        padded = self._canvas.segmenter_pixels(pixels)
        boxes = model.box_predictor(patches, grid)
        return ImageFeatures(patches, boxes, self._boxes_to_masks.embed(padded), seen_sizes(padded))

    def decode(self, image_features: ImageFeatures, text_features: TextFeatures) -> Tensor:
        """N images with N texts -> logits ``(N, G, G)``."""
        scores, _ = self._detector.class_predictor(
            image_features.patches, text_features.embedding[:, None]
        )
        kept = scores[..., 0].float().sigmoid() > self.settings.box_threshold  # (N, P)
        # Shares of the square, whose side is the picture's longer one, as SAM's.
        sizes = image_features.embedded
        height, width = sizes[:, 0], sizes[:, 1]
        shares = torch.stack([width, height, width, height], dim=1) / self._boxes_to_masks.side
        boxes = corners(image_features.boxes.float()) / shares[:, None]
        return self._boxes_to_masks.unions(
            image_features.embedding,
            sizes,
            [found[chosen] for found, chosen in zip(boxes, kept, strict=True)],
        )


def _processor(side: int) -> Any:
    from transformers import Owlv2ImageProcessor

    return Owlv2ImageProcessor(size={"height": side, "width": side})
