"""Content is written in one way, also where it is joined from parts."""

import json

from hypothesis import given
from hypothesis import strategies as st

from harness.canonical import canonical, edits_text, object_of, scalar, scalars
from harness.records import Edit

values = st.none() | st.integers() | st.text()
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
