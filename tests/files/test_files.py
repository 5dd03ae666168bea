"""YAML is read with its lines, nothing in it is executed, no path leaves its root."""

import os
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from harness.cards import Strict, load_model_card
from harness.errors import CardError, DataError, SuiteError
from harness.files import inside, leaves, parse_yaml, read_yaml, shipped, validate


class Inner(Strict):
    attribute: str


class Outer(Strict):
    name: str
    parts: list[Inner] = []
    by_name: dict[str, Inner] = {}


def write(tmp_path, text):
    path = tmp_path / "a.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def refused(path, message, error=CardError):
    with pytest.raises(error, match=re.escape(message)):
        validate(read_yaml(path, error=error), Outer, error=error)


def test_a_good_file_is_read(tmp_path):
    path = write(tmp_path, "name: x\nparts:\n  - {attribute: size}\n")
    assert validate(read_yaml(path), Outer) == Outer(name="x", parts=[Inner(attribute="size")])


def test_an_unknown_key_is_answered_with_line_and_nearest(tmp_path):
    path = write(tmp_path, "name: x\nparts:\n  - {attribute: size}\n  - {atribute: size}\n")
    refused(
        path,
        f"{path}:4: parts[1].atribute: unknown key. Did you mean 'attribute'? "
        "Known keys: 'attribute'.",
    )


def test_an_unknown_key_below_a_named_part_is_found(tmp_path):
    path = write(tmp_path, "name: x\nby_name:\n  a:\n    attribut: size\n")
    refused(path, f"{path}:4: by_name.a.attribut: unknown key. Did you mean 'attribute'?")


def test_a_missing_key_is_named(tmp_path):
    refused(write(tmp_path, "parts: []\n"), "a.yaml:1: name: the key is missing. Add it.")


def test_all_mistakes_come_in_one_message(tmp_path):
    with pytest.raises(SuiteError) as caught:
        validate(read_yaml(write(tmp_path, "nam: 1\nparts: 3\n")), Outer, error=SuiteError)
    assert len(str(caught.value).splitlines()) == 3


def test_a_wrong_kind_says_what_was_found(tmp_path):
    refused(write(tmp_path, "name: [1]\n"), "a.yaml:1: name: found [1]. ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: x\nname: y\n", "a.yaml:2: the key 'name' stands twice (first on line 1)."),
        ("a: &x 1\nb: *x\n", "a.yaml:2: the alias '*x'. Anchors and aliases are not allowed"),
        ("a: !!python/object/apply:os.system [id]\n", "a.yaml:1: the tag "),
        ("a: [1\n", "not valid YAML"),
        ("- 1\n", "a.yaml:1: found list. The file must hold keys and values."),
        ("", "a.yaml:1: found NoneType."),
    ],
)
def test_broken_or_hostile_yaml_is_refused(tmp_path, text, message):
    refused(write(tmp_path, text), message)


def test_a_missing_file_says_what_to_give(tmp_path):
    refused(tmp_path / "none.yaml", "none.yaml: no such file. Give the name of a built-in or")


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    refused(path, "a.yaml: cannot be read as UTF-8 text")


names = st.text(st.sampled_from("ab./\\ ~"), min_size=1, max_size=12)


@given(names)
def test_no_name_leaves_its_root(tmp_path_factory, name):
    root = tmp_path_factory.getbasetemp() / "root"
    stays = not leaves(name) and (root / name).resolve().is_relative_to(root.resolve())
    if stays:
        assert inside(root, name, where="row 1").is_relative_to(root.resolve())
        return
    with pytest.raises(DataError, match=re.escape(f"row 1: the path {name!r} leaves the folder")):
        inside(root, name, where="row 1")


