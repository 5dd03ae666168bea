"""What the README tells a model's author to paste works as it stands."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "harness/pytest_plugin/README.md").read_text(encoding="utf-8")


def blocks(kind):
    return re.findall(rf"```{kind}\n(.*?)```", README, flags=re.DOTALL)


def test_the_command_runs_the_suite_and_writes_a_report(inner, place, pictures):
    """As it stands, with the toy's untrained weights, on pictures where it looks for them."""
    (text,) = (b for b in blocks("console") if "--vlsm-model" in b)
    prompt, program, *arguments = shlex.split(text)
    assert (prompt, program) == ("$", "pytest")
    (option,) = re.findall(r"`(--junit-xml \S+)`", README)
    arguments += shlex.split(option)
    (place.path / "data").symlink_to(pictures)

    found = inner(*arguments, "--vlsm-random-weights", model=None)

    found.assert_outcomes(passed=5, failed=1)
    assert (place.path / "prompts.xml").is_file()


def test_the_test_in_python_runs(inner, place):
    """On a model that loses its mask where size and color disagree, as only opposites make them."""
    (text,) = (b for b in blocks("python") if "vlsm_audit" in b)
    place.card(rest="small white|large pink")
    place.makepyfile(text)
    found = inner("-k", "matters")
    found.assert_outcomes(passed=1, deselected=6)
