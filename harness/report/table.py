"""The summary of a run as tables for a terminal.

Conventions: `rich` is imported here only when a table is made; texts are shown as they
are, without markup.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import polars as pl

from harness.report.escape import plain
from harness.report.sections import Section, sections

if TYPE_CHECKING:
    from rich.console import Group


def tables(summary: pl.DataFrame) -> "Iterator[Group]":
    """One renderable a section: title, lead, table; its notes stand in the Markdown file.

    Args:
        summary: Of a run.
    """
    for section in sections(summary):
        yield renderable(section)


def renderable(section: Section) -> "Group":
    """Title, lead and table of a section, without markup."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for place, name in enumerate(section.header):
        is_text = place < section.n_text
        table.add_column(name, justify="left" if is_text else "right", no_wrap=not is_text)
    for row in section.rows:
        table.add_row(*(Text(plain(cell)) for cell in row))
    parts = [Text(plain(section.title), style="bold cyan"), Text(plain(section.lead))]
    count = len(section.notes)
    told = f"  {count} notes on this table, and why a figure is missing: summary.md"
    notes = [Text(told, style="dim")] if count else []
    return Group(*parts, table, *notes, Text(""))
