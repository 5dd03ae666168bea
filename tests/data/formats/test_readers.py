"""What single readers make of odd files, and what they say of wrong ones."""

import json
import re
from pathlib import Path, PurePosixPath

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from harness.data import load_samples
from harness.data.formats import FORMATS, Choices, initialise
from harness.data.formats.coco import segmentation_mask
from harness.data.formats.files import list_files
from harness.data.formats.looking import look_at
from harness.data.formats.patients import find_patients
from harness.data.images import read_mask
from harness.errors import DataError, UsageError

ROOT = Path(__file__).resolve().parents[3]
SIZE = (20, 30)


def disc(path, value=255, size=SIZE, **options):
    values = np.zeros(size, np.uint8)
    values[4:12, 5:15] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path, **options)


def pictures(folder, n=3, **options):
    for number in range(n):
        disc(folder / f"images/{number}.png", 90 + number)
        disc(folder / f"masks/{number}.png", **options)


def table(folder, rows, name="pairs.csv"):
    pl.DataFrame(rows).write_csv(folder / name)


def refused(make, folder, message, error=DataError, **settings):
    with pytest.raises(error) as told:
        make(folder, **settings)
    assert re.search(message, str(told.value)), str(told.value)


# Tables -----------------------------------------------------------------------------------------


def test_a_table_without_known_names_is_told_by_its_cells(make, tmp_path):
    pictures(tmp_path)
    table(tmp_path, {"scan": ["0", "1", "2"], "words": ["a dot", "a longer dot", "dots"]})
    made = make(tmp_path)
    assert [s.prompts["p9"][0].text for s in made.samples["test"]] == [
        "a dot", "a longer dot", "dots",
    ]  # fmt: skip
    assert make.asked.questions == {
        "pairs.csv: which column holds the sentences (words)?": "words",
        "3 rows name no split: which one are they?": "test",
    }


def test_a_table_without_sentences_does_not_hide_one_that_has_them(make, tmp_path):
    pictures(tmp_path)
    table(tmp_path, {"image": ["0.png", "1.png"], "scanner": ["x", "y"]}, "about.csv")
    table(tmp_path, {"image": ["0.png", "1.png"], "caption": ["a dot", "b dot"]})
    assert make(tmp_path).found.source == "pairs.csv"


def test_other_json_does_not_stand_in_the_way(make, tmp_path):
    pictures(tmp_path)
    (tmp_path / "classes.json").write_text('["dot"]')
    (tmp_path / "metrics.json").write_text('{"dice": NaN}')
    refused(make, tmp_path, "metrics.json: not valid JSON")
    table(tmp_path, {"image": ["0.png"], "prompt": ["a dot"]})
    assert len(make(tmp_path).samples["test"]) == 1


def test_volumes_may_stand_in_a_table(make, tmp_path):
    scan(tmp_path)
    table(tmp_path, {"image": ["a.nii.gz"], "prompt": ["a bright dot"]})
    made = make(tmp_path)
    assert len(made.samples["test"]) == 10
    assert sum(not s.is_empty for s in made.samples["test"]) == 1
    assert made.card.clusters.rule == "annotated"


def test_columns_may_be_named(make, tmp_path):
    pictures(tmp_path)
    table(tmp_path, {"a": ["0.png"], "b": ["1.png"], "text": ["no"], "c": ["a dot"]})
    made = make(tmp_path, columns={"image": "a", "mask": "b", "prompt": "c"})
    (sample,) = made.samples["test"]
    assert (sample.image.name, sample.mask.name) == ("0.png", "1.png")
    assert sample.prompts["p9"][0].text == "a dot"
    refused(
        make, tmp_path, r"--column image=d: unknown column 'd'.* Known columns: 'a', 'b', 'c'",
        columns={"image": "d"}, overwrite=True,
    )  # fmt: skip


def test_a_file_of_a_table_may_be_named(make, tmp_path):
    pictures(tmp_path)
    table(tmp_path, {"image": ["0.png"], "prompt": ["a dot"]})
    assert len(make(tmp_path / "pairs.csv").samples["test"]) == 1


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (
            {"image": ["0.png", "1.png", "9.png"]},
            r"^pairs.csv: row 4, column 'image': no picture '9.png' below .*\. Did you mean "
            r"'.\.png'\? A picture is named by its file, such as 'images/0.png'. Add the file,",
        ),
        (
            {"image": ["0.png", None, "1.png"]},
            r"^pairs.csv: row 3, column 'image': found an empty cell. Every row names its picture, "
            r"such as 'images/1.png'.",
        ),
        (
            {"image": ["0.png"] * 3, "mask": ["0.png", "1.png", "8.png"]},
            r"^pairs.csv: row 4, column 'mask': no mask '8.png' below",
        ),
    ],
)
def test_a_cell_that_names_no_file_is_told_with_its_place(make, tmp_path, cells, message):
    pictures(tmp_path)
    table(tmp_path, {**cells, "prompt": ["a", "b", "c"]})
    refused(make, tmp_path, message)


