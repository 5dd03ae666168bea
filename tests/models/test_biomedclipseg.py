"""BiomedCLIPSeg in stages is the reference's BiomedCLIPSeg, quirk for quirk."""

import json
import re

import numpy as np
import pytest
import timm
import torch
from open_clip.hf_model import HFTextEncoder
from transformers import BertConfig, CLIPSegConfig, CLIPSegForImageSegmentation

from harness.cards import load_model_card
from harness.errors import CardError, CheckpointError
from harness.model.loading import load_model
from harness.weights.loading import fit

TINY = {
    "input_size": 48,
    "patch_size": 16,
    "vision_hidden_size": 32,
    "vision_intermediate_size": 48,
    "vision_layers": 5,
    "vision_heads": 2,
    "text_hidden_size": 16,
    "text_intermediate_size": 32,
    "text_layers": 2,
    "text_heads": 2,
    "text_positions": 20,
    "context_length": 16,
    "projection_dim": 12,
    "vocabulary": "stand_in",
    "vocabulary_size": 200,
    "reduce_dim": 8,
    "extract_layers": [1, 2, 3],
    "decoder_heads": 2,
    "decoder_intermediate_size": 16,
}
RELATIVES = {
    "complex": {},
    "simple": {"use_complex_transposed_convolution": False},
    "text enters second": {"conditional_layer": 1},
    "text enters last": {"conditional_layer": 2},
    "one activation": {"extract_layers": [4]},
    "fan in": {"initialisation": "fan_in"},
}
TEXTS = [
    "one small pink circle polyp, located in right of the image",
    "",
    "polyp",
    "two large red polyp",
]
NO_VOCABULARY = "tokenizer: null\n"


def write_card(folder, *, extra=NO_VOCABULARY, base="biomedclipseg", **settings):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "card.yaml"
    lines = "".join(f"  {key}: {json.dumps(value)}\n" for key, value in (TINY | settings).items())
    path.write_text(f"extends: {base}\nname: tiny\n{extra}settings:\n{lines}")
    return path


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, golden):
    model = load_model(write_card(tmp_path_factory.mktemp("tiny")), random_weights=True)
    golden.fill(model.adapter.module)
    return model


class Libraries:
    """The same model from the libraries' own factories, its weights drawn by name.

    Nothing of the adapter is used: timm builds the image tower, open_clip's
    HFTextEncoder the text tower, transformers a whole CLIPSeg of which the decoder is
    taken; activations are caught by hooks, texts have their full length.
    """

    def __init__(self, settings, golden):
        self.settings, self.golden = settings, golden
        self.trunk = self.fill(_timm_trunk(settings), "biomedclip.visual.trunk")
        self.text = self.fill(_open_clip_text(settings), "biomedclip.text", spare="pooler")
        self.decoder = self.fill(_clipseg(settings).decoder, "decoder")

    def fill(self, module, name, *, spare="nothing"):
        state = self.golden.state(module, prefix=f"net.{name}.")
        module.load_state_dict({k: v for k, v in state.items() if spare not in k}, strict=False)
        return module.eval()

    def logits(self, pixels, ids):
        """``(N, 3, S, S)`` and padded ids ``(N, L)`` -> ``(N, S, S)``."""
        outputs = []
        hooks = [
            block.register_forward_hook(lambda _, __, output: outputs.append(output))
            for block in self.trunk.blocks
        ]
        self.trunk(pixels)
        for hook in hooks:
            hook.remove()
        # The list lacks the embeddings: entry i is the output of block i.
        activations = [outputs[index] for index in self.settings["extract_layers"]]
        return self.decoder(activations, self.text(ids)).logits


def _timm_trunk(settings):
    return timm.create_model(
        "vit_base_patch16_224",
        img_size=settings["input_size"],
        patch_size=settings["patch_size"],
        embed_dim=settings["vision_hidden_size"],
        depth=settings["vision_layers"],
        num_heads=settings["vision_heads"],
        mlp_ratio=settings["vision_intermediate_size"] / settings["vision_hidden_size"],
        num_classes=0,
    )


def _open_clip_text(settings):
    config = BertConfig(
        vocab_size=settings["vocabulary_size"],
        hidden_size=settings["text_hidden_size"],
        num_hidden_layers=settings["text_layers"],
        num_attention_heads=settings["text_heads"],
        intermediate_size=settings["text_intermediate_size"],
        max_position_embeddings=settings["text_positions"],
    )
    return HFTextEncoder(
        "",
        settings["projection_dim"],
        config=config,
        pooler_type="cls_last_hidden_state_pooler",
        proj_type="mlp",
    )


