"""What ``doctor`` tells, also where things are missing or broken."""

import json

import pytest

from harness.commands import doctor
from harness.commands.doctor import Finding
from harness.errors import LexiconError


@pytest.fixture
def told(call, monkeypatch):
    """Exit code and findings by name, with some looks replaced by others."""

    def find(**looks):
        monkeypatch.setattr(doctor, "LOOKS", {"disk": doctor.LOOKS["disk"], **looks})
        code, out, _ = call("doctor", "--json")
        content = json.loads(out)
        assert content["ok"] is (code == 0)
        return code, {finding["name"]: finding for finding in content["findings"]}

    return find


def test_everything_named_is_looked_at(told):
    code, found = told(**doctor.LOOKS)

    assert code == 0
    assert {"vlsm-harness", "device", "threads", "wordnet", "hub", "disk"} <= set(found)
    assert "float32" in found["device"]["found"] or "float16" in found["device"]["found"]
    assert "GiB free in" in found["disk"]["found"]


def test_without_wordnet_the_lexicon_that_needs_it_is_named(told, monkeypatch):
    def absent():
        raise LexiconError("wordnet: NLTK cannot read its data. Install it with `this`.")

    monkeypatch.setattr("harness.prompts.wordnet.load_wordnet", absent)
    code, found = told(wordnet=doctor.LOOKS["wordnet"])

    assert code == 0
    assert found["wordnet"]["state"] == "missing"
    assert found["wordnet"]["disables"].startswith("the lexicon 'curated+wordnet@3.0'")
    assert found["wordnet"]["remedy"] == "Install it with `this`."


def test_a_package_that_cannot_be_imported_is_broken(told):
    def broken():
        raise ImportError("torch: undefined symbol\nsecond line")

    code, found = told(device=broken)

    assert code == 2
    assert found["device"]["state"] == "broken"
    assert found["device"]["found"] == "ImportError: torch: undefined symbol"


def test_required_and_optional_packages_that_do_not_fit(told, monkeypatch):
    lines = ["here>=2", "gone>=1", "wandb>=0.19; extra == 'wandb'"]
    monkeypatch.setattr(doctor, "requires", lambda name: lines)
    monkeypatch.setattr(doctor, "_has", {"here": "1.9"}.get)

    code, found = told()

    assert code == 2
    assert found["packages"]["found"] == "here 1.9 is not >=2, gone is not there"
    assert found["packages"]["remedy"] == "`pip install 'here>=2' 'gone>=1'`."
    assert found["extra wandb"]["state"] == "missing"
    assert found["extra wandb"]["disables"] == "--log wandb"


def test_a_full_disk_is_told(told, monkeypatch):
    monkeypatch.setattr(doctor, "_free_gib", lambda place: 0.2)

    code, found = told()

    assert code == 0
    assert found["disk"]["state"] == "missing"
    assert found["disk"]["remedy"] == "Free space, or use --out."


def test_a_table_for_people(call, monkeypatch):
    monkeypatch.setattr(
        doctor, "LOOKS", {"gpu": lambda: Finding("gpu", "missing", "a\x1b", "b", "c")}
    )

    code, out, _ = call("doctor")

    assert code == 0
    assert "missing  gpu" in out
    assert "without it: b" in out
    assert "\x1b" not in out


@pytest.mark.parametrize(
    ("gain", "what"),
    [
        (2.96, "3 times the speed of float32 (measured here): --dtype bfloat16 is faster"),
        (0.05, "0.05 times the speed of float32 (measured here): --dtype auto, float32, is best"),
    ],
)
def test_what_bfloat16_gains_on_this_cpu_is_told(told, monkeypatch, gain, what):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("harness.model.precision.bfloat16_gain", lambda: gain)
    _, found = told(bfloat16=doctor.LOOKS["bfloat16"])
    assert found["bfloat16"]["found"] == f"matrices multiply at {what}"


def test_every_extra_of_the_package_is_looked_at():
    import tomllib
    from pathlib import Path

    place = Path(__file__).resolve().parents[2] / "pyproject.toml"
    extras = tomllib.loads(place.read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert doctor.EXTRAS.keys() == extras.keys() - {"dev"}