@pytest.mark.parametrize("kind", ["models", "suites"])
def test_shipped_folders_are_found(kind):
    assert list(shipped(kind).rglob("*.yaml"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 2001-99-99", ":1: the value '2001-99-99' reads like a value of the kind 'timestamp' "
         "and is none. Correct it, or put quotes around it where a text is meant."),
        ("x: 1\na:\n- 2001-02-03 25:61:61", ":3: the value '2001-02-03 25:61:61' reads like"),
        ("a: " + "9" * 5000, "of the kind 'int' and is none"),
        ("a: " + "9" * 30, f":1: the value '{'9' * 30}' has more than 64 bits. Correct it"),
        ("a: 0b_", ":1: the value '0b_' reads like a value of the kind 'int' and is none."),
        ("a: !!int x", ":1: the tag 'tag:yaml.org,2002:int'. Tags are not allowed here. Write"),
        ("a: !!float ''", ":1: the tag"),
        ("a: !!timestamp x", ":1: the tag"),
        ("a: !!binary x", ":1: the tag"),
        ("a: !own {b: 1}", ":1: the tag '!own'."),
        ('a: "b\\0c"', ":1: the value 'b\\x00c' holds the character NUL or half of a surrogate"),
        ('a: "\\ud800"', ":1: the value '\\ud800' holds the character NUL or half of a surrogate"),
        ('"a\\0": 1', ":1: the value 'a\\x00' holds the character NUL"),
        ("a: {b: 1}\nc:\n  <<: {d: 1}", ":3: the key '<<'. Keys are not merged here."),
        ("a: &x 1", None),
        ("1: a", ":1: the key '1' is no text. Keys are texts. Put it between quotes."),
        ("? [a]\n: b", ":1: the key [ScalarNode"),
        ("? {a: b}\n: b", "is no text. Keys are texts."),
        ("a: 1\n'a': 2", ":2: the key 'a' stands twice (first on line 1)."),
        ("a: " + "[" * 5000, ":1: nested too deeply. At most 40 lists and mappings may lie within"),
        ("a: " + "{b: " * 5000, ":1: nested too deeply."),
        ("a:\n  " + "- " * 5000 + "a", ":2: nested too deeply."),
        ("a:\n" + "".join(f"{' ' * n}b:\n" for n in range(1, 300)), ":41: nested too deeply."),
        ("a:\n\t- 1", ":2: not valid YAML (found character '\\t' that cannot start any token)."),
        ("a: b\n--- \na: c", "not valid YAML (but found another document)"),
        ("a: \x07", ":1: not valid YAML (special characters are not allowed)"),
        ("just text", "found str. The file must hold keys and values."),
        ("3", "found int. The file must hold keys and values."),
    ],
)  # fmt: skip
def test_yaml_that_breaks_readers_is_refused_with_its_line(tmp_path, text, message):
    path = write(tmp_path, text)
    if message is None:
        assert read_yaml(path).data == {"a": 1}
        return
    with pytest.raises(SuiteError) as caught:
        read_yaml(path, error=SuiteError)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 600


def test_a_wide_flat_file_is_read(tmp_path):
    text = "a: [" + ", ".join("[1]" for _ in range(2000)) + "]"
    assert len(read_yaml(write(tmp_path, text)).data["a"]) == 2000


def test_a_byte_order_mark_is_skipped(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_bytes(b"\xef\xbb\xbfname: x\n")
    assert read_yaml(path).data == {"name": "x"}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "latin-1"])
def test_another_encoding_is_named(tmp_path, encoding):
    path = tmp_path / "a.yaml"
    path.write_bytes("name: é\n".encode(encoding))
    with pytest.raises(CardError, match=r"a\.yaml(:1: not valid YAML|: cannot be read as UTF-8)"):
        read_yaml(path)


