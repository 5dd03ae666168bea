"""Masks are binarised, pictures known by their pixels."""

import re

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from harness.data.images import content_id, read_image, read_mask
from harness.errors import DataError

pixels = hnp.arrays(np.uint8, st.tuples(st.integers(1, 6), st.integers(1, 6), st.just(3)))


@given(pixels, pixels)
def test_content_ids_differ_exactly_when_pixels_do(first, second):
    same = first.shape == second.shape and bool((first == second).all())
    assert (content_id(first) == content_id(second)) == same


def test_grey_edges_of_a_jpeg_mask_are_no_ground_truth(tmp_path):
    mask = np.zeros((32, 32), np.uint8)
    mask[5:21, 7:26] = 255
    path = tmp_path / "mask.jpg"
    Image.fromarray(mask).save(path, quality=70)
    assert len(np.unique(np.asarray(Image.open(path)))) > 2

    assert (read_mask(path) == (mask > 127)).all()


@pytest.mark.parametrize(
    ("mode", "foreground"), [("1", 1), ("L", 255), ("I;16", 65535), ("RGB", (255, 255, 255))]
)
def test_every_kind_of_mask_file_means_the_same(tmp_path, mode, foreground):
    picture = Image.new(mode, (4, 2))
    picture.putpixel((3, 1), foreground)
    picture.save(tmp_path / "mask.png")

    expected = np.zeros((2, 4), bool)
    expected[1, 3] = True
    assert (read_mask(tmp_path / "mask.png") == expected).all()


def test_grey_pictures_become_rgb(tmp_path):
    Image.new("L", (4, 2), 7).save(tmp_path / "grey.png")
    assert read_image(tmp_path / "grey.png").shape == (2, 4, 3)


def test_a_picture_too_large_to_read_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("harness.data.decoding.MAX_PIXELS", 5)
    Image.new("L", (4, 2)).save(tmp_path / "big.png")
    message = "big.png: the image has 4 x 2 pixels. At most 5 are read. Scale the file down."
    with pytest.raises(DataError, match=re.escape(message)):
        read_image(tmp_path / "big.png")


def test_text_is_no_picture(tmp_path):
    (tmp_path / "fake.png").write_text("hello")
    with pytest.raises(DataError, match="fake.png: the mask cannot be decoded"):
        read_mask(tmp_path / "fake.png")
