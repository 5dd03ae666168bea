"""Torch's files are read without executing anything, whatever is pickled in them."""

import contextlib
import io
import itertools
import json
import os
import pickle
import re
import subprocess
import time
import tracemalloc
import zipfile
from collections import OrderedDict
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import CheckpointError
from harness.weights.archives import PICKLE_LIMIT
from harness.weights.loading import read_tensors

STATE = OrderedDict(
    [("net.weight", torch.arange(6.0).reshape(2, 3)), ("net.bias", torch.tensor([1.0, -1.0]))]
)


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


def legacy(content, path):
    torch.save(content, path, _use_new_zipfile_serialization=False)
    return path


def test_reads_what_the_reference_wrote(shared_reference):
    folder = shared_reference / "golden" / "checkpoint"
    facts = json.loads((folder / "lightning_toy.json").read_text())

    tensors = read_tensors(folder / "lightning_toy.ckpt")

    assert {k: list(v.shape) for k, v in tensors.items()} == facts["state_dict_keys"]
    assert float(tensors["net.bn.running_var"]) == pytest.approx(0.9382, abs=1e-4)
    assert int(tensors["net.bn.num_batches_tracked"]) == 1


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(
    "dtype",
    [
        torch.float32,
        torch.float64,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.uint8,
        torch.bool,
    ],
)
def test_every_dtype_survives(tmp_path, dtype, old):
    tensor = torch.tensor([[0, 1, 1], [1, 0, 1]]).to(dtype)
    path = tmp_path / "a.ckpt"
    torch.save({"state_dict": {"a": tensor}}, path, _use_new_zipfile_serialization=not old)

    read = read_tensors(path)["a"]

    assert read.dtype == dtype
    assert torch.equal(read, tensor)


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_views_parameters_and_scalars_survive(tmp_path, protocol, old):
    base = torch.arange(24.0).reshape(4, 6)
    marked = torch.nn.Parameter(torch.ones(3))
    marked.note = "an attribute of its own"
    state = {
        "transposed": base.T,
        "slice": base[1:3, 2:],
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "parameter with a note": marked,
        "scalar": torch.tensor(3),
        "nothing": torch.empty(0, 5),
    }
    torch.save(
        state,
        tmp_path / "a.pt",
        pickle_protocol=protocol,
        _use_new_zipfile_serialization=not old,
    )

    read = read_tensors(tmp_path / "a.pt")

    assert set(read) == set(state)
    assert all(torch.equal(read[key], value) for key, value in state.items())
    assert read["slice"].data_ptr() == read["transposed"].data_ptr() + 4 * 8  # still one block


@given(
    sizes=st.lists(st.lists(st.integers(0, 4), max_size=4), min_size=1, max_size=5),
    old=st.booleans(),
)
def test_any_state_dict_comes_back(tmp_path_factory, sizes, old):
    rng = np.random.default_rng(len(sizes))
    state = {f"k.{i}": torch.from_numpy(rng.random(size)) for i, size in enumerate(sizes)}
    path = tmp_path_factory.mktemp("any") / "a.pt"
    torch.save(state, path, _use_new_zipfile_serialization=not old)

    read = read_tensors(path)

    assert list(read) == list(state)
    assert all(torch.equal(read[key], value) for key, value in state.items())


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model"])
def test_the_state_is_found_under_its_usual_names(tmp_path, key):
    torch.save({"epoch": 3, key: STATE, "optimizer": {"m": torch.ones(1)}}, tmp_path / "a.pth")

    assert list(read_tensors(tmp_path / "a.pth")) == list(STATE)


def trained(module):
    """An optimizer with what a step leaves in it; a real step would compile for seconds."""
    module(torch.ones(2, 3))
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1)
    for parameter in module.parameters():
        state = {"step": torch.tensor(1.0), "exp_avg": torch.ones_like(parameter)}
        optimizer.state[parameter] = state
    return optimizer


