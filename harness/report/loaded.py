"""A run for people: its data, and the figures, the page and the notebook view made of it."""

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from harness.errors import HarnessError, UsageError
from harness.report import html
from harness.report.escape import plain
from harness.report.figure import Figure
from harness.report.headline import most_telling
from harness.report.run_data import RunData
from harness.report.sheet import interval
from harness.report.table import verdict_line

_FEW = 3


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

    def __repr__(self) -> str:
        """Where it lies, what was asked and how far it is."""
        if not (self.folder / "run.json").is_file():
            return f"LoadedRun({str(self.folder)!r})"
        names = [self.names[entry["model_id"]] for entry in self.models]
        models = ", ".join(names) if len(names) <= _FEW else f"{len(names)} models"
        limit = self.manifest.get("limit")
        limited = "" if limit is None else f", limited to {limit} pictures a data set"
        return (
            f"LoadedRun({str(self.folder)!r}: suite {self.suite.name}, {self.manifest['status']}"
            f"{limited}; {plain(models)})"
        )

    def __str__(self) -> str:
        """The same, and a line a model: what it listens to, refuses and keeps."""
        try:
            spoken = [v for v in most_telling(self.assessment.language) if v.is_asked]
        except HarnessError as problem:
            return f"{self!r}\n{problem}"
        lines = [verdict_line(verdict) for verdict in spoken] or list(self._originals())
        return "\n".join([repr(self), *lines, "Figures: .summary, .language, .verdicts, .cases()"])

    def _originals(self) -> Iterator[str]:
        """Of a run that asks for no verdict: Dice of the original prompts."""
        for row in self.summary.filter(pl.col("probe") == "original").iter_rows(named=True):
            where = f"{row['model']} on {row['dataset']} ({row['split']}, {row['prompt_type']})"
            yield f"{plain(where)}: Dice {interval(row, 'dice', '', 3)}"

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
