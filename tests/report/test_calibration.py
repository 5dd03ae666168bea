"""What is said of a model where one attribute alone decides."""

from harness.report.table import deciding_table, language_sentences
from harness.stats.language import Evidence, LanguageVerdict


def deciding(split, percent, low, high, **more):
    return {
        "probe": "antonym",
        "perturbation": "antonym",
        "dataset": "phantom_pairs",
        "split": split,
        "attribute": split,
        "relative_change_percent": percent,
        "relative_change_low_percent": low,
        "relative_change_high_percent": high,
    } | more


def test_only_the_attribute_that_decides_is_shown(summary_of):
    beside = deciding("size", -80.0, -90.0, -70.0, attribute="color")
    assert deciding_table(summary_of(beside)) == (["model"], [])


def test_the_table_has_a_row_for_each_model(summary_of):
    summary = summary_of(
        {"probe": "original", "dataset": "phantom_crowd", "dice": 0.861},
        deciding("size", -80.4, -90.0, -70.0),
        deciding("shape", -0.04, -0.3, 0.4),
        deciding("number", float("nan"), float("nan"), float("nan")),
    )
    header, rows = deciding_table(summary)
    assert header == ["model", "size", "shape", "number", "Dice phantom_crowd"]
    assert rows == [["small", "-80 [-90, -70]", "0 [0, 0]", "-", "0.861"]]
    assert deciding_table(summary, intervals=False)[1][0][1:3] == ["-80", "0"]


def test_refusal_is_a_column_beside_the_attributes(summary_of):
    keys = ("small@1", "small", "pairs", "released", "p6", "cannot tell", "cannot tell", "", True)
    verdict = LanguageVerdict(*keys, refusal="hallucinates", refusal_rate=(0.004, 0.0, 0.031))
    silent = LanguageVerdict(*keys)
    summary = summary_of(deciding("size", -80.4, -90.0, -70.0))
    header, rows = deciding_table(summary, [verdict])
    assert (header, rows[0][2]) == (["model", "size", "refuses"], "0 [0, 3]")
    assert deciding_table(summary, [silent])[0] == ["model", "size"]


def test_a_sentence_stands_for_every_set_on_which_words_were_changed():
    nowhere = (float("nan"),) * 3
    evidence = (Evidence("size", "antonym", "size", "unclear", "", nowhere, nowhere),)
    keys = ("m@1", "m", "pairs", "released", "p6", "cannot tell", "cannot tell")
    found = [
        LanguageVerdict(*keys, "m on pairs cannot be judged.", True, evidence=evidence),
        LanguageVerdict(*keys, "m on solo cannot be judged.", False),
    ]
    assert language_sentences(found) == ["m on pairs cannot be judged."]
