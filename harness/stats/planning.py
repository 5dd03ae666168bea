"""From a stored run to the size of the next one.

Conventions: relative changes in percent. Clusters are those of the same kind, probe and words
as in the stored run; their number is the only thing that is changed.
"""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from harness.stats.power import clusters_for_none, clusters_needed, degrees_of_freedom
from harness.stats.power import smallest_effect as smallest


@dataclass(frozen=True, slots=True)
class PlanningRow:
    """What one row of a summary could show.

    Attributes:
        model: What tables call it.
        dataset: As in the summary, like the next five.
        split: Annotation file.
        prompts: Source of the prompts.
        prompt_type: Rung of the originals.
        probe: Name in the suite.
        attribute: None where the whole prompt is changed.
        n_clusters: Of the stored run.
        error: Standard error of the relative change.
        smallest_effect: The smallest true change it would show.
        clusters_for_effect: Clusters that would show the effect asked for; infinite where the
            words alone vary too much.
        clusters_for_none: Clusters that would show a change of 0 to lie within the margin.
    """

    model: str
    dataset: str
    split: str
    prompts: str
    prompt_type: str
    probe: str
    attribute: str | None
    n_clusters: int
    error: float
    smallest_effect: float
    clusters_for_effect: float
    clusters_for_none: float

    def record(self) -> dict[str, Any]:
        """Plain values for JSON: infinite becomes ``"never"``, undefined None."""
        return {k: _plain(v) for k, v in asdict(self).items()}


def _plain(value: Any) -> Any:
    if not isinstance(value, float) or math.isfinite(value):
        return value
    return "never" if math.isinf(value) else None


def planning_rows(
    summary: pl.DataFrame, *, effect: float, margin: float, power: float, least: int
) -> list[PlanningRow]:
    """A row for each probe and attribute that has a relative change with a standard error.

    Args:
        summary: Of a run.
        effect: True change to show, in percent.
        margin: To show a change of 0 in, in percent.
        power: Share of studies that are to show it.
        least: Clusters that a verdict needs in any case.
    """
    return list(_rows(summary, effect, margin, power, least))


def _rows(
    summary: pl.DataFrame, effect: float, margin: float, power: float, least: int
) -> Iterator[PlanningRow]:
    error = "relative_change_standard_error_percent"
    probes = summary.filter(
        ~pl.col("probe").is_in(["original", "out_of_distribution"]), pl.col(error).is_finite()
    )
    names = ("model", "dataset", "split", "prompts", "prompt_type", "probe", "attribute")
    for row in probes.iter_rows(named=True):
        words = row["relative_change_word_error_percent"]
        sizes = {"n_clusters": row["n_clusters"], "n_words": row["n_words"]}
        freedom = degrees_of_freedom(row[error], words, **sizes)
        like = {"word_error": words, "power": power, **sizes}
        yield PlanningRow(
            **{name: row[name] for name in names},
            n_clusters=row["n_clusters"],
            error=row[error],
            smallest_effect=float(smallest(row[error], freedom, power=power)),
            clusters_for_effect=max(clusters_needed(effect, row[error], **like), least),
            clusters_for_none=max(clusters_for_none(margin, row[error], **like), least),
        )
