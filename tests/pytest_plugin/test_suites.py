"""Suites as tests: what is collected, what passes, what a failure shows."""

import json
import re

from harness.runs.store import RunStore

CASE = "my.suite.yaml::kvasir_polyp-p6::case"


def runs(place):
    return [RunStore(p.parent) for p in place.path.rglob("run.json")]


def test_a_suite_is_one_test_a_probe_and_dataset(inner):
    found = inner("--collect-only", "-q", "my.suite.yaml")
    assert found.ret == 0
    found.stdout.fnmatch_lines_random(
        [
            "my.suite.yaml::every_case",
            CASE,
            "my.suite.yaml::kvasir_polyp-p6::synonym",
            "my.suite.yaml::kvasir_polyp-p6::antonym",
            "my.suite.yaml::kvasir_polyp-p6::empty_prompt[[]minimum-dice[]]",
            "my.suite.yaml::kvasir_polyp-p6::empty_prompt[[]direction-relative_change[]]",
            "6 tests collected*",
        ]
    )


def test_a_model_that_keeps_its_masks_passes_and_deafness_fails_what_asks_for_change(inner, place):
    """The spotter without patterns: its masks never move, so that Dice never falls."""
    found = inner("my.suite.yaml", "--junit-xml", "junit.xml")
    found.assert_outcomes(passed=5, failed=1)
    text = found.stdout.str()
    assert "FAILED my.suite.yaml::kvasir_polyp-p6::empty_prompt[direction-relative_change]" in text
    assert "spotter on kvasir_polyp (test, p6), empty_prompt of the whole prompt" in text
    assert (
        "direction of relative_change below -5 %: fails. Dice changes by 0.0 % [0.0, 0.0]" in text
    )
    assert "variant:  (empty)" in text
    assert re.search(
        r"original: \[-one (small|medium|large) .* polyp, located in .* image-\]", text
    )
    junit = (place.path / "junit.xml").read_text()
    assert 'name="vlsm size" value="holds: Dice changes by 0.0 % [0.0, 0.0]' in junit


def test_a_failure_shows_both_prompts_and_the_figures_of_the_worst_cases(inner, place):
    place.card(rest="POLYP", nothing="POLYP")
    found = inner("my.suite.yaml", "-k", "case and not every_case")
    found.assert_outcomes(failed=1, deselected=5)
    text = found.stdout.str()
    assert "invariance of relative_change within 3 %: fails. Dice changes by -" in text
    assert re.search(r"Dice 0\.\d+ -> 0\.\d+ \[0\.\d+, 0\.\d+\], change -\d+\.\d \[-", text)
    worst = re.findall(
        r"images/test_\d+\.png \(sample [^)]*\): Dice [01]\.\d+ -> 0\.000, agreement", text
    )
    assert len(worst) == 3
    assert re.search(r"original: \[-one", text)
    assert re.search(r"variant:  \{\+ONE", text)
    assert "run: " in text


def test_an_inconclusive_expectation_is_skipped_with_its_reason_or_fails_if_strict(inner):
    arguments = ("my.suite.yaml", "--vlsm-limit", 8, "-k", CASE.rpartition("::")[2])
    few = inner(*arguments)
    few.assert_outcomes(skipped=1, passed=1, deselected=4)
    few.stdout.fnmatch_lines(
        ["*inconclusive: case of the whole prompt: No verdict: 8 clusters, and 20 are needed.*"]
    )
    strict = inner(*arguments, "--vlsm-strict")
    strict.assert_outcomes(failed=1, passed=1, deselected=4)


def test_a_second_session_continues_and_asks_the_model_nothing(inner, place):
    inner("my.suite.yaml")
    (store,) = runs(place)
    parts = {p: p.stat().st_mtime_ns for p in (store.folder / "scores").iterdir()}
    assert len(parts) >= 1
    again = inner("my.suite.yaml", "-k", "every_case")
    again.assert_outcomes(passed=1, deselected=5)
    assert {p: p.stat().st_mtime_ns for p in (store.folder / "scores").iterdir()} == parts
    assert len(runs(place)) == 1


