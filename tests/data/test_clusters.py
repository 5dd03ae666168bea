"""Samples that are not independent share a cluster."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.cards import load_dataset_card
from harness.data.clusters import assign_clusters, cluster_kind, near_duplicates
from harness.errors import DataError
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


def test_the_black_around_the_picture_makes_no_video(tmp_path):
    """Endoscopes show a disc on black: four fifths of two unlike frames are the same."""
    paths = []
    for number, color in enumerate([(200, 90, 90), (90, 90, 200)], 1):
        frame = np.zeros((30, 30, 3), dtype=np.uint8)
        frame[:6] = color
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(frame).save(paths[-1])

    assert near_duplicates(paths) == [0, 1]
