"""A run for people: its data, and the figures, the page and the notebook view made of it."""

from pathlib import Path

from harness.errors import UsageError
from harness.report import html
from harness.report.figure import Figure
from harness.report.run_data import RunData


class LoadedRun(RunData):
    """One run directory that was summarised; a notebook shows its verdicts."""

    def listening_map(self) -> Figure | None:
        """Where each model stands; None if the run lacks one kind of probe."""
        return html.draw_listening_map(self)

    def figures(self) -> dict[str, Figure]:
        """All figures that the run has data for, by name."""
        return html.draw_figures(self)

    def write_report(self, out: Path, *, images: str | None = None) -> Path:
        """Write the page; see `harness.report.html.write_report`."""
        return html.write_report(self, out, images=images)

    def _repr_html_(self) -> str:
        """The verdicts and the listening map, as a notebook shows them."""
        return html.notebook_html(self)


def load_run(path: str | Path) -> LoadedRun:
    """Read a run directory.

    Raises:
        UsageError: There is no run.
    """
    folder = Path(path)
    if not (folder / "run.json").is_file():
        raise UsageError(
            f"{folder}: no run.json here. A run directory is needed. Give the folder that "
            "`vlsm-harness run` printed."
        )
    return LoadedRun(folder)
