"""SAM 3 through transformers' ``Sam3Model``, prompted by text alone, in stages.

Conventions: pixels are ``(N, 3, S, S)``, S = 1008 for the published model, stretched
and standardised to [-1, 1]; L is the text tower's context (32 tokens, special ones
included), C the width of the detector (256), Q the number of queries (200). Logits
are ``(N, S/3.5, S/3.5)`` (288 for 1008) and cover the whole stretched image.

Quirks that change results, kept on purpose:

- The model answers with instances. `output: instances`, the default, is the union of
  the masks of all queries whose score passes `score_threshold`: the greatest mask
  logit among them, so that the card's threshold of 0.5 is the processor's
  `mask_threshold`; where no query passes, every logit is `NOTHING`. A query's score is
  ``sigmoid(query) * sigmoid(presence)``, and 0.3 is the processor's default (the
  library's examples use 0.5). `output: semantic` is the semantic head, which neither
  the queries nor the presence of the concept gate.
- A score that crosses its threshold adds or takes away a whole mask: rounding can do
  that, so that for such cases no noise floor holds.
- Masks are resized as logits; the processor resizes probabilities. They differ by
  less than a pixel along the outline.
- Texts are padded with end-of-text and masked. A longer text loses its end, and the
  last token is end-of-text, as in the authors' own tokenizer; transformers' processor
  does not cut, and the model then raises.
- The text tower's own projection is not used: every token's last state goes through
  `text_projection`, and the detector attends to the tokens.
- An image's three feature maps take 111 MB in float32, since the finest is 288 x 288.

Sources: N. Carion et al., SAM 3: Segment Anything with Concepts, 2025, arXiv
2511.16719; transformers' ``models/sam3``.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
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
from harness.models import Picture, TokenCounts, device_of, read_settings
from harness.weights.pretrained import pretrained

# The logit of a pixel that no instance covers: a probability of 2e-9.
NOTHING = -20.0


class Settings(Strict):
    """How the model is built and read.

    `config` holds what differs from the defaults of transformers' ``Sam3Config``,
    which are the published model's; a folder of weights brings its own.
    """

    config: dict[str, Any] = {}
    output: Literal["instances", "semantic"] = "instances"
    score_threshold: float = Field(default=0.3, ge=0, lt=1)


class ImageFeatures(NamedTuple):
    """Feature maps of the vision encoder's pyramid, each twice as wide as the next."""

    fine: Tensor  # (N, C, 4g, 4g), g = S / 14
    middle: Tensor  # (N, C, 2g, 2g)
    coarse: Tensor  # (N, C, g, g)


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
        from transformers import Sam3Model

        self.settings = read_settings(Settings, settings)
        self.module = pretrained(Sam3Model, self.settings.config, weights=weights, key="config")
        _check_levels(self.module.config.vision_config.scale_factors)
        side = int(self.module.config.image_size)
        self.input_size = (side, side)
        text = self.module.config.text_config
        self._tokenizer = ClipTokenizer(
            context_length=text.max_position_embeddings, vocabulary_size=text.vocab_size
        )

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
        """``(N, 3, S, S)`` -> the pyramid; its last level is not used by the model."""
        return ImageFeatures(*self.module.get_vision_features(pixels).fpn_hidden_states[:3])

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

        positions = [self._position(level) for level in image_features]
        # The model leaves the last level out, so that something has to stand there.
        vision = Sam3VisionEncoderOutput(
            fpn_hidden_states=(*image_features, image_features.coarse),
            fpn_position_encoding=(*positions, positions[-1]),
        )
        text = BaseModelOutputWithPooling(pooler_output=text_features.tokens)
        return self.module(
            vision_embeds=vision, text_embeds=text, attention_mask=text_features.mask
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
        scores = output.pred_logits.sigmoid() * output.presence_logits.sigmoid()  # (N, Q)
        others = scores <= self.settings.score_threshold
        union: Tensor = output.pred_masks.masked_fill(others[:, :, None, None], NOTHING).amax(dim=1)
        return union

    def predict(self, pixels: Tensor, texts: Sequence[str]) -> Tensor:
        """The unmodified forward at full text length: what the stages are held to."""
        ids, mask = (tensor.to(pixels.device) for tensor in self.tokenize(texts))
        return self._logits(self.module(pixel_values=pixels, input_ids=ids, attention_mask=mask))


def _check_levels(scale_factors: Sequence[float]) -> None:
    """Features have three maps; the model leaves the last of four levels out."""
    if len(scale_factors) != len(ImageFeatures._fields) + 1:
        raise CardError(
            f"settings.config.vision_config.scale_factors: found {list(scale_factors)}. This "
            "adapter keeps three of four levels. Give four, or change its ImageFeatures."
        )
