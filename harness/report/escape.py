"""Makes text from strangers harmless in Markdown: names and reasons come from cards and data.

Conventions: the result stays on one line, shows the same characters and starts no
markup, no HTML, no link and no table column.
"""

import json
import re

# Controls, direction marks, what shows as nothing, and halves of surrogate pairs, which no
# file can hold. Joiners stay: scripts need them.
_CONTROL = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    r"\ud800-\udfff\U000e0000-\U000e007f]+"
)
# Lines that CI services obey: GitHub's of two kinds, Azure's and TeamCity's.
_COMMAND = re.compile(r"^(\s*)(?=::)|(?<=#)(?=#(?:vso|teamcity)?\[)")
_MARKUP = re.compile(r"[\\`*|~$]|!(?=\[)|\](?=[(\[:])|^[\[#+-]")
_NUMBERED = re.compile(r"^(\d+)([.)])(?=\s|$)")
_OUTER_UNDERSCORE = re.compile(r"(?<![^\W_])_|_(?![^\W_])")


def plain(text: str) -> str:
    """One line without control characters."""
    return _CONTROL.sub(" ", text).strip()


def visible(text: str) -> str:
    r"""Lines as a terminal or the log of a CI job may show them: nothing in them is obeyed.

    Example:
        >>> print(visible("a\x1b[2J\n::error::b"))
        a\x1b[2J
        \::error::b
    """
    return "\n".join(_COMMAND.sub(r"\1\\", _with_escapes(line)) for line in text.split("\n"))


def visible_json(text: str) -> str:
    r"""The same content as JSON whose text is safe to print.

    Example:
        >>> print(visible_json('["a\u202eb", "##[error]"]'))
        ["a\u202eb", "#\u0023[error]"]
    """
    lines = text.split("\n")
    safe = (line if line.isprintable() else "".join(map(_in_json, line)) for line in lines)
    return "\n".join(safe).replace("##", r"#\u0023")


def _with_escapes(line: str) -> str:
    return line if line.isprintable() else "".join(map(_escape, line))


def _escape(char: str) -> str:
    return char if char.isprintable() else ascii(char)[1:-1]


def _in_json(char: str) -> str:
    return char if char.isprintable() else json.dumps(char)[1:-1]


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

    In a table ``|`` must be escaped even in code.

    Example:
        >>> print(code("a|b"), code("a|b", in_table=True))
        `a|b` `a\|b`
    """
    shown = plain(text).replace("`", "'")
    return "`" + (shown.replace("|", r"\|") if in_table else shown) + "`"
