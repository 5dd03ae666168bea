"""``check --perturbation``: the laws of what ships and of outside packages."""

import json
from importlib.metadata import EntryPoint

import pytest

import harness.prompts.perturbations as registry
from harness.prompts.context import Form, Scope
from harness.records import ExpectedMask, Meaning, Variant


class Shout:
    """An outside perturbation that forgets to say what it edits."""

    name = "shout"
    meaning = Meaning.PRESERVED
    expected_mask = ExpectedMask.OWN
    per_attribute = False
    crossed_words = False
    scope = Scope.PROMPT
    form = Form.FREE

    def enumerate(self, prompt, *, attribute, context):
        yield Variant(prompt.text + "!", (), prompt.prompt_type)


@pytest.fixture
def outside(monkeypatch):
    """Pretends that a package with `Shout` is installed."""

    class Entry(EntryPoint):
        def load(self):
            return Shout

    monkeypatch.setattr(registry, "PERTURBATIONS", dict(registry.PERTURBATIONS))
    entries = [Entry("shout", "Shout", registry.ENTRY_POINTS)]
    monkeypatch.setattr(registry, "entry_points", lambda group: entries)


FEW = ("--datasets", "kvasir_polyp", "--examples", "5")


def test_a_perturbation_that_ships_keeps_every_law(call):
    code, out, err = call("check", "--perturbation", "punctuation,empty", *FEW)
    assert (code, err.count("laws of")) == (0, 2)
    assert "punctuation: 11 of 11 laws hold on the grammars of 1 datasets." in out
    assert "empty: 11 of 11 laws hold on the grammars of 1 datasets." in out
    assert call("check", "--perturbation", "empty", *FEW, "-q")[:2] == (0, "")


def test_an_outside_perturbation_is_checked_by_the_same_laws(call, outside):
    code, out, _ = call("check", "--perturbation", "shout", *FEW)
    assert code == 2
    place = "perturbation 'shout': kvasir_polyp: 'polyp': "
    assert f"{place}it says 'polyp!', where its edits make 'polyp'." in out
    assert "The law is: its edits lead there and back. Correct the perturbation or what" in out
    assert "shout: 10 of 11 laws hold" in out


def test_breaches_stand_in_json(call, outside):
    code, out, _ = call("check", "--perturbation", "shout", *FEW, "--json")
    assert code == 2
    (tried,) = json.loads(out)["perturbations"]
    assert tried["grammars"] == ["kvasir_polyp"]
    assert [breach["law"] for breach in tried["breaches"]] == ["its edits lead there and back"]


def test_an_unknown_perturbation_is_answered_with_the_nearest(call, outside):
    code, _, err = call("check", "--perturbation", "shoud")
    assert code == 2
    assert "--perturbation: unknown perturbation 'shoud'. Did you mean 'shout'?" in err
