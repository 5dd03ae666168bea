"""The gate's checks for GitHub Actions: annotations of a job, and the summary of a step.

Conventions: an annotation is one line, ``::error title=...::message``. Texts come from cards and
data: in a workflow command percent signs and line ends are escaped, in a title colons and
commas as well, so that no name ends the command or begins another one.
"""

import secrets
from collections.abc import Iterator

from harness.gate.checks import Check
from harness.gate.gating import Gated
from harness.report.escape import escaped, plain

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
