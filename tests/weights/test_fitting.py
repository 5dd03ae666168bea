"""A file of weights is told by the keys that only its architecture has."""

import json
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.cards import load_model_card, model_names
from harness.errors import CardError, CheckpointError
from harness.model.adapters import adapter_class
from harness.weights.fitting import ENOUGH, fingerprints, likeness, shares
from harness.weights.loading import fit

# Of a family every kind has a list; its tests build the kinds.
LISTED = sorted(name for name in fingerprints() if ":" not in name)


def keys_of(name):
    """The keys of a model's state dict; its numbers are never made."""
    card = load_model_card(name)
    with torch.device("meta"):
        kind = adapter_class(card)
        return list(kind(card.card.settings, weights=None).module.state_dict())


# Of transformers, in their published sizes: describing them takes seconds each.
HEAVY = {name for name in LISTED if load_model_card(name).card.group == "promptable"}
QUICK = [name for name in LISTED if name not in HEAVY]
NAMES = [pytest.param(n, marks=pytest.mark.slow) if n in HEAVY else n for n in LISTED]


class _Keys(dict):
    """Keys of each model that is asked for."""

    def __missing__(self, name):
        self[name] = keys_of(name)
        return self[name]


@pytest.fixture(scope="module")
def keys():
    return _Keys()


def test_models_list_enough_keys():
    assert len(LISTED) >= 5
    assert all(len(listed) >= 5 for listed in fingerprints().values())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("prefix", ["", "net.", "net.model.", "module."])
def test_each_model_is_told_by_its_own_keys(keys, name, prefix):
    given = [prefix + key for key in keys[name]]

    assert shares(given, fingerprints())[name] == 1
    assert likeness(given) == f"Its keys look like the model {name!r}. "


@pytest.mark.parametrize("names", [QUICK, pytest.param(LISTED, marks=pytest.mark.slow)])
def test_no_model_is_taken_for_another(keys, names):
    """A network's own list may contain that of a smaller relative, and is then the longer one."""
    known = {name: listed for name, listed in fingerprints().items() if name in names}
    for name in names:
        own = keys[name]
        covered = {n for n, share in shares(own, known).items() if share >= ENOUGH}
        assert all(len(known[n]) < len(known[name]) for n in covered - {name}), (name, covered)


@pytest.mark.parametrize("name", ["clipseg", "cris", "biomedclipseg"])
def test_the_references_checkpoints_are_told(shared_reference, golden_keys, name):
    given = golden_keys(name)

    for known, share in shares(given, fingerprints()).items():
        if known in LISTED:
            assert (share == 1) == (known == name)
            assert known == name or share < ENOUGH
    expected = f"Its keys look like the model {name!r}. " if name in LISTED else ""
    assert likeness(given) == expected


@pytest.fixture
def golden_keys(shared_reference):
    def read(name):
        return json.loads((shared_reference / "golden" / name / "keys.json").read_text())

    return read


def test_a_misfit_names_the_model(keys):
    """A reference checkpoint of one architecture, given to another."""
    state = {f"net.{key}": torch.empty(0) for key in keys["deeplabv3plus"]}
    with pytest.raises(
        CheckpointError, match=r"Its keys look like the model 'deeplabv3plus'\. All 1 "
    ):
        fit(torch.nn.Linear(2, 2, bias=False), state, where="a.ckpt")


def test_another_size_is_not_taken_for_another_model(monkeypatch):
    """A shallower, narrower one with a layer that this one lacks: no card would take it."""
    known = {"other": ("0.weight", "0.bias", "1.weight", "9.weight")}
    monkeypatch.setattr("harness.weights.fitting.fingerprints", lambda: known)
    small = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    large = torch.nn.Sequential(*(torch.nn.Linear(4, 4) for _ in range(3)))
    state = {f"net.{k}": v for k, v in small.state_dict().items()} | {"net.9.weight": torch.ones(1)}
    text = (
        "first '0.weight' (2, 2) instead of (4, 4). It is a model of another size, of this family "
        "or one like it. All 6 keys must be there in the model's shapes. Give the card whose "
        "settings the checkpoint was trained with."
    )
    with pytest.raises(CheckpointError, match=re.escape(text)):
        fit(large, state, where="a.ckpt")


