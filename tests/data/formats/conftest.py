"""Sets in every form, and the reader that makes data sets of them."""

import importlib.util
from pathlib import Path

import pytest

from harness.data.formats import Choices, initialise

PLACE = Path(__file__).with_name("sets.py")


def load_sets():
    """The module beside this one, which is no package."""
    spec = importlib.util.spec_from_file_location("strangers_sets", PLACE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def sets():
    return load_sets()


class Asked:
    """Takes every default, or the answers that begin the questions, and remembers them."""

    def __init__(self, answers):
        self.answers, self.questions = answers, {}

    def __call__(self, question, default):
        self.questions[question] = default
        return next((a for q, a in self.answers.items() if question.startswith(q)), default)


@pytest.fixture
def make():
    """Reads a folder; its `asked` are the questions of the last call."""

    def read(folder, answers=None, **settings):
        ways = {k: settings.pop(k) for k in ("out", "name", "overwrite") if k in settings}
        read.asked = Asked(answers or {})
        return initialise(folder, Choices(ask=read.asked, **settings), **ways)

    return read
