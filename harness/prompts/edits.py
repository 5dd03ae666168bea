"""Edits: making them, undoing them, and finding them between two texts.

Conventions: offsets are code points of the original text, from 0, ends exclusive. The
edits of one variant never overlap; they are made all at once, in any order. A text
that begins with a capital keeps beginning with one.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from difflib import SequenceMatcher
from functools import lru_cache
from itertools import accumulate, pairwise

from harness.errors import PromptError
from harness.records import Edit

# Words, runs of blanks, and single marks: what a reader sees changed.
_PIECES = re.compile(r"\w+|\s+|[^\w\s]")


def apply_edits(text: str, edits: Sequence[Edit]) -> str:
    """Make every replacement at once; offsets are those of `text`.

    Raises:
        PromptError: An edit does not fit the text, or two edits overlap.

    Example:
        >>> apply_edits("small white polyp", [Edit(0, 5, "small", "large", "size")])
        'large white polyp'
    """
    parts: list[str] = []
    position = 0
    for edit in in_order(edits):
        if edit.start < position:
            raise PromptError(
                f"edit {edit.old!r} -> {edit.new!r}: starts at character {edit.start}, inside the "
                f"edit before it, which ends at {position}. Edits may not overlap. Join the two."
            )
        if text[edit.start : edit.end] != edit.old:
            raise PromptError(
                f"edit {edit.old!r} -> {edit.new!r}: characters {edit.start} to {edit.end} are "
                f"{text[edit.start : edit.end]!r}. They must be what the edit replaces. "
                "Apply the edit to its own original."
            )
        parts += (text[position : edit.start], edit.new)
        position = edit.end
    return "".join([*parts, text[position:]])


def invert_edits(edits: Sequence[Edit]) -> tuple[Edit, ...]:
    """The edits that lead back: offsets are those of the changed text.

    Example:
        >>> there = [Edit(0, 5, "small", "tiny", "size")]
        >>> apply_edits(apply_edits("small polyp", there), invert_edits(there))
        'small polyp'
    """
    inverted, shift = [], 0
    for edit in in_order(edits):
        start = edit.start + shift
        inverted.append(
            replace(edit, start=start, end=start + len(edit.new), old=edit.new, new=edit.old)
        )
        shift += len(edit.new) - len(edit.old)
    return tuple(inverted)


def in_order(edits: Sequence[Edit]) -> Sequence[Edit]:
    """The edits by their place; most variants have one, which needs no sorting."""
    return edits if len(edits) < 2 else sorted(edits, key=lambda e: (e.start, e.end))


def are_apart(edits: Sequence[Edit]) -> bool:
    """Whether edits can be made together: none inside another, no two insertions at one place."""
    ordered = in_order(edits)
    return all(
        a.end <= b.start and (a.start, a.end) != (b.start, b.end) for a, b in pairwise(ordered)
    )


@lru_cache(maxsize=2**14)
def word_edits(old: str, new: str) -> tuple[Edit, ...]:
    """The edits from one text to another, word by word.

    Example:
        >>> word_edits("small white polyp", "small polyp, white")
        (Edit(start=6, end=6, old='', new='polyp, ', attribute=None), \
Edit(start=11, end=17, old=' polyp', new='', attribute=None))
    """
    before, after = _PIECES.findall(old), _PIECES.findall(new)
    head = n_shared(before, after)
    tail = n_shared(before[head:][::-1], after[head:][::-1])
    start = sum(map(len, before[:head]))
    before, after = before[head : len(before) - tail], after[head : len(after) - tail]
    if not before or not after:
        removed = "".join(before)
        return (Edit(start, start + len(removed), removed, "".join(after)),)
    places = list(accumulate(map(len, before), initial=start))
    # Blanks stand everywhere: to match words, they say nothing.
    matcher = SequenceMatcher(str.isspace, before, after, autojunk=False)
    return tuple(
        Edit(places[a], places[b], "".join(before[a:b]), "".join(after[c:d]))
        for kind, a, b, c, d in matcher.get_opcodes()
        if kind != "equal"
    )


def n_shared(one: Sequence[str], other: Sequence[str]) -> int:
    """How many pieces two texts have in common at their beginning.

    Example:
        >>> n_shared("small", "smell")
        2
    """
    pairs = enumerate(zip(one, other, strict=False))
    return next((n for n, (a, b) in pairs if a != b), min(len(one), len(other)))


def lowered(words: str) -> str:
    """Words as they stand inside a sentence; titles and abbreviations keep their capitals.

    Example:
        >>> lowered("Left ventricular cavity"), lowered("Airspace Opacity")
        ('left ventricular cavity', 'Airspace Opacity')
    """
    return words if any(c.isupper() for c in words[1:]) else words[:1].lower() + words[1:]


def begin_like(text: str, model: str) -> str:
    """`text`, beginning with a capital where `model` does."""
    return text[:1].upper() + text[1:] if model[:1].isupper() else text
