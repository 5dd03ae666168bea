"""Writes what every perturbation makes of real annotations: ``python reports/coverage.py``.

    python reports/coverage.py --data-root DATA --out FOLDER

Plans all perturbations on every rung of every annotation file below DATA (texts alone; no
picture is opened), and writes two pages: a coverage table (applied, not applicable and
why) and a sheet of variants to be read by eye. It prints how fast planning was.

Conventions: times are seconds of one core's processor time; reading and parsing the
files is counted apart and in the total.
"""

import argparse
import time
from pathlib import Path

import polars as pl
import typer

from harness.cards import dataset_names, load_dataset_card
from harness.data import load_samples
from harness.plan.build import Plan, PlannedSet, build_plan
from harness.prompts.perturbations import PERTURBATIONS
from harness.report.coverage import coverage, coverage_page, reasons, sheet_page
from harness.suite.schema import DatasetEntry, Probe, Suite

# Enough of each file for the sheet: everything would be millions of rows.
SHEET_ROWS = 400


def main() -> None:
    """Plan, count, and write both pages."""
    asked = _arguments()
    probes = [Probe(name=n, perturbation=n, repeats=asked.repeats) for n in PERTURBATIONS]
    suite = Suite(name="everything", title="Everything", probes=probes, words=asked.words)
    rows, why, examples = [], [], []
    parsing = planning = 0.0
    n_strings = n_variants = 0
    for card, split in files(asked.data_root):
        begun = time.process_time()
        samples = load_samples(card, asked.data_root, split, pictures=False)
        parsing += time.process_time() - begun
        for rung in card.grammar.prompts:
            entry = DatasetEntry(name=card.name, split=split, prompt_type=rung)
            begun = time.process_time()
            plan = build_plan(suite, [PlannedSet(entry, card, asked.data_root, samples, samples)])
            planning += time.process_time() - begun
            n_originals = plan.cases.filter(pl.col("probe") == "original").height
            n_strings, n_variants = (
                n_strings + n_originals,
                n_variants + len(plan.cases) - n_originals,
            )
            rows.append(coverage(plan))
            why.append(reasons(plan))
            examples.append(_some(plan))
        speed = n_variants / (parsing + planning)
        typer.echo(
            f"{card.name}/{split}: {n_strings} strings, {n_variants} variants, {speed:.0f}/s"
        )
    summary = [
        f"{n_strings} prompt strings, {n_variants} variants, no exception.",
        f"Parsing {parsing:.1f} s, planning {planning:.1f} s: "
        f"{n_variants / (parsing + planning):.0f} variants a second on one core.",
    ]
    typer.echo("\n".join(summary))
    asked.out.mkdir(parents=True, exist_ok=True)
    page = coverage_page(
        _summed(rows, "perturbation"), _summed(why, "probe", "reason"), summary=summary
    )
    (asked.out / "coverage.md").write_text(page, encoding="utf-8")
    sheet = sheet_page(pl.concat(examples), each=asked.each)
    (asked.out / "sheet.md").write_text(sheet, encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="What every perturbation makes of real prompts.")
    parser.add_argument("--data-root", type=Path, required=True, help="<root>/<dataset>/anns/...")
    parser.add_argument("--out", type=Path, default=Path("build/coverage"))
    parser.add_argument("--words", type=int, default=2, help="random words per prompt")
    parser.add_argument("--repeats", type=int, default=2, help="draws per prompt")
    parser.add_argument("--each", type=int, default=20, help="examples per perturbation")
    return parser.parse_args()


def files(root: Path) -> list[tuple]:
    """The cards and splits whose annotations lie below a root."""
    cards = [load_dataset_card(name) for name in dataset_names()]
    known = [(card, split) for card in cards for split in card.splits]
    return [(c, s) for c, s in known if (root / c.name / "anns" / f"{s}.json").is_file()]


def _some(plan: Plan) -> pl.DataFrame:
    cases = plan.cases.unique(["perturbation", "attribute", "original_prompt"], maintain_order=True)
    return cases.filter(pl.int_range(pl.len()).shuffle(0).over("perturbation") < SHEET_ROWS)


def _summed(parts: list[pl.DataFrame], *names: str) -> pl.DataFrame:
    """Plans of several rungs added up."""
    keys = ["dataset", "split", *names]
    numbers = [c for c in parts[0].columns if c not in keys]
    prompts = pl.concat(parts)
    return prompts.group_by(keys, maintain_order=True).agg(pl.col(numbers).sum())


if __name__ == "__main__":
    main()
