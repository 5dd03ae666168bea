"""``peek``: original and variant side by side, no model and no pictures.

Conventions: words that the variant lacks are struck out on the left, words that it brings
stand on the right in green; the marks ``[-x-]`` and ``{+x+}`` say the same without colour.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.commands.options import (
    AsJson,
    DataRoot,
    Datasets,
    PromptRung,
    PromptSource,
    Seed,
    Split,
    SuiteName,
)
from harness.commands.output import say_json, terminal

if TYPE_CHECKING:
    import polars as pl
    from rich.table import Table
    from rich.text import Text

    from harness.plan.build import PlannedSet
    from harness.records import Edit

Case = Mapping[str, Any]


def peek(
    suite: SuiteName,
    data_root: DataRoot = None,
    datasets: Datasets = None,
    split: Split = None,
    prompt_type: PromptRung = None,
    prompts: PromptSource = None,
    seed: Seed = None,
    n: Annotated[
        int,
        typer.Option("-n", "--limit", min=1, help="Samples per dataset, spread over the split."),
    ] = 2,
    probe: Annotated[
        list[str] | None, typer.Option("--probe", help="Only these probes: a,b or repeated.")
    ] = None,
    variants: Annotated[
        int, typer.Option("--variants", min=1, help="Shown per sample and attribute.")
    ] = 3,
    as_json: AsJson = False,
) -> None:
    """Show what a suite does to the prompts of a few samples."""
    from harness.auditing.choices import select_suite
    from harness.auditing.samples import choose_root, read_sets, sets_of
    from harness.commands.progress import Terminal
    from harness.plan.build import build_plan

    chosen = select_suite(
        suite, datasets=datasets, split=split, prompt_type=prompt_type, prompts=prompts, seed=seed
    )
    chosen = chosen.model_copy(update={"probes": _selected(chosen.probes, probe)})
    root = choose_root(data_root, sets_of(chosen), listener=Terminal())
    sets = [
        replace(found, samples=found.samples[:: max(1, len(found.samples) // n)][:n])
        for found in read_sets(chosen, root, pictures=False)
    ]
    made = build_plan(chosen, sets)
    if as_json:
        keys = ["dataset", "sample_id", "probe", "attribute", "original_prompt", "prompt", "edits"]
        content = made.cases.select(keys).to_dicts()
        say_json(content)
        return
    _show(made.cases, made.not_applicable, limit=variants, found=_found(sets))


def _found(sets: "Sequence[PlannedSet]") -> dict[tuple[str, str], str]:
    """Per dataset and prompt of free text, what the lexicon found in it."""
    from harness.prompts.grammar import LEXICON

    return {
        (planned.card.name, prompt.text): ", ".join(f"{k}={v}" for k, v in prompt.values.items())
        or "nothing"
        for planned in sets
        for sample in planned.samples
        for prompt in sample.prompts.get(planned.prompt_type, ())
        if prompt.template == LEXICON and prompt.text
    }


def _selected(probes: list[Any], wanted: list[str] | None) -> list[Any]:
    from harness.auditing.choices import split_names
    from harness.errors import UsageError, choose

    names = [p.name for p in probes]
    chosen = [
        choose(name, names, kind="probe", where="--probe", error=UsageError)
        for name in split_names(wanted)
    ]
    return [p for p in probes if not chosen or p.name in chosen]


def _show(
    cases: "pl.DataFrame",
    skipped: "pl.DataFrame",
    *,
    limit: int,
    found: Mapping[tuple[str, str], str],
) -> None:
    """A table for each dataset and probe, then what does not apply there."""
    import polars as pl
    from rich.text import Text

    from harness.report.escape import plain

    console = terminal(110)
    for (dataset,), of_set in cases.group_by(["dataset"], maintain_order=True):
        originals = of_set.filter(pl.col("probe") == "original")
        samples, prompts = (originals[key].n_unique() for key in ("sample_id", "prompt"))
        counts = f"samples: {samples}, prompts: {prompts}"
        console.print(Text(f"{plain(str(dataset))}: {counts}", style="bold cyan"))
        for (prompt,), own in originals.group_by(["prompt"], maintain_order=True):
            names = ", ".join(map(plain, own["sample_id"].unique(maintain_order=True)))
            console.print(Text(f"  {names}: {plain(str(prompt))}"))
            if spans := found.get((str(dataset), str(prompt))):
                console.print(Text(f"    spans: lexicon: {plain(spans)}", style="dim"))
        changed = of_set.filter(pl.col("probe") != "original")
        for (probe,), rows in changed.group_by(["probe"], maintain_order=True):
            first = rows.row(0, named=True)
            title = f"{plain(str(probe))} ({first['perturbation']}; meaning {first['meaning']})"
            console.print(Text(title, style="bold"))
            console.print(_table(rows.to_dicts(), limit=limit))
        for line in _not_applicable(skipped.filter(pl.col("dataset") == dataset)):
            console.print(Text(line, style="dim"), soft_wrap=True)
        console.print()


def _table(rows: Sequence[Case], *, limit: int) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=True, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("changed", no_wrap=True)
    table.add_column("original", ratio=1)
    table.add_column("variant", ratio=1)
    shown: dict[tuple[Any, ...], int] = {}
    seen = set()
    for row in rows:
        texts = (row["attribute"], row["original_prompt"], row["prompt"])
        if texts in seen:  # of another sample with the same prompt
            continue
        seen.add(texts)
        key = (row["sample_id"], row["prompt_index"], row["attribute"])
        shown[key] = shown.get(key, 0) + 1
        if shown[key] <= limit:
            table.add_row(Text(row["attribute"] or "prompt"), *sides(row))
    more = sum(max(count - limit, 0) for count in shown.values())
    if more:
        table.add_row(Text("..."), Text(f"{more} more: --variants N shows them", style="dim"))
    return table


def sides(row: Case) -> tuple["Text", "Text"]:
    """Both texts of a case, with the words that differ marked and coloured."""
    from rich.text import Text

    from harness.prompts.word_diff import word_edits

    original, text = str(row["original_prompt"]), str(row["prompt"])
    left, right = Text(), Text()
    for kept, edit in _pieces(original, word_edits(original, text)):
        left.append(_visible(kept))
        right.append(_visible(kept))
        if edit is not None:
            left.append(f"[-{_visible(edit.old)}-]" if edit.old else "", style="red strike")
            right.append(f"{{+{_visible(edit.new)}+}}" if edit.new else "", style="green")
    return left, right


def _pieces(original: str, edits: "tuple[Edit, ...]") -> "Iterator[tuple[str, Edit | None]]":
    at = 0
    for edit in edits:
        yield original[at : edit.start], edit
        at = edit.end
    yield original[at:], None


def _visible(text: str) -> str:
    """Control characters as escapes: a table's text may hold them, and a terminal obeys them."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _not_applicable(skipped: "pl.DataFrame") -> list[str]:
    from harness.report.escape import plain

    return [
        f"  does not apply: {' '.join(filter(None, (row['probe'], row['attribute'])))}: "
        f"{plain(row['reason'])} ({row['n_samples']})"
        for row in skipped.iter_rows(named=True)
    ]
