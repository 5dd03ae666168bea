"""What perturbations make of a dataset's prompts: how many, why not, and examples to read.

Conventions: tables are those of a plan. A *prompt* is one original of the plan; it is
applied to when at least one variant was made of it. Reasons are counted in samples, once
per attribute, with what they quote left out.
"""

import re
from collections.abc import Iterable, Sequence

import polars as pl

from harness.plan.build import Plan

_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
# More kinds of reason than this are summed up as others.
MOST_REASONS = 4


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