def test_a_run_that_cannot_be_made_is_one_text_for_every_test_and_no_traceback(inner, place):
    (place.path / "card.yaml").write_text(
        "name: x\ntitle: x\nthreshold: 0.5\nadapter: nowhere.py:Toy\n"
    )
    found = inner("my.suite.yaml")
    found.assert_outcomes(failed=6)
    text = found.stdout.str()
    assert "error: " in text
    assert "nowhere.py" in text
    assert "(In pytest: --vlsm-out gives another folder; this one is " in text
    assert "Traceback" not in text


def test_cases_that_fail_fail_the_test_of_completeness(inner, place):
    place.card(bad="^$")
    found = inner("my.suite.yaml")
    text = found.stdout.str()
    assert re.search(r"spotter: 32 of \d+ cases have no score\.", text)
    assert "nothing was measured: every case failed" in text
    found.assert_outcomes(failed=3, passed=3)


def test_a_broken_suite_is_an_error_of_collection_with_its_place(inner, place):
    (place.path / "my.suite.yaml").write_text("name: mine\ntitle: x\nprobs: []\n")
    found = inner("my.suite.yaml")
    found.assert_outcomes(errors=1)
    found.stdout.fnmatch_lines(["error: *my.suite.yaml:3: probs: *"])


def test_any_yaml_file_is_a_suite_where_the_command_line_names_it(inner, place):
    (place.path / "my.suite.yaml").rename(place.path / "other.yaml")
    assert "6 tests collected" in inner("--collect-only", "-q", "other.yaml").stdout.str()
    assert "no tests collected" in inner("--collect-only", "-q").stdout.str()


def test_two_models_are_told_apart_and_only_they_are_judged(inner, place):
    place.card("other", rest="POLYP")
    found = inner("my.suite.yaml", "--vlsm-model", "other.yaml", "-k", "case and not every_case")
    found.assert_outcomes(passed=1, failed=1, deselected=9)
    assert "FAILED my.suite.yaml::kvasir_polyp-p6::case[other.yaml]" in found.stdout.str()


def test_runs_go_where_they_are_sent_and_need_a_place(inner, place):
    inner("my.suite.yaml", "--vlsm-out", "here", "-k", "every_case").assert_outcomes(
        passed=1, deselected=5
    )
    (store,) = runs(place)
    assert store.folder.is_relative_to(place.path / "here")
    assert json.loads((store.folder / "run.json").read_text())["evaluated"]
    none = inner("my.suite.yaml", "-p", "no:cacheprovider", "-k", "every_case")
    none.stdout.fnmatch_lines(["*--vlsm-out: not given, and pytest's cache is switched off.*"])


def test_what_does_not_apply_is_skipped_with_its_reason(inner, place):
    text = (place.path / "my.suite.yaml").read_text()
    probe = "  - {name: never, perturbation: swap_value, attributes: [class]}\n"
    (place.path / "my.suite.yaml").write_text(text.replace("statistics:", f"{probe}statistics:"))
    found = inner("my.suite.yaml", "-k", "never")
    found.assert_outcomes(skipped=1, deselected=6)
    found.stdout.fnmatch_lines(["*does not apply: *"])


def test_a_limit_below_one_is_refused(inner):
    found = inner("my.suite.yaml", "--vlsm-limit", "0")
    assert found.ret == 4
    found.stderr.fnmatch_lines(["*--vlsm-limit: found '0'. A whole number from 1 on is needed."])


def test_the_rules_of_the_gate_are_a_test_of_their_own(inner, place):
    """Red where `gate` is; open where it could decide nothing."""
    suite = place.path / "my.suite.yaml"
    whole = suite.read_text()
    suite.write_text(whole + "gate: {min_dice: 0.99}\n")
    found = inner("my.suite.yaml", "-k", "gate")
    found.assert_outcomes(failed=1, deselected=6)
    assert "min_dice kvasir_polyp" in found.stdout.str()
    assert "failed: min_dice" in found.stdout.str()
    suite.write_text(whole + "gate: {min_dice: 0.1}\n")
    inner("my.suite.yaml", "-k", "gate").assert_outcomes(passed=1, deselected=6)
    limited = ("my.suite.yaml", "-k", "gate", "--vlsm-limit", "4")
    inner(*limited).assert_outcomes(skipped=1, deselected=6)
    inner(*limited, "--vlsm-strict").assert_outcomes(failed=1, deselected=6)
