"""CLIPSeg in stages is CLIPSeg, quirk for quirk."""

import json
import re

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from harness.errors import CardError, CheckpointError, HarnessError
from harness.model.contract import EmbedsText, PartlyTrainable, Predicts, Staged, Tokenizes
from harness.model.loading import load_model

TINY = {
    "input_size": 48,
    "position_size": 32,
    "patch_size": 16,
    "vision_hidden_size": 32,
    "vision_intermediate_size": 48,
    "vision_layers": 5,
    "vision_heads": 2,
    "text_hidden_size": 16,
    "text_intermediate_size": 32,
    "text_layers": 2,
    "text_heads": 2,
    "context_length": 16,
    "projection_dim": 12,
    "reduce_dim": 8,
    "extract_layers": [0, 1, 3],
    "decoder_heads": 2,
    "decoder_intermediate_size": 16,
}
TEXTS = [
    "one small pink circle polyp, located in right of the image",
    "",
    "polyp",
    "two large red polyp",
]
RELATIVES = {
    "complex": {},
    "simple": {"use_complex_transposed_convolution": False},
    "one size": {"position_size": 48},
    "text enters second": {"conditional_layer": 1},
    "text enters last": {"conditional_layer": 2},
    "unordered activations": {"extract_layers": [3, 0]},
    "fan in": {"initialisation": "fan_in"},
}
POLYP, SKIN = TEXTS[0], "one brown round skin melanoma"


def write_card(folder, *, extra="", **settings):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "card.yaml"
    lines = "".join(f"  {key}: {json.dumps(value)}\n" for key, value in (TINY | settings).items())
    path.write_text(f"extends: clipseg\nname: tiny\n{extra}settings:\n{lines}")
    return path


PREFIX = "net.clipseg."


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, golden):
    model = load_model(write_card(tmp_path_factory.mktemp("tiny")), random_weights=True)
    golden.fill(model.adapter.module, prefix=PREFIX)
    return model


@pytest.mark.parametrize("name", RELATIVES)
def test_stages_equal_the_full_forward(tmp_path, golden, name):
    model = load_model(write_card(tmp_path, **RELATIVES[name]), random_weights=True)
    golden.fill(model.adapter.module, prefix=PREFIX)
    pixels = torch.stack([model.adapter.preprocess(golden.picture(48 + n)) for n in range(2)])
    rows, columns = torch.tensor([0, 1, 1, 0, 1]), torch.tensor([0, 1, 2, 3, 0])

    with torch.inference_mode():
        images = golden.rows(model.adapter.encode_images(pixels), rows)
        texts = golden.rows(model.adapter.encode_texts(TEXTS), columns)
        staged = model.adapter.decode(images, texts)
        full = model.raw.predict(pixels[rows], [TEXTS[c] for c in columns])

    assert staged.shape == full.shape == (5, 48, 48)
    assert full.std() > 1e-3
    torch.testing.assert_close(staged, full, rtol=0, atol=1e-5)
    assert {len(leaf) for leaf in images} == {len(leaf) for leaf in texts} == {5}


def test_numbers_of_a_small_model_stay(tiny, golden):
    """Fixed by the names of the weights; written down once, from transformers' full forward."""
    pixels = tiny.adapter.preprocess(golden.picture(48))[None]
    with torch.inference_mode():
        images = tiny.adapter.encode_images(pixels)
        logits = tiny.adapter.decode(images, tiny.adapter.encode_texts([POLYP]))

    assert logits[0, 3::11, 5::11].flatten().tolist() == pytest.approx(GOLDEN, abs=2e-5)
    assert tiny.raw.text_embedding([POLYP])[0, :4].tolist() == pytest.approx(GOLDEN_TEXT, abs=2e-5)


