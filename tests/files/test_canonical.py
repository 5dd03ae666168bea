"""Content is written in one way; what strangers wrote is read with care."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import DataError
from harness.files.canonical import (
    canonical,
    edits_text,
    object_of,
    parse_json,
    read_bytes,
    read_json,
    scalar,
    scalars,
)
from harness.records import Edit

values = st.none() | st.integers(1 - 2**64, 2**64 - 1) | st.text()
edits = st.builds(
    Edit, st.integers(0, 99), st.integers(0, 99), st.text(), st.text(), st.none() | st.text()
)


@given(st.dictionaries(st.sampled_from(["a", "b", "c_d", "e1"]), values))
def test_an_object_joined_from_parts_is_the_canonical_one(content):
    encoded = {key: scalar(value) for key, value in content.items()}

    assert scalars(content) == encoded
    assert object_of(encoded, tuple(sorted(content))) == canonical(content)


@given(values)
def test_scalars_are_read_back(value):
    assert json.loads(scalar(value)) == value


@given(st.lists(edits, max_size=4))
def test_edits_are_written_as_json_writes_them(found):
    rows = [[e.start, e.end, e.old, e.new, e.attribute] for e in found]

    assert edits_text(found) == json.dumps(rows, ensure_ascii=False)


def test_equal_content_has_equal_bytes_whatever_its_order():
    assert canonical({"b": 1, "a": [None, "é"]}) == canonical({"a": [None, "é"], "b": 1})
    assert canonical({"a": 1}) == b'{"a":1}'


def read(tmp_path, content, encoding="utf-8"):
    path = tmp_path / "a.json"
    path.write_bytes(content.encode(encoding) if isinstance(content, str) else content)
    return read_json(path, error=DataError, missing="Write one.", repair="Export it again.")


@given(st.recursive(values, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_json_is_read_as_it_was_written(content):
    text = json.dumps(content)
    if "\\u0000" not in text:
        read = parse_json(text.encode(), Path("a"), error=DataError, repair="")
        assert read == content


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_byte_order_mark_is_skipped(tmp_path, mark):
    assert read(tmp_path, mark + b'[{"a": 1.5}]') == [{"a": 1.5}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[NaN]", "not valid JSON (NaN is no number of JSON). Export it again."),
        ("[-Infinity]", "not valid JSON (-Infinity is no number of JSON)."),
        ("[1e999]", "not valid JSON (1e999 is too large a number)."),
        ("[" + "9" * 5000 + "]", "not valid JSON ("),
        ("[" + "9" * 30 + "]", "has more than 64 bits)."),
        ('{"a": 1, "a": 2}', "not valid JSON (the key 'a' stands twice). Export it again."),
        ('[["\\ud800"]]', "not valid JSON ('\\ud800' holds the character NUL or half of a"),
        ('{"\\udfff": 1}', "holds the character NUL or half of a surrogate pair)."),
        ('["a\\u0000b"]', "not valid JSON ('a\\x00b' holds the character NUL"),
        ("[" * 100_000, "nested too deeply. Flat rows are expected. Export it again."),
        ("[" * 60 + "]" * 60, "nested too deeply."),
        ('{"a":' * 60 + "1" + "}" * 60, "nested too deeply."),
        ("", "not valid JSON (Expecting value: line 1 column 1 (char 0))."),
        ("[1,]", "not valid JSON ("),
        ("[1] [2]", "not valid JSON (Extra data"),
        ("['a']", "not valid JSON ("),
        (b"[\xff]", "cannot be read as UTF-8 text (byte 1: invalid start byte). UTF-8 is needed."),
        ('["é"]'.encode("utf-16"), "it begins like UTF-16). UTF-8 is needed. Save the file in"),
    ],
)  # fmt: skip
def test_json_that_breaks_readers_is_refused(tmp_path, content, message):
    with pytest.raises(DataError, match="^" + re.escape(f"{tmp_path / 'a.json'}: ")) as caught:
        read(tmp_path, content)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_pair_of_surrogates_is_one_character(tmp_path):
    assert read(tmp_path, r'["\ud83d\ude00"]') == ["\U0001f600"]


def test_a_missing_file_says_what_to_do(tmp_path):
    with pytest.raises(DataError, match=r"none\.json: no such file\. Write one\."):
        read_json(tmp_path / "none.json", error=DataError, missing="Write one.", repair="")


def test_a_file_beyond_its_limit_is_refused(tmp_path):
    with (tmp_path / "a").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(DataError, match=r"a: has more than 1,000 bytes\. At most so many are"):
        read_bytes(tmp_path / "a", most=1000, error=DataError, missing="")
