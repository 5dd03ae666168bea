"""The gate's checks for a terminal, for GitHub Actions and as JUnit XML.

Conventions: in a terminal what did not pass has a row each, failures first; what passed is counted
by rule. An annotation of GitHub is one line, ``::error title=...::message``. Texts come from cards
and data: in a workflow command percent signs and line ends are escaped, in a title colons and
commas as well, so that no name ends the command or begins another one. In JUnit XML, as Jenkins,
GitLab and GitHub viewers read it, a suite is a dataset and a case a check. *failed* is a
``failure``, *incomplete* an ``error`` and a *warning* is ``skipped`` with its reason; a failure
that the baseline has as well is of the type ``known``. No times, so that equal checks give equal
files.
"""

import re
import secrets
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from harness.gate.checks import Check, Result
from harness.gate.gating import Gated
from harness.report.escape import escaped, plain

if TYPE_CHECKING:
    from rich.console import RenderableType

_STYLES: dict[Result, str] = {"failed": "bold red", "incomplete": "yellow", "warning": "yellow"}


def gate_lines(found: Gated) -> "list[RenderableType]":
    """What a terminal shows of a gate: title, what did not pass, what did, the verdict."""
    from rich.text import Text

    lead = f"gate of {found.identity.model}: {found.title}"
    parts: list[RenderableType] = [Text(plain(lead), style="bold cyan")]
    if found.baseline is not None:
        parts.append(Text(plain(f"against {found.baseline.model_id}: {found.pairing}")))
    others = [check for check in found.checks if check.result != "passed"]
    if others:
        parts.append(_check_table(others))
    passed = [check.rule for check in found.of("passed")]
    counts = [f"{rule} {passed.count(rule)}" for rule in dict.fromkeys(passed)]
    parts.append(Text(f"passed: {', '.join(counts) or 'nothing'}"))
    style = "bold green" if found.code == 0 else "bold red"
    parts.append(Text(plain(found.verdict), style=style))
    return parts


def _check_table(checks: list[Check]) -> "RenderableType":
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in ("", "rule", "where", "what the data show"):
        drawn.add_column(name, ratio=None if name in ("", "rule") else 1)
    for check in checks:
        mark = check.result + (" (known)" if check.known else "")
        texts = [
            Text(mark, style=_STYLES[check.result], no_wrap=True),
            Text(check.rule, no_wrap=True),
        ]
        texts += [Text(plain(str(check.place))), Text(plain(check.reason))]
        drawn.add_row(*texts)
    return drawn


MOST = 10
"""Annotations of one kind that GitHub shows of a step."""

_MARKS = {"passed": "✅", "failed": "❌", "incomplete": "⏳", "warning": "⚠️"}


def annotations(found: Gated) -> Iterator[str]:
    """Workflow commands, failures first; what GitHub would not show is counted instead."""
    for result, level in (("failed", "error"), ("incomplete", "error"), ("warning", "warning")):
        own = [check for check in found.checks if check.result == result]
        kept = own if len(own) <= MOST else own[: MOST - 1]
        for check in kept:
            yield command(level, _title(check, found.baseline is not None), check.reason)
        if len(own) > len(kept):
            rest = f"{len(own) - len(kept)} more {result}; the step summary lists them."
            yield command(level, "vlsm-harness gate", rest)


def command(level: str, title: str, message: str) -> str:
    """One workflow command.

    Example:
        >>> command("error", "a:b, c", "100 %, ::error::")
        '::error title=a%3Ab%2C c::100 %25, ::error::'
    """
    return f"::{level} title={_property(title)}::{_data(message)}"


def stopped(text: str) -> str:
    """Text that may hold what looks like a command, so that none of it is obeyed."""
    token = secrets.token_hex(16)
    return f"::stop-commands::{token}\n{text.rstrip()}\n::{token}::"


def step_summary(found: Gated) -> str:
    """Markdown for ``GITHUB_STEP_SUMMARY``: the verdict, then a table, failures first."""
    lines = [f"### Gate of {escaped(found.identity.model)}: {escaped(found.verdict)}", ""]
    lines += [escaped(found.title), ""]
    if found.baseline is not None:
        lines += [f"Against {escaped(found.baseline.model_id)}: {escaped(found.pairing)}.", ""]
    lines += ["| | rule | where | what the data show |", "|---|---|---|---|"]
    for check in found.checks:
        mark = _MARKS[check.result] + (" known" if check.known else "")
        cells = (mark, check.rule, escaped(str(check.place)), escaped(check.reason))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", ""])


def _title(check: Check, has_baseline: bool) -> str:
    age = ("known " if check.known else "new ") if has_baseline else ""
    kind = f"{age}failure" if check.result == "failed" else check.result
    return f"{kind}: {check.rule} {check.place}"


def _data(text: str) -> str:
    return plain(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


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
