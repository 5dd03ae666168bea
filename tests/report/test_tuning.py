"""The page on what finetuning did to a model's language, from a real run of small models."""

import math
import re

import pytest

import harness
from harness.auditing.subjects import subjects_of
from harness.report.tuning import tuning_html, write_tuning
from harness.stats.comparison.common import DECISIVE
from harness.stats.comparison.tuning import compare_language


@pytest.fixture(scope="module")
def subjects(small_run):
    """A model that listens and one that reads no text, as if the one were tuned into the other."""
    return subjects_of([str(small_run)], [], rules={})


@pytest.fixture(scope="module")
def found(subjects):
    return compare_language(*subjects)


def test_the_decisive_change_is_that_of_the_verdicts(small_run, found):
    """Computed there for one model, here for both at once."""
    evidence = {
        (v.model, e.probe, e.attribute): e.decisive_change
        for v in harness.load_run(small_run).assessment.language
        if v.dataset == "phantom_pairs"
        for e in v.evidence
    }
    decisive = [a for a in found.aspects if a.figure == DECISIVE]
    assert [a.name for a in decisive] == ["size"]
    for aspect in decisive:
        for model, value in ((found.base, aspect.value_base), (found.tuned, aspect.value_tuned)):
            assert value == pytest.approx(evidence[model, aspect.probe, aspect.name], abs=1e-6)
        assert aspect.difference[0] > 0  # what was moved is moved no more


def test_the_page_shows_a_case_of_each_model(found, subjects, tmp_path):
    page, data = write_tuning(found, subjects, tmp_path / "new")
    html = page.read_text(encoding="utf-8")
    assert data.name == "language.json"
    pictures = html.partition('<section id="pictures">')[2].partition("</section>")[0]
    titles = re.findall(r"<h3>(.*?) on (\w+) ", pictures)
    assert ("size", "phantom_pairs") in titles
    classes = set(re.findall(r'class="shot (\w+)"', pictures))
    assert {name[0] for name in classes} == {"b", "t"}
    assert classes <= set(re.findall(r"^\.(\w+)\{background-image", html, flags=re.MULTILINE))
    assert found.sentence in html


def test_pictures_may_be_left_out(found, subjects):
    html = tuning_html(found, subjects, images="none")
    assert 'class="shot' not in html
    assert "Dice 0." in html


def test_undefined_figures_are_null(found):
    from harness.report.tuning import tuning_content

    content = tuning_content(found)
    ratios = [a["ratio"] for a in content["aspects"]]
    assert None in ratios
    assert all(r is None or math.isfinite(r) for r in ratios)
