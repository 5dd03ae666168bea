"""The architecture of BiomedCLIPSeg as a card writes it down.

Conventions: sizes are pixels, widths are numbers of channels, layers are
zero-based. Unknown keys are errors.
"""

from typing import Literal, Self

from pydantic import Field, model_validator

from harness.cards import Strict

VOCABULARY = 30522  # entries of PubMedBERT's WordPiece, and of every BERT base


class Settings(Strict):
    """The architecture, and where the tokens come from.

    `extract_layers` are the vision blocks whose outputs the decoder reads, in
    rising order. `vocabulary` says whose WordPiece the model was trained with:
    ``published`` is PubMedBERT's, ``stand_in`` the one made here.
    """

    input_size: int = Field(ge=16)
    patch_size: int = Field(ge=4, multiple_of=4)
    vision_hidden_size: int = Field(ge=8)
    vision_intermediate_size: int = Field(ge=8)
    vision_layers: int = Field(ge=1)
    vision_heads: int = Field(ge=1)
    text_hidden_size: int = Field(ge=8)
    text_intermediate_size: int = Field(ge=8)
    text_layers: int = Field(ge=1)
    text_heads: int = Field(ge=1)
    text_positions: int = Field(ge=3)
    text_dropout: float = Field(ge=0, lt=1)
    context_length: int = Field(ge=3)
    projection_dim: int = Field(ge=1)
    vocabulary: Literal["published", "stand_in"]
    vocabulary_size: int = Field(default=VOCABULARY, ge=64, le=VOCABULARY)
    reduce_dim: int = Field(ge=2)
    extract_layers: tuple[int, ...] = Field(min_length=1)
    conditional_layer: int = Field(ge=0)
    decoder_heads: int = Field(ge=1)
    decoder_intermediate_size: int = Field(ge=1)
    use_complex_transposed_convolution: bool
    initialisation: Literal["published", "fan_in"]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.input_size % self.patch_size:
            raise ValueError(f"'input_size' must be a multiple of 'patch_size' {self.patch_size}")
        if not 0 <= min(self.extract_layers) <= max(self.extract_layers) < self.vision_layers:
            raise ValueError(f"'extract_layers' must lie in 0 to {self.vision_layers - 1}")
        if list(self.extract_layers) != sorted(set(self.extract_layers)):
            raise ValueError("'extract_layers' must rise")
        if self.conditional_layer >= len(self.extract_layers):
            raise ValueError("'conditional_layer' must be a place in 'extract_layers'")
        if self.context_length > self.text_positions:
            raise ValueError(
                f"'context_length' must be at most 'text_positions', here {self.text_positions}"
            )
        for width, heads in (
            ("vision_hidden_size", self.vision_heads),
            ("text_hidden_size", self.text_heads),
            ("reduce_dim", self.decoder_heads),
        ):
            if getattr(self, width) % heads:
                raise ValueError(f"'{width}' must be a multiple of its heads, {heads}")
        if self.initialisation == "fan_in" and self.vision_hidden_size % 4:
            raise ValueError("'vision_hidden_size' must be a multiple of 4 for 'fan_in'")
        return self
