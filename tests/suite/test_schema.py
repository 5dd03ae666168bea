"""Suites are data: what they may say, and what is said of a wrong one."""

import re

import pytest

from harness.cards import SurfaceRule, load_dataset_card
from harness.errors import SuiteError
from harness.suite import schema as suites
from harness.suite.json_schemas import schemas
from harness.suite.schema import Suite, load_suite, rules_of, suite_names, with_tolerances

GOOD = """\
name: mine
title: Mine
datasets:
  - {name: kvasir_polyp}
probes:
  - {name: gone, perturbation: empty}
"""


def write(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def refused(path, message):
    with pytest.raises(SuiteError, match=re.escape(message)):
        load_suite(path)


def test_a_suite_of_ones_own_is_read(tmp_path):
    suite = load_suite(write(tmp_path, GOOD))
    assert [probe.name for probe in suite.probes] == ["gone"]
    assert suite.words == 10


def test_a_perturbation_of_another_package_is_looked_for(tmp_path, monkeypatch):
    """Entry points are read only when a suite names what does not ship."""
    asked = []

    def load():
        asked.append(1)
        monkeypatch.setitem(suites.PERTURBATIONS, "theirs", suites.PERTURBATIONS["empty"])

    monkeypatch.setattr(suites, "load_outside", load)
    load_suite(write(tmp_path, GOOD))
    assert asked == []
    suite = load_suite(write(tmp_path, GOOD.replace("empty}", "theirs}")))
    assert (asked, suite.probes[0].perturbation) == ([1], "theirs")


def test_paper_runs_the_four(tmp_path):
    paper = load_suite("paper")
    parts = [
        load_suite(n)
        for n in ("empty_prompt", "random_word", "antonym_swap", "out_of_distribution")
    ]
    assert paper.probes == [probe for part in parts for probe in part.probes]
    assert paper.out_of_distribution
    assert all(part.datasets == paper.datasets for part in parts)
    assert len(paper.datasets) == 11


@pytest.mark.parametrize("name", suite_names())
def test_every_shipped_suite_names_its_schema(name):
    from harness.files import shipped

    path = shipped("suites") / f"{name}.yaml"
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first == "# yaml-language-server: $schema=schemas/suite.json"
    assert load_suite(name).name == name


def test_the_schemas_are_not_stale():
    for path, text in schemas().items():
        assert path.read_text(encoding="utf-8") == text, "run `make schemas`"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "perturbation: empty",
            "perturbation: emty",
            "mine.yaml:6: probes[0].perturbation: unknown perturbation 'emty'. "
            "Did you mean 'empty'? Known perturbations: 'absent', ",
        ),
        ("title:", "titel:", "mine.yaml:2: titel: unknown key. Did you mean 'title'?"),
        ("gone", "original", "the probe name 'original' is reserved; choose another one"),
        (
            "  - {name: gone, perturbation: empty}\n",
            "  - {name: gone, perturbation: empty}\n" * 2,
            "the probe 'gone' stands twice; give each its own name",
        ),
        (
            "title: Mine",
            "title: Mine\nincludes: [papr]",
            "mine.yaml:3: includes[0]: unknown suite 'papr'. Did you mean 'paper'?",
        ),
        (
            "title: Mine",
            "title: Mine\nincludes: [paper]",
            "mine.yaml:3: includes[0]: the suite 'paper' includes others itself. "
            "Includes go one level deep. Name its parts here instead.",
        ),
        (
            "title: Mine\ndatasets:\n  - {name: kvasir_polyp}\nprobes:\n  - {name: gone,",
            "title: Mine\nincludes: [empty_prompt]\nprobes:\n  - {name: empty, repeats: 2,",
            "mine.yaml:3: includes: the probe 'empty' is defined in two ways. A name means one "
            "probe. Rename one of the two.",
        ),
    ],
)
def test_a_wrong_suite_is_explained(tmp_path, old, new, message):
    assert old in GOOD
    refused(write(tmp_path, GOOD.replace(old, new)), message)


def test_an_unknown_suite_is_answered_with_the_nearest():
    with pytest.raises(SuiteError, match="suites: unknown suite 'papper'. Did you mean 'paper'?"):
        load_suite("papper")


def test_probes_that_hypothesis_adds_have_reserved_names(tmp_path):
    refused(
        write(tmp_path, GOOD.replace("gone", "property_based_mine")),
        "the probe name 'property_based_mine' is reserved; choose another one",
    )


def test_rungs_are_prompt_types(tmp_path):
    text = GOOD.replace("perturbation: empty}", "perturbation: prompt_type, rungs: [p3, p1]}")

    suite = load_suite(write(tmp_path, text))

    assert suite.probes[0].rungs == ["p3", "p1"]
    refused(write(tmp_path, text.replace("p3", "p10")), "mine.yaml:6: probes[0].rungs[0]: found")


def test_what_hypothesis_composes_comes_last(tmp_path):
    text = GOOD + "  - {name: same, perturbation: case}\nproperty_based: 3\n"

    rules = rules_of(load_suite(write(tmp_path, text)))

    assert [(probe.name, rule.name) for probe, rule in rules] == [
        ("gone", "empty"),
        ("same", "case"),
        ("property_based_removed", "composed"),
        ("property_based_preserved", "composed"),
    ]
    assert {probe.repeats for probe, _ in rules[2:]} == {3}


def with_nsd(**metric):
    return Suite.model_validate(
        {"name": "s", "title": "s", "metric": {"columns": ["nsd"], **metric}}
    )


def test_the_tolerance_of_nsd_comes_from_the_suite_then_from_the_card():
    card = load_dataset_card("kvasir_polyp")
    told = card.model_copy(update={"surface": SurfaceRule(tolerance_px=3)})
    assert with_tolerances(with_nsd(), [told]).metric.tolerance_px == {"kvasir_polyp": 3}
    own = with_nsd(tolerance_px={"kvasir_polyp": 1})
    assert with_tolerances(own, [told]).metric.tolerance_px == {"kvasir_polyp": 1}
    plain = Suite.model_validate({"name": "s", "title": "s"})
    assert with_tolerances(plain, [card]) is plain
    message = (
        "s: metric.columns: 'nsd' on kvasir_polyp has no tolerance. How far apart two contours may "
        "be is part of the figure. Give it on the data set's card (`surface: {tolerance_px: 2}`) "
        "or in the suite (`metric: {tolerance_px: {kvasir_polyp: 2}}`)."
    )
    with pytest.raises(SuiteError, match=re.escape(message)):
        with_tolerances(with_nsd(), [card])


def test_a_metric_without_tolerances_is_stored_as_it_always_was():
    plain = Suite.model_validate({"name": "s", "title": "s"}).metric
    assert plain.model_dump() == {"resolution": "model", "empty": "one", "columns": []}
    assert with_nsd(tolerance_px={"d": 2}).metric.model_dump()["tolerance_px"] == {"d": 2}
