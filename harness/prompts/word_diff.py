"""The edits that lead from one text to another, in whole words.

Conventions: a word is a run of letters and digits, and so is a run of blanks; every other
character stands for itself. Offsets are those of the original, as in every edit.
"""

import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from functools import lru_cache
from itertools import accumulate

from harness.records import Edit

_WORD = re.compile(r"\w+|\s+|[^\w\s]")


@lru_cache(maxsize=2**14)
def word_edits(original: str, text: str) -> tuple[Edit, ...]:
    """Replacements, removals and insertions of whole words; none where the texts are equal.

    Applied to `original` they give `text`, whatever the two have in common.

    Example:
        >>> [(e.old, e.new) for e in word_edits("one small polyp", "one large round polyp")]
        [('small', 'large round')]
    """
    old, new = _WORD.findall(original), _WORD.findall(text)
    # Most variants share their beginning and end with the original, and the rest is short.
    head = n_shared(old, new)
    tail = n_shared(old[head:][::-1], new[head:][::-1])
    first = sum(map(len, old[:head]))
    old, new = old[head : len(old) - tail], new[head : len(new) - tail]
    starts = list(accumulate(map(len, old), initial=first))
    edits: list[Edit] = []
    blank = ""  # what stands between the last edit and here, if that is blank
    for kind, i, j, k, end in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        before, after = "".join(old[i:j]), "".join(new[k:end])
        if kind == "equal":
            blank = before
        elif edits and (not blank or blank.isspace()):
            last = edits.pop()
            old_text, new_text = last.old + blank + before, last.new + blank + after
            edits.append(Edit(last.start, starts[j], old_text, new_text))
            blank = ""
        else:
            edits.append(Edit(starts[i], starts[j], before, after))
            blank = ""
    return tuple(edits)


def n_shared(one: Sequence[str], other: Sequence[str]) -> int:
    """How many pieces (words, or characters) two texts have in common at their beginning.

    Example:
        >>> n_shared("small", "smell")
        2
    """
    pairs = enumerate(zip(one, other, strict=False))
    return next((n for n, (a, b) in pairs if a != b), min(len(one), len(other)))
