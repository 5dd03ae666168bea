"""Grounding DINO, or MM-Grounding-DINO, and SAM: text finds boxes, boxes become masks.

Conventions: pixels are laid out as in ``canvas.py``, D = 1333 and S = 1024 for the
published models. L is the detector's context (256 tokens), G the side of SAM's mask
decoder (256). Boxes are ``(left, top, right, bottom)``. Logits are ``(N, G, G)`` and
cover the whole original image, stretched: SAM's padding is cut away.

Quirks that change results, kept on purpose:

- The prompt is lowered and ends with a full stop, one phrase (``words.py``). A box is
  kept if any of its tokens scores above `box_threshold`; 0.25 is the processor's
  default. Which words it belongs to is not asked: the prompt as a whole is the query.
- What SAM does with the kept boxes stands in ``boxes.py``.
- MM-Grounding-DINO (`family: mm-grounding-dino`) has the same names and shapes and 13
  biases more: its scores are scaled and shifted, so that neither scores nor thresholds can
  be compared between the two. Each is refused under the other's card.
- The detector sees each picture at its own size, without padding, as when pictures
  come one by one; only pictures of equal size share a batch. Its backbone is computed
  anew for every prompt: transformers' class has no seam between backbone and fusion.
  SAM's encoder, the greater part, is computed once per image.
- A score that crosses its threshold adds or takes away a whole mask: rounding can do
  that, so that for such cases no noise floor holds.
- Boxes are chosen, not computed: no gradient reaches the detector, so that what reads
  the prompt cannot be finetuned here.

Sources: S. Liu et al., Grounding DINO, 2023, arXiv 2303.05499; A. Kirillov et al.,
Segment Anything, 2023, arXiv 2304.02643; T. Ren et al., Grounded SAM, 2024, arXiv
2401.14159; X. Zhao et al., MM-Grounding-DINO, 2024, arXiv 2401.02361; transformers'
``models/grounding_dino``, ``models/mm_grounding_dino`` and ``models/sam``.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field
from torch import Tensor

from harness.models import Note, TokenCounts, device_of, read_settings

from .boxes import corners
from .canvas import seen_sizes
from .pair import NO_WEIGHTS, DetectorAndSam, PairSettings
from .words import STAND_IN, Phrases, read_vocabulary, stand_in


class Settings(PairSettings):
    """How the models are built and read.

    The detector's configuration is ``GroundingDinoConfig`` or ``MMGroundingDinoConfig``; the edges
    are its picture sizes.
    """

    family: Literal["grounding-dino", "mm-grounding-dino"] = "grounding-dino"
    shortest_edge: int = Field(default=800, ge=16)
    longest_edge: int = Field(default=1333, ge=16)
    box_threshold: float = Field(default=0.25, ge=0, lt=1)


class ImageFeatures(NamedTuple):
    """What is kept of an image.

    `picture` ``(N, 3, D, D)`` is the detector's, of which `seen` ``(N, 2)`` is no
    padding; `embedding` ``(N, C, g, g)`` is SAM's, of a picture of which `embedded`
    ``(N, 2)`` is no padding.
    """

    picture: Tensor
    seen: Tensor
    embedding: Tensor
    embedded: Tensor


class TextFeatures(NamedTuple):
    """`ids` and `mask` ``(N, L)`` int64."""

    ids: Tensor
    mask: Tensor


class GroundedSam(DetectorAndSam):
    """Grounding DINO and SAM; `module` holds both as ``detector`` and ``segmenter``."""

    def __init__(
        self,
        settings: Mapping[str, Any],
        *,
        weights: Path | None,
        further_weights: Mapping[str, Path] = NO_WEIGHTS,
        tokenizer: Path | None = None,
    ) -> None:
        """Build both models.

        Args:
            settings: The card's settings.
            weights: The detector's folder in the hub's format, or None.
            further_weights: SAM's folder as ``segmenter``.
            tokenizer: BERT's vocabulary; a stand-in is used without.
        """
        chosen = read_settings(Settings, settings)
        kind = _detector_class(chosen.family)
        super().__init__(kind, chosen, weights=weights, further_weights=further_weights)
        self.settings, config = chosen, self._detector.config
        edges = {"shortest_edge": chosen.shortest_edge, "longest_edge": chosen.longest_edge}
        self._look_through(partial(_processor, edges), (chosen.longest_edge, chosen.longest_edge))
        size = config.text_config.vocab_size
        self._phrases = Phrases(
            stand_in(size) if tokenizer is None else read_vocabulary(tokenizer, size=size),
            context_length=config.max_text_len,
        )
        self.notes: Sequence[Note] = (STAND_IN,) if tokenizer is None else ()

    def count_tokens(self, texts: Sequence[str]) -> TokenCounts:
        """Tokens with full stop, start and end; more than L are cut."""
        return self._phrases.count(texts)

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """N texts -> ids and mask, ``(N, L)`` int64."""
        return self._phrases(texts)

    def encode_tokens(self, input_ids: Tensor, attention_mask: Tensor) -> TextFeatures:
        """Ids and mask ``(N, L)`` as they are, on the model's device."""
        device = device_of(self.module)
        return TextFeatures(input_ids.to(device), attention_mask.to(device))

    def encode_texts(self, texts: Sequence[str]) -> TextFeatures:
        """N texts -> their tokens; the detector fuses text and image from the start."""
        return self.encode_tokens(*self.tokenize(texts))

    def text_embedding(self, texts: Sequence[str]) -> Tensor:
        """The mean of each text's projected tokens, ``(N, C)``, before the fusion."""
        # The same function in both families.
        from transformers.models.grounding_dino.modeling_grounding_dino import (
            generate_masks_with_special_tokens_and_transfer_map as phrase_masks,
        )

        model = self._detector.model
        ids, mask = self.encode_texts(texts)
        within_phrases, positions = phrase_masks(ids, model.special_tokens)
        hidden = model.text_backbone(
            ids, within_phrases[:, None], position_ids=positions
        ).last_hidden_state
        weights = mask[..., None] / mask.sum(dim=1)[:, None, None]
        embedding: Tensor = (model.text_projection(hidden) * weights).sum(dim=1)
        return embedding

    def encode_images(self, pixels: Tensor) -> ImageFeatures:
        """``(N, 3, *input_size)`` -> the detector's pictures and SAM's embeddings."""
        picture = self._canvas.detector_pixels(pixels)
        padded = self._canvas.segmenter_pixels(pixels)
        embedding = self._boxes_to_masks.embed(padded)
        return ImageFeatures(picture, seen_sizes(picture), embedding, seen_sizes(padded))

    def decode(self, image_features: ImageFeatures, text_features: TextFeatures) -> Tensor:
        """N images with N texts -> logits ``(N, G, G)``."""
        rows_of: dict[tuple[int, int], list[int]] = {}
        for row, (height, width) in enumerate(image_features.seen.tolist()):
            rows_of.setdefault((height, width), []).append(row)
        boxes: dict[int, Tensor] = {}
        for (height, width), rows in rows_of.items():
            pictures = image_features.picture[rows, :, :height, :width]
            found = self._boxes(pictures, text_features.ids[rows], text_features.mask[rows])
            boxes |= dict(zip(rows, found, strict=True))
        return self._boxes_to_masks.unions(
            image_features.embedding,
            image_features.embedded,
            [boxes[row] for row in range(len(boxes))],
        )

    def _boxes(self, pictures: Tensor, ids: Tensor, mask: Tensor) -> list[Tensor]:
        """Kept boxes of each picture ``(n, 4)``, as shares of its width and height."""
        needed = int(mask.any(dim=0).sum())
        output = self._detector(
            pixel_values=pictures, input_ids=ids[:, :needed], attention_mask=mask[:, :needed]
        )
        kept = output.logits.float().sigmoid().amax(dim=-1) > self.settings.box_threshold
        boxes = corners(output.pred_boxes.float())
        return [found[chosen] for found, chosen in zip(boxes, kept, strict=True)]


def _detector_class(family: str) -> Any:
    import transformers

    kinds = {
        "grounding-dino": "GroundingDinoForObjectDetection",
        "mm-grounding-dino": "MMGroundingDinoForObjectDetection",
    }
    return getattr(transformers, kinds[family])


def _processor(edges: Mapping[str, int]) -> Any:
    from transformers import GroundingDinoImageProcessor

    return GroundingDinoImageProcessor(size=dict(edges))
