"""Grounding DINO and SAM through transformers: text finds boxes, boxes become masks.

Conventions: pixels are laid out as in ``canvas.py``, D = 1333 and S = 1024 for the
published models. L is the detector's context (256 tokens), G the side of SAM's mask
decoder (256). Boxes are ``(left, top, right, bottom)``. Logits are ``(N, G, G)`` and
cover the whole original image, stretched: SAM's padding is cut away.

Quirks that change results, kept on purpose:

- The prompt is lowered and ends with a full stop, one phrase (``words.py``). A box is
  kept if any of its tokens scores above `box_threshold`; 0.25 is the processor's
  default. Which words it belongs to is not asked: the prompt as a whole is the query.
- Every kept box is a prompt of SAM, which answers with one mask (without
  `multimask_output`). The masks' union is their greatest logit; without a box every
  logit is `NOTHING`. The card's threshold of 0.5 is SAM's mask threshold of 0.
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
2401.14159; transformers' ``models/grounding_dino`` and ``models/sam``.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import interpolate

from harness.cards import Strict
from harness.models import Note, Picture, TokenCounts, device_of, read_settings
from harness.weights.pretrained import pretrained

from .canvas import Canvas, seen_sizes
from .words import STAND_IN, Phrases, read_vocabulary, stand_in

# The logit of a pixel that no mask covers: a probability of 2e-9.
NOTHING = -20.0
# Boxes that SAM decodes at once: 32 masks of 1024 x 1024 take 134 MB.
_BOXES_PER_CALL = 32


class Settings(Strict):
    """How the models are built and read.

    `detector` and `segmenter` hold what differs from the defaults of transformers'
    ``GroundingDinoConfig`` and ``SamConfig``, which are those of the published tiny
    and base models; folders of weights bring their own. The edges are the detector's
    picture sizes.
    """

    detector: dict[str, Any] = {}
    segmenter: dict[str, Any] = {}
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


class GroundedSam:
    """Grounding DINO and SAM; `module` holds both as ``detector`` and ``segmenter``."""

    def __init__(
        self,
        settings: Mapping[str, Any],
        *,
        weights: Path | None,
        further_weights: Mapping[str, Path] = MappingProxyType({}),
        tokenizer: Path | None = None,
    ) -> None:
        """Build both models.

        Args:
            settings: The card's settings.
            weights: The detector's folder in the hub's format, or None.
            further_weights: SAM's folder as ``segmenter``.
            tokenizer: BERT's vocabulary; a stand-in is used without.
        """
        from transformers import GroundingDinoForObjectDetection, SamModel

        chosen = read_settings(Settings, settings)
        detector = pretrained(
            GroundingDinoForObjectDetection, chosen.detector, weights=weights, key="detector"
        )
        segmenter = pretrained(
            SamModel,
            chosen.segmenter,
            weights=further_weights.get("segmenter"),
            key="segmenter",
        )
        self.settings, self._detector, self._segmenter = chosen, detector, segmenter
        self.module = torch.nn.ModuleDict({"detector": detector, "segmenter": segmenter})
        vision = segmenter.config.vision_config
        self._canvas = Canvas(
            shortest_edge=chosen.shortest_edge,
            longest_edge=chosen.longest_edge,
            segmenter_side=vision.image_size,
        )
        self.input_size = self._canvas.size
        self._mask_side = 4 * (vision.image_size // vision.patch_size)
        size = detector.config.text_config.vocab_size
        self._phrases = Phrases(
            stand_in(size) if tokenizer is None else read_vocabulary(tokenizer, size=size),
            context_length=detector.config.max_text_len,
        )
        self.notes: Sequence[Note] = (STAND_IN,) if tokenizer is None else ()

    def preprocess(self, image: Picture) -> Tensor:
        """One picture of any size and mode -> both pictures in one, ``(3, *input_size)``."""
        return self._canvas.lay_out(image)

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
        embedding = self._segmenter.get_image_embeddings(padded)
        return ImageFeatures(picture, seen_sizes(picture), embedding, seen_sizes(padded))

    def decode(self, image_features: ImageFeatures, text_features: TextFeatures) -> Tensor:
        """N images with N texts -> logits ``(N, G, G)``."""
        rows_of: dict[tuple[int, int], list[int]] = {}
        for row, (height, width) in enumerate(image_features.seen.tolist()):
            rows_of.setdefault((height, width), []).append(row)
        masks: dict[int, Tensor] = {}
        for (height, width), rows in rows_of.items():
            pictures = image_features.picture[rows, :, :height, :width]
            found = self._boxes(pictures, text_features.ids[rows], text_features.mask[rows])
            for row, boxes in zip(rows, found, strict=True):
                masks[row] = self._union(
                    image_features.embedding[row], image_features.embedded[row].tolist(), boxes
                )
        return torch.stack([masks[row] for row in range(len(masks))])

    def _boxes(self, pictures: Tensor, ids: Tensor, mask: Tensor) -> list[Tensor]:
        """Kept boxes of each picture ``(n, 4)``, as shares of its width and height."""
        needed = int(mask.any(dim=0).sum())
        output = self._detector(
            pixel_values=pictures, input_ids=ids[:, :needed], attention_mask=mask[:, :needed]
        )
        kept = output.logits.float().sigmoid().amax(dim=-1) > self.settings.box_threshold
        boxes = output.pred_boxes.float()
        centre, extent = boxes[..., :2], boxes[..., 2:]
        corners = torch.cat([centre - extent / 2, centre + extent / 2], dim=-1)
        return [found[chosen] for found, chosen in zip(corners, kept, strict=True)]

    def _union(self, embedding: Tensor, size: Sequence[int], boxes: Tensor) -> Tensor:
        """Logits ``(G, G)`` of the union of the boxes' masks.

        Args:
            embedding: SAM's, ``(C, g, g)``.
            size: Height and width of SAM's picture without padding.
            boxes: ``(n, 4)``, shares of width and height.
        """
        side = self._canvas.segmenter_side
        height, width = size
        union = boxes.new_full((self._mask_side, self._mask_side), NOTHING)
        scaled = boxes * boxes.new_tensor([width, height, width, height])
        for some in torch.split(scaled, _BOXES_PER_CALL):
            if len(some) == 0:
                continue
            low = self._segmenter(
                image_embeddings=embedding[None], input_boxes=some[None], multimask_output=False
            ).pred_masks[0]  # (n, 1, G, G)
            # As SAM's processor does: up to the padded size, cut, and back to what is wanted.
            padded = interpolate(low.float(), (side, side), mode="bilinear", align_corners=False)
            masks = interpolate(
                padded[..., :height, :width], union.shape, mode="bilinear", align_corners=False
            )
            union = torch.maximum(union, masks.amax(dim=(0, 1)))
        return union