@pytest.mark.parametrize("old", [False, True])
def test_the_layout_of_the_published_cris_file(tmp_path, old):
    """A dictionary of DataParallel's state beside optimizer, scheduler and best score."""
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    optimizer = trained(module)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [35], 0.1)
    content = {
        "epoch": 50,
        "cur_iou": np.float64(0.62),
        "best_iou": np.float64(0.64),
        "prec": {"Pr@50": np.float64(0.7)},
        "state_dict": torch.nn.DataParallel(module).state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": schedule.state_dict(),
    }
    torch.save(content, tmp_path / "best.pth", _use_new_zipfile_serialization=not old)

    read = read_tensors(tmp_path / "best.pth")

    assert list(read) == [f"module.{key}" for key in module.state_dict()]
    assert torch.equal(read["module.0.weight"], module[0].weight)
    assert int(read["module.1.num_batches_tracked"]) == 1


class Loss:
    """Stands for MONAI's loss: a class that does not exist where the file is read."""


@pytest.mark.parametrize("old", [False, True])
def test_the_layout_of_a_lightning_checkpoint(tmp_path, old):
    module = torch.nn.Linear(3, 2)
    content = {
        "epoch": 7,
        "global_step": 70,
        "pytorch-lightning_version": "2.0.0",
        "state_dict": OrderedDict((f"net.{k}", v) for k, v in module.state_dict().items()),
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"current": {"ready": 8}}}},
        "callbacks": {"ModelCheckpoint{'monitor': 'val/dice'}": {"best": torch.tensor(0.9)}},
        "optimizer_states": [trained(module).state_dict()],
        "lr_schedulers": [{"best": 0.1}],
        "hparams_name": "kwargs",
        "hyper_parameters": {
            "loss_fn": Loss(),
            "optimizer": partial(torch.optim.AdamW, lr=0.1, betas=(0.9, 0.99)),
            "sizes": {(352, 352), frozenset({1})},
            "device": torch.device("cpu"),
            "dtype": torch.float16,
        },
    }
    torch.save(content, tmp_path / "a.ckpt", _use_new_zipfile_serialization=not old)

    read = read_tensors(tmp_path / "a.ckpt")

    assert list(read) == ["net.weight", "net.bias"]
    assert torch.equal(read["net.weight"], module.weight)


# --- hostile pickles -----------------------------------------------------------------------


class Reduced:
    """Pickles as a call of whatever it is given."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class Stated:
    """Its ``__setstate__`` creates a file when the pickle is loaded for real."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __getstate__(self):
        return {"marker": self.marker}

    def __setstate__(self, state):
        open(state["marker"], "w").close()


BOMBS = {
    "os.system": lambda marker: Reduced(os.system, f"touch {marker}"),
    "eval": lambda marker: Reduced(eval, f"open({str(marker)!r}, 'w').close()"),
    "exec": lambda marker: Reduced(exec, f"open({str(marker)!r}, 'w').close()"),
    "subprocess": lambda marker: Reduced(subprocess.call, ["touch", str(marker)]),
    "state": Stated,
    "partial": lambda marker: Reduced(
        map, partial(os.mkdir), Reduced(list, Reduced(os.mkdir, str(marker)))
    ),
    "in a list": lambda marker: [[(Reduced(os.mkdir, str(marker)),)]],
    "as a key": lambda marker: {Reduced(os.mkdir, str(marker)): 1},
    "in a set": lambda marker: {Reduced(os.mkdir, str(marker))},
    "numpy": lambda marker: np.array([Reduced(os.mkdir, str(marker))], dtype=object),
}


def content_with(bomb, place):
    content = {"state_dict": dict(STATE), "hyper_parameters": {"lr": 0.1}}
    if place == "top":
        return {"callbacks": [bomb, {"deep": (bomb, {1: bomb})}], **content}
    content[place]["evil"] = bomb
    return content


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("place", ["top", "hyper_parameters", "state_dict"])
@pytest.mark.parametrize("kind", BOMBS)
def test_hostile_objects_do_nothing(tmp_path, kind, place, old):
    marker = tmp_path / "executed"
    path = tmp_path / "evil.ckpt"
    content = content_with(BOMBS[kind](marker), place)
    torch.save(content, path, _use_new_zipfile_serialization=not old)

    tensors = read_tensors(path)

    assert not marker.exists()
    assert list(tensors) == list(STATE)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["evil.ckpt"]


@pytest.mark.parametrize("kind", BOMBS)
def test_the_hostile_objects_are_live(tmp_path, kind):
    """The test above means something: loaded for real, each of them acts."""
    marker = tmp_path / "executed"
    with contextlib.suppress(TypeError):
        pickle.loads(pickle.dumps(BOMBS[kind](marker)))
    assert marker.exists()


