"""A pytest plugin: suites as tests, one a probe and dataset, from one inference a session.

``pytest my.suite.yaml --vlsm-model card.yaml --vlsm-data-root data/`` collects the suite;
without ``--vlsm-model`` nothing is collected. For tests in Python there are the fixture
`vlsm_audit` and the marker ``@pytest.mark.vlsm(suite, ...)``.

Conventions: an expectation that binds and *fails* fails its test; one that is *inconclusive* or
does not apply skips it with the reason (``--vlsm-strict``: inconclusive fails); a probe that
nobody expects anything of passes once it was measured, and its answer stands in the JUnit
file's properties. This module is imported by every pytest session of an environment: it
imports nothing but pytest. PYTEST_DONT_REWRITE: it holds no assertion, and whoever imported
it before pytest did is not to be warned.
"""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from harness.pytest_plugin.audit import Audit

_MARKER = (
    "vlsm(suite, model=None, datasets=None, split=None, prompt_type=None, prompts=None, "
    "limit=None, device=None, data_root=None): what the fixture `vlsm_audit` runs; what is left "
    "out is the suite's, or the command line's."
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options, all of which begin with ``--vlsm-``."""
    group = parser.getgroup("vlsm", "vlsm-harness: suites of prompts as tests")
    group.addoption(
        "--vlsm-model",
        action="append",
        default=[],
        metavar="CARD[=CHECKPOINT]",
        help="Model to test; repeat for several. Suites are collected only with it.",
    )
    group.addoption(
        "--vlsm-data-root",
        default=os.environ.get("VLSM_DATA_ROOT"),
        metavar="DIR",
        help="Folder above the datasets' own. [default: VLSM_DATA_ROOT, else data; without such a "
        "folder the user's cache, for generated ones]",
    )
    group.addoption(
        "--vlsm-limit", type=_count, metavar="N", help="At most so many images per dataset."
    )
    group.addoption("--vlsm-device", default="auto", help="auto, cpu or cuda.")
    group.addoption(
        "--vlsm-out", metavar="DIR", help="Folder of runs. [default: vlsm/ in pytest's cache]"
    )
    group.addoption("--vlsm-strict", action="store_true", help="Inconclusive verdicts fail.")
    group.addoption(
        "--vlsm-random-weights",
        action="store_true",
        help="Untrained models, to try the machinery.",
    )


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"found {text!r}. A whole number from 1 on is needed.")
    return int(text)


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known, so that ``--strict-markers`` accepts it."""
    config.addinivalue_line("markers", _MARKER)


def pytest_report_header(config: pytest.Config) -> str | None:
    """The models, where there are any."""
    models = config.getoption("--vlsm-model")
    return f"vlsm: {', '.join(models)}" if models else None


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """A suite: ``*.suite.yaml``, or any YAML file that the command line names."""
    if not parent.config.getoption("--vlsm-model") or file_path.suffix not in {".yaml", ".yml"}:
        return None
    is_suite = Path(file_path.stem).suffix == ".suite"
    if not is_suite and not parent.session.isinitpath(file_path):
        return None
    from harness.pytest_plugin.items import SuiteFile

    found: pytest.Collector = SuiteFile.from_parent(parent, path=file_path)
    return found


@pytest.fixture
def vlsm_audit(request: pytest.FixtureRequest) -> "Audit":
    """The audit that the test's ``vlsm`` marker asks for; equal ones are run once a session."""
    from harness.pytest_plugin.session import audited, marked

    marker: Any = request.node.get_closest_marker("vlsm")
    return audited(request.config, marked(request.config, marker, request.path.parent))
