"""MedCLIPSeg: its kinds are told by their keys, its noise is drawn where it should be."""

import importlib
import json
import re

import numpy as np
import pytest
import torch
from torch.nn.functional import gelu, layer_norm, softplus

from harness.cards import load_model_card
from harness.errors import CheckpointError, ModelError, UsageError
from harness.model.checks import check_model
from harness.model.loading import load_model
from harness.model.sampling import Sampled, noise_seed, seeded
from tests.models.conftest import LOG

KINDS = ["unimedclip", "biomedclip", "clip"]
# CLIP's own kinds: another text tower, and patches of 32 for pubmedclip.
CLIP = {"kind": "clip", "context_length": 12, "vocabulary_size": 512}
TEXTS = ["one small pink circle polyp", "", "two red polyps"]


def write_card(folder, *, samples=4, **settings):
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(f"  {key}: {json.dumps(value)}\n" for key, value in settings.items())
    head = "extends: medclipseg-small\nname: tiny\n"
    body = f"settings:\n{lines}" if settings else ""
    (folder / "card.yaml").write_text(f"{head}samples: {samples}\n{body}")
    return folder / "card.yaml"


def settings_of(kind):
    return CLIP if kind == "clip" else {"kind": kind}


@pytest.fixture
def tiny(tmp_path, golden):
    def load(kind="unimedclip", **more):
        card = write_card(tmp_path / kind, **settings_of(kind), **more)
        model = load_model(card, random_weights=True, device="cpu")
        golden.fill(model.raw.module, prefix="")
        return model

    return load


@pytest.mark.parametrize("kind", KINDS)
def test_the_keys_say_which_kind_it_is(tmp_path, tiny, kind):
    made = tiny(kind)
    state = made.raw.module.state_dict()
    content = {"model": state, "epoch": 3, "optimizer": {"state": {}}, "best_loss": 0.5}
    torch.save(content, tmp_path / "latest.pth")
    other = "biomedclip" if kind == "unimedclip" else "unimedclip"
    card = write_card(tmp_path / "other", **({"kind": other} if kind != "clip" else CLIP))

    model = load_model(card, checkpoint=tmp_path / "latest.pth", device="cpu")

    assert model.raw.settings.kind == kind
    found = model.raw.module.state_dict()
    assert {k: v.shape for k, v in found.items()} == {k: v.shape for k, v in state.items()}
    assert all(torch.equal(found[key], value) for key, value in state.items())


def attended(module, query, context, beta, noise):
    """One attention, written out head by head and place by place."""
    width = query.shape[-1]
    asked = module.q_proj(query)
    keys, values = module.k_proj(context), module.v_proj(context)
    k_mean = layer_norm(keys[:, :width], (width,), module.norm_k.weight, module.norm_k.bias)
    v_mean = layer_norm(values[:, :width], (width,), module.norm_v.weight, module.norm_v.bias)
    k_var, v_var = (softplus(x[:, width:]) + 1e-6 for x in (keys, values))
    scores = torch.empty(len(query), len(context))
    for i, q in enumerate(asked):
        for j in range(len(context)):
            spread = torch.sqrt((q**2 * k_var[j]).sum() / width)
            scores[i, j] = (q * k_mean[j]).sum() / np.sqrt(width) - beta * spread
    drawn = v_mean + v_var.sqrt() * noise
    gate = torch.sigmoid(module.gate)
    return gate * module.out_proj(scores.softmax(1) @ drawn) + (1 - gate) * query


