"""Pictures of a page: the mask's pixels, seen through; nothing of the file but its pixels."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from harness.report.gallery import MASK_HUES, jpeg, overlay, png, scaled_size, thumbnail, uri

masks = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9))


@given(masks, st.sampled_from(sorted(MASK_HUES)))
def test_an_overlay_covers_the_mask_and_nothing_else(mask, kind):
    size = (mask.shape[1] * 3, mask.shape[0] * 3)
    picture = overlay(mask, size, kind)
    drawn = np.asarray(Image.open(io.BytesIO(png(picture))).convert("RGBA"))
    seen = drawn[..., 3] > 0
    np.testing.assert_array_equal(seen, np.kron(mask, np.ones((3, 3), bool)))
    assert {tuple(p[:3]) for p in drawn[seen]} <= {MASK_HUES[kind]}


@pytest.mark.parametrize(("side", "width"), [(12, 1), (192, 2)])
def test_the_outline_is_firm_and_the_inside_light(side, width):
    """A picture that the page enlarges has a finer one."""
    mask = np.zeros((side, side), bool)
    mask[2:10, 2:10] = True
    alpha = np.asarray(overlay(mask, (side, side), "truth").convert("RGBA"))[..., 3]
    assert (alpha[6, 2 : 2 + width] == 255).all()
    assert 0 < alpha[6, 2 + width] == alpha[6, 6] < 128
    assert alpha[0, 0] == 0


@pytest.mark.parametrize(("shape", "size"), [((300, 600), (192, 96)), ((9, 3), (3, 9))])
def test_the_longer_side_sets_the_scale_and_nothing_is_enlarged(shape, size):
    assert scaled_size(*shape, 192) == size


def test_a_thumbnail_is_small_and_carries_no_metadata(tmp_path):
    picture = Image.fromarray(np.zeros((40, 80, 3), np.uint8))
    exif = picture.getexif()
    exif[0x010E] = "patient 17"
    picture.save(tmp_path / "a.jpg", exif=exif)
    content = jpeg(thumbnail(tmp_path / "a.jpg", longest=20))
    assert b"patient" in (tmp_path / "a.jpg").read_bytes()
    assert b"patient" not in content
    assert Image.open(io.BytesIO(content)).size == (20, 10)
    assert uri(content, "jpeg").startswith("data:image/jpeg;base64,")
