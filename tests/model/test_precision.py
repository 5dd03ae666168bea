"""What a precision means on a device, and that whatever was chosen is said."""

import re

import pytest
import torch

from harness.errors import ModelError
from harness.model.loading import load_model
from harness.model.precision import (
    bfloat16_gain,
    choose_device,
    choose_precision,
    computing,
    device_name,
    has_bfloat16,
    watched_memory,
)

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("asked", "device", "short", "chosen"),
    [
        ("auto", CPU, True, "float32"),
        ("auto", CUDA, True, "bfloat16"),
        ("auto", CUDA, False, "float16"),
        ("mixed", CPU, True, "bfloat16"),
        ("mixed", CUDA, True, "bfloat16"),
        ("mixed", CUDA, False, "float16"),
        ("float32", CUDA, True, "float32"),
        ("float16", CPU, True, "float16"),
        ("float16", CUDA, True, "float16"),
        ("bfloat16", CUDA, True, "bfloat16"),
    ],
)
def test_each_name_means_one_precision(monkeypatch, asked, device, short, chosen):
    monkeypatch.setattr("harness.model.precision.has_bfloat16", lambda _: short)
    assert choose_precision(asked, device, where="model 'm'") == chosen


def test_what_cannot_be_is_said(monkeypatch):
    text = (
        "model 'm': unknown dtype 'bfloat32'. Did you mean 'float32'? Known dtypes: 'auto', "
        "'bfloat16', 'float16', 'float32', 'mixed', 'two-speed'."
    )
    with pytest.raises(ModelError, match="^" + re.escape(text)):
        choose_precision("bfloat32", CPU, where="model 'm'")
    monkeypatch.setattr("harness.model.precision.has_bfloat16", lambda _: False)
    text = (
        "model 'm': bfloat16 was asked for, and cuda has no arithmetic for it. Give --dtype mixed, "
        "which is float16 there, or float32."
    )
    with pytest.raises(ModelError, match="^" + re.escape(text)):
        choose_precision("bfloat16", CUDA, where="model 'm'")


def test_a_processor_has_every_precision():
    assert choose_device("cpu") == CPU
    assert has_bfloat16(CPU)
    assert device_name(CPU)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_a_model_computes_in_its_precision(precision):
    layer = torch.nn.Conv2d(3, 4, 1)
    before = torch.backends.cudnn.allow_tf32
    with torch.inference_mode(), computing(CPU, precision):
        assert str(layer(torch.ones(1, 3, 2, 2)).dtype) == f"torch.{precision}"
        if precision == "float32":
            assert not torch.backends.cudnn.allow_tf32
    assert layer.weight.dtype == torch.float32
    assert torch.backends.cudnn.allow_tf32 == before
    assert layer(torch.ones(1, 3, 2, 2)).dtype == torch.float32


def test_what_was_chosen_enters_the_models_name(toy_card):
    names = {
        asked: load_model(toy_card(), random_weights=True, device="cpu", dtype=asked).model_id
        for asked in ("auto", "float32", "mixed", "bfloat16", "float16")
    }

    assert names["auto"] == names["float32"]
    assert names["mixed"] == names["bfloat16"]
    assert len(set(names.values())) == 3


def test_memory_grows_with_what_is_held():
    peaks = []
    with watched_memory(CPU, peaks):
        pass
    with watched_memory(CPU, peaks):
        held = torch.ones(48 << 20)  # 192 MiB
    assert held.sum() > 0
    assert peaks[1] >= peaks[0] > 0
    assert peaks[1] >= 192


def test_what_bfloat16_gains_is_measured_once():
    gain = bfloat16_gain()
    assert 1e-4 < gain < 100
    assert bfloat16_gain() is gain
