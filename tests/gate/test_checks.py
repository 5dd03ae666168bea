"""What becomes of a check, and of all of them."""

import itertools
from dataclasses import replace
from typing import get_args

import pytest

from harness.gate.checks import (
    AGAINST,
    Check,
    Place,
    Rule,
    Severity,
    State,
    exit_code,
    ordered,
    result_of,
)

CHECK = Check("min_dice", Place("d", "test", "released", "p6"), "at least 0.5", "holds", "It is.")
PASSED = replace(CHECK, result="passed")
WHOLE = Check("completeness", Place(), "every case", "holds", "All.", result="passed")


@pytest.mark.parametrize("rule", get_args(Rule))
@pytest.mark.parametrize("state", get_args(State))
def test_what_becomes_of_a_state(rule, state):
    check = replace(CHECK, rule=rule, state=state)
    for strict, lenient in itertools.product((False, True), repeat=2):
        hard = not lenient if rule in AGAINST else strict
        expected = {"holds": "passed", "fails": "failed", "unable": "incomplete", "void": "warning"}
        expected["open"] = "failed" if hard else "warning"
        assert result_of(check, Severity(strict, lenient)) == expected[state]


def test_a_known_failure_fails_unless_the_suite_says_otherwise():
    known = replace(CHECK, state="fails", known=True)
    assert result_of(known, Severity()) == "failed"
    assert result_of(known, Severity(known_fails=False)) == "warning"
    assert result_of(replace(known, known=False), Severity(known_fails=False)) == "failed"


@pytest.mark.parametrize(
    ("results", "whole", "code"),
    [
        (["passed"], True, 0),
        (["passed", "warning"], True, 0),
        (["passed", "failed"], True, 1),
        (["incomplete", "failed"], True, 1),
        (["passed", "incomplete"], True, 3),
        (["passed", "failed"], False, 3),
        (["passed"], False, 3),
        (["warning"], True, 3),
        ([], True, 3),
    ],
)
def test_exit_codes(results, whole, code):
    run = WHOLE if whole else replace(WHOLE, state="unable", result="incomplete")
    checks = [run, *(replace(CHECK, result=result) for result in results)]
    assert exit_code(checks) == code
    assert exit_code(checks[::-1]) == code


def test_failures_come_first_and_new_ones_before_known_ones():
    known = replace(CHECK, result="failed", known=True)
    new = replace(CHECK, result="failed", rule="max_drop")
    late = replace(CHECK, result="warning")
    assert ordered([PASSED, late, known, new]) == [new, known, late, PASSED]


def test_a_place_reads_well():
    assert str(Place("kvasir_polyp", "test", "released", "p6", "antonym", "size")) == (
        "kvasir_polyp/test p6 antonym size"
    )
    assert str(Place("d", "", "corrected", "p6")) == "d corrected prompts p6"
    assert str(Place()) == ""


def test_a_record_is_plain():
    record = CHECK.record()
    assert record["p_value"] is None
    assert record["place"]["dataset"] == "d"
