"""Damaged, odd, turned and large files at the one door to the decoder."""

import io
import re
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from harness.data import decoding
from harness.data.images import content_id, look_at_mask, read_image, read_mask, recognise
from harness.errors import DataError, EncodingError
from harness.records import Reading

GREY = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
RGB = np.stack([GREY, GREY[::-1], GREY // 2], axis=-1)
FORMATS = {
    "PNG": {},
    "JPEG": {},
    "TIFF": {},
    "GIF": {},
    "BMP": {},
    "WEBP": {},
    "PPM": {},
    "JPEG2000": {},
    "TIFF lzw": {"compression": "tiff_lzw"},
    "TIFF deep": {},
    "DDS": {},
    "TGA": {},
    "ICO": {},
    "EPS": {},
}  # fmt: skip


def encoded(name):
    held = io.BytesIO()
    picture = Image.fromarray(GREY.astype("uint16") if "deep" in name else RGB)
    picture.save(held, format=name.split()[0], **FORMATS[name])
    return held.getvalue()


@pytest.mark.parametrize("name", FORMATS)
def test_a_damaged_file_is_a_data_error_with_its_path(name, tmp_path):
    whole, rng = encoded(name), np.random.default_rng(3)
    path = tmp_path / "picture.png"
    messages = []
    for _ in range(150):
        bytes_ = bytearray(whole[: rng.integers(1, len(whole) + 1)])
        for place in rng.integers(0, min(len(bytes_), 200), rng.integers(0, 4)):
            bytes_[place] = rng.integers(0, 256)
        path.write_bytes(bytes(bytes_))
        for read in (read_image, read_mask, recognise, look_at_mask):
            try:
                read(path)
            except DataError as problem:
                messages.append(str(problem))
    assert messages
    assert all(message.startswith(f"{path}: ") for message in messages)


def test_formats_that_run_programs_are_no_pictures(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded("EPS"))
    with pytest.raises(DataError, match=re.escape("a.png: the image cannot be decoded (")):
        read_image(tmp_path / "a.png")


def text_chunk_bomb():
    """A PNG whose compressed text chunk unfolds beyond what Pillow takes."""
    held = io.BytesIO()
    Image.fromarray(GREY).save(held, format="PNG")
    content = b"a\0\0" + zlib.compress(bytes(70_000_000), 9)
    chunk = len(content).to_bytes(4, "big") + b"zTXt" + content
    chunk += zlib.crc32(b"zTXt" + content).to_bytes(4, "big")
    return held.getvalue()[:33] + chunk + held.getvalue()[33:]


def test_a_text_chunk_that_unfolds_too_far_is_a_data_error(tmp_path):
    (tmp_path / "a.png").write_bytes(text_chunk_bomb())
    with pytest.raises(DataError, match="a.png: the image cannot be decoded"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize(
    "problem", [ValueError("x"), KeyError("x"), MemoryError(), EOFError(), RecursionError("x")]
)
def test_whatever_a_decoder_raises_is_a_data_error(problem, tmp_path, monkeypatch):
    Image.fromarray(GREY).save(tmp_path / "a.png")

    def broken(self):
        raise problem

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", broken)
    with pytest.raises(DataError, match="a.png: the mask cannot be decoded"):
        read_mask(tmp_path / "a.png")


def test_a_fault_of_our_own_is_not_hidden(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "a.png")

    def use(picture, depth):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        decoding.with_picture(tmp_path / "a.png", "image", Reading(), use)


@pytest.mark.parametrize("kind", ["gif", "tif", "png", "webp"])
def test_several_frames_are_refused(kind, tmp_path):
    frames = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    path = tmp_path / f"a.{kind}"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    with pytest.raises(EncodingError, match="the image has 2 frames. Which of them is meant"):
        read_image(path)


def turned(path, tag, **more):
    exif = Image.Exif()
    exif[0x0112] = tag
    Image.fromarray(RGB).save(path, exif=exif, **more)


@pytest.mark.parametrize("tag", range(2, 9))
@pytest.mark.parametrize("kind", ["png", "tif", "webp"])
def test_an_orientation_tag_needs_the_cards_word(tag, kind, tmp_path):
    path = tmp_path / f"a.{kind}"
    turned(path, tag, **({"lossless": True} if kind == "webp" else {}))
    seen = np.asarray(ImageOps.exif_transpose(Image.open(path)))

    assert (read_image(path, Reading(orientation="stored")) == RGB).all()
    assert (read_image(path, Reading(orientation="displayed")) == seen).all()
    message = (
        f"{path}: the image has the orientation tag {tag}: viewers turn it, and whether the masks "
        "were drawn on the stored or on the turned pixels is not known. Write `orientation: "
        "stored` or `orientation: displayed` on the dataset's card."
    )
    with pytest.raises(EncodingError, match="^" + re.escape(message) + "$"):
        read_image(path)


@pytest.mark.parametrize("tag", [0, 1, 9, 77])
def test_tags_that_no_viewer_follows_are_left_alone(tag, tmp_path):
    turned(tmp_path / "a.png", tag)
    assert (read_image(tmp_path / "a.png") == RGB).all()


def test_the_tag_of_a_mask_counts_too(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 3
    target = GREY > 100
    Image.fromarray(target).save(tmp_path / "a.png", exif=exif)
    with pytest.raises(EncodingError, match="the mask has the orientation tag 3"):
        read_mask(tmp_path / "a.png")
    shown = read_mask(tmp_path / "a.png", Reading(orientation="displayed"))
    assert (shown == target[::-1, ::-1]).all()


DEEP = np.linspace(100, 4000, 48).reshape(6, 8)


@pytest.mark.parametrize(
    ("dtype", "mode", "low", "high"),
    [
        ("uint16", "I;16", "100", "4000"),
        ("int32", "I", "100", "4000"),
        ("float32", "F", "100", "4000"),
    ],
)
def test_more_than_eight_bits_need_the_cards_word(dtype, mode, low, high, tmp_path):
    path = tmp_path / "a.tif"
    Image.fromarray(DEEP.astype(dtype)).save(path)
    message = (
        f"{path}: the image is of mode {mode}, its values run from {low} to {high}. Only 8 bits "
        "have a meaning of their own. Write `intensity: full`, `intensity: minmax`, `intensity: "
        "[low, high]` or `intensity: {percentiles: [1, 99]}` on the dataset's card."
    )
    with pytest.raises(EncodingError, match="^" + re.escape(message) + "$"):
        read_image(path)


def shown(path, intensity):
    image = read_image(path, Reading(intensity=intensity))
    assert (image[..., 0] == image[..., 1]).all()
    assert (image[..., 0] == image[..., 2]).all()
    return image[..., 0]


def test_intensities_become_eight_bits(tmp_path):
    path, values = tmp_path / "a.png", DEEP.astype("uint16").astype(float)
    Image.fromarray(DEEP.astype("uint16")).save(path)

    def scaled(low, high):
        return np.rint(255 * np.clip((values - low) / (high - low), 0, 1))

    assert (shown(path, "full") == scaled(0, 65535)).all()
    assert (shown(path, "minmax") == scaled(100, 4000)).all()
    assert (shown(path, (500, 1000)) == scaled(500, 1000)).all()
    low, high = np.percentile(values, [10, 80])
    assert (shown(path, ("percentiles", 10, 80)) == scaled(low, high)).all()


def test_full_sixteen_bits_are_the_eight_bits_they_were_made_of(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "8.png")
    Image.fromarray(GREY.astype("uint16") * 257).save(tmp_path / "16.png")
    assert (shown(tmp_path / "16.png", "full") == read_image(tmp_path / "8.png")[..., 0]).all()


def test_a_constant_picture_has_no_range(tmp_path):
    Image.fromarray(np.full((3, 4), 700, "uint16")).save(tmp_path / "a.png")
    assert (shown(tmp_path / "a.png", "minmax") == 0).all()


def test_full_is_refused_where_it_means_nothing(tmp_path):
    for name, values in (("a", -DEEP.astype("int32")), ("b", DEEP.astype("float32"))):
        path = tmp_path / f"{name}.tif"
        Image.fromarray(values).save(path)
        with pytest.raises(EncodingError, match=re.escape("is for values from 0 to 65535. Write")):
            read_image(path, Reading(intensity="full"))
    Image.fromarray(np.full((3, 4), np.nan, "float32")).save(tmp_path / "c.tif")
    with pytest.raises(EncodingError, match="values that are not finite numbers"):
        read_image(tmp_path / "c.tif", Reading(intensity="minmax"))


def test_deep_pictures_are_known_by_their_stored_values(tmp_path):
    """Clipped to 8 bits, all of them would be one white picture."""
    names = []
    for number in range(3):
        Image.fromarray(DEEP.astype("uint16") + 300 + number).save(tmp_path / f"{number}.png")
        found, size = recognise(tmp_path / f"{number}.png", Reading(intensity=(0, 10)))
        assert size == (6, 8)
        names.append(found)
    assert len(set(names)) == 3
    again = recognise(tmp_path / "0.png", Reading(intensity="full"))[0]
    assert again == names[0]


def test_eight_bits_are_known_as_ever(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "grey.png")
    Image.fromarray(RGB).save(tmp_path / "rgb.bmp")
    assert recognise(tmp_path / "grey.png")[0] == content_id(np.stack([GREY] * 3, axis=-1))
    assert recognise(tmp_path / "rgb.bmp") == (content_id(RGB), (6, 8))


def test_hidden_colours_are_refused(tmp_path):
    alpha = np.where(GREY > 100, 255, 0)[..., None]
    hidden = np.concatenate([RGB, alpha], axis=-1).astype("uint8")
    Image.fromarray(hidden).save(tmp_path / "hidden.png")
    seen = hidden.copy()
    seen[hidden[..., 3] == 0] = 0
    Image.fromarray(seen).save(tmp_path / "seen.png")
    Image.fromarray(np.dstack([RGB, np.full_like(GREY, 90)])).save(tmp_path / "constant.png")

    with pytest.raises(EncodingError, match=r"transparent parts \(alpha from 0 to 255\)"):
        read_image(tmp_path / "hidden.png")
    assert (read_image(tmp_path / "seen.png") == seen[..., :3]).all()
    assert (read_image(tmp_path / "constant.png") == RGB).all()


@pytest.mark.parametrize("mode", ["CMYK", "LAB"])
def test_colours_of_print_are_refused(mode, tmp_path):
    Image.new(mode, (4, 4)).save(tmp_path / "a.tif")
    with pytest.raises(EncodingError, match=f"a.tif: the image is of mode {mode}, colours that"):
        read_image(tmp_path / "a.tif")


def test_sixteen_bits_of_colour_keep_half_of_them_only_where_the_card_says_full(tmp_path):
    (tmp_path / "a.ppm").write_bytes(b"P6 1 1 65535\n" + bytes([9, 1, 8, 2, 7, 3]))
    with pytest.raises(EncodingError, match="16 bits in each channel of RGB, of which the decoder"):
        read_image(tmp_path / "a.ppm")
    assert read_image(tmp_path / "a.ppm", Reading(intensity="full")).tolist() == [[[9, 8, 7]]]


def test_large_pictures_are_read_one_at_a_time(tmp_path, monkeypatch):
    from concurrent.futures import ThreadPoolExecutor

    monkeypatch.setattr(decoding, "LARGE_PIXELS", 10)
    Image.fromarray(RGB).save(tmp_path / "a.png")
    inside, most = [], []

    def use(picture, depth):
        inside.append(1)
        most.append(len(inside))
        np.asarray(picture)
        inside.pop()

    with ThreadPoolExecutor(8) as pool:
        for _ in range(100):
            pool.submit(decoding.with_picture, tmp_path / "a.png", "image", Reading(), use)
    assert len(most) == 100
    assert max(most) == 1


MEASURE = """
import resource, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from harness.data.images import look_at_mask, recognise
path, kind = Path(sys.argv[1]), sys.argv[2]
base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
read = {"image": recognise, "mask": lambda p: look_at_mask(p).encoding}[kind]
with ThreadPoolExecutor(4) as pool:
    list(pool.map(read, [path] * 4))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base) / 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "mode"), [("image", "RGB"), ("mask", "L"), ("mask", "RGB")])
def test_memory_of_reading_is_bounded(kind, mode, tmp_path):
    """Four readers of pictures of 10,000 x 10,000: at most 14 bytes a pixel, once."""
    picture = Image.new(mode, (10_000, 10_000))
    picture.paste((255,) * 3 if mode == "RGB" else 255, (10, 10, 5000, 5000))
    picture.save(tmp_path / "a.png", compress_level=1)
    made = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", MEASURE, str(tmp_path / "a.png"), kind],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert float(made.stdout) < 14 * 100_000_000 / 2**20
