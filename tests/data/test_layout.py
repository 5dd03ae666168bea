"""Real layouts are read whole; what is wrong is said with its row."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.cards import load_dataset_card
from harness.data.layout import fingerprint, load_samples, read_rows
from harness.errors import CardError, DataError, PromptError


@pytest.fixture
def kvasir():
    return load_dataset_card("kvasir_polyp")


def test_samples_carry_files_prompts_and_clusters(photo_root, kvasir):
    samples = load_samples(kvasir, photo_root, "test")

    assert [s.sample_id for s in samples] == [f"test_{i}.png" for i in range(6)]
    assert all(s.image.is_file() and s.mask.is_file() for s in samples)
    assert samples[0].prompts["p6"][0].text == (
        "one small pink round polyp, located in top left of the image"
    )
    assert [p.index for p in samples[0].prompts["p7"]] == [0, 1]
    assert [s.cluster_id for s in samples] == [s.image_id for s in samples]


def test_an_image_is_recognised_by_content_under_another_name(photo_root, photo_rows, kvasir):
    rows, write = photo_rows
    folder = photo_root / "kvasir_polyp"
    Image.open(folder / "images" / "test_0.png").save(folder / "images" / "copy.bmp")
    Image.open(folder / "masks" / "test_0.png").save(folder / "masks" / "copy.png")
    rows.append(rows[0] | {"img_name": "copy.bmp", "mask_name": "copy.png"})
    write()

    samples = load_samples(kvasir, photo_root, "test")

    assert samples[0].image_id == samples[-1].image_id
    assert len({s.image_id for s in samples}) == 6


def test_a_row_that_repeats_another_is_one_sample(photo_root, photo_rows, kvasir):
    rows, write = photo_rows
    rows.append(dict(rows[0]))
    write()

    assert len(load_samples(kvasir, photo_root, "test")) == 6


def test_texts_alone_are_read_without_pictures(photo_root, kvasir):
    for path in (photo_root / "kvasir_polyp" / "images").iterdir():
        path.unlink()

    samples = load_samples(kvasir, photo_root, "test", pictures=False)

    assert len(samples) == 6
    assert samples[1].cluster_id == "test_1.png"


def test_the_fingerprint_follows_pixels_and_masks(photo_root, kvasir):
    before = fingerprint(load_samples(kvasir, photo_root, "test"))
    assert before == fingerprint(load_samples(kvasir, photo_root, "test"))
    Image.fromarray(np.zeros((48, 40), np.uint8)).save(
        photo_root / "kvasir_polyp" / "masks" / "test_0.png"
    )
    assert before != fingerprint(load_samples(kvasir, photo_root, "test"))


def refused(kvasir, root: Path, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        load_samples(kvasir, root, "test")


def test_a_missing_image_is_named_with_its_row(photo_root, kvasir):
    (photo_root / "kvasir_polyp" / "images" / "test_3.png").unlink()
    refused(kvasir, photo_root, DataError, "test.json: row 3: the image")
    refused(
        kvasir,
        photo_root,
        DataError,
        "is missing. Every row needs its image. Add the file or remove the row.",
    )


def test_a_missing_mask_is_named_with_its_row(photo_root, kvasir):
    (photo_root / "kvasir_polyp" / "masks" / "test_2.png").unlink()
    refused(kvasir, photo_root, DataError, "test.json: row 2: the mask")


def test_a_mask_of_another_size_says_both_sizes(photo_root, kvasir):
    Image.fromarray(np.zeros((9, 7), np.uint8)).save(
        photo_root / "kvasir_polyp" / "masks" / "test_0.png"
    )
    refused(
        kvasir,
        photo_root,
        DataError,
        "has 9 x 7 pixels (height x width), its image 48 x 40. Both must have one size. "
        "Export the mask again.",
    )


@pytest.mark.parametrize("name", ["../../secret.png", "/etc/passwd"])
def test_a_path_that_leaves_the_root_is_refused(photo_root, photo_rows, kvasir, name):
    rows, write = photo_rows
    rows[1]["img_name"] = name
    write()
    refused(kvasir, photo_root, DataError, f"test.json: row 1: the path {name!r} leaves the folder")


def test_a_link_that_leaves_the_root_is_refused(photo_root, photo_rows, kvasir, tmp_path):
    outside = tmp_path / "outside.png"
    (photo_root / "kvasir_polyp" / "images" / "test_0.png").rename(outside)
    (photo_root / "kvasir_polyp" / "images" / "test_0.png").symlink_to(outside)
    refused(kvasir, photo_root, DataError, "row 0: the path 'test_0.png' leaves the folder")


def test_a_dataset_may_lie_elsewhere_behind_a_link(photo_root, kvasir, tmp_path):
    (photo_root / "kvasir_polyp").rename(tmp_path / "elsewhere")
    (photo_root / "kvasir_polyp").symlink_to(tmp_path / "elsewhere")
    samples = load_samples(kvasir, photo_root, "test")
    assert all(s.image.is_relative_to(photo_root) and s.image.is_file() for s in samples)


def test_an_unreadable_image_is_named(photo_root, kvasir):
    path = photo_root / "kvasir_polyp" / "images" / "test_0.png"
    path.write_bytes(path.read_bytes()[:100])
    refused(kvasir, photo_root, DataError, "row 0: ")
    refused(kvasir, photo_root, DataError, "the image cannot be decoded")


def test_an_unknown_prompt_type_is_answered_with_the_nearest(photo_root, photo_rows, kvasir):
    rows, write = photo_rows
    rows[0]["prompts"]["p66"] = "polyp"
    write()
    refused(kvasir, photo_root, DataError, "row 0: unknown prompt type 'p66'. Did you mean 'p6'?")


def test_a_prompt_without_grammar_names_the_row(photo_root, photo_rows, kvasir):
    rows, write = photo_rows
    rows[4]["prompts"]["p6"] = "somewhere there may be something"
    write()
    refused(kvasir, photo_root, PromptError, "test.json: row 4: ")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "the list is empty. At least one row is needed. Add rows such as {"),
        ("3", "found int. A JSON list of rows is expected: [{"),
        ('{"a": [], "b": 1}', "found an object ('a', 'b'). A JSON list of rows is expected: [{"),
        (
            '{"images": [], "annotations": [], "categories": []}',
            "found a COCO file ('images', 'annotations', 'categories'). A JSON list of rows is",
        ),
        ("[1, 2", "not valid JSON"),
        ("[3]", "row 0: found int. A row is an object with 'img_name'"),
        ('[{"img_name": 7}]', "row 0: 'img_name' is 7. A str is needed."),
        (
            '[{"img_name": "a", "mask_name": "a", "prompts": {"p1": 5}}]',
            "row 0: prompts.p1 is 5. A text or a list of texts is needed, such as ",
        ),
        ("[" * 100_000, "test.json: "),
    ],
)
def test_a_broken_annotation_file_says_what_is_wrong(photo_root, kvasir, content, message):
    (photo_root / "kvasir_polyp" / "anns" / "test.json").write_text(content, encoding="utf-8")
    refused(kvasir, photo_root, DataError, message)


def test_a_mask_with_two_sets_of_prompts_is_refused(photo_root, photo_rows, kvasir):
    rows, write = photo_rows
    rows.append(rows[0] | {"prompts": rows[1]["prompts"]})
    write()
    refused(kvasir, photo_root, DataError, "row 6: the mask 'test_0.png' stands in")


def test_a_missing_dataset_says_where_it_was_looked_for(tmp_path, kvasir):
    with pytest.raises(DataError, match=re.escape("kvasir_polyp: no such folder. The dataset")):
        load_samples(kvasir, tmp_path, "test")


def test_an_unknown_split_is_answered_with_the_nearest(photo_root, kvasir):
    with pytest.raises(DataError, match="unknown split 'tset'. Did you mean 'test'"):
        read_rows(kvasir, photo_root, "tset")


def test_the_real_sets_are_read(shared_data):
    for name, images, clusters in (("clinicdb_polyp", 61, None), ("busi", 78, 78)):
        samples = load_samples(load_dataset_card(name), shared_data, "test")
        assert len({s.image for s in samples}) == images
        if clusters is not None:
            assert len({s.cluster_id for s in samples}) == clusters


FREE = "name: mine\nprompt_type: p6\nlayout: {folder: kvasir_polyp}\n"


@pytest.fixture
def beside(photo_root):
    """A dataset whose card lies in its own folder; the function reads it by that card."""
    card = photo_root / "kvasir_polyp" / "card.yaml"

    def read(text=FREE, root=photo_root):
        card.write_text(text)
        return load_samples(load_dataset_card(card), root, "test")

    return read


def test_a_card_needs_a_name_and_a_prompt_type_alone(beside):
    samples = beside()
    assert len(samples) == 6
    assert samples[0].prompts["p6"][0].text.startswith("one small pink round polyp")


def test_a_dataset_beside_its_card_is_found_by_the_message(beside, photo_root):
    with pytest.raises(DataError) as told:
        beside(root=photo_root / "elsewhere")
    assert str(told.value).endswith(f"It lies beside its card: set --data-root {photo_root}.")


def test_rows_may_name_their_clusters(beside, photo_rows):
    rows, write = photo_rows
    for place, row in enumerate(rows):
        row["cluster"] = f"patient {place // 2}"
    write()
    rule = "clusters: {rule: annotated, source: column patient}\n"
    assert [s.cluster_id for s in beside(FREE + rule)] == [
        f"patient {place // 2}" for place in range(6)
    ]


def test_a_row_without_its_cluster_is_named_with_an_example(beside):
    with pytest.raises(DataError) as told:
        beside(FREE + "clusters: {rule: annotated}\n")
    assert str(told.value).endswith(
        "test.json: row 0: no 'cluster'. The card's rule is 'annotated': every row names its own, "
        'such as "cluster": "patient 7". Add the key, or write `clusters: {rule: image}` on the '
        "card."
    )


def test_a_cluster_is_a_text(beside, photo_rows):
    rows, write = photo_rows
    rows[1]["cluster"] = 7
    write()
    with pytest.raises(DataError, match="row 1: 'cluster' is 7. A text is needed, such as"):
        beside()


def test_what_a_card_lacks_is_said_with_an_example(beside):
    with pytest.raises(CardError) as told:
        beside("title: Mine\n")
    assert "card.yaml:1: name: the key is missing. Add it, such as `name: mine`." in str(told.value)
    assert "prompt_type: the key is missing. Add it, such as `prompt_type: p6`." in str(told.value)


def test_a_missing_dataset_is_answered_with_an_example_of_the_root(kvasir, tmp_path):
    with pytest.raises(DataError) as told:
        load_samples(kvasir, tmp_path, "test")
    assert str(told.value).endswith(
        "Set --data-root to the folder above it: with --data-root data its annotations are "
        "data/kvasir_polyp/anns/train.json. Other formats become a dataset by `vlsm-harness data "
        "init FOLDER`."
    )
