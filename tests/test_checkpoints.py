"""Files of weights are read without executing anything, and fit or say why not."""

import contextlib
import io
import json
import pickle
import re
import struct
import zipfile
from collections import OrderedDict

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from harness.archives import Inert, read_archive
from harness.checkpoints import file_sha256, fit, load_into, read_tensors, weights_file
from harness.errors import CheckpointError

STATE = OrderedDict(
    [("net.weight", torch.arange(6.0).reshape(2, 3)), ("net.bias", torch.tensor([1.0, -1.0]))]
)


class Bomb:
    """Pickles as a call: unpickling it for real would create a file."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        import os

        return os.system, (f"touch {self.marker}",)


class StateBomb:
    """Its ``__setstate__`` creates a file when the pickle is loaded for real."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __getstate__(self):
        return {"marker": self.marker}

    def __setstate__(self, state):
        open(state["marker"], "w").close()


class EvalBomb:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return eval, (f"open({str(self.marker)!r}, 'w')",)


def refused(path, text):
    with pytest.raises(CheckpointError, match=re.escape(text)) as caught:
        read_tensors(path)
    assert str(caught.value).startswith(str(path))


def archive(path, data, *, entries=(), compression=zipfile.ZIP_STORED, root="archive"):
    """A zip file in torch's format around the given pickle."""
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr(f"{root}/data.pkl", data)
        for name, content in entries:
            file.writestr(f"{root}/{name}", content)
    return path


def test_reads_what_the_reference_wrote(shared_reference):
    folder = shared_reference / "golden" / "checkpoint"
    facts = json.loads((folder / "lightning_toy.json").read_text())

    tensors = read_tensors(folder / "lightning_toy.ckpt")

    assert {k: list(v.shape) for k, v in tensors.items()} == facts["state_dict_keys"]
    assert float(tensors["net.bn.running_var"]) == pytest.approx(0.9382, abs=1e-4)
    assert int(tensors["net.bn.num_batches_tracked"]) == 1


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.bool]
)
def test_every_dtype_survives(tmp_path, dtype):
    tensor = torch.tensor([[0, 1, 1], [1, 0, 1]]).to(dtype)
    torch.save({"state_dict": {"a": tensor}}, tmp_path / "a.ckpt")

    read = read_tensors(tmp_path / "a.ckpt")["a"]

    assert read.dtype == dtype
    assert torch.equal(read, tensor)


def test_views_parameters_and_scalars_survive(tmp_path):
    base = torch.arange(24.0).reshape(4, 6)
    state = {
        "transposed": base.T,
        "slice": base[1:3, 2:],
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "scalar": torch.tensor(3),
        "nothing": torch.empty(0, 5),
    }
    torch.save(state, tmp_path / "a.pt")

    read = read_tensors(tmp_path / "a.pt")

    assert set(read) == set(state)
    assert all(torch.equal(read[key], value) for key, value in state.items())


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model"])
def test_the_state_is_found_under_its_usual_names(tmp_path, key):
    torch.save({"epoch": 3, key: STATE, "optimizer": {"m": torch.ones(1)}}, tmp_path / "a.pth")

    assert list(read_tensors(tmp_path / "a.pth")) == list(STATE)


def test_safetensors_folders_and_old_files_are_read(tmp_path):
    save_file(dict(STATE), tmp_path / "model.safetensors")
    torch.save(dict(STATE), tmp_path / "old.bin", _use_new_zipfile_serialization=False)

    for path in (tmp_path, tmp_path / "model.safetensors", tmp_path / "old.bin"):
        assert torch.equal(read_tensors(path)["net.weight"], STATE["net.weight"])
    assert weights_file(tmp_path) == tmp_path / "model.safetensors"