def test_a_part_of_a_larger_model_is_refused_with_its_name(monkeypatch):
    known = {"small": ("weight", "bias"), "family: big": ("inner.weight", "inner.bias", "more.w")}
    monkeypatch.setattr("harness.weights.fitting.fingerprints", lambda: known)
    state = {f"net.inner.{k}": v for k, v in torch.nn.Linear(2, 2).state_dict().items()}
    state["net.more.w"] = torch.ones(1)
    text = (
        "a.ckpt: the checkpoint does not fit the model: every key is there, and it is a part of a "
        "larger model: 'net.more.w' stands around it. Its keys look like the model 'family' "
        "(big). Without the rest its masks would be others. Give it as --model family=FILE."
    )
    with pytest.raises(CheckpointError, match=re.escape(text)):
        fit(torch.nn.Linear(2, 2), state, where="a.ckpt")


def test_a_model_beside_another_is_no_part_of_it(monkeypatch):
    known = {"other": ("inner.weight", "inner.bias", "more.w")}
    monkeypatch.setattr("harness.weights.fitting.fingerprints", lambda: known)
    state = {f"student.{k}": v for k, v in torch.nn.Linear(2, 2).state_dict().items()}
    state |= {f"teacher.{key}": torch.ones(1) for key in known["other"]}

    assert set(fit(torch.nn.Linear(2, 2), state, where="a.ckpt")) == {"weight", "bias"}


def test_what_looks_like_nothing_is_not_named():
    assert likeness([]) == ""
    assert likeness(["encoder.conv1.weight", "head.weight", "segmentation_head.0.weight"]) == ""


KNOWN = {"a": ("x.1", "x.2", "x.3", "x.4"), "b": ("x.1", "x.2", "y.3", "y.4"), "c": ("x.1", "x.2")}


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (["x.1", "x.2", "x.3"], "'c'"),
        (["x.1", "x.2", "x.3", "x.4"], "'a'"),
        (["x.1", "x.2", "x.3", "x.4", "y.3", "y.4"], "'a' or 'b'"),
        (["x.1"], None),
        (["xx.1", "xx.2"], None),
    ],
)
def test_the_best_covered_and_longest_list_is_named(monkeypatch, given, names):
    monkeypatch.setattr("harness.weights.fitting.fingerprints", lambda: KNOWN)
    assert likeness(given) == (f"Its keys look like the model {names}. " if names else "")


names = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map(".".join)


@given(
    keys=st.sets(names, max_size=8), listed=st.lists(names, min_size=1, unique=True), prefix=names
)
def test_a_share_is_what_it_says(keys, listed, prefix):
    found = shares(keys, {"m": listed})["m"]
    slow = sum(any(k == key or k.endswith(f".{key}") for k in keys) for key in listed) / len(listed)

    assert found == slow
    assert shares({f"{prefix}.{key}" for key in keys}, {"m": listed})["m"] >= found
    assert shares(set(listed), {"m": listed})["m"] == 1


def test_a_list_is_checked_and_not_inherited(tmp_path):
    base = tmp_path / "base.yaml"
    base.write_text("name: a\ntitle: A\nadapter: x.py:X\nthreshold: 0.5\nrecognised_by: [neck.w]\n")
    child = tmp_path / "child.yaml"
    child.write_text("extends: base.yaml\nname: b\n")

    assert load_model_card(base).card.recognised_by == ["neck.w"]
    assert load_model_card(child).card.recognised_by == []
    base.write_text(base.read_text().replace("neck.w", "'neck w*'"))
    text = "recognised_by[0]: found 'neck w*'. String should match pattern"
    with pytest.raises(CardError, match=re.escape(text)):
        load_model_card(base)


def test_every_listed_card_ships():
    assert set(LISTED) <= set(model_names())