def test_a_name_that_may_be_two_files_is_refused(make, tmp_path):
    for part in ("a", "b"):
        disc(tmp_path / f"{part}/images/0.png")
        disc(tmp_path / f"{part}/masks/0.png")
    table(tmp_path, {"image": ["0.png"], "prompt": ["a dot"]})
    refused(
        make, tmp_path, r"'0.png' may be 'a/images/0.png' or 'b/images/0.png'. A cell names one"
    )


def test_the_split_tells_equal_names_apart(make, tmp_path):
    for part, value in (("train", 200), ("test", 255)):
        disc(tmp_path / f"images/{part}/0.png", value)
        disc(tmp_path / f"masks/{part}/0.png")
    table(
        tmp_path,
        {"image": ["0.png"] * 2, "prompt": ["a dot"] * 2, "split": ["Training", "Test"]},
    )
    made = make(tmp_path)
    assert {split: s[0].image.parent.name for split, s in made.samples.items()} == {
        "train": "train", "test": "test",
    }  # fmt: skip


def test_no_cell_leaves_the_folder(make, tmp_path):
    disc(tmp_path / "secret.png")
    inner = tmp_path / "set"
    pictures(inner)
    (inner / "images/link.png").symlink_to(tmp_path / "secret.png")
    table(inner, {"image": ["0.png", "../secret.png"], "prompt": ["a", "b"]})
    refused(make, inner, "no picture '../secret.png' below")
    assert "images/link.png" not in {str(path) for path in list_files(inner).paths}


def test_rows_without_a_sentence_or_a_mask_are_told(make, tmp_path):
    pictures(tmp_path)
    table(
        tmp_path,
        {
            "image": ["0.png", "1.png", "2.png"],
            "mask": ["0.png", None, "2.png"],
            "prompt": ["a dot", "a ring", None],
        },
    )
    made = make(tmp_path)
    assert made.card.defects == [
        "1 rows without a mask are kept, with empty ones, first pairs.csv: row 3.",
        "1 rows without a sentence are left out, first pairs.csv: row 4.",
    ]
    assert [s.is_empty for s in made.samples["test"]] == [False, True]


def test_one_mask_for_two_pictures_is_two_samples(make, tmp_path):
    pictures(tmp_path)
    table(
        tmp_path,
        {"image": ["0.png", "1.png"], "mask": ["0.png", "0.png"], "prompt": ["a", "b"]},
    )
    assert len({s.sample_id for s in make(tmp_path).samples["test"]}) == 2


def test_a_column_of_row_numbers_is_no_patient(make, tmp_path):
    pictures(tmp_path)
    table(
        tmp_path,
        {"image": ["0.png", "0.png"], "prompt": ["a", "b"], "mask": ["0.png", "1.png"],
         "case": ["1", "2"]},
    )  # fmt: skip
    assert make(tmp_path).card.clusters.rule == "image"


def test_patients_of_folders_are_clusters(make, tmp_path):
    for number in range(8):
        disc(tmp_path / f"patient_{number // 2}/img_{number % 2}.png", 90 + number)
        disc(tmp_path / f"patient_{number // 2}/img_{number % 2}_mask.png")
    made = make(tmp_path)
    assert len({s.cluster_id for s in made.samples["test"]}) == 4
    assert made.card.clusters.rule == "annotated"


@pytest.mark.parametrize(
    ("names", "pattern"),
    [
        ([f"patient{n // 3:02d}_{n % 3}.png" for n in range(12)], "patient"),
        ([f"mask_sub-S{n // 2:05d}_ses-E{n}_run-1.png" for n in range(12)], "sub"),
        ([f"00{n // 4}_{n % 4}.jpg" for n in range(16)], "[0-9]"),
        ([f"{n}.png" for n in range(12)], None),
        ([f"ISIC_2018_{n:04d}.png" for n in range(12)], None),
        ([f"case_{n}.png" for n in range(12)], None),
        ([f"benign ({n}).png" for n in range(9)] + ["normal (1).png"], None),
    ],
)
def test_patients_are_found_where_names_share_them(names, pattern):
    found = find_patients(names)
    assert (found is None) == (pattern is None)
    assert found is None or pattern in found.pattern


def test_patients_may_be_denied(make, tmp_path):
    for number in range(8):
        disc(tmp_path / f"images/p{number // 2}_{number % 2}.png", 90 + number)
        disc(tmp_path / f"masks/p{number // 2}_{number % 2}.png")
    assert make(tmp_path, {"Names look": "no"}).card.clusters.rule == "image"


