"""Every released prompt string, where the shared folder is there."""

import json
from collections import Counter, defaultdict
from itertools import pairwise

import pytest

from harness.cards import load_dataset_card
from harness.prompts.grammar import load_grammar

# Files: rows, prompt strings.
FILES = {
    "bkai_polyp/test": (100, 2164),
    "busi/test": (78, 871),
    "camus/test": (600, 9000),
    "chexlocalize/test": (452, 3164),
    "clinicdb_polyp/test": (61, 1342),
    "colondb_polyp/test": (360, 7920),
    "cvc300_polyp/recovered_test": (60, 1320),
    "cvc300_polyp/test": (360, 7920),
    "dfu/test": (200, 4400),
    "etis_polyp/test": (176, 3872),
    "isic/test": (379, 8338),
    "kvasir_polyp/test": (100, 2200),
    "kvasir_polyp/train": (798, 17556),
    "kvasir_polyp/val": (100, 2200),
}
# Rows with more than one lesion, several sizes, several places; counted without this parser.
SEVERAL = {
    "bkai_polyp/test": (7, 1, 7),
    "busi/test": (6, 0, 6),
    "clinicdb_polyp/test": (8, 0, 8),
    "colondb_polyp/test": (10, 0, 10),
    "cvc300_polyp/recovered_test": (0, 0, 0),
    "cvc300_polyp/test": (10, 0, 10),
    "dfu/test": (35, 5, 35),
    "etis_polyp/test": (16, 0, 16),
    "isic/test": (8, 2, 8),
    "kvasir_polyp/test": (16, 2, 16),
    "kvasir_polyp/train": (149, 16, 149),
    "kvasir_polyp/val": (16, 0, 16),
}
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
NUMBERS += ("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen")
NUMBERS += ("eighteen", "nineteen", "twenty")
# The reference names some attributes otherwise.
RENAMED = {"label": "class", "noun": "class", "type": "tumor_type", "pathologies": "pathology"}


@pytest.fixture(scope="module")
def parsed(shared_data):
    """All prompts of each file: per row, per prompt type, the parsed prompts."""
    found = {}
    for path in sorted(shared_data.glob("*/anns/*.json")):
        grammar = load_grammar(path.parts[-3])
        found[f"{path.parts[-3]}/{path.stem}"] = [
            {
                kind: [
                    (grammar.parse(text, prompt_type=kind, index=index), grammar)
                    for index, text in enumerate([texts] if isinstance(texts, str) else texts)
                ]
                for kind, texts in row["prompts"].items()
            }
            for row in json.loads(path.read_text(encoding="utf-8"))
        ]
    return found


def prompts_of(rows, kinds=None):
    return [
        prompt
        for row in rows
        for kind, prompts in row.items()
        if kinds is None or kind in kinds
        for prompt, _ in prompts
    ]


def official(parsed, name):
    """The first prompt of each row's official type."""
    kind = load_dataset_card(name.split("/")[0]).prompt_type
    return [row[kind][0][0] for row in parsed[name]]


def test_every_released_prompt_parses_and_renders_back(parsed):
    counted = {name: (len(rows), len(prompts_of(rows))) for name, rows in parsed.items()}

    assert counted == FILES
    assert sum(rows for rows, _ in counted.values()) == 3824
    assert sum(strings for _, strings in counted.values()) == 72267
    for rows in parsed.values():
        for row in rows:
            for kind, prompts in row.items():
                for prompt, grammar in prompts:
                    again = grammar.render(kind, prompt.values, template=prompt.template)
                    assert again == prompt.text
    texts = [p.text for rows in parsed.values() for p in prompts_of(rows)]
    assert len([text for text in texts if text]) == 68443
    assert len(set(texts)) == 10439


def test_every_splits_card_knows_its_file(parsed):
    for name in parsed:
        dataset, split = name.split("/")
        assert split in load_dataset_card(dataset).splits


def test_longer_rungs_say_what_shorter_ones_say(parsed):
    """Spans of P2 stand in P3, those of P3 in P4, and so on: P9 and P5 to P8 included."""
    for name, rows in parsed.items():
        if name.startswith(("busi", "camus", "chexlocalize")):
            continue
        for row in rows:
            values = {kind: row[kind][0][0].values for kind in row}
            for low, high in pairwise(("p1", "p2", "p3", "p4", "p5", "p6")):
                assert values[low].items() <= values[high].items()
            assert values["p5"].items() <= values["p8"].items() <= values["p9"].items()
            assert values["p6"].items() <= values["p9"].items()


