"""The Markdown summary: complete, aligned, escaped."""

import re

import pytest

from harness.report import markdown as page
from harness.report.sheet import WIDTH
from harness.stats.language import Evidence, LanguageVerdict
from harness.stats.verdicts import Verdict


@pytest.fixture(scope="module")
def markdown(assessment):
    """The page of a summary without verdicts."""
    return lambda summary, **more: page.markdown(assessment(summary), **more)


def cells(line):
    return [c.strip() for c in re.split(r"(?<!\\)\|", line.strip("|"))]


def table_lines(text):
    return [line for line in text.splitlines() if line.startswith("|")]


def test_the_page_fits_its_width_and_its_tables_line_up(summary, markdown):
    text = markdown(summary, title="Paper")

    assert max(map(len, text.splitlines())) <= WIDTH
    for block in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        lines = block.splitlines()
        assert len({len(line) for line in lines}) == 1
        assert len({len(cells(line)) for line in lines}) == 1
        assert set("".join(cells(lines[1]))) <= set(":-")


def test_the_page_says_what_was_measured(summary, markdown):
    text = markdown(summary, title="Paper: four questions")

    assert text.startswith("# Paper: four questions\n\n| model | id ")
    assert "| small | `small@1a2b` |" in text
    assert "\n- `dice|res:model|thr:0.5|empty:1|gt:>127|v:1` small\n" in text
    assert "| kvasir_polyp   | test  | released | p6   | image" in text
    assert "\n## kvasir_polyp (p6)\n\n### test\n\n#### small: Dice 0.812 [0.790, 0.835]; " in text
    assert "| -12.3 [-18.9, -7.0] |" in text
    assert "- random_word (color, size): for these words only." in text
    assert "## small away from its training data" in text
    assert text.endswith("\n")


def unwrapped(text):
    return re.sub(r"\n  (?=\S)", " ", text)


def test_the_two_confounds_stand_with_random_words_only(summary, summary_of, markdown):
    without = summary_of({"probe": "swap", "perturbation": "swap_value"})

    for text in ("out-of-vocabulary shock", "redundancy"):
        assert text in unwrapped(markdown(summary))
        assert text not in unwrapped(markdown(without))


def test_the_papers_p0_is_told_from_an_empty_prompt(summary, summary_of, markdown):
    caveat = '"trained and tested with empty text", is a different measurement'
    without = summary_of({"probe": "swap", "perturbation": "swap_value"})

    assert caveat in unwrapped(markdown(summary))
    assert caveat not in unwrapped(markdown(without))
    assert "Read it beside the control" in unwrapped(markdown(summary))
    assert "Read it beside the control" not in unwrapped(markdown(without))


def test_hostile_names_stay_names(summary_of, markdown):
    bad = "x|y<script>alert(1)</script>\n# own heading\n- [a](http://b)"
    text = markdown(
        summary_of(
            {"probe": "original", "model": bad, "model_id": bad, "dataset": bad, "signature": bad},
            {"probe": bad, "attribute": bad, "model": bad, "model_id": bad, "dataset": bad,
             "notes": [bad], "not_applicable": bad, "n_not_applicable": 1, "signature": bad},
        ),
        title=bad,
    )  # fmt: skip

    outside_code = re.sub(r"`[^`]*`", "", text)
    assert "<script" not in outside_code
    assert "](" not in re.sub(r"\\.", "", outside_code)
    assert "http://" not in outside_code
    headings = [line for line in text.splitlines() if line.startswith("#")]
    assert [line.partition(" ")[0] for line in headings] == ["#", "##", "###", "####", "##"]
    for block in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        assert len({len(cells(line)) for line in block.splitlines()}) == 1


def test_a_wrapped_line_never_starts_a_list(summary_of, markdown):
    note = ("word " * 18) + "1. - + # 2) > = " * 12
    text = markdown(summary_of({"probe": "original"}, {"probe": "swap", "notes": [note]}))

    body = text[text.index("- swap:") :].split("\n\n")[0].splitlines()
    assert len(body) > 1
    for line in body[1:]:
        assert line.startswith("  ")
        assert not re.match(r"\s+([-+#>=]|\d+[.)])(\s|$)", line)


NOWHERE = (float("nan"),) * 3
EVIDENCE = Evidence("test", "antonym", "size", "heard", "Moved.", NOWHERE, NOWHERE)


def spoken(**given):
    base = {"model_id": "small@1a2b", "model": "small", "dataset": "d", "prompts": "released"}
    base |= {"prompt_type": "p6", "language": "listening", "steadiness": "cannot tell"}
    base |= {"reason": "small on d listens to size.", "named_targets": True}
    base |= {
        "evidence": (EVIDENCE,),
        "blocking": ("No probe.",),
        "confounds": ("Shock *and* use.",),
    }
    return LanguageVerdict(**base | given)