@pytest.mark.parametrize("kind", BOMBS)
def test_hostile_plain_pickles_are_not_opened(tmp_path, kind):
    marker = tmp_path / "executed"
    path = tmp_path / "plain.ckpt"
    path.write_bytes(pickle.dumps({"state_dict": BOMBS[kind](marker)}))

    refused(path, "neither safetensors nor a file that torch.save wrote")
    assert not marker.exists()


def program(marker):
    """Calls written by hand, in every way that a pickle has."""
    text = f"touch {marker}".encode()
    short = b"\x8c" + bytes([len(text)]) + text
    string = b"S'" + text + b"'\n"
    return {
        "GLOBAL REDUCE": b"cos\nsystem\n" + b"(" + string + b"tR",
        "posix": b"cposix\nsystem\n" + b"(" + string + b"tR",
        "STACK_GLOBAL": b"\x8c\x02os\x8c\x06system\x93" + short + b"\x85R",
        "INST": b"(" + string + b"ios\nsystem\n",
        "OBJ": b"(cos\nsystem\n" + string + b"o",
        "NEWOBJ": b"cos\nsystem\n" + short + b"\x85\x81",
        "NEWOBJ_EX": b"cos\nsystem\n" + short + b"\x85}\x92",
        "getattr": b"cbuiltins\ngetattr\n(cos\npath\nS'os'\ntR" + short + b"\x85R",
        "BUILD": b"cos\nsystem\n)R}S'__setstate__'\ncos\nsystem\nsb" + short + b"b",
        "PERSID": b"P" + text + b"\n",
        "BINPERSID": b"cos\nsystem\n" + short + b"\x85RQ",
        "storage": b"(S'storage'\ncos\nsystem\n" + string + b"S'cpu'\nI1\ntQ",
        "EXT4": b"\x84\x01\0\0\0" + short + b"\x85R",
    }


@pytest.mark.parametrize("way", program("x"))
def test_no_opcode_calls(tmp_path, way):
    marker = tmp_path / "executed"
    evil = program(marker)[way]
    good = b"S'a'\n" + (
        b"ctorch._utils\n_rebuild_tensor_v2\n((S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\n"
        b"I1\ntQI0\n(I1\nt(I1\nttR"
    )
    numbers = [("data/0", np.float32(2.5).tobytes())]
    beside = b"}(S'state_dict'\n}(" + good + b"uS'evil'\n" + evil + b"u."
    instead = b"}S'state_dict'\n" + evil + b"s."

    read = read_tensors(archive(tmp_path / "a.ckpt", beside, entries=numbers))
    assert {key: value.tolist() for key, value in read.items()} == {"a": [2.5]}
    refused(archive(tmp_path / "b.ckpt", instead), "holds no tensors under 'state_dict'")
    assert not marker.exists()


def tensor_program(*, storage=b"(S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\nI1\ntQ", **parts):
    """The pickle of one tensor whose parts are given as opcodes."""
    parts = {"offset": b"I0\n", "size": b"(I1\nt", "stride": b"(I1\nt"} | parts
    arguments = storage + parts["offset"] + parts["size"] + parts["stride"]
    return b"}S'a'\nctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"tRs."