@pytest.mark.parametrize(("n_other", "grammar"), [(1, True), (2, False), (10, False)])
def test_a_grammar_needs_a_clear_share_of_the_sentences(make, tmp_path, sets, n_other, grammar):
    pictures(tmp_path, 10)
    texts = [sets.QATA[1]] * (10 - n_other) + ["an opacity", "a small opacity"] * n_other
    table(tmp_path, {"image": [f"{k}.png" for k in range(10)], "Description": texts[:10]})
    made = make(tmp_path)
    assert (made.card.grammar is not None) == grammar
    told = [line for line in made.said if line.startswith("sentences: ")]
    assert len(told) == (n_other < 10)
    if n_other == 2:
        assert told == [
            "sentences: 8 of 10 are built as those of qata_cov19, fewer than 90%: all are read as "
            "free text. `grammar: qata_cov19` on the card would read those."
        ]


# Masks and pictures -----------------------------------------------------------------------------


def test_masks_of_several_values_with_sentences_are_asked_about(make, tmp_path):
    pictures(tmp_path)
    values = np.zeros(SIZE, np.uint8)
    values[2:6], values[8:12] = 1, 2
    Image.fromarray(values).save(tmp_path / "masks/1.png")
    table(tmp_path, {"image": ["0.png", "1.png"], "prompt": ["a", "b"]})
    made = make(tmp_path)
    assert made.card.masks.foreground == "nonzero"
    made = make(tmp_path, {"1 of 2 masks hold several values": "=2,255"}, overwrite=True)
    assert made.card.masks.values == [2, 255]
    with pytest.raises(UsageError, match="the rule for masks: found 'some'. 'nonzero', a number"):
        make(tmp_path, {"1 of 2 masks": "some"}, overwrite=True)


def test_masks_in_folders_of_classes_are_targets_called_so(make, tmp_path):
    disc(tmp_path / "images/0.png")
    disc(tmp_path / "masks/left_lung/0.png")
    disc(tmp_path / "masks/right_lung/0.png", size=SIZE)
    texts = {p.text for s in make(tmp_path).samples["test"] for p in s.prompts["p1"]}
    assert texts == {"left lung", "right lung"}


def test_several_masks_of_a_picture_are_parts_of_one_target(make, tmp_path):
    disc(tmp_path / "benign/benign (1).png", 90)
    disc(tmp_path / "benign/benign (1)_mask.png")
    other = np.zeros(SIZE, np.uint8)
    other[15:19, 20:25] = 255
    Image.fromarray(other).save(tmp_path / "benign/benign (1)_mask_1.png")
    (sample,) = make(tmp_path, prompt="tumour").samples["test"]
    assert read_mask(sample.mask).sum() == 80 + 20


def test_deep_and_turned_pictures_get_their_keys(make, tmp_path):
    deep = (np.arange(600).reshape(SIZE) * 50).astype(np.uint16)
    (tmp_path / "images").mkdir()
    Image.fromarray(deep).save(tmp_path / "images/0.png")
    disc(tmp_path / "masks/0.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.full((*SIZE, 3), 90, np.uint8)).save(tmp_path / "images/1.jpg", exif=exif)
    disc(tmp_path / "masks/1.png", size=SIZE[::-1])
    assert look_at(
        [tmp_path / "images/1.jpg"], [tmp_path / "masks/1.png"], _choices(), int
    ).keys == {"orientation": "displayed"}
    (tmp_path / "images/1.jpg").unlink()
    assert make(tmp_path).card.intensity == "minmax"


def _choices():
    from harness.data.formats import Choices

    return Choices()


# COCO -------------------------------------------------------------------------------------------


IMAGE = {"id": 1, "file_name": "0.png", "height": SIZE[0], "width": SIZE[1]}
DOT = {"id": 5, "image_id": 1, "category_id": 2, "segmentation": [[5, 4, 15, 4, 15, 12, 5, 12]]}
CATEGORY = {"id": 2, "name": "dot"}


def coco(folder, images=(IMAGE,), annotations=(DOT,), categories=(CATEGORY,)):
    pictures(folder, 2)
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "instances_test.json").write_text(json.dumps(content))


def test_pictures_without_an_annotation_are_refusals_of_the_only_class(make, tmp_path):
    coco(tmp_path, [IMAGE, IMAGE | {"id": 2, "file_name": "1.png"}])
    made = make(tmp_path)
    assert [s.is_empty for s in made.samples["test"]] == [False, True]
    assert made.card.defects == [
        "instances_test.json: 1 pictures without an annotation are kept, with empty masks."
    ]