def test_an_attention_is_its_equation(tiny):
    model = tiny()
    attention = model.raw.module.pvl_adapters[0].two_way.cross_attn_img_to_txt
    torch.manual_seed(1)
    query, context, noise = torch.randn(3, 16), torch.randn(5, 16), torch.randn(5, 16)
    with torch.inference_mode():
        ours = attention(query[None], context[None], beta=2.35, draw=lambda shape: noise[None])
        plain = attended(attention, query, context, 2.35, noise)
        still = attention(query[None], context[None], beta=2.35, draw=None)
        calm = attended(attention, query, context, 2.35, torch.zeros(5, 16))

    torch.testing.assert_close(ours[0], plain, rtol=0, atol=1e-5)
    torch.testing.assert_close(still[0], calm, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_draws_are_made_in_the_published_order(tiny, kind, golden):
    """Image attends to the text, text to the image, adapter by adapter; one row serves all."""
    model = tiny(kind)
    shapes = []

    class Watched:
        def standard_normal(self, shape):
            shapes.append(shape)
            return np.zeros(shape)

    with torch.inference_mode():
        images = model.raw.encode_images(
            torch.stack([model.raw.preprocess(golden.picture(64))] * 2)
        )
        texts = model.raw.encode_texts(TEXTS[:2])
        drawn = model.raw.decode(images, texts, Watched())
        still = model.raw.decode(images, texts)

    n_words, n_patches = texts.tokens.shape[1], images.tokens.shape[1]
    assert shapes == [(1, n_words, 16), (1, n_patches, 16)] * 2
    assert torch.equal(drawn, still)


@pytest.mark.parametrize("kind", KINDS)
def test_stages_are_what_the_towers_compute_in_one_go(tiny, golden, kind):
    """Zero noise, from the blocks themselves; padding is seen by the adapters."""
    model = tiny(kind)
    network, raw = model.raw.module, model.raw
    with torch.inference_mode():
        pixels = raw.preprocess(golden.picture(64))[None]
        ids, mask = raw.tokenize(TEXTS[:1])
        staged = raw.decode(raw.encode_images(pixels), raw.encode_tokens(ids, mask))
        image, text = network.vision_model.enter(pixels), network.text_model.enter(ids)
        for number in range(4):
            if number in (1, 2):
                more = network.pvl_adapters[number - 1](image, text, beta=2.35, draw=None)
                image, text = image + more[0], text + more[1]
            image = network.vision_model.block(number, image)
            text = network.text_model.block(number, text, mask)
        sentence = network.text_model.leave(text, ids)
        maps = network.vision_model.leave(image)[0, 1:]
        maps = (maps / maps.norm(dim=1, keepdim=True)).T.reshape(1, -1, 4, 4)
        for layer in network.upscale:
            maps = layer.conv2(gelu(layer.conv1(maps))).permute(0, 2, 3, 1)
            maps = layer_norm(maps, (16,), layer.norm.weight, layer.norm.bias, 1e-6)
            maps = maps.permute(0, 3, 1, 2)
        head = network.mask_head
        query = sentence / sentence.norm()
        query = head[4](gelu(head[2](gelu(head[0](query)))))
        scores = (maps * query[0, :, None, None]).sum(1, keepdim=True)
        full = torch.nn.functional.interpolate(scores, (64, 64), mode="bilinear")[0]

    assert staged.std() > 1e-2
    torch.testing.assert_close(staged, full, rtol=0, atol=2e-5)


def test_the_network_sees_blue_first(tiny):
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 255
    pixels = tiny().raw.preprocess(red)

    assert (pixels.mean(dim=(1, 2)) > 0).tolist() == [False, False, True]
    assert pixels[0, 0, 0].item() == pytest.approx(-0.485 / 0.229, abs=1e-6)


def test_texts_keep_their_padding(tiny):
    model, clip = tiny(), tiny("clip")

    assert model.raw.encode_texts(TEXTS).tokens.shape == (3, 48, 24)
    ids, mask = clip.raw.tokenize(["polyp"])
    assert ids.shape == (1, 12)
    assert ids[mask == 0].sum() == 0


# The answer of samples


def answer(model, pixels, texts, names):
    with torch.inference_mode():
        images = seeded(model.adapter, model.adapter.encode_images(pixels), names)
        return model.adapter.decode(images, model.adapter.encode_texts(texts))


def test_an_answer_is_the_mean_of_the_sigmoids(tiny, golden):
    model = tiny()
    pixels = model.raw.preprocess(golden.picture(64))[None]
    logits = answer(model, pixels, TEXTS[:1], ["a"])
    with torch.inference_mode():
        parts = model.raw.encode_images(pixels), model.raw.encode_texts(TEXTS[:1])
        singles = [
            model.raw.decode(*parts, np.random.default_rng([noise_seed("a"), n])) for n in range(4)
        ]
    mean = torch.stack(singles).sigmoid().mean(0)

    torch.testing.assert_close(logits.sigmoid(), mean, rtol=0, atol=1e-6)
    assert (singles[0] - singles[1]).abs().max() > 1e-3


def test_batch_order_and_neighbours_change_nothing(tiny, golden):
    model = tiny()
    pixels = torch.stack([model.raw.preprocess(golden.picture(64 + n)) for n in (0, 9)])
    rows = [(0, 0, "a"), (1, 1, "b"), (0, 2, "a"), (1, 0, "b")]
    together = answer(
        model, pixels[[r[0] for r in rows]], [TEXTS[r[1]] for r in rows], [r[2] for r in rows]
    )
    for row, expected in zip(rows, together, strict=True):
        alone = answer(model, pixels[row[0]][None], [TEXTS[row[1]]], [row[2]])
        torch.testing.assert_close(alone[0], expected, rtol=0, atol=1e-5)


def test_one_picture_has_one_noise_for_all_prompts_and_another_has_another(tiny, golden):
    model = tiny()
    pixels = torch.stack([model.raw.preprocess(golden.picture(64))] * 3)
    same, again, other = answer(model, pixels, [TEXTS[0]] * 3, ["a", "a", "b"])

    assert torch.equal(same, again)
    assert (same - other).abs().max() > 1e-4


def test_check_names_a_model_that_samples(tiny):
    results = {result.name: result for result in check_model(tiny(samples=30))}

    assert results["determinism"].outcome == "finding"
    text = "the model draws random numbers; single samples differ in"
    assert text in results["determinism"].sentence
    assert "the mean of the card's 30 samples" in results["determinism"].sentence
    assert not [r for r in results.values() if r.outcome == "fails"]


def test_finetuning_it_is_refused(tmp_path, tiny):
    module = importlib.import_module("harness.training.finetune")
    with pytest.raises(UsageError, match="the model draws random numbers, and its own training"):
        module._refuse_sampling(tiny())


# Files


def test_trained_weights_need_the_published_vocabulary(tmp_path, tiny):
    made = tiny()
    torch.save({"model": made.raw.module.state_dict()}, tmp_path / "latest.pth")
    card = write_card(tmp_path / "b", vocabulary="published")
    with pytest.raises(ModelError, match="BiomedBERT's vocabulary lies only on a hub"):
        load_model(card, checkpoint=tmp_path / "latest.pth")


def test_clips_own_kind_needs_no_vocabulary_of_bert(tmp_path, tiny):
    made = tiny("clip")
    torch.save({"model": made.raw.module.state_dict()}, tmp_path / "latest.pth")
    card = write_card(tmp_path / "b", vocabulary="published", **CLIP)

    assert load_model(card, checkpoint=tmp_path / "latest.pth").notes == ()


def test_a_file_cut_short_is_refused(tmp_path, tiny):
    state = tiny().raw.module.state_dict()
    del state["pvl_adapters.1.two_way.cross_attn_img_to_txt.gate"]
    torch.save({"model": state}, tmp_path / "latest.pth")
    text = "1 missing, first 'pvl_adapters.1.two_way.cross_attn_img_to_txt.gate'"
    with pytest.raises(CheckpointError, match=re.escape(text)):
        load_model(write_card(tmp_path / "b"), checkpoint=tmp_path / "latest.pth")


def test_the_card_takes_the_published_test(tmp_path):
    card = load_model_card("medclipseg").card

    assert (card.samples, card.settings["beta"], card.threshold) == (30, 2.35, 0.5)
    assert isinstance(load_model("medclipseg-small", random_weights=True).adapter, Sampled)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*KINDS, "pubmedclip"])
