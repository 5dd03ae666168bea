"""A pickle is read as data: its values are Python's own, and it can do nothing."""

import io
import pickle
import sys
from collections import OrderedDict

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from harness.files.pickles import DAMAGE, Name, Unknown, read_pickle

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
scalars = st.none() | st.booleans() | st.integers() | st.text() | st.binary()
scalars |= st.floats(allow_nan=False)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text(), inner)
        | inner.map(lambda value: [value, value])  # shared, hence through the memo
    ),
)


def read(data, builders=None, persistent=lambda pid: ("persistent", pid)):
    return read_pickle(io.BytesIO(data), builders=builders or {}, persistent=persistent)


@given(value=values, protocol=st.sampled_from(PROTOCOLS))
def test_plain_values_come_back(value, protocol):
    assume(protocol > 2 or not _has_bytes(value))  # before, bytes are a call, and none is made

    assert read(pickle.dumps(value, protocol)) == value


def _has_bytes(value):
    if isinstance(value, dict):
        return any(map(_has_bytes, value.values()))
    return isinstance(value, bytes) or (
        isinstance(value, list | tuple) and any(map(_has_bytes, value))
    )


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_several_pickles_follow_each_other(protocol):
    stream = io.BytesIO(b"".join(pickle.dumps(v, protocol) for v in ([1], "two", {"k": 3.0})))
    read_next = [read_pickle(stream, builders={}, persistent=repr) for _ in range(3)]

    assert read_next == [[1], "two", {"k": 3.0}]
    assert stream.read() == b""


def test_of_the_keys_of_a_dictionary_texts_are_kept():
    assert read(pickle.dumps({"a": 1, 2: "b", (3,): "c", None: "d", b"e": 4})) == {"a": 1}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_is_called_is_the_callers_own(protocol):
    builders = {("collections", "OrderedDict"): lambda *_: {}}
    assert read(pickle.dumps(OrderedDict(a=1), protocol), builders) == {"a": 1}

    made = {("builtins", "set"): lambda items: ("set of", items)}
    made[("__builtin__", "set")] = made["builtins", "set"]
    if protocol < 4:  # later protocols have an opcode for sets
        assert read(pickle.dumps({1}, protocol), made) == ("set of", [1])


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_everything_else_is_unknown_and_says_what_it_was(protocol):
    found = read(pickle.dumps({"range": range(3), "set": {1}, "frozen": frozenset([2])}, protocol))
    module = "builtins" if protocol > 2 else "__builtin__"
    maker = Name(module, "xrange" if protocol == 2 else "range")

    assert found["range"] == Unknown(maker)
    assert isinstance(found["set"], Unknown)
    assert isinstance(found["frozen"], Unknown)


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"cos\nsystem\n.", Name("os", "system")),
        (b"\x8c\x02os\x8c\x06system\x93.", Name("os", "system")),
        (b"cos\nsystem\n(S'touch x'\ntR.", Unknown(Name("os", "system"))),
        (b"(S'touch x'\nios\nsystem\n.", Unknown(Name("os", "system"))),
        (b"(cos\nsystem\nS'touch x'\no.", Unknown(Name("os", "system"))),
        (b"\x80\x02cos\nsystem\n(t\x81.", Unknown(Name("os", "system"))),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93)}\x92.", Unknown(Name("os", "system"))),
        (b"cany\nthing\n}S'__call__'\nI1\nsb.", Name("any", "thing")),  # BUILD is forgotten
        (b"\x82\x01.", Unknown()),  # EXT1: the process-wide registry
        (b"\x80\x05\x97.", Unknown()),  # NEXT_BUFFER: the caller's
        (b"\x80\x05\x96\x02\0\0\0\0\0\0\0ab.", bytearray(b"ab")),
        (b"Pan id\n.", ("persistent", "an id")),
        (b"S'an id'\nQ.", ("persistent", "an id")),
        (b"I1\nI2\n0.", 1),  # POP
        (b"I1\n(I2\n1.", 1),  # POP_MARK
        (b"I1\n2\x86.", (1, 1)),  # DUP
        (b"N\x8c\x01k\x93.", Unknown()),  # a name that is no text
    ],
)
def test_opcode_by_opcode(data, value):
    assert read(data) == value


def test_a_table_of_a_billion_places_is_not_made():
    """LONG_BINPUT at 2**32 - 1: Python's own machine would take 32 GB for its memo."""
    assert read(b"\x80\x02Nr\xff\xff\xff\xff.") is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"N",  # no STOP
        b".",  # nothing on the stack
        b"0.",
        b"a.",
        b"s.",
        b"u.",
        b"\x85.",
        b"h\x00.",  # a memo that was never written
        b"}(S'odd'\nu.",
        b"\xff.",
        b"I" + b"9" * 5000 + b"\n.",  # more digits than Python converts
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",  # BINBYTES8 of 2**63 - 1 bytes
        b"\x8b\xff\xff\xff\x7f.",  # LONG4 of 2 GB
    ],
)
def test_damage_is_an_error_of_the_known_kinds(data):
    with pytest.raises(DAMAGE):
        read(data)


def outcome(data):
    try:
        read(data)
    except DAMAGE:
        return "damage"
    return "a value"


@given(st.binary(max_size=80))
def test_any_bytes_give_a_value_or_a_known_error(data):
    assert outcome(data + b".") in {"a value", "damage"}


OPCODES = list(b"()]}abdeghlopqstu012N\x85\x86\x87\x88\x8f\x90\x91\x94")


@given(st.lists(st.sampled_from(OPCODES), max_size=60))
def test_any_program_gives_a_value_or_a_known_error(opcodes):
    assert outcome(bytes(opcodes) + b".") in {"a value", "damage"}


@pytest.mark.parametrize("n", [60, 200_000])
def test_depth_and_sharing_cost_no_more_than_their_bytes(n):
    """Hashed, printed or compared they would take 2**60 steps, or end the process."""
    shared = read(b"}(" + b")" + b"2\x86" * n + b"NS'good'\nI1\nu.")
    nested = read(b"}(" + b")" + b"\x85" * n + b"NS'good'\nI1\nu.")

    assert shared == nested == {"good": 1}


def test_nothing_is_imported():
    assert "this" not in sys.modules
    read(b"cthis\ns\n(S'x'\ntR.")
    assert "this" not in sys.modules
