"""SAM 3 with a small text tower (SAM3-LiteText), through transformers' ``Sam3LiteTextModel``.

Conventions and all that is not text: as in `adapter`.

The text tower is not causal, and its convolutions see the padding: other ids behind the
text, another length or no padding at all change what its own tokens become, by more than
they spread. Every text is therefore encoded at one length, `context_length`, filled with
end-of-text, whatever the batch holds.

The processor of transformers pads to 32 tokens. The published files are named after 16
positions, over which 32 tokens are then stretched. Which of the two they were trained with
is not known: `context_length` says what is computed, and enters the model's id.

Source: transformers' ``models/sam3_lite_text``.
"""

from typing import Any

from pydantic import Field
from torch import Tensor

from harness.models import device_of

from .adapter import Sam3, Settings, TextFeatures


class LiteSettings(Settings):
    """As for SAM 3, with the length at which every text is encoded."""

    context_length: int = Field(default=32, ge=3)


class Sam3LiteText(Sam3):
    """SAM3-LiteText; `module` is transformers' ``Sam3LiteTextModel``."""

    settings: LiteSettings

    @staticmethod
    def _schema() -> type[Settings]:
        return LiteSettings

    @staticmethod
    def _kind() -> Any:
        from transformers import Sam3LiteTextModel

        return Sam3LiteTextModel

    def _context_length(self) -> int:
        return self.settings.context_length

    def encode_tokens(self, input_ids: Tensor, attention_mask: Tensor) -> TextFeatures:
        """Ids and mask ``(N, L)`` -> the tokens' features, always of the whole length."""
        device = device_of(self.module)
        mask = attention_mask.to(device)
        output = self.module.get_text_features(input_ids=input_ids.to(device), attention_mask=mask)
        return TextFeatures(output.pooler_output * mask[..., None], mask.bool())
