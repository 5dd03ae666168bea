"""Every kind of defect is found where it is planted, and nowhere else."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from harness.cards import DatasetCard, load_dataset_card
from harness.data.checks import ROW_DEFECTS, Tokenizer, inspect
from harness.data.checks.wording import FORMS, bare_form
from harness.errors import DataError

KVASIR, BUSI, CAMUS, COLONDB, CVC300 = map(
    load_dataset_card, ("kvasir_polyp", "busi", "camus", "colondb_polyp", "cvc300_polyp")
)


def change(row, **prompts):
    return row | {"prompts": row["prompts"] | prompts}


def counts(inspected, **of):
    """Rows by kind of defect, the kinds without any left out."""
    return {
        f.defect: f.n_rows
        for f in inspected.findings
        if f.n_rows and all(getattr(f, k) == v for k, v in of.items())
    }


@pytest.fixture
def planted(write, row):
    """Counts of a clean kvasir_polyp of five rows in which the third is another one."""

    def plant(third):
        rows = [row(f"{n}.png") for n in range(5)]
        rows[2] = third(rows[2])
        inspected = inspect([KVASIR], write("kvasir_polyp", rows))
        found = [f for f in inspected.findings if f.n_rows and f.basis == "annotations"]
        assert all(f.n_checked == 5 for f in found)
        assert all(f.examples[0].startswith("row 2: ") for f in found)
        return {f.defect: f.n_rows for f in found}

    return plant


PLANTED = {
    "singular_noun": (
        lambda r: change(r, p5="two small, large white round polyp"),
        {"singular_noun", "several_sizes", "changing_value"},
    ),
    "one_size_for_several": (
        lambda r: change(r, p5="two small white round polyp"),
        {"singular_noun", "one_size_for_several", "changing_value"},
    ),
    "several_sizes": (
        lambda r: change(r, p5="one small, large white round polyp"),
        {"several_sizes", "changing_value"},
    ),
    "several_places": (
        lambda r: change(
            r, p6="one small white round polyp, located in top left, top of the image"
        ),
        {"several_places"},
    ),
    "repeated_places": (
        lambda r: change(r, p6="one small white round polyp, located in top, top of the image"),
        {"several_places", "repeated_places"},
    ),
    "seven_or_more": (
        lambda r: change(r, p5="seven small, tiny white round polyp"),
        {"singular_noun", "several_sizes", "seven_or_more", "changing_value"},
    ),
    "shape_clause": (
        lambda r: json.loads(json.dumps(r).replace("round", "it is round")),
        {"shape_clause"},
    ),
    "shape_article": (
        lambda r: json.loads(json.dumps(r).replace("round", "a circle")),
        {"shape_article"},
    ),
    "shape_no_form": (
        lambda r: json.loads(json.dumps(r).replace("round", "middle of donut")),
        {"shape_no_form"},
    ),
    "misspelt": (
        lambda r: change(r, p7=["polyp which is a mucuos lump", "polyp which is a bump"]),
        {"misspelt"},
    ),
    "stray_blanks": (
        lambda r: change(r, p5="one small white very  round polyp"),
        {"stray_blanks", "changing_value", "shape_no_form"},
    ),
    "changing_value": (
        lambda r: change(r, p5="one small pink round polyp"),
        {"changing_value"},
    ),
    "refused": (
        lambda r: change(r, p6="somewhere there may be something"),
        {"refused"},
    ),
    "duplicate_row": (
        lambda r: r | {"img_name": "1.png", "mask_name": "1.png"},
        {"duplicate_row"},
    ),
    "shared_prompt": (
        lambda r: r | {"img_name": "1.png"},
        {"shared_prompt"},
    ),
    "denied_target": (
        lambda r: r | {"prompts": {"p0": "", "p1": "no polyp"}},
        {"denied_target"},
    ),
    "unusual_form": (
        lambda r: change(r, p7="polyp which is a bump"),
        {"unusual_form"},
    ),
    "inverted_box": (lambda r: r | {"bbox": [60, 60, 0, 0]}, {"inverted_box"}),
    "no_box": (lambda r: {k: v for k, v in r.items() if k != "bbox"}, {"no_box"}),
    "empty_sentences": (lambda r: r | {"sentences": [{"sent": ""}]}, {"empty_sentences"}),
}


def test_a_clean_file_has_no_defect(planted):
    assert planted(lambda r: r) == {}


def test_every_check_on_rows_has_a_planted_defect():
    assert PLANTED.keys() | {key for _, kinds in OF_AREAS for key in kinds} == ROW_DEFECTS.keys()


@pytest.mark.parametrize("key", PLANTED)
def test_a_planted_defect_is_found_with_its_row(planted, key):
    """With it the others that it cannot be planted without."""
    third, expected = PLANTED[key]
    assert planted(third) == dict.fromkeys(expected, 1)


def test_plural_nouns_are_known_from_the_card(write):
    text = "Two small, large benign {} at the top, left in the breast ultrasound image."
    rows = [
        {"img_name": f"{n}.png", "mask_name": f"{n}.png", "prompts": {"p5": text.format(noun)}}
        for n, noun in enumerate(["tumors", "tumor"])
    ]
    found = counts(inspect([BUSI], write("busi", rows, pictures=False)))
    assert (found["several_places"], found["singular_noun"]) == (2, 1)


def test_two_targets_of_one_image_are_no_defect_with_prompts_of_their_own(write, row):
    rows = [row("1.png"), row("2.png", shape="oval") | {"img_name": "1.png"}]
    assert "shared_prompt" not in counts(inspect([KVASIR], write("kvasir_polyp", rows)))


def test_only_the_splits_that_are_asked_for_are_checked(write, row):
    root = write("kvasir_polyp", [row("1.png"), row("2.png", shape="a circle")], split="train")
    write("kvasir_polyp", [row("2.png"), row("3.png")])
    inspected = inspect([KVASIR], root, splits={"kvasir_polyp": ["test"]})
    assert [f.split for f in inspected.facts] == ["test"]
    found = counts(inspected)
    assert "shape_article" not in found
    assert found["image_in_two_splits"] == 1


def repaint(root, name, box):
    path = root / "kvasir_polyp" / "masks" / name
    mask = np.zeros((60, 60), np.uint8)
    if box:
        mask[box[0] : box[1], box[2] : box[3]] = 255
    Image.fromarray(mask).save(path)


@pytest.fixture
def masked(write, row):
    """Five clean rows; the function counts what contradicts the masks."""
    rows = [row(f"{n}.png") for n in range(5)]
    root = write("kvasir_polyp", rows)

    def count():
        return counts(inspect([KVASIR], root), basis="masks")

    return root, rows, write, count


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((3, 12, 3, 12), set()),
        ((3, 12, 43, 52), {"wrong_location", "wrong_column"}),
        ((43, 52, 3, 12), {"wrong_location", "wrong_row"}),
        ((0, 18, 0, 17), {"wrong_size"}),
        (None, {"empty_mask", "named_in_empty_mask"}),
    ],
)
def test_words_that_contradict_the_mask(masked, box, expected):
    root, _, _, count = masked
    assert count() == {}
    repaint(root, "3.png", box)
    assert count() == dict.fromkeys(expected, 1)


def test_a_wrong_number_and_a_denied_target(masked):
    _, rows, write, count = masked
    rows[1] = change(rows[1], p5="two small white round polyp")
    rows[4] = rows[4] | {"prompts": {"p0": "", "p1": "no polyp"}}
    write("kvasir_polyp", rows)
    assert count() == {"wrong_number": 1, "denied_in_mask": 1}


def test_a_denied_target_and_an_empty_mask_agree(masked):
    root, rows, write, count = masked
    rows[1] = rows[1] | {"prompts": {"p0": "", "p1": "no polyp"}}
    write("kvasir_polyp", rows)
    repaint(root, "1.png", None)
    assert count() == {"empty_mask": 1}


def test_without_masks_and_pictures_it_says_what_was_not_checked(write, row):
    root = write("kvasir_polyp", [row("0.png")], pictures=False)
    inspected = inspect([KVASIR], root)
    assert {f.basis for f in inspected.findings} == {"annotations", "files"}
    assert [(u.what, u.why) for u in inspected.unchecked] == [
        ("words against masks, empty masks", f"no folder {root / 'kvasir_polyp' / 'masks'}"),
        ("length in tokens", "no tokenizer was asked"),
        ("images by their content", f"no folder {root / 'kvasir_polyp' / 'images'}"),
    ]


def test_masks_that_cannot_be_read_are_counted_and_named(masked):
    root, _, _, _ = masked
    (root / "kvasir_polyp" / "masks" / "2.png").write_bytes(b"no picture")
    inspected = inspect([KVASIR], root)
    (lost,) = [u for u in inspected.unchecked if "masks" in u.what]
    assert lost.why.startswith("1 masks cannot be read, the first: ")
    assert {f.n_checked for f in inspected.findings if f.basis == "masks"} == {4}


def test_a_mask_outside_the_folder_is_not_opened(masked, tmp_path):
    root, rows, _, _ = masked
    Image.fromarray(np.zeros((60, 60), np.uint8)).save(tmp_path / "outside.png")
    rows[0] = rows[0] | {"mask_name": "../../outside.png", "img_name": "../../outside.png"}
    (root / "kvasir_polyp" / "anns" / "test.json").write_text(json.dumps(rows))
    inspected = inspect([KVASIR], root)
    assert "empty_mask" not in counts(inspected)
    (lost,) = [u for u in inspected.unchecked if "masks" in u.what]
    assert "row 0: the path '../../outside.png' leaves the folder" in lost.why


def test_images_in_two_splits_are_known_by_name_and_by_content(write, row):
    root = write("kvasir_polyp", [row(f"{n}.png") for n in range(3)], split="train")
    write("kvasir_polyp", [row("2.png"), row("copy.png"), row("new.png")])
    folder = root / "kvasir_polyp" / "images"
    (folder / "copy.png").write_bytes((folder / "0.png").read_bytes())
    (found,) = [f for f in inspect([KVASIR], root).findings if f.defect == "image_in_two_splits"]
    assert (found.split, found.n_rows, found.examples) == ("train+test", 2, ("'0.png'", "'2.png'"))


def test_equal_names_in_folders_of_their_own_are_other_images(write):
    """CAMUS counts its patients anew in every split."""
    rows = [{"img_name": "patient0001.png", "mask_name": "m.png", "prompts": {"p0": ""}}]
    root = write("camus", rows, pictures=False)
    write("camus", rows, split="val", pictures=False)
    assert "image_in_two_splits" not in counts(inspect([CAMUS], root))


def test_one_file_under_two_names_is_found_from_either_side(write, row):
    rows = [row("1.png"), row("2.png")]
    root = write("colondb_polyp", rows, pictures=False)
    write("cvc300_polyp", rows, pictures=False)
    write(
        "cvc300_polyp", [rows[1] | {"sent_id": 7}, rows[0]], split="recovered_test", pictures=False
    )
    found = {
        (f.split, f.examples[0])
        for f in inspect([CVC300], root).findings
        if f.defect == "identical_annotations"
    }
    assert found == {
        ("test", "colondb_polyp/test, byte for byte"),
        ("test", "cvc300_polyp/recovered_test, the same rows, written otherwise"),
        ("recovered_test", "colondb_polyp/test, the same rows, written otherwise"),
        ("recovered_test", "cvc300_polyp/test, the same rows, written otherwise"),
    }


def test_names_that_other_sets_use_are_counted(write, row):
    root = write("colondb_polyp", [row("1.png"), row("2.png")], pictures=False)
    write("kvasir_polyp", [row("2.png"), row("3.png")], pictures=False)
    (found,) = [f for f in inspect([KVASIR], root).findings if f.defect == "shared_name"]
    assert (found.n_rows, found.n_checked, found.examples) == (1, 2, ("1 in colondb_polyp",))


def test_prompts_longer_than_the_model_reads(write, row):
    root = write(
        "kvasir_polyp", [row("1.png"), row("2.png", shape="very very round")], pictures=False
    )
    words = Tokenizer("word", lambda texts: [len(t.split()) for t in texts], limit=12)
    inspected = inspect([KVASIR], root, tokenizer=words)
    found = {f.defect: f for f in inspected.findings if f.basis == "tokens"}
    assert {k: f.n_rows for k, f in found.items()} == {
        "too_long_p0": 0, "too_long_p1": 0, "too_long_p5": 0, "too_long_p6": 1, "too_long_p7": 0,
    }  # fmt: skip
    assert found["too_long_p6"].title == "p6 is longer than 12 word tokens"
    assert found["too_long_p6"].examples == ("row 1: 14 tokens",)


def test_an_unreadable_split_does_not_hide_the_others(write, row):
    root = write("kvasir_polyp", [row("1.png")], pictures=False)
    (root / "kvasir_polyp" / "anns" / "train.json").write_text("[1, 2")
    inspected = inspect([KVASIR], root)
    assert [f.split for f in inspected.facts] == ["test"]
    (broken,) = [u for u in inspected.unchecked if u.what == "the whole file"]
    assert "not valid JSON" in broken.why


@pytest.mark.parametrize("rows", [[3], [None, "x"], [{"img_name": 7}], [{}]])
def test_rows_that_are_none_are_counted(write, rows):
    root = write("kvasir_polyp", rows, pictures=False)
    assert counts(inspect([KVASIR], root))["refused"] == len(rows)


def test_a_missing_dataset_says_where_it_was_looked_for(tmp_path):
    with pytest.raises(DataError, match=re.escape("kvasir_polyp: no such folder. The dataset")):
        inspect([KVASIR], tmp_path)


def test_forms_are_bare():
    assert all(bare_form(form) == form for form in FORMS)
    assert bare_form("it is a round shape") == "round"
    assert bare_form("an oval") == "oval"


QATA = load_dataset_card("qata_cov19")
AREAS = "pulmonary infection, two infected areas"


OF_AREAS = (
    (f"Bilateral {AREAS}, all left lung and lower right lung.", {}),
    (f"Bilateral {AREAS},all left lung and lower right lung.", {"missing_blank"}),
    (f"Bilateral {AREAS},  all left lung and lower right lung.", {"stray_blanks"}),
    (f"Bilateral {AREAS}, upper midlle left lung and lower right lung.", {"misspelt"}),
    (f"Bilateral {AREAS}, middle upper left lung and lower right lung.", {"zone_order"}),
    (f"Bilateral {AREAS}, upper lower left lung and all right lung.", {"uncounted_areas"}),
    (f"Unilateral {AREAS}, all left lung and lower right lung.", {"wrong_laterality"}),
    (f"Unilateral {AREAS}, upper lower right lung.", {}),
)


@pytest.mark.parametrize(("text", "kinds"), OF_AREAS)
def test_slips_of_sentences_of_areas_are_counted(write, row, text, kinds):
    rows = [row(f"{n}.png") | {"prompts": {"p9": text}} for n in range(2)]
    inspected = inspect([QATA], write("qata_cov19", rows))

    assert counts(inspected, basis="annotations") == dict.fromkeys(kinds, 2)


FREE = DatasetCard(
    name="mine",
    title="",
    modality="",
    source="",
    licence="",
    splits=["test"],
    prompt_type="p6",
    clusters={"rule": "image"},
    classes=["glottis"],
    plural={"glottis": "glottides"},
)


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("two small polyps, seen at the top left", set()),
        ("two open glottides", set()),
        ("two small polyp", {"singular_noun"}),
        ("eight polyps", set()),
    ],
)
def test_free_text_is_held_to_english_alone(write, row, text, kinds):
    rows = [row(f"{n}.png") | {"prompts": {"p6": text}} for n in range(2)]
    inspected = inspect([FREE], write("mine", rows))

    assert counts(inspected, basis="annotations") == dict.fromkeys(kinds, 2)
