"""CRIS in stages is CRIS, quirk for quirk."""

import importlib
import json
import re

import numpy as np
import pytest
import torch
from torch.nn import functional

from harness.cards import load_model_card
from harness.errors import CardError, CheckpointError, ModelError
from harness.model.adapters import adapter_class
from harness.model.contract import EmbedsText, PartlyTrainable, Predicts, Staged, Tokenizes
from harness.model.loading import load_model

TINY = {
    "input_size": 64,
    "position_size": 96,
    "vision_layers": [1, 1, 2, 1],
    "vision_width": 4,
    "vision_heads": 4,
    "text_layers": 2,
    "text_heads": 2,
    "context_length": 16,
    "vocabulary_size": 512,
    "embed_dim": 20,
    "neck_dims": [8, 16, 24],
    "decoder_layers": 2,
    "decoder_heads": 4,
    "decoder_hidden": 32,
}
TEXTS = [
    "one small pink circle polyp, located in right of the image",
    "",
    "polyp",
    "two large red polyp",
]
RELATIVES = {
    "as published": {},
    "another size": {"input_size": 128},
    "positions of its own size": {"position_size": 64},
    "equal widths": {"neck_dims": [16, 16, 16], "embed_dim": 16},
    "one layer": {"decoder_layers": 1},
}
POLYP, OTHER = TEXTS[0], "one large pink circle polyp, located in left of the image"


def write_card(folder, *, extra="", **settings):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "card.yaml"
    lines = "".join(f"  {key}: {json.dumps(value)}\n" for key, value in (TINY | settings).items())
    path.write_text(f"extends: cris\nname: tiny\n{extra}settings:\n{lines}")
    return path


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, golden):
    model = load_model(write_card(tmp_path_factory.mktemp("tiny")), random_weights=True)
    golden.fill(model.adapter.module)
    return model


@pytest.fixture(scope="module")
def parts():
    """The modules beside the adapter, as it imports them."""
    kind = adapter_class(load_model_card("cris"))
    package = kind.__module__.rpartition(".")[0]
    return {n: importlib.import_module(f"{package}.{n}") for n in ("neck", "decoder", "backbone")}


@pytest.mark.parametrize("name", RELATIVES)
def test_stages_equal_the_plain_forward(tmp_path, golden, name):
    model = load_model(write_card(tmp_path, **RELATIVES[name]), random_weights=True)
    golden.fill(model.adapter.module)
    side = model.adapter.input_size[0]
    pixels = torch.stack([model.adapter.preprocess(golden.picture(side + n)) for n in range(2)])
    rows, columns = torch.tensor([0, 1, 1, 0, 1]), torch.tensor([0, 1, 2, 3, 0])

    with torch.inference_mode():
        images = golden.rows(model.adapter.encode_images(pixels), rows)
        texts = golden.rows(model.adapter.encode_texts(TEXTS), columns)
        staged = model.adapter.decode(images, texts)
        full = model.raw.predict(pixels[rows], [TEXTS[c] for c in columns])

    assert staged.shape == full.shape == (5, side, side)
    assert full.std() > 0.5
    torch.testing.assert_close(staged, full, rtol=0, atol=1e-3)
    assert {len(leaf) for leaf in images} == {len(leaf) for leaf in texts} == {5}


def test_numbers_of_a_small_model_stay(tiny, golden):
    """Fixed by the names of the weights; written down once, from the plain forward."""
    pixels = tiny.adapter.preprocess(golden.picture(64))[None]
    with torch.inference_mode():
        images = tiny.adapter.encode_images(pixels)
        logits = tiny.adapter.decode(images, tiny.adapter.encode_texts([POLYP]))

    assert logits[0, 3::13, 5::13].flatten().tolist() == pytest.approx(GOLDEN, abs=2e-4)
    assert tiny.raw.text_embedding([POLYP])[0, :4].tolist() == pytest.approx(GOLDEN_TEXT, abs=2e-5)


@pytest.mark.slow
def test_full_size_equals_the_reference(shared_reference, tmp_path, golden):
    """Keys, tokens, text vectors and logits of the reference's own CRIS at 416 pixels.

    The weights go through a file in the layout of a reference checkpoint.
    """
    folder = shared_reference / "golden"
    public = np.load(folder / "public" / "cris.npz")
    keys = golden.keys(folder / "cris" / "keys.json")
    untrained = load_model("cris", random_weights=True)
    assert golden.shapes(untrained.adapter.module) == keys
    file = golden.save_checkpoint(tmp_path / "last.ckpt", untrained.adapter.module)
    model = load_model("cris", checkpoint=file, device="cpu")
    file.unlink()
    ids, mask = model.raw.tokenize([POLYP, OTHER])
    assert np.array_equal(ids, public["input_ids_eot"])
    assert np.array_equal(mask, public["attention_mask_eot"])

    with torch.inference_mode():
        image = model.adapter.encode_images(model.adapter.preprocess(golden.picture(416))[None])
        images = golden.rows(image, torch.tensor([0, 0]))
        for padding in ("eot", "zero"):
            words = torch.from_numpy(public[f"input_ids_{padding}"]).long()
            logits = model.adapter.decode(images, model.raw.encode_tokens(words, words)).numpy()
            assert np.abs(logits[:, ::7, ::7] - public[f"logits_sub_{padding}"]).max() <= 2e-3
            assert logits.std() > 4
        full = model.raw.predict(model.adapter.preprocess(golden.picture(416))[None], [POLYP])
        vectors = model.raw.text_embedding([POLYP, OTHER]).numpy()

    assert np.abs(full[0].numpy() - public["logits_full_0_eot"]).max() <= 2e-3
    assert np.abs(vectors - public["text_embed_eot"]).max() <= 5e-5


