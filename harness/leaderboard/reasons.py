"""Sentences that say why a submission is refused.

Conventions: *where: what was found. What would be right. How to repair it.* Values of strangers
are quoted, cut to `SHOWN` characters and freed of control characters.
"""

from harness.report.escape import plain

SHOWN = 80


def quoted(value: object) -> str:
    r"""A stranger's value as it may stand in a message.

    Example:
        >>> quoted("a\x1b[2J" + "x" * 100)[:12], len(quoted("x" * 10_000)) < 100
        ("'a [2Jxxxxxx", True)
    """
    text = plain(str(value))
    return repr(text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…")


def reason(where: str, found: str, right: str, repair: str) -> str:
    """One reason, in the order in which every message of the harness is written."""
    return f"{where}: {found}. {right}. {repair}."
