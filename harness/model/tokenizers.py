"""Tokenizers that need no hub: what adapters share because libraries carry it.

Conventions: ids and masks are int64 ``(N, L)``, mask 1 at tokens of the text with its
start and end. Cutting keeps the start and the end token.

Source: CLIP's byte-pair vocabulary, as open_clip carries it (A. Radford et al., ICML
2021, arXiv 2103.00020).
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from harness.model.contract import TokenCounts

CLIP_VOCABULARY = 49408  # byte pairs; the last two are start and end of text

# Texts are counted, compared and encoded, by each model of a run anew; 16,384 take some 10 MB.
_REMEMBERED = 1 << 14


@lru_cache(maxsize=1)
def _byte_pairs() -> Any:
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer()


@lru_cache(maxsize=_REMEMBERED)
def _encoded(text: str) -> tuple[int, ...]:
    return tuple(_byte_pairs().encode(text))


class ClipTokenizer:
    """CLIP's tokenizer, padding with end-of-text as the hub's CLIPTokenizer does.

    It knows every string: what is no word falls into bytes. Broken Unicode and HTML
    entities are mended first, which the hub's does not do.

    A `vocabulary_size` V below CLIP's folds the ids modulo V - 2 (a hashed embedding,
    for small models: every word still has a token of its own or shares one by chance);
    start and end of text are then V - 2 and V - 1.
    """

    def __init__(self, *, context_length: int, vocabulary_size: int = CLIP_VOCABULARY) -> None:
        self.context_length, self.vocabulary_size = context_length, vocabulary_size
        self.start, self.end = vocabulary_size - 2, vocabulary_size - 1

    def count(self, texts: Sequence[str]) -> TokenCounts:
        """Tokens with start and end; more than `context_length` are cut."""
        counts = tuple(len(_encoded(text)) + 2 for text in texts)
        return TokenCounts(counts, tuple(n > self.context_length for n in counts))

    def __call__(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """N texts -> ids padded with end-of-text, and mask; ``(N, context_length)``."""
        ids = torch.full((len(texts), self.context_length), self.end)
        mask = torch.zeros((len(texts), self.context_length), dtype=torch.int64)
        for row, text in enumerate(texts):
            body = _encoded(text)[: self.context_length - 2]
            ids[row, 0] = self.start
            ids[row, 1 : len(body) + 1] = torch.tensor(body, dtype=torch.int64) % self.start
            mask[row, : len(body) + 2] = 1
        return ids, mask
