"""SAM 3 in stages is transformers' model, and its answer is the processor's."""

import re

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from harness.cards import load_model_card
from harness.errors import CardError, CheckpointError
from harness.model.checks import Outcome, check_model
from harness.model.contract import EmbedsText, Predicts, Staged, Tokenizes
from harness.model.loading import load_model

TINY = {
    "vision_config": {
        "fpn_hidden_size": 32,
        "backbone_config": {
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 112,
            "window_size": 4,
            "global_attn_indexes": [1],
            "pretrain_image_size": 56,
        },
    },
    "text_config": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "projection_dim": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    },
    "geometry_encoder_config": {"hidden_size": 32, "num_layers": 1, "num_attention_heads": 2},
    "detr_encoder_config": {
        "hidden_size": 32,
        "num_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
    },
    "detr_decoder_config": {
        "hidden_size": 32,
        "num_layers": 2,
        "num_queries": 10,
        "num_attention_heads": 2,
        "intermediate_size": 64,
    },
    "mask_decoder_config": {"hidden_size": 32, "num_attention_heads": 2},
}
THREE_LEVELS = {"scale_factors": [2.0, 1.0, 0.5]}
TEXTS = ["one small pink round polyp, located in top left of the image", "polyp", ""]


def write_card(folder, *, config=TINY, weights=None, **settings):
    folder.mkdir(parents=True, exist_ok=True)
    card = {"extends": "sam3", "name": "sam3-tiny", "settings": {"config": config} | settings}
    card |= {"weights": {"path": str(weights)}} if weights else {}
    (folder / "card.yaml").write_text(yaml.safe_dump(card))
    return folder / "card.yaml"


@pytest.fixture(scope="module")
def hub(tmp_path_factory, golden):
    """A folder in the hub's format with weights that let text and image through."""
    folder = tmp_path_factory.mktemp("sam3")
    module = load_model(write_card(folder / "card"), random_weights=True).adapter.module
    golden.fill(module)
    module.save_pretrained(folder / "hub")
    return folder / "hub"


@pytest.fixture(scope="module")
def tiny(hub, tmp_path_factory):
    return load_model(write_card(tmp_path_factory.mktemp("tiny"), weights=hub), device="cpu")


@pytest.fixture(scope="module")
def pixels(tiny, golden):
    pictures = [golden.picture(90), golden.picture(120)[:70], golden.picture(64)[:, :33]]
    return torch.stack([tiny.adapter.preprocess(picture) for picture in pictures])


def answer(model, pixels, texts):
    """The model's own output, as its processor wants it."""
    ids, mask = model.raw.tokenize(texts)
    boxes, labels = torch.zeros(len(pixels), 1, 4), torch.full((len(pixels), 1), -10)
    return model.adapter.module(
        pixel_values=pixels,
        input_ids=ids,
        attention_mask=mask,
        input_boxes=boxes,
        input_boxes_labels=labels,
    )


def with_settings(tiny, hub, folder, **settings):
    return load_model(write_card(folder, weights=hub, **settings), device="cpu")


def test_the_published_architecture_is_the_library_s_default():
    from transformers import Sam3Config

    config, card = Sam3Config(), load_model_card("sam3").card
    assert card.weights.hub == "facebook/sam3"
    assert "config" not in card.settings
    assert config.image_size == 1008
    assert config.text_config.max_position_embeddings == 32
    assert config.detr_decoder_config.num_queries == 200


def test_stages_equal_the_full_forward(tiny, pixels):
    with torch.inference_mode():
        images = tiny.adapter.encode_images(pixels)
        texts = tiny.adapter.encode_texts(TEXTS)
        staged = tiny.adapter.decode(images, texts)
        whole = tiny.raw.predict(pixels, TEXTS)

    assert [tuple(leaf.shape) for leaf in images] == [
        (3, 32, 32, 32),
        (3, 32, 16, 16),
        (3, 32, 8, 8),
        (3, 1, 32),
    ]
    assert texts.tokens.shape == (3, 32, 32)
    assert staged.shape == (3, 32, 32)
    torch.testing.assert_close(staged, whole, rtol=0, atol=1e-5)
    assert staged.std() > 0.1


def test_presence_is_the_model_s_own_and_leaves_the_logits_alone(tiny, pixels):
    with torch.inference_mode():
        images = tiny.adapter.encode_images(pixels)
        texts = tiny.adapter.encode_texts(TEXTS)
        logits, presence = tiny.adapter.decode_with_presence(images, texts)
        own = answer(tiny, pixels, TEXTS).presence_logits.sigmoid().reshape(-1)
        torch.testing.assert_close(logits, tiny.adapter.decode(images, texts))
    assert presence.shape == (3,)
    torch.testing.assert_close(presence, own, rtol=0, atol=1e-5)


