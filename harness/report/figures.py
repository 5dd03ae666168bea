"""Every figure that a run has data for, in the order of the page."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from harness.report.attribute_chart import attribute_figure
from harness.report.breakdown import word_effects, word_figure
from harness.report.figure import Figure
from harness.report.ladder import ladder_figure
from harness.report.scatter import agreement_figure, away_figure

if TYPE_CHECKING:
    from harness.report.loaded import LoadedRun


def figures(run: "LoadedRun") -> Iterator[Figure]:
    """The figures of a run; what it has no data for is left out.

    Conventions: see each figure's own module.
    """
    summary, names = run.summary, run.names
    controls = frozenset(m["model_id"] for m in run.models if m.get("control"))
    found = (
        run.listening_map(),
        attribute_figure(summary, names),
        ladder_figure(summary, run.suite, names, controls),
        away_figure(summary, names),
        agreement_figure(summary, names),
        word_figure(word_effects(run.store, run.suite, run.summary), names),
    )
    yield from (figure for figure in found if figure is not None)
