"""A run as a notebook or a report reads it: frames, verdicts, charts.

Conventions: everything is read when it is first asked for. Frames are those of the run
directory (`harness.plan.build`, `harness.runs.store`, `harness.stats.columns`); nothing is
computed anew.
"""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from harness.errors import UsageError
from harness.report.charts import listening_map, listening_points
from harness.report.figure import Figure
from harness.runs.kept_masks import Kept, read_album
from harness.runs.store import RunStore
from harness.stats.assessment import Assessment
from harness.suite.schema import Suite


class LoadedRun:
    """One run directory that was summarised."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = RunStore(folder)

    @cached_property
    def manifest(self) -> Mapping[str, Any]:
        """The content of ``run.json``."""
        return self.store.manifest

    @cached_property
    def suite(self) -> Suite:
        """The suite as it was run."""
        return self.store.suite()

    @cached_property
    def assessment(self) -> Assessment:
        """Summary and verdicts."""
        return Assessment.read(self.folder)

    @cached_property
    def plan(self) -> pl.DataFrame:
        """Every planned case."""
        return self.store.plan_cases()

    @cached_property
    def scores(self) -> pl.DataFrame:
        """The counts of every case and model."""
        return self.store.scores()

    def cases(self) -> pl.DataFrame:
        """Every case beside its original, one row a (model, case); see `frame_cases`."""
        from harness.runs.frames import frame_cases

        return frame_cases(self.store)

    @property
    def summary(self) -> pl.DataFrame:
        """One row a (model, data set, split, prompts, prompt type, probe, attribute)."""
        return self.assessment.summary

    @cached_property
    def verdicts(self) -> pl.DataFrame:
        """One row an expectation."""
        return pl.DataFrame(
            [v.record() for v in self.assessment.verdicts], infer_schema_length=None
        )

    @cached_property
    def language(self) -> pl.DataFrame:
        """One row a (model, data set, prompts, prompt type)."""
        rows = [v.record() for v in self.assessment.language]
        return pl.DataFrame(rows, infer_schema_length=None)

    @cached_property
    def models(self) -> tuple[Mapping[str, Any], ...]:
        """The models' entries of the manifest; controls last."""
        entries = self.manifest.get("models", [])
        return tuple(sorted(entries, key=lambda m: (bool(m.get("control")), m["name"])))

    @cached_property
    def names(self) -> dict[str, str]:
        """What stands for each model, by its id: its name, or its id where two share a name."""
        names = [m["name"] for m in self.models]
        return {
            m["model_id"]: m["name"] if names.count(m["name"]) == 1 else m["model_id"]
            for m in self.models
        }

    @cached_property
    def title(self) -> str:
        """What the suite calls itself."""
        return self.suite.title

    @cached_property
    def private_sets(self) -> frozenset[str]:
        """Data sets whose pictures are not to be shown; an older run did not say which."""
        known = self.manifest.get("private_sets")
        return frozenset(known if known is not None else self.summary["dataset"].unique())

    def kept(self, model_id: str) -> tuple[Kept, ...]:
        """The cases of a model whose masks the run kept."""
        return tuple(read_album(self.folder, model_id))

    def listening_map(self) -> Figure | None:
        """Where each model stands; None if the run lacks one kind of probe."""
        return listening_map(listening_points(self.assessment), numbers=self.numbers)

    @cached_property
    def numbers(self) -> dict[str, int]:
        """A number for each model, in the order of `models`."""
        return {m["model_id"]: n for n, m in enumerate(self.models, start=1)}

    def figures(self) -> dict[str, Figure]:
        """All figures that the run has data for, by name."""
        from harness.report.figures import figures

        return {figure.name: figure for figure in figures(self)}

    def write_report(self, out: Path, *, images: str | None = None) -> Path:
        """Write the page; see `harness.report.html.write_report`."""
        from harness.report.html import write_report

        return write_report(self, out, images=images)

    def _repr_html_(self) -> str:
        """The verdicts and the listening map, as a notebook shows them."""
        from harness.report.html import notebook_html

        return notebook_html(self)


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
