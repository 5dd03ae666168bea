"""One way to write JSON, so that equal content has equal hashes, and one to read a stranger's.

Conventions: UTF-8, keys sorted, no blanks between tokens, no escapes but those that
JSON demands. What a plan hashes by the million is joined from parts that are encoded
once; `object_of` writes the same bytes as `canonical` does, and a test compares them.
What is read is bounded in size and depth; its texts hold no NUL and no half of a
surrogate pair, which no file name, log or hash can hold; whole numbers fit 64 bits.
"""

import json
import re
import stat
from collections.abc import Iterable, Mapping
from functools import cache
from json.encoder import encode_basestring
from operator import add
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.records import Edit

MAX_JSON_BYTES = 256 << 20
MAX_DEPTH = 40
"""Lists and mappings within each other, in JSON and YAML."""


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


_UNSPEAKABLE = re.compile("[\0\ud800-\udfff]")


def value_problem(value: Any) -> str | None:
    """Why a text or number can be no value of a file here, or None."""
    if isinstance(value, str) and _UNSPEAKABLE.search(value):
        return "holds the character NUL or half of a surrogate pair"
    if isinstance(value, int) and abs(value) >= 1 << 64:
        return "has more than 64 bits"
    return None


def read_bytes(path: Path, *, most: int, error: type[HarnessError], missing: str) -> bytes:
    """The content of a file of at most `most` bytes; `missing` says what to do without it."""
    try:
        if stat.S_ISFIFO(path.stat().st_mode) and path.parts[:2] != ("/", "dev"):
            raise error(f"{path}: found a pipe. A plain file is needed. Put one there.")
        with path.open("rb") as file:
            content = file.read(most + 1)
    except FileNotFoundError:
        raise error(f"{path}: no such file. {missing}") from None
    except (OSError, ValueError) as problem:
        why = getattr(problem, "strerror", None) or problem
        raise error(
            f"{path}: cannot be read ({why}). A plain file that may be read is needed. Check the "
            "path and its permissions."
        ) from None
    if len(content) > most:
        raise error(
            f"{path}: has more than {most:,} bytes. At most so many are read. Check that this is "
            "the file that is meant."
        )
    return content


def decoded(content: bytes, path: Path, *, error: type[HarnessError]) -> str:
    """Bytes as UTF-8 text; a byte-order mark in front is skipped."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        kind = ": it begins like UTF-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else ""
        raise error(
            f"{path}: cannot be read as UTF-8 text (byte {problem.start}: {problem.reason}{kind}). "
            "UTF-8 is needed. Save the file in this encoding."
        ) from None


def read_json(path: Path, *, error: type[HarnessError], missing: str, repair: str) -> Any:
    """Read one JSON file; `missing` and `repair` say what to do where there is none, or no JSON."""
    content = read_bytes(path, most=MAX_JSON_BYTES, error=error, missing=missing)
    return parse_json(content, path, error=error, repair=repair)


def read_object(
    path: Path, *, error: type[HarnessError], missing: str, repair: str
) -> dict[str, Any]:
    """Read one JSON file that holds an object."""
    found = read_json(path, error=error, missing=missing, repair=repair)
    if not isinstance(found, dict):
        raise error(f"{path}: found {type(found).__name__}. An object is needed. {repair}")
    return found


def parse_json(content: bytes, path: Path, *, error: type[HarnessError], repair: str) -> Any:
    """Parse JSON: no NaN or infinity, no doubled key; a mark in front is skipped."""
    text = decoded(content, path, error=error)
    try:
        data = json.loads(
            text,
            parse_constant=_no_number,
            parse_float=_finite,
            object_pairs_hook=_once,
        )
        # Without an escape, JSON that is UTF-8 can hold neither NUL nor a surrogate.
        _check(data, has_escapes="\\u" in text)
    except RecursionError:
        raise error(f"{path}: nested too deeply. Flat rows are expected. {repair}") from None
    except ValueError as problem:
        raise error(f"{path}: not valid JSON ({shown(str(problem))}). {repair}") from None
    return data


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{text[:40]} is too large a number")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(n for n in names if names.count(n) > 1)!r} stands twice")
    return found


def _check(value: Any, *, has_escapes: bool, depth: int = 0) -> None:
    if depth > MAX_DEPTH:
        raise RecursionError
    if isinstance(value, dict):
        if has_escapes:
            _check(list(value), has_escapes=True, depth=depth)
        value = value.values()
    elif not isinstance(value, list):
        problem = value_problem(value) if has_escapes or isinstance(value, int) else None
        if problem:
            raise ValueError(f"{cut(repr(value))} {problem}")
        return
    for child in value:
        _check(child, has_escapes=has_escapes, depth=depth + 1)


def shown(text: str) -> str:
    r"""A stranger's key or name in a message: as it is, or quoted where that could mislead.

    Example:
        >>> print(shown("name"), shown("a\n::error::b"))
        name 'a\n::error::b'
    """
    return text if text.isprintable() and len(text) <= _SHOWN else cut(repr(text))


def cut(text: str) -> str:
    """A quoted value of any length, shortened for a message."""
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


_SHOWN = 160
