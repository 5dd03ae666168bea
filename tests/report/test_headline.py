"""The first screen picks the verdict that says most, and the case that shows it."""

import math
from dataclasses import replace

import polars as pl
import pytest

from harness import load_run
from harness.report.gallery import gallery
from harness.report.headline import headlines, most_telling, would_tell
from harness.report.sheet import number
from harness.report.sheets import overview_sheet
from harness.runs.kept_masks import STEADY, WORST
from harness.stats.language import WHOLE, Evidence, LanguageVerdict

SURE = {"change": (-5.0, -6.0, -4.0), "agreement": (0.5, 0.4, 0.6)}


def verdict(dataset, *, named=False, blocked=(), language="cannot tell", model="m"):
    evidence = tuple(
        Evidence("test", "antonym", f"a{k}", "unclear", "", **SURE, blocked="few" if b else "")
        for k, b in enumerate(blocked)
    )
    return LanguageVerdict(
        model_id=f"{model}@1", model=model, dataset=dataset, prompts="released", prompt_type="p6",
        language=language, steadiness="steady", reason=f"{model} on {dataset}",
        named_targets=named, evidence=evidence,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (verdict("b", named=True, blocked=[1]), verdict("a", blocked=[0, 0])),
        (verdict("b", blocked=[0, 0, 1]), verdict("a", blocked=[0, 1, 1])),
        (verdict("b", blocked=[0], language="moved here"), verdict("a", blocked=[0])),
        (verdict("b", blocked=[1]), verdict("a", named=True)),
    ],
    ids=["named targets", "more tested", "a clear verdict", "any evidence"],
)
def test_the_verdict_that_says_most_comes_first(one, other):
    assert most_telling([other, one]) == [one]
    assert most_telling([one, other]) == [one]


def test_each_model_has_one_sentence_in_order():
    found = most_telling(
        [verdict("a", model="x"), verdict("a", model="y"), verdict("b", model="x")]
    )
    assert [v.model for v in found] == ["x", "y"]


def test_a_model_that_moves_shows_its_worst_and_one_that_does_not_its_steadiest(small_run):
    run = load_run(small_run)
    moving, control = headlines(run, gallery(run, images=None).cases)
    assert not moving.is_control
    assert control.is_control
    assert moving.case.kept.dice_original - moving.case.kept.dice > 0.5
    assert moving.case.kept.kind == WORST
    assert control.case.kept.kind == STEADY
    assert control.case.kept.agreement == 1
    assert moving.panel is None


def test_without_pictures_the_changes_are_drawn(small_run):
    run = load_run(small_run)
    moving, control = headlines(run, {})
    assert moving.case is None
    for head in (moving, control):
        assert head.panel.description
        assert head.sentence.startswith(head.name)


def test_the_overview_has_a_row_a_model_and_a_column_an_attribute(small_run):
    """As the verdicts say it, with the change under the opposite where that shows it."""
    run = load_run(small_run)
    sheet = overview_sheet(run.assessment)
    found = most_telling(run.assessment.language)
    assert [row[0] for row in sheet.rows] == [v.model for v in found]
    antonyms = set(run.summary.filter(pl.col("perturbation") == "antonym")["probe"])
    assert antonyms
    for row, one in zip(sheet.rows, found, strict=True):
        said = dict(zip(sheet.header, row, strict=True))
        assert said["same meaning"].partition("; ")[0].replace("?", "cannot tell") == one.steadiness
        assert said["not there"].startswith(one.refusal)
        for word, names in (("heard", one.heard), ("unheard", one.unheard), ("?", one.unclear)):
            for name in names:
                own = [e for e in one.evidence if (e.attribute or WHOLE) == name]
                own = [e for e in own if e.change[0] == e.change[0]]
                own = [e for e in own if e.state == word.replace("?", "unclear")] or own
                own = [e for e in own if e.probe in antonyms] or own
                shown = max((e.change[0] for e in own), key=abs)
                assert said[name].partition("; ")[0] == f"{word} {number(shown, 0)}"
                assert ("; " in said[name]) == (word == "?")
    originals = run.summary.filter(pl.col("probe") == "original")
    assert originals["dice"].min() <= float(sheet.rows[0][-2][:5]) <= originals["dice"].max() + 5e-4


def told(*evidence, named=False, **more):
    base = verdict("d", named=named)
    return replace(base, evidence=evidence, unclear=("size",), **more)


def piece(change, agreement, **more):
    given = {"n_clusters": 24, "p_heard": 1.0, "p_unheard": 1.0} | more
    return Evidence("test", "antonym", "size", "unclear", "", change, agreement, **given)


STILL, MOVES = (0.99, 0.97, 1.0), (0.5, 0.4, 0.6)


@pytest.mark.parametrize(
    ("verdict", "clause"),
    [
        # Its limit lies 3 away, the margin 1: nine times as many.
        (told(piece((-1.0, -4.0, 1.0), STILL)), "≈ 220 clusters"),
        (told(piece((-4.0, -7.0, -1.0), (0.96, 0.9, 0.98))), "≈ 54 clusters"),
        (told(piece((-1.0, -2.5, 0.0), (0.951, 0.93, 0.97))), "≈ 11,000 clusters"),
        (told(piece((-2.0, -4.0, 1.0), (0.95, 0.9, 1.0))), "at the margin"),
        (told(piece((-60.0, -70.0, -50.0), MOVES, n_named=24), named=True), "moves elsewhere"),
        (told(piece((-60.0, -70.0, -50.0), MOVES, p_heard=math.nan), named=True),
         "names no target"),
        (told(piece((-1.0, -4.0, 1.0), STILL, blocked="4 clusters, and 20 are needed.")),
         "needs 20 clusters"),
        (told(piece((-1.0, -4.0, 1.0), STILL, blocked="No verdict: baseline too low.")),
         "see why below"),
        (told(piece((-60.0, -70.0, -50.0), MOVES, named_gain=(20.0, -10.0, 50.0), n_named=24,
                    n_clusters_named=24, decisive_change=(-60.0, -90.0, -30.0)), named=True),
         "≈ 67 clusters"),
    ],
)  # fmt: skip
def test_what_would_tell_is_said_in_one_clause(verdict, clause):
    assert would_tell(verdict, "size") == clause
