"""Run lengths and folders of answers."""

import contextlib
import re

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from harness.data.answers import opened
from harness.data.rle import decode_rle
from harness.errors import DataError
from harness.records import BY_CONTENT, Reading

masks = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40))


def runs_of(mask):
    """The definition: pixels down the columns, background first."""
    runs, value, n = [], False, 0
    for pixel in mask.T.ravel():
        if pixel != value:
            runs.append(n)
            value, n = pixel, 0
        n += 1
    return [*runs, n]


def text_of(runs):
    """COCO's text: groups of five bits, least first, differences from the third on."""
    text = ""
    for k, run in enumerate(runs):
        rest = run - runs[k - 2] if k > 2 else run
        while True:
            group, rest = rest & 31, rest >> 5
            more = rest != -1 if group & 16 else rest != 0
            text += chr(48 + group + 32 * more)
            if not more:
                break
    return text


@given(masks)
def test_run_lengths_give_back_their_mask(mask):
    size = list(mask.shape)
    runs = runs_of(mask)

    for counts in (runs, text_of(runs)):
        found = decode_rle({"size": size, "counts": counts}, where="a")
        np.testing.assert_array_equal(found, mask)


def test_text_that_pycocotools_wrote():
    """`mask.encode(np.asfortranarray(m))` of a block at rows 2-4 and columns 3-6 of 8 x 10."""
    mask = np.zeros((8, 10), bool)
    mask[2:5, 3:7] = True

    assert text_of(runs_of(mask)) == "j03500000f0"
    np.testing.assert_array_equal(
        decode_rle({"size": [8, 10], "counts": "j03500000f0"}, where="a"), mask
    )


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (None, "`size` is [height, width]"),
        ({"size": [2], "counts": []}, "`size` is [height, width]"),
        ({"size": [True, 2], "counts": []}, "`size` is [height, width]"),
        ({"size": [2, 2]}, "They are runs, or their text"),
        ({"size": [2, 2], "counts": [1, 1.5]}, "They are runs, or their text"),
        ({"size": [2, 2], "counts": [5, -1]}, "negative or longer than any mask"),
        ({"size": [2, 2], "counts": [3]}, "fill 3 pixels, the size 2 x 2"),
        ({"size": [2, 2], "counts": ""}, "fill 0 pixels, the size 2 x 2"),
        ({"size": [2, 2], "counts": "\u00e9"}, "are no such text"),
        ({"size": [2, 2], "counts": "o"}, "are no such text"),
        ({"size": [2, 2], "counts": "o" * 20 + "0"}, "more digits than any mask needs"),
        ({"size": [10**6, 10**6], "counts": [10**12]}, "At most 100000000 are read"),
        ({"size": [2, 2], "counts": [10**30]}, "negative or longer than any mask"),
    ],
)
def test_run_lengths_that_cannot_be_are_refused(mask, message):
    with pytest.raises(DataError, match=re.escape(message)):
        decode_rle(mask, where="a.jsonl:3")


@given(st.text(max_size=30))
def test_any_text_is_a_mask_or_refused(text):
    found = None
    with contextlib.suppress(DataError):
        found = decode_rle({"size": [3, 4], "counts": text}, where="a")
    assert found is None or found.shape == (3, 4)


@pytest.mark.parametrize(
    ("values", "reading", "expected"),
    [
        (np.eye(4, dtype=bool), Reading(), 4),
        (np.eye(4, dtype=np.int64) * 7, Reading(), 4),
        (np.eye(4, dtype=np.uint16) * 65535, Reading(), 4),
        (np.asfortranarray(np.tri(4, 5, dtype=np.uint8)), Reading(), 10),
        (np.eye(4, dtype=np.float64) * 0.7, Reading(above=0.5), 4),
        (np.eye(4, dtype=np.uint8)[None], Reading(), 4),
        (np.ones((4, 4), np.uint8), Reading(foreground="nonzero"), 16),
        (np.zeros((4, 4), np.uint8), Reading(), 0),
    ],
)
def test_arrays_are_read_by_the_rules_of_masks(tmp_path, values, reading, expected):
    np.savez(tmp_path / "a.npz", **{"12-3": values})

    with opened(tmp_path, reading) as answers:
        mask = answers.mask((12, 3)).mask
        assert answers.n_repeats == 4

    assert mask.sum() == expected
    assert mask.dtype == bool
    if values.ndim == 2 and reading == Reading():
        np.testing.assert_array_equal(mask, values != 0)


@pytest.mark.parametrize(
    "values", [np.eye(4) * 0.7, np.ones((4, 4), np.uint8), np.full((4, 4), np.nan)]
)
def test_arrays_that_could_mean_two_things_are_refused(tmp_path, values):
    np.savez(tmp_path / "a.npz", **{"12": values})

    with opened(tmp_path) as answers, pytest.raises(DataError, match="as --mask-rule RULE") as told:
        answers.mask((12, 0))
    assert "card" not in str(told.value)


def test_the_hash_is_that_of_content_and_rule(tmp_path):
    def digest(reading=BY_CONTENT):
        with opened(tmp_path, reading) as answers:
            return answers.sha256()

    Image.new("1", (3, 3)).save(tmp_path / "1.png")
    first = digest()
    assert digest() == first
    assert digest(Reading(foreground="nonzero")) != first
    Image.new("1", (3, 3), 1).save(tmp_path / "1.png")
    assert digest() != first


def test_names_that_are_no_cases_are_told(tmp_path):
    for name in ("1.png", "2-1.png", "readme.txt", "x.png", "1-99999.png"):
        (tmp_path / name).write_bytes(b"")

    with opened(tmp_path) as answers:
        assert set(answers.found) == {(1, 0), (2, 1)}
        assert {place.rpartition("/")[2] for place in answers.strange} == {
            *("readme.txt", "x.png", "1-99999.png")
        }
