"""Grounding DINO and SAM: what their own processors and forwards give, in stages."""

import json
import re
import string
import sys

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from harness.cards import load_model_card
from harness.errors import CardError, ModelError
from harness.model.checks import Outcome, check_model
from harness.model.contract import EmbedsText, Staged, Tokenizes
from harness.model.loading import load_model

DETECTOR = {
    "backbone_config": {
        "embed_dim": 16,
        "depths": [1, 1, 1, 1],
        "num_heads": [1, 2, 2, 4],
        "window_size": 4,
        "image_size": 64,
    },
    "text_config": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
    },
    "d_model": 64,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "num_queries": 10,
}
SEGMENTER = {
    "vision_config": {
        "hidden_size": 32,
        "output_channels": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 64,
        "patch_size": 8,
        "window_size": 4,
        "global_attn_indexes": [1],
        "num_pos_feats": 16,
    },
    "prompt_encoder_config": {"hidden_size": 32, "image_size": 64, "patch_size": 8},
    "mask_decoder_config": {
        "hidden_size": 32,
        "mlp_dim": 64,
        "num_attention_heads": 4,
        "iou_head_hidden_dim": 32,
    },
}
SMALL = {"shortest_edge": 64, "longest_edge": 96, "detector": DETECTOR, "segmenter": SEGMENTER}
SIZES = [(60, 90), (90, 60), (60, 90), (40, 40)]
TEXTS = ["one small pink round polyp, located in the top left", "polyp", "", "two red tumors"]
FIXED = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]", 1012: ".", 1029: "?"}


def write_card(folder, *, hub=None, **settings):
    folder.mkdir(parents=True, exist_ok=True)
    card = {"extends": "grounded-sam", "name": "gs-tiny", "settings": SMALL | settings}
    if hub is not None:
        card["weights"] = {"path": str(hub / "detector")}
        card["further_weights"] = {"segmenter": {"path": str(hub / "segmenter")}}
    (folder / "card.yaml").write_text(yaml.safe_dump(card))
    return folder / "card.yaml"


def vocabulary():
    """As large as BERT's, with its special ids; letters, and a few words."""
    pieces = [*string.ascii_lowercase, *(f"##{c}" for c in string.ascii_lowercase), ",", "polyp"]
    rest = iter([*pieces, *(f"[unused{n}]" for n in range(30522))])
    return [FIXED.get(number) or next(rest) for number in range(30522)]


@pytest.fixture(scope="module")
def hub(tmp_path_factory, golden):
    """Two folders in the hub's format, the detector's with a vocabulary."""
    folder = tmp_path_factory.mktemp("grounded")
    module = load_model(write_card(folder / "card"), random_weights=True).adapter.module
    for name, part in module.items():
        golden.fill(part, prefix=f"{name}.")
        part.save_pretrained(folder / "hub" / name)
    (folder / "hub" / "detector" / "vocab.txt").write_text("\n".join(vocabulary()) + "\n")
    return folder / "hub"


@pytest.fixture(scope="module")
def tiny(hub, tmp_path_factory):
    return load_model(write_card(tmp_path_factory.mktemp("tiny"), hub=hub), device="cpu")


@pytest.fixture(scope="module")
def pictures(golden):
    return [golden.picture(96)[:height, :width] for height, width in SIZES]


@pytest.fixture(scope="module")
def pixels(tiny, pictures):
    return torch.stack([tiny.adapter.preprocess(picture) for picture in pictures])


def own(model):
    """The adapter's module, which has a private name."""
    return sys.modules[type(model.raw).__module__]


def staged(model, pixels, texts):
    with torch.inference_mode():
        return model.adapter.decode(
            model.adapter.encode_images(pixels), model.adapter.encode_texts(texts)
        )


