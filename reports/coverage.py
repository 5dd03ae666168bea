"""Writes what every perturbation makes of real annotations: ``python reports/coverage.py``.

    python reports/coverage.py --data-root DATA --out FOLDER

Plans all perturbations on every rung of every annotation file below DATA (texts alone; no
picture is opened), and writes two pages: a coverage table (applied, not applicable and
why) and a sheet of variants to be read by eye. It prints how fast planning was.

Conventions: a *prompt* is one original of a plan; it is applied to when at least one variant was
made of it. Reasons are counted in samples, once per attribute. Times are seconds of one core's
processor time; reading and parsing the files is counted apart and in the total.
"""

import argparse
import re
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import polars as pl
import typer

from harness.cards import dataset_names, load_dataset_card
from harness.data import load_samples
from harness.plan.build import Plan, PlannedSet, build_plan
from harness.prompts.perturbations import PERTURBATIONS
from harness.suite.schema import DatasetEntry, Probe, Suite

# Enough of each file for the sheet: everything would be millions of rows.
SHEET_ROWS = 400
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
# More kinds of reason than this are summed up as others.
MOST_REASONS = 4


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


def coverage(plan: Plan) -> pl.DataFrame:
    """One row per dataset, split and perturbation.

    Returns:
        Columns dataset, split, perturbation, variants, applied, prompts; `applied` of
        `prompts` have a variant.
    """
    keys = ["dataset", "split"]
    cases = plan.cases
    prompts = cases.filter(pl.col("probe") == "original").group_by(keys).agg(prompts=pl.len())
    made = (
        cases.filter(pl.col("probe") != "original")
        .group_by(*keys, "perturbation")
        .agg(variants=pl.len(), applied=pl.col("original_case_id").n_unique())
    )
    return made.join(prompts, on=keys).sort(*keys, "perturbation")


def reasons(plan: Plan) -> pl.DataFrame:
    """Why perturbations did not apply: per dataset, split, probe and kind of reason."""
    kinds = plan.not_applicable.with_columns(
        reason=pl.col("reason").map_elements(kind_of_reason, return_dtype=pl.String)
    )
    keys = ["dataset", "split", "probe", "reason"]
    return kinds.group_by(keys).agg(samples=pl.col("n_samples").sum()).sort(keys)


def kind_of_reason(reason: str) -> str:
    """A reason without the words it quotes.

    Example:
        >>> kind_of_reason("no opposite of 'center' in the curated lexicon")
        'no opposite of … in the curated lexicon'
    """
    return _QUOTED.sub("…", reason)


def coverage_page(rows: pl.DataFrame, why: pl.DataFrame, *, summary: Sequence[str]) -> str:
    """Both tables as Markdown, one section per perturbation.

    Args:
        rows: `coverage` of several plans, of the same columns.
        why: `reasons` of them, with the perturbation's name as `probe`.
        summary: Sentences to begin with.
    """
    lines = ["# Coverage of the perturbations", "", *(f"- {line}" for line in summary)]
    keys = ["dataset", "split"]
    for name in sorted({*rows["perturbation"], *why["probe"]} - {"original"}):
        lines += [
            "",
            f"## {name}",
            "",
            "| data | prompts | applied | variants | why not (samples) |",
        ]
        lines += ["|---|--:|--:|--:|---|"]
        own = rows.filter(pl.col("perturbation") == name)
        told = why.filter(pl.col("probe") == name)
        everything = rows.group_by(keys).agg(pl.col("prompts").max()).sort(keys)
        for dataset, split, prompts in everything.rows():
            here = (pl.col("dataset") == dataset) & (pl.col("split") == split)
            made = own.filter(here)
            applied, variants = (int(made[column].sum()) for column in ("applied", "variants"))
            because = _told(
                told.filter(here).sort("samples", descending=True).iter_rows(named=True)
            )
            lines.append(f"| {dataset}/{split} | {prompts} | {applied} | {variants} | {because} |")
    return "\n".join([*lines, ""])


def _told(rows: Iterable[dict[str, object]]) -> str:
    texts = [f"{row['reason']} ({row['samples']})" for row in rows]
    more = f"; {len(texts) - MOST_REASONS} other reasons" if len(texts) > MOST_REASONS else ""
    return "; ".join(texts[:MOST_REASONS]) + more


def sheet_page(cases: pl.DataFrame, *, each: int, seed: int = 0) -> str:
    """Examples to be read by eye: some variants of each perturbation, original above variant.

    Args:
        cases: Variants of several plans.
        each: How many per perturbation.
        seed: Which ones; they are spread over datasets and rungs.
    """
    lines = ["# Variants to be read", ""]
    variants = cases.filter(pl.col("probe") != "original")
    for name in sorted(set(variants["perturbation"])):
        own = variants.filter(pl.col("perturbation") == name)
        own = own.unique(["dataset", "original_prompt", "prompt"], maintain_order=True)
        own = own.sample(fraction=1, shuffle=True, seed=seed)
        place = pl.int_range(pl.len()).over("dataset", "attribute", "prompt_type")
        lines += [f"## {name} ({own['meaning'][0]})", ""]
        for row in own.sort(place, maintain_order=True).head(each).iter_rows(named=True):
            about = " ".join(filter(None, [row["dataset"], row["prompt_type"], row["attribute"]]))
            lines += [f"- {about}", f"  - `{row['original_prompt']}`", f"  - `{row['prompt']}`"]
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
