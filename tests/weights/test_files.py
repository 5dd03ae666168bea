"""A path means one model's files; which ones is never a guess."""

import hashlib
import json
import os
import re
import subprocess

import pytest

from harness.errors import CheckpointError
from harness.weights.files import FOLDER_FILES, file_sha256, weight_files, weights_sha256


def refused(path, text):
    with pytest.raises(CheckpointError, match="^" + re.escape(f"{path}: {text}")):
        weight_files(path)


def index(folder, weight_map, name="model.safetensors.index.json"):
    (folder / name).write_text(json.dumps({"weight_map": weight_map}))
    return folder / name


def test_hash_of_a_file(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, B.1
    assert file_sha256(tmp_path / "a.bin") == weights_sha256(tmp_path) == known


@pytest.mark.parametrize("name", FOLDER_FILES)
def test_the_hubs_names_are_known(tmp_path, name):
    (tmp_path / "shard-1.safetensors").touch()
    (tmp_path / "training_args.bin").touch()
    if name.endswith(".index.json"):
        index(tmp_path, {"a": "shard-1.safetensors"}, name)
        assert weight_files(tmp_path).paths == (tmp_path / "shard-1.safetensors",)
    else:
        (tmp_path / name).touch()
        assert weight_files(tmp_path) == ((tmp_path / name,), None)


def test_the_best_of_several_names_is_taken(tmp_path):
    for name in (n for n in reversed(FOLDER_FILES) if not n.endswith(".json")):
        (tmp_path / name).touch()
        assert weight_files(tmp_path).paths == (tmp_path / name,)


def test_a_single_file_of_any_name_is_meant(tmp_path):
    (tmp_path / "config.json").touch()
    (tmp_path / "best_model_refcoco.pth").touch()
    assert weight_files(tmp_path).paths == (tmp_path / "best_model_refcoco.pth",)

    (tmp_path / "last.ckpt").touch()
    refused(
        tmp_path,
        "the folder holds 'best_model_refcoco.pth', 'last.ckpt'. Only one of them can be meant. "
        "Give the file's own path.",
    )


def test_what_is_no_file_of_weights_is_said(tmp_path):
    text = "no such file or folder. A file of weights (.safetensors, .ckpt, .pt, .pth, .bin) or a"
    refused(tmp_path / "absent", text)
    refused(tmp_path, "the folder holds nothing. One of 'model.safetensors', 'model.safetensors.in")
    for number in range(11):
        (tmp_path / f"{number:02}.md").touch()
    refused(
        tmp_path, "the folder holds '00.md', '01.md', '02.md', '03.md', '04.md', '05.md', '06.m"
    )
    with pytest.raises(CheckpointError, match=r"'07\.md' and 3 more\. One of"):
        weight_files(tmp_path)


def test_what_is_no_plain_file_is_not_opened(tmp_path):
    """A pipe would wait for ever; a device has no end."""
    os.mkfifo(tmp_path / "model.safetensors")
    (tmp_path / "model.ckpt").symlink_to("/dev/zero")
    refused(tmp_path, "the folder holds 'model.ckpt', 'model.safetensors'. One of")


def test_links_of_a_cache_are_followed(tmp_path):
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "0123").write_bytes(b"abc")
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot" / "model.safetensors").symlink_to("../blobs/0123")

    assert weights_sha256(tmp_path / "snapshot") == hashlib.sha256(b"abc").hexdigest()


def test_the_hash_of_shards_is_that_of_sha256sum(tmp_path):
    for name in ("m-2.safetensors", "m-1.safetensors"):
        (tmp_path / name).write_text(name)
    path = index(tmp_path, {"b": "m-2.safetensors", "a": "m-1.safetensors", "c": "m-1.safetensors"})
    printed = subprocess.run(
        "sha256sum m-*.safetensors | sha256sum",
        shell=True,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    assert weights_sha256(tmp_path) == weights_sha256(path) == printed.split()[0]
    files = weight_files(tmp_path)
    assert [p.name for p in files.paths] == ["m-1.safetensors", "m-2.safetensors"]
    assert {k: p.name for k, p in files.file_of.items()} == {
        "b": "m-2.safetensors",
        "a": "m-1.safetensors",
        "c": "m-1.safetensors",
    }


@pytest.mark.parametrize(
    "name",
    [
        "../x.safetensors",
        "/etc/x.safetensors",
        "a/b.safetensors",
        "..\\x.safetensors",
        "x.py",
        "..",
    ],
)
def test_an_index_names_files_beside_it_only(tmp_path, name):
    (tmp_path.parent / "x.bin").touch()
    path = index(tmp_path, {"a.weight": name})
    text = f"weight_map: 'a.weight' lies in {name!r}. The name of a file of weights in the same"
    refused_at(path, tmp_path, text)


def refused_at(place, given, text):
    with pytest.raises(CheckpointError, match="^" + re.escape(f"{place}: {text}")):
        weight_files(given)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"weight_map": 3}', "[" * 100_000, '{"weight_map": ["a"]}']
)
def test_a_broken_index_is_said(tmp_path, content):
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(content)
    refused_at(path, tmp_path, "not an index of shards (")


def test_shards_that_are_not_there_are_said(tmp_path):
    (tmp_path / "m-1.safetensors").touch()
    path = index(tmp_path, {"a": "m-1.safetensors", "b": "m-2.safetensors"})
    refused_at(path, tmp_path, "1 of 2 shards are not there, first 'm-2.safetensors'. All that the")
    path = index(tmp_path, {})
    refused_at(path, tmp_path, "0 of 0 shards are not there, first None. All that the index names")
