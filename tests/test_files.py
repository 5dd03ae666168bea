"""YAML is read with its lines, nothing in it is executed, no path leaves its root."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.cards import Strict
from harness.errors import CardError, DataError, SuiteError
from harness.files import inside, read_yaml, shipped, validate


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
        ("a: !!python/object/apply:os.system [id]\n", "a.yaml:1: not valid YAML"),
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
    stays = not Path(name).is_absolute() and (root / name).resolve().is_relative_to(root.resolve())
    if stays:
        assert inside(root, name, where="row 1").is_relative_to(root.resolve())
        return
    with pytest.raises(DataError, match=re.escape(f"row 1: the path {name!r} leaves the folder")):
        inside(root, name, where="row 1")


@pytest.mark.parametrize("kind", ["models", "suites"])
def test_shipped_folders_are_found(kind):
    assert list(shipped(kind).rglob("*.yaml"))
