"""Shards hold whole images, every case once, and depend on the plan alone."""

from unittest.mock import patch

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.engine.shards import cut, distinct_texts


@pytest.fixture
def shards(planned, monkeypatch):
    monkeypatch.setattr("harness.engine.shards.PAIRS_PER_SHARD", 90)
    _, _, plan = planned()
    texts = distinct_texts(plan.cases)
    return plan, texts, list(cut(plan.cases, texts))


def test_every_case_stands_in_one_shard(shards):
    plan, _, cut_ = shards
    assert len(cut_) > 2
    together = pl.concat([shard.cases for shard in cut_])
    assert together.sort("case_id").equals(plan.cases.sort("case_id"))


def test_a_shard_holds_whole_images(shards):
    _, _, cut_ = shards
    images = [image for shard in cut_ for image in shard.images]
    assert len(images) == len(set(images)) == 6
    for shard in cut_:
        assert set(shard.cases["image"]) == set(shard.images)


def test_few_prompts_an_image_do_not_fill_a_shard_with_pictures(planned, monkeypatch):
    monkeypatch.setattr("harness.engine.shards.IMAGES_PER_SHARD", 4)
    _, _, plan = planned("empty_prompt")
    parts = list(cut(plan.cases, distinct_texts(plan.cases)))
    assert [len(part.images) for part in parts] == [4, 2]
    assert sum(part.cases.height for part in parts) == plan.cases.height


def test_pairs_say_what_their_cases_say(shards):
    _, texts, cut_ = shards
    for shard in cut_:
        for case, row in enumerate(shard.cases.iter_rows(named=True)):
            image, text = shard.pairs[shard.pair_of_case[case]]
            assert shard.images[image] == row["image"]
            assert texts[text] == row["prompt"]
            image, text = shard.pairs[shard.original_pair[case]]
            assert shard.images[image] == row["image"]
            assert texts[text] == row["original_prompt"]


def test_pairs_are_distinct_and_originals_come_first(shards):
    _, _, cut_ = shards
    for shard in cut_:
        assert len(np.unique(shard.pairs, axis=0)) == len(shard.pairs)
        assert (shard.original_pair <= shard.pair_of_case).all()


def test_texts_stand_in_the_order_of_their_use(shards):
    plan, texts, _ = shards
    assert texts == list(dict.fromkeys(plan.cases["prompt"]))


def plain_shards(images, most_pairs, most_images):
    """Rows of each shard, by hand: images in the order in which they first appear."""
    groups = {}
    for row, image in enumerate(images):
        groups.setdefault(image, []).append(row)
    found, rows, n = [], [], 0
    for own in groups.values():
        rows, n = rows + own, n + 1
        if len(rows) >= most_pairs or n >= most_images:
            found.append(rows)
            rows, n = [], 0
    return found + ([rows] if rows else [])


@given(
    st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=60),
    *(st.integers(1, most) for most in (20, 4, 9)),
)
def test_shards_are_those_of_the_plain_rule_wherever_rows_are_read(images, pairs, most, rows):
    """A picture that several data sets show has its rows in several places."""
    first = {image: images.index(image) for image in images}
    cases = pl.DataFrame(
        {
            "case_id": range(len(images)),
            "original_case_id": [first[image] for image in images],
            "image": images,
            "probe": ["original" if first[i] == n else "typo" for n, i in enumerate(images)],
            "prompt": [f"{n % 3}" for n in range(len(images))],
        }
    )
    limits = {"PAIRS_PER_SHARD": pairs, "IMAGES_PER_SHARD": most, "ROW_GROUP": rows}
    with patch.multiple("harness.engine.shards", **limits):
        found = list(cut(cases.lazy(), distinct_texts(cases)))

    expected = plain_shards(images, pairs, most)
    assert [shard.cases["case_id"].to_list() for shard in found] == expected
    assert [shard.index for shard in found] == list(range(len(expected)))
