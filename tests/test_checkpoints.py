"""A file's content decides how it is read; what is read fits a model or says why not."""

import json
import re
from collections import OrderedDict

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from harness.checkpoints import fit, load_into, read_tensors
from harness.errors import CheckpointError

STATE = OrderedDict(
    [("net.weight", torch.arange(6.0).reshape(2, 3)), ("net.bias", torch.tensor([1.0, -1.0]))]
)


def refused(path, text, **keys):
    with pytest.raises(CheckpointError, match=re.escape(text)) as caught:
        read_tensors(path, **keys)
    assert str(caught.value).startswith(str(path))


def same(read, expected):
    return set(read) == set(expected) and all(torch.equal(read[k], v) for k, v in expected.items())


@pytest.mark.parametrize("name", ["a.safetensors", "a.bin", "a.ckpt", "a"])
def test_the_content_decides_not_the_name(tmp_path, name):
    """The hub's cache keeps files under their hashes, and suffixes lie."""
    path = tmp_path / name
    save_file(dict(STATE), path)
    assert same(read_tensors(path), STATE)
    for old in (False, True):
        torch.save(dict(STATE), path, _use_new_zipfile_serialization=not old)
        assert same(read_tensors(path), STATE)


def test_files_that_are_no_checkpoints_say_so(tmp_path):
    (tmp_path / "text.ckpt").write_text("these are not the weights you are looking for")
    (tmp_path / "empty.ckpt").touch()
    (tmp_path / "page.bin").write_text("<!DOCTYPE html><html>Sign in to download</html>")
    (tmp_path / "broken.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}")
    (tmp_path / "empty.safetensors").touch()

    for name in ("text.ckpt", "empty.ckpt", "page.bin"):
        refused(tmp_path / name, "neither safetensors nor a file that torch.save wrote. One of")
    for name in ("broken.safetensors", "empty.safetensors"):
        refused(tmp_path / name, "not a whole safetensors file")
    refused(tmp_path / "absent.pt", "no such file or folder")


def test_a_file_that_cannot_be_read_says_so(tmp_path, monkeypatch):
    save_file(dict(STATE), tmp_path / "a.safetensors")

    def denied(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", denied)
    text = "the file cannot be read (Permission denied). It must be readable to the end. Check its"
    refused(tmp_path / "a.safetensors", text)


def shard(folder, files, weight_map=None):
    """A folder of shards with their index."""
    for name, state in files.items():
        write = save_file if name.endswith(".safetensors") else torch.save
        write(state, folder / name)
    keys = {key: name for name, state in files.items() for key in state}
    index = {"metadata": {"total_size": 32}, "weight_map": weight_map or keys}
    kind = (
        "model.safetensors" if any("safetensors" in name for name in files) else "pytorch_model.bin"
    )
    (folder / f"{kind}.index.json").write_text(json.dumps(index))
    return folder / f"{kind}.index.json"


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_shards_are_read_as_one_model(tmp_path, suffix):
    first, second = ({key: value} for key, value in STATE.items())
    index = shard(tmp_path, {f"m-1-of-2.{suffix}": first, f"m-2-of-2.{suffix}": second})

    assert same(read_tensors(tmp_path), STATE)
    assert same(read_tensors(index), STATE)
    assert same(read_tensors(tmp_path, under="net"), {k[4:]: v for k, v in STATE.items()})


def test_shards_and_index_must_belong_together(tmp_path):
    first, second = ({key: value} for key, value in STATE.items())
    names = {"m-1.safetensors": first, "m-2.safetensors": second}
    shard(tmp_path, names, weight_map=dict.fromkeys(STATE, "m-1.safetensors"))
    text = f"{tmp_path / 'm-1.safetensors'}: the shard lacks 'net.bias', which the index says"
    with pytest.raises(CheckpointError, match=re.escape(text)):
        read_tensors(tmp_path)

    (tmp_path / "m-2.safetensors").write_bytes(b"cut")
    shard_map = dict(zip(STATE, names, strict=True))
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shard_map}))
    text = f"{tmp_path / 'm-2.safetensors'}: not a whole safetensors file"
    with pytest.raises(CheckpointError, match=re.escape(text)):
        read_tensors(tmp_path)


WHOLE = {
    "clip.text.weight": torch.ones(2),
    "decoder.film.weight": torch.full((3,), 2.0),
    "decoder.layers.0.bias": torch.full((1,), 3.0),
    "decoder_extra.bias": torch.ones(1),
}
DECODER = {
    "film.weight": WHOLE["decoder.film.weight"],
    "layers.0.bias": WHOLE["decoder.layers.0.bias"],
}


@pytest.mark.parametrize("under", ["decoder", "decoder."])
@pytest.mark.parametrize("wrapper", ["", "net.", "net.clipseg.", "a.b.c.d."])
def test_one_part_of_a_model_is_read(tmp_path, wrapper, under):
    state = {wrapper + key: value for key, value in WHOLE.items()}
    save_file(state, tmp_path / "a.safetensors")
    torch.save({"state_dict": state}, tmp_path / "a.ckpt")

    for name in ("a.safetensors", "a.ckpt"):
        assert same(read_tensors(tmp_path / name, under=under), DECODER)
    film = read_tensors(tmp_path / "a.ckpt", under=f"{under.rstrip('.')}.film")
    assert same(film, {"weight": WHOLE["decoder.film.weight"]})


