"""Errors are one string, and name what was meant."""

import re

import pytest

from harness import errors
from harness.errors import CardError, HarnessError, SuiteError, choose


def test_unknown_name_is_answered_with_the_nearest():
    message = "unknown metric 'dise'. Did you mean 'dice'? Known metrics: 'dice', 'iou'."
    with pytest.raises(SuiteError, match=re.escape(message) + "$"):
        choose("dise", ["iou", "dice"], kind="metric", where="a.yaml: checks[2].metric")


def test_a_far_name_gets_no_guess():
    message = "here: unknown colour 'zebra'. Known colours: 'red'."
    with pytest.raises(CardError, match="^" + re.escape(message) + "$"):
        choose("zebra", ["red"], kind="colour", where="here", error=CardError)


def test_a_known_name_is_returned():
    assert choose("red", ["red"], kind="colour", where="here") == "red"


def test_every_error_is_a_harness_error():
    classes = [c for c in vars(errors).values() if isinstance(c, type)]
    assert len(classes) > 5
    assert all(issubclass(c, HarnessError) for c in classes if issubclass(c, Exception))
