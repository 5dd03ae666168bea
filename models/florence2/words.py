"""Florence-2's vocabulary: BART's byte pairs, and a token for each of a thousand places.

It lies only on a hub (``tokenizer.json``). Without it, models with random numbers use a
stand-in: a token a byte. No text is unknown to it, and its texts are about four times as
long in tokens.

Source: B. Xiao et al., Florence-2, CVPR 2024, arXiv 2311.06242.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from harness.errors import ModelError
from harness.models import Note

from .polygons import BINS, END, SEPARATOR, START, WORD

STAND_IN = Note(
    "tokenizer: Florence-2's vocabulary is not at hand, and a stand-in reads the prompts byte by "
    "byte. That does for random weights alone. Put the repository's 'tokenizer.json' beside the "
    "weights, or name it with `tokenizer: {path: FILE}` on a card.",
    untrained_only=True,
)
# Ids of BART, which the model's configuration repeats.
BOS, PAD, EOS = 0, 1, 2
_MARKS = {"<sep>": SEPARATOR, "<poly>": START, "</poly>": END}
_SPECIAL = 4


class Vocabulary(Protocol):
    """Text to ids, and ids to symbols of `polygons`."""

    symbols: Mapping[int, int]

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without start and end."""
        ...


class Published:
    """The vocabulary of a ``tokenizer.json``."""

    def __init__(self, file: Path, *, size: int) -> None:
        """Read it.

        Raises:
            ModelError: It is no vocabulary, not one of at most `size` tokens, or has no places.
        """
        from tokenizers import Tokenizer

        try:
            self._tokenizer: Any = Tokenizer.from_file(str(file))
        # The library raises nothing more special.
        except Exception as problem:  # noqa: BLE001
            raise ModelError(
                f"{file}: not a vocabulary ({str(problem)[:120]}). The 'tokenizer.json' of the "
                "model's repository is needed. Download the file again."
            ) from None
        names = {f"<loc_{n}>": n for n in range(BINS)} | _MARKS
        ids: dict[str, Any] = {name: self._tokenizer.token_to_id(name) for name in names}
        missing = [name for name in names if ids[name] is None]
        largest = self._tokenizer.get_vocab_size()
        starts = [self._tokenizer.token_to_id(name) for name in ("<s>", "<pad>", "</s>")]
        if missing or largest > size or starts != [BOS, PAD, EOS]:
            first = f", first {missing[0]!r}" if missing else ""
            raise ModelError(
                f"{file}: {largest} tokens, {len(missing)} of {len(names)} for places are "
                f"missing{first}; start, padding and end are {starts}. At most {size} tokens, all "
                f"places and {[BOS, PAD, EOS]} are needed. Get the file of the model's repository."
            )
        self.symbols: Mapping[int, int] = {ids[name]: symbol for name, symbol in names.items()}

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without start and end."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids


class Bytes:
    """The stand-in: ids 4 to 259 are bytes, then come places and marks."""

    SIZE = _SPECIAL + 256 + BINS + len(_MARKS)

    def __init__(self) -> None:
        start = _SPECIAL + 256
        marks = {start + BINS + n: symbol for n, symbol in enumerate(_MARKS.values())}
        self.symbols: Mapping[int, int] = {start + n: n for n in range(BINS)} | marks

    def encode(self, text: str) -> list[int]:
        """A token a byte."""
        return [_SPECIAL + byte for byte in text.encode("utf-8", "surrogatepass")]


def to_symbols(ids: list[int], vocabulary: Vocabulary) -> list[int]:
    """What was generated as symbols, without start, padding and end."""
    shown = (number for number in ids if number not in (BOS, PAD, EOS))
    return [vocabulary.symbols.get(number, WORD) for number in shown]
