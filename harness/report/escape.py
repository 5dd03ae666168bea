"""Makes text from strangers harmless in Markdown: names and reasons come from cards and data.

Conventions: the result stays on one line, shows the same characters and starts no
markup, no HTML, no link and no table column.
"""

import re

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")
_MARKUP = re.compile(r"[\\`*|~$]|!(?=\[)|\](?=[(\[:])|^[\[#+-]")
_NUMBERED = re.compile(r"^(\d+)([.)])(?=\s|$)")
_OUTER_UNDERSCORE = re.compile(r"(?<![^\W_])_|_(?![^\W_])")


def plain(text: str) -> str:
    """One line without control characters; also what a terminal may show safely."""
    return _CONTROL.sub(" ", text).strip()


def escaped(text: str) -> str:
    r"""Text for Markdown, inside a table or out of it.

    Example:
        >>> escaped("a|b <b>*x*</b> kvasir_polyp")
        'a\\|b &lt;b&gt;\\*x\\*&lt;/b&gt; kvasir_polyp'
    """
    text = plain(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = _NUMBERED.sub(r"\1\\\2", _MARKUP.sub(r"\\\g<0>", text))
    text = _OUTER_UNDERSCORE.sub(r"\\_", text)
    # Bare addresses and names after an at sign become links by themselves.
    return text.replace("://", "&#58;//").replace("www.", "www&#46;").replace("@", "&#64;")


def code(text: str, *, in_table: bool = False) -> str:
    r"""Text as a code span; a backtick becomes an apostrophe.

    Args:
        text: Any text.
        in_table: Whether it stands in a table, where ``|`` must be escaped even in code.

    Example:
        >>> print(code("a|b"), code("a|b", in_table=True))
        `a|b` `a\|b`
    """
    shown = plain(text).replace("`", "'")
    return "`" + (shown.replace("|", r"\|") if in_table else shown) + "`"