@pytest.mark.slow
def test_full_size_equals_the_reference(shared_reference, golden):
    """Keys, tokens, text vectors and logits of the reference's own CLIPSeg at 352 pixels."""
    folder = shared_reference / "golden"
    reference = np.load(folder / "public" / "clipseg.npz")
    model = load_model("clipseg", random_weights=True)
    module = model.adapter.module
    assert golden.shapes(module, prefix=PREFIX) == golden.keys(folder / "clipseg" / "keys.json")
    golden.fill(module, prefix=PREFIX)
    texts = [POLYP, "one large pink circle polyp, located in left of the image"]
    ids, mask = model.raw.tokenize(texts)
    assert np.array_equal(ids, reference["input_ids_eot"])
    assert np.array_equal(mask, reference["attention_mask_eot"])

    with torch.inference_mode():
        images = model.adapter.encode_images(model.adapter.preprocess(golden.picture(352))[None])
        words = model.adapter.encode_texts(texts)
        logits = model.adapter.decode(golden.rows(images, torch.tensor([0, 0])), words).numpy()

    for ours, theirs in (
        (words.embedding.numpy(), reference["text_embed_eot"]),
        (logits[:, ::7, ::7], reference["logits_sub_eot"]),
        (logits[0], reference["logits_full_0_eot"]),
    ):
        assert np.abs(ours - theirs).max() <= 5e-5


