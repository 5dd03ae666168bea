"""One way to write content as JSON, so that equal content has equal hashes everywhere.

Conventions: UTF-8, keys sorted, no blanks between tokens, no escapes but those that
JSON demands. What a plan hashes by the million is joined from parts that are encoded
once; `object_of` writes the same bytes as `canonical` does, and a test compares them.
"""

import json
from collections.abc import Iterable, Mapping
from functools import cache
from json.encoder import encode_basestring
from operator import add
from typing import Any

from harness.records import Edit


def canonical(content: Any) -> bytes:
    """The bytes of any JSON content.

    Example:
        >>> canonical({"b": [1, None], "a": "é"}).decode()
        '{"a":"é","b":[1,null]}'
    """
    return json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()


def scalar(value: str | int | None) -> str:
    r"""A text, a whole number or null as JSON.

    Example:
        >>> print(scalar('say "ah"'), scalar(None), scalar(3))
        "say \"ah\"" null 3
    """
    if isinstance(value, str):
        return encode_basestring(value)
    return "null" if value is None else str(value)


def scalars(row: Mapping[str, str | int | None]) -> dict[str, str]:
    """Every value of a row as `scalar` writes it: the innermost loop of a plan."""
    return {
        key: encode_basestring(value)
        if type(value) is str
        else "null"
        if value is None
        else str(value)
        for key, value in row.items()
    }


def object_of(encoded: Mapping[str, str], keys: tuple[str, ...]) -> bytes:
    """The bytes of an object whose values are encoded; `keys` are its sorted keys."""
    return ("{" + ",".join(map(add, _labels(keys), map(encoded.__getitem__, keys))) + "}").encode()


@cache
def _labels(keys: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{encode_basestring(key)}:" for key in keys)


def edits_text(edits: Iterable[Edit]) -> str:
    """Edits as a JSON list of ``[start, end, old, new, attribute]``.

    Example:
        >>> edits_text([Edit(0, 5, "small", "tiny", "size")])
        '[[0, 5, "small", "tiny", "size"]]'
    """
    rows = [
        f"[{e.start}, {e.end}, {encode_basestring(e.old)}, {encode_basestring(e.new)}, "
        f"{scalar(e.attribute)}]"
        for e in edits
    ]
    return "[" + ", ".join(rows) + "]"