@pytest.mark.parametrize(
    ("spoilt", "message"),
    [
        ({"images": [{"id": 1}]}, "image 1: 'file_name' is None. A str is needed, as in"),
        ({"images": [IMAGE | {"height": 0}]}, "image 1: 30 x 0 pixels. From 1 to"),
        ({"images": [IMAGE, IMAGE]}, r"images\[1\]: 'id' is 1, as of an earlier one."),
        (
            {"annotations": [DOT | {"image_id": 9}]},
            "annotation 5: 'image_id' is 9, which is not among the file's ids.",
        ),
        (
            {"annotations": [DOT | {"segmentation": [[0.1, 0.2, 0.3]]}]},
            r"annotation 5: 'segmentation' holds \[0.1, 0.2, 0.3\]. A polygon is a list of three",
        ),
        (
            {"annotations": [DOT | {"segmentation": [[0, 0, 9000, 0, 9000, 9000]]}]},
            "annotation 5: a polygon reaches from 0 to 9000, far out of its image of 30 x 20",
        ),
        (
            {"annotations": [DOT | {"segmentation": []}]},
            r"annotation 5: 'segmentation' is \[\]. Polygons or run lengths are needed, as in",
        ),
        (
            {"annotations": [DOT | {"segmentation": {"size": [2, 2], "counts": [4]}}]},
            r"annotation 5: the segmentation has the size \[2, 2\], its image \[20, 30\].",
        ),
        (
            {"images": [IMAGE | {"file_name": "7.png"}]},
            "instances_test.json: image 1, file_name: no picture '7.png' below",
        ),
    ],
)
def test_a_wrong_field_is_told_with_an_example(make, tmp_path, spoilt, message):
    coco(tmp_path, **spoilt)
    refused(make, tmp_path, message)


@given(st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=8))
def test_no_segmentation_ends_in_another_error(value):
    with pytest.raises(DataError, match="^a: "):
        segmentation_mask(value, 4, 4, where="a")


def refs(folder, *listed):
    coco(folder)
    (folder / "refs.json").write_text(json.dumps(listed))


REF = {"ref_id": 0, "ann_id": 5, "image_id": 1, "split": "test", "sentences": [{"sent": "a dot"}]}


@pytest.mark.parametrize("nothing", [{"ann_id": -1}, {"ann_id": [-1]}, {"ann_id": []},
                                     {"no_target": True}])  # fmt: skip
def test_every_way_to_name_nothing_is_understood(make, tmp_path, nothing):
    refs(tmp_path, REF, REF | {"sentences": [{"sent": "a ring"}]} | nothing)
    assert [s.is_empty for s in make(tmp_path).samples["test"]] == [False, True]


@pytest.mark.parametrize(
    ("spoilt", "message"),
    [
        ({"ann_id": 77}, r"refs\[0\]: 'ann_id' is 77, which is not among the file's ids."),
        ({"ann_id": {}}, r"refs\[0\]: 'ann_id' is {}. The id of an annotation, a list of them"),
        ({"image_id": 3}, r"refs\[0\]: 'image_id' is 3, which is not among"),
        ({"sentences": "a dot"}, r"refs\[0\]: 'sentences' is 'a dot'. A list is needed, as in"),
    ],
)
def test_a_wrong_reference_is_told(make, tmp_path, spoilt, message):
    refs(tmp_path, REF | spoilt)
    refused(make, tmp_path, message)


def test_a_pickle_is_read_as_data(make, tmp_path):
    """What would run a program is an unknown value, which no field may be."""
    coco(tmp_path)
    (tmp_path / "refs(unc).p").write_bytes(b"cos\nsystem\n(S'touch hacked'\ntR.")
    assert make(tmp_path).found.format == "coco"
    (tmp_path / "refs(unc).p").write_bytes(b"\x80\x02]q")
    refused(make, tmp_path, r"refs\(unc\).p: no whole pickle", overwrite=True)
    assert not list(tmp_path.glob("hacked*"))


# Shards and volumes -----------------------------------------------------------------------------


def shard(folder, sets, **columns):
    frame = sets._embedded(4).with_columns(**columns)
    folder.mkdir(exist_ok=True)
    frame.write_parquet(folder / "test-00000-of-00001.parquet")


def test_a_row_may_have_several_masks_with_a_sentence_each(make, tmp_path, sets):
    rows = [
        {"image": r["image"], "mask": [r["mask"], {"bytes": sets._png(np.eye(48, 64) > 0),
         "path": None}], "prompt": [r["prompt"], "a line"]}
        for r in sets._embedded(4).to_dicts()
    ]  # fmt: skip
    (tmp_path / "s").mkdir()
    pl.DataFrame(rows).write_parquet(tmp_path / "s/test.parquet")
    made = make(tmp_path / "s")
    assert len(made.samples["test"]) == 2 * len(rows) - 2  # the line is drawn once a picture
    assert {p.text for s in made.samples["test"] for p in s.prompts["p9"]} >= {"a line"}


def test_a_shard_without_masks_is_told(make, tmp_path, sets):
    (tmp_path / "s").mkdir()
    sets._embedded(4).drop("mask").write_parquet(tmp_path / "s/test.parquet")
    refused(
        make, tmp_path / "s",
        r"test.parquet: pictures stand in the columns \['image'\]. One of pictures and one of",
    )  # fmt: skip


def test_a_broken_stream_is_told(make, tmp_path, sets):
    sets.hf_disk(tmp_path, 4)
    place = tmp_path / "test/data-00000-of-00001.arrow"
    (tmp_path / "validation/data-00000-of-00001.arrow").unlink()
    place.write_bytes(place.read_bytes()[:400])
    refused(make, tmp_path, r"data-00000-of-00001.arrow: decoding ends in an error, or the cells")


