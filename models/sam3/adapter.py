"""SAM 3 through transformers' ``Sam3Model``, prompted by text alone, in stages.

Conventions: pixels are ``(N, 3, S, S)``, S = 1008 for the published model, stretched
and standardised to [-1, 1]; L is the text tower's context (32 tokens, special ones
included), C the width of the detector (256), Q the number of queries (200). Logits
are ``(N, S/3.5, S/3.5)`` (288 for 1008) and cover the whole stretched image.

Quirks that change results, kept on purpose:

- Meta's model always adds one token to those of the text: a learned vector that has
  attended to the picture. transformers' leaves it out where no box is given, which moves
  mask logits by more than they spread. `prompt_class_token: true`, the default, is Meta's
  computation, with which every finetuning was trained; the token is free of text and
  belongs to the image's features.
- Files under Meta's names (``meta_names.py``) are computed with Meta's epsilon in every
  layer norm, 1e-5; transformers' folders bring their own, mostly 1e-6.
- The model answers with instances. A query's score is ``sigmoid(query) *
  sigmoid(presence)``, or with `score: class` the first alone; those that pass
  `score_threshold` count. Thresholds differ by author: transformers' 0.3, Meta's own and
  SAM3_LoRA's 0.5, Medical-SAM3's 0.1. `output: instances`, the default, is the union of
  their masks, the greatest mask logit among them, so that the card's threshold of 0.5 is
  the processors' mask threshold; `output: best` is the mask of the best of them alone.
  Where no query passes, every logit is `NOTHING`. `output: semantic` is the semantic head,
  which neither the queries nor the presence of the concept gate.
- `nms: box` or `nms: mask` drops queries that overlap a better one by more than
  `nms_threshold` before the union.
- A score that crosses its threshold adds or takes away a whole mask: rounding can do
  that, so that for such cases no noise floor holds.
- Masks are resized as logits; transformers' processor resizes probabilities, SAM3_LoRA
  masks. They differ by about a pixel along the outline.
- Texts are lowered, padded with end-of-text and masked. A longer text loses its end, and
  the last token is end-of-text, as in the authors' own tokenizer; transformers' processor
  does not cut, and the model then raises.
- The text tower's own projection is not used: every token's last state goes through
  `text_projection`, and the detector attends to the tokens.
- An image's three feature maps take 111 MB in float32, since the finest is 288 x 288.

Sources: N. Carion et al., SAM 3: Segment Anything with Concepts, 2025, arXiv
2511.16719; transformers' ``models/sam3``.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from PIL import Image
from pydantic import Field
from torch import Tensor

from harness.cards import Strict
from harness.errors import CardError
from harness.model.tokenizers import ClipTokenizer
from harness.models import Picture, TokenCounts, Translation, device_of, read_settings
from harness.weights.pretrained import pretrained

from .meta_names import are_metas, translate

# The logit of a pixel that no instance covers: a probability of 2e-9.
NOTHING = -20.0
_META_EPSILON = 1e-5
# Feature maps that are kept; the model leaves the last of one more out.
_LEVELS = 3
# A box with this label is hidden, and the token that stands with every box is not.
_NO_BOX = -10


class Settings(Strict):
    """How the model is built and read.

    `config` holds what differs from the defaults of transformers' ``Sam3Config``,
    which are the published model's; a folder of weights brings its own.
    """

    config: dict[str, Any] = {}
    output: Literal["instances", "best", "semantic"] = "instances"
    prompt_class_token: bool = True
    score: Literal["class_presence", "class"] = "class_presence"
    score_threshold: float = Field(default=0.3, ge=0, lt=1)
    nms: Literal["none", "box", "mask"] = "none"
    nms_threshold: float = Field(default=0.5, gt=0, le=1)


class ImageFeatures(NamedTuple):
    """Feature maps of the vision encoder's pyramid, each twice as wide as the next.

    `token` is what is added to the text's tokens: one, or none.
    """

    fine: Tensor  # (N, C, 4g, 4g), g = S / 14
    middle: Tensor  # (N, C, 2g, 2g)
    coarse: Tensor  # (N, C, g, g)
    token: Tensor  # (N, 1 or 0, C)


class TextFeatures(NamedTuple):
    """`tokens` ``(N, L, C)``, zero where `mask` ``(N, L)`` bool is False."""

    tokens: Tensor
    mask: Tensor


class Sam3:
    """SAM 3; `module` is transformers' ``Sam3Model``."""

    def __init__(self, settings: Mapping[str, Any], *, weights: Path | None) -> None:
        """Build the model.

        Args:
            settings: The card's settings.
            weights: A folder in the hub's format, or None.
        """
        self.settings = read_settings(self._schema(), settings)
        self.module = pretrained(self._kind(), self.settings.config, weights=weights, key="config")
        _check_levels(self.module.config.vision_config.scale_factors)
        side = int(self.module.config.image_size)
        self.input_size = (side, side)
        self._tokenizer = ClipTokenizer(
            context_length=self._context_length(),
            vocabulary_size=self.module.config.text_config.vocab_size,
        )

    @staticmethod
    def _schema() -> type[Settings]:
        return Settings

    @staticmethod
    def _kind() -> Any:
        from transformers import Sam3Model

        return Sam3Model

    def _context_length(self) -> int:
        return int(self.module.config.text_config.max_position_embeddings)

    def fit_to(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Compute as the project of a checkpoint does."""
        if are_metas(shapes):
            for part in self.module.modules():
                if isinstance(part, torch.nn.LayerNorm):
                    part.eps = _META_EPSILON

    def translate(self, tensors: Mapping[str, Tensor]) -> Translation | None:
        """Meta's names as this module's."""
        return translate(tensors)

    @cached_property
    def _processor(self) -> Any:
        from transformers import Sam3ImageProcessor

        height, width = self.input_size
        return Sam3ImageProcessor(size={"height": height, "width": width})

    def preprocess(self, image: Picture) -> Tensor:
        """One picture of any size and mode -> ``(3, S, S)``, by the model's own processor."""
        # As arrays, pictures three pixels high would be taken for channels first.
        picture = image if isinstance(image, Image.Image) else Image.fromarray(np.asarray(image))
        pixels: Tensor = self._processor(picture.convert("RGB"), return_tensors="pt").pixel_values
        return pixels[0]

    def count_tokens(self, texts: Sequence[str]) -> TokenCounts:
        """Tokens with start and end; more than L are cut."""
        return self._tokenizer.count(texts)

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """N texts -> ids padded with end-of-text, and mask; ``(N, L)`` int64."""
        return self._tokenizer(texts)

    def encode_tokens(self, input_ids: Tensor, attention_mask: Tensor) -> TextFeatures:
        """Ids and mask ``(N, L)`` -> the tokens' features.

        Nothing is computed behind the longest text: the tower is causal, and the
        detector attends to masked tokens only.
        """
        device = device_of(self.module)
        needed = int(attention_mask.any(dim=0).sum()) if len(attention_mask) else 1
        mask = attention_mask.to(device)
        output = self.module.get_text_features(
            input_ids=input_ids[:, :needed].to(device), attention_mask=mask[:, :needed]
        )
        behind = (0, 0, 0, input_ids.shape[1] - needed)
        tokens = torch.nn.functional.pad(output.pooler_output * mask[:, :needed, None], behind)
        return TextFeatures(tokens, mask.bool())

    def encode_texts(self, texts: Sequence[str]) -> TextFeatures:
        """N texts -> their tokens' features."""
        return self.encode_tokens(*self.tokenize(texts))

    def text_embedding(self, texts: Sequence[str]) -> Tensor:
        """The mean of each text's tokens, ``(N, C)``."""
        tokens, mask = self.encode_texts(texts)
        return tokens.sum(dim=1) / mask.sum(dim=1, keepdim=True)

    def encode_images(self, pixels: Tensor) -> ImageFeatures:
        """``(N, 3, S, S)`` -> the pyramid, whose last level is not used, and the token."""
        maps = self.module.get_vision_features(pixels).fpn_hidden_states[:_LEVELS]
        fine, middle, coarse = maps
        return ImageFeatures(fine, middle, coarse, self._token(maps))

    def _token(self, maps: Sequence[Tensor]) -> Tensor:
        """What Meta's model adds to every text, ``(N, 1, C)``; ``(N, 0, C)`` where it does not."""
        n, width = maps[0].shape[:2]
        if not self.settings.prompt_class_token:
            return maps[0].new_zeros(n, 0, width)
        boxes, labels = self._hidden_box(maps[0])
        encoded = self.module.geometry_encoder(
            box_embeddings=boxes,
            box_mask=labels != _NO_BOX,
            box_labels=torch.zeros_like(labels),
            img_feats=tuple(maps),
            img_pos_embeds=tuple(self._position(level) for level in maps),
        )
        token: Tensor = encoded.last_hidden_state[encoded.attention_mask.bool()]
        return token.view(n, 1, width)

    def _hidden_box(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """A box a picture that nothing sees, and its label."""
        labels = torch.full((len(like), 1), _NO_BOX, device=like.device)
        return like.new_zeros(len(like), 1, 4), labels

    def decode(self, image_features: ImageFeatures, text_features: TextFeatures) -> Tensor:
        """N images with N texts -> logits ``(N, 4g, 4g)``."""
        return self._logits(self._answer(image_features, text_features))

    def decode_with_presence(
        self, image_features: ImageFeatures, text_features: TextFeatures
    ) -> tuple[Tensor, Tensor]:
        """As `decode`, with the probability ``(N,)`` that the concept is in the picture."""
        output = self._answer(image_features, text_features)
        return self._logits(output), output.presence_logits.sigmoid().reshape(-1)

    def _answer(self, image_features: ImageFeatures, text_features: TextFeatures) -> Any:
        """What the model says of N images with N texts."""
        from transformers.modeling_outputs import BaseModelOutputWithPooling
        from transformers.models.sam3.modeling_sam3 import Sam3VisionEncoderOutput

        *maps, token = image_features
        positions = [self._position(level) for level in maps]
        # The model leaves the last level out, so that something has to stand there.
        vision = Sam3VisionEncoderOutput(
            fpn_hidden_states=(*maps, maps[-1]),
            fpn_position_encoding=(*positions, positions[-1]),
        )
        seen = token.new_ones(token.shape[:2], dtype=torch.bool)
        text = BaseModelOutputWithPooling(
            pooler_output=torch.cat([text_features.tokens, token], dim=1)
        )
        return self.module(
            vision_embeds=vision,
            text_embeds=text,
            attention_mask=torch.cat([text_features.mask, seen], dim=1),
        )

    def _position(self, level: Tensor) -> Tensor:
        position: Tensor = self.module.vision_encoder.neck.position_encoding(
            level.shape, level.device, level.dtype
        )
        return position

    def _logits(self, output: Any) -> Tensor:
        """What the model answers, as one mask an image."""
        if self.settings.output == "semantic":
            semantic: Tensor = output.semantic_seg.squeeze(1)
            return semantic
        scores = output.pred_logits.sigmoid()  # (N, Q)
        if self.settings.score == "class_presence":
            scores = scores * output.presence_logits.sigmoid()
        kept = scores > self.settings.score_threshold
        if self.settings.output == "best":
            kept = kept & (scores == scores.amax(dim=1, keepdim=True))
            kept = kept & (kept.cumsum(dim=1) == 1)  # of equal ones the first
        elif self.settings.nms != "none":
            kept = self._distinct(output, scores, kept)
        union: Tensor = output.pred_masks.masked_fill(~kept[:, :, None, None], NOTHING).amax(dim=1)
        return union

    def _distinct(self, output: Any, scores: Tensor, kept: Tensor) -> Tensor:
        """Those of the kept queries ``(N, Q)`` that overlap no better one too much."""
        chosen = torch.zeros_like(kept)
        for row in range(len(kept)):
            found = kept[row].nonzero().flatten()
            ranked = found[scores[row, found].argsort(descending=True, stable=True)]
            if self.settings.nms == "box":
                shared = box_overlaps(output.pred_boxes[row, ranked])
            else:
                shared = mask_overlaps(output.pred_masks[row, ranked] > 0)
            chosen[row, ranked[not_covered(shared > self.settings.nms_threshold)]] = True
        return chosen

    def predict(self, pixels: Tensor, texts: Sequence[str]) -> Tensor:
        """The unmodified forward at full text length: what the stages are held to."""
        return self._whole(pixels, texts, with_token=self.settings.prompt_class_token)

    def _whole(self, pixels: Tensor, texts: Sequence[str], *, with_token: bool) -> Tensor:
        ids, mask = (tensor.to(pixels.device) for tensor in self.tokenize(texts))
        keys: dict[str, Any] = {}
        if with_token:
            boxes, labels = self._hidden_box(pixels)
            keys = {"input_boxes": boxes, "input_boxes_labels": labels}
        return self._logits(
            self.module(pixel_values=pixels, input_ids=ids, attention_mask=mask, **keys)
        )

    def alternatives(self) -> Mapping[str, Callable[[Tensor, Sequence[str]], Tensor]]:
        """The other of the two computations."""
        with_token = not self.settings.prompt_class_token
        name = "prompt_class_token: " + (
            "true, as Meta's model computes" if with_token else "false, as transformers' computes"
        )
        return {name: partial(self._whole, with_token=with_token)}


def box_overlaps(boxes: Tensor) -> Tensor:
    """Intersection over union of boxes (left, top, right, bottom), ``(n, 4)`` -> ``(n, n)``."""
    low = torch.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    shared = (high - low).clamp(min=0).prod(dim=-1)
    areas = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(dim=-1)
    return shared / (areas[:, None] + areas[None] - shared).clamp(min=1e-12)


def mask_overlaps(masks: Tensor) -> Tensor:
    """Intersection over union of masks, bool ``(n, h, w)`` -> ``(n, n)``."""
    flat = masks.flatten(1).float()
    shared = flat @ flat.T
    areas = flat.sum(dim=1)
    return shared / (areas[:, None] + areas[None] - shared).clamp(min=1)


def not_covered(overlaps: Tensor) -> Tensor:
    """Which of n ranked things no better kept one overlaps; bool ``(n, n)`` -> ``(n,)``."""
    kept = torch.ones(len(overlaps), dtype=torch.bool, device=overlaps.device)
    for rank in range(1, len(overlaps)):
        kept[rank] = not (overlaps[rank, :rank] & kept[:rank]).any()
    return kept


def _check_levels(scale_factors: Sequence[float]) -> None:
    """Features have three maps; the model leaves the last of four levels out."""
    if len(scale_factors) != _LEVELS + 1:
        raise CardError(
            f"settings.config.vision_config.scale_factors: found {list(scale_factors)}. This "
            "adapter keeps three of four levels. Give four, or change its ImageFeatures."
        )
