"""Edits: making them and undoing them, and the capitals they must keep.

Conventions: offsets are code points of the original text, from 0, ends exclusive. The
edits of one variant never overlap; they are made all at once, in any order. A text
that begins with a capital keeps beginning with one.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from harness.errors import PromptError
from harness.records import Edit


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