def official(model, picture, text):
    """One picture and prompt through the models' own processors.

    Returns the segmenter's low-resolution masks ``(1, boxes, 1, 32, 32)`` (None without
    a box) and the size of its picture without padding, as its processor wants them.
    """
    from transformers import GroundingDinoImageProcessor, GroundingDinoProcessor

    image, size = Image.fromarray(picture), picture.shape[:2]
    detector, segmenter = model.adapter.module["detector"], model.adapter.module["segmenter"]
    processor = GroundingDinoProcessor(
        GroundingDinoImageProcessor(size={"shortest_edge": 64, "longest_edge": 96}),
        model.raw._phrases._tokenizer,
    )
    with torch.inference_mode():
        output = detector(**processor(images=image, text=[[text]], return_tensors="pt"))
        found = processor.post_process_grounded_object_detection(output, target_sizes=[size])
        boxes = found[0]["boxes"]
        inputs = segmenting()(image, return_tensors="pt")
        seen = inputs.reshaped_input_sizes.tolist()
        if len(boxes) == 0:
            return None, seen
        # As SAM's processor scales boxes: from the picture's size to the resized one's.
        ratio = torch.tensor([seen[0][1] / size[1], seen[0][0] / size[0]]).repeat(2)
        masks = segmenter(
            pixel_values=inputs.pixel_values,
            input_boxes=(boxes * ratio)[None],
            multimask_output=False,
        ).pred_masks
    return masks, seen


def segmenting():
    from transformers import SamImageProcessor

    return SamImageProcessor(size={"longest_edge": 64}, pad_size={"height": 64, "width": 64})


def test_masks_are_the_processors_own(tiny, pixels, pictures):
    """SAM's padding undone by its own processor, at the model's and at the picture's size."""
    logits = staged(tiny, pixels, TEXTS)
    counts = []
    for row, picture, text in zip(logits, pictures, TEXTS, strict=True):
        masks, seen = official(tiny, picture, text)
        counts.append(0 if masks is None else masks.shape[1])
        if masks is None:
            assert torch.equal(row, torch.full_like(row, -20.0))
            continue
        same = segmenting().post_process_masks(masks, [(32, 32)], seen, binarize=False)[0]
        torch.testing.assert_close(row, same.amax(dim=(0, 1)), rtol=0, atol=1e-4)
        size = picture.shape[:2]
        ours = torch.nn.functional.interpolate(row[None, None], size=size, mode="bilinear")[0, 0]
        theirs = segmenting().post_process_masks(masks, [size], seen)[0].any(dim=0)[0]
        # Resized once more, so that outlines move by less than a pixel.
        assert ((ours > 0) == theirs).double().mean() > 0.94
    # Several boxes, one, and none.
    assert max(counts) > 1
    assert 0 in counts
    assert 1 in counts


def test_a_batch_of_unequal_pictures_is_one_by_one(tiny, pixels):
    together = staged(tiny, pixels, TEXTS)
    alone = [staged(tiny, pixels[i : i + 1], [text]) for i, text in enumerate(TEXTS)]
    assert together.shape == (4, 32, 32)
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-3)


def test_pictures_of_one_size_share_a_call_without_padding(tiny, pixels):
    shapes = []
    hook = tiny.adapter.module["detector"].register_forward_hook(
        lambda _, args, keys, output: shapes.append(tuple(keys["pixel_values"].shape)),
        with_kwargs=True,
    )
    staged(tiny, pixels, TEXTS)
    hook.remove()
    assert sorted(shapes) == [(1, 3, 64, 64), (1, 3, 96, 64), (2, 3, 64, 96)]


def test_sam_s_encoder_runs_once_per_image(tiny, pixels):
    calls = []
    encoder = tiny.adapter.module["segmenter"].vision_encoder
    hook = encoder.register_forward_hook(lambda *_: calls.append(1))
    with torch.inference_mode():
        features = tiny.adapter.encode_images(pixels)
        for text in TEXTS:
            tiny.adapter.decode(features, tiny.adapter.encode_texts([text] * 4))
    hook.remove()
    assert len(calls) == 1


def test_no_box_is_no_mask_and_many_boxes_come_in_parts(tiny, hub, pixels, tmp_path, monkeypatch):
    none = load_model(write_card(tmp_path, hub=hub, box_threshold=0.999999), device="cpu")
    logits = staged(none, pixels, TEXTS)
    assert torch.equal(logits, torch.full_like(logits, -20.0))

    whole = staged(tiny, pixels, TEXTS)
    monkeypatch.setattr(sys.modules[type(tiny.raw._boxes_to_masks).__module__], "BOXES_PER_CALL", 2)
    torch.testing.assert_close(staged(tiny, pixels, TEXTS), whole, rtol=0, atol=1e-4)