def _clipseg(settings):
    return CLIPSegForImageSegmentation(
        CLIPSegConfig(
            text_config={"num_hidden_layers": 1, "hidden_size": 16, "num_attention_heads": 2},
            vision_config={
                "hidden_size": settings["vision_hidden_size"],
                "patch_size": settings["patch_size"],
                "image_size": settings["input_size"],
                "num_hidden_layers": 4,
                "num_attention_heads": settings["vision_heads"],
            },
            projection_dim=settings["projection_dim"],
            reduce_dim=settings["reduce_dim"],
            extract_layers=settings["extract_layers"],
            conditional_layer=settings.get("conditional_layer", 0),
            decoder_num_attention_heads=settings["decoder_heads"],
            decoder_intermediate_size=settings["decoder_intermediate_size"],
            use_complex_transposed_convolution=settings.get(
                "use_complex_transposed_convolution", True
            ),
        )
    )


@pytest.mark.parametrize("name", RELATIVES)
def test_stages_equal_the_full_forward(tmp_path, golden, name):
    model = load_model(write_card(tmp_path, **RELATIVES[name]), random_weights=True)
    golden.fill(model.adapter.module)
    pixels = torch.stack([model.adapter.preprocess(golden.picture(48 + n)) for n in range(2)])
    rows, columns = torch.tensor([0, 1, 1, 0, 1]), torch.tensor([0, 1, 2, 3, 0])
    texts = [TEXTS[column] for column in columns]

    with torch.inference_mode():
        images = golden.rows(model.adapter.encode_images(pixels), rows)
        words = golden.rows(model.adapter.encode_texts(TEXTS), columns)
        staged = model.adapter.decode(images, words)
        full = model.raw.predict(pixels[rows], texts)
        ids = model.raw.tokenize(texts)[0]
        plain = Libraries(TINY | RELATIVES[name], golden).logits(pixels[rows], ids)

    assert staged.shape == full.shape == (5, 48, 48)
    assert full.std() > 1e-3
    torch.testing.assert_close(staged, full, rtol=0, atol=1e-5)
    torch.testing.assert_close(full, plain, rtol=0, atol=1e-5)
    assert {len(leaf) for leaf in images} == {len(leaf) for leaf in words} == {5}


def test_numbers_of_a_small_model_stay(tmp_path, golden):
    """Fixed by the names of the weights; written down once, from `Libraries`.

    The ids are given, so that no vocabulary matters. Read from a reference-style file.
    """
    card = write_card(tmp_path, extra="")
    random = load_model(card, random_weights=True)
    file = golden.save_checkpoint(tmp_path / "epoch=3.ckpt", random.adapter.module)
    model = load_model(write_card(tmp_path), checkpoint=file)
    ids = torch.tensor([[101, 12, 150, 7, 190, 33, 64, 102] + [0] * 8])
    pixels = model.adapter.preprocess(golden.picture(48))[None]

    with torch.inference_mode():
        words = model.raw.encode_tokens(ids, (ids != 0).long())
        logits = model.adapter.decode(model.adapter.encode_images(pixels), words)
        plain = Libraries(TINY, golden).logits(pixels, ids)

    assert plain[0, 3::11, 5::11].flatten().tolist() == pytest.approx(GOLDEN, abs=2e-5)
    assert logits[0, 3::11, 5::11].flatten().tolist() == pytest.approx(GOLDEN, abs=2e-5)
    assert words.embedding[0, :4].tolist() == pytest.approx(GOLDEN_TEXT, abs=2e-5)


@pytest.mark.slow
def test_full_size_equals_the_reference(shared_reference, golden):
    """Keys, text vectors, activations and logits of the reference's own BiomedCLIPSeg."""
    folder = shared_reference / "golden"
    reference = np.load(folder / "public" / "biomedclipseg.npz")
    model = load_model("biomedclipseg", random_weights=True)
    module, adapter = model.adapter.module, model.raw
    keys = golden.keys(folder / "biomedclipseg" / "keys.json")
    assert golden.shapes(module) == keys
    order = json.loads((folder / "biomedclipseg" / "param_order.json").read_text())
    assert [f"net.{name}" for name, _ in module.named_parameters()] == order[
        "parameters_in_optimizer_order"
    ]
    state = {key: golden.weight(key, shape) for key, shape in keys.items()}
    module.load_state_dict(fit(module, state, where="keys.json"), strict=True)
    ids, mask = (
        torch.from_numpy(reference[name].astype(np.int64))
        for name in ("input_ids_bert", "attention_mask_bert")
    )

    with torch.inference_mode():
        pixels = adapter.preprocess(golden.picture(224))[None]
        activations = module.biomedclip.visual.activations(pixels)
        words = adapter.encode_tokens(ids, mask)
        images = golden.rows(adapter.encode_images(pixels), torch.tensor([0, 0]))
        logits = adapter.decode(images, words).numpy()

    for ours, theirs in (
        *((probe(activations[i]), reference[f"probe_vision_h{n}_bert"][0]) for i, n in PROBES),
        (words.embedding.numpy(), reference["text_embed_bert"]),
        (logits[:, ::7, ::7], reference["logits_sub_bert"]),
        (logits[0], reference["logits_full_0_bert"]),
        (logits.mean(axis=2), reference["logits_rowmean_bert"]),
    ):
        assert np.abs(ours - theirs).max() <= 5e-5