def test_full_size_equals_the_original(shared_reference, tmp_path, golden, kind):
    """Zero noise, one sample and the mean of four from numpy's noise."""
    folder = shared_reference / "medclipseg"
    keys = json.loads((folder / kind / "keys.json").read_text())
    state = golden.reference_state(keys, alias=lambda key: keys[key].get("alias_of") or key)
    file = tmp_path / f"MedCLIPSeg_{kind}_latest.pth"
    torch.save({"model": state, "epoch": 1, "optimizer": {"state": {}}, "best_loss": 1.0}, file)
    (tmp_path / "vocab.txt").write_text("\n".join(_vocabulary()) + "\n")
    model = load_model("medclipseg", checkpoint=file, device="cpu")
    file.unlink()
    raw = model.raw
    assert golden.shapes(raw.module, prefix="") == {k: v["shape"] for k, v in keys.items()}
    assert raw.settings.patch_size == (32 if kind == "pubmedclip" else 16)
    if kind == "pubmedclip":
        return
    public = np.load(folder / "public" / f"medclipseg_{kind}.npz")
    mode = "zero" if kind == "clip" else "bert"
    ids, mask = (
        torch.from_numpy(public[f"{key}_{mode}"]).long() for key in ("input_ids", "attention_mask")
    )

    def apart(found, name, rows):
        largest = np.abs(found.numpy()[:, ::7, ::7] - public[name][rows]).max()
        LOG.info("%s, %s: %.1e apart", kind, name, largest)
        return largest

    with torch.inference_mode():
        image = raw.encode_images(raw.preprocess(golden.picture(224))[None])
        texts = raw.encode_tokens(ids, mask)
        both = golden.rows(image, torch.zeros(2, dtype=torch.int64))
        assert apart(raw.decode(both, texts), f"logits_sub_{mode}", slice(None)) <= 5e-5
        rng, first = np.random.RandomState(777), golden.rows(texts, slice(0, 1))
        samples = [raw.decode(image, first, rng) for _ in range(4)]
    assert apart(samples[0], f"logits_sub_{mode}_npnoise_n1", slice(0, 1)) <= 5e-5
    mean = torch.stack(samples).sigmoid().mean(0)
    assert apart(mean, f"meanprob_sub_{mode}_npnoise_n4", slice(0, 1)) <= 2e-5


def _vocabulary():
    from harness.model.wordpiece import stand_in

    return stand_in(30522)
