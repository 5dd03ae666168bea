"""A CLIPSeg of any configuration goes in by its folder, and what a card says is held against it."""

import json
import re

import pytest
import torch
import yaml

from harness.errors import CardError, CheckpointError, ModelError
from harness.model.loading import load_model
from tests.models.test_clipseg import TEXTS, TINY
from tests.models.test_clipseg import write_card as tiny_card


@pytest.fixture(scope="module")
def hub(tmp_path_factory, golden):
    """A finetune with other widths and activations than the published model's."""
    from transformers import CLIPSegConfig, CLIPSegForImageSegmentation

    folder = tmp_path_factory.mktemp("clipseg")
    base = load_model(tiny_card(folder / "card", position_size=48), random_weights=True)
    said = base.adapter.module.config.to_dict()
    said["vision_config"]["hidden_act"] = said["text_config"]["hidden_act"] = "gelu"
    module = CLIPSegForImageSegmentation(CLIPSegConfig(**said))
    golden.fill(module)
    module.save_pretrained(folder / "hub")
    return folder / "hub"


def write_card(folder, **keys):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "card.yaml").write_text(
        yaml.safe_dump({"extends": "clipseg-hub", "name": "mine"} | keys)
    )
    return folder / "card.yaml"


def test_a_folder_says_the_architecture(hub, tmp_path, golden):
    """As a checkpoint and as weights, to the logits of the library's own forward."""
    given = load_model("clipseg-hub", checkpoint=hub, device="cpu")
    named = load_model(write_card(tmp_path, weights={"path": str(hub)}), device="cpu")
    pixels = given.adapter.preprocess(golden.picture(60))[None].expand(4, -1, -1, -1)
    assert given.adapter.input_size == (48, 48)
    assert given.adapter.module.config.vision_config.hidden_act == "gelu"
    with torch.inference_mode():
        for model in (given, named):
            staged = model.adapter.decode(
                model.adapter.encode_images(pixels), model.adapter.encode_texts(TEXTS)
            )
            torch.testing.assert_close(staged, model.raw.predict(pixels, TEXTS), rtol=0, atol=1e-5)


def test_the_processor_says_the_size_of_pictures(hub, tmp_path):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((hub / name).read_bytes())
    file = tmp_path / "preprocessor_config.json"
    usual = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    for size in ({"height": 64, "width": 64}, 64):
        file.write_text(json.dumps(usual | {"size": size}))
        assert load_model("clipseg-hub", checkpoint=tmp_path).adapter.input_size == (64, 64)
    for size in ({"height": 64, "width": 48}, {"shortest_edge": 64}, "64", None):
        file.write_text(json.dumps(usual | {"size": size}))
        with pytest.raises(CheckpointError, match="CLIPSeg sees square pictures of one size"):
            load_model("clipseg-hub", checkpoint=tmp_path)
    file.write_text(json.dumps({"image_mean": [0, 0, 0], "image_std": [1, 1, 1], "size": 64}))
    with pytest.raises(CardError, match="Pixels must be standardised as in training"):
        load_model("clipseg-hub", checkpoint=tmp_path)
    file.write_text(json.dumps(usual | {"size": 50}))
    with pytest.raises(CheckpointError, match=r"no CLIPSeg that can be computed here .*multiple"):
        load_model("clipseg-hub", checkpoint=tmp_path)


def test_what_the_card_says_is_held_against_the_folder(hub, tmp_path):
    weights = {"path": str(hub)}
    same = write_card(tmp_path, weights=weights, settings={"reduce_dim": TINY["reduce_dim"]})
    assert load_model(same, device="cpu").adapter.module.config.reduce_dim == 8
    other = write_card(tmp_path, weights=weights, settings={"reduce_dim": 64})
    text = f"settings.reduce_dim: found 64, {hub} says 8. They must be equal. Correct the card"
    with pytest.raises(CardError, match=re.escape(text)):
        load_model(other, device="cpu")
    with pytest.raises(CardError, match="unknown setting 'reduce_dmi'. Did you mean 'reduce_dim'"):
        load_model(write_card(tmp_path, settings={"reduce_dmi": 8}), random_weights=True)


def test_other_folders_are_refused(hub, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (tmp_path / "model.safetensors").write_bytes((hub / "model.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match="model_type is 'bert', CLIPSegForImageSegmentation"):
        load_model("clipseg-hub", checkpoint=tmp_path)
    with pytest.raises(ModelError, match="Any folder with 'config.json' and 'model.safetensors'"):
        load_model("clipseg-hub")