@pytest.mark.parametrize("bomb", [Bomb, StateBomb, EvalBomb])
@pytest.mark.parametrize("place", ["top", "hyper_parameters", "state_dict"])
def test_hostile_pickles_do_nothing(tmp_path, bomb, place):
    marker = tmp_path / "executed"
    evil = bomb(marker)
    content = {"state_dict": dict(STATE), "hyper_parameters": {"lr": 0.1}}
    if place == "top":
        content["callbacks"] = [evil, {"deep": (evil, {1: evil})}]
    else:
        content[place]["evil"] = evil
    torch.save(content, tmp_path / "evil.ckpt")

    tensors = read_tensors(tmp_path / "evil.ckpt")

    assert not marker.exists()
    assert list(tensors) == list(STATE)


def test_the_hostile_pickles_are_live(tmp_path):
    """The test above means something: loaded for real, each of them acts."""
    for bomb in (Bomb, StateBomb, EvalBomb):
        marker = tmp_path / bomb.__name__
        loaded = pickle.loads(pickle.dumps(bomb(marker)))
        if bomb is EvalBomb:
            loaded.close()
        assert marker.exists()


@pytest.mark.parametrize("bomb", [Bomb, StateBomb, EvalBomb])
def test_hostile_plain_and_old_pickles_are_refused(tmp_path, bomb):
    marker = tmp_path / "executed"
    (tmp_path / "plain.ckpt").write_bytes(pickle.dumps({"state_dict": bomb(marker)}))
    torch.save(
        {"state_dict": STATE, "x": bomb(marker)},
        tmp_path / "old.pt",
        _use_new_zipfile_serialization=False,
    )

    for name in ("plain.ckpt", "old.pt"):
        refused(tmp_path / name, "not a checkpoint that can be read without executing it")
    assert not marker.exists()


def test_calling_what_a_stand_in_returns_does_nothing(tmp_path):
    """``getattr(os, 'system')('...')``, written by hand."""
    marker = tmp_path / "executed"
    data = (
        b"\x80\x02}U\nstate_dictcbuiltins\ngetattr\ncos\npath\nU\x06system\x86R"
        + f"U{chr(len(str(marker)) + 6)}touch {marker}".encode()
        + b"\x85Rs."
    )
    refused(archive(tmp_path / "a.ckpt", data), "the archive holds no tensors")
    assert not marker.exists()


def test_stand_ins_cannot_be_changed_by_a_pickle(tmp_path):
    """BUILD on a class itself would otherwise set attributes for every later file."""
    before = dict(vars(Inert))
    data = b"\x80\x02cany\nthing\n}U\x08__call__K\x01sb."

    refused(archive(tmp_path / "a.ckpt", data), "the archive is damaged or cut short")

    assert dict(vars(Inert)) == before


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02"
        + b"N"
        + b"r"
        + struct.pack("<I", 2**32 - 1)
        + b".",  # LONG_BINPUT: memo of 32 GB
        b"\x80\x05\x96" + struct.pack("<Q", 2) + b"ab.",  # BYTEARRAY8 allocates before it reads
        b"\x80\x02\x82\x01.",  # EXT1: the process-wide registry
    ],
)
def test_opcodes_that_reach_out_are_refused(tmp_path, data):
    refused(archive(tmp_path / "a.ckpt", data), "which no checkpoint needs")


def test_tensors_beyond_their_numbers_are_refused(tmp_path):
    torch.save({"a": torch.ones(1).expand(4)}, tmp_path / "expanded.pt")
    refused(tmp_path / "expanded.pt", "a tensor of 4 numbers in a block of 1")


def test_archives_that_could_grow_are_refused(tmp_path):
    data = pickle.dumps({})
    compressed = archive(tmp_path / "a.ckpt", data, compression=zipfile.ZIP_DEFLATED)
    refused(compressed, "the archive is compressed")

    overlapping = tmp_path / "b.ckpt"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("archive/data.pkl", data)
        file.writestr("archive/data/0", b"0" * 5000)
        first = file.infolist()[1]
        for number in range(1, 9):  # eight more names for the same bytes
            double = zipfile.ZipInfo(f"archive/data/{number}")
            double.header_offset, double.file_size = first.header_offset, first.file_size
            double.compress_size, double.CRC = first.compress_size, first.CRC
            file.filelist.append(double)
            file._didModify = True
    overlapping.write_bytes(buffer.getvalue())
    refused(overlapping, "the entries of the archive overlap")