@settings(max_examples=40)
@given(height=st.integers(1, 130), width=st.integers(1, 130))
def test_sizes_are_read_off_the_canvas(tiny, height, width):
    """Whatever the picture, black and dark ones too: no pixel of it is exactly zero."""
    from transformers import GroundingDinoImageProcessor, SamImageProcessor

    rng = np.random.default_rng(height * 131 + width)
    picture = rng.integers(0, 256, (height, width, 3), dtype=np.uint8) // rng.integers(
        1, 256, dtype=np.uint8
    )
    pixels = tiny.adapter.preprocess(picture)[None]
    canvas = tiny.raw._canvas
    image = Image.fromarray(picture)
    for part, processor in (
        (
            canvas.detector_pixels(pixels),
            GroundingDinoImageProcessor(size={"shortest_edge": 64, "longest_edge": 96}),
        ),
        (
            canvas.segmenter_pixels(pixels),
            SamImageProcessor(size={"longest_edge": 64}, do_pad=False),
        ),
    ):
        expected = processor(image, return_tensors="pt").pixel_values[0]
        rows, columns = own(tiny).seen_sizes(part)[0].tolist()
        assert (rows, columns) == tuple(expected.shape[1:])
        assert torch.equal(part[0, :, :rows, :columns], expected)
        assert part[0].count_nonzero() == expected.numel()


def test_prompts_are_lowered_phrases_with_a_full_stop(tiny):
    texts = ["Polyp", " polyp. ", "", "a, b"]
    ids, mask = tiny.raw.tokenize(texts)
    by_id = dict(enumerate(vocabulary()))

    def pieces(row):
        return [by_id[number] for number in ids[row, : int(mask[row].sum())].tolist()]

    assert ids.shape == mask.shape == (4, 256)
    assert pieces(0) == pieces(1) == ["[CLS]", "polyp", ".", "[SEP]"]
    assert pieces(2) == ["[CLS]", ".", "[SEP]"]
    assert pieces(3) == ["[CLS]", "a", ",", "b", ".", "[SEP]"]
    assert tiny.adapter.count_tokens(texts) == ((4, 4, 3, 6), (False,) * 4)


def test_a_long_prompt_keeps_its_full_stop(tiny):
    texts = ["polyp " * 253, "polyp " * 254]
    ids, mask = tiny.raw.tokenize(texts)
    assert mask.sum(1).tolist() == [256, 256]
    assert ids[:, -2:].tolist() == [[1012, 102]] * 2
    assert tiny.adapter.count_tokens(texts) == ((256, 257), (False, True))


def test_the_text_embedding_is_what_enters_the_fusion(tiny, pixels):
    """Caught on its way into the detector's encoder, where text and image meet."""
    seen = []
    model = tiny.adapter.module["detector"].model
    hook = model.encoder.register_forward_pre_hook(
        lambda _, args, keys: seen.append((keys["text_features"], keys["text_attention_mask"])),
        with_kwargs=True,
    )
    staged(tiny, pixels[:1], TEXTS[:1])
    hook.remove()
    ((tokens, is_padding),) = seen
    with torch.inference_mode():
        embedding = tiny.raw.text_embedding(TEXTS[:2])
    assert not is_padding.any()
    torch.testing.assert_close(embedding[0], tokens[0].mean(dim=0), rtol=0, atol=1e-5)


def test_it_keeps_the_contract(tiny):
    found = check_model(tiny)

    for capability in (Staged, Tokenizes, EmbedsText):
        assert isinstance(tiny.raw, capability)
    assert [r for r in found if r.outcome in (Outcome.FAILS, Outcome.FINDING)] == []
    assert "the context is 256 tokens" in next(r.sentence for r in found if r.name == "tokens")


def test_random_weights_read_with_a_stand_in_and_say_so(tmp_path):
    model = load_model(write_card(tmp_path), random_weights=True, device="cpu")
    ids, mask = model.raw.tokenize(["Zyx-1", "?"])
    found = {r.name: r for r in check_model(model)}

    assert len(model.notes) == 1
    assert found["notes"].outcome is Outcome.FINDING
    assert "a stand-in of the same size reads the prompts character by character" in (
        found["notes"].sentence
    )
    assert mask.sum(1).tolist() == [2 + 5 + 1, 2 + 1 + 1]
    assert 100 not in ids
    assert ids[1, 1:3].tolist() == [1029, 1012]
    assert not [r.sentence for r in found.values() if r.outcome is Outcome.FAILS]