def test_padding_is_attended_to_and_so_never_left_out(tiny, golden):
    """End-of-text padding reaches the mask; only ids of 0 are masked, as the reference has it."""
    pixels = tiny.adapter.preprocess(golden.picture(64))[None]
    ids, mask = tiny.raw.tokenize(["red polyp"])
    rest = ids.clone()
    rest[0, -1] = 7  # a word in place of the last padding
    with torch.inference_mode():
        image = tiny.adapter.encode_images(pixels)
        features = tiny.raw.encode_tokens(ids, mask)
        padded, other, zeros = (
            tiny.adapter.decode(image, tiny.raw.encode_tokens(words, mask))
            for words in (ids, rest, ids * mask)
        )

    assert features.words.shape == (1, 16, 16)
    assert not features.ignored.any()
    assert tiny.raw.encode_tokens(ids * mask, mask).ignored.sum() == 16 - mask.sum()
    assert (padded - other).abs().max() > 0.01
    assert (padded - zeros).abs().max() > 0.1
    torch.testing.assert_close(
        features.factor, tiny.raw.encode_tokens(ids * mask, mask).factor, rtol=0, atol=1e-6
    )


def test_masked_words_do_not_reach_the_logits(tiny, golden):
    """Where ids are 0 the words may be anything."""
    image = tiny.adapter.encode_images(tiny.adapter.preprocess(golden.picture(64))[None])
    ids, mask = tiny.raw.tokenize(["red polyp"])
    text = tiny.raw.encode_tokens(ids * mask, mask)
    noise = torch.randn(text.words.shape) * text.ignored[..., None]
    with torch.inference_mode():
        calm = tiny.adapter.decode(image, text)
        loud = tiny.adapter.decode(image, text._replace(words=text.words + noise))
    torch.testing.assert_close(calm, loud, rtol=0, atol=1e-5)


def test_tokens_are_padded_and_cut_with_end_of_text():
    model = load_model_card("cris").card
    assert (model.settings["input_size"], model.threshold, model.trainable) == (416, 0.35, "all")
    assert model.settings["context_length"] == 77


def test_the_pool_is_attention_of_every_place_to_every_place(parts):
    """torch's own attention, fed with the four projections one by one."""
    torch.manual_seed(0)
    pool = parts["backbone"].AttentionPool(side=3, width=24, heads=4, outputs=10).eval()
    maps = torch.randn(2, 24, 5, 5)
    table = pool.positional_embedding[1:].T.reshape(1, 24, 3, 3)
    table = functional.interpolate(table, (5, 5), mode="bicubic", align_corners=False)
    places = (maps + table).flatten(2).permute(2, 0, 1)
    attended, _ = functional.multi_head_attention_forward(
        places,
        places,
        places,
        embed_dim_to_check=24,
        num_heads=4,
        q_proj_weight=pool.q_proj.weight,
        k_proj_weight=pool.k_proj.weight,
        v_proj_weight=pool.v_proj.weight,
        in_proj_weight=None,
        in_proj_bias=torch.cat([pool.q_proj.bias, pool.k_proj.bias, pool.v_proj.bias]),
        bias_k=None,
        bias_v=None,
        add_zero_attn=False,
        dropout_p=0,
        out_proj_weight=pool.c_proj.weight,
        out_proj_bias=pool.c_proj.bias,
        use_separate_proj_weight=True,
        training=False,
        need_weights=False,
    )
    expected = attended.permute(1, 2, 0).reshape(2, 10, 5, 5) + pool.connect(maps)
    torch.testing.assert_close(pool(maps), expected.relu(), rtol=0, atol=1e-5)


def test_every_image_is_scored_with_its_own_kernel(parts):
    """Multiplied out by hand, place by place."""
    torch.manual_seed(0)
    projector = parts["decoder"].Projector(sentence=5, width=2).eval()
    maps, kernels = torch.randn(2, 4, 2, 3), projector.kernels(torch.randn(2, 5))
    seen = functional.pad(projector.vis(maps), (1, 1, 1, 1))
    expected = torch.zeros(2, 8, 12)
    for n, row, column in np.ndindex(2, 8, 12):
        window = seen[n, :, row : row + 3, column : column + 3].flatten()
        expected[n, row, column] = window @ kernels[n, :18] + kernels[n, 18]
    torch.testing.assert_close(projector(maps, kernels), expected, rtol=0, atol=1e-5)


