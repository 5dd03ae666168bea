"""Summaries written by hand: a few rows with every kind of remark."""

import math

import polars as pl
import pytest

from harness.stats.assessment import Assessment
from harness.stats.columns import SUMMARY_SCHEMA

NAN = math.nan


def one_row(**given):
    """A row of a summary: counts are 0, figures NaN, texts null, unless given."""
    row = {}
    for name, kind in SUMMARY_SCHEMA.items():
        row[name] = 0 if kind == pl.Int64 else NAN if kind == pl.Float64 else None
    row |= {"model_id": "small@1a2b", "model": "small", "dataset": "kvasir_polyp", "split": "test"}
    row |= {"prompts": "released", "prompt_type": "p6", "cluster_kind": "image", "notes": []}
    row |= {"threshold": 0.5, "signature": "dice|res:model|thr:0.5|empty:1|gt:>127|v:1"}
    row |= {"n_samples": 100, "n_clusters": 98, "n_cases": 100, "verdict_allowed": True}
    row |= {"originals_empty_share": 0.0, "resampled": "clusters"}
    return row | given


def change(percent, low, high):
    return {
        "relative_change_percent": percent,
        "relative_change_low_percent": low,
        "relative_change_high_percent": high,
        "change_points": percent * 0.8,
        "agreement": 0.91234,
    }


def rows():
    dice = {"dice": 0.8123, "dice_low": 0.79, "dice_high": 0.8345}
    yield one_row(probe="original", perturbation="original", **dice, originals_empty_share=0.05)
    yield one_row(probe="empty_prompt", perturbation="empty", **change(-12.34, -18.9, -7.05))
    words = {
        "probe": "random_word",
        "perturbation": "random_word",
        "notes": ["for these words only"],
    }
    yield one_row(attribute="color", **words, n_failed=3, **change(-0.04, -2.0, 1.96))
    yield one_row(attribute="size", **words, **change(1.5, NAN, NAN))
    skipped = {"n_not_applicable": 40, "not_applicable": "no opposite (33); attribute absent (7)"}
    yield one_row(probe="antonym", attribute="size", perturbation="antonym", **skipped,
                  reason="baseline too low", change_points=-1.0)  # fmt: skip
    nothing = {"n_cases": 0, "n_samples": 0, "n_clusters": 0, "reason": "not applicable"}
    yield one_row(probe="antonym", attribute="shape", **skipped, **nothing)
    yield one_row(
        dataset="clinicdb_polyp", probe="out_of_distribution", n_samples=61, n_clusters=29,
        reference_dice=0.8123, reference_dice_low=0.79, reference_dice_high=0.83, dice=0.6,
        relative_change_percent=-26.1, relative_change_low_percent=-31.0,
        relative_change_high_percent=-20.0, in_distribution="kvasir_polyp/test p6",
        control="blind", control_change_percent=-25.0, beyond_control_percent=-1.1,
        beyond_control_low_percent=-4.0, beyond_control_high_percent=2.0, n_shared_images=2,
        n_cases=None,
    )  # fmt: skip


def assessed(summary, *, verdicts=(), language=()):
    """An assessment that holds these rows."""
    return Assessment(summary, tuple(verdicts), tuple(language), "verdict|v:1")


@pytest.fixture(scope="session")
def assessment():
    """The function `assessed`."""
    return assessed


def frame(rows):
    return pl.DataFrame(rows, schema=SUMMARY_SCHEMA, orient="row")


@pytest.fixture(scope="session")
def summary():
    """One model, one dataset with every kind of row, one dataset away."""
    return frame(list(rows()))


@pytest.fixture(scope="session")
def summary_of():
    """A function from rows (dictionaries of what differs) to a summary."""
    return lambda *given: frame([one_row(**g) for g in given])


SUITE = """
name: small
title: A small audit
datasets:
  - {name: phantom_solo, attributes: [size]}
  - {name: phantom_pairs, split: size, attributes: [size]}
probes:
  - {name: empty, perturbation: empty}
  - {name: random_word, perturbation: random_word, attributes: all}
  - {name: antonym, perturbation: antonym, attributes: all}
  - {name: swap_value, perturbation: swap_value, attributes: all}
  - {name: p1, perturbation: prompt_type, rungs: [p1]}
  - {name: typo, perturbation: typo}
words: 2
out_of_distribution: true
statistics: {draws: 200, minimum_clusters: 3}
"""
MODELS = ("phantom-clipseg-crowd", "phantom-image-only-crowd")


def summarised(folder):
    """A run directory, with its figures and verdicts written anew."""
    from harness.auditing.summarising import summarise
    from harness.runs.store import RunStore

    summarise(RunStore(folder))
    return folder


@pytest.fixture(scope="session")
def small_run(tmp_path_factory):
    """A real run of a model that listens and a control on a few generated scenes."""
    from harness.auditing.running import run_models
    from harness.suite.schema import load_suite

    place = tmp_path_factory.mktemp("small")
    (place / "small.yaml").write_text(SUITE, encoding="utf-8")
    store = run_models(
        load_suite(place / "small.yaml"),
        [(name, None) for name in MODELS],
        root=place / "data",
        out=place / "run",
        limit=4,
    )
    return summarised(store.folder)


@pytest.fixture(scope="session")
def written(small_run, tmp_path_factory):
    """The report of the small run."""
    from harness import load_run

    return load_run(small_run).write_report(tmp_path_factory.mktemp("page") / "report.html")


@pytest.fixture(scope="session")
def resummarised():
    """The function `summarised`."""
    return summarised