def doubled(n):
    """A tuple of two shared halves, `n` times over: written out it has 2**n items."""
    return b")" + b"2\x86" * n


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ({"size": b"(I-1\nt"}, "size, stride or offset is no count"),
        ({"size": b"(I01\nt"}, "size, stride or offset is no count"),
        ({"offset": b"F0.5\n"}, "size, stride or offset is no count"),
        ({"size": b"(L" + b"9" * 400 + b"L\nt"}, "size, stride or offset is no count"),
        ({"size": doubled(80), "stride": doubled(80)}, "size, stride or offset is no count"),
        ({"size": b"(" + b"I1\n" * 999 + b"t"}, "a tensor of 999 sizes and 1 strides"),
        ({"size": b"(I4\nI4\nt"}, "a tensor of 2 sizes and 1 strides"),
        ({"size": b"I4\n"}, "a tensor without size or stride"),
        ({"size": b"(I2\nt"}, "a tensor of 2 numbers in a block of 1"),
        ({"size": b"(I4000000000\nt", "stride": b"(I0\nt"}, "numbers in a block of 1"),
        ({"offset": b"I7\n"}, "a tensor of 1 numbers in a block of 1"),
        ({"storage": b"(S'storage'\nctorch\nEvilStorage\nS'0'\nS'cpu'\nI1\ntQ"}, "without numbers"),
        ({"storage": b"N"}, "a tensor without numbers"),
        ({"storage": doubled(80)}, "a tensor without numbers"),
        ({"storage": b"S'" + b"x" * 10_000 + b"'\nQ"}, "a tensor without numbers"),
    ],
)
def test_tensors_that_cannot_be_are_refused(tmp_path, parts, text):
    """Each in no time, with a short message: nothing of the file's is written out in full."""
    path = archive(tmp_path / "a.ckpt", tensor_program(**parts), entries=[("data/0", b"\0" * 4)])
    started = time.monotonic()

    refused(path, text)

    assert time.monotonic() - started < 2
    with pytest.raises(CheckpointError) as caught:
        read_tensors(path)
    assert len(str(caught.value)) < len(str(path)) + 300


@pytest.mark.parametrize("n", [80, 400_000])
@pytest.mark.parametrize("nest", [b"2\x86", b"\x85"])
def test_keys_nested_without_end_neither_hang_nor_crash(tmp_path, nest, n):
    """Python's own reader hashes such a key: 2**80 steps, or the end of the process."""
    data = b"}()" + nest * n + b"NS'state_dict'\n}(" + tensor_program()[1:-2] + b"uu."
    path = archive(tmp_path / "a.ckpt", data, entries=[("data/0", np.float32(7).tobytes())])
    started = time.monotonic()

    assert read_tensors(path)["a"].tolist() == [7]
    assert time.monotonic() - started < 30


def test_an_old_file_cannot_hang_or_crash_either(tmp_path):
    legacy({"state_dict": STATE}, tmp_path / "good.pt")
    magic, version, system, rest = split_legacy((tmp_path / "good.pt").read_bytes())
    for name, nest in (("a", b"2\x86"), ("b", b"\x85")):
        path = tmp_path / f"{name}.pt"
        evil = b"}()" + nest * 300_000 + b"NS'k'\nI1\nu."
        path.write_bytes(magic + version + system + evil + pickle.dumps([]))
        refused(path, "the file holds no tensors")
    assert len(rest) > 100


def split_legacy(whole):
    stream = io.BytesIO(whole)
    ends = [0]
    for _ in range(3):
        pickle.load(stream)
        ends.append(stream.tell())
    return *(whole[a:b] for a, b in itertools.pairwise(ends)), whole[ends[-1] :]


def test_what_is_held_is_bounded_by_the_file(tmp_path):
    """A third of a megabyte of smallest objects, and a storage that claims more than there is."""
    tracemalloc.start()
    try:
        refused(archive(tmp_path / "a.ckpt", b"]" * 300_000 + b"."), "holds no tensors")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 40e6

    good = legacy({"a": torch.ones(4)}, tmp_path / "good.pt").read_bytes()
    claimed = good[:-24] + (2**50).to_bytes(8, "little") + good[-16:]
    (tmp_path / "b.pt").write_bytes(claimed)
    refused(tmp_path / "b.pt", f"a storage of {2**50} numbers ends behind the file")


