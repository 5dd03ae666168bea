"""The gate's checks as JUnit XML, in the structure that Jenkins, GitLab and GitHub viewers read.

Conventions: a suite a dataset, a case a check. *failed* is a ``failure``, *incomplete* an ``error``
and a *warning* is ``skipped`` with its reason; a failure that the baseline has as well is of
the type ``known``. No times, so that equal checks give equal files.
"""

import re
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

from harness.gate.checks import Check, Result
from harness.gate.gating import Gated
from harness.report.escape import plain

# What XML 1.0 cannot hold, escaped or not.
_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ELEMENTS: dict[Result, str] = {"failed": "failure", "incomplete": "error", "warning": "skipped"}
_COUNTS = {"failures": "failed", "errors": "incomplete", "skipped": "warning"}
RUN = "run"
"""Name of the suite of checks that are of no dataset."""


def junit_xml(found: Gated) -> str:
    """The text of ``junit.xml``."""
    name = xml_text(f"{found.identity.model}: {found.title}")
    root = ElementTree.Element("testsuites", name=name, **_counts(found.checks))
    datasets = sorted({check.place.dataset for check in found.checks})
    for dataset in datasets:
        own = [check for check in found.checks if check.place.dataset == dataset]
        suite = ElementTree.SubElement(
            root, "testsuite", name=xml_text(dataset or RUN), **_counts(own)
        )
        _properties(suite, found)
        for check in own:
            _case(suite, check, found.identity.model)
    return _document(root)


def junit_error(message: str) -> str:
    """The text of ``junit.xml`` where the gate could decide nothing, because of an error."""
    counts: dict[str, Any] = {"tests": "1", "failures": "0", "errors": "1", "skipped": "0"}
    root = ElementTree.Element("testsuites", name="vlsm-harness gate", **counts)
    suite = ElementTree.SubElement(root, "testsuite", name=RUN, **counts)
    case = ElementTree.SubElement(
        suite, "testcase", classname=f"gate.{RUN}", name="error", time="0"
    )
    told = ElementTree.SubElement(case, "error", message=xml_text(message), type="error")
    told.text = xml_text(message)
    return _document(root)


def _document(root: ElementTree.Element) -> str:
    ElementTree.indent(root, " ")
    text = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'


def xml_text(text: str) -> str:
    r"""One line that XML can hold; the library escapes what it must.

    Example:
        >>> xml_text("a\x00b <c>\ufffe")
        'a b <c>?'
    """
    return _ILLEGAL.sub("?", plain(text))


def _counts(checks: Sequence[Check]) -> dict[str, Any]:
    counts = {key: sum(c.result == result for c in checks) for key, result in _COUNTS.items()}
    return {"tests": str(len(checks)), **{k: str(v) for k, v in counts.items()}, "time": "0"}


def _properties(suite: ElementTree.Element, found: Gated) -> None:
    holder = ElementTree.SubElement(suite, "properties")
    facts = {
        "model_id": found.identity.model_id,
        "plan_sha256": found.identity.plan_sha256,
        "metric": found.identity.metric,
        "verdict": found.identity.verdict,
        "baseline": found.baseline.model_id if found.baseline else "none",
        "pairing": found.pairing or "none",
    }
    for name, value in facts.items():
        ElementTree.SubElement(holder, "property", name=name, value=xml_text(value))


def _case(suite: ElementTree.Element, check: Check, model: str) -> None:
    # A dot in a class name is a folder to viewers.
    parts = (model, check.place.dataset or RUN, check.rule)
    folders = ".".join(xml_text(part).replace(".", "_") for part in parts)
    name = xml_text(": ".join(p for p in (str(check.place), check.asked) if p))
    case = ElementTree.SubElement(suite, "testcase", classname=folders, name=name, time="0")
    if check.result == "passed":
        return
    kind = "known" if check.known else check.state
    told = ElementTree.SubElement(case, _ELEMENTS[check.result], message=xml_text(check.reason))
    if check.result != "warning":
        told.set("type", kind)
        told.text = xml_text(f"{check.rule}: {check.reason}")
