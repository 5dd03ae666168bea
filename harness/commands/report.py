"""``report``: a run as a page, as pictures for print, and as tables for a paper."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.commands.options import Quiet
from harness.commands.output import say

if TYPE_CHECKING:
    from harness.report.loaded import LoadedRun
    from harness.report.sheet import Sheet


def report(
    run: Annotated[Path, typer.Argument(help="A run directory.")],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="The page. [default: RUN/report.html]")
    ] = None,
    images: Annotated[
        str | None,
        typer.Option(
            "--images",
            help="none, thumbnails or full. [default: thumbnails, none of private data sets]",
        ),
    ] = None,
    figures: Annotated[
        Path | None, typer.Option("--figures", help="Write the figures as SVG, PDF and PNG here.")
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option("--markdown", help="Write the summary as Markdown.")
    ] = None,
    csv: Annotated[
        Path | None, typer.Option("--csv", help="Write every table as CSV here.")
    ] = None,
    latex: Annotated[
        Path | None, typer.Option("--latex", help="Write the tables as LaTeX here.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Write a run's report: one HTML file; on request figures and tables of a paper."""
    from harness.errors import UsageError, choose
    from harness.files.writing import refuse_unwritable
    from harness.report.gallery import IMAGES
    from harness.report.loaded import load_run

    if images is not None:
        choose(images, IMAGES, kind="choice", where="--images", error=UsageError)
    loaded, page = load_run(run), out or run / "report.html"
    for file in (page, markdown):
        refuse_unwritable(file)
    for folder in (figures, csv, latex):
        refuse_unwritable(folder, is_folder=True)
    written = [loaded.write_report(page, images=images)]
    written += _figures(loaded, figures) if figures else []
    written += _markdown(loaded, markdown) if markdown else []
    written += _tables(loaded, csv, "csv") if csv else []
    written += _tables(loaded, latex, "tex") if latex else []
    if not quiet:
        for path in written:
            say(str(path))


def _figures(run: "LoadedRun", folder: Path) -> list[Path]:
    from harness.report.figure import write_figure

    return [path for figure in run.figures().values() for path in write_figure(figure, folder)]


def _markdown(run: "LoadedRun", path: Path) -> list[Path]:
    from harness.files.writing import write_text
    from harness.report.markdown import markdown, record_lines

    masks = record_lines(run.manifest)
    write_text(path, markdown(run.assessment, title=run.title, masks=masks))
    return [path]


def _tables(run: "LoadedRun", folder: Path, kind: str) -> list[Path]:
    from harness.files.writing import replace_together
    from harness.report.sheet import latex

    written = {
        folder / f"{sheet.name}.{kind}": (sheet.csv if kind == "csv" else latex(sheet)).encode()
        for sheet in _sheets(run)
    }
    replace_together(written)
    return list(written)


def _sheets(run: "LoadedRun") -> "list[Sheet]":
    from harness.report import sheets

    found = [
        sheets.originals_sheet(run.summary),
        sheets.probes_sheet(run.summary),
        sheets.away_sheet(run.summary),
        sheets.expectations_sheet(run),
        sheets.language_sheet(run),
    ]
    return [sheet for sheet in found if sheet.rows]