def test_arrow_files_are_read_as_streams_are(make, tmp_path, sets):
    sets._embedded(4).write_ipc(tmp_path / "test.arrow")
    assert len(make(tmp_path).samples["test"]) == 6


def volume(path, values, affine=None):
    nibabel = pytest.importorskip("nibabel", reason="needs the extra 'volumes'")
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4) if affine is None else affine), path)


def scan(folder, label=None, **settings):
    volume(folder / "images/a.nii.gz", np.arange(480, dtype=np.int16).reshape(6, 8, 10))
    values = np.zeros((6, 8, 10), np.uint8) if label is None else label
    values[1, 2, 3] = 1
    volume(folder / "labels/a.nii.gz", values, **settings)


def test_left_and_right_of_a_volume_do_not_depend_on_how_it_is_stored(make, tmp_path):
    """A voxel at the patient's right, to the front and below, however the axes run."""
    values = np.zeros((6, 8, 10), np.uint8)
    values[5, 7, 0] = 1  # x to the right, y to the front, z up
    flipped = np.diag([-1.0, 1.0, 1.0, 1.0])
    for name, stored, affine in (
        ("plain", values, np.eye(4)),
        ("flipped", values[::-1].copy(), flipped),
    ):
        volume(tmp_path / name / "images/a.nii", np.ones((6, 8, 10), np.int16), affine)
        volume(tmp_path / name / "labels/a.nii", stored, affine)
        first = make(tmp_path / name, prompt="a dot").samples["test"][0]
        assert np.argwhere(read_mask(first.mask)).tolist() == [[0, 0]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"label": np.zeros((6, 8, 9), np.uint8)},
            "labels of 6 x 8 x 9 voxels, their volume a.nii",
        ),
        ({"affine": np.diag([1, 1, 3, 1])}, "the labels lie elsewhere than their volume a.nii.gz"),
        ({"label": np.full((6, 8, 10), 0.5, np.float32)}, "Labels are whole numbers from 0"),
    ],
)
def test_labels_that_do_not_fit_are_refused(make, tmp_path, settings, message):
    scan(tmp_path, **settings)
    refused(make, tmp_path, message)


def test_labels_are_called_as_the_user_says(make, tmp_path):
    label = np.zeros((6, 8, 10), np.uint8)
    label[3, 3, 3] = 2
    scan(tmp_path, label=label)
    made = make(tmp_path, labels={1: "liver"}, window=(0.0, 100.0))
    texts = {p.text for s in made.samples["test"] for p in s.prompts["p1"]}
    assert texts == {"liver", f"{tmp_path.name.replace('_', ' ')} 2"}
    assert len(made.samples["test"]) == 20
    assert len({s.image for s in made.samples["test"]}) == 10
    assert "rows from anterior to posterior" in made.card.source


# The whole --------------------------------------------------------------------------------------


def test_a_folder_of_nothing_is_told_what_would_be_read(make, tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    refused(
        make, tmp_path, r"found 1 .txt. Pictures with masks, and a table or JSON that names them"
    )
    refused(
        make, tmp_path / "nowhere", "no such folder. A folder with pictures and masks is needed"
    )
    refused(make, tmp_path, "unknown format 'coko'. Did you mean 'coco'", UsageError, format="coko")
    refused(make, tmp_path, "no table 'a.csv'. Its path below the folder", table="a.csv")


def test_an_earlier_card_stays_unless_it_is_told_to_go(make, tmp_path, sets):
    sets.semicolons(tmp_path, 6)
    first = make(tmp_path)
    refused(make, tmp_path, r"card.yaml: there is a card already. Give --overwrite", UsageError)
    again = make(tmp_path, overwrite=True)
    assert again.found == first.found
    assert again.card == first.card


ROW = {"img_name": "a/0.png", "mask_name": "a/0.png", "prompts": {"p1": "dot"}}


def test_released_annotations_stay_as_they_are(make, tmp_path):
    disc(tmp_path / "images/a/0.png")
    disc(tmp_path / "masks/a/0.png")
    place = tmp_path / "anns/val.json"
    place.parent.mkdir()
    place.write_text(json.dumps([ROW, dict(ROW)]))
    place.with_name("train.json").write_text(json.dumps([ROW | {"img_name": "far/9.png"}]))
    before = place.read_bytes()
    made = make(tmp_path)
    assert place.read_bytes() == before
    assert made.card.splits == ["val"]
    assert made.card.defects == [
        "anns/train.json: no picture of its 1 rows is there: it is left out."
    ]
    assert (made.card.layout.images, made.card.layout.masks) == ("images", "masks")
    assert made.samples["val"][0].sample_id == "a/0.png"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"img_name": "a/1.png"}, r"val.json: row 1, 'img_name': no picture 'a/1.png' below"),
        ({"img_name": "0.png"}, r"val.json: row 1: its files lie in images/a and masks, those of"),
        ({"prompts": "dot"}, r"row 1: 'prompts' is 'dot'. A dict is needed. Add the key or repair"),
    ],
)
def test_released_annotations_that_do_not_fit_are_told(make, tmp_path, changed, message):
    disc(tmp_path / "images/a/0.png")
    disc(tmp_path / "masks/a/0.png")
    (tmp_path / "anns").mkdir()
    (tmp_path / "anns/val.json").write_text(json.dumps([ROW, ROW | changed]))
    refused(make, tmp_path, message)