def test_instances_are_the_processor_s(tiny, hub, pixels, tmp_path):
    """At the model's own resolution the union is equal pixel for pixel."""
    from transformers import Sam3ImageProcessor

    with torch.inference_mode():
        output = answer(tiny, pixels, TEXTS)
    scores = output.pred_logits.sigmoid() * output.presence_logits.sigmoid()
    # Half of all queries pass, and those of the first picture do not all.
    middle = float(scores.median())
    for threshold in (0.3, middle):
        model = with_settings(tiny, hub, tmp_path, score_threshold=threshold)
        with torch.inference_mode():
            logits = model.raw.predict(pixels, TEXTS)
        results = Sam3ImageProcessor().post_process_instance_segmentation(output, threshold)
        for row, result in zip(logits, results, strict=True):
            union = result["masks"].sum(dim=0) > 0
            assert torch.equal(row > 0, union)
    assert load_model_card("sam3").card.settings["score_threshold"] == 0.3
    assert 0 < (scores > middle).sum() < scores.numel()


def test_at_the_picture_s_size_only_outlines_differ(tiny, pixels):
    """The processor resizes probabilities, the harness logits: a matter of one pixel."""
    from transformers import Sam3ImageProcessor

    processor, sizes = Sam3ImageProcessor(), [(90, 90), (70, 120), (64, 33)]
    with torch.inference_mode():
        logits = tiny.raw.predict(pixels, TEXTS)
        output = answer(tiny, pixels, TEXTS)
    theirs = processor.post_process_instance_segmentation(output, target_sizes=sizes)
    small = processor.post_process_instance_segmentation(output)
    for row, size, large, result in zip(logits, sizes, theirs, small, strict=True):
        ours = torch.nn.functional.interpolate(row[None, None], size=size, mode="bilinear")[0, 0]
        differs = (ours > 0) != large["masks"].any(dim=0)
        masks = result["masks"][:, None].float()
        wider, narrower = (
            sign * torch.nn.functional.max_pool2d(sign * masks, 3, 1, 1) for sign in (1, -1)
        )
        outline = (wider != narrower).any(dim=0, keepdim=True).float()
        band = torch.nn.functional.interpolate(outline, size=size, mode="nearest")[0, 0] > 0
        assert not (differs & ~band).any()
        assert differs.double().mean() < 0.1


def test_the_semantic_head_is_the_processor_s(tiny, hub, pixels, tmp_path):
    from transformers import Sam3ImageProcessor

    model = with_settings(tiny, hub, tmp_path, output="semantic")
    with torch.inference_mode():
        logits = model.raw.predict(pixels, TEXTS)
        staged = model.adapter.decode(
            model.adapter.encode_images(pixels), model.adapter.encode_texts(TEXTS)
        )
        theirs = Sam3ImageProcessor().post_process_semantic_segmentation(
            answer(model, pixels, TEXTS)
        )

    torch.testing.assert_close(staged, logits, rtol=0, atol=1e-5)
    for row, mask in zip(logits, theirs, strict=True):
        assert torch.equal((row > 0).long(), mask)


def test_where_no_query_passes_nothing_is_found(tiny, hub, pixels, tmp_path):
    model = with_settings(tiny, hub, tmp_path, score_threshold=0.999999)
    with torch.inference_mode():
        logits = model.raw.predict(pixels, TEXTS)
    assert torch.equal(logits, torch.full_like(logits, -20.0))


def test_pixels_are_stretched_to_minus_1_to_1(tiny):
    white = tiny.adapter.preprocess(np.full((3, 50, 3), 255, np.uint8))
    black = tiny.adapter.preprocess(np.zeros((20, 3, 3), np.uint8))
    assert white.shape == black.shape == (3, 112, 112)
    assert torch.equal(white, torch.ones_like(white))
    assert torch.equal(black, -torch.ones_like(black))


def test_texts_are_cut_at_32_tokens_and_end(tiny):
    long = "red " * 40
    ids, mask = tiny.raw.tokenize(["", "red", long])
    counts = tiny.adapter.count_tokens(["", "red", long, "red " * 30, "red " * 31])

    assert ids.shape == mask.shape == (3, 32)
    assert ids[0].tolist() == [49406] + [49407] * 31
    assert mask.sum(1).tolist() == [2, 3, 32]
    assert ids[2, -1] == 49407
    assert counts == ((2, 3, 42, 32, 33), (False, False, True, False, True))


def test_padding_cannot_be_seen(tiny, pixels):
    """Whatever the padded ids are: they are masked wherever they could matter."""
    ids, mask = tiny.raw.tokenize(TEXTS)
    other = torch.where(mask > 0, ids, 320)
    with torch.inference_mode():
        images = tiny.adapter.encode_images(pixels)
        padded, changed = (
            tiny.adapter.decode(images, tiny.raw.encode_tokens(i, mask)) for i in (ids, other)
        )
        whole, elsewhere = (
            tiny.adapter.module(pixel_values=pixels, input_ids=i, attention_mask=mask)
            for i in (ids, other)
        )
    assert torch.equal(padded, changed)
    torch.testing.assert_close(whole.pred_masks, elsewhere.pred_masks, rtol=0, atol=1e-5)