@pytest.fixture(scope="module")
def stand_in(tiny):
    return own(tiny).Phrases(own(tiny).stand_in(30522), context_length=256)


@given(st.text(string.ascii_letters + string.digits + string.punctuation + " ", max_size=40))
def test_the_stand_in_knows_every_ascii_word(stand_in, text):
    # Special tokens written out are tokens, as in the published tokenizer.
    assert 100 not in stand_in([text.replace("[", "").replace("]", "")])[0]


def test_real_weights_without_a_vocabulary_are_refused(hub, tmp_path, monkeypatch):
    def snapshot_download(*_, **__):
        raise ConnectionError("no route")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    bare = tmp_path / "hub"
    for part in ("detector", "segmenter"):
        (bare / part).mkdir(parents=True)
        for name in ("config.json", "model.safetensors"):
            (bare / part / name).write_bytes((hub / part / name).read_bytes())
    text = "'IDEA-Research/grounding-dino-tiny' cannot be had (ConnectionError: no route)"
    with pytest.raises(ModelError, match=re.escape(text)):
        load_model(write_card(tmp_path, hub=bare))


def test_a_tokenizer_json_is_the_same_vocabulary(tiny, hub, tmp_path):
    content = {"model": {"type": "WordPiece", "vocab": {p: n for n, p in enumerate(vocabulary())}}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    card = write_card(tmp_path, hub=hub)
    card.write_text(card.read_text() + "tokenizer: {path: tokenizer.json}\n")
    model = load_model(card, device="cpu")
    for ours, theirs in zip(model.raw.tokenize(TEXTS), tiny.raw.tokenize(TEXTS), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("vocab.txt", "\n".join(vocabulary()[:-1]), "vocab.txt: 30521 pieces, 0 of the detector's"),
        (
            "vocab.txt",
            "\n".join(["x", *vocabulary()[:-1]]),
            "7 of the detector's own tokens in other places, first '[PAD]'. It needs 30522 pieces",
        ),
        (
            "tokenizer.json",
            "{}",
            "tokenizer.json: not a WordPiece vocabulary (KeyError). One piece",
        ),
        ("tokenizer.json", "[1]", "tokenizer.json: not a WordPiece vocabulary (TypeError). One"),
    ],
)
def test_another_vocabulary_is_refused(hub, tmp_path, name, content, text):
    (tmp_path / name).write_text(content)
    card = write_card(tmp_path, hub=hub)
    card.write_text(card.read_text() + f"tokenizer: {{path: {name}}}\n")
    with pytest.raises(ModelError, match=re.escape(text)):
        load_model(card, device="cpu")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"box_threshold": 1}, "settings.box_threshold: found 1. Input should be less than 1"),
        (
            {"detector": {"d_modle": 3}},
            "settings.detector: unknown setting 'd_modle'. Did you mean",
        ),
        (
            {"segmenter": {"visoin_config": {}}},
            "settings.segmenter: unknown setting 'visoin_config'. Did you mean 'vision_config'",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused(tmp_path, changes, text):
    with pytest.raises(CardError, match=re.escape(text)):
        load_model(write_card(tmp_path, **changes), random_weights=True)


def test_the_published_sizes_are_the_processors_defaults():
    from transformers import GroundingDinoConfig, GroundingDinoImageProcessor, SamConfig

    card = load_model_card("grounded-sam").card
    size = GroundingDinoImageProcessor().size
    assert (card.settings["shortest_edge"], card.settings["longest_edge"]) == (
        size["shortest_edge"],
        size["longest_edge"],
    )
    assert card.weights.hub == card.tokenizer.hub == "IDEA-Research/grounding-dino-tiny"
    assert card.further_weights["segmenter"].hub == "facebook/sam-vit-base"
    assert SamConfig().vision_config.image_size == 1024
    assert GroundingDinoConfig().max_text_len == 256