def test_a_copy_elsewhere_leaves_the_folder_as_it_is(make, tmp_path, sets):
    sets.csv(tmp_path / "theirs", 6) if (tmp_path / "theirs").mkdir() is None else None
    before = sorted(str(p) for p in (tmp_path / "theirs").rglob("*"))
    made = make(tmp_path / "theirs", out=tmp_path / "ours", name="mine")
    assert sorted(str(p) for p in (tmp_path / "theirs").rglob("*")) == before
    assert made.card.name == "mine"
    assert len(load_samples(made.card, tmp_path, "test")) == 8


# The examples of the documentation ----------------------------------------------------------------


def examples(language):
    text = (ROOT / "suites/datasets/README.md").read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def test_the_documented_json_is_read(make, tmp_path):
    instances, refs = examples("json")
    disc(tmp_path / "images/7.jpg", size=(480, 640))
    (tmp_path / "instances_test.json").write_text(instances)
    (sample,) = make(tmp_path).samples["test"]
    assert sample.prompts["p1"][0].text == "polyp"
    assert read_mask(sample.mask)[-1].any()  # the crowd
    (tmp_path / "refs.json").write_text(refs)
    listed = make(tmp_path, overwrite=True).samples["testA"]
    assert [len(s.prompts["p9"]) for s in listed] == [2, 1, 1]
    assert [s.is_empty for s in listed] == [False, False, True]


def test_the_documented_table_is_read(make, tmp_path):
    (table_text,) = [text for text in examples("text") if text.startswith("image;mask")]
    for number in (1, 2, 3):
        disc(tmp_path / f"images/{number}.jpg", 90 + number)
    for name in ("1_a", "1_b", "3_a"):
        disc(tmp_path / f"masks/{name}.png")
    (tmp_path / "pairs.csv").write_text(table_text)
    made = make(tmp_path)
    assert {split: len(listed) for split, listed in made.samples.items()} == {"test": 3, "train": 1}
    assert made.card.clusters.source == "column 'patient'"


def test_every_format_is_documented():
    text = (ROOT / "suites/datasets/README.md").read_text()
    headings = re.findall(r"^\*\*([^*]+)\*\*", text, flags=re.MULTILINE)
    assert len(headings) == len(FORMATS) + 2  # references and workbooks are read with others


# Odd folders ------------------------------------------------------------------------------------


def test_a_picture_never_stands_for_its_missing_mask(make, tmp_path):
    pictures(tmp_path)
    (tmp_path / "masks/1.png").unlink()
    files = [f"{part}/{n}.png" for n in range(3) for part in ("images", "masks")]
    table(tmp_path, {"image": files[::2], "mask": files[1::2], "prompt": ["a", "b", "c"]})
    refused(make, tmp_path, r"^pairs.csv: row 3, column 'mask': no mask 'masks/1.png' below")


def test_a_table_without_a_header_is_told(make, tmp_path):
    pictures(tmp_path)
    (tmp_path / "pairs.csv").write_text("0.png,0.png,a dot\n1.png,1.png,a ring\n")
    refused(make, tmp_path, r"pairs.csv: its first row names the file '0.png'. The first row holds")


def test_text_of_another_coding_is_told(make, tmp_path):
    pictures(tmp_path)
    (tmp_path / "pairs.csv").write_text("image\tprompt\n0.png\ta dot\n", encoding="utf-16")
    refused(make, tmp_path, r"pairs.csv: text in UTF-16, .*\. Save it as 'CSV UTF-8'.")


def test_a_table_that_names_no_picture_is_not_passed_over_without_a_word(make, tmp_path):
    pictures(tmp_path)
    table(tmp_path, {"image": ["007", "008"], "prompt": ["a dot", "a ring"]})
    made = make(tmp_path)
    assert (
        "No table or JSON holds sentences (pairs.csv names no picture of this folder): which"
        in (" ".join(make.asked.questions))
    )
    assert made.card.defects == ["pairs.csv: not used, no column names pictures of this folder."]


def test_sentences_by_picture_may_be_lists(make, tmp_path):
    pictures(tmp_path, 1)
    (tmp_path / "captions.json").write_text('{"0.png": ["a dot", "a bright dot"]}')
    (sample,) = make(tmp_path).samples["test"]
    assert [p.text for p in sample.prompts["p9"]] == ["a dot", "a bright dot"]


