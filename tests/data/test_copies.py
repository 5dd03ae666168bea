"""Near copies are found, other pictures are not; every pair is looked at."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from harness.cards import load_dataset_card
from harness.data.copies import (
    LEAST_CORRELATION,
    MOST_BITS,
    Copy,
    Prints,
    copies,
    fingerprints,
    perceptual_hashes,
    thumbnail,
)
from harness.data.generators import generate
from harness.records import Reading


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """60 scenes of each of two generated sets."""
    root = tmp_path_factory.mktemp("scenes")
    for name in ("phantom_crowd", "phantom_solo"):
        generate(load_dataset_card(name), root, sizes={"test": 60})
    return sorted(root.rglob("images/**/*.png"))


def saved(picture, quality):
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=quality)
    return Image.open(content).convert("RGB")


def brighter(picture, factor):
    return picture.point(lambda value: min(255, int(value * factor)))


FORMS = {
    "half the size": lambda p: p.resize((p.width // 2, p.height // 2), Image.Resampling.BILINEAR),
    "twice the size": lambda p: p.resize((2 * p.width, 2 * p.height)),
    "256 x 256": lambda p: p.resize((256, 256), Image.Resampling.BICUBIC),
    "JPEG": lambda p: saved(p, 50),
    "brighter": lambda p: brighter(p, 1.1),
    "darker": lambda p: brighter(p, 0.85),
    "all of it": lambda p: saved(brighter(p.resize((256, 256)), 1.1), 60),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_changed_copy_is_found_and_no_other_scene(scenes, tmp_path, form):
    chosen = scenes[::6]
    changed = {}
    for path in chosen:
        place = tmp_path / f"{path.parts[-4]}-{path.stem}.png"
        FORMS[form](Image.open(path).convert("RGB")).save(place)
        changed[place] = Reading()
    one, other = fingerprints(dict.fromkeys(scenes, Reading())), fingerprints(changed)
    found = {(one.paths[c.first], other.paths[c.second]) for c in copies(one, other)}
    assert found == set(zip(chosen, changed, strict=True))


def test_scenes_of_one_generator_are_not_taken_for_each_other(scenes):
    prints = fingerprints(dict.fromkeys(scenes, Reading()))
    found = list(copies(prints, prints))
    assert [(c.first, c.second) for c in found] == [(k, k) for k in range(len(scenes))]
    assert {(c.distance, round(c.correlation, 5)) for c in found} == {(0, 1.0)}


def test_real_pictures_of_one_kind_are_told_apart(shared_data):
    """Kvasir-SEG holds four pairs that are one picture each; its other 497,499 pairs are not."""
    paths = sorted((shared_data / "kvasir_polyp" / "images").glob("*"))
    if len(paths) < 900:
        pytest.skip("Kvasir-SEG is not there as a whole")
    prints = fingerprints(dict.fromkeys(paths, Reading()))
    found = {prints.paths[c.first].stem for c in copies(prints, prints) if c.first < c.second}
    assert found == {
        "cju30bmab08bi0835mvlr6e0r", "cju5fydrud94708507vo6oy21", "cju76lsehyia10987u54vn8rb",
        "cju886ryxnsl50801r93jai7q",
    }  # fmt: skip


def plain_hash(small):
    """The definition: cosines summed, the 64 lowest but the mean against their median."""
    n = np.arange(32)
    low = np.zeros((8, 8))
    for u in range(8):
        for v in range(8):
            rows, columns = (np.cos(np.pi * k * (2 * n + 1) / 64) for k in (u, v))
            low[u, v] = 4 * (rows[:, None] * small * columns[None, :]).sum()
    low[0, 0] = 0
    bits = low.ravel() > np.median(low)
    return bits


@given(st.integers(0, 2**32 - 1))
def test_hashes_agree_with_their_definition(seed):
    small = np.random.default_rng(seed).integers(0, 256, (2, 32, 32)).astype(np.float32)
    found = np.unpackbits(perceptual_hashes(small).view(np.uint8).reshape(2, 8), axis=1)
    np.testing.assert_array_equal(found, [plain_hash(one) for one in small.astype(np.float64)])


hashes = arrays(np.uint64, st.integers(0, 12), elements=st.sampled_from([0, 1, 255, 2**20 - 1]))


def prints_of(values):
    alike = np.full((len(values), 256), 1 / 16, dtype=np.float32)
    return Prints(tuple(map(str, range(len(values)))), values, alike, {})


@given(hashes, hashes)
def test_every_pair_is_compared_whatever_the_blocks(one, other):
    found = set(copies(prints_of(one), prints_of(other)))
    bits = [[bin(int(a) ^ int(b)).count("1") for b in other] for a in one]
    wanted = {
        (i, j, bits[i][j])
        for i in range(len(one))
        for j in range(len(other))
        if bits[i][j] <= MOST_BITS
    }
    assert {(c.first, c.second, c.distance) for c in found} == wanted


def test_blocks_do_not_matter(monkeypatch):
    values = np.arange(50, dtype=np.uint64)
    whole = list(copies(prints_of(values), prints_of(values)))
    monkeypatch.setattr("harness.data.copies._BLOCK", 1)
    assert list(copies(prints_of(values), prints_of(values))) == whole
    assert isinstance(whole[0], Copy)


def test_a_candidate_that_does_not_correlate_is_no_copy():
    one, other = prints_of(np.zeros(1, np.uint64)), prints_of(np.zeros(1, np.uint64))
    turned = other._replace(thumbnails=other.thumbnails * np.float32(LEAST_CORRELATION - 0.01))
    assert list(copies(one, other))
    assert not list(copies(one, turned))


def test_even_pictures_have_nothing_to_be_known_by(tmp_path):
    for name, grey in (("a", 0), ("b", 0), ("c", 128)):
        Image.new("RGB", (40, 40), (grey,) * 3).save(tmp_path / f"{name}.png")
    prints = fingerprints({tmp_path / f"{n}.png": Reading() for n in "abc"})
    assert not list(copies(prints, prints))


def test_what_cannot_be_read_is_named_and_the_rest_compared(scenes, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    ticks = []
    asked = {scenes[0]: Reading(), tmp_path / "broken.png": Reading(), tmp_path / "none": Reading()}
    prints = fingerprints(asked, tick=lambda: ticks.append(1))
    assert prints.paths == (scenes[0],)
    assert "cannot be decoded" in prints.unread[tmp_path / "broken.png"]
    assert "the image is missing" in prints.unread[tmp_path / "none"]
    assert len(ticks) == 3
    nothing = fingerprints({})
    assert len(nothing.hashes) == 0
    assert not list(copies(nothing, prints))


def test_a_thumbnail_is_the_mean_of_what_it_covers():
    image = np.zeros((64, 64, 3), np.uint8)
    image[:2, :2] = 200
    small = thumbnail(image)
    assert (small[0, 0], small[0, 1], small.shape) == (200, 0, (32, 32))
