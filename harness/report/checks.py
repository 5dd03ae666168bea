"""The gate's checks as a table for a terminal.

Conventions: what did not pass has a row each, failures first; what passed is counted by rule.
Texts are shown as they are, without markup.
"""

from typing import TYPE_CHECKING

from harness.gate.checks import Check, Result
from harness.gate.gating import Gated
from harness.report.escape import plain

if TYPE_CHECKING:
    from rich.console import RenderableType

_STYLES: dict[Result, str] = {"failed": "bold red", "incomplete": "yellow", "warning": "yellow"}


def table(found: Gated) -> "list[RenderableType]":
    """What a terminal shows of a gate: title, what did not pass, what did, the verdict."""
    from rich.text import Text

    lead = f"gate of {found.identity.model}: {found.title}"
    parts: list[RenderableType] = [Text(plain(lead), style="bold cyan")]
    if found.baseline is not None:
        parts.append(Text(plain(f"against {found.baseline.model_id}: {found.pairing}")))
    others = [check for check in found.checks if check.result != "passed"]
    if others:
        parts.append(_rows(others))
    passed = [check.rule for check in found.of("passed")]
    counts = [f"{rule} {passed.count(rule)}" for rule in dict.fromkeys(passed)]
    parts.append(Text(f"passed: {', '.join(counts) or 'nothing'}"))
    style = "bold green" if found.code == 0 else "bold red"
    parts.append(Text(plain(found.verdict), style=style))
    return parts


def _rows(checks: list[Check]) -> "RenderableType":
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
