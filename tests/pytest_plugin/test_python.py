"""Tests in Python: the fixture and the marker."""

import pytest

TEST = """
import pytest
from harness.errors import UsageError

@pytest.mark.vlsm("my.suite.yaml")
def test_keeps(vlsm_audit):
    vlsm_audit.require("case")
    vlsm_audit.require("synonym", attribute="size", dataset="kvasir_polyp")
    assert {v.language for v in vlsm_audit.language} == {"unmoved here"}
    assert set(vlsm_audit.summary["model"]) == {"spotter"}

@pytest.mark.vlsm("my.suite.yaml")
def test_listens(vlsm_audit):
    vlsm_audit.require("antonym", "fails")

@pytest.mark.vlsm("my.suite.yaml", limit=8)
def test_few(vlsm_audit):
    vlsm_audit.require("case")

@pytest.mark.vlsm("my.suite.yaml", model="other.yaml", datasets="kvasir_polyp", prompt_type="p4")
def test_other(vlsm_audit):
    with pytest.raises(AssertionError, match="spotter on kvasir_polyp .test, p4., case of the"):
        vlsm_audit.require("case")
    with pytest.raises(UsageError, match="no verdict on the probe 'caes'.*verdicts: 'antonym', "):
        vlsm_audit.require("caes")
"""


def test_a_test_in_python_asks_an_audit(inner, place):
    place.card("other", rest="POLYP")
    place.makepyfile(TEST)
    found = inner()
    found.assert_outcomes(passed=7, failed=2, skipped=1)
    text = found.stdout.str()
    assert "ProbeFailed: spotter on kvasir_polyp (test, p6), antonym of size" in text
    assert "inconclusive: case of the whole prompt: No verdict: 8 clusters" in text
    runs = list(place.path.rglob("run.json"))
    assert len(runs) == 3  # equal requests share one


def test_without_a_model_such_a_test_is_skipped(inner, place):
    place.makepyfile(TEST.partition("@pytest.mark.vlsm('my.suite.yaml', limit")[0])
    found = inner("-k", "test_keeps", model=None)
    found.assert_outcomes(skipped=1, deselected=3)
    found.stdout.fnmatch_lines(["*no model: give --vlsm-model CARD, or model=CARD in*"])


@pytest.mark.parametrize(
    ("marker", "message"),
    [
        ("", "vlsm_audit: the test has no marker. It says what to run: put"),
        ("@pytest.mark.vlsm('a.yaml', limt=3)", "unknown argument 'limt'. Did you mean 'limit'?"),
        ("@pytest.mark.vlsm('a.yaml', 'b', 'c')", "3 arguments without a name. At most suite"),
        ("@pytest.mark.vlsm()", "@pytest.mark.vlsm: no suite. One is needed."),
        ("@pytest.mark.vlsm('random_wrd')", "Did you mean 'random_word'?"),
    ],
)
def test_a_marker_that_cannot_be_run_says_how_to_repair_it(inner, place, marker, message):
    place.makepyfile(f"import pytest\n{marker}\ndef test_it(vlsm_audit):\n    pass\n")
    found = inner("test_a_marker_that_cannot_be_run_says_how_to_repair_it.py")
    found.assert_outcomes(errors=1)
    assert message in found.stdout.str()


FUNCTION = """
import pytest
import harness

def bright(image, prompt):
    return image.mean(axis=-1) > (110 if prompt else 255)

@pytest.mark.vlsm("my.suite.yaml", model=harness.wrap(bright, name="bright"))
def test_bright(vlsm_audit):
    assert set(vlsm_audit.summary["model"]) == {"bright"}
    assert len(vlsm_audit.model_ids) == 1

@pytest.mark.vlsm("my.suite.yaml", model=[harness.wrap(bright, name="bright")])
def test_again(vlsm_audit):
    assert vlsm_audit.verdicts()
"""


def test_a_function_is_a_model_of_a_test(inner, place):
    place.makepyfile(FUNCTION)
    found = inner(model=None)
    found.assert_outcomes(passed=2)
    assert len(list(place.path.rglob("run.json"))) == 1
