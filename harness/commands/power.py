"""``power``: what a stored run could show, and how many clusters more could."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from harness.commands.options import AsJson
from harness.commands.output import say, say_json, terminal
from harness.report.escape import plain
from harness.report.sheet import number
from harness.runs.store import RunStore
from harness.stats.assessment import Assessment
from harness.stats.power import planning_rows

HEADER = ("probe", "attribute", "clusters", "error %", "could show %", "for {effect}", "for none")


def power(
    run: Annotated[Path, typer.Argument(help="A run directory that was summarised.")],
    effect: Annotated[
        float, typer.Option("--effect", min=0.01, help="Relative change of Dice to show, percent.")
    ] = 5.0,
    margin: Annotated[
        float, typer.Option("--margin", min=0.01, help="Margin to show no change in, percent.")
    ] = 2.0,
    wanted: Annotated[
        float, typer.Option("--power", min=0.5, max=0.999, help="Share of studies that show it.")
    ] = 0.8,
    as_json: AsJson = False,
) -> None:
    """How small a change a run could show, and the clusters that another would need."""
    found = Assessment.read(run)
    least = RunStore(run).suite().statistics.minimum_clusters
    rows = planning_rows(found.summary, effect=effect, margin=margin, power=wanted, least=least)
    if as_json:
        say_json([row.record() for row in rows])
        return
    _show(rows, effect=effect)
    say(
        f"could show: the smallest true change that {100 * wanted:.0f} % of studies like this one "
        f"show (two-sided 5 %). for {effect:g} %: clusters that show such a change as often; for "
        f"none: clusters that show no change at all to lie within {margin:g} % as often; each at "
        f"least the {least} that a verdict needs. never: the words alone vary too much."
    )


def _show(rows: list[Any], *, effect: float) -> None:
    console = terminal(110)
    sets: dict[tuple[str, ...], list[Any]] = {}
    for row in rows:
        sets.setdefault((row.model, row.dataset, row.split, row.prompt_type), []).append(row)
    for (model, dataset, split, prompt_type), own in sets.items():
        console.print(Text(f"{model} on {dataset} ({split}, {prompt_type})", style="bold cyan"))
        console.print(_table(own, effect), "")


def _table(rows: list[Any], effect: float) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for place, name in enumerate(HEADER):
        table.add_column(
            name.format(effect=f"{effect:g} %"), justify="right" if place > 1 else "left"
        )
    for row in rows:
        figures = (number(row.error, 2), number(row.smallest_effect, 1))
        needed = (_count(row.clusters_for_effect), _count(row.clusters_for_none))
        texts = (row.probe, row.attribute or "whole prompt", str(row.n_clusters), *figures, *needed)
        table.add_row(*(Text(plain(text)) for text in texts))
    return table


def _count(needed: float) -> str:
    if needed != needed:
        return "-"
    return "never" if needed == float("inf") else f"{needed:.0f}"