def test_sentences_that_stand_twice_are_counted(make, tmp_path):
    pictures(tmp_path)
    table(tmp_path, {"image": ["0.png"] * 3, "prompt": ["a dot", "a ring", "a dot"]})
    made = make(tmp_path)
    assert [len(s.prompts["p9"]) for s in made.samples["test"]] == [2]
    assert made.card.defects == ["1 sentences stand again for the same target: they are kept once."]


def test_letters_with_accents_are_alike_however_they_are_written(make, tmp_path):
    disc(tmp_path / "images/u\u0308.png", 90)
    disc(tmp_path / "masks/\u00fc.png")
    table(tmp_path, {"image": ["\u00dc.png".lower()], "prompt": ["a dot"]})
    assert make(tmp_path).samples["test"][0].mask.name == "\u00fc.png"


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("images/img_7.png", "masks/mask_7.png"),
        ("JPEGImages/7.jpg", "SegmentationClass/7.png"),
        ("ISIC_Task1-2_Input/7.jpg", "ISIC_Task1_GroundTruth/7_segmentation.png"),
        ("x/7.PNG", "y/7_GT.PNG"),
    ],
)
def test_a_name_that_is_alone_finds_its_mask_in_any_folder(make, tmp_path, image, mask):
    disc(tmp_path / image, 90)
    disc(tmp_path / mask)
    (sample,) = make(tmp_path, prompt="a dot").samples["test"]
    assert sample.mask == tmp_path / mask
    assert sample.prompts["p1"][0].text == "a dot"


@pytest.mark.parametrize(
    "others", [["b/images/img_7.png"], ["c/masks/7.png"], ["b/images/img_7.png", "b/masks/7.png"]]
)
def test_names_that_are_not_alone_are_not_guessed(tmp_path, others):
    for path in ("a/train/image_7.png", "x/masks/7.png", *others):
        disc(tmp_path / path)
    files = list_files(tmp_path)
    assert files.masks_of(PurePosixPath("a/train/image_7.png")) == []


def test_a_mask_of_another_split_is_not_taken(tmp_path):
    disc(tmp_path / "train/image_7.png")
    disc(tmp_path / "test/masks/7.png")
    assert list_files(tmp_path).masks_of(PurePosixPath("train/image_7.png")) == []


def coloured(path, colours, *, palette=False):
    values = np.zeros(SIZE, np.uint8)
    for number in range(1, 1 + len(colours)):
        values[4 * number : 4 * number + 2] = number
    picture = Image.fromarray(values)
    picture.putpalette(bytes([0, 0, 0, *(part for colour in colours for part in colour)]))
    path.parent.mkdir(exist_ok=True)
    (picture if palette else picture.convert("RGB")).save(path)


def test_several_colours_are_asked_about(make, tmp_path):
    disc(tmp_path / "images/0.png", 90)
    disc(tmp_path / "images/1.png", 91)
    coloured(tmp_path / "masks/0.png", [(255, 0, 0)])
    coloured(tmp_path / "masks/1.png", [(255, 0, 0), (0, 255, 0)])
    question = (
        "1 masks hold several colours (#00ff00, #ff0000 in 1.png): are all of them the target"
    )
    assert len(make(tmp_path).samples["test"]) == 2
    assert any(asked.startswith(question) for asked in make.asked.questions)
    with pytest.raises(UsageError, match="1.png: its colours are several targets"):
        make(tmp_path, {question: "no"}, overwrite=True)


def test_classes_of_a_palette_are_targets_of_their_own(make, tmp_path):
    disc(tmp_path / "JPEGImages/0.png", 90)
    coloured(tmp_path / "SegmentationClass" / "0.png", [(128, 0, 0), (0, 128, 0)], palette=True)
    areas = [int(read_mask(s.mask, s.reading).sum()) for s in make(tmp_path).samples["test"]]
    assert areas == [60, 60]


def test_several_labels_under_one_sentence_are_told(make, tmp_path):
    label = np.zeros((6, 8, 10), np.uint8)
    label[3, 3, 3] = 2
    scan(tmp_path, label=label)
    table(tmp_path, {"image": ["images/a.nii.gz"], "prompt": ["the tumour"]})
    made = make(tmp_path)
    assert (
        "1 volumes hold several labels, first labels/a.nii.gz (1, 2): all but 0 are the target of "
        "every sentence; --label 2=tumour takes that one."
    ) in made.card.defects
    assert sum(int(read_mask(s.mask).sum()) for s in made.samples["test"]) == 2
    made = make(tmp_path, labels={2: "tumour"}, overwrite=True)
    assert sum(int(read_mask(s.mask).sum()) for s in made.samples["test"]) == 1
    assert not any("several labels" in defect for defect in made.card.defects)