def test_positions_and_coordinates(parts):
    plane = parts["decoder"].plane_waves(2, 3, 8)
    line = parts["decoder"].waves(3, 4)
    assert plane.shape == (6, 8)
    for row, column in np.ndindex(2, 3):
        torch.testing.assert_close(plane[3 * row + column, :4], line[column])
        torch.testing.assert_close(plane[3 * row + column, 4:], line[row])
    expected = [np.sin(2), np.cos(2), np.sin(2 / 100), np.cos(2 / 100)]
    np.testing.assert_allclose(line[2], expected, atol=1e-6)
    ramps = parts["neck"].coordinates(torch.zeros(2, 5, 2, 3))
    assert ramps.shape == (2, 2, 2, 3)
    assert ramps[1, 0].tolist() == [[-1, 0, 1], [-1, 0, 1]]
    assert ramps[1, 1].tolist() == [[-1, -1, -1], [1, 1, 1]]


def test_capabilities(tiny):
    for capability in (Staged, Tokenizes, EmbedsText, PartlyTrainable, Predicts):
        assert isinstance(tiny.raw, capability)
    module = tiny.adapter.module
    assert tiny.raw.decoder_modules() == [module.neck, module.decoder, module.proj]


def test_gradients_reach_everything_that_is_used(tmp_path):
    model = load_model(write_card(tmp_path), random_weights=True)
    model.adapter.module.train()
    images = model.adapter.encode_images(torch.rand(2, 3, 64, 64))
    model.adapter.decode(images, model.adapter.encode_texts(["a", "b"])).square().mean().backward()

    unused = [n for n, p in model.adapter.module.named_parameters() if p.grad is None]
    assert unused == ["backbone.logit_scale"]


def test_a_reference_checkpoint_and_the_published_layout_are_loaded(tmp_path, tiny, golden):
    """The reference saves ``net.``, CRIS's authors ``module.`` beside their optimizer."""
    pixels = tiny.adapter.preprocess(golden.picture(64))[None]
    with torch.inference_mode():
        expected = tiny.raw.predict(pixels, [POLYP])
    reference = golden.save_checkpoint(tmp_path / "last.ckpt", tiny.adapter.module)
    state = {f"module.{k}": v for k, v in tiny.adapter.module.state_dict().items()}
    published = tmp_path / "best_model.pth"
    torch.save(
        {"epoch": 50, "cur_iou": 0.6, "best_iou": 0.6, "prec": {}, "state_dict": state}
        | {"optimizer": torch.optim.SGD([torch.zeros(1)], lr=1).state_dict(), "scheduler": {}},
        published,
    )
    for file in (reference, published):
        model = load_model(write_card(tmp_path / file.stem), checkpoint=file)
        with torch.inference_mode():
            assert torch.equal(model.raw.predict(pixels, [POLYP]), expected)


def test_without_weights_the_card_says_where_they_are(tmp_path):
    """CRIS is on no hub."""
    with pytest.raises(ModelError) as caught:
        load_model("cris-zero-shot")
    text = "download it and give it as cris-zero-shot=FILE. Or give a finetuned file (cris-zero"
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"input_size": 100}, ".input_size: found 100. Input should be a multiple of 32"),
        ({"neck_dims": [8, 18, 24]}, "the second of 'neck_dims', 18, must be a multiple of 4"),
        ({"vision_heads": 5}, "128 channels must be a multiple of 'vision_heads', 5"),
        ({"text_heads": 3}, "16 channels must be a multiple of 'text_heads', 3"),
        ({"decoder_heads": 5}, "16 channels must be a multiple of 'decoder_heads', 5"),
        ({"neck_dim": 8}, ".neck_dim: unknown key. Did you mean 'neck_dims'?"),
    ],
)
def test_settings_that_cannot_be_are_refused(tmp_path, settings, text):
    card = write_card(tmp_path, **settings)
    with pytest.raises(CardError, match=re.escape(text)) as caught:
        load_model(card, random_weights=True)
    assert str(caught.value).startswith(f"{card}: settings")


def test_a_checkpoint_of_another_size_is_refused(tmp_path, tiny):
    torch.save(tiny.adapter.module.state_dict(), tmp_path / "a.pt")
    card = write_card(tmp_path, decoder_layers=1)
    with pytest.raises(CheckpointError, match=r"unexpected, first 'decoder.layers.1"):
        load_model(card, checkpoint=tmp_path / "a.pt")


GOLDEN = [
    -3.859657,
    -10.945915,
    -11.136385,
    -11.370481,
    -11.189093,
    -11.685093,
    -22.409092,
    -22.016188,
    -22.800091,
    -21.881155,
    -12.829476,
    -23.471977,
    -22.90712,
    -23.849918,
    -23.514193,
    -13.08282,
    -24.530703,
    -23.897255,
    -23.658617,
    -23.598583,
    -11.861315,
    -20.891493,
    -20.188129,
    -19.128895,
    -17.015314,
]
GOLDEN_TEXT = [-0.508589, -0.804931, -0.237082, -0.480214]
