"""Prompts that are longer than a model reads.

Conventions: tokens are counted before truncation, special ones included, by whoever is
given: a model's adapter, or CLIP's byte pairs. A row counts once a prompt type.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from harness.data.checks.rows import EXAMPLES, Finding, SplitRows

_TOKENS = "tokens"
CLIP_CONTEXT = 77


@dataclass(frozen=True)
class Tokenizer:
    """How to count the tokens of texts, and how many of them reach the model."""

    name: str
    count: Callable[[Sequence[str]], Sequence[int]]
    limit: int


def clip_tokenizer(limit: int = CLIP_CONTEXT) -> Tokenizer:
    """CLIP's byte pairs as open_clip carries them, with start and end of text.

    This imports torch, which takes seconds.
    """
    from open_clip.tokenizer import SimpleTokenizer

    tokenizer = SimpleTokenizer()

    def count(texts: Sequence[str]) -> list[int]:
        return [len(tokenizer.encode(text)) + 2 for text in texts]

    return Tokenizer("CLIP", count, limit)


def too_long(rows: SplitRows, tokenizer: Tokenizer) -> Iterator[Finding]:
    """One finding for each prompt type of a file."""
    texts = list(dict.fromkeys(prompt.text for _, prompt in rows.prompts()))
    lengths = dict(zip(texts, tokenizer.count(texts), strict=True))
    rungs: dict[str, dict[int, int]] = {}
    for place, prompt in rows.prompts():
        longest = rungs.setdefault(prompt.prompt_type, {})
        longest[place] = max(longest.get(place, 0), lengths[prompt.text])
    for rung, longest in sorted(rungs.items()):
        found = {place: n for place, n in longest.items() if n > tokenizer.limit}
        yield Finding(
            f"too_long_{rung}",
            f"{rung} is longer than {tokenizer.limit} {tokenizer.name} tokens",
            rows.card.name,
            rows.split,
            len(found),
            len(longest),
            _TOKENS,
            tuple(f"row {place}: {n} tokens" for place, n in sorted(found.items())[:EXAMPLES]),
        )
