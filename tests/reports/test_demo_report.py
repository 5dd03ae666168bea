"""The committed demo report is what this harness writes, and short enough to be one file."""

import re
from pathlib import Path

import pytest

from harness.auditing.choices import select_suite
from harness.auditing.samples import read_sets
from harness.cards import load_model_card
from harness.commands.demo import shipped_models
from harness.plan.build import build_plan
from harness.report.page import code_sha256, made_from, read_made_from

PAGE = Path(__file__).resolve().parent.parent.parent / "reports" / "demo.html"
STALE = "reports/demo.html is older than what makes it: `make demo-report` writes it anew"


@pytest.fixture(scope="module")
def text():
    return PAGE.read_text(encoding="utf-8")


def test_the_page_was_made_by_this_code_from_this_suite():
    found = read_made_from(PAGE)
    now = made_from(select_suite("demo"), found["plan"])
    assert found["suite"] == now["suite"], STALE
    assert found["code"] == code_sha256(), STALE


def test_the_page_shows_the_models_that_ship(text):
    for name in shipped_models():
        assert name in text, STALE
        assert load_model_card(name).card.checkpoint.sha256 in text, STALE


def test_the_page_is_complete_and_small(text):
    assert PAGE.stat().st_size < 4_000_000
    assert " 0 failed, 0 missing" in text
    for absent in ("Not on this page", "kept no masks", "not asked"):
        assert absent not in text
    assert len(set(re.findall(r"<section id=\"([a-z-]+)\"", text))) == 13


@pytest.mark.slow
def test_the_page_shows_the_plan_of_today(tmp_path):
    suite = select_suite("demo")
    sets = read_sets(suite, tmp_path, limit=24)
    assert read_made_from(PAGE)["plan"] == build_plan(suite, sets).sha256, STALE