@pytest.mark.parametrize(
    ("name", "rungs"),
    [
        ("busi/test", ("p3", "p4", "p5")),
        ("camus/test", ("p1", "p2", "p3", "p4", "p5", "p6", "p7")),
        ("chexlocalize/test", ("p2", "p3", "p4", "p5")),
    ],
)
def test_longer_rungs_of_listed_prompts_say_what_shorter_ones_say(parsed, name, rungs):
    for row in parsed[name]:
        for low, high in pairwise(rungs):
            for (short, _), (long, _) in zip(row[low], row[high], strict=True):
                assert short.values.items() <= long.values.items()
                assert short.index == long.index


def test_defects_are_found_as_often_as_they_were_counted(parsed):
    for name, expected in SEVERAL.items():
        values = [prompt.values for prompt in official(parsed, name)]
        several = (
            sum(v.get("number", "one").lower() != "one" for v in values),
            sum(", " in v.get("size", "") for v in values),
            sum(", " in v.get("location", "") for v in values),
        )
        assert several == expected, name


def test_negative_sentences_are_found_as_often_as_they_were_counted(parsed):
    assert Counter(p.values["class"] for p in official(parsed, "bkai_polyp/test")) == {
        "polyp": 97,
        "no polyp": 3,
    }
    assert Counter(p.values["class"] for p in official(parsed, "busi/test")) == {
        "tumor": 59,
        "tumors": 6,
        "No tumor": 13,
    }


def test_number_words_agree_with_the_places_listed(parsed):
    for name in SEVERAL:
        for prompt in official(parsed, name):
            if "number" in prompt.values:
                n_places = prompt.values["location"].count(",") + 1
                assert NUMBERS.index(prompt.values["number"].lower()) + 1 == n_places


def released_values(reference):
    """Attribute values and counts of all splits, under the harness's attribute names."""
    found = json.loads((reference / "attribute_values.json").read_text(encoding="utf-8"))
    found["cvc300_polyp"] = found.pop("cvc300_recovered")
    return {
        dataset: [(RENAMED.get(name, name), Counter(counts)) for name, counts in values.items()]
        for dataset, values in found.items()
    }


def counted_values(parsed, dataset):
    """Counts over rows: one prompt of each attribute's fullest rung, lists flattened."""
    found = defaultdict(Counter)
    for name, rows in parsed.items():
        if not name.startswith(f"{dataset}/") or name == "cvc300_polyp/test":
            continue
        for row in rows:
            last = {}
            for kind in sorted(row):
                for prompt, _ in row[kind][:1]:
                    last |= prompt.values
            last.pop("description", None)
            for attribute, value in last.items():
                found[attribute].update(value.split(", ") if attribute == "pathology" else [value])
            for prompt, _ in row.get("p7", ()):
                if "description" in prompt.values:
                    found["description"][prompt.values["description"]] += 1
    return found


def test_no_value_is_found_that_the_reference_does_not_know(parsed, shared_reference):
    for dataset, attributes in released_values(shared_reference).items():
        found = counted_values(parsed, dataset)
        known = defaultdict(Counter)
        for name, counts in attributes:
            known[name].update(counts)
        for attribute, counts in found.items():
            if (dataset, attribute) == ("cvc300_polyp", "description"):
                continue  # not listed there
            assert counts <= known[attribute], (dataset, attribute, counts - known[attribute])


def test_values_of_whole_datasets_are_those_of_the_reference(parsed, shared_reference):
    reference = {name: dict(values) for name, values in released_values(shared_reference).items()}

    kvasir = counted_values(parsed, "kvasir_polyp")
    for attribute, counts in reference["kvasir_polyp"].items():
        n_each = 5 if attribute == "description" else 1
        assert (counts - kvasir[attribute]).total() == 2 * n_each  # two train rows were left out
        assert kvasir[attribute] <= counts
    recovered = counted_values(parsed, "cvc300_polyp")
    assert {name: recovered[name] for name in reference["cvc300_polyp"]} == reference[
        "cvc300_polyp"
    ]


def test_cvc300_is_colondb(parsed):
    """The released file is not CVC-300 at all; the recovered one is another set."""
    texts = {
        name: [p.text for p in prompts_of(parsed[name], {"p6"})]
        for name in ("cvc300_polyp/test", "colondb_polyp/test", "cvc300_polyp/recovered_test")
    }
    assert texts["cvc300_polyp/test"] == texts["colondb_polyp/test"]
    assert texts["cvc300_polyp/recovered_test"] != texts["colondb_polyp/test"][:60]
