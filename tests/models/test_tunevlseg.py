"""TuneVLSeg: the method is read from the keys, and the context acts where it should."""

import json
import re

import numpy as np
import pytest
import torch
from torch import nn

from harness.errors import CheckpointError
from harness.model.contexts import (
    ContextLearner,
    Widths,
    cut,
    planned,
    recognise,
    renewed,
    with_context,
    with_stop,
)
from harness.model.contract import reads_pairs
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
    "text_layers": 3,
    "text_heads": 2,
    "context_length": 16,
    "projection_dim": 12,
    "reduce_dim": 8,
    "extract_layers": [0, 1, 3],
    "decoder_heads": 2,
    "decoder_intermediate_size": 16,
    "inside": 6,
}
TINY_CRIS = {
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
    "inside": 6,
    "extra_width": 5,
}
METHODS = ["none", "coop", "cocoop", "vpt", "maple", "shared-separate", "shared-attention"]
WIDTHS = Widths(text=16, vision=32, picture=12)
NETWORKS = ["coop", "coop_d3_plain", "vpt", "vpt_d5_plain", "maple", "maple_d3_lora", "cocoop"]
NETWORKS += ["shared_separate", "shared_attn", "e2e_clipseg"]
TEXTS = ["one small pink circle polyp, located in right of the image", "", "two red polyp."]


def write_card(folder, base="tunevlseg", **settings):
    folder.mkdir(parents=True, exist_ok=True)
    chosen = (TINY if base == "tunevlseg" else TINY_CRIS) | settings
    lines = "".join(f"  {key}: {json.dumps(value)}\n" for key, value in chosen.items())
    (folder / "card.yaml").write_text(f"extends: {base}\nname: tiny\nsettings:\n{lines}")
    return folder / "card.yaml"


@pytest.fixture
def through_a_file(tmp_path, golden):
    """A model as the settings say, saved, and loaded by a card that says another one."""

    def load(base="tunevlseg", **settings):
        made = load_model(write_card(tmp_path / "a", base, **settings), random_weights=True)
        file = golden.save_checkpoint(tmp_path / "last.ckpt", made.adapter.module)
        other = write_card(tmp_path / "b", base, method="coop", depth=1, inside=3)
        return load_model(other, checkpoint=file, device="cpu"), made

    return load


