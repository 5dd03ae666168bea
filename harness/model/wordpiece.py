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

Source: J. Devlin et al., NAACL 2019, arXiv 1810.04805; Y. Gu et al., ACM HEALTH
3(1), 2021, arXiv 2007.15779.
"""

import json
import string
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.errors import ModelError
from harness.weights.packages import read_member

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


class WordPiece:
    """BERT's pipeline around a vocabulary: clean, lower, strip accents, split, match longest.

    Nothing mends the text beforehand (open_clip's tokenizer would). A special token
    written out in a text is that token, as in transformers' tokenizer.
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
        self.pad, _, self._start, self._end, _ = (vocabulary[token] for token in SPECIAL)
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
        # BiomedCLIP's mask comes from the ids, so that a padding token in a text is masked, too.
        return ids, (ids != self.pad).to(torch.int64)

    def _fold(self, number: int) -> int:
        first = self._first
        return number if number < first else first + (number - first) % self._folded


def read_vocabulary(file: Path, *, size: int) -> Mapping[str, int]:
    """The pieces of a ``vocab.txt`` (one a line) or of a ``tokenizer.json``, also of that in a zip.

    Raises:
        ModelError: It is no WordPiece vocabulary, or not one of `size` pieces.
        CheckpointError: It is a zip without a ``tokenizer.json`` that can be read.
    """
    is_zip = file.suffix == ".zip"
    content = read_member(file, "tokenizer.json") if is_zip else None
    try:
        text = content.decode() if content is not None else file.read_text(encoding="utf-8-sig")
        if is_zip or file.suffix == ".json":
            vocabulary = json.loads(text)["model"]["vocab"]
        else:
            lines = text.removesuffix("\n").split("\n")  # a piece may be another line separator
            vocabulary = {piece: number for number, piece in enumerate(lines)}
        numbers = sorted(vocabulary[piece] for piece in vocabulary)
        lacking = [token for token in SPECIAL if token not in vocabulary]
    except (ValueError, LookupError, TypeError, RecursionError, OSError) as problem:
        reason = f"{type(problem).__name__}: {problem}"[:160]
        raise ModelError(
            f"{file}: not a WordPiece vocabulary ({reason}). One piece a line ('vocab.txt'), or "
            "a 'tokenizer.json', is needed. Download the file again."
        ) from None
    if lacking or numbers != list(range(size)) or vocabulary["[PAD]"] != 0:
        found = f"{len(numbers)} pieces" + "".join(f", no {token!r}" for token in lacking)
        raise ModelError(
            f"{file}: the vocabulary has {found}. The model's has {size}, numbered from 0, "
            f"'[PAD]' first, with {', '.join(map(repr, SPECIAL))}. Get the vocabulary the model "
            "was trained with, or correct 'vocabulary_size' on the card."
        )
    pieces: dict[str, int] = vocabulary
    return pieces


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