# Place among the activations, and the reference's number of it: block 4 is its state 5.
PROBES = ((0, 5), (1, 8), (2, 11))


def probe(activation):
    """The 64 values that the golden files keep of an activation."""
    flat = activation.flatten()
    return flat[:: max(1, len(flat) // 64)][:64].numpy()


def test_the_two_cards_are_one_model():
    """They differ in where an untrained decoder starts, and in nothing that a mask shows."""
    new, pretrained = (load_model_card(name) for name in ("biomedclipseg", "biomedclipseg-d"))
    apart = {"name", "title", "notes", "further_weights", "recognised_by"}

    assert new.card.model_dump(exclude=apart) == pretrained.card.model_dump(exclude=apart)
    assert list(pretrained.card.further_weights) == ["decoder"]
    assert new.adapter_folder == pretrained.adapter_folder
    assert new.card.trainable == "decoder"
    assert new.card.settings["extract_layers"] == [4, 7, 10]
    assert new.card.settings["context_length"] == 256


def test_texts_are_encoded_at_the_length_they_need(tiny):
    """Padding is masked: it changes no vector beyond rounding, so that it is not computed."""
    lengths = []
    transformer = tiny.adapter.module.biomedclip.text.transformer
    hook = transformer.register_forward_pre_hook(
        lambda _, args, kwargs: lengths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    try:
        with torch.inference_mode():
            short = tiny.adapter.encode_texts(["red"]).embedding
            together = tiny.adapter.encode_texts(["red", "one red polyp"]).embedding
            full = tiny.adapter.module.biomedclip.text(*tiny.raw.tokenize(["red"]))
            gap = tiny.adapter.encode_texts(["a [PAD] b"]).embedding
            whole = tiny.adapter.module.biomedclip.text(*tiny.raw.tokenize(["a [PAD] b"]))
    finally:
        hook.remove()

    assert lengths == [3, tiny.adapter.count_tokens(["one red polyp"]).n_tokens[0], 16, 5, 16]
    assert lengths[1] < 16
    torch.testing.assert_close(short, full, rtol=0, atol=1e-6)
    torch.testing.assert_close(together[:1], full, rtol=0, atol=1e-6)
    assert (together[0] - together[1]).abs().max() > 0.1
    # A padding token that stands in a text is masked, and hides nothing behind it.
    torch.testing.assert_close(gap, whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"input_size": 50}, "'input_size' must be a multiple of 'patch_size' 16"),
        ({"extract_layers": [1, 5]}, "'extract_layers' must lie in 0 to 4"),
        ({"extract_layers": [3, 1]}, "'extract_layers' must rise"),
        ({"conditional_layer": 3}, "'conditional_layer' must be a place in 'extract_layers'"),
        ({"context_length": 32}, "'context_length' must be at most 'text_positions', here 20"),
        ({"text_heads": 5}, "'text_hidden_size' must be a multiple of its heads, 5"),
        ({"patch_sise": 8}, ".patch_sise: unknown key. Did you mean 'patch_size'?"),
        ({"vocabulary": "bert"}, ".vocabulary: found 'bert'. Input should be 'published' or "),
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
    text = r"12 unexpected, first 'biomedclip.visual.trunk.blocks.4"
    with pytest.raises(CheckpointError, match=text):
        load_model(card, checkpoint=tmp_path / "a.pt")


GOLDEN = [
    -0.02575,
    0.103022,
    -0.094914,
    0.056073,
    -0.090056,
    -0.066831,
    0.349667,
    -0.10321,
    -0.212365,
    -0.40253,
    -1.313574,
    -0.018598,
    -0.040473,
    0.772253,
    -0.179054,
    0.035554,
    0.235469,
    0.048902,
    -0.278633,
    0.172463,
]
GOLDEN_TEXT = [-0.932009, 1.053912, -0.631577, 0.638728]
