"""The counts of the reference on the released files that are at hand."""

import json

import pytest

from harness.cards import dataset_names, load_dataset_card
from harness.data.checks import clip_tokenizer, inspect
from harness.data.checks.lengths import too_long
from harness.data.checks.rows import read_split
from harness.data.checks.wording import _ARTICLE, _CLAUSE, FORMS, bare_form

# Rows with several targets and a singular noun, with several sizes, with several places.
COUNTED = {
    "kvasir_polyp/test": (16, 2, 16),
    "kvasir_polyp/val": (16, 0, 16),
    "kvasir_polyp/train": (149, 16, 149),
    "clinicdb_polyp/test": (8, 0, 8),
    "bkai_polyp/test": (7, 1, 7),
    "colondb_polyp/test": (10, 0, 10),
    "cvc300_polyp/test": (10, 0, 10),
    "cvc300_polyp/recovered_test": (0, 0, 0),
    "etis_polyp/test": (16, 0, 16),
    "isic/test": (8, 2, 8),
    "dfu/test": (35, 5, 35),
    "busi/test": (0, 0, 6),
}


@pytest.fixture(scope="module")
def inspected(shared_data):
    cards = [load_dataset_card(name) for name in dataset_names()]
    here = [card for card in cards if (shared_data / card.name).is_dir()]
    return inspect([card for card in here if not card.generator], shared_data)


def count(inspected, name, defect):
    dataset, split = name.split("/")
    found = [
        f.n_rows
        for f in inspected.findings
        if (f.dataset, f.split, f.defect) == (dataset, split, defect)
    ]
    return found[0] if found else None


def test_lesions_sizes_and_places_are_counted_as_in_the_reference(inspected):
    kinds = ("singular_noun", "several_sizes", "several_places")
    found = {name: tuple(count(inspected, name, kind) for kind in kinds) for name in COUNTED}
    assert found == COUNTED


def test_the_files_hold_what_the_reference_says(inspected):
    facts = inspected.facts
    assert sum(f.n_rows for f in facts) == 3824
    assert sum(f.n_prompts for f in facts) == 72_267
    assert sum(f.n_prompts - f.n_empty for f in facts) == 68_443
    assert len(inspected.texts) == 10_439
    assert sum("test" in f.split for f in facts) == 12


def test_distinct_prompts_are_counted_as_in_the_reference(inspected):
    """BUSI and CAMUS are counted there by their first prompt of two."""
    found = {
        f"{f.dataset}/{f.split}": (f.n_distinct, f.n_rows)
        for f in inspected.facts
        if f.prompt_type == "p6"
    }
    for name, expected in {
        "kvasir_polyp/test": (66, 100),
        "clinicdb_polyp/test": (48, 61),
        "bkai_polyp/test": (78, 100),
        "colondb_polyp/test": (101, 360),
        "etis_polyp/test": (85, 176),
        "isic/test": (92, 379),
        "dfu/test": (108, 200),
    }.items():
        assert found[name] == expected


@pytest.mark.parametrize(
    ("name", "defect", "expected"),
    [
        ("bkai_polyp/test", "denied_target", 3),
        ("bkai_polyp/test", "unusual_form", 3),
        ("busi/test", "empty_mask", 13),
        ("busi/test", "inverted_box", 13),
        ("busi/test", "unusual_form", 13),
        ("busi/test", "changing_value", 65),
        ("camus/test", "no_box", 600),
        ("dfu/test", "no_box", 200),
        ("dfu/test", "misspelt", 200),
        ("chexlocalize/test", "stray_blanks", 452),
        ("cvc300_polyp/test", "identical_annotations", 360),
        ("colondb_polyp/test", "identical_annotations", 360),
        ("clinicdb_polyp/test", "wrong_location", 25),
        ("clinicdb_polyp/test", "wrong_size", 0),
        ("clinicdb_polyp/test", "wrong_row", 0),
        ("busi/test", "wrong_location", 17),
        ("bkai_polyp/test", "empty_mask", None),
        ("isic/test", "shape_no_form", 2),
    ],
)
def test_other_defects(inspected, name, defect, expected):
    assert count(inspected, name, defect) == expected


def test_the_wrong_columns_of_kvasir(inspected):
    """189 in the whole set; the rows are right."""
    for defect, expected in (("wrong_column", 189), ("wrong_row", 0)):
        splits = ("train", "val", "test")
        assert sum(count(inspected, f"kvasir_polyp/{s}", defect) for s in splits) == expected


# Clauses, articles and shapes that are no form, over all splits.
SHAPES = {
    "kvasir_polyp": (10, 8, 16),
    "clinicdb_polyp": (0, 39, 25),
    "bkai_polyp": (14, 41, 18),
    "etis_polyp": (2, 1, 1),
    "isic": (0, 0, 8),
    "dfu": (0, 11, 89),
}


@pytest.mark.parametrize("dataset", SHAPES)
def test_shapes_are_told_apart_as_in_the_reference(shared_reference, dataset):
    values = json.loads((shared_reference / "attribute_values.json").read_text())[dataset]["shape"]
    pairs = values.items() if isinstance(values, dict) else values
    kinds = (
        lambda s: bool(_CLAUSE.match(s)),
        lambda s: bool(_ARTICLE.match(s)),
        lambda s: bare_form(s) not in FORMS,
    )
    found = tuple(sum(n for shape, n in pairs if is_kind(shape)) for is_kind in kinds)
    assert found == SHAPES[dataset]


@pytest.mark.parametrize(
    ("dataset", "limit", "expected"),
    [
        ("colondb_polyp", 77, {"p9": 1}),
        ("colondb_polyp", 32, {"p6": 2, "p9": None}),
        ("camus", 32, {"p5": 388, "p6": 600}),
        ("chexlocalize", 32, {"p5": 425, "p6": 261}),
        ("chexlocalize", 77, {"p5": 0}),
    ],
)
def test_prompts_beyond_the_tokens(shared_data, dataset, limit, expected):
    rows = read_split(load_dataset_card(dataset), shared_data, "test")
    found = {f.defect: f.n_rows for f in too_long(rows, clip_tokenizer(limit))}
    for rung, n_rows in expected.items():
        if n_rows is not None:
            assert found[f"too_long_{rung}"] == n_rows
