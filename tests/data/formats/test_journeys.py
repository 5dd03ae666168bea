"""Every form of data set that strangers have becomes one that the harness reads whole."""

import importlib.util
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from harness.cards import load_dataset_card
from harness.data import load_samples
from harness.data.checks import inspect
from harness.data.images import read_mask

_spec = importlib.util.spec_from_file_location("sets", Path(__file__).with_name("sets.py"))
SETS = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(SETS)
N = 12

# Per form: the format that is recognised; samples, pictures, empty masks and clusters per split.
EXPECTED = {
    "released": ("released", {"test": (16, 12, 0, 6)}),
    "csv": ("table", {"test": (16, 12, 0, 6)}),
    "semicolons": ("table", {"test": (16, 12, 0, 6)}),
    "parquet": ("table", {"test": (20, 12, 4, 6)}),
    "xlsx": ("table", {"test": (12, 8, 0, 6), "val": (4, 4, 0, 4)}),
    "json": ("table", {"test": (16, 12, 0, 6)}),
    "folders": ("folders", {"test": (12, 12, 0, 6)}),
    "label-maps": ("folders", {"test": (24, 12, 8, 6)}),
    "lvit": ("table", {"train": (3, 3, 0, 2), "test": (9, 9, 0, 5)}),
    "coco": ("coco", {"val": (12, 12, 0, 6)}),
    "refcoco": ("refcoco", {"val": (4, 4, 0, 4), "testA": (12, 10, 0, 6)}),
    "grefcoco": ("refcoco", {"val": (4, 4, 0, 4), "testA": (30, 12, 12, 6)}),
    "hf-parquet": ("hugging-face", {"train": (4, 3, 0, 2), "test": (12, 9, 0, 5)}),
    "hf-disk": ("hugging-face", {"val": (4, 3, 0, 2), "test": (12, 9, 0, 5)}),
    "nifti": ("nifti", {"test": (10, 10, 1, 1)}),
}


def counts(samples):
    return (
        len(samples),
        len({s.image for s in samples}),
        sum(s.is_empty for s in samples),
        len({s.cluster_id for s in samples}),
    )


