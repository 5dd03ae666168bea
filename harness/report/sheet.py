"""The one record of a table, and how a terminal, Markdown, LaTeX and CSV show it.

Conventions: a cell has a text for reading and, if it is a figure, a key for sorting: the number
in plain notation, empty where it is undefined. CSV holds the data, not the texts. HTML is
made by the macro ``sheet_table`` of the templates.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import polars as pl

from harness.report.escape import escaped, plain

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, Group, RenderableType
    from rich.table import Table

WIDTH = 100
"""Columns of Markdown, so that it reads as plain text."""

_STARTS_BLOCK = re.compile(r"[-+=#>]+$|\d+[.)]$")


def number(value: float | None, digits: int) -> str:
    """A figure with a fixed number of decimals; ``-`` where it is undefined, never ``-0``.

    Example:
        >>> number(-0.001, 1), number(float("nan"), 1)
        ('0.0', '-')
    """
    if value is None or not math.isfinite(value):
        return "-"
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def figure_cell(value: float | None, digits: int, *ends: float | None) -> str:
    """A figure, with its limits where both are known.

    Example:
        >>> figure_cell(-1.26, 1, -2.04, 0.5), figure_cell(None, 1)
        ('-1.3 [-2.0, 0.5]', '-')
    """
    text = number(value, digits)
    limits = [number(end, digits) for end in ends]
    if text != "-" and limits and "-" not in limits:
        text += f" [{', '.join(limits)}]"
    return text


def interval(row: Mapping[str, Any], name: str, unit: str, digits: int) -> str:
    """The figure `name` of a row, in `unit`, with its limits where both are known."""
    ends = (row[f"{name}_{end}{unit}"] for end in ("low", "high"))
    return figure_cell(row[f"{name}{unit}"], digits, *ends)


def count_cell(value: int | None) -> str:
    """A count; thousands are set apart.

    Example:
        >>> count_cell(12345)
        '12,345'
    """
    return "-" if value is None else f"{value:,}"


def text_cells(texts: Iterable[Any]) -> tuple[str, ...]:
    """Words; what is not known is a dash."""
    return tuple("-" if text is None else str(text) for text in texts)


@dataclass(frozen=True)
class Sheet:
    """One table with what must be read beside it."""

    name: str  # of its files, letters and dashes
    title: str
    # Column titles; the first `n_text` columns are words, the others figures.
    header: tuple[str, ...]
    # As many texts as the header has; a page sorts figures by the number they begin with.
    rows: tuple[tuple[str, ...], ...]
    n_text: int  # how many columns are words
    data: pl.DataFrame = field(default_factory=pl.DataFrame)  # what the files hold, unrounded
    lead: str = ""  # one sentence above it; may be empty
    notes: tuple[str, ...] = ()  # sentences below it

    @property
    def csv(self) -> str:
        """The data as CSV."""
        return csv_text(self.data)


def csv_text(data: pl.DataFrame, digits: int = 10) -> str:
    r"""A table as CSV in UTF-8; undefined figures are empty.

    A text that a spreadsheet would take for a formula gets an apostrophe in front. Figures have
    `digits` significant digits.

    Example:
        >>> csv_text(pl.DataFrame({"prompt": ["=1+1", "polyp"], "dice": [0.5, float("nan")]}))
        "prompt,dice\n'=1+1,0.5\npolyp,\n"
    """
    flat = data.with_columns(
        pl.col(name).cast(pl.List(pl.String)).list.join("; ")
        for name, kind in data.schema.items()
        if isinstance(kind, pl.List)
    )
    texts, figures = (
        pl.selectors.string(),
        pl.selectors.float().fill_nan(None).round_sig_figs(digits),
    )
    return flat.with_columns(
        pl.when(texts.str.contains(r"^[=+\-@\t\r]")).then("'" + texts).otherwise(texts).name.keep(),
        pl.when(figures == 0).then(0.0).otherwise(figures).name.keep(),
    ).write_csv()


_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#",
        "%": r"\%", "_": r"\_", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
        "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "\n": " ", "\r": " ",
    }
)  # fmt: skip


def latex(sheet: Sheet) -> str:
    """The table for a paper: `booktabs`, words left, figures right, nothing to be executed."""
    columns = "l" * sheet.n_text + "r" * (len(sheet.header) - sheet.n_text)
    lines = [
        rf"% {_one_line(sheet.title)}; needs \usepackage{{booktabs}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        _latex_row(sheet.header),
        r"\midrule",
        *(_latex_row(row) for row in sheet.rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _latex_row(texts: Sequence[str]) -> str:
    return " & ".join(text.translate(_LATEX) for text in texts) + r" \\"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def renderable(sheet: Sheet) -> "Group":
    """Title, lead and table of a sheet, without markup."""
    from rich.console import Group
    from rich.text import Text

    parts = [Text(plain(text)) for text in (sheet.title, sheet.lead) if text]
    parts[0].stylize("bold cyan")
    if not sheet.rows:
        return Group(*parts, *(Text(f"  {plain(note)}") for note in sheet.notes), Text(""))
    count = len(sheet.notes)
    noun = "note" if count == 1 else "notes"
    told = f"  {count} {noun} on this table, and why a figure is missing: summary.md"
    notes = [Text(told, style="dim")] if count else []
    return Group(*parts, _Fitting(sheet), *notes, Text(""))


class _Fitting:
    """The table of a sheet; too wide, figures stand above their limits, then in several tables."""

    def __init__(self, sheet: Sheet) -> None:
        self.sheet = sheet

    def __rich_console__(
        self, console: "Console", options: "ConsoleOptions"
    ) -> "Iterator[RenderableType]":
        def fits(table: "Table") -> bool:
            return table.__rich_measure__(console, options).maximum <= options.max_width

        left = range(self.sheet.n_text, len(self.sheet.header))
        whole = self._drawn(left, in_two=False)
        if fits(whole):
            yield whole
            return
        while left:
            size = len(left)
            while size > 1 and not fits(self._drawn(left[:size], in_two=True)):
                size -= 1
            yield self._drawn(left[:size], in_two=True)
            left = left[size:]

    def _drawn(self, figures: Sequence[int], *, in_two: bool) -> "Table":
        from rich.table import Table
        from rich.text import Text

        sheet = self.sheet
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        for name in sheet.header[: sheet.n_text]:
            table.add_column(name, overflow="fold")
        for place in figures:
            title = sheet.header[place]
            if in_two:
                title = _two_lines(title) if " [" in title else "\n".join(title.rsplit(" ", 1))
            table.add_column(title, justify="right", no_wrap=True)
        for row in sheet.rows:
            words, cells = row[: sheet.n_text], [plain(row[place]) for place in figures]
            shown = map(_two_lines, cells) if in_two else cells
            table.add_row(*map(Text, (*map(plain, words), *shown)))
        return table


_BREAK = re.compile(r" (?=\[)|(?<=:) ")


def _two_lines(text: str) -> str:
    """A figure above its limits; a question above its answer."""
    return _BREAK.sub("\n", text, count=1)


def markdown_lines(sheet: Sheet, level: int = 2) -> Iterator[str]:
    """Title, lead, table and notes in Markdown, escaped, a line at a time."""
    yield f"{'#' * level} {escaped(sheet.title)}"
    if sheet.lead:
        yield ""
        yield from _wrapped(escaped(sheet.lead))
    if sheet.rows:
        yield ""
        words = sheet.n_text
        rows = [(*map(escaped, row[:words]), *row[words:]) for row in sheet.rows]
        yield from table_lines(sheet.header, rows, n_text=words)
    if sheet.notes:
        yield ""
        yield from bullets(map(escaped, sheet.notes))


def bullets(texts: Iterable[str], width: int = WIDTH) -> Iterator[str]:
    """A list item for each text, which is escaped already, in lines of at most `width`."""
    for text in texts:
        first, *others = _wrapped(text, width - 2)
        yield f"- {first}"
        yield from (f"  {line}" for line in others)


def _wrapped(text: str, width: int = WIDTH) -> list[str]:
    """Lines of at most `width`; a line never begins with what would start a list or a heading."""
    lines: list[str] = []
    for word in text.split():
        fits = lines and len(lines[-1]) + 1 + len(word) <= width
        if lines and (fits or _STARTS_BLOCK.match(word)):
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def table_lines(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, n_text: int
) -> Iterator[str]:
    """A table whose columns line up in plain text; the first `n_text` are words."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    yield _line(header, widths, n_text)
    rules = [
        ":" + "-" * (w - 1) if i < n_text else "-" * (w - 1) + ":" for i, w in enumerate(widths)
    ]
    yield _line(rules, widths, n_text)
    for row in rows:
        yield _line(row, widths, n_text)


def _line(cells: Sequence[str], widths: Sequence[int], n_text: int) -> str:
    padded = [
        cell.ljust(width) if i < n_text else cell.rjust(width)
        for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return f"| {' | '.join(padded)} |"
