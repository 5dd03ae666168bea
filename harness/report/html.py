"""The report of a run: one page that opens from disk and needs nothing else.

Conventions: what a run has no data for is said in a sentence. The page holds no time but those
of the run, so that equal runs give equal pages. Big pictures stand in a folder beside it.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from harness.data.readings import mask_lines
from harness.files.writing import write_text
from harness.plan.registration import sentence
from harness.prompts.freetext.counting import span_lines
from harness.report import sheets
from harness.report.breakdown import subgroups, word_effects, word_figure
from harness.report.charts import listening_map, listening_points, threshold_figure
from harness.report.figure import ChartRenderer, Figure
from harness.report.gallery import FULL, gallery
from harness.report.headline import TONES, headlines
from harness.report.page import made_from, rendered
from harness.report.run_data import RunData
from harness.report.summary_charts import (
    agreement_figure,
    attribute_figure,
    away_figure,
    ladder_figure,
    refusal_figure,
)
from harness.report.table import REFUSAL_LEAD, SURFACE_LEAD, curve_sheets
from harness.stats.assay import assay_lines
from harness.stats.flips import disagreement_lines
from harness.stats.verdicts import coverage_note


def write_report(run: RunData, out: Path, *, images: str | None = None) -> Path:
    """Write the page.

    Full pictures go to a folder of its name with ``_files``. `images` is one of `IMAGES`; None
    leaves out private sets.
    """
    folder = out.with_name(f"{out.stem}_files") if images == FULL else None
    write_text(out, report_html(run, images=images, folder=folder))
    return out


def report_html(run: RunData, *, images: str | None = None, folder: Path | None = None) -> str:
    """The text of the page; arguments as of `write_report`."""
    effects = word_effects(run.store, run.suite, run.summary)
    with ChartRenderer() as renderer:
        figures = {
            name: figure and renderer.start(figure) for name, figure in _figures(run, effects)
        }
        pictures = gallery(run, images=images, folder=folder)
        return rendered(
            "report.html.j2",
            title=run.title,
            run=run,
            heads=headlines(run, pictures.cases),
            gallery=pictures,
            tones=TONES,
            made_from=made_from(run.suite, str(run.manifest.get("plan_sha256", ""))),
            facts=facts(run),
            models=model_facts(run),
            assay=assay_lines(),
            **figures,
            **_tables(run),
            words_table=sheets.words_sheet(effects, run.names) if effects.height else None,
        )


def draw_listening_map(run: RunData) -> Figure | None:
    """Where each model stands; None if the run lacks one kind of probe."""
    return listening_map(listening_points(run.assessment), numbers=run.numbers)


def draw_figures(run: RunData) -> dict[str, Figure]:
    """All figures that the run has data for, by name."""
    effects = word_effects(run.store, run.suite, run.summary)
    return {figure.name: figure for _, figure in _figures(run, effects) if figure is not None}


def _figures(run: RunData, effects: pl.DataFrame) -> Iterator[tuple[str, Figure | None]]:
    """Each figure as soon as it is there; None where the run has no data for it."""
    summary, names = run.summary, run.names
    controls = frozenset(m["model_id"] for m in run.models if m.get("control"))
    yield "map", draw_listening_map(run)
    yield "attributes", attribute_figure(summary, names)
    yield "ladder", ladder_figure(summary, run.suite, names, controls)
    yield "away", away_figure(summary, names)
    yield "agreement", agreement_figure(summary, names)
    yield "words", word_figure(effects, names)
    yield "refusal", refusal_figure(summary, names)
    yield "thresholds", None if run.curve is None else threshold_figure(run.curve, names)


def _tables(run: RunData) -> dict[str, Any]:
    summary = run.summary
    away = sheets.away_sheet(summary)
    surface = sheets.surface_sheet(summary)
    refusal = sheets.refusal_sheet(summary)
    tested = [v.n_clusters for v in run.assessment.verdicts if v.test != "none"]
    skipped = run.store.not_applicable()
    failed = sheets.failures(run.store.scores_scan())
    groups = subgroups(run.store, run.suite, run.manifest.get("modalities", {}))
    return {
        "overview": sheets.overview_sheet(run.assessment),
        "overview_note": sheets.OVERVIEW_NOTE,
        "flips": sheets.flips_sheet(run.assessment),
        "flips_note": sheets.FLIPS_NOTE,
        "few": coverage_note(min(tested, default=0)),
        "annotators": annotator_lines(run),
        "originals": sheets.originals_sheet(summary),
        "probes": sheets.probes_sheet(summary),
        "surface_lead": SURFACE_LEAD,
        "surface": surface if surface.rows else None,
        "refusal_lead": REFUSAL_LEAD,
        "curve_tables": [] if run.curve is None else list(curve_sheets(run.curve, run.names)),
        "refusal_table": refusal if refusal.rows else None,
        "away_table": away if away.rows else None,
        "expectations": sheets.expectations_sheet(run),
        "language": sheets.language_sheet(run),
        "subgroups": sheets.subgroups_sheet(groups, run.names) if groups.height else None,
        "skipped": sheets.not_applicable_sheet(skipped) if skipped.height else None,
        "failed": sheets.failures_sheet(failed, run.names) if failed.height else None,
    }


def annotator_lines(run: RunData) -> list[str]:
    """The margins of the suite in units of what the annotators of a set differ by."""
    margins = run.suite.statistics.margins.model_dump().values()
    return list(disagreement_lines(run.manifest.get("inter_annotator_dice", {}), margins))


def facts(run: RunData) -> list[tuple[str, str]]:
    """How the run was made, for those who want to make it again."""
    manifest, settings = run.manifest, run.suite.statistics
    made: Mapping[str, Any] = manifest.get("environment", {})
    sources: Mapping[str, Any] = manifest.get("sources", {})
    counts: Mapping[str, Any] = manifest.get("counts", {})
    margins = ", ".join(f"{k} {v:g} %" for k, v in settings.margins.model_dump().items())
    libraries = ", ".join(f"{k} {v}" for k, v in made.get("libraries", {}).items())
    found = {
        "suite": f"{run.suite.name}: {run.suite.title}",
        "metric": "; ".join(sorted(set(run.summary["signature"].drop_nulls()))),
        "verdicts": run.assessment.signature,
        "bootstrap": f"{settings.draws:,} draws over clusters, seed {settings.seed}",
        "margins": margins,
        "annotators": " ".join(annotator_lines(run)),
        "clusters": f"at least {settings.minimum_clusters} for a verdict; "
        + "; ".join(f"{k}: {v}" for k, v in manifest.get("cluster_kinds", {}).items()),
        "masks": " ".join(mask_lines(manifest.get("masks", []))),
        "spans": " ".join(span_lines(manifest.get("spans", []))),
        "correction": f"{settings.correction}, within (model, data set, kind of expectation)",
        "least Dice": f"{settings.dice_floor:g}: below it no relative change is given",
        "cases": ", ".join(f"{v:,} {k}" for k, v in counts.items() if isinstance(v, int)),
        "registration": sentence(manifest["registration"]) if "registration" in manifest else None,
        "plan": manifest.get("plan_sha256"),
        "data": manifest.get("data_sha256"),
        "limit": manifest.get("limit"),
        "lexicon": _source(sources, "lexicon"),
        "random words": ", ".join(sources.get("words", ())),
        "seed of the plan": sources.get("seed"),
        "harness": made.get("harness"),
        "commit": made.get("git_commit"),
        "libraries": libraries,
        "machine": ", ".join(filter(None, (made.get("platform"), made.get("python")))),
        "run at": made.get("at"),
    }
    return [(key, str(value)) for key, value in found.items() if value not in (None, "")]


def _source(sources: Mapping[str, Any], name: str) -> str:
    return " ".join(str(sources[k]) for k in (name, f"{name}_sha256") if k in sources)


def model_facts(run: RunData) -> list[dict[str, Any]]:
    """What is known of each model beside its figures."""
    return [
        {
            "name": run.names[m["model_id"]],
            "title": m.get("card", {}).get("title", ""),
            "facts": [
                (key, str(value))
                for key, value in {
                    "id": m["model_id"],
                    "weights": m.get("weights_sha256"),
                    "trained on": ", ".join(m.get("trained_on", ())),
                    "trained with": m.get("card", {}).get("prompt_type"),
                    "threshold": m.get("threshold"),
                    "device": " ".join(
                        map(
                            str,
                            filter(None, (m.get("device"), m.get("backend"), m.get("precision"))),
                        )
                    ),
                    "batch": m.get("batch_size"),
                    "licence": m.get("card", {}).get("licence"),
                    "notes": "; ".join(m.get("notes", ())),
                }.items()
                if value not in (None, "")
            ],
        }
        for m in run.models
    ]


def notebook_html(run: RunData) -> str:
    """The verdicts and the listening map, without the page around them."""
    return rendered(
        "notebook.html.j2", run=run, heads=headlines(run, {}), map=draw_listening_map(run)
    )
