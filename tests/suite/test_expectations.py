"""What a suite may expect of its probes, and what is said of a wrong expectation."""

import math
import re

import pytest
import yaml

from harness.errors import SuiteError
from harness.suite.expectations import Expectation, Margins, binding, expected
from harness.suite.schema import Suite, load_suite

SUITE = """\
name: mine
title: Mine
datasets:
  - {{name: kvasir_polyp}}
probes:
  - name: swapped
    perturbation: swap_value
    expect:
      - {entry}
"""


def load(tmp_path, entry):
    path = tmp_path / "mine.yaml"
    path.write_text(SUITE.format(entry=entry), encoding="utf-8")
    return load_suite(path)


@pytest.mark.parametrize(
    ("entry", "accepted"),
    [
        ("{kind: invariance, margin: 4}", (-4, 4)),
        ("{kind: invariance, of: points, margin: 1.5}", (-1.5, 1.5)),
        ("{kind: direction, below: -10}", (-math.inf, -10)),
        ("{kind: direction, of: named_gain, above: 0}", (0, math.inf)),
        ("{kind: minimum, of: agreement, at_least: 0.95}", (0.95, math.inf)),
        ("{kind: minimum, at_least: -5}", (-5, math.inf)),
    ],
)
def test_each_kind_accepts_a_region(tmp_path, entry, accepted):
    (found,) = load(tmp_path, entry).probes[0].expect
    assert found.accepted == accepted


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{kind: invariance, below: 3}", "'invariance' takes 'margin', not 'below'. Correct"),
        ("{kind: direction}", "'direction' needs one of 'above', 'below'. Correct the value"),
        ("{kind: direction, above: 1, below: 2}", "'direction' needs one of 'above', 'below'."),
        ("{kind: minimum, margin: 1}", "'minimum' takes 'at_least', not 'margin'."),
        (
            "{kind: minimum, of: agreement, at_least: 95}",
            "'agreement' is a fraction: its bound lies between 0 and 1.",
        ),
        (
            "{kind: invariance, of: dice, margin: 1}",
            "'invariance' is of 'relative_change' or 'points', not of 'dice'; use 'minimum'",
        ),
        ("{kind: invariance, of: points}", "'invariance' of 'points' needs 'margin'."),
        ("{kind: invariance, margin: -1}", "Input should be greater than 0. Correct the value."),
        ("{kind: invariance, margen: 1}", "unknown key. Did you mean 'margin'?"),
    ],
)
def test_a_wrong_expectation_is_answered_with_its_place(tmp_path, entry, message):
    with pytest.raises(SuiteError, match=re.escape(message)) as caught:
        load(tmp_path, entry)
    assert re.search(r"mine\.yaml:9: probes\[0\]\.expect\[0\]", str(caught.value))


@pytest.mark.parametrize(
    ("meaning", "margin"),
    [("preserved", 3.0), ("changed", 2.0), ("removed", 2.0), ("destroyed", 2.0)],
)
def test_a_silent_suite_expects_invariance_with_the_margin_of_the_meaning(meaning, margin):
    (found,) = expected(None, meaning, margins=Margins())
    assert (found.kind, found.of, found.margin) == ("invariance", "relative_change", margin)
    assert binding(None, meaning) is (meaning == "preserved")


def test_what_a_suite_states_binds_and_takes_its_margin_from_the_meaning():
    stated = [Expectation(kind="invariance"), Expectation(kind="minimum", of="dice", at_least=0.5)]
    found = expected(stated, "changed", margins=Margins(changed=7))
    assert [e.margin for e in found] == [7, None]
    assert binding(stated, "changed")


def test_originals_and_an_empty_list_expect_nothing():
    assert expected(None, "original", margins=Margins()) == ()
    assert expected([], "preserved", margins=Margins()) == ()


def test_a_suite_survives_its_lock_file():
    suite = Suite.model_validate(
        {
            "name": "s",
            "title": "s",
            "probes": [
                {"name": "a", "perturbation": "antonym"},
                {"name": "b", "perturbation": "antonym", "expect": []},
                {
                    "name": "c",
                    "perturbation": "antonym",
                    "expect": [{"kind": "direction", "below": -10}],
                },
            ],
            "statistics": {"margins": {"changed": 5}},
        }
    )
    text = yaml.safe_dump(suite.model_dump(mode="json", exclude_none=True))
    again = Suite.model_validate(yaml.safe_load(text))
    assert again == suite
    assert [p.expect is None for p in again.probes] == [True, False, False]
