"""What the parts of a BiomedCLIPSeg do, each on its own, in the small configuration."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from harness.model.contract import EmbedsText, Noted, PartlyTrainable, Predicts, Staged, Tokenizes
from harness.model.loading import load_model

TINY = {"input_size": 48, "patch_size": 16, "use_complex_transposed_convolution": True}
TINY |= {
    "vision_hidden_size": 32,
    "text_hidden_size": 16,
    "vocabulary_size": 200,
    "extract_layers": [1, 2, 3],
}
TEXTS = ["one small pink circle polyp, located in right of the image", "", "polyp"]
POLYP, SKIN = TEXTS[0], "one brown round skin melanoma"


def write_card(folder, **settings):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "card.yaml"
    lines = "".join(f"  {key}: {json.dumps(value)}\n" for key, value in (TINY | settings).items())
    path.write_text(f"extends: biomedclipseg-small\nname: tiny\nsettings:\n{lines}")
    return path


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, golden):
    model = load_model(write_card(tmp_path_factory.mktemp("tiny")), random_weights=True)
    golden.fill(model.adapter.module)
    return model


def test_capabilities(tiny):
    for capability in (Staged, Tokenizes, EmbedsText, PartlyTrainable, Predicts, Noted):
        assert isinstance(tiny.raw, capability)
    module = tiny.adapter.module
    assert tiny.raw.decoder_modules() == [module.decoder]
    assert tiny.raw.text_modules() == [module.biomedclip.text]
    assert tiny.notes == ()
    embedding = tiny.raw.text_embedding(TEXTS)
    assert torch.equal(embedding, tiny.adapter.encode_texts(TEXTS).embedding)
    # Neither pooled nor normalised: the lengths differ.
    assert embedding.norm(dim=1).std() > 0.01


def test_one_image_keeps_its_batch_axis(tiny):
    """The old decoder lost it."""
    with torch.inference_mode():
        assert tiny.raw.predict(torch.rand(1, 3, 48, 48), ["a"]).shape == (1, 48, 48)
        images = tiny.adapter.encode_images(torch.rand(1, 3, 48, 48))
        assert tiny.adapter.decode(images, tiny.adapter.encode_texts([""])).shape == (1, 48, 48)


def test_each_norm_adds_its_own_epsilon(tiny):
    """A wrong one moves the golden logits by less than their tolerance."""
    module = tiny.adapter.module

    def epsilons(part):
        return {m.eps for m in part.modules() if isinstance(m, nn.LayerNorm)}

    assert epsilons(module.biomedclip.visual) == {1e-6}
    assert epsilons(module.biomedclip.text) == {1e-12}
    assert epsilons(module.decoder) == {1e-5}
    assert {type(layer.mlp.activation_fn).__name__ for layer in module.decoder.layers} == {"ReLU"}


def test_pixels_are_standardised_with_openais_numbers(tiny):
    black = tiny.adapter.preprocess(np.zeros((5, 7, 3), np.uint8))

    assert black.shape == (3, 48, 48)
    expected = [-0.48145466 / 0.26862954, -0.4578275 / 0.26130258, -0.40821073 / 0.27577711]
    assert black[:, 0, 0].tolist() == pytest.approx(expected)


def test_gradients_reach_both_encoders(tmp_path):
    model = load_model(write_card(tmp_path), random_weights=True)
    images = model.adapter.encode_images(torch.rand(2, 3, 48, 48))
    model.adapter.decode(images, model.adapter.encode_texts(["a", "b"])).square().mean().backward()

    reached = {n for n, p in model.adapter.module.named_parameters() if p.grad is not None}
    for name in (
        "biomedclip.visual.trunk.patch_embed.proj.weight",
        "biomedclip.text.transformer.embeddings.word_embeddings.weight",
        "biomedclip.text.proj.0.weight",
        "decoder.film_mul.weight",
    ):
        assert name in reached
    for name in ("biomedclip.visual.head.proj.weight", "biomedclip.logit_scale"):
        assert name not in reached


def test_layers_that_cannot_reach_the_decoder_are_not_computed(tiny):
    called = []
    last = tiny.adapter.module.biomedclip.visual.trunk.blocks[4]
    hook = last.register_forward_hook(lambda *_: called.append(True))
    with torch.inference_mode():
        tiny.adapter.encode_images(torch.rand(1, 3, 48, 48))
        assert not called
        tiny.raw.predict(torch.rand(1, 3, 48, 48), ["a"])
    hook.remove()
    assert called


def test_fan_in_lets_the_text_through(tmp_path, golden):
    """Built from scratch by the libraries, decoder and text tower drown the prompt."""

    def shares(initialisation):
        card = write_card(tmp_path / initialisation, initialisation=initialisation)
        of_logits, of_vectors = [], []
        for seed in range(3):
            model = load_model(card, random_weights=True, seed=seed)
            with torch.inference_mode():
                images = model.adapter.encode_images(torch.randn(2, 3, 48, 48))
                words = model.adapter.encode_texts([POLYP, SKIN])
                one, other = (
                    model.adapter.decode(images, golden.rows(words, [row, row])) for row in (0, 1)
                )
            of_logits.append(float((one - other).std() / one.std()))
            apart = words.embedding[0] - words.embedding[1]
            of_vectors.append(float(apart.norm() / words.embedding[0].norm()))
        return np.median(of_logits), np.median(of_vectors)

    (repaired, repaired_vectors), (drawn, drawn_vectors) = shares("fan_in"), shares("published")
    assert repaired > 2 * drawn
    assert repaired_vectors > 2 * drawn_vectors


def test_the_small_card_is_small():
    model = load_model("biomedclipseg-small", random_weights=True)
    module = model.adapter.module
    tokens = module.biomedclip.text.transformer.embeddings.word_embeddings.weight.numel()
    assert sum(p.numel() for p in module.parameters()) - tokens < 1e6
    assert model.card.trainable == "all"
    assert model.notes == ()
