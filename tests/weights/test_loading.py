"""A file's content decides how it is read; what is read fits a model or says why not."""

import json
import re
import time
from collections import OrderedDict

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from harness.errors import CheckpointError
from harness.weights.loading import fit, load_into, read_tensors, watched_loading

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


def headed(header, *, length=None, body=b"\0" * 8):
    """A safetensors file with a header of one's own."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (length if length is not None else len(text)).to_bytes(8, "little") + text + body


def entry(shape, offsets, dtype="F32"):
    return {"a": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


@pytest.mark.parametrize(
    "content",
    [
        headed(entry([2], [0, 8]), length=2**60),
        headed(entry([2], [0, 8]), length=90_000_000),
        headed(b"{" + b"[" * 100_000),
        headed(b'{"a":' * 50_000),
        headed(entry([2**40], [0, 8])),
        headed(entry([2**62, 4], [0, 8])),
        headed(entry([-1], [0, 8])),
        headed(entry([2], [0, 2**50])),
        headed(entry([2], [8, 0])),
        headed(entry([1], [4, 8])),
        headed(entry([2], [0, 8], dtype="EVIL")),
        headed(entry([2], [0, 8]) | {"b": entry([2], [0, 8])["a"]}),
        headed(entry([2], [0, 8]), body=b""),
    ],
)
def test_hostile_safetensors_are_refused(tmp_path, content):
    (tmp_path / "a.safetensors").write_bytes(content)
    refused(tmp_path / "a.safetensors", "not a whole safetensors file (")
    assert len(content) < 1_000_000
    # The same header, told the truth, is read: it is the content that is refused.
    (tmp_path / "good.safetensors").write_bytes(headed(entry([2], [0, 8])))
    assert read_tensors(tmp_path / "good.safetensors")["a"].tolist() == [0, 0]


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
        "The file has 'net.0.weight', 'net.0.bias', 'net.1.scale' and 1 more. It is a part of this "
        "model, or another version of it. All 4 keys must be there in the model's shapes. Give the "
        "whole model, or the card whose settings the checkpoint was trained with."
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
    monkeypatch.setattr("harness.weights.fitting.fingerprints", lambda: known)
    given = {f"net.{key}": torch.ones(1) for key in ("tower.r", "head.r", "neck.x")}
    message = (
        "a.ckpt: the checkpoint does not fit the model: 2 missing, first 'weight'; 3 unexpected, "
        "first 'net.tower.r'. The file has 'net.tower.r', 'net.head.r', 'net.neck.x'. Its keys "
        "look like the model 'red'. All 2 keys must be there in the model's shapes. Give it "
        "as --model red=FILE, or give a file of this model."
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


# --- files as trainers write them -----------------------------------------------------------


def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 1)
    )


def load(content, path):
    """Save, load into a fresh network; the network and what was said."""
    torch.save(content, path)
    module = network()
    for parameter in module.parameters():
        parameter.data.fill_(7.0)
    with watched_loading() as loaded:
        load_into(module, path)
    return module, loaded[0]


def holds(module, state):
    return all(torch.equal(value, state[key]) for key, value in module.state_dict().items())


def prefixed(state, prefix):
    return {prefix + key: value for key, value in state.items()}


def between(state, wrapper):
    """A wrapper between the first and the second step of every key."""
    return {key.replace(".", f".{wrapper}.", 1): value for key, value in state.items()}


@pytest.mark.parametrize(
    ("wrap", "left"),
    [
        (
            lambda s: {"state_dict": {**prefixed(s, "net."), "criterion.pos_weight": S}},
            ["criterion"],
        ),
        (lambda s: {"n_averaged": torch.tensor(5), **prefixed(s, "module.")}, ["n_averaged"]),
        (lambda s: prefixed(s, "model._orig_mod.module.student.net.a.b."), []),
        (lambda s: {"student": prefixed(s, "module.backbone.")}, []),
        (lambda s: {"a": {"b": {"c": {"state_dict": s}}}}, []),
        (lambda s: prefixed(between(s, "_orig_mod"), "net."), []),
        (lambda s: between(s, "module"), []),
        (lambda s: {"epoch": 3, "model": s, "metrics": {"val": {"total": S}}}, ["metrics.val"]),
        (lambda s: {"state_dict": {**s, "val_dice.sum": S, "val_dice.n": S}}, ["val_dice.sum"]),
        (lambda s: {"model": s, "ema": {"decay": 0.9, "shadow_params": [S, S]}}, ["shadow_params"]),
        (lambda s: {"state_dict": s, "ema_state_dict": dict(s)}, ["ema_state_dict"]),
        (lambda s: {"state_dict": s, "optimizer": {"state": {"m": S}}}, []),
    ],
)
def test_what_trainers_write_is_loaded_and_the_rest_named(tmp_path, wrap, left):
    state = network().state_dict()
    module, loaded = load(wrap(state), tmp_path / "a.ckpt")

    assert holds(module, state)
    assert loaded.chosen == ""
    assert bool(loaded.note) == bool(left)
    assert all(name in loaded.note for name in left)


S = torch.tensor([3.0])


def test_torchs_own_average_is_loaded(tmp_path):
    module = network()
    average = torch.optim.swa_utils.AveragedModel(module)
    average.update_parameters(module)

    loaded, said = load(average.state_dict(), tmp_path / "averaged.pt")

    assert holds(loaded, module.state_dict())
    assert (
        said.note == "averaged.pt: the weights under 'module' were loaded; not used: 'n_averaged'."
    )


PLACES = [
    ("state_dict", "ema_state_dict", lambda a, b: {"state_dict": a, "ema_state_dict": b}),
    ("state_dict", "state_dict_ema", lambda a, b: {"state_dict": a, "state_dict_ema": b}),
    ("model", "ema.shadow", lambda a, b: {"model": a, "ema": {"decay": 0.9, "shadow": b}}),
    ("student", "teacher", lambda a, b: {"student": prefixed(a, "module."), "teacher": b}),
    (
        "online_model",
        "ema_model",
        lambda a, b: {**prefixed(a, "online_model."), **prefixed(b, "ema_model."), "step": S},
    ),
    (
        "state_dict.net",
        "state_dict.ema_net",
        lambda a, b: {"state_dict": {**prefixed(a, "net."), **prefixed(b, "ema_net.")}},
    ),
]


@pytest.mark.parametrize(("raw", "averaged", "wrap"), PLACES)
def test_of_raw_and_averaged_weights_one_must_be_named(tmp_path, raw, averaged, wrap):
    state = network().state_dict()
    other = {key: torch.zeros_like(value) for key, value in state.items()}
    path = tmp_path / "a.ckpt"
    text = (
        f"{path}: 2 sets of weights in this file fill the model, with different numbers: {raw!r}, "
        f"{averaged!r}. Averaged weights often lie beside the trained ones; one of them must be "
        f"meant. Say which behind a '#', such as {path}#{averaged} (after --model CARD=, "
        "--checkpoint, or 'path' on the card)."
    )
    with pytest.raises(CheckpointError, match="^" + re.escape(text) + "$"):
        load(wrap(other, state), path)

    for choice, expected in ((averaged, state), (raw, other)):
        module = network()
        with watched_loading() as loaded:
            load_into(module, tmp_path / f"a.ckpt#{choice}")
        assert holds(module, expected)
        assert loaded[0].chosen.startswith(choice)
        assert choice in loaded[0].note
    with pytest.raises(CheckpointError, match=r"no weights of this model under 'nothing'\. The fi"):
        load_into(module, tmp_path / "a.ckpt#nothing")


def test_a_choice_of_one_is_no_choice(tmp_path):
    state = network().state_dict()
    torch.save({"state_dict": prefixed(state, "net.")}, tmp_path / "a#b.ckpt")
    for path in ("a#b.ckpt", "a#b.ckpt#state_dict", "a#b.ckpt#net", "a#b.ckpt#state_dict.net"):
        with watched_loading() as loaded:
            load_into(network(), tmp_path / path)
        assert loaded[0].chosen == ""


@pytest.mark.parametrize("prefix", ["", "net."])
def test_more_of_the_models_own_parts_is_another_model(prefix):
    """A deeper network fills a shallower one: its masks would be wrong without a word."""
    state = prefixed(network().state_dict(), prefix)
    text = "1 unexpected, first '2.gate'. Every key is there, and its parts have more of them: it"
    with pytest.raises(CheckpointError, match=re.escape(text)):
        fit(network(), {**state, f"{prefix}2.gate": S}, where="x")


@pytest.mark.parametrize(
    ("dtype", "name"),
    [
        (torch.int8, "int8"),
        (torch.uint8, "uint8"),
        (torch.int64, "int64"),
        (torch.bool, "bool"),
        (torch.float8_e4m3fn, "float8_e4m3fn"),
        (torch.complex64, "complex64"),
    ],
)
def test_quantised_numbers_are_refused(tmp_path, dtype, name):
    state = network().state_dict()
    state["0.weight"] = state["0.weight"].to(dtype)
    save_file(state, tmp_path / "a.safetensors")
    text = (
        f"a.safetensors: the tensor '0.weight' holds {name}, the model has float32. Quantised "
        "numbers mean nothing without their scales; float32, float64, float16 or bfloat16 is needed"
    )
    with pytest.raises(CheckpointError, match=re.escape(text)):
        load_into(network(), tmp_path / "a.safetensors")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_become_float32(tmp_path, dtype):
    """Widening is exact; rounding is said."""
    state = network().state_dict()
    other = {k: v.to(dtype) if v.is_floating_point() else v for k, v in state.items()}
    module, loaded = load(other, tmp_path / "a.pt")

    rounded = "a.pt: 8 tensors of float64 were rounded."
    assert loaded.note == (rounded if dtype == torch.float64 else "")
    assert module[0].weight.dtype == torch.float32
    assert torch.equal(module[0].weight, other["0.weight"].float())


def test_numbers_too_large_for_float32_are_refused(tmp_path):
    state = {k: v.double() for k, v in network().state_dict().items()}
    state["0.weight"] = state["0.weight"] * 1e300
    with pytest.raises(CheckpointError, match="'0.weight' holds numbers that are not finite"):
        load(state, tmp_path / "a.pt")


def test_the_advice_fits_the_case():
    state = network().state_dict()
    lora = {f"net.{key}.lora_A.default": S for key in state}
    with pytest.raises(CheckpointError, match=r"low-rank additions \(LoRA\).* Name the file"):
        fit(network(), lora, where="x")
    with pytest.raises(CheckpointError, match=r"The file has 'a\.b', 'c\.d'\. It is another model"):
        fit(network(), {"a.b": S, "c.d": S}, where="x")


def test_long_keys_and_deep_states_take_no_time(tmp_path):
    started = time.monotonic()
    deep = {"x": S}
    for _ in range(300):
        deep = {"d": deep, "e": deep}
    content = {"a." * 200_000: S, "state_dict": {"b." * 200_000: S}, "deep": deep}
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="does not fit the model"):
        load_into(network(), tmp_path / "a.pt")
    assert time.monotonic() - started < 5


@given(
    prefix=st.lists(st.sampled_from(["net", "module", "_orig_mod", "model"]), max_size=6),
    beside=st.sets(st.sampled_from(["n_averaged", "criterion.w", "metric.a.b"])),
    state=st.sampled_from(["", "state_dict", "ema", "a.b"]),
)
def test_wrappers_of_any_depth_change_nothing(tmp_path_factory, prefix, beside, state):
    path = tmp_path_factory.mktemp("wrapped") / "a.pt"
    own = network().state_dict()
    content = prefixed(own, "".join(f"{step}." for step in prefix)) | dict.fromkeys(beside, S)
    for step in reversed(state.split(".") if state else []):
        content = {step: content}

    module, loaded = load(content, path)

    assert holds(module, own)
    assert all(repr(key) in loaded.note for key in beside)
