"""``demo``: the whole audit on scenes and models that ship, where the answer is known."""

import time
from collections.abc import Iterator
from pathlib import Path
from textwrap import fill
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from harness.auditing.choices import select_suite
from harness.auditing.evaluating import Conditions
from harness.auditing.running import run_models
from harness.auditing.summarising import summarise
from harness.cards import load_dataset_card, load_model_card, model_names
from harness.commands.options import Quiet
from harness.commands.output import say, terminal
from harness.commands.progress import Terminal, interruptible
from harness.report.headline import most_telling
from harness.report.table import LINE, deciding_table, verdict_line
from harness.runs.store import RunStore
from harness.stats.assessment import Assessment
from harness.stats.verdicts import coverage_note


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Run directory.")] = Path("runs/demo"),
    limit: Annotated[
        int,
        typer.Option("--limit", "-n", min=2, help="Scenes per data set; 20 are needed to tell."),
    ] = 24,
    quiet: Quiet = False,
) -> None:
    """Audit the small models that ship on generated scenes, in about two minutes."""
    started = time.monotonic()
    with interruptible():
        store = run_models(
            select_suite("demo"),
            [(name, None) for name in shipped_models()],
            root=out.with_name(f"{out.name}-data"),
            out=out,
            limit=limit,
            conditions=Conditions(workers=None),
            listener=Terminal(quiet=quiet),
        )
        with store.locked():
            for note in set_older_aside(store):
                say(f"note: {note}", err=True)
            found = summarise(store)
    if not quiet:
        show(found.assessment)
        say(f"{time.monotonic() - started:.0f} s. Everything else is in {out}/:")
        say("  summary.md     every probe, with intervals and what did not apply")
        say("  verdicts.json  what is concluded, with evidence and what confounds it")
        say("  masks/         the worst and steadiest cases, for the report's gallery")
        say("  summary.json   the figures for programs; plan.parquet, scores/: every case")
        say(f"As a page, with pictures: vlsm-harness report {out}")
    if not found.is_whole:
        raise typer.Exit(3)


def set_older_aside(store: RunStore) -> Iterator[str]:
    """Take out of a run what earlier code or weights made of its models; a sentence on each.

    Each model that ships would stand twice in tables and pictures otherwise.
    """
    entries = store.manifest.get("models", [])
    now = {entry["name"]: entry["model_id"] for entry in entries
           if entry["model_id"] in store.manifest.get("evaluated", [])}  # fmt: skip
    for entry in entries:
        name, model_id = entry["name"], entry["model_id"]
        if now.get(name, model_id) != model_id:
            place = store.drop_model(model_id)
            yield (
                f"{model_id} is of earlier code or weights and is left out, since {now[name]} is "
                f"there; its scores were moved to {place}."
            )


def shipped_models() -> list[str]:
    """Models that ship with weights and were trained on generated scenes alone; controls last."""
    cards = {name: load_model_card(name).card for name in model_names()}
    chosen = [
        (card.control, name)
        for name, card in cards.items()
        if card.checkpoint is not None
        and card.trained_on
        and all(load_dataset_card(dataset).generator for dataset in card.trained_on)
    ]
    return [name for _, name in sorted(chosen)]


def show(found: Assessment) -> None:
    """Print the table of deciding attributes and a line a model."""
    console = terminal(120)
    summary = found.summary
    telling = most_telling(found.language)
    shown = _drawn(*deciding_table(summary, telling))
    limits = "in % [95 %]"
    if shown.__rich_measure__(console, console.options).minimum > console.width:
        shown, limits = _drawn(*deciding_table(summary, telling, intervals=False)), "in %"
    title = (
        f"Change of Dice {limits} when the one word that decides becomes its opposite; "
        "refuses: % of prompts for what is not there"
    )
    console.print(Text(title, style="bold"), shown, "", sep="\n")
    for verdict in telling:
        if verdict.is_asked:
            console.print(Text(verdict_line(verdict)), soft_wrap=True)
    if few := coverage_note(min((v.n_clusters for v in telling), default=0)):
        console.print(Text(fill(few, LINE)))
    console.print()


def _drawn(header: list[str], rows: list[list[str]]) -> Table:
    drawn = Table(box=None, padding=(0, 2, 0, 0))
    for place, name in enumerate(header):
        # A data set's name may break after 'Dice'.
        longest = max((len(row[place]) for row in rows), default=0)
        drawn.add_column(name, justify="right" if place else "left", min_width=longest)
    for row in rows:
        drawn.add_row(*(Text(cell, no_wrap=True) for cell in row))
    return drawn
