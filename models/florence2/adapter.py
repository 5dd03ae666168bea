"""Florence-2's referring segmentation: the model writes polygons, which become a mask.

Conventions: pixels are ``(N, 3, S, S)``, S = 768 for the published models, stretched and
standardised with ImageNet's mean and deviation. Logits are ``(N, S, S)``, plus or minus
`CERTAIN`: a polygon has no probabilities, so that no other threshold changes a mask.

Quirks that change results, kept on purpose:

- The prompt is asked as ``Locate {prompt} in the image with mask``, as the processor of
  transformers writes the task; the empty prompt leaves two spaces.
- Decoding is greedy: equal calls give equal masks. The authors' examples search three beams.
- What is written need not hold a polygon. Then there is *no answer*: an empty mask is
  scored and the case is counted by itself, beside empty masks, which are answers.
- Image and text enter the same encoder, token beside token: nothing of an image that could
  be kept takes the greater part of the time, and no stages are offered.
- One token decides where a polygon goes: rounding can move a mask as a whole, so that no
  noise floor holds for such cases.
- Masks are drawn at the model's size; a place is the middle of a thousandth of the picture.

Sources: B. Xiao et al., Florence-2, CVPR 2024, arXiv 2311.06242; transformers'
``models/florence2``.
"""

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pydantic import Field
from torch import Tensor

from harness.cards import Strict
from harness.errors import CardError
from harness.models import Note, Picture, TokenCounts, device_of, read_settings
from harness.weights.pretrained import pretrained

from .polygons import fill, read_polygons
from .words import BOS, EOS, PAD, STAND_IN, Bytes, Published, Vocabulary, to_symbols

# The logit of a pixel inside a polygon; outside it is the negative.
CERTAIN = 20.0
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_QUESTION = "Locate {} in the image with mask"


class Settings(Strict):
    """How the model is built and asked.

    `config` holds what differs from the defaults of transformers' ``Florence2Config``; a
    folder of weights brings its own. `max_new_tokens` bounds what is written.
    """

    config: dict[str, Any] = {}
    input_size: int = Field(default=768, ge=32)
    max_new_tokens: int = Field(default=1024, ge=8)


class Florence2:
    """Florence-2; `module` is transformers' ``Florence2ForConditionalGeneration``."""

    def __init__(
        self, settings: Mapping[str, Any], *, weights: Path | None, tokenizer: Path | None = None
    ) -> None:
        """Build the model.

        Args:
            settings: The card's settings.
            weights: A folder in the hub's format, or None.
            tokenizer: Its ``tokenizer.json``; a stand-in is used without.
        """
        from transformers import Florence2ForConditionalGeneration

        self.settings = read_settings(Settings, settings)
        self.module = pretrained(
            Florence2ForConditionalGeneration,
            self.settings.config,
            weights=weights,
            key="config",
        )
        side = self.settings.input_size
        self.input_size = (side, side)
        config = self.module.config
        stride = math.prod(config.vision_config.patch_stride)
        self._n_image_tokens = (side // stride) ** 2 + 1
        size = config.text_config.vocab_size
        if tokenizer is None and size < Bytes.SIZE:
            raise CardError(
                f"settings.config.text_config.vocab_size: found {size}. Bytes and places need "
                f"{Bytes.SIZE} tokens. Give as many, or a vocabulary."
            )
        self._vocabulary: Vocabulary = (
            Bytes() if tokenizer is None else Published(tokenizer, size=size)
        )
        self.notes: Sequence[Note] = (STAND_IN,) if tokenizer is None else ()
        # What stands beside the prompt: the picture, start and end.
        longest = config.text_config.max_position_embeddings
        self._context = longest - self._n_image_tokens
        if self._context < 3:
            raise CardError(
                f"settings.input_size: a picture of {side} pixels takes {self._n_image_tokens} of "
                f"{longest} positions. Some must be left for the prompt. Give a smaller picture."
            )

    @cached_property
    def _processor(self) -> Any:
        from transformers import CLIPImageProcessor

        height, width = self.input_size
        return CLIPImageProcessor(
            size={"height": height, "width": width},
            do_center_crop=False,
            image_mean=list(MEAN),
            image_std=list(STD),
        )

    def preprocess(self, image: Picture) -> Tensor:
        """One picture of any size and mode -> ``(3, S, S)``, resized bicubically."""
        # As arrays, pictures three pixels high would be taken for channels first.
        picture = image if isinstance(image, Image.Image) else Image.fromarray(np.asarray(image))
        pixels: Tensor = self._processor(picture.convert("RGB"), return_tensors="pt").pixel_values
        return pixels[0]

    def _ids(self, text: str) -> list[int]:
        """The question with start and end, not cut."""
        return [BOS, *self._vocabulary.encode(_QUESTION.format(text.strip())), EOS]

    def count_tokens(self, texts: Sequence[str]) -> TokenCounts:
        """Tokens of the whole question; more than fit beside the picture are cut."""
        counts = tuple(len(self._ids(text)) for text in texts)
        return TokenCounts(counts, tuple(n > self._context for n in counts))

    def predict(self, pixels: Tensor, texts: Sequence[str]) -> Tensor:
        """``(N, 3, S, S)`` and N texts -> logits ``(N, S, S)``."""
        return self.predict_with_answers(pixels, texts)[0]

    def predict_with_answers(
        self, pixels: Tensor, texts: Sequence[str]
    ) -> tuple[Tensor, Sequence[bool]]:
        """As `predict`, and whether what was written of each holds a polygon."""
        read = [
            read_polygons(to_symbols(ids, self._vocabulary)) for ids in self._written(pixels, texts)
        ]
        masks = np.stack([fill(polygons or [], self.input_size) for polygons in read])
        inside = torch.from_numpy(masks).to(pixels.device)
        logits = torch.where(inside, CERTAIN, -CERTAIN).to(torch.float32)
        return logits, [polygons is not None for polygons in read]

    def _written(self, pixels: Tensor, texts: Sequence[str]) -> list[list[int]]:
        """The ids that the model writes for each pair."""
        device = device_of(self.module)
        questions = [self._ids(text) for text in texts]
        cut = [
            ids if len(ids) <= self._context else [*ids[: self._context - 1], EOS]
            for ids in questions
        ]
        length = max(map(len, cut))
        image = [self.module.config.image_token_id] * self._n_image_tokens
        ids = torch.tensor([[*image, *own, *[PAD] * (length - len(own))] for own in cut])
        written: Tensor = self.module.generate(
            input_ids=ids.to(device),
            attention_mask=(ids != PAD).long().to(device),
            pixel_values=pixels,
            max_new_tokens=self.settings.max_new_tokens,
            num_beams=1,
            do_sample=False,
        )
        return [list(row) for row in written.tolist()]