def test_names_in_the_archive_never_become_paths(tmp_path):
    """A storage key that climbs out is looked up among the archive's names, and is not there."""
    torch.save({"a": torch.ones(3)}, tmp_path / "good.pt")
    with zipfile.ZipFile(tmp_path / "good.pt") as file:
        name = next(n for n in file.namelist() if n.endswith("data.pkl"))
        data = file.read(name)
    (tmp_path / "secret").write_bytes(b"0" * 12)
    climbing = data.replace(b"X\x01\x00\x00\x000", b"X\x0c\x00\x00\x00../../secret")
    assert climbing != data

    refused(archive(tmp_path / "evil.pt", climbing), "damaged or cut short")


@given(cut=st.floats(0.01, 0.99))
def test_a_file_cut_short_says_so(tmp_path_factory, cut):
    folder = tmp_path_factory.mktemp("cut")
    torch.save({"state_dict": STATE}, folder / "a.ckpt")
    whole = (folder / "a.ckpt").read_bytes()
    (folder / "a.ckpt").write_bytes(whole[: max(4, int(len(whole) * cut))])

    with pytest.raises(CheckpointError, match="damaged or cut short"):
        read_tensors(folder / "a.ckpt")


@given(place=st.floats(0, 1), value=st.integers(0, 255))
def test_a_flipped_byte_in_the_pickle_raises_nothing_else(tmp_path_factory, place, value):
    folder = tmp_path_factory.mktemp("flip")
    torch.save({"state_dict": STATE}, folder / "a.ckpt")
    with zipfile.ZipFile(folder / "a.ckpt") as file:
        root = file.namelist()[0].partition("/")[0]
        data = bytearray(file.read(f"{root}/data.pkl"))
        entries = [(f"data/{i}", file.read(f"{root}/data/{i}")) for i in range(2)]
    data[int(place * (len(data) - 1))] = value
    damaged = archive(folder / "b.ckpt", bytes(data), entries=entries)

    with contextlib.suppress(CheckpointError):
        assert all(isinstance(t, torch.Tensor) for t in read_archive(damaged).values())


def test_files_that_are_no_checkpoints_say_so(tmp_path):
    (tmp_path / "text.ckpt").write_text("these are not the weights you are looking for")
    (tmp_path / "empty.ckpt").touch()
    (tmp_path / "broken.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}")
    torch.save({"lr": 0.1, "names": ["a"]}, tmp_path / "settings.ckpt")
    torch.save({"lr": 0.1}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    with zipfile.ZipFile(tmp_path / "photos.ckpt", "w") as file:
        file.writestr("photo.txt", "a photo")
    archive(tmp_path / "script.pt", pickle.dumps({}), entries=[("constants.pkl", b"")])
    archive(tmp_path / "big.pt", pickle.dumps({}), entries=[("byteorder", b"big")])

    refused(tmp_path / "text.ckpt", "not a checkpoint that can be read without executing it")
    refused(tmp_path / "empty.ckpt", "not a checkpoint that can be read without executing it")
    refused(tmp_path / "broken.safetensors", "not a whole safetensors file")
    refused(tmp_path / "settings.ckpt", "the archive holds no tensors under 'state_dict'")
    refused(tmp_path / "old.pt", "the file holds no tensors")
    refused(tmp_path / "photos.ckpt", "the archive holds no 'data.pkl'")
    refused(tmp_path / "script.pt", "the archive holds a TorchScript program")
    refused(tmp_path / "big.pt", "the numbers are stored big-endian")
    refused(tmp_path / "absent.pt", "no such file or folder")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "readme.md").touch()
    refused(tmp_path / "folder", "the folder holds 'readme.md'. One of 'model.safetensors'")


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


def test_hash_of_a_file(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert file_sha256(tmp_path / "a") == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, B.1
    )