@pytest.mark.parametrize("extra", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_the_keys_say_method_depth_and_extra_layer(through_a_file, method, extra):
    model, made = through_a_file(method=method, depth=3, extra_layer=extra)

    found, expected = model.adapter.module.state_dict(), made.adapter.module.state_dict()
    assert {k: v.shape for k, v in found.items()} == {k: v.shape for k, v in expected.items()}
    learner = model.adapter.module.context_learner
    assert (learner.method if learner else "none") == method
    assert reads_pairs(model.raw) == (method == "cocoop")


def test_a_refined_base_is_told_by_its_upsampling(through_a_file):
    model, _ = through_a_file(method="vpt", use_complex_transposed_convolution=True)

    assert "model.decoder.transposed_convolution.4.weight" in model.adapter.module.state_dict()


def plain_logits(model, pixels, text):  # noqa: C901 - the whole model, read from top to bottom
    """One picture and one text, token by token through the towers, as the method's text has it."""
    module, settings = model.adapter.module, model.raw.settings
    learner, clip = module.context_learner, module.model.clip
    decoder, vision, words = module.model.decoder, clip.vision_model, clip.text_model
    in_text = learner is not None and learner.method != "vpt"
    in_picture = learner is not None and learner.method not in ("coop", "cocoop")
    seen = learner.visual()[0] if in_picture else []

    hidden = vision.embeddings(pixels, interpolate_pos_encoding=True)
    n = hidden.shape[1]
    if in_picture:
        hidden = torch.cat([hidden, seen[0][None]], dim=1)
    hidden = vision.pre_layrnorm(hidden)
    states = []
    for number, layer in enumerate(vision.encoder.layers, 1):
        hidden = layer(hidden, attention_mask=None)
        if number < len(seen):
            hidden[:, n:] = seen[number]
        states.append(hidden.clone())

    read = learner.textual()[0] if in_text else []
    if learner is not None and learner.method == "cocoop":
        read = learner.conditioned(clip.visual_projection(vision.post_layernorm(hidden[:, 0])))[0]
    m = len(read[0]) if in_text else 0
    ids = model.raw.tokenize([text])[0]
    end = int((ids[0] == ids.max()).nonzero()[0])
    tokens = words.embeddings.token_embedding(ids)[:, : end + 1]
    if in_text:
        tokens = torch.cat([tokens[:, :1], read[0][None], tokens[:, 1:]], dim=1)
    length = tokens.shape[1]
    tokens = tokens + words.embeddings.position_embedding.weight[:length]
    mask = torch.ones(length, length).tril().log()[None, None]
    for number, layer in enumerate(words.encoder.layers, 1):
        tokens = layer(tokens, attention_mask=mask)
        if number < len(read):
            tokens[:, 1 : 1 + m] = read[number]
    text_vector = clip.text_projection(words.final_layer_norm(tokens)[:, end + m])

    activations = [states[layer] for layer in settings.extract_layers][::-1]
    state = None
    for number, (activation, reduce, layer) in enumerate(
        zip(activations, decoder.reduces, decoder.layers, strict=True)
    ):
        state = reduce(activation) if state is None else reduce(activation) + state
        if number == settings.conditional_layer:
            state = decoder.film_mul(text_vector)[:, None] * state
            state = state + decoder.film_add(text_vector)[:, None]
        state = layer(state, attention_mask=None)
    side = settings.input_size // settings.patch_size
    grid = state[:, 1:n].transpose(1, 2).reshape(1, -1, side, side)
    logits = decoder.transposed_convolution(grid)[:, 0]
    if in_picture and hasattr(module, "residual_ratio"):
        logits = with_extra(module, logits, grid)
    return logits[0]


def with_extra(module, logits, grid):
    """The extra last layer: added in VPT, mixed in elsewhere."""
    large = nn.functional.interpolate(grid, scale_factor=16, mode="bilinear")
    large = nn.functional.pad(large, (2, 2, 2, 2), mode="replicate")
    convolution = module.additive_decoder_layer[1]
    extra = nn.functional.conv2d(large, convolution.weight, convolution.bias)[:, 0]
    r = module.residual_ratio
    if module.context_learner.method == "vpt":
        return logits + extra
    return (1 - r) * logits + r * extra


@pytest.mark.parametrize("depth", [1, 3, 4])
@pytest.mark.parametrize("method", METHODS)
def test_stages_equal_the_plain_forward(tmp_path, golden, method, depth):
    card = write_card(tmp_path, method=method, depth=depth, extra_layer=depth != 3)
    model = load_model(card, random_weights=True, device="cpu")
    golden.fill(model.adapter.module)
    with torch.no_grad():
        pixels = torch.stack([model.adapter.preprocess(golden.picture(48 + n)) for n in range(2)])
        rows = torch.tensor([0, 1, 1])
        images = golden.rows(model.adapter.encode_images(pixels), rows)
        texts = golden.rows(model.adapter.encode_texts(TEXTS), torch.arange(3))
        staged = model.adapter.decode(images, texts)
        full = [plain_logits(model, pixels[r][None], t) for r, t in zip(rows, TEXTS, strict=True)]

    assert staged.std() > 1e-3
    torch.testing.assert_close(staged, torch.stack(full), rtol=0, atol=2e-5)


@pytest.mark.parametrize("method", ["coop", "cocoop"])
@pytest.mark.parametrize("base", ["tunevlseg", "tunevlseg-cris"])
def test_the_padding_of_a_text_changes_nothing(tmp_path, golden, base, method):
    """Nor that it stands beside a longer one: both repositories pad to the batch's longest."""
    model = load_model(write_card(tmp_path, base, method=method), random_weights=True, device="cpu")
    golden.fill(model.adapter.module)
    ids, mask = model.raw.tokenize(["red polyp"])
    short = int(mask.sum())
    with torch.inference_mode():
        side = model.adapter.input_size[0]
        images = model.adapter.encode_images(model.adapter.preprocess(golden.picture(side))[None])
        whole, bare = (
            model.adapter.decode(images, model.raw.encode_tokens(ids[:, :n], mask[:, :n]))
            for n in (ids.shape[1], short)
        )
    torch.testing.assert_close(whole, bare, rtol=0, atol=1e-4)


def test_a_text_too_long_keeps_its_last_token_and_loses_those_before():
    ids, mask = torch.arange(1, 11)[None], torch.ones(1, 10, dtype=torch.int64)

    assert cut(ids, mask, length=6, end=99)[0].tolist() == [[1, 2, 3, 4, 5, 10]]
    padded, told = cut(ids, mask, length=12, end=99)
    assert padded.tolist() == [[*range(1, 11), 99, 99]]
    assert told.tolist() == [[1] * 10 + [0, 0]]


@pytest.mark.parametrize(
    ("text", "stopped"), [("", ""), ("polyp", "polyp."), ("polyp.", "polyp."), ("a. b", "a. b.")]
)
def test_a_full_stop_is_appended(text, stopped):
    assert with_stop(text) == stopped


def test_the_context_takes_the_place_of_words(tmp_path):
    """``a photo of a`` are four tokens: of 16 places 12 are left."""
    model = load_model(write_card(tmp_path, method="coop"), random_weights=True, device="cpu")

    assert model.raw.tokenize(["polyp"])[0].shape == (1, 12)
    counts = model.raw.count_tokens(["a", "a " * 9 + "a", "a " * 10 + "a"])
    assert counts.n_tokens == (4, 13, 14)  # the stop counts
    assert counts.truncated == (False, True, True)
    vpt = load_model(write_card(tmp_path, method="vpt"), random_weights=True, device="cpu")
    assert vpt.raw.tokenize(["polyp"])[0].shape == (1, 16)


def test_an_untuned_context_starts_as_the_initial_text(tmp_path):
    model = load_model(write_card(tmp_path, method="coop", depth=2), random_weights=True)
    module = model.adapter.module
    ids = torch.tensor([320, 1125, 539, 320])
    table = module.model.clip.text_model.embeddings.token_embedding.weight

    assert torch.equal(module.context_learner.context_vectors[0], table[ids])
    assert module.context_learner.context_vectors[1].std() < 0.05


@pytest.mark.parametrize("method", METHODS[1:])
def test_shapes_alone_tell_the_method(method):
    shapes = planned(method, depth=2, tokens=4, inside=6, widths=WIDTHS)

    assert recognise(shapes, WIDTHS, otherwise="coop") == method
    learner = ContextLearner(shapes, method, WIDTHS)
    saved = {key: tuple(value.shape) for key, value in learner.state_dict().items()}
    assert shapes.items() <= saved.items()


@pytest.mark.parametrize("method", METHODS[1:])
def test_where_both_widths_are_equal_the_card_decides(method):
    widths = Widths(16, 16, 16)
    shapes = planned(method, depth=1, tokens=4, inside=6, widths=widths)

    assert recognise(shapes, widths, otherwise=method) == method


def test_a_low_rank_projection_has_no_activation():
    """Two linear layers without bias and a norm, as TuneVLSeg's search also tried."""
    below = "projection_layers.0."
    shapes = {
        "context_vectors": (1, 4, 16),
        f"{below}0.weight": (6, 16),
        f"{below}1.weight": (32, 6),
    }
    shapes |= {f"{below}2.weight": (32,), f"{below}2.bias": (32,)}

    assert recognise(shapes, WIDTHS, otherwise="coop") == "maple"
    layers = list(ContextLearner(shapes, "maple", WIDTHS).projection_layers[0])
    assert [type(layer) for layer in layers] == [nn.Linear, nn.Linear, nn.LayerNorm]
    assert layers[0].bias is None


@pytest.mark.parametrize(
    ("shapes", "text"),
    [
        (
            {"context_vectors": (1, 4, 17)},
            "context has the width 17, the model's texts have 16 and",
        ),
        (
            {"context_vectors": (1, 4, 16), "projection_layers.0.90.weight": (32, 16)},
            "Numbered layers, at most 8, are needed.",
        ),
        (
            {"context_vectors": (4, 16)},
            "have the shape (4, 16). Depth, tokens and width are needed",
        ),
    ],
)
def test_shapes_that_are_no_method_are_refused(shapes, text):
    with pytest.raises(CheckpointError, match=re.escape(text)):
        ContextLearner(shapes, recognise(shapes, WIDTHS, otherwise="coop"), WIDTHS)


def test_the_attention_of_the_shared_learner_mixes_nothing(tmp_path):
    """Values and output alone: a sequence of one token attends to itself."""
    shapes = planned("shared-attention", depth=1, tokens=4, inside=6, widths=WIDTHS)
    learner = ContextLearner(shapes, "shared-attention", WIDTHS).eval()
    layer, x = learner.projection_layers[0], learner.context_vectors[0]
    with torch.inference_mode():
        norm = nn.functional.layer_norm(x, (48,), layer.norm1.weight, layer.norm1.bias)
        attention = layer.self_attn
        value = norm @ attention.in_proj_weight[96:].T + attention.in_proj_bias[96:]
        x = x + attention.out_proj(value)
        x = x + layer.linear2(torch.relu(layer.linear1(layer.norm2(x))))
        both = torch.cat([learner.textual(), learner.visual()], dim=-1)

    torch.testing.assert_close(both[0, 0], x, rtol=0, atol=1e-5)


def test_context_stands_behind_the_first_token_and_is_renewed():
    tokens, context = torch.arange(3.0)[None, :, None], torch.tensor([[[7.0], [8.0]]])

    longer = with_context(tokens, context)
    assert longer.flatten().tolist() == [0, 7, 8, 1, 2]
    assert renewed(longer, context + 1).flatten().tolist() == [0, 8, 9, 1, 2]


@pytest.mark.parametrize("base", ["tunevlseg", "tunevlseg-cris"])
def test_cocoops_text_follows_the_picture(tmp_path, golden, base):
    model = load_model(write_card(tmp_path, base, method="cocoop"), random_weights=True)
    golden.fill(model.adapter.module)
    side = model.adapter.input_size[0]
    pixels = torch.stack([model.adapter.preprocess(golden.picture(side + 9 * n)) for n in (0, 9)])
    with torch.inference_mode():
        images = model.adapter.encode_images(pixels)
        texts = model.raw.encode_texts(["polyp", "polyp"])
        first, second = model.raw.encode_pairs(images, texts)[0]

    assert reads_pairs(model.raw)
    assert (first - second).abs().max() > 1e-4
    assert model.raw.text_embedding(["polyp", "red polyp"]).shape[0] == 2


@pytest.mark.parametrize("method", ["none", "coop", "cocoop"])
@pytest.mark.parametrize("extra", [False, True])
def test_cris_is_told_by_its_keys(through_a_file, method, extra):
    settings = {"method": method, "depth": 2, "extra_layer": extra}
    model, made = through_a_file("tunevlseg-cris", **settings)

    found, expected = model.adapter.module.state_dict(), made.adapter.module.state_dict()
    assert {k: v.shape for k, v in found.items()} == {k: v.shape for k, v in expected.items()}


def test_the_context_on_cris_of_depth_one_enters_twice(tmp_path, golden):
    """Behind block 0 it is written again: what the block made of it does not go on."""
    card = write_card(tmp_path, "tunevlseg-cris", method="coop", depth=1)
    model = load_model(card, random_weights=True, device="cpu")
    golden.fill(model.adapter.module)
    seen = []
    blocks = model.adapter.module.backbone.transformer.resblocks
    hook = blocks[1].register_forward_pre_hook(lambda _, given: seen.append(given[0].clone()))
    with torch.inference_mode():
        model.raw.encode_texts(["polyp"])
    hook.remove()

    context = model.adapter.module.context_learner.context_vectors[0]
    torch.testing.assert_close(seen[0][0, 1:5], context)


def test_nothing_attends_to_padding_in_tuned_cris(tmp_path):
    card = write_card(tmp_path, "tunevlseg-cris", method="coop")
    model = load_model(card, random_weights=True, device="cpu")
    _, mask = model.raw.tokenize(["red polyp"])

    ignored = model.raw.encode_texts(["red polyp"]).ignored
    assert ignored.shape == (1, 16)
    assert ignored[0].tolist() == [False] * (4 + int(mask.sum())) + [True] * int(12 - mask.sum())


def test_pictures_are_resized_without_antialiasing(tmp_path):
    """Rows that fall on the target's centres are all that OpenCV looks at."""
    model = load_model(write_card(tmp_path, method="vpt"), random_weights=True, device="cpu")
    fine = np.zeros((240, 240, 3), np.uint8)
    fine[2::5] = 255
    white = model.adapter.preprocess(np.full((48, 48, 3), 255, np.uint8))

    assert torch.equal(model.adapter.preprocess(fine), white)


def test_finetuning_trains_context_and_extra_layer_alone():
    from harness.training.trainee import trained_parameters

    model = load_model("tunevlseg-small")
    trained = {id(p) for p in trained_parameters(model)}
    names = {n for n, p in model.adapter.module.named_parameters() if id(p) in trained}
    assert names == {"context_learner.context_vectors"}
    images = model.adapter.encode_images(torch.rand(1, 3, 96, 96))
    model.adapter.decode(images, model.adapter.encode_texts(["polyp"])).square().mean().backward()
    assert model.adapter.module.context_learner.context_vectors.grad.abs().max() > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_full_size_equals_the_original(equals_the_original, name):
    assert equals_the_original(f"tune_{name}", card="tunevlseg") >= 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["coop", "cocoop"])
def test_full_size_on_cris_equals_the_original(equals_the_original, name):
    assert equals_the_original(f"tune_{name}_cris", card="tunevlseg-cris") >= 2