def test_texts_are_encoded_at_the_length_they_need(tiny):
    lengths = []
    embeddings = tiny.adapter.module.clip.text_model.embeddings
    hook = embeddings.register_forward_pre_hook(
        lambda _, args, kwargs: lengths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    try:
        with torch.inference_mode():
            short = tiny.adapter.encode_texts(["red"]).embedding
            together = tiny.adapter.encode_texts(["red", "one red polyp"]).embedding
            ids, mask = tiny.raw.tokenize(["red"])
            full = tiny.adapter.module.clip.get_text_features(
                input_ids=ids, attention_mask=mask
            ).pooler_output
            # Zero is another padding that is in use; nothing behind the end counts.
            zeros = tiny.raw.encode_tokens(ids * mask, mask).embedding
    finally:
        hook.remove()

    assert lengths == [3, 6, 16, 3]
    torch.testing.assert_close(short, full, rtol=0, atol=1e-6)
    torch.testing.assert_close(together[:1], full, rtol=0, atol=1e-6)
    assert torch.equal(zeros, short)
    assert (together[0] - together[1]).abs().max() > 0.1


def test_tokens_are_padded_and_cut_with_end_of_text(tiny):
    long = "red " * 40
    texts = ["", "red", long]
    ids, mask = tiny.raw.tokenize(texts)
    counts = tiny.adapter.count_tokens([*texts, "red " * 14, "polyp"])

    assert ids.shape == mask.shape == (3, 16)
    assert ids[0].tolist() == [49406] + [49407] * 15
    assert mask.sum(1).tolist() == [2, 3, 16]
    assert ids[2, -1] == 49407
    assert ids[2, -2] == ids[2, 1] == ids[1, 1]
    assert counts == ((2, 3, 42, 16, 4), (False, False, True, False, False))
    from_ids, from_texts = tiny.raw.encode_tokens(ids, mask), tiny.adapter.encode_texts(texts)
    assert torch.equal(from_ids.embedding, from_texts.embedding)


def test_capabilities(tiny):
    for capability in (Staged, Tokenizes, EmbedsText, PartlyTrainable, Predicts):
        assert isinstance(tiny.raw, capability)
    assert tiny.raw.decoder_modules() == [tiny.adapter.module.decoder]
    assert tiny.card.trainable == "decoder"


def test_gradients_reach_both_encoders(tmp_path):
    model = load_model(write_card(tmp_path), random_weights=True)
    images = model.adapter.encode_images(torch.rand(2, 3, 48, 48))
    model.adapter.decode(images, model.adapter.encode_texts(["a", "b"])).square().mean().backward()

    reached = {n for n, p in model.adapter.module.named_parameters() if p.grad is not None}
    for name in (
        "clip.vision_model.embeddings.patch_embedding.weight",
        "clip.text_model.embeddings.token_embedding.weight",
        "clip.text_projection.weight",
        "decoder.film_mul.weight",
    ):
        assert name in reached


def test_layers_that_cannot_reach_the_decoder_are_not_computed(tiny):
    last = tiny.adapter.module.clip.vision_model.encoder.layers[4]
    called = []
    hook = last.register_forward_hook(lambda *_: called.append(True))
    with torch.inference_mode():
        tiny.adapter.encode_images(torch.rand(1, 3, 48, 48))
        assert not called
        tiny.raw.predict(torch.rand(1, 3, 48, 48), ["a"])
    hook.remove()
    assert called


def test_fan_in_lets_the_text_through(tmp_path):
    """Built from scratch by transformers, the decoder's N(0, 1) layers drown the prompt."""

    def share_of_text(initialisation):
        card = write_card(tmp_path / initialisation, initialisation=initialisation)
        shares = []
        for seed in range(3):
            model = load_model(card, random_weights=True, seed=seed)
            with torch.inference_mode():
                images = model.adapter.encode_images(torch.randn(2, 3, 48, 48))
                one, other = (
                    model.adapter.decode(images, model.adapter.encode_texts([text] * 2))
                    for text in (POLYP, SKIN)
                )
            shares.append(float((one - other).std() / one.std()))
        return np.median(shares)

    assert share_of_text("fan_in") > 2 * share_of_text("published")


def test_a_hub_folder_and_a_reference_checkpoint_are_loaded(tmp_path, tiny, golden):
    state = {k: v.contiguous() for k, v in tiny.adapter.module.state_dict().items()}
    pixels = tiny.adapter.preprocess(golden.picture(48))[None]
    with torch.inference_mode():
        expected = tiny.raw.predict(pixels, [POLYP])
    hub = tmp_path / "hub"
    tiny.adapter.module.config.save_pretrained(hub)
    # Files saved by older libraries also hold the positions' numbers.
    extra = {"clip.text_model.embeddings.position_ids": torch.arange(16)[None]}
    save_file(state | extra, hub / "model.safetensors")
    torch.save(
        {"state_dict": {f"net.clipseg.{k}": v for k, v in state.items()}}, tmp_path / "a.ckpt"
    )

    from_hub = load_model(write_card(tmp_path, extra="weights: {path: hub}\n"))
    from_checkpoint = load_model(write_card(tmp_path / "2"), checkpoint=tmp_path / "a.ckpt")

    for model in (from_hub, from_checkpoint):
        with torch.inference_mode():
            assert torch.equal(model.raw.predict(pixels, [POLYP]), expected)
    assert from_hub.model_id != from_checkpoint.model_id


def test_a_folder_of_another_configuration_is_refused(tmp_path, tiny):
    """Equal shapes, other layers: nothing else would notice."""
    hub = tmp_path / "hub"
    tiny.adapter.module.config.save_pretrained(hub)
    save_file(
        {k: v.contiguous() for k, v in tiny.adapter.module.state_dict().items()},
        hub / "model.safetensors",
    )
    card = write_card(tmp_path, extra="weights: {path: hub}\n", extract_layers=[0, 1, 2])
    text = "config.json says extract_layers = [0, 1, 3], the card [0, 1, 2]. They must be equal"
    with pytest.raises(CardError, match=re.escape(text)):
        load_model(card)
    card = write_card(tmp_path, extra="weights: {path: hub}\n", vision_heads=4)
    with pytest.raises(CardError, match=r"says vision_config.num_attention_heads = 2, the card 4"):
        load_model(card)


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("conditional_layer", 1, "config.json says conditional_layer = 1, the card 0. They must"),
        ("text_config.hidden_act", "gelu", "says text_config.hidden_act = 'gelu', the card 'quick"),
        ("vision_config.layer_norm_eps", 0.1, "says vision_config.layer_norm_eps = 0.1, the card"),
        (
            "model_type",
            "clip",
            "config.json: model_type is 'clip', CLIPSegForImageSegmentation has",
        ),
    ],
)
@pytest.mark.parametrize("way", ["weights", "checkpoint"])
def test_both_ways_of_giving_a_folder_are_checked_alike(tmp_path, tiny, way, key, value, text):
    """Activations and places in the decoder leave every shape as it was."""
    hub = tmp_path / "hub"
    tiny.adapter.module.config.save_pretrained(hub)
    state = {k: v.contiguous() for k, v in tiny.adapter.module.state_dict().items()}
    save_file(state, hub / "model.safetensors")
    extra, keys = {
        "weights": ("weights: {path: hub}\n", {}),
        "checkpoint": ("", {"checkpoint": hub}),
    }[way]
    card = write_card(tmp_path, extra=extra)
    load_model(card, **keys)
    pixels = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    (hub / "preprocessor_config.json").write_text(json.dumps(pixels))
    load_model(card, **keys)

    content = json.loads((hub / "config.json").read_text())
    *outer, last = key.split(".")
    place = content[outer[0]] if outer else content
    place[last] = value
    (hub / "config.json").write_text(json.dumps(content))
    with pytest.raises(HarnessError, match=re.escape(text)):
        load_model(card, **keys)
    place.pop(last)
    (hub / "config.json").unlink()
    (hub / "preprocessor_config.json").write_text(json.dumps(pixels | {"image_std": [0.5] * 3}))
    with pytest.raises(CardError, match=r"preprocessor_config.json makes black \[-0.97, -0.912"):
        load_model(card, **keys)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"input_size": 50}, "'input_size' must be a multiple of 'patch_size' 16"),
        ({"extract_layers": [1, 5]}, "'extract_layers' must lie in 0 to 4"),
        ({"conditional_layer": 3}, "'conditional_layer' must be a place in 'extract_layers'"),
        ({"vision_heads": 5}, "'vision_hidden_size' must be a multiple of its heads, 5"),
        ({"patch_sise": 8}, ".patch_sise: unknown key. Did you mean 'patch_size'?"),
        ({"reduce_dim": "wide"}, ".reduce_dim: found 'wide'. Input should be a valid int"),
    ],
)
def test_settings_that_cannot_be_are_refused(tmp_path, settings, text):
    card = write_card(tmp_path, **settings)
    with pytest.raises(CardError, match=re.escape(text)) as caught:
        load_model(card, random_weights=True)
    assert str(caught.value).startswith(f"{card}: settings")


def test_a_checkpoint_of_another_size_is_refused(tmp_path, tiny):
    torch.save(tiny.adapter.module.state_dict(), tmp_path / "a.pt")
    card = write_card(tmp_path, vision_layers=4)
    text = r"16 unexpected, first 'clip.vision_model.encoder.layers.4"
    with pytest.raises(CheckpointError, match=text):
        load_model(card, checkpoint=tmp_path / "a.pt")


def test_the_small_card_is_small():
    model = load_model("clipseg-small", random_weights=True)
    module = model.adapter.module
    tokens = module.clip.text_model.embeddings.token_embedding.weight.numel()
    assert sum(p.numel() for p in module.parameters()) - tokens < 3e6
    assert model.card.trainable == "all"
    assert isinstance(module, nn.Module)


GOLDEN = [
    -0.060665,
    0.012321,
    0.109211,
    -0.063805,
    0.164433,
    -0.392153,
    -0.034542,
    0.039331,
    -0.518497,
    0.220989,
    0.313638,
    -0.040621,
    -0.373817,
    0.011939,
    0.012321,
    0.080248,
    -0.139719,
    -0.709846,
    -0.303411,
    0.010029,
]
GOLDEN_TEXT = [-0.832652, 0.076376, -1.524882, 0.764163]
