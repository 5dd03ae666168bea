"""One mask in everybody's encodings, and files that could mean two things."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from harness.cards import load_dataset_card
from harness.data.foreground import foreground
from harness.data.images import look_at_mask, read_mask
from harness.errors import EncodingError
from harness.records import Reading

SHAPE = (24, 32)
TARGET = np.zeros(SHAPE, dtype=bool)
TARGET[4:15, 6:20] = True
VOC = [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0] + [0] * 756


def grey(value, dtype="uint8"):
    return Image.fromarray((TARGET * value).astype(dtype))


def palette(index, colours):
    picture = Image.fromarray(np.asarray(index, dtype="uint8"), "P")
    picture.putpalette(colours)
    return picture


def colours(inside, outside=(0, 0, 0)):
    values = np.where(TARGET[..., None], np.array(inside), np.array(outside))
    return Image.fromarray(values.astype("uint8"))


def soft(image):
    """Edges of grey, as a mask has that was made smaller."""
    large = image.resize((image.width * 4, image.height * 4), Image.Resampling.NEAREST)
    return large.filter(ImageFilter.GaussianBlur(1))


ENCODINGS = {
    "0/1": (grey(1), "png", "8-bit grey 0/1"),
    "0/255": (grey(255), "png", "8-bit grey 0/255"),
    "0/any": (grey(37), "png", "8-bit grey 0/37"),
    "1-bit": (Image.fromarray(TARGET), "png", "1-bit 0/1"),
    "1-bit TIFF": (Image.fromarray(TARGET), "tif", "1-bit 0/1"),
    "16 bits 0/1": (grey(1, "uint16"), "png", "16-bit grey 0/1"),
    "16 bits 0/255": (grey(255, "uint16"), "png", "16-bit grey 0/255"),
    "16 bits 0/65535": (grey(65535, "uint16"), "tif", "16-bit grey 0/65535"),
    "big-endian 16 bits": (grey(255, ">u2"), "tif", "16-bit grey 0/255"),
    "32 bits": (grey(1, "int32"), "tif", "32-bit grey 0/1"),
    "32 bits, signed": (grey(-1, "int32"), "tif", "32-bit grey -1/0"),
    "palette class 1": (palette(TARGET * 1, VOC), "png", "palette 0/1"),
    "palette class 2": (palette(TARGET * 2, VOC), "png", "palette 0/2"),
    "palette of greys": (palette(TARGET * 2, [0] * 6 + [9] * 3), "png", "palette of greys 0/9"),
    "GIF": (grey(255), "gif", None),
    "green on black": (colours((0, 255, 0)), "png", "8-bit colour 0/255"),
    "dark red on black": (colours((128, 0, 0)), "png", "8-bit colour 0/128"),
    "yellow on black": (colours((255, 255, 0)), "png", "8-bit colour on black"),
    "grey as RGB": (colours((1, 1, 1)), "png", "8-bit grey 0/1"),
    "grey as BMP": (colours((255, 255, 255)), "bmp", "8-bit grey 0/255"),
    "constant alpha": (colours((0, 9, 0, 255), (0, 0, 0, 255)), "png", "8-bit colour 0/9"),
    "alpha alone": (colours((255, 255, 255, 255), (255, 255, 255, 0)), "png", "alpha 0/255"),
    "alpha of black": (colours((0, 0, 0, 200), (0, 0, 0, 0)), "png", "alpha 0/200"),
    "colour and alpha": (colours((255, 0, 0, 255), (0, 0, 0, 0)), "png", "8-bit colour 0/255"),
    "grey and alpha": (Image.merge("LA", [grey(255), grey(255)]), "png", "8-bit grey 0/255"),
    "alpha of LA": (Image.merge("LA", [grey(0), grey(255)]), "png", "alpha 0/255"),
    "JPEG": (grey(255), "jpg", "JPEG grey with soft edges, > 127"),
    "JPEG as RGB": (colours((255, 255, 255)), "jpg", "JPEG grey with soft edges, > 127"),
    "lossless WebP": (colours((255, 255, 255)), "webp", "8-bit grey 0/255"),
}


@pytest.mark.parametrize("name", ENCODINGS)
def test_every_encoding_of_a_mask_means_the_same(name, tmp_path):
    picture, kind, encoding = ENCODINGS[name]
    path = tmp_path / f"mask.{kind}"
    picture.save(path, **({"quality": 95} if kind == "jpg" else {}), lossless=True)

    found = look_at_mask(path)

    assert found.mask.dtype == np.bool_
    assert (found.mask == TARGET).all()
    assert encoding in (None, found.encoding)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 2**16 - 1), st.sampled_from(["uint8", "uint16", "int32"]), st.integers(1, 255)
)
def test_of_two_values_with_a_zero_the_other_is_foreground(value, dtype, index):
    value = value % 255 + 1 if dtype == "uint8" else value
    assert (foreground(grey(value, dtype), Reading()).mask == TARGET).all()
    picture = palette(TARGET * index, [0, 0, 0] + [9, 0, 200] * 255)
    assert (foreground(picture, Reading()).mask == TARGET).all()


@pytest.mark.parametrize("mode", ["L", "RGB", "1", "I;16", "RGBA"])
def test_zeros_are_an_empty_mask(mode):
    found = foreground(Image.new(mode, (5, 4)), Reading())
    assert not found.mask.any()
    assert found.mask.shape == (4, 5)


@pytest.mark.parametrize(("mode", "value"), [("L", 255), ("1", 1), ("RGB", (255,) * 3)])
def test_the_largest_value_throughout_is_a_full_mask(mode, value):
    assert foreground(Image.new(mode, (5, 4), value), Reading()).mask.all()


def test_several_classes_of_a_palette_are_foreground():
    index = np.zeros(SHAPE, dtype="uint8")
    index[2:6] = 1
    index[10:14] = 3
    found = foreground(palette(index, VOC), Reading())
    assert (found.mask == (index > 0)).all()
    assert found.encoding == "palette indexes"


@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_soft_edges_are_cut_at_half(kind, tmp_path):
    picture = soft(grey(255))
    picture.save(tmp_path / f"mask.{kind}")
    stored = np.asarray(Image.open(tmp_path / f"mask.{kind}"))
    assert len(np.unique(stored)) >= 8

    found = look_at_mask(tmp_path / f"mask.{kind}")

    assert (found.mask == (stored > 127)).all()
    assert found.encoding.endswith("grey with soft edges, > 127")


@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 255, 0), (255, 255, 0)])
def test_bright_colours_survive_a_lossy_file(colour, tmp_path):
    colours(colour).resize((320, 240), Image.Resampling.NEAREST).save(
        tmp_path / "mask.jpg", quality=95, subsampling=0
    )
    wanted = np.asarray(Image.fromarray(TARGET).resize((320, 240), Image.Resampling.NEAREST))
    assert (read_mask(tmp_path / "mask.jpg") == wanted).mean() > 0.995


def classes(*values, dtype="uint8"):
    rows = np.repeat(np.array(values, dtype=dtype), -(-SHAPE[0] // len(values)))[: SHAPE[0]]
    return Image.fromarray(np.repeat(rows[:, None], SHAPE[1], axis=1))


GRADIENT = np.linspace(0, 255, SHAPE[0] * SHAPE[1]).reshape(SHAPE)
PHOTO = np.random.default_rng(0).integers(0, 256, (*SHAPE, 3)).astype("uint8")
AMBIGUOUS = {
    "classes 0 1 2": (classes(0, 1, 2), "the values 0, 1, 2: this is a map of several classes"),
    "three greys": (classes(0, 128, 255), "the values 0, 128, 255: this is a map of several"),
    "ignored border": (classes(0, 1, 255), "the values 0, 1, 255: this is a map of several"),
    "twelve classes": (
        classes(*range(12)),
        "12 values, 0, 1, 2, ..., 9, 10, 11: this is a map of several classes or a soft mask",
    ),
    "twelve and border": (classes(*range(11), 255), "12 values, 0, 1, 2, ..., 9, 10, 255"),
    "int32 classes": (classes(0, 1, 2, dtype="int32"), "the values 0, 1, 2"),
    "no zero": (classes(1, 2), "the values 1, 2: without a 0 none of them is background"),
    "no zero in classes": (classes(1, 2, 3), "the values 1, 2, 3: without a 0"),
    "all ones": (classes(1), "the value 1: nothing says whether all or none of it"),
    "a gradient": (Image.fromarray(GRADIENT.astype("uint8")), "or a soft mask"),
    "floats": (
        Image.fromarray(TARGET.astype("float32")),
        "floating-point values from 0 to 1: floating-point masks have no level",
    ),
    "a photograph": (Image.fromarray(PHOTO), "these are shades, not classes"),
    "red on white": (
        colours((255, 0, 0), (255, 255, 255)),
        "2 colours, #ff0000, #ffffff: none of them is black",
    ),
    "white beside red": (
        Image.fromarray(np.where(np.eye(24)[..., None] > 0, 255, np.asarray(
            colours((255, 0, 9)))[:, :24]).astype("uint8")),
        "3 colours, #000000, #ff0009, #ffffff: grey or white stands beside colours",
    ),
    "two shades": (
        Image.fromarray(np.where(np.eye(24)[..., None] > 0, [50, 0, 50], np.asarray(
            colours((200, 0, 200)))[:, :24]).astype("uint8")),
        "3 colours, #000000, #320032, #c800c8: these are shades of one colour",
    ),
    "palette without 0": (palette(TARGET + 1, VOC), "none of them is index 0"),
    "white is index 0": (
        palette(TARGET, [255] * 3 + [0] * 3),
        "2 palette indexes, 0 (#ffffff), 1 (#000000): index 0 is not the dark one",
    ),
    "black is index 1": (palette(TARGET, [255, 0, 0] + [0] * 3), "index 0 is not the black one"),
    "index 0 alone, red": (palette(TARGET * 0, [255, 0, 0]), "index 0 is not black"),
    "alpha of its own": (
        colours((255, 0, 0, 90), (0, 0, 0, 200)),
        "alpha of the values 90, 200 beside 8-bit colour 0/255: colour and alpha both vary",
    ),
    "transparent white": (
        Image.new("RGBA", (4, 4), (255, 255, 255, 0)),
        "#ffffff, all transparent: colour and alpha contradict each other",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_what_could_mean_two_things_is_refused(name, tmp_path):
    picture, message = AMBIGUOUS[name]
    path = tmp_path / "mask.tif"
    picture.save(path)
    with pytest.raises(EncodingError, match="^" + re.escape(f"{path}: the mask holds ")) as caught:
        read_mask(path)
    assert message in str(caught.value)
    assert str(caught.value).endswith(
        "Which of them are foreground must be said. Write `masks: {foreground: nonzero}`, "
        "`masks: {above: 127}`, `masks: {values: [1]}`, `masks: {channel: g}` or "
        "`masks: {foreground: alpha}` on the dataset's card."
    )


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (grey(1), "the values 0, 1: a lossy mask is dark and bright"),
        (grey(128), "a lossy mask is dark and bright, with thin edges between"),
        (classes(0, 128, 255), "a lossy mask is dark and bright"),
        (colours((255, 0, 0), (255, 255, 255)), "colours, the darkest of "),
    ],
)
def test_a_lossy_mask_is_dark_and_bright(picture, message, tmp_path):
    picture.resize((128, 96), Image.Resampling.NEAREST).save(tmp_path / "mask.jpg", quality=95)
    with pytest.raises(EncodingError, match=re.escape(message)):
        read_mask(tmp_path / "mask.jpg")


def test_transparency_against_the_values_is_refused(tmp_path):
    grey(255).save(tmp_path / "grey.png", transparency=255)
    palette(TARGET * 2, VOC).save(tmp_path / "palette.png", transparency=2)
    grey(255).save(tmp_path / "background.png", transparency=0)
    with pytest.raises(EncodingError, match="the transparent value 255"):
        read_mask(tmp_path / "grey.png")
    with pytest.raises(EncodingError, match="an index other than 0 is transparent"):
        read_mask(tmp_path / "palette.png")
    assert (read_mask(tmp_path / "background.png") == TARGET).all()


@pytest.mark.parametrize("mode", ["CMYK", "LAB"])
def test_colours_that_are_no_light_are_refused(mode, tmp_path):
    Image.new(mode, (4, 4)).save(tmp_path / "mask.tif")
    with pytest.raises(EncodingError, match=f"mask.tif: the mask is of mode {mode}. A grey"):
        read_mask(tmp_path / "mask.tif")


def test_sixteen_bits_of_colour_are_refused_because_half_of_them_are_lost(tmp_path):
    (tmp_path / "mask.ppm").write_bytes(b"P6 2 1 65535\n" + bytes([0, 0, 0, 1, 0, 0] * 2))
    with pytest.raises(EncodingError, match="the mask has 16 bits in each channel of RGB"):
        read_mask(tmp_path / "mask.ppm")


TWO = np.asarray(classes(0, 1, 2))
RGB = np.asarray(colours((0, 200, 30), (90, 0, 0)))
RULES = [
    (classes(0, 1, 2), {"values": [2]}, TWO == 2),
    (classes(0, 1, 2), {"values": [1, 2]}, TWO > 0),
    (classes(0, 1, 2), {"foreground": "nonzero"}, TWO > 0),
    (classes(0, 1, 2), {"above": 1}, TWO > 1),
    (classes(1), {"foreground": "nonzero"}, np.ones(SHAPE, bool)),
    (classes(0, 1, dtype="uint16"), {"values": [2]}, np.zeros(SHAPE, bool)),
    (Image.fromarray(GRADIENT.astype("float32")), {"above": 99.5}, GRADIENT.astype("f4") > 99.5),
    (palette(TWO, VOC), {"values": [2]}, TWO == 2),
    (palette(TWO, VOC), {"foreground": "nonzero"}, TWO > 0),
    (palette(TWO, VOC), {"channel": "g"}, TWO == 2),
    (colours((0, 200, 30), (90, 0, 0)), {"channel": "g"}, TARGET),
    (colours((0, 200, 30), (90, 0, 0)), {"channel": "r"}, ~TARGET),
    (colours((0, 200, 30), (90, 0, 0)), {"channel": "r", "values": [0]}, TARGET),
    (colours((0, 200, 30), (90, 0, 0)), {"above": 127}, TARGET),
    (colours((9, 9, 9, 40), (80, 0, 0, 0)), {"foreground": "alpha"}, TARGET),
    (colours((9, 9, 9, 40), (80, 0, 0, 10)), {"channel": "a", "above": 30}, TARGET),
    (colours((9, 9, 9, 40), (80, 0, 0, 0)), {"foreground": {"above": 70}}, ~TARGET),
]


@pytest.mark.parametrize(("picture", "rule", "wanted"), RULES)
def test_the_cards_rule_decides(picture, rule, wanted):
    card = load_dataset_card("kvasir_polyp").model_dump() | {"masks": rule}
    reading = type(load_dataset_card("kvasir_polyp")).model_validate(card).reading
    found = foreground(picture, reading)
    assert (found.mask == wanted).all()


def test_a_rule_that_the_file_cannot_follow_is_refused(tmp_path):
    def refusal(picture, **rule):
        picture.save(tmp_path / "mask.tif")
        with pytest.raises(EncodingError) as caught:
            read_mask(tmp_path / "mask.tif", Reading(**rule))
        return str(caught.value)

    assert "needs the channel 'g'. Correct the card's rule." in refusal(grey(9), channel="g")
    assert "the channels r, g, b." in refusal(colours((1, 2, 3)), channel="a")
    assert "Name it: `masks: {channel: g, values: [2]}`." in refusal(
        colours((1, 2, 3)), values=(2,)
    )
    assert "holds the values 0, 1, none of them above 127" in refusal(grey(1), above=127)
    nan = Image.fromarray(np.where(TARGET, np.nan, 0).astype("float32"))
    assert "values that are not finite numbers" in refusal(nan, above=0.5)


@pytest.mark.parametrize("name", ["kvasir_polyp", "clinicdb_polyp", "busi"])
def test_released_masks_are_read_as_ever(name, shared_data):
    """The first channel at more than half of 8 bits, as before cards had a rule."""
    reading = load_dataset_card(name).reading
    assert reading.rule == ">127"
    paths = sorted(path for path in (shared_data / name / "masks").rglob("*") if path.is_file())
    for path in paths[:: max(1, len(paths) // 100)]:
        values = np.asarray(Image.open(path))
        wanted = (values if values.ndim == 2 else values[..., 0]) > 127
        assert (read_mask(path, reading) == wanted).all(), path


def test_stray_greys_of_a_released_mask_are_no_foreground():
    """CVC-ClinicDB's masks hold a few pixels of 9 to 112 beside 0 and 255."""
    values = np.asarray(grey(255)).copy()
    values[0, :3], values[20, 5] = 11, 112
    reading = load_dataset_card("clinicdb_polyp").reading
    assert (foreground(Image.fromarray(values), reading).mask == TARGET).all()


def test_half_is_background_and_more_is_foreground():
    values = np.asarray(soft(grey(255))).copy()
    edge = np.argwhere((values > 60) & (values < 200))
    values[tuple(edge[0])], values[tuple(edge[1])] = 127, 128
    found = foreground(Image.fromarray(values), Reading()).mask
    assert (found[tuple(edge[0])], found[tuple(edge[1])]) == (False, True)


def test_a_lossy_mask_without_a_dark_half_is_refused(tmp_path):
    """Grey from 100 to 255 is a picture, or a mask of two classes."""
    Image.fromarray(np.where(TARGET, 255, 100).astype("uint8")).save(tmp_path / "a.jpg")
    with pytest.raises(EncodingError, match="a lossy mask is dark and bright"):
        read_mask(tmp_path / "a.jpg")
