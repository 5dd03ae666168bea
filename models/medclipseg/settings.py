"""The architecture of MedCLIPSeg as a card writes it down.

Conventions: sizes are pixels, widths are numbers of channels. Unknown keys are errors.
"""

from typing import Literal, Self

from pydantic import Field, model_validator

from harness.cards import Strict
from harness.model.tokenizers import CLIP_VOCABULARY

BERT_VOCABULARY = 30522
Kind = Literal["unimedclip", "biomedclip", "clip"]


class Settings(Strict):
    """The architecture of a model without a checkpoint, and what no key of one says.

    `kind` ``clip`` is also pubmedclip's, in patches of 32. `layers` are the blocks of each
    tower; all but the first and the last have an adapter. `vocabulary` says whose WordPiece
    BERT was trained with: ``published`` is BiomedBERT's, ``stand_in`` the one made here.
    """

    kind: Kind
    input_size: int = Field(ge=16)
    patch_size: int = Field(ge=4)
    layers: int = Field(ge=3)
    vision_hidden_size: int = Field(ge=8)
    vision_intermediate_size: int = Field(ge=8)
    vision_heads: int = Field(ge=1)
    text_hidden_size: int = Field(ge=8)
    text_intermediate_size: int = Field(ge=8)
    text_heads: int = Field(ge=1)
    text_positions: int = Field(ge=3)
    context_length: int = Field(ge=3)
    vocabulary: Literal["published", "stand_in"]
    vocabulary_size: int = Field(ge=64, le=CLIP_VOCABULARY)
    projection_dim: int = Field(ge=2)
    adapter_width: int = Field(ge=1)
    upscale_blocks: int = Field(ge=1, le=4)
    beta: float = Field(ge=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.input_size % self.patch_size:
            raise ValueError(f"'input_size' must be a multiple of 'patch_size' {self.patch_size}")
        if self.kind != "clip" and self.context_length > self.text_positions:
            raise ValueError(
                f"'context_length' must be at most 'text_positions', here {self.text_positions}"
            )
        for width, heads in (
            ("vision_hidden_size", self.vision_heads),
            ("text_hidden_size", self.text_heads),
        ):
            if getattr(self, width) % heads:
                raise ValueError(f"'{width}' must be a multiple of its heads, {heads}")
        return self


# What CLIP's own kinds have instead of a card's values, in the published size.
CLIP_TEXT = {
    "kind": "clip",
    "text_hidden_size": 512,
    "text_intermediate_size": 2048,
    "text_heads": 8,
    "context_length": 77,
    "vocabulary_size": CLIP_VOCABULARY,
}