def test_sentences_of_annotations_are_targets_of_their_own(make, tmp_path):
    other = DOT | {"id": 6, "segmentation": [[20, 4, 25, 4, 25, 12, 20, 12]], "caption": "a bar"}
    coco(tmp_path, annotations=[DOT | {"caption": "a block"}, other, other | {"id": 7}])
    found = {
        s.prompts["p9"][0].text: int(read_mask(s.mask).sum())
        for s in make(tmp_path).samples["test"]
    }
    assert found == {"a block": 80, "a bar": 40}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.dcm", b"", "DICOM files are not read. PNG, JPEG, TIFF or NIfTI files are needed"),
        ("IM0001", bytes(128) + b"DICM", "Convert them to NIfTI .dcm2niix does it. or PNG first"),
        ("a.nrrd", b"", "ITK volumes are not read"),
        ("a.npy", b"", "arrays are not read"),
    ],
)
def test_files_of_other_kinds_are_refused_by_name(make, tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    refused(make, tmp_path, f"{name}: .*{message}|{name}: {message}")


def test_of_references_with_splits_of_their_own_one_is_meant(make, tmp_path, sets):
    sets.refcoco(tmp_path, 6)
    content = (tmp_path / "refs(unc).p").read_bytes()
    (tmp_path / "refs(google).p").write_bytes(content)
    made = make(tmp_path)
    question = "refs(google).p, refs(unc).p refer to the same targets, with splits of their own"
    assert [d for q, d in make.asked.questions.items() if q.startswith(question)] == ["refs(unc).p"]
    assert made.found.source == "refs(unc).p, instances.json"
    made = make(tmp_path, {question: "refs(google).p"}, overwrite=True)
    assert made.found.source == "refs(google).p, instances.json"


def test_a_table_beside_another_is_told(make, tmp_path):
    pictures(tmp_path)
    table(tmp_path, {"image": ["0.png", "1.png"], "prompt": ["a dot", "a ring"]})
    (tmp_path / "more.json").write_text('[{"image": "2.png", "prompt": "a line"}]')
    (told,) = make(tmp_path).card.defects
    assert told.startswith("more.json: not used beside pairs.csv; `data init ")
    assert told.endswith("more.json` reads it alone.")


def test_masks_that_fit_no_picture_are_told(make, tmp_path):
    disc(tmp_path / "images/1.png", 90)
    disc(tmp_path / "masks/1_0.png")
    refused(
        make, tmp_path,
        "found 1 pictures and 1 masks, such as 'images/1.png' and 'masks/1_0.png', and no two that",
    )  # fmt: skip
    disc(tmp_path / "masks/1.png")
    assert make(tmp_path).card.defects == [
        "1 masks fit no picture and are left out, first masks/1_0.png."
    ]


def test_volumes_and_segmentations_are_matched_by_number(make, tmp_path):
    label = np.zeros((6, 8, 10), np.uint8)
    label[1, 2, 3] = 1
    for number in (0, 10):
        volume(tmp_path / f"volume-{number}.nii", np.arange(480, dtype=np.int16).reshape(6, 8, 10))
        volume(tmp_path / f"segmentation-{number}.nii", label)
    disc(tmp_path / "preview.png")
    made = make(tmp_path)
    assert len(made.samples["test"]) == 20
    assert made.card.defects[1:] == ["1 pictures beside the volumes: not used."]


@pytest.mark.parametrize(
    ("said", "rung", "classes"),
    [
        ("polyp", "p1", ["polyp"]),
        ("optic disc", "p1", ["optic disc"]),
        ("a small pink polyp in the middle", "p9", []),
        ("what a surgeon would cut away first", "p9", []),
    ],
)
def test_a_sentence_for_all_is_no_class(make, tmp_path, said, rung, classes):
    """Edits are of its words; a class would be replaced as a whole."""
    disc(tmp_path / "images/0.png", 90)
    disc(tmp_path / "masks/0.png")
    made = make(tmp_path, prompt=said)
    assert made.card.prompt_type == rung
    assert made.card.classes == classes
    assert [p.text for p in made.samples["test"][0].prompts[rung]] == [said]


def test_the_name_of_a_folder_stays_a_class(make, tmp_path):
    folder = tmp_path / "small_left_polyps"
    disc(folder / "images/0.png", 90)
    disc(folder / "masks/0.png")
    assert make(folder).card.classes == ["small left polyps"]


def test_what_cannot_be_read_leaves_no_half_of_a_set(make, tmp_path):
    disc(tmp_path / "images/0.png", 90)
    disc(tmp_path / "masks/0.png", size=(4, 4))
    with pytest.raises(DataError, match="4 x 4 pixels"):
        make(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "masks"]


def test_an_earlier_set_stands_where_the_next_cannot_be_read(make, tmp_path):
    disc(tmp_path / "images/0.png", 90)
    disc(tmp_path / "masks/0.png")
    make(tmp_path)
    before = {p: p.read_bytes() for p in (tmp_path / "card.yaml", tmp_path / "anns" / "test.json")}
    disc(tmp_path / "masks/0.png", size=(4, 4))
    with pytest.raises(DataError, match="4 x 4 pixels"):
        initialise(tmp_path, Choices(prompt="other", split="val"), overwrite=True)
    assert {path: path.read_bytes() for path in before} == before
    assert [path.name for path in (tmp_path / "anns").iterdir()] == ["test.json"]
