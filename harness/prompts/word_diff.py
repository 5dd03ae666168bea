"""The edits that lead from one text to another, in whole words.

Conventions: a word is a run of letters and digits, and so is a run of blanks; every other
character stands for itself. Offsets are those of the original, as in every edit.
"""

import re
from difflib import SequenceMatcher

from harness.records import Edit

_WORD = re.compile(r"\w+|\s+|[^\w\s]")


def word_edits(original: str, text: str) -> tuple[Edit, ...]:
    """Replacements, removals and insertions of whole words; none where the texts are equal.

    Applied to `original` they give `text`, whatever the two have in common.

    Example:
        >>> [(e.old, e.new) for e in word_edits("one small polyp", "one large round polyp")]
        [('small', 'large round')]
    """
    old, new = _WORD.findall(original), _WORD.findall(text)
    starts = [0]
    for word in old:
        starts.append(starts[-1] + len(word))
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