def test_utf_16_is_told(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_bytes("name: é\n".encode("utf-16"))
    refused(path, "byte 0: invalid start byte: it begins like UTF-16). UTF-8 is needed. Save the")


def test_a_file_that_is_too_large_is_refused(tmp_path):
    path = tmp_path / "a.yaml"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # sparse
    refused(path, f"{path}: has more than 4,194,304 bytes. At most so many are read.")


@pytest.mark.parametrize("name", [".", "x" * 300 + ".yaml"])
def test_what_is_no_file_is_refused(tmp_path, name):
    refused(tmp_path / name, "cannot be read (")


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.yaml")
    refused(tmp_path / "a.yaml", "a.yaml: found a pipe. A plain file is needed. Put one there.")


def test_a_key_with_a_line_end_stays_on_its_line(tmp_path):
    path = write(tmp_path, '"x\\n::error::y": 1\n')
    with pytest.raises(CardError) as caught:
        validate(read_yaml(path), Outer)
    first, _ = str(caught.value).split("\n")  # the other one is of the missing name
    assert first.startswith(f"{path}:1: name: the key") or "'x\\n::error::y': unknown" in first


def test_a_long_value_is_cut(tmp_path):
    with pytest.raises(CardError) as caught:
        validate(read_yaml(write(tmp_path, f"name: [{'x' * 10_000}]\n")), Outer)
    assert len(str(caught.value)) < 500


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=5), values, max_size=4))
def test_plain_values_are_read_as_pyyaml_reads_them(tmp_path_factory, data):
    text = yaml.safe_dump(data, allow_unicode=True, sort_keys=False)
    if "\\0" in text:
        return
    assert parse_yaml(text.encode(), Path("a.yaml")).data == yaml.safe_load(text)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../x", "the path '../x' leaves the folder"),
        ("/etc/passwd", "the path '/etc/passwd' leaves the folder"),
        ("..\\..\\x", r"the path '..\\..\\x' leaves the folder"),
        ("C:\\x", r"the path 'C:\\x' leaves the folder"),
        ("C:/x", "the path 'C:/x' leaves the folder"),
        ("\\\\host\\x", "leaves the folder"),
        ("a\0b", r"the path 'a\x00b' holds the character NUL. A path that this system can hold"),
        ("a\ud800", r"the path 'a\ud800' holds half of a surrogate pair."),
        ("a/" + "b" * 300, "holds a name of more than 255 bytes, or has more than 3000."),
        ("é" * 200, "holds a name of more than 255 bytes"),
        ("a/" * 3000, "holds a name of"),
    ],
)
def test_a_path_that_no_folder_holds_is_refused(tmp_path, name, message):
    with pytest.raises(DataError, match="^row 1: ") as caught:
        inside(tmp_path, name, where="row 1")
    assert message in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("line", ["weights: {path: %s}", "checkpoint: {path: %s}"])
@pytest.mark.parametrize("name", ["a" * 300, '"a/%s"' % ("b" * 256), "x/" * 2000])
def test_a_model_card_names_files_that_a_disk_can_hold(tmp_path, line, name):
    path = write(tmp_path, "extends: clipseg\nname: mine\n" + line % name)
    with pytest.raises(CardError) as caught:
        load_model_card(path)
    assert str(caught.value).startswith(f"{path}:3: {line.partition(':')[0]}.path: found '")
    assert "name a file that a disk can hold" in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("value", [".inf", "-.inf", ".nan", "1e999"])
def test_numbers_are_finite(tmp_path, value):
    class Number(Strict):
        value: float

    path = write(tmp_path, f"value: {value}")
    with pytest.raises(CardError, match=re.escape(f"{path}:1: value: found ")):
        validate(read_yaml(path), Number)


@pytest.mark.parametrize("settings", ["text", "[1]", "3"])
@pytest.mark.parametrize("of", ["base.yaml", "card.yaml"])
def test_settings_that_are_no_mapping_are_refused(tmp_path, settings, of):
    """Also those of the card that is extended, which the extending card would hide."""
    strange = f"settings: {settings}\n"
    own = {"base.yaml": "extends: clipseg\n", "card.yaml": "extends: base.yaml\nname: mine\n"}
    for name, text in own.items():
        rest = strange if name == of else "settings: {depth: 1}\n"
        (tmp_path / name).write_text(text + rest)
    with pytest.raises(CardError, match=r"settings: found .* should be a valid dictionary"):
        load_model_card(tmp_path / "card.yaml")


def test_a_text_in_place_of_a_mapping_is_answered_with_the_form(tmp_path):
    from harness.errors import SuiteError
    from harness.suite.schema import load_suite

    path = tmp_path / "mine.yaml"
    path.write_text(
        "name: mine\ntitle: M\ndatasets: [polyps/card.yaml]\nprobes: [empty]\ntables: [x.csv]\n",
        encoding="utf-8",
    )
    with pytest.raises(SuiteError) as refused:
        load_suite(path)
    assert str(refused.value).splitlines() == [
        f"{path}:3: datasets[0]: found 'polyps/card.yaml'. A mapping is needed. Write "
        "`{name: polyps/card.yaml}`.",
        f"{path}:4: probes[0]: found 'empty'. A mapping is needed. Write "
        "`{name: empty, perturbation: '...'}`.",
        f"{path}:5: tables[0]: found 'x.csv'. A mapping is needed. Write "
        "`{dataset: '...', file: x.csv}`.",
    ]
