"""BERT's uncased WordPiece, with PubMedBERT's vocabulary or a stand-in for it.

PubMedBERT's vocabulary lies only on a hub. Where it is not at hand, models with
random numbers, and models trained from scratch, use a vocabulary of the same size
made from the byte pairs that open_clip carries: special tokens, the printable
ASCII characters, then byte pairs of letters and digits by their rank, each as a
beginning and as a continuation (``##``). Every letter and digit is a piece of both
kinds, so that no English word, however uncommon, becomes the unknown token.

Conventions: ids are int64 ``(N, L)``, ``[CLS]`` first, ``[SEP]`` last, then
``[PAD]``; the mask is 1 up to and including ``[SEP]``. A vocabulary maps pieces to
ids 0 to n - 1.
"""

import string
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import islice
from typing import Any

import torch
from torch import Tensor

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


class WordPiece:
    """BERT's pipeline around a vocabulary: clean, lower, strip accents, split, match longest.

    Nothing mends the text beforehand (open_clip's tokenizer would).
    """

    def __init__(self, vocabulary: Mapping[str, int], *, context_length: int, size: int) -> None:
        """Prepare the tokenizer.

        Args:
            vocabulary: Pieces to ids; holds the five special tokens.
            context_length: Longest text in tokens, special ones included.
            size: Rows of the model's table. Ids of a larger vocabulary are folded:
                special ids stay, the others wrap around behind them.
        """
        from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

        self.context_length = context_length
        self._tokenizer: Any = Tokenizer(models.WordPiece(dict(vocabulary), unk_token="[UNK]"))
        self._tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        self._tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        self._tokenizer.add_special_tokens(list(SPECIAL))
        self.pad, self.unknown, self._start, self._end, _ = (vocabulary[t] for t in SPECIAL)
        self._first = 1 + max(vocabulary[token] for token in SPECIAL)
        self._folded = size - self._first

    def pieces(self, text: str) -> list[str]:
        """The pieces of a text, without ``[CLS]`` and ``[SEP]``, not cut."""
        tokens: list[str] = self._tokenizer.encode(text, add_special_tokens=False).tokens
        return tokens

    def count(self, text: str) -> int:
        """Tokens with ``[CLS]`` and ``[SEP]``, before anything is cut."""
        return len(self.pieces(text)) + 2

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """N texts -> ids and mask, ``(N, context_length)``; a longer text loses its end."""
        ids = torch.full((len(texts), self.context_length), self.pad)
        for row, text in enumerate(texts):
            body = self._tokenizer.encode(text, add_special_tokens=False).ids
            body = [self._fold(number) for number in body[: self.context_length - 2]]
            ids[row, : len(body) + 2] = torch.tensor([self._start, *body, self._end])
        return ids, (ids != self.pad).to(torch.int64)

    def _fold(self, number: int) -> int:
        first = self._first
        return number if number < first else first + (number - first) % self._folded


@cache
def stand_in(size: int) -> Mapping[str, int]:
    """A vocabulary of `size` pieces, the same on every machine."""
    return {piece: number for number, piece in enumerate(islice(_pieces(), size))}


def _pieces() -> Iterator[str]:
    """Distinct pieces, the most needed first."""
    from open_clip.tokenizer import SimpleTokenizer

    letters = string.ascii_lowercase + string.digits
    yield from SPECIAL
    yield from string.punctuation
    yield from letters
    yield from (f"##{letter}" for letter in letters)
    seen = set(letters)
    encoder: dict[str, int] = SimpleTokenizer().encoder
    for pair in sorted(encoder, key=encoder.__getitem__):
        piece = pair.removesuffix("</w>")
        if piece not in seen and set(piece) <= set(letters):
            seen.add(piece)
            yield from (piece, f"##{piece}")
