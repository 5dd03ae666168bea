"""Spoils a valid file: bits, bytes, lengths, splices, and values of JSON and YAML.

Everything is a function of the generator that is given, so that an input is named by its number.
"""

import json
import random

import yaml

TOKENS = [
    b"\0", b"\xff", b"\xef\xbb\xbf", b"\xff\xfe", b"\r", b"\x1b[2J", b"{", b"}", b"[", b"]", b"-",
    b":", b"'", b'"', b"\\", b"&a ", b"*a", b"<<: ", b"!!int ", b"!!python/name:os.system ", b"%",
    b"@", b"|", b"NaN", b"-Infinity", b"1e999", b"null", b"2001-99-99", b"0x", b"0b_", b"-1",
    b"9" * 50, b"9" * 5000, b"\\u0000", b"\\ud800", b"\\x00", b"../", b"..\\", b"C:\\",
    b"/etc/passwd", b"a" * 300, b"[" * 200, b"- " * 200, b"{a: " * 100, "\u202e\u2028é".encode(),
    b"\xed\xa0\x80", b"\x80\x02", b"PK\x03\x04", b"PAR1", b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\xff\xff\xff\xff\xff", b"\x00\x00\x00\x80",
]  # fmt: skip
VALUES = [
    None, True, False, 0, -1, 1, 2, 3.5, -0.0, 1e308, float("nan"), float("inf"), 2**31, 2**63,
    2**64, -(2**63), 10**25, "", "x", "é", "\0", "a\nb", "\x1b[2J", "..", "../x", "/x", "C:\\x",
    "a" * 300, "{", "{a}", "{a=b}", "(", "(a+)+$", "p6", "test", "own", "nan", "2001-99-99",
    "\u202e", [], {}, [[]], [None], {"": None}, {"a": 1}, [1, 2, 3], ["x"], {"p6": []},
    {"p6": {}}, [{}], [0.5, 0.5], "yes.yaml",
]  # fmt: skip


def mutated(rng: random.Random, seeds: list[bytes], form: str) -> bytes:
    """One input: a seed, spoilt one to four times."""
    content = rng.choice(seeds)
    if form in ("json", "yaml") and rng.random() < 0.6:
        return _restructured(rng, content, form)
    for _ in range(rng.choice((1, 1, 2, 4))):
        content = rng.choice(_OPERATIONS)(rng, content, seeds)
    return content


def _flip(rng, content, seeds):
    spoilt = bytearray(content)
    for _ in range(rng.choice((1, 1, 3, 20))):
        if spoilt:
            spoilt[rng.randrange(len(spoilt))] ^= 1 << rng.randrange(8)
    return bytes(spoilt)


def _overwrite(rng, content, seeds):
    at, n = rng.randrange(len(content) + 1), rng.choice((1, 2, 4, 8, 64))
    return content[:at] + rng.randbytes(n) + content[at + n :]


def _cut(rng, content, seeds):
    return content[: rng.randrange(len(content) + 1)]


def _remove(rng, content, seeds):
    at = rng.randrange(len(content) + 1)
    return content[:at] + content[at + rng.choice((1, 4, 30, 1000)) :]


def _repeat(rng, content, seeds):
    at, n = rng.randrange(len(content) + 1), rng.choice((1, 8, 100))
    return content[:at] + content[at : at + n] * rng.choice((2, 3, 50)) + content[at:]


def _splice(rng, content, seeds):
    other = rng.choice(seeds)
    return content[: rng.randrange(len(content) + 1)] + other[rng.randrange(len(other) + 1) :]


def _insert(rng, content, seeds):
    at = rng.randrange(len(content) + 1)
    return content[:at] + rng.choice(TOKENS) + content[at + rng.choice((0, 0, 1, 8)) :]


_OPERATIONS = [_flip, _flip, _overwrite, _cut, _remove, _repeat, _splice, _insert, _insert]


def _restructured(rng, content, form):
    """The same document with some values, keys or items replaced."""
    data = yaml.safe_load(content) if form == "yaml" else json.loads(content)
    for _ in range(rng.choice((1, 1, 2, 3))):
        holders = list(_holders(data))
        if not holders:
            break
        _change(rng, rng.choice(holders), data)
    if form == "yaml" and rng.random() < 0.5:
        try:
            return yaml.safe_dump(data, allow_unicode=True).encode("utf-8", "surrogatepass")
        except yaml.YAMLError:
            pass
    return json.dumps(data, ensure_ascii=rng.random() < 0.7).encode("utf-8", "surrogatepass")


def _holders(data):
    """Every list and mapping that holds something, the outermost first."""
    if isinstance(data, dict | list) and data:
        yield data
        for child in data.values() if isinstance(data, dict) else data:
            yield from _holders(child)


def _change(rng, holder, data):
    key = rng.choice(list(holder)) if isinstance(holder, dict) else rng.randrange(len(holder))
    what = rng.randrange(6)
    if what == 0:
        del holder[key]
    elif what == 1 and isinstance(holder, dict):
        holder[rng.choice(["", "extra", "\0", key + "x", key.upper()])] = holder.pop(key)
    elif what == 2:
        other = rng.choice(list(_holders(data)))
        values = list(other.values()) if isinstance(other, dict) else other
        holder[key] = json.loads(json.dumps(rng.choice(values)))
    elif what == 3 and isinstance(holder, list):
        holder.extend(json.loads(json.dumps(holder))[: rng.randrange(5)])
    elif what == 4 and isinstance(holder[key], str):
        text = holder[key]
        at = rng.randrange(len(text) + 1)
        token = rng.choice(
            ["{", "}", "\0", "\ud800", "a" * 300, "..", "/", "\n", "{size}", "=", "9" * 30]
        )
        holder[key] = text[:at] + token + text[at + rng.randrange(3) :]
    else:
        holder[key] = json.loads(json.dumps(rng.choice(VALUES)))
