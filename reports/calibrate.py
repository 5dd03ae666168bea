"""Writes the calibration table, the assay card and the contact sheets: `make calibration`.

Runs the calibration suite on the whole test sets with every small model that ships (minutes),
and sets down, per model and deciding attribute, what an opposite, another valid value
and a random word do. Conventions: changes are percent of Dice with 95 % limits.
"""

import sys
from pathlib import Path

import assay
import polars as pl

from harness import __version__
from harness.auditing.choices import select_suite
from harness.auditing.evaluating import Conditions
from harness.auditing.running import run_models
from harness.auditing.summarising import summarise
from harness.cards import load_model_card
from harness.commands.demo import shipped_models
from harness.commands.generate import generate
from harness.prompts.perturbations.absence import KINDS
from harness.report.sheet import interval, number
from harness.stats.assessment import Assessment

HERE = Path(__file__).resolve().parent
BUILD = HERE.parent / "build"


def main() -> None:
    """Run, then write ``calibration.md`` and ``phantom/*.png`` beside this file."""
    out, suite = BUILD / "calibration", select_suite("calibration")
    models = [(name, None) for name in shipped_models()]
    store = run_models(
        suite,
        models,
        root=BUILD / "phantom",
        out=out,
        conditions=Conditions(workers=None),
    )
    with store.locked():
        summarise(store)
    generate(data_root=BUILD / "phantom", sheets=HERE / "phantom", quiet=True)
    found = Assessment.read(out)
    rows = assay.assay(store, suite, root=BUILD / "phantom", out=BUILD / "assay")
    assay.write(rows, suite)
    text = page(found, store.manifest, assay.page(rows))
    (HERE / "calibration.md").write_text(text, encoding="utf-8")


def page(found: Assessment, manifest: dict[str, object], assayed: list[str]) -> str:
    """The calibration page as Markdown."""
    summary = found.summary
    lines = [
        "# Calibration: models of known language use",
        "",
        "Written by `python reports/calibrate.py`. Each split of `phantom_pairs` shows two targets",
        "that one attribute alone tells apart; the opposite word is byte for byte the prompt of",
        "the other target. A model that uses the word loses its Dice with the first target and",
        "gains it with the other (*named*); a model that does not use it stays where it was.",
        "Changes are percent of Dice with 95 % limits, clusters are scenes.",
        "",
        *(f"- {verdict.reason}" for verdict in found.language if verdict.is_asked),
        "",
        "| model | claims | attribute | Dice | opposite | named | other | random word | scenes |",
        "|---|---|---|--:|--:|--:|--:|--:|--:|",
        *rows(summary),
        "",
        "A random word mixes language use with the shock of an unknown word; the opposite and",
        "another valid value are the clean tests. Claims are those of the model's card: a change",
        "of -60 % or more. Bounds that a test keeps: claimed attributes at -60 % or below; the",
        "solo-trained model and the image-only control within 3 %.",
        "",
        "## What is not there",
        "",
        "The share of prompts for absent things that are answered with an empty mask, in crowds,",
        "by the kind of thing; *missed*: of the prompts whose target is there. Two models were",
        "taught to refuse everyday things, other classes, uncommon words and values that no target",
        "has together; no finding of another organ (*other modality*) was among their lessons.",
        "",
        f"| model | {' | '.join(KINDS.values())} | missed | verdict on the set |",
        f"|---|{'--:|' * (len(KINDS) + 1)}---|",
        *refusal_rows(found),
        "",
        *assayed,
        "",
        f"vlsm-harness {__version__}, plan `{str(manifest['plan_sha256'])[:16]}`, "
        f"signature `{summary['signature'][0]}`.",
        "",
        "Contact sheets: [crowd](phantom/phantom_crowd.png), [pairs](phantom/phantom_pairs.png),",
        "[solo](phantom/phantom_solo.png). All scenes are generated; no patient is shown.",
    ]
    return "\n".join(lines) + "\n"


def refusal_rows(found: Assessment) -> list[str]:
    """One line per model: refusal rates in crowds with limits, and the verdict."""
    summary = found.summary.filter(pl.col("dataset") == "phantom_crowd")
    verdicts = {v.model: v.refusal for v in found.language if v.dataset == "phantom_crowd"}
    lines = []
    for (model,), mine in summary.group_by("model", maintain_order=True):
        by_kind = {r["absent_kind"]: r for r in mine.iter_rows(named=True) if r["absent_kind"]}
        rates = [interval(by_kind[kind], "refusal_rate", "", 2) for kind in KINDS.values()]
        missed = interval(next(iter(by_kind.values())), "miss_rate", "", 2)
        lines.append(f"| {model} | {' | '.join([*rates, missed, verdicts[str(model)]])} |")
    return lines


def rows(summary: pl.DataFrame) -> list[str]:
    """One line per model and deciding attribute, and one per set without one."""
    deciding = summary.filter(pl.col("dataset") == "phantom_pairs")
    whole = summary.filter(pl.col("split") == "test", pl.col("probe") == "original")
    lines = []
    for (model,), mine in deciding.group_by("model", maintain_order=True):
        uses = load_model_card(str(model)).card.uses or []
        for row in whole.filter(pl.col("model") == model).iter_rows(named=True):
            dice = interval(row, "dice", "", 3)
            lines.append(f"| {model} | | {row['dataset']} | {dice} | | | | | {row['n_clusters']} |")
        for attribute in mine["split"].unique(maintain_order=True):
            split = mine.filter(pl.col("split") == attribute)
            found = {
                r["probe"]: r for r in split.iter_rows(named=True) if r["attribute"] == attribute
            }
            original = split.filter(pl.col("probe") == "original").row(0, named=True)
            antonym = found["antonym"]
            cells = [
                str(model),
                "yes" if attribute in uses else "no",
                attribute,
                number(original["dice"], 3),
                interval(antonym, "relative_change", "_percent", 1),
                number(antonym["dice_named"], 3),
                interval(found["swap_value"], "relative_change", "_percent", 1),
                interval(found["random_word"], "relative_change", "_percent", 1),
                str(antonym["n_clusters"]),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    sys.exit(main())
