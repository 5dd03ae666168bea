"""A stage that would end the process that runs it ends another one, and stays with torch."""

import importlib.util
import os
import sys

import numpy as np
import pytest

from harness.model import exports, stage_trial
from harness.model.loading import load_model
from harness.model.stage_trial import fate_of

CALLS = [[np.zeros((1, 2), np.float32), np.ones(3, np.int64)]]


@pytest.fixture
def ending(tmp_path, monkeypatch):
    """A function: let the process of the trial end so."""

    def end(how):
        script = tmp_path / "python"
        script.write_text(f"#!{sys.executable}\nimport os, signal, sys, time\n{how}\n")
        script.chmod(0o700)
        monkeypatch.setattr(sys, "executable", str(script))

    return end


@pytest.mark.parametrize(
    ("how", "fate"),
    [
        (
            "os.kill(os.getpid(), signal.SIGSEGV)",
            "OpenVINO ends the process that runs it (signal 11)",
        ),
        ("sys.exit(1)", ""),
        ("sys.exit(0)", ""),
        ("time.sleep(60)", "OpenVINO did not end within 1 s"),
    ],
)
def test_the_end_of_another_process_is_told(ending, tmp_path, monkeypatch, how, fate):
    monkeypatch.setattr(stage_trial, "SECONDS", 1 if "sleep" in how else 60)
    ending(how)
    assert fate_of(tmp_path / "stage.xml", {}, CALLS) == fate


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="openvino is no part here")
def test_a_stage_that_openvino_does_not_survive_stays_with_torch(toy_card, tmp_path, monkeypatch):
    monkeypatch.setenv("VLSM_HARNESS_CACHE", str(tmp_path / "cache"))
    seen = []

    def fate(export, settings, calls):
        seen.append((export.is_file(), settings["NUM_STREAMS"], [len(call) for call in calls]))
        return "OpenVINO ends the process that runs it (signal 11)"

    monkeypatch.setattr(exports, "fate_of", fate)
    model = load_model(toy_card(), random_weights=True, device="cpu", backend="openvino")
    why = "torch: it cannot be compiled (ValueError: OpenVINO ends the process that runs it (signal"
    assert model.stages["decode"].startswith(why)
    assert model.stages["encode_images"].startswith(why)
    assert all(there and streams == 1 for there, streams, _ in seen)
    assert os.listdir(tmp_path / "cache" / "openvino") == []