def test_every_form_has_its_expectation():
    assert EXPECTED.keys() == SETS.SETS.keys()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Every form, made once: name -> what came of it."""
    from harness.data.formats import Choices, initialise

    top, found = tmp_path_factory.mktemp("sets"), {}
    for name, write in SETS.SETS.items():
        (top / name).mkdir()
        write(top / name, N)
        found[name] = initialise(top / name, Choices())
    return found


@pytest.mark.parametrize("name", EXPECTED)
def test_a_set_becomes_one_that_is_read_whole(made, name):
    one = made[name]
    card = load_dataset_card(one.folder / "card.yaml")
    found = {s: counts(load_samples(card, one.folder.parent, s)) for s in card.splits}
    assert (one.found.format, found) == EXPECTED[name]
    assert (card.grammar is None) == (name != "lvit")
    assert card.classes == CLASSES.get(name, [])


CLASSES = {
    "folders": ["folders"],
    "label-maps": ["label maps 1", "label maps 2"],
    "coco": ["flat lesion", "polyp"],
    "nifti": ["polyp"],
}


@pytest.mark.parametrize("name", EXPECTED)
def test_the_check_finds_no_defect_but_what_is_said(made, name):
    one = made[name]
    found = {f.defect: f.n_rows for f in inspect([one.card], one.folder.parent).findings}
    found = {defect: n for defect, n in found.items() if n}
    # Boxes belong to the released files alone; sentences of a target may be several or one.
    allowed = {"no_box", "empty_mask", "image_in_two_splits", "unusual_form"}
    assert found.keys() <= allowed


def areas(listed):
    return Counter(int(mask.sum()) for mask in listed)


@pytest.mark.parametrize("name", ["released", "csv", "semicolons", "json", "hf-parquet", "hf-disk"])
def test_the_masks_are_those_that_were_drawn(made, name):
    drawn = [m for _, _, targets in SETS.scenes(N) for m in targets.values()]
    one = made[name]
    read = [read_mask(s.mask, s.reading) for listed in one.samples.values() for s in listed]
    assert areas(read) == areas(drawn)


def test_sentences_go_with_their_masks(made):
    drawn = {
        (name, text): mask for name, _, targets in SETS.scenes(N) for text, mask in targets.items()
    }
    for sample in made["semicolons"].samples["test"]:
        (prompt,) = sample.prompts["p9"]
        mask = drawn[sample.image.stem, prompt.text]
        np.testing.assert_array_equal(read_mask(sample.mask, sample.reading), mask)


def test_a_ladder_of_rows_is_one_sample_with_its_prompt_types(made):
    for sample in made["xlsx"].samples["test"]:
        assert sample.prompts["p1"][0].text == "polyp"
        assert sample.prompts["p6"][0].text.startswith("one small red polyp")
    assert made["xlsx"].card.prompt_type == "p6"


def test_sentences_of_one_target_are_one_sample(made):
    for listed in made["refcoco"].samples.values():
        assert all(len(sample.prompts["p9"]) == 2 for sample in listed)


def test_splits_in_folders_of_their_own_have_them_in_the_layout(made):
    layout = made["lvit"].card.layout
    assert layout.images == {"test": "Test_Folder/img", "train": "Train_Folder/img"}
    assert layout.masks == {"test": "Test_Folder/labelcol", "train": "Train_Folder/labelcol"}
    assert made["lvit"].samples["train"][0].sample_id == "mask_P000_0.png"


def test_what_names_nothing_keeps_its_row_and_its_sentences(made):
    listed = [s for s in made["grefcoco"].samples["testA"] if s.is_empty]
    texts = {tuple(p.text for p in s.prompts["p9"]) for s in listed}
    assert texts == {("the blue cube", "a cube of ice")}
    assert made["grefcoco"].card.defects == [
        "12 expressions name nothing: they are kept, with empty masks."
    ]


def test_crowds_and_polygons_are_one_target_of_their_class(made):
    drawn = {name: targets for name, _, targets in SETS.scenes(N)}
    for sample in made["coco"].samples["val"]:
        mask = read_mask(sample.mask, sample.reading)
        left, *right = drawn[sample.image.stem].values()
        ys, xs = np.nonzero(left)
        boxed = np.zeros_like(left)
        boxed[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1] = True
        for crowd in right:
            boxed |= crowd
        np.testing.assert_array_equal(mask, boxed)


def test_slices_are_shown_as_radiologists_do(made):
    """The set is stored with x to the left and y to the back, which is how it was painted."""
    from PIL import Image

    painted = [(p[..., 0], SETS.union(t)) for _, p, t in SETS.scenes(N)][:10]
    for number, sample in enumerate(made["nifti"].samples["test"]):
        picture, mask = painted[number]
        shown = np.asarray(Image.open(sample.image))
        assert np.corrcoef(shown.ravel(), picture.ravel())[0, 1] > 0.95
        expected = mask if number else np.zeros_like(mask)
        np.testing.assert_array_equal(read_mask(sample.mask, sample.reading), expected)
        assert sample.prompts["p1"][0].text == "polyp"
        assert sample.cluster_id == "case_000"


def test_known_sentences_get_their_grammar(made):
    one = made["lvit"]
    assert one.card.grammar == load_dataset_card("qata_cov19").grammar
    assert (
        "sentences: 12 of 12 are built as those of qata_cov19: its grammar is on the card, with "
        "the lexicon for the rest."
    ) in one.said
    (prompt,) = one.samples["train"][1].prompts["p9"]
    assert prompt.values["laterality"] == "Unilateral"
    assert prompt.values["zone"] == "upper middle"
