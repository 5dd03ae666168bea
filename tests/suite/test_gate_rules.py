"""The rules of the gate in a suite: short forms, places, and what is said of wrong ones."""

import re

import pytest

from harness.errors import SuiteError
from harness.suite.gate_rules import Gate, MaxDrop, NonInferiority
from harness.suite.schema import Suite, load_suite

SUITE = """\
name: mine
title: Mine
datasets:
  - {name: kvasir_polyp}
probes:
  - {name: gone, perturbation: empty}
  - {name: other, perturbation: case}
gate:
"""


def write(tmp_path, gate):
    path = tmp_path / "mine.yaml"
    path.write_text(SUITE + gate, encoding="utf-8")
    return path


def test_short_forms_are_the_long_ones(tmp_path):
    short = "  max_drop: 10\n  min_dice: 0.5\n  must_listen: [size, color]\n"
    long = (
        "  max_drop: [{at_most: 10}]\n  min_dice: [{at_least: 0.5}]\n"
        "  must_listen: [{attributes: [size, color]}]\n"
    )
    gates = [load_suite(write(tmp_path, text)).gate for text in (short, long)]
    assert gates[0] == gates[1]
    assert gates[0].max_drop == [MaxDrop(at_most=10)]


def test_a_suite_without_a_gate_has_the_defaults_and_survives_its_lock(tmp_path):
    suite = load_suite(write(tmp_path, "  {}\n"))
    assert suite.gate == Gate()
    assert suite.gate.non_inferiority == NonInferiority(margin=5.0)
    strict = suite.model_copy(update={"gate": Gate(max_drop=3, must_listen=["size"])})
    assert Suite.model_validate(strict.model_dump(mode="json", exclude_none=True)) == strict


@pytest.mark.parametrize(
    ("gate", "message"),
    [
        ("  max_dorp: 10\n", "mine.yaml:9: gate.max_dorp: unknown key. Did you mean 'max_drop'?"),
        (
            "  max_drop: [{at_mots: 10}]\n",
            "mine.yaml:9: gate.max_drop[0].at_mots: unknown key. Did you mean 'at_most'?",
        ),
        (
            "  max_drop: 0\n",
            "mine.yaml:9: gate.max_drop[0].at_most: found 0. Input should be greater than 0. "
            "Correct the value.",
        ),
        (
            "  min_dice: 60\n",
            "gate.min_dice[0].at_least: found 60. Input should be less than or equal to 1.",
        ),
        ("  must_listen: size\n", "mine.yaml:9: gate.must_listen: found 'size'. Input should be"),
        (
            "  non_inferiority: {margin: 5, meanings: [kept]}\n",
            "gate.non_inferiority.meanings[0]: found 'kept'. Input should be 'preserved', ",
        ),
        (
            "  max_drop:\n    - {at_most: 5, probes: [gonne]}\n",
            "mine.yaml:10: gate.max_drop[0].probes[0]: unknown probe 'gonne'. "
            "Did you mean 'gone'? Known probes: 'gone', 'other'.",
        ),
        (
            "  min_dice: [{at_least: 0.5, datasets: [busi]}]\n",
            "mine.yaml:9: gate.min_dice[0].datasets[0]: unknown dataset 'busi'. "
            "Known datasets: 'kvasir_polyp'.",
        ),
        (
            "  non_inferiority: {probes: [thing]}\n",
            "mine.yaml:9: gate.non_inferiority.probes[0]: unknown probe 'thing'.",
        ),
        ("  min_dice: [{at_least: 0.5, datasets: []}]\n", "at least 1 item"),
    ],
)
def test_a_wrong_rule_is_explained(tmp_path, gate, message):
    with pytest.raises(SuiteError, match=re.escape(message)):
        load_suite(write(tmp_path, gate))


def test_a_rule_may_name_the_probes_of_an_included_suite(tmp_path):
    text = "name: mine\ntitle: Mine\nincludes: [empty_prompt]\ngate:\n  max_drop: "
    path = tmp_path / "mine.yaml"
    path.write_text(text + "[{at_most: 5, probes: [empty], datasets: [busi]}]\n")
    assert load_suite(path).gate.max_drop[0].probes == ["empty"]


@pytest.mark.parametrize(
    ("rule", "covered"),
    [
        ({}, {("a", "same", None), ("b", "same", None), ("a", "same", "size")}),
        ({"datasets": ["b"]}, {("b", "same", None)}),
        ({"attributes": ["size"]}, {("a", "same", "size")}),
        ({"probes": "all", "datasets": ["a"]}, {("a", "same", None), ("a", "same", "size"),
                                               ("a", "gone", "size")}),
        ({"probes": ["gone"]}, {("a", "gone", "size")}),
    ],
)  # fmt: skip
def test_where_a_drop_is_limited(rule, covered):
    places = {
        ("a", "same", None),
        ("b", "same", None),
        ("a", "same", "size"),
        ("a", "gone", "size"),
    }
    meaning = {"same": "preserved", "gone": "removed"}
    found = {p for p in places if MaxDrop(at_most=5, **rule).covers(*p, meaning[p[1]])}
    assert found == covered


def test_the_regression_that_must_be_seen_is_the_least_drop_that_applies():
    gate = Gate(max_drop=[{"at_most": 4, "datasets": ["a"]}, {"at_most": 2, "probes": ["gone"]}])
    assert gate.largest_unseen("a", "same", None) == 4
    assert gate.largest_unseen("a", "gone", None) == 2
    assert gate.largest_unseen("b", "same", None) == 10
    assert Gate(max_drop=3).largest_unseen("b", "original", None) == 3
