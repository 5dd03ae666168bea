"""OmDet-Turbo and SAM: text finds boxes, boxes become masks (``boxes.py``).

Conventions: pixels are laid out as in ``canvas.py``, D = W = 640 for the published model
and S = 1024; L is the context (77 tokens), E the width of the text tower, Q the number of
queries (900).

Quirks that change results, kept on purpose:

- The detector is asked two things: the class, which is the prompt itself, and the task,
  ``Detect {prompt}.``, as its processor writes it where nobody gives one.
- One prompt a call and one class a picture. Counts of classes that differ in a batch are
  filled up with zero vectors, which are scored like any class; they crowd detections of
  asked ones out of what is kept before the processor drops them.
- transformers' class keeps text features by token ids, and goes on giving the old ones
  after other weights were loaded. The text tower is called directly here, so that nothing
  is kept.
- The picture is stretched. A query counts if its score passes `box_threshold` (0.3, the
  processor's default); queries that overlap a better one by more than `nms_threshold` (0.5,
  its default) are dropped.
- A score that crosses its threshold adds or takes away a whole mask.

Sources: T. Zhao et al., Real-time Transformer-based Open-Vocabulary Detection with
Efficient Fusion Head, 2024, arXiv 2403.06892; transformers' ``models/omdet_turbo``.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from harness.errors import CardError
from harness.model.tokenizers import ClipTokenizer
from harness.models import TokenCounts, device_of, read_settings

from .boxes import corners
from .canvas import seen_sizes
from .pair import NO_WEIGHTS, DetectorAndSam, PairSettings

_TASK = "Detect {}."
# Levels of the pyramid that the adapter's features have leaves for.
_LEVELS = 3


class Settings(PairSettings):
    """How the models, ``OmDetTurboConfig`` and ``SamConfig``, are built and read."""

    box_threshold: float = Field(default=0.3, ge=0, lt=1)
    nms_threshold: float = Field(default=0.5, gt=0, le=1)


class ImageFeatures(NamedTuple):
    """What is kept of an image: three maps of the detector, and SAM's embedding as elsewhere."""

    fine: Tensor
    middle: Tensor
    coarse: Tensor
    embedding: Tensor  # (N, C, g, g)
    embedded: Tensor  # (N, 2)


class TextFeatures(NamedTuple):
    """`name` ``(N, E')`` is the class, `task` ``(N, L, E)`` with `mask` ``(N, L)`` the task."""

    name: Tensor
    task: Tensor
    mask: Tensor


class OmDetTurboSam(DetectorAndSam):
    """OmDet-Turbo and SAM; `module` holds both as ``detector`` and ``segmenter``."""

    def __init__(
        self,
        settings: Mapping[str, Any],
        *,
        weights: Path | None,
        further_weights: Mapping[str, Path] = NO_WEIGHTS,
    ) -> None:
        """Build both models from the card's settings, and from folders or at random."""
        from transformers import OmDetTurboForObjectDetection

        chosen = read_settings(Settings, settings)
        super().__init__(
            OmDetTurboForObjectDetection, chosen, weights=weights, further_weights=further_weights
        )
        self.settings = chosen
        config = self._detector.config
        if config.num_feature_levels != _LEVELS:
            raise CardError(
                f"settings.detector.num_feature_levels: found {config.num_feature_levels}. This "
                f"adapter keeps {_LEVELS} levels. Give {_LEVELS}, or change its ImageFeatures."
            )
        side = int(config.image_size)
        self._look_through(partial(_processor, side), (side, side))
        self._tokenizer = ClipTokenizer(
            context_length=config.text_config.max_position_embeddings,
            vocabulary_size=config.text_config.vocab_size,
        )

    def count_tokens(self, texts: Sequence[str]) -> TokenCounts:
        """Tokens of the task, which is the longer; more than L are cut."""
        return self._tokenizer.count([_TASK.format(text) for text in texts])

    def encode_texts(self, texts: Sequence[str]) -> TextFeatures:
        """N texts -> class and task; the task's mask hides what is behind its end."""
        device, tower = device_of(self.module), self._detector.language_backbone
        names, _ = self._tokenizer(texts)
        tasks, mask = self._tokenizer([_TASK.format(text) for text in texts])
        name = tower(names.to(device), encode_type="class")
        # At the whole length: it would be cut at the longest of the batch.
        whole = torch.ones_like(mask, device=device)
        task, _ = tower(tasks.to(device), mask=whole, encode_type="task")  # (L, N, E)
        return TextFeatures(name, task.transpose(0, 1), mask.to(device))

    def text_embedding(self, texts: Sequence[str]) -> Tensor:
        """The class's vector, ``(N, E')``."""
        return self.encode_texts(texts).name

    def encode_images(self, pixels: Tensor) -> ImageFeatures:
        """``(N, 3, *input_size)`` -> the detector's maps and SAM's embeddings."""
        model = self._detector
        fine, middle, coarse = model.encoder(
            model.vision_backbone(self._canvas.detector_pixels(pixels)), return_dict=True
        ).extracted_states
        padded = self._canvas.segmenter_pixels(pixels)
        embedding = self._boxes_to_masks.embed(padded)
        return ImageFeatures(fine, middle, coarse, embedding, seen_sizes(padded))

    def decode(self, image_features: ImageFeatures, text_features: TextFeatures) -> Tensor:
        """N images with N texts -> logits ``(N, G, G)``."""
        needed = int(text_features.mask.sum(dim=1).max()) if len(text_features.mask) else 1
        output = self._detector.decoder(
            tuple(image_features[:_LEVELS]),
            text_features.name[None],
            text_features.task[:, :needed].transpose(0, 1),
            text_features.mask[:, :needed],
            return_dict=True,
        )
        scores = output.decoder_classes[-1][..., 0].float().sigmoid()  # (N, Q)
        boxes = corners(output.decoder_coords[-1].float())  # (N, Q, 4)
        found = [self._kept(*row) for row in zip(boxes, scores, strict=True)]
        sizes = image_features.embedded
        return self._boxes_to_masks.unions(image_features.embedding, sizes, found)

    def _kept(self, boxes: Tensor, scores: Tensor) -> Tensor:
        """Boxes ``(n, 4)`` that score enough and overlap no better one, cut at the edges."""
        from torchvision.ops import nms

        passed = scores > self.settings.box_threshold
        boxes, scores = boxes[passed], scores[passed]
        return boxes[nms(boxes, scores, self.settings.nms_threshold)].clamp(0, 1)


def _processor(side: int) -> Any:
    from transformers import DetrImageProcessor

    return DetrImageProcessor(size={"height": side, "width": side}, do_pad=False)
