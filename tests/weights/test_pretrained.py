"""Models of transformers from a card's changes, or from a folder."""

import json
import re

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPSegConfig,
    GroundingDinoConfig,
    ResNetConfig,
    Sam3Config,
    SamConfig,
    SamModel,
)
from transformers.utils import logging

from harness.errors import CardError, CheckpointError
from harness.weights.pretrained import configured, pretrained

TINY = {
    "vision_config": {
        "hidden_size": 16,
        "output_channels": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
        "window_size": 2,
        "global_attn_indexes": [0],
        "num_pos_feats": 8,
    },
    "prompt_encoder_config": {"hidden_size": 16, "image_size": 32, "patch_size": 8},
    "mask_decoder_config": {"hidden_size": 16, "mlp_dim": 32, "num_attention_heads": 2},
}


def read(folder, changes=TINY):
    return pretrained(SamModel, changes, weights=folder, key="segmenter")


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    SamModel(configured(SamConfig, TINY, key="segmenter")).save_pretrained(tmp_path / "hub")
    return tmp_path / "hub"


@pytest.mark.parametrize("kind", [Sam3Config, GroundingDinoConfig, SamConfig, CLIPSegConfig])
def test_without_changes_a_configuration_is_the_default(kind):
    assert configured(kind, {}, key="config").to_dict() == kind().to_dict()


def test_a_change_leaves_its_neighbours_as_they_are():
    """SAM 3's text tower is not the class's default one, and stays SAM 3's."""
    changed = configured(Sam3Config, {"text_config": {"hidden_size": 32}}, key="config")

    assert changed.text_config.hidden_size == 32
    assert changed.text_config.max_position_embeddings == 32
    assert changed.text_config.num_hidden_layers == 24
    assert changed.vision_config.to_dict() == Sam3Config().vision_config.to_dict()


def test_what_follows_from_a_change_follows():
    changed = configured(SamConfig, TINY, key="segmenter")

    assert changed.vision_config.mlp_dim == 64
    assert changed.prompt_encoder_config.image_embedding_size == 4


def test_a_part_of_another_kind_takes_nothing_from_the_default():
    changes = {"backbone_config": {"model_type": "resnet", "out_indices": [2, 3, 4]}}
    changed = configured(GroundingDinoConfig, changes, key="detector")

    assert isinstance(changed.backbone_config, ResNetConfig)
    assert changed.backbone_config.hidden_sizes == ResNetConfig().hidden_sizes


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"txt_config": {}},
            "settings.config: unknown setting 'txt_config'. Did you mean 'text_config'? Known",
        ),
        (
            {"vision_config": {"backbone_config": {"hiden_size": 3}}},
            "settings.config.vision_config.backbone_config: unknown setting 'hiden_size'. Did you",
        ),
        (
            {"text_config": {"hidden_size": "wide"}},
            "settings.config: Sam3Config refuses it (TypeError: Field 'hidden_size' expected int, "
            "got str (value: 'wide')). Its documentation says what is possible. Correct the",
        ),
    ],
)
def test_impossible_changes_are_refused(changes, text):
    with pytest.raises(CardError, match=re.escape(text)):
        configured(Sam3Config, changes, key="config")


def test_without_weights_numbers_are_random():
    torch.manual_seed(1)
    first = read(None)
    second = read(None)
    weights = [m.vision_encoder.patch_embed.projection.weight for m in (first, second)]
    assert not torch.equal(*weights)


def test_a_folder_is_read_back(folder):
    """Tied weights are stored once, and a file's keys may be an older library's."""
    was_shown = logging.is_progress_bar_enabled()
    module = read(folder)
    same = read(folder / "model.safetensors", {})

    state, stored = module.state_dict(), load_file(folder / "model.safetensors")
    tied = set(state) - set(stored)
    assert tied == {"prompt_encoder.shared_embedding.positional_embedding"}
    assert all(torch.equal(state[key], value) for key, value in stored.items())
    assert all(torch.equal(state[key], value) for key, value in same.state_dict().items())
    assert logging.is_progress_bar_enabled() == was_shown


def test_a_folder_in_shards_is_read_whole(folder, tmp_path):
    whole = read(folder)
    whole.save_pretrained(tmp_path / "shards", max_shard_size="40KB")
    assert len(list((tmp_path / "shards").glob("model-*.safetensors"))) > 1

    state = read(tmp_path / "shards").state_dict()

    assert all(torch.equal(state[key], value) for key, value in whole.state_dict().items())


def test_a_folder_that_says_something_else_is_refused(folder):
    text = (
        f"settings.segmenter.mask_decoder_config.mlp_dim: found 31, {folder / 'config.json'} says "
        "32. They must be equal. Correct the card, or leave the key to the folder."
    )
    with pytest.raises(CardError, match=re.escape(text)):
        read(folder, {"mask_decoder_config": {"mlp_dim": 31}})


def refused(folder, text):
    with pytest.raises(CheckpointError, match=re.escape(text)):
        read(folder, {})


def test_a_broken_folder_is_refused(folder):
    weights, config = folder / "model.safetensors", folder / "config.json"
    state, content = load_file(weights), json.loads(config.read_text())

    def save(**changed):
        save_file(state | changed, weights, metadata={"format": "pt"})

    save(surplus=torch.zeros(1))
    refused(folder, "do not fill SamModel: 0 keys are missing, 1 unexpected; first unexpected 'sur")
    save(**{"no.mask": torch.zeros(2), "vision_encoder.pos_embed": torch.zeros(1, 4, 4, 16) / 0})
    refused(folder, "first unexpected 'no.mask'. Missing ones would be random numbers. Get the")
    save(**{"vision_encoder.pos_embed": torch.full((1, 4, 4, 16), torch.nan)})
    refused(folder, "the tensor 'vision_encoder.pos_embed' holds numbers that are not finite.")
    save(**{"vision_encoder.pos_embed": torch.zeros(1, 4, 4, 15)})
    refused(folder, f"{folder}: the weights cannot be read into SamModel (")
    weights.write_bytes(weights.read_bytes()[:1000])
    refused(folder, "'model.safetensors' must be whole and belong to 'config.json'. Download both")
    weights.unlink()
    refused(folder, f"{folder}: the weights cannot be read into SamModel (")
    config.write_text(json.dumps(content | {"vision_config": {"hidden_size": "wide"}}))
    refused(folder, "config.json: not a configuration of SamModel (")
    config.write_text("{")
    refused(folder, "config.json: not valid JSON (Expecting property name enclosed in")
    config.write_text("[]")
    refused(folder, "config.json: found list. An object is needed. Download the file of the hub's")
    config.write_text(json.dumps(content | {"model_type": "sam2"}))
    text = (
        "config.json: model_type is 'sam2', SamModel has 'sam'. It is the folder of another model."
    )
    refused(folder, text)
    config.unlink()
    refused(folder, f"{folder}: there is no 'config.json'. SamModel is read from a folder in the")


def test_pickles_are_not_read(folder):
    """Where a folder holds pickled weights alone, it is refused."""
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    refused(folder, f"{folder}: the weights cannot be read into SamModel (")
