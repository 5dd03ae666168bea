"""The first screen picks the verdict that says most, and the case that shows it."""

import pytest

from harness import load_run
from harness.report.gallery import gallery
from harness.report.headline import headlines, most_telling
from harness.runs.kept_masks import STEADY, WORST
from harness.stats.language import Evidence, LanguageVerdict

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
