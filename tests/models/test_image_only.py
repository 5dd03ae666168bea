"""The control: whatever the prompt, the same mask."""

import re

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from harness.errors import CardError
from harness.models import EmbedsText, Staged, load_model

SMALL = "extends: image-only\nname: image-only\nsettings: {input_size: 64}\n"


@pytest.fixture(scope="module")
def card(tmp_path_factory):
    path = tmp_path_factory.mktemp("image_only") / "card.yaml"
    path.write_text(SMALL)
    return path


@pytest.fixture(scope="module")
def model(card):
    return load_model(card, random_weights=True)


def test_the_card_says_that_it_is_a_control():
    for name in ("image-only", "image-only-small"):
        model = load_model(name, random_weights=True)
        assert model.card.control
        assert model.model_id.startswith(f"{name}-random0@")


def test_no_text_changes_a_logit(model):
    pixels = torch.rand(4, 3, 64, 64)
    with torch.inference_mode():
        images = model.adapter.encode_images(pixels)
        one = model.adapter.decode(images, model.adapter.encode_texts(["", "a", "b c", "d"]))
        other = model.adapter.decode(images, model.adapter.encode_texts(["e"] * 4))

    assert one.shape == (4, 64, 64)
    assert torch.equal(one, other)
    assert one.std() > 0
    assert not torch.equal(one[0], one[1])


def test_it_has_no_text_to_show(model):
    assert isinstance(model.raw, Staged)
    assert not isinstance(model.raw, EmbedsText)
    assert model.adapter.count_tokens(["a b c", ""]) == ((0, 0), (False, False))


def test_a_finetuned_file_is_loaded(card, model, tmp_path):
    state = {k: v.contiguous() for k, v in model.adapter.module.state_dict().items()}
    save_file(state, tmp_path / "a.safetensors")
    pixels = model.adapter.preprocess(np.zeros((20, 30, 3), np.uint8))[None]

    again = load_model(card, checkpoint=tmp_path / "a.safetensors")

    with torch.inference_mode():
        expected = model.adapter.encode_images(pixels).logits
        assert torch.equal(again.adapter.encode_images(pixels).logits, expected)


def test_settings_are_checked(tmp_path):
    path = tmp_path / "card.yaml"
    path.write_text(SMALL.replace("input_size: 64", "input_size: 100"))
    text = f"{path}: settings.input_size: found 100. Input should be a multiple of 32. Correct"
    with pytest.raises(CardError, match=re.escape(text)):
        load_model(path, random_weights=True)
