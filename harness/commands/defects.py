"""The data check of ``check``: runs it with a progress bar, and shows what it found.

Conventions: what was checked and found nothing is in the JSON and not in the tables; what
could not be checked is in both, with its reason.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.commands.output import terminal

if TYPE_CHECKING:
    from rich.table import Table

    from harness.data.checks import Facts, Finding, Inspection, Unchecked
    from harness.suite.schema import Suite


def data_check(suite: "Suite", root: Path, *, tokens: int | None, quiet: bool) -> "Inspection":
    """Check the annotation files that a suite would run.

    Args:
        suite: Names the datasets; generated ones are made if they are missing.
        root: The data root.
        tokens: Report prompts that are longer than this many CLIP tokens.
        quiet: No progress.
    """
    from harness.auditing.samples import generate_missing
    from harness.cards import load_dataset_card
    from harness.commands.progress import Terminal
    from harness.data.checks import clip_tokenizer, inspect

    cards = {}
    splits: defaultdict[str, set[str]] = defaultdict(set)
    for entry in suite.datasets:
        card = load_dataset_card(entry.name)
        generate_missing(card, root, entry.split, listener=Terminal(quiet=quiet))
        cards[card.name] = card
        splits[card.name].add(entry.split)
    tokenizer = None if tokens is None else clip_tokenizer(tokens)
    with Terminal(quiet=quiet).counting("checking files") as tick:
        return inspect(list(cards.values()), root, splits=splits, tokenizer=tokenizer, tick=tick)


def content(inspected: "Inspection") -> dict[str, Any]:
    """The whole result for programs."""
    return {
        "totals": totals(inspected),
        "files": [asdict(facts) for facts in inspected.facts],
        "findings": [asdict(finding) for finding in inspected.findings],
        "unchecked": [asdict(unchecked) for unchecked in inspected.unchecked],
    }


def totals(inspected: "Inspection") -> dict[str, int]:
    """Counts over all files."""
    facts = inspected.facts
    return {
        "files": len(facts),
        "rows": sum(f.n_rows for f in facts),
        "prompts": sum(f.n_prompts for f in facts),
        "prompts_not_empty": sum(f.n_prompts - f.n_empty for f in facts),
        "distinct_prompts": len(inspected.texts),
        "kinds_of_defect": len({f.defect for f in inspected.findings if f.n_rows}),
    }


def show(inspected: "Inspection") -> None:
    """Print a table for each annotation file, then what was not checked."""
    from rich.text import Text

    console = terminal(110)
    found: dict[tuple[str, str], list[Finding]] = defaultdict(list)
    for finding in inspected.findings:
        if finding.n_rows:
            found[finding.dataset, finding.split].append(finding)
    titles = {(f.dataset, f.split): _title(f) for f in inspected.facts}
    encodings = {(f.dataset, f.split): _listed(f.encodings) for f in inspected.facts}
    for key in sorted({*found, *titles}):
        title = titles.get(key, f"{key[0]}: {key[1].replace('+', ' and ')}")
        console.print(Text(title, style="bold cyan"))
        if masks := encodings.get(key):
            console.print(Text(f"masks: {masks}"), soft_wrap=True)
        if key in found:
            console.print(_table(found[key], console.width))
        console.print()
    for line in _not_checked(inspected.unchecked):
        console.print(Text(line), soft_wrap=True)
    console.print(Text(_sentence(totals(inspected))), soft_wrap=True)


def _listed(encodings: "Mapping[str, int]") -> str:
    return ", ".join(f"{name} ({count})" for name, count in encodings.items())


def _title(facts: "Facts") -> str:
    return (
        f"{facts.dataset}/{facts.split}: {facts.n_rows} rows, {facts.n_images} images, "
        f"{facts.n_prompts} prompts; {facts.n_distinct} distinct {facts.prompt_type}, the most "
        f"frequent one stands in {100 * facts.top_share:.0f} %"
    )


# What the columns before the last one take at most.
_TAKEN = 66


def _table(findings: "list[Finding]", width: int) -> "Table":
    from rich.table import Table
    from rich.text import Text

    from harness.report.escape import plain

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in ("rows", "of"):
        table.add_column(name, justify="right")
    for name in ("defect", "told by", "for example"):
        table.add_column(name, no_wrap=True)
    for one in findings:
        example = _short(plain(one.examples[0]) if one.examples else "", max(width - _TAKEN, 20))
        cells = (str(one.n_rows), str(one.n_checked), one.title, one.basis, example)
        table.add_row(*map(Text, cells))
    return table


def _short(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 3]}..."


def _not_checked(unchecked: "tuple[Unchecked, ...]") -> list[str]:
    """One line for each reason, with all files that share it."""
    files: dict[tuple[str, str], list[str]] = defaultdict(list)
    for one in unchecked:
        why = "the folder is not there" if one.why.startswith("no folder") else one.why
        files[one.what, why].append(f"{one.dataset}/{one.split}")
    return [
        f"not checked: {what} of {', '.join(names)}: {why}."
        for (what, why), names in sorted(files.items())
    ]


def _sentence(counts: dict[str, int]) -> str:
    return (
        f"{counts['files']} annotation files, {counts['rows']:,} rows, {counts['prompts']:,} "
        f"prompts, {counts['prompts_not_empty']:,} of them not empty, "
        f"{counts['distinct_prompts']:,} distinct; {counts['kinds_of_defect']} kinds of defect."
    )