def test_a_pickle_too_long_to_be_a_description_is_refused(tmp_path):
    long = b"N0" * (PICKLE_LIMIT // 2) + b"N."
    refused(archive(tmp_path / "a.ckpt", long), "its pickle is longer than 32 MiB. Tensors lie")


# --- the archive around the pickle -----------------------------------------------------------


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


def test_names_in_the_archive_never_become_paths(tmp_path, monkeypatch):
    """A storage key that climbs out is looked up among the archive's names, and is not there."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret").write_bytes(b"0" * 12)
    for key in ("../../secret", str(tmp_path / "secret"), "..\\secret", "secret"):
        storage = f"(S'storage'\nctorch\nFloatStorage\nS{key!r}\nS'cpu'\nI1\ntQ".encode()
        path = archive(tmp_path / "evil.pt", tensor_program(storage=storage))
        refused(path, "damaged or cut short (KeyError")


def test_nothing_is_unpacked(tmp_path, monkeypatch):
    """Entries that climb, are absolute, or are links stay entries."""
    monkeypatch.chdir(tmp_path)
    link = zipfile.ZipInfo("archive/link")
    link.external_attr = 0o120777 << 16
    torch.save({"a": torch.ones(3)}, tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt", "a") as file:
        file.writestr("../climbed", "x")
        file.writestr(str(tmp_path / "absolute"), "x")
        file.writestr(link, "/etc/hostname")

    assert read_tensors(tmp_path / "a.pt")["a"].tolist() == [1, 1, 1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.pt"]
    assert not (tmp_path.parent / "climbed").exists()


@pytest.mark.parametrize("old", [False, True])
@given(cut=st.floats(0.01, 0.999))
def test_a_file_cut_short_says_so(tmp_path_factory, old, cut):
    folder = tmp_path_factory.mktemp("cut")
    path = folder / "a.ckpt"
    torch.save({"state_dict": STATE}, path, _use_new_zipfile_serialization=not old)
    whole = path.read_bytes()
    path.write_bytes(whole[: max(20, int(len(whole) * cut))])

    with pytest.raises(CheckpointError, match="damaged or cut short"):
        read_tensors(path)


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
        assert all(isinstance(t, torch.Tensor) for t in read_tensors(damaged).values())


@pytest.mark.parametrize("old", [False, True])
@given(place=st.floats(0, 1), value=st.integers(0, 255))
def test_a_flipped_byte_anywhere_raises_nothing_else(tmp_path_factory, old, place, value):
    path = tmp_path_factory.mktemp("flip") / "a.ckpt"
    torch.save({"state_dict": STATE}, path, _use_new_zipfile_serialization=not old)
    data = bytearray(path.read_bytes())
    data[int(place * (len(data) - 1))] = value
    path.write_bytes(bytes(data))

    with contextlib.suppress(CheckpointError):
        assert all(isinstance(t, torch.Tensor) for t in read_tensors(path).values())


def test_archives_that_are_no_checkpoints_say_so(tmp_path):
    torch.save({"lr": 0.1, "names": ["a"]}, tmp_path / "settings.ckpt")
    legacy({"lr": 0.1}, tmp_path / "old.pt")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "whole.pt")
    torch.save({"model": torch.nn.Linear(2, 2)}, tmp_path / "inside.pt")
    torch.save({"a": torch.eye(2).to_sparse()}, tmp_path / "sparse.pt")
    torch.save({"a": torch.eye(2).to_sparse(), "b": torch.eye(2)}, tmp_path / "mixed.pt")
    with zipfile.ZipFile(tmp_path / "photos.ckpt", "w") as file:
        file.writestr("photo.txt", "a photo")
    archive(tmp_path / "script.pt", pickle.dumps({}), entries=[("constants.pkl", b"")])
    archive(tmp_path / "two.pt", pickle.dumps({}), entries=[("b/data.pkl", b"")])
    archive(tmp_path / "big.pt", pickle.dumps({}), entries=[("byteorder", b"big")])

    refused(tmp_path / "settings.ckpt", "the file holds no tensors under 'state_dict'")
    refused(tmp_path / "old.pt", "the file holds no tensors under 'state_dict'")
    text = "at its top but the object 'torch.nn.modules.linear.Linear'. A model's state_dict is"
    refused(tmp_path / "whole.pt", text)
    refused(tmp_path / "inside.pt", text)
    text = "the tensor 'a' is of a kind that is not read ('_rebuild_sparse_tensor'). Dense tensors"
    refused(tmp_path / "sparse.pt", text)
    refused(tmp_path / "mixed.pt", text)
    refused(tmp_path / "photos.ckpt", "the archive holds no 'data.pkl'")
    refused(tmp_path / "script.pt", "the archive holds a TorchScript program")
    refused(tmp_path / "two.pt", "the archive holds 2 entries named 'data.pkl'")
    refused(tmp_path / "big.pt", "the numbers are stored big-endian")
    old = legacy({"a": torch.ones(1)}, tmp_path / "old.pt").read_bytes()
    (tmp_path / "old.pt").write_bytes(
        old.replace(b"little_endianq\x02\x88", b"little_endianq\x02\x89")
    )
    refused(tmp_path / "old.pt", "the numbers are stored big-endian")
