"""What becomes of a picture's shape, and where masks are cut: adapters and functions."""

import re

import numpy as np
import pytest
import torch
from PIL import Image

from harness.model.checks import Outcome, check_model
from harness.models import load_model, wrap

PROMPTS = ("one small polyp", "two large polyps")

ADAPTER = """
import numpy as np
import torch
from PIL import Image
from harness.models import TokenCounts

class Mine:
    input_size = (32, 32)

    def __init__(self, settings, *, weights):
        self.how, self.module = settings["how"], torch.nn.Module()

    def preprocess(self, image):
        picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
        picture = picture.convert("RGB")
        made = getattr(self, self.how)(picture)
        return torch.from_numpy(np.array(made)).permute(2, 0, 1).float() / 127.5 - 1

    def stretch(self, picture):
        return picture.resize((32, 32), Image.Resampling.BILINEAR)

    def crop(self, picture):
        side = min(picture.size)
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        return self.stretch(picture.crop((left, top, left + side, top + side)))

    def pad(self, picture):
        scale = 32 / max(picture.size)
        size = [max(1, round(scale * side)) for side in picture.size]
        canvas = Image.new("RGB", (32, 32))
        canvas.paste(picture.resize(size, Image.Resampling.BILINEAR))
        return canvas

    def count_tokens(self, texts):
        return TokenCounts(tuple(len(t.split()) for t in texts), (False,) * len(texts))

    def predict(self, pixels, texts):
        moved = torch.tensor([0.1 * len(t) % 1 - 0.5 for t in texts])
        return pixels.mean(1) + moved[:, None, None]
"""


def found(model, name, prompts=PROMPTS):
    return next(one for one in check_model(model, prompts=prompts) if one.name == name)


@pytest.fixture
def adapter(tmp_path):
    def build(how, *more):
        (tmp_path / "adapter.py").write_text(ADAPTER)
        card = tmp_path / "card.yaml"
        lines = ["name: mine", "title: Mine", "adapter: adapter.py:Mine", "threshold: 0.5"]
        card.write_text("\n".join([*lines, f"settings: {{how: {how}}}", *more]))
        return load_model(card)

    return build


@pytest.mark.parametrize(
    ("how", "more", "outcome", "text"),
    [
        ("stretch", [], Outcome.FINDING, "becomes 32 x 32: circles become ellipses (0.5 times"),
        ("stretch", ["aspect: stretched"], Outcome.HOLDS, "The card says"),
        ("crop", [], Outcome.FINDING, "25% to 75% of its width: it is cut"),
        ("pad", [], Outcome.HOLDS, "aspect: kept"),
    ],
)
def test_what_an_adapter_does_to_a_pictures_shape(adapter, how, more, outcome, text):
    result = found(adapter(how, *more), "aspect")

    assert result.outcome is outcome, result.sentence
    assert text in result.sentence


def net(image):
    """A fixed convolution on a square of 32 pixels: it sees shapes, not pixels alone."""
    torch.manual_seed(0)
    seen = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255
    weight = torch.randn(1, 3, 9, 9) * 0.2
    logits = torch.nn.functional.conv2d(seen, weight, padding=4)[0, 0]
    return logits - logits.mean()


def scaled(logits, size):
    resize = torch.nn.functional.interpolate
    return resize(logits[None, None], size, mode="bilinear", align_corners=False)[0, 0].numpy()


def stretching(image, prompt):
    small = Image.fromarray(image).resize((32, 32), Image.Resampling.BILINEAR)
    return scaled(net(small), image.shape[:2]) + (0.1 if "large" in prompt else -0.1)


def keeping(image, prompt):
    height, width = image.shape[:2]
    side = max(height, width)
    square = np.zeros((side, side, 3), np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = image
    small = Image.fromarray(square).resize((64, 64), Image.Resampling.BILINEAR)
    logits = scaled(net(small), (side, side))[top : top + height, left : left + width]
    return logits + (0.1 if "large" in prompt else -0.1)


def pixelwise(image, prompt):
    return image.mean(axis=-1) - (100.0 if "large" in prompt else 120.0)


@pytest.mark.parametrize(
    ("function", "outcome"),
    [
        (stretching, Outcome.FINDING),
        (keeping, Outcome.HOLDS),
        (pixelwise, Outcome.HOLDS),
    ],
)
def test_what_a_function_does_to_a_pictures_shape(function, outcome):
    result = found(wrap(function).load(), "aspect")

    assert result.outcome is outcome, result.sentence


def test_a_sound_function_has_no_finding():
    results = check_model(wrap(pixelwise).load(), prompts=PROMPTS)

    wrong = [r for r in results if r.outcome in (Outcome.FINDING, Outcome.FAILS)]
    assert wrong == []


def test_one_mask_for_two_prompts_is_a_finding():
    def deaf(image, prompt):
        return image.mean(axis=-1) > 120

    assert found(wrap(deaf).load(), "prompt").outcome is Outcome.FINDING

    def hardly(image, prompt):
        values = image.mean(axis=-1).round() - 120.5
        return values + (0.2 if "large" in prompt else -0.2)

    result = found(wrap(hardly).load(), "prompt")
    assert result.outcome is Outcome.FINDING
    assert "the masks are equal to the bit" in result.sentence


def test_logits_without_a_negative_one_are_a_finding(adapter):
    def grey(image, prompt):
        return image.mean(axis=-1) + (1 if "large" in prompt else 2)

    result = found(wrap(grey, output="logits").load(), "scale")
    assert result.outcome is Outcome.FINDING
    assert "none is negative" in result.sentence


def test_half_in_logit_space_is_a_finding():
    result = found(wrap(pixelwise, threshold=0.6225).load(), "threshold")

    assert result.outcome is Outcome.FINDING
    assert "It is the sigmoid of 0.5" in result.sentence


@pytest.mark.parametrize(
    ("line", "is_slip"),
    [
        ("logits > 0.5", True),
        ("0.5 <= net_logits", True),
        ("torch.sigmoid(logits) > 0.5", False),
        ("logits > 0", False),
        ("probabilities > 0.5", False),
    ],
)
def test_logits_compared_with_half_are_seen(tmp_path, line, is_slip):
    (tmp_path / "mine.py").write_text(
        "import numpy as np\nimport torch\n\n"
        "def segment(image, prompt):\n"
        "    shift = 0.1 if 'large' in prompt else -0.1\n"
        "    logits = torch.from_numpy(image.mean(axis=-1) / 50 - 2.5) + shift\n"
        "    probabilities = net_logits = logits\n"
        f"    return {line}\n"
    )
    card = tmp_path / "card.yaml"
    card.write_text("name: a\nadapter: mine.py:segment\nkind: callable\n")

    result = found(load_model(card), "cut")

    assert (result.outcome is Outcome.FINDING) == is_slip
    assert not is_slip or re.search("`.*logits.*` compares logits with 0.5", result.sentence)


def test_masks_that_do_not_fit_fail():
    result = found(wrap(lambda image, prompt: np.ones((16, 30), bool), name="a").load(), "logits")

    assert result.outcome is Outcome.FAILS
    assert "Return the mask at the size of the picture" in result.sentence