def test_texts_are_computed_at_the_length_of_the_longest(tiny):
    lengths = []
    tower = tiny.adapter.module.text_encoder
    hook = tower.register_forward_hook(
        lambda _, args, keys, output: lengths.append(keys["input_ids"].shape[1]), with_kwargs=True
    )
    with torch.inference_mode():
        short = tiny.adapter.encode_texts(["polyp", ""])
        tiny.adapter.encode_texts(TEXTS)
        alone = tiny.adapter.encode_texts(["polyp"])
    hook.remove()

    assert lengths == [4, 16, 4]
    assert short.tokens.shape == (2, 32, 32)
    assert not short.tokens[:, 4:].any()
    torch.testing.assert_close(short.tokens[:1], alone.tokens, rtol=0, atol=1e-6)


def test_the_text_embedding_is_the_mean_of_the_tokens(tiny):
    with torch.inference_mode():
        ids, mask = tiny.raw.tokenize(TEXTS)
        features = tiny.adapter.module.get_text_features(ids, mask).pooler_output
        embedding = tiny.raw.text_embedding(TEXTS)
    for row, n in enumerate(mask.sum(1).tolist()):
        expected = features[row, :n].mean(dim=0)
        torch.testing.assert_close(embedding[row], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("output", ["instances", "semantic"])
def test_it_keeps_the_contract(tiny, hub, tmp_path, output):
    model = with_settings(tiny, hub, tmp_path, output=output)
    found = check_model(model)

    for capability in (Staged, Predicts, Tokenizes, EmbedsText):
        assert isinstance(model.raw, capability)
    assert [r for r in found if r.outcome in (Outcome.FAILS, Outcome.FINDING)] == []
    assert "the context is 32 tokens" in next(r.sentence for r in found if r.name == "tokens")


def test_the_hub_s_file_is_the_video_model_s(tiny, hub, pixels, tmp_path):
    """There the detector's keys carry a prefix, and a tracker stands beside them."""
    from transformers import Sam3VideoConfig

    video = tmp_path / "video"
    video.mkdir()
    Sam3VideoConfig(detector_config=tiny.adapter.module.config.to_dict()).save_pretrained(video)
    state = {f"detector_model.{k}": v for k, v in load_file(hub / "model.safetensors").items()}
    state["tracker_model.no_memory_embedding"] = torch.zeros(1, 1, 8)
    save_file(state, video / "model.safetensors", metadata={"format": "pt"})

    model = load_model(write_card(tmp_path, config={}, weights=video), device="cpu")

    with torch.inference_mode():
        expected = tiny.raw.predict(pixels, TEXTS)
        assert torch.equal(model.raw.predict(pixels, TEXTS), expected)
    assert model.adapter.input_size == (112, 112)


def test_a_card_that_contradicts_its_folder_is_refused(hub, tmp_path):
    config = {"detr_decoder_config": {"num_queries": 11}}
    text = (
        f"settings.config.detr_decoder_config.num_queries: found 11, {hub / 'config.json'} says 10."
        " They must be equal. Correct the card, or leave the key to the folder."
    )
    with pytest.raises(CardError, match=re.escape(text)):
        load_model(write_card(tmp_path, config=config, weights=hub))


def test_a_folder_that_lacks_keys_is_refused(hub, tmp_path):
    """transformers would go on with random numbers in their place."""
    folder = tmp_path / "hub"
    folder.mkdir()
    (folder / "config.json").write_text((hub / "config.json").read_text())
    state = load_file(hub / "model.safetensors")
    del state["text_projection.weight"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    text = (
        f"{folder}: the weights do not fill Sam3Model: 1 keys are missing, 0 unexpected; first "
        "missing 'text_projection.weight'. Missing ones would be random numbers. Get the whole"
    )
    with pytest.raises(CheckpointError, match=re.escape(text)):
        load_model(write_card(tmp_path, weights=folder))


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (
            {"output": "boxes"},
            "settings.output: found 'boxes'. Input should be 'instances', 'best'",
        ),
        ({"score_threshold": 1.5}, "settings.score_threshold: found 1.5. Input should be less"),
        (
            {"config": TINY | {"vision_config": TINY["vision_config"] | THREE_LEVELS}},
            "settings.config.vision_config.scale_factors: found [2.0, 1.0, 0.5]. This adapter",
        ),
        (
            {"config": {"visoin_config": {}}},
            "settings.config: unknown setting 'visoin_config'. Did",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused(tmp_path, settings, text):
    card = write_card(tmp_path, **settings)
    with pytest.raises(CardError, match=re.escape(text)):
        load_model(card, random_weights=True)
