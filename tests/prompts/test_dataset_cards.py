"""The eleven dataset cards that ship with the harness."""

import re

import pytest

from harness.cards import dataset_names, load_dataset_card
from harness.files import shipped

REAL = (
    *("kvasir_polyp", "clinicdb_polyp", "bkai_polyp", "colondb_polyp", "cvc300_polyp"),
    *("etis_polyp", "isic", "dfu", "camus", "busi", "chexlocalize"),
)
ATTRIBUTES = {
    *("class", "shape", "color", "size", "number", "location", "description"),
    *("view", "pathology", "cycle", "gender", "age", "quality", "tumor_type"),
}


def cards():
    return [load_dataset_card(name) for name in REAL]


def test_all_eleven_are_there_and_know_their_name():
    assert set(REAL) <= set(dataset_names())
    assert [card.name for card in cards()] == list(REAL)


@pytest.mark.parametrize("name", REAL)
def test_editors_find_the_schema_on_the_first_line(name):
    first = (shipped("suites") / "datasets" / f"{name}.yaml").read_text().splitlines()[0]

    assert first == "# yaml-language-server: $schema=../schemas/dataset.json"


def test_the_fourteen_attributes_and_no_other_one():
    assert {name for card in cards() for name in card.grammar.attributes} == ATTRIBUTES


def test_only_pictures_whose_licence_allows_it_are_shown():
    assert [card.name for card in cards() if not card.private] == ["busi"]


def test_official_prompt_types_are_the_highest_attribute_rung():
    official = {card.name: card.prompt_type for card in cards()}

    assert official.pop("chexlocalize") == "p5"
    assert set(official.values()) == {"p6"}


def test_named_targets_where_one_image_has_several_samples():
    assert [card.name for card in cards() if card.named_targets] == ["camus", "chexlocalize"]


@pytest.mark.parametrize(
    ("dataset", "image", "patient"),
    [
        ("camus", "patient0001_2CH_ED.png", "patient0001"),
        ("chexlocalize", "patient64832_study1_view2_lateral.jpg", "patient64832"),
    ],
)
def test_patients_are_found_in_image_names(dataset, image, patient):
    pattern = load_dataset_card(dataset).clusters.pattern

    assert re.search(pattern, image).group(1) == patient


def test_the_videos_of_clinicdb_cover_its_612_frames_once():
    ranges = load_dataset_card("clinicdb_polyp").clusters.ranges

    assert len(ranges) == 29
    assert [n for first, last in ranges for n in range(first, last + 1)] == list(range(1, 613))


def test_video_sets_are_clustered_by_sequence():
    by_rule = {card.name: card.clusters.rule for card in cards()}

    videos = {name for name, rule in by_rule.items() if rule == "sequence"}
    assert videos == {"clinicdb_polyp", "colondb_polyp", "cvc300_polyp", "etis_polyp"}


def test_camus_keeps_its_test_images_apart():
    assert load_dataset_card("camus").layout.images == {
        "train": "images/train",
        "val": "images/train",
        "test": "images/test",
    }


@pytest.mark.parametrize("name", REAL)
def test_known_defects_are_sentences(name):
    defects = load_dataset_card(name).defects

    assert defects
    assert all(text.endswith(".") for text in defects)


def test_the_false_cvc300_is_declared():
    card = load_dataset_card("cvc300_polyp")

    assert card.splits == ["train", "test", "recovered_test"]
    assert "CVC-ColonDB" in card.defects[0]