def test_the_overview_stands_first_then_set_by_set_with_what_bears_on_its_verdicts(
    summary, assessment
):
    said = spoken(dataset="kvasir_polyp", confounds=("Shock *and* use.", "That size changes."))
    text = page.markdown(assessment(summary, language=[said]))
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings == [
        "## Overview",
        "## Models and sets",
        "## kvasir_polyp (p6)",
        "## small away from its training data",
        "## How to read this",
    ]
    overview, _, own = (part.splitlines() for part in text.split("\n## ")[1:4])
    assert overview[2] == "- small: listening; steadiness undecided"
    assert cells(overview[4])[:2] == ["model", "size"]
    assert own[2:5] == [
        "- small on d listens to size.",
        "  - No probe.",
        r"  - Shock \*and\* use.",
    ]
    assert own[5] == ""  # what is unheard is explained once for all models
    assert "may be due to the data" not in text[: text.index("## How to read")]


def test_sets_on_which_no_word_was_changed_are_not_spoken_of(summary, assessment):
    text = page.markdown(assessment(summary, language=[spoken(evidence=())]))
    assert "Overview" not in text
    assert "listens" not in text


MANY = [f"model-{k}" for k in range(8)]


def large(summary_of, assessment, *, sets=6, probes=10):
    """Models x sets x probes, with a binding verdict each that holds, is open or fails."""
    rows, verdicts, language = [], [], []
    for model in MANY:
        for n in range(sets):
            keys = {"model_id": f"{model}@1", "model": model, "dataset": f"set_{n}"}
            rows.append(keys | {"probe": "original", "dice": 0.8, "dice_low": 0.7})
            language.append(spoken(**keys, named_targets=n == 2))
            for k in range(probes):
                own = keys | {"probe": f"probe_{k}", "attribute": "size"}
                note = {"n_not_applicable": 3, "not_applicable": "attribute absent (3)"}
                rows.append(own | note | {"catastrophic_share": 0.1 + k / 100})
                rule = {"kind": "invariance", "of": "relative_change", "accepted_low": -3.0}
                rule |= {"accepted_high": 3.0, "meaning": "preserved", "binding": True}
                outcome = ("holds", "holds", "inconclusive", "fails")[k % 4]
                verdicts.append(
                    Verdict(**own, **rule, split="test", prompts="released", prompt_type="p6",
                            perturbation="x", verdict=outcome, test="equivalence",
                            reason="Dice changes by so much [0, 1]: neither; seen in 4 of 5.")
                )  # fmt: skip
    return assessment(summary_of(*rows), verdicts=verdicts, language=language)


def test_a_large_run_is_read_from_the_top_and_stays_small(summary_of, assessment):
    found = large(summary_of, assessment)
    text = page.markdown(found)
    sets = [line for line in text.splitlines() if line.startswith("## set")]
    assert sets == [f"## set_{n} (p6)" for n in range(6)]
    first = text[: text.index(sets[0])]
    assert all(f"| {model} " in first for model in MANY)
    told = "- probe_3 fails where a failure is a fault: model-0, model-1, model-2, model-3 and 4"
    assert told in first.replace("\\", "")
    # Two hundred characters for each model, set and probe, headings, notes and all.
    assert len(text) < 200 * found.summary.height
    # What all models of a set share is said once.
    assert text.count("attribute absent (3)") == 6


def test_binding_verdicts_stand_with_their_table_and_others_in_its_column(summary_of, assessment):
    keys = {"model_id": "small@1a2b", "model": "small", "dataset": "kvasir_polyp", "split": "test"}
    keys |= {"prompts": "released", "prompt_type": "p6", "perturbation": "x", "attribute": None}
    rule = {"kind": "invariance", "of": "relative_change", "accepted_low": -3.0}
    rule |= {"accepted_high": 3.0, "meaning": "preserved"}
    verdicts = [
        Verdict(**keys, **rule, probe="typo", binding=True, verdict="holds", reason="It stays."),
        Verdict(**keys, **rule, probe="case", binding=True, verdict="fails", reason="It moves."),
        Verdict(**keys, **rule, probe="swap", binding=False, verdict="fails", reason="Moved."),
    ]
    summary = summary_of(
        {"probe": "original"},
        {"probe": "typo", "verdict": "holds", "expectation": "invariance of dice within 3 %"},
        {"probe": "case", "verdict": "fails", "expectation": "refusal of refusal_rate at least 1"},
        {"probe": "swap", "verdict": "inconclusive", "expectation": "direction of points below 1"},
    )
    text = unwrapped(page.markdown(assessment(summary, verdicts=verdicts)))
    assert "- case: invariance of relative_change within 3 % fails. It moves." in text
    assert "It stays." not in text  # its column says that it holds
    assert "Moved." not in text
    shown = [cells(line)[5] for line in table_lines(text) if "whole prompt" in line]
    assert shown == ["unmoved: yes", "refuses: no", "moved: open"]
