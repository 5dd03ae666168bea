"""Grounding DINO's prompts as tokens: BERT's uncased WordPiece, a phrase, a full stop.

The detector knows four ids by heart, which end a phrase: ``[CLS]`` 101, ``[SEP]`` 102,
``.`` 1012 and ``?`` 1029. Tokens see each other within a phrase only, and a phrase that
no full stop ends is not one.

BERT's vocabulary lies only on a hub. Without it, models with random numbers use a
stand-in of the same size with these ids in their places: single characters, each as a
beginning and as a continuation (``##``). No word is unknown to it, and its texts are
about five times as long in tokens.

Conventions: ids and mask are int64 ``(N, L)``; ``[PAD]`` is 0.

Source: J. Devlin et al., NAACL 2019, arXiv 1810.04805.
"""

import json
import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.errors import ModelError
from harness.models import Note, TokenCounts

FIXED = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103, ".": 1012, "?": 1029}
STAND_IN = Note(
    "tokenizer: BERT's vocabulary is not at hand, and a stand-in of the same size reads the "
    "prompts character by character. That does for random weights alone. Put the repository's "
    "'vocab.txt' or 'tokenizer.json' beside the detector's weights, or name it with `tokenizer: "
    "{path: FILE}` on a card.",
    untrained_only=True,
)


class Phrases:
    """Turns prompts into the tokens of one phrase each."""

    def __init__(self, vocabulary: Mapping[str, int], *, context_length: int) -> None:
        from transformers import BertTokenizer

        self.context_length = context_length
        self._tokenizer: Any = BertTokenizer(vocab=dict(vocabulary), do_lower_case=True)

    def _body(self, text: str) -> list[int]:
        """Ids of a text and its full stop, without ``[CLS]`` and ``[SEP]``, not cut."""
        phrase = text.strip().lower()
        ended = phrase if phrase.endswith(".") else f"{phrase}."
        ids: list[int] = self._tokenizer(ended, add_special_tokens=False, verbose=False)[
            "input_ids"
        ]
        return ids

    def count(self, texts: Sequence[str]) -> TokenCounts:
        """Tokens with full stop, start and end; more than the context are cut."""
        counts = tuple(len(self._body(text)) + 2 for text in texts)
        return TokenCounts(counts, tuple(n > self.context_length for n in counts))

    def __call__(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """N texts -> ids and mask ``(N, context_length)``.

        A longer text loses its end, but not the full stop: without one the detector
        would not take it for a phrase.
        """
        ids = torch.full((len(texts), self.context_length), FIXED["[PAD]"])
        mask = torch.zeros_like(ids)
        for row, text in enumerate(texts):
            body = self._body(text)
            if len(body) > self.context_length - 2:
                body = [*body[: self.context_length - 3], FIXED["."]]
            whole = [FIXED["[CLS]"], *body, FIXED["[SEP]"]]
            ids[row, : len(whole)] = torch.tensor(whole)
            mask[row, : len(whole)] = 1
        return ids, mask


def read_vocabulary(file: Path, *, size: int) -> Mapping[str, int]:
    """The pieces of a ``vocab.txt`` (one a line) or of a ``tokenizer.json``.

    Raises:
        ModelError: It is no WordPiece vocabulary, not one of `size` pieces, or has
            other ids for what the detector knows by heart.
    """
    try:
        text = file.read_text(encoding="utf-8")
        if file.suffix == ".json":
            vocabulary: dict[str, int] = json.loads(text)["model"]["vocab"]
        else:
            lines = text.removesuffix("\n").split("\n")
            vocabulary = {piece: number for number, piece in enumerate(lines)}
        moved = [token for token, number in FIXED.items() if vocabulary.get(token) != number]
    except (UnicodeDecodeError, ValueError, LookupError, TypeError, AttributeError) as problem:
        raise ModelError(
            f"{file}: not a WordPiece vocabulary ({type(problem).__name__}). One piece a line "
            "('vocab.txt'), or a 'tokenizer.json', is needed. Download the file again."
        ) from None
    if moved or len(vocabulary) != size:
        raise ModelError(
            f"{file}: {len(vocabulary)} pieces, {len(moved)} of the detector's own tokens in other "
            f"places{''.join(f', first {token!r}' for token in moved[:1])}. It needs {size} pieces "
            "with the ids of BERT's uncased vocabulary. Get the file of the detector's repository."
        )
    return vocabulary


def stand_in(size: int) -> Mapping[str, int]:
    """A vocabulary of `size` pieces, the same on every machine."""
    characters = [c for c in string.printable if c not in string.whitespace and c not in FIXED]
    pieces = iter([*characters, *(f"##{c}" for c in characters)])
    tokens = {number: token for token, number in FIXED.items()}
    vocabulary = {}
    for number in range(size):
        piece = tokens.get(number) or next(pieces, f"[unused{number}]")
        vocabulary[piece] = number
    return vocabulary
