"""Tables of a report: what is shown, what it sorts by, and the data behind it.

Conventions: a cell has a text for reading and, if it is a figure, a key for sorting: the number
in plain notation, empty where it is undefined. The file formats hold the data, not the texts.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import polars as pl

from harness.report.sections import number


class Cell(NamedTuple):
    """One cell: its text, and what it sorts by if it is a figure."""

    text: str
    key: str = ""


def figure_cell(value: float | None, digits: int, *ends: float | None) -> Cell:
    """A figure, with its limits where both are known.

    Example:
        >>> figure_cell(-1.26, 1, -2.04, 0.5)
        Cell(text='-1.3 [-2.0, 0.5]', key='-1.26')
        >>> figure_cell(None, 1)
        Cell(text='-', key='')
    """
    text = number(value, digits)
    limits = [number(end, digits) for end in ends]
    if text != "-" and limits and "-" not in limits:
        text += f" [{', '.join(limits)}]"
    if value is None or not math.isfinite(value):
        return Cell(text)
    # Adding 0 turns -0.0, a matter of rounding, into 0.0.
    return Cell(text, f"{value + 0.0:.6g}")


def count_cell(value: int | None) -> Cell:
    """A count; thousands are set apart.

    Example:
        >>> count_cell(12345)
        Cell(text='12,345', key='12345')
    """
    return Cell("-") if value is None else Cell(f"{value:,}", str(value))


def text_cells(texts: Iterable[Any]) -> tuple[Cell, ...]:
    """Words; what is not known is a dash."""
    return tuple(Cell("-" if text is None else str(text)) for text in texts)


@dataclass(frozen=True)
class Sheet:
    """One table.

    Attributes:
        name: Of its files, letters and dashes.
        title: What the table is about.
        header: Column titles; the first `n_text` columns are words, the others figures.
        rows: As many cells as the header has.
        n_text: How many columns are words.
        data: What the files hold, unrounded.
    """

    name: str
    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    n_text: int
    data: pl.DataFrame

    @property
    def csv(self) -> str:
        """The data as CSV."""
        return csv_text(self.data)


def csv_text(data: pl.DataFrame) -> str:
    r"""A table as CSV in UTF-8; undefined figures are empty.

    A text that a spreadsheet would take for a formula gets an apostrophe in front.

    Example:
        >>> csv_text(pl.DataFrame({"prompt": ["=1+1", "polyp"], "dice": [0.5, float("nan")]}))
        "prompt,dice\n'=1+1,0.5\npolyp,\n"
    """
    flat = data.with_columns(
        pl.col(name).cast(pl.List(pl.String)).list.join("; ")
        for name, kind in data.schema.items()
        if isinstance(kind, pl.List)
    )
    texts, figures = pl.selectors.string(), pl.selectors.float().fill_nan(None).round_sig_figs(10)
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
        *(_latex_row([cell.text for cell in row]) for row in sheet.rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _latex_row(texts: Sequence[str]) -> str:
    return " & ".join(text.translate(_LATEX) for text in texts) + r" \\"


def _one_line(text: str) -> str:
    return " ".join(text.split())
