"""Samples that are not independent share a cluster."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.cards import load_dataset_card
from harness.data.clusters import assign_clusters, cluster_kind, near_duplicates
from harness.errors import CardError, DataError
from harness.files import shipped
from harness.records import Sample


def sample(name: str, image_id: str = "x") -> Sample:
    return Sample("set", "test", name, Path(name), Path(name), image_id, "", {})


def with_rule(name: str, **rule):
    card = load_dataset_card(name)
    return card.model_copy(update={"clusters": card.clusters.model_copy(update=rule)})


@pytest.mark.parametrize(
    ("dataset", "first", "second", "other"),
    [
        ("camus", "patient0001_2CH_ED.png", "patient0001_4CH_ES.png", "patient0002_2CH_ED.png"),
        (
            "chexlocalize",
            "patient64832_study1_view2_lateral.jpg",
            "patient64832_study1_view1_frontal.jpg",
            "patient64833_study1_view1_frontal.jpg",
        ),
    ],
)
def test_images_of_one_patient_are_one_cluster(dataset, first, second, other):
    a, b, c = assign_clusters(
        load_dataset_card(dataset), [sample(name) for name in (first, second, other)]
    )
    assert a == b != c


def test_a_name_without_patient_is_refused():
    with pytest.raises(DataError, match=re.escape("x.png: the name holds no patient.")):
        assign_clusters(load_dataset_card("camus"), [sample("x.png")])


def test_frames_are_looked_up_in_the_range_table():
    card = with_rule("clinicdb_polyp", ranges=[(1, 25), (26, 50)])
    clusters = assign_clusters(card, [sample(f"{n}.png") for n in (1, 25, 26, 50)])
    assert clusters == ["sequence01", "sequence01", "sequence02", "sequence02"]


def test_a_frame_outside_the_table_is_refused():
    card = with_rule("clinicdb_polyp", ranges=[(1, 25), (26, 50)])
    message = "99.png: frame 99 lies in no sequence of the card. Frames 1 to 50 are known."
    with pytest.raises(DataError, match=re.escape(message)):
        assign_clusters(card, [sample("99.png")])


def test_independent_images_are_their_own_clusters():
    card = load_dataset_card("kvasir_polyp")
    assert assign_clusters(card, [sample("a", "1"), sample("b", "2")]) == ["1", "2"]
    assert cluster_kind(card) == "image (assumed independent)"


def test_frames_of_one_video_are_grouped_by_their_looks(tmp_path):
    """Two videos of unlike colours, frames given out of order."""
    rng = np.random.default_rng(0)
    paths = []
    for number in (7, 1, 8, 2, 9):
        base = (200, 90, 90) if number < 5 else (90, 90, 200)
        frame = np.clip(rng.normal(base, 6, (30, 30, 3)), 0, 255).astype(np.uint8)
        path = tmp_path / f"{number}.png"
        Image.fromarray(frame).save(path)
        paths.append(path)

    groups = near_duplicates(paths)

    assert groups[0] == groups[2] == groups[4] != groups[1] == groups[3]
    card = with_rule("etis_polyp", ranges=[])
    assert assign_clusters(card, [sample(str(p)) for p in paths])[0] == f"group{groups[0]:04d}"
    assert cluster_kind(card) == "sequence (estimated)"


def card_with(tmp_path, old, new):
    text = (shipped("suites") / "datasets" / "camus.yaml").read_text()
    assert old in text
    path = tmp_path / "mine.yaml"
    path.write_text(text.replace(old, new))
    return path


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(", "no regular expression of the kind that is read here ("),
        ("patient", "the pattern has no group: put the part of the name that tells patients"),
        ("(?=a)(b)", "without look-around, without back-references, and small"),
        ("(a)\\\\1", "without look-around, without back-references, and small"),
        ("((a{1,999}){1,999}){1,999}", "without look-around, without back-references, and small"),
    ],
)
def test_a_bad_pattern_is_refused_with_its_line(tmp_path, pattern, message):
    path = card_with(tmp_path, '"(patient\\\\d+)"', f'"{pattern}"')
    with pytest.raises(CardError, match="^" + re.escape(f"{path}:13: clusters: ")) as caught:
        load_dataset_card(path)
    assert message in str(caught.value)


def test_a_catastrophic_pattern_costs_no_more_than_the_name():
    card = load_dataset_card("camus")
    hostile = card.clusters.model_copy(update={"pattern": "^(([a-z])+.)+[A-Z]([a-z])+$"})
    with pytest.raises(DataError, match=r"\.png: the name holds no patient\. The card's cluster"):
        assign_clusters(card.model_copy(update={"clusters": hostile}), [sample("a" * 200 + ".png")])


def test_an_empty_patient_is_none():
    card = load_dataset_card("camus")
    rule = card.clusters.model_copy(update={"pattern": "(x*)"})
    with pytest.raises(DataError, match="the name holds no patient"):
        assign_clusters(card.model_copy(update={"clusters": rule}), [sample("1.png")])


@pytest.mark.parametrize(
    "path",
    ["/etc", "../other", "a/../../b", "C:\\\\data", "C:/data", "..\\\\up", "\\\\\\\\host\\\\x"],
)
@pytest.mark.parametrize("key", ["folder", "images", "masks"])
def test_a_layout_stays_below_the_data_root(tmp_path, key, path):
    old = "layout:\n  images: {train: images/train, val: images/train, test: images/test}\n"
    card = card_with(tmp_path, old, f'layout:\n  {key}: "{path}"\n')
    with pytest.raises(CardError) as caught:
        load_dataset_card(card)
    assert str(caught.value).startswith(f"{card}:11: layout.{key}")
    assert "the path is absolute or climbs; name a folder below the dataset's own" in str(
        caught.value
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../x", "a name holds letters, digits, '-', '_' and '.' only"),
        ("a" * 300, "a name has at most 120 bytes"),
        ("'a\n\nb'", "a name holds letters, digits"),
    ],
)
def test_a_name_is_no_path(tmp_path, name, message):
    card = card_with(tmp_path, "name: camus", f"name: {name}")
    with pytest.raises(CardError, match=r"mine\.yaml:\d+: name: found ") as caught:
        load_dataset_card(card)
    assert message in str(caught.value)


def test_the_black_around_the_picture_makes_no_video(tmp_path):
    """Endoscopes show a disc on black: four fifths of two unlike frames are the same."""
    paths = []
    for number, color in enumerate([(200, 90, 90), (90, 90, 200)], 1):
        frame = np.zeros((30, 30, 3), dtype=np.uint8)
        frame[:6] = color
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(frame).save(paths[-1])

    assert near_duplicates(paths) == [0, 1]