def test_of_several_such_parts_the_largest_is_meant(tmp_path):
    state = {f"net.{key}": value for key, value in WHOLE.items()}
    save_file(state | {"loss.decoder.weight": torch.zeros(1)}, tmp_path / "a.safetensors")

    assert same(read_tensors(tmp_path / "a.safetensors", under="decoder"), DECODER)


def test_the_rest_of_the_file_is_not_read(tmp_path):
    """Only the part's numbers are there: the others cannot have been looked at."""
    torch.save(
        {"decoder.a": torch.ones(3), "encoder.b": torch.ones(1).expand(9)}, tmp_path / "a.pt"
    )

    assert read_tensors(tmp_path / "a.pt", under="decoder")["a"].tolist() == [1, 1, 1]
    refused(tmp_path / "a.pt", "a tensor of 9 numbers in a block of 1")


def test_a_part_that_is_not_there_is_said(tmp_path):
    save_file(WHOLE, tmp_path / "a.safetensors")
    text = (
        "no tensor lies under 'head'; the file has 4 keys, first 'clip.text.weight', "
        "'decoder.film.weight', 'decoder.layers.0.bias'. A model with that part is needed. Give"
    )
    refused(tmp_path / "a.safetensors", text, under="head.")


names = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map(".".join)


@given(
    wrapper=st.sampled_from(["", "net.", "net.model."]),
    part=st.sets(names, min_size=1),
    rest=st.sets(names),
)
def test_a_part_is_its_keys_without_their_beginning(tmp_path_factory, wrapper, part, rest):
    path = tmp_path_factory.mktemp("part") / "a.safetensors"
    keys = [*(f"{wrapper}dec.{key}" for key in part), *(wrapper + key for key in rest)]
    save_file({key: torch.zeros(1) for key in keys}, path)

    assert set(read_tensors(path, under="dec")) == part


@pytest.mark.parametrize("prefix", ["", "net.", "module.", "model.net.", "state_dict.a.b."])
def test_a_wrappers_prefix_is_taken_off(prefix):
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    wanted = module.state_dict()

    fitted = fit(module, {prefix + key: value for key, value in wanted.items()}, where="x")

    assert list(fitted) == list(wanted)
    assert all(fitted[key] is wanted[key] for key in wanted)


def test_buffers_that_are_not_saved_may_stand_in_old_files():
    module = torch.nn.Linear(2, 2)
    module.register_buffer("position_ids", torch.arange(2), persistent=False)
    given = {f"net.{k}": v for k, v in module.state_dict().items()}

    fitted = fit(module, given | {"net.position_ids": torch.arange(9)}, where="x")

    assert set(fitted) == {"weight", "bias"}


def refused_fit(module, tensors, message):
    with pytest.raises(CheckpointError, match="^" + re.escape(message) + "$"):
        fit(module, tensors, where="a.ckpt")


def test_a_misfit_names_the_first_key_of_each_kind():
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))
    tensors = {
        "net.0.weight": torch.ones(4, 2),
        "net.0.bias": torch.ones(3),
        "net.1.scale": torch.ones(3),
        "loss.weight": torch.ones(1),
    }
    message = (
        "a.ckpt: the checkpoint does not fit the model: 2 missing, first '1.weight'; "
        "2 unexpected, first '1.scale'; 1 mis-shaped, first '0.weight' (4, 2) instead of (3, 2). "
        "All 4 keys must be there in the model's shapes. Give the card whose settings the "
        "checkpoint was trained with."
    )
    with pytest.raises(CheckpointError, match="^" + re.escape(message) + "$"):
        fit(module, tensors, where="a.ckpt")


def test_another_size_of_the_same_architecture_is_told():
    module = torch.nn.Linear(2, 3)
    message = (
        "a.ckpt: the checkpoint does not fit the model: 2 mis-shaped, first 'weight' (5, 2) "
        "instead of (3, 2). Every key is there: it is the same architecture in another size. "
        "All 2 keys must be there in the model's shapes. Give the card whose settings the "
        "checkpoint was trained with."
    )
    refused_fit(module, torch.nn.Linear(2, 5).state_dict(), message)


def test_another_model_is_named(monkeypatch):
    known = {"blue": ("tower.b", "head.b"), "red": ("tower.r", "head.r")}
    monkeypatch.setattr("harness.likeness.fingerprints", lambda: known)
    given = {f"net.{key}": torch.ones(1) for key in ("tower.r", "head.r", "neck.x")}
    message = (
        "a.ckpt: the checkpoint does not fit the model: 2 missing, first 'weight'; 3 unexpected, "
        "first 'net.tower.r'. Its keys look like the model 'red'. All 2 keys must be there in the "
        "model's shapes. Give the card whose settings the checkpoint was trained with."
    )
    refused_fit(torch.nn.Linear(2, 2), given, message)


def test_loading_fills_the_module_and_refuses_what_is_not_finite(tmp_path):
    module = torch.nn.Linear(3, 2)
    torch.save({"state_dict": STATE}, tmp_path / "good.ckpt")
    load_into(module, tmp_path / "good.ckpt")
    assert torch.equal(module.weight, STATE["net.weight"])

    torch.save(
        {"state_dict": STATE | {"net.bias": torch.tensor([1.0, torch.nan])}}, tmp_path / "nan.ckpt"
    )
    with pytest.raises(CheckpointError, match=r"the tensor 'bias' holds numbers that are not fin"):
        load_into(module, tmp_path / "nan.ckpt")
    assert torch.equal(module.bias, STATE["net.bias"])
