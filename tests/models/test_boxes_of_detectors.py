"""OWLv2, OmDet-Turbo and MM-Grounding-DINO with SAM: what their own forwards give, in stages."""

import re

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from harness.engine.batches import bytes_per_pair
from harness.errors import CardError, CheckpointError
from harness.model.loading import load_model
from tests.models.test_grounded_sam import SEGMENTER, SIZES, SMALL, vocabulary

OWL = {
    "vision_config": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 64,
    },
    "text_config": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    },
    "projection_dim": 32,
}
OMDET = {
    "backbone_config": {
        "model_type": "swin",
        "embed_dim": 16,
        "depths": [1, 1, 1, 1],
        "num_heads": [1, 2, 2, 4],
        "window_size": 4,
        "image_size": 64,
        "out_indices": [2, 3, 4],
    },
    "text_config": {
        "model_type": "clip_text_model",
        "hidden_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "projection_dim": 48,
    },
    "apply_layernorm_after_vision_backbone": False,
    "image_size": 64,
    # The library's decoder computes with another width than its own alone.
    "text_projection_in_dim": 48,
    "text_projection_out_dim": 48,
    "class_embed_dim": 48,
    "task_encoder_hidden_dim": 64,
    "num_queries": 10,
    "d_model": 32,
    "vision_features_channels": [32, 32, 32],
    "encoder_in_channels": [32, 64, 128],
    "encoder_attention_heads": 4,
    "encoder_dim_feedforward": 64,
    "decoder_hidden_dim": 32,
    "decoder_num_heads": 4,
    "decoder_num_layers": 2,
    "decoder_dim_feedforward": 64,
}
CARDS = {
    "owlv2-sam": {"detector": OWL, "box_threshold": 0.5},
    "omdet-turbo-sam": {"detector": OMDET, "box_threshold": 0.5},
    "mm-grounded-sam": {k: v for k, v in SMALL.items() if k != "segmenter"}
    | {"box_threshold": 0.02},
}
TEXTS = ["one small pink round polyp, located in the top left", "polyp", "", "two red tumors"]


def write_card(folder, name, *, hub=None, **settings):
    folder.mkdir(parents=True, exist_ok=True)
    changed = CARDS[name] | {"segmenter": SEGMENTER} | settings
    card = {"extends": name, "name": f"{name}-tiny", "settings": changed}
    if hub is not None:
        card["weights"] = {"path": str(hub / "detector")}
        card["further_weights"] = {"segmenter": {"path": str(hub / "segmenter")}}
    (folder / "card.yaml").write_text(yaml.safe_dump(card))
    return folder / "card.yaml"


@pytest.fixture(scope="module")
def hubs(tmp_path_factory, golden):
    """Folders in the hub's format, a pair for each card."""
    made = {}
    for name in CARDS:
        folder = tmp_path_factory.mktemp(name)
        module = load_model(write_card(folder, name), random_weights=True).adapter.module
        for part, inner in module.items():
            golden.fill(inner, prefix=f"{part}.")
            inner.save_pretrained(folder / part)
        made[name] = folder
    text = "\n".join(vocabulary()) + "\n"
    (made["mm-grounded-sam"] / "detector" / "vocab.txt").write_text(text)
    return made


@pytest.fixture(scope="module")
def models(hubs, tmp_path_factory):
    made = {}
    for name, hub in hubs.items():
        card = write_card(tmp_path_factory.mktemp("card"), name, hub=hub)
        made[name] = load_model(card, device="cpu")
    return made


@pytest.fixture(scope="module")
def pictures(golden):
    return [golden.picture(96)[:height, :width] for height, width in SIZES]


def staged(model, pictures, texts):
    pixels = torch.stack([model.adapter.preprocess(picture) for picture in pictures])
    with torch.inference_mode():
        return model.adapter.decode(
            model.adapter.encode_images(pixels), model.adapter.encode_texts(texts)
        )


def masks_of(model, picture, boxes, *, by_longer_side):
    """SAM's own masks of boxes in pixels, resized as its processor does.

    SAM's processor scales boxes by the rounded sides of its picture. OWLv2's lie on a square,
    and are scaled by the longer side alone: no more than half a pixel apart.
    """
    from transformers import SamImageProcessor

    processor = SamImageProcessor(size={"longest_edge": 64}, pad_size={"height": 64, "width": 64})
    inputs = processor(Image.fromarray(picture), return_tensors="pt")
    if len(boxes) == 0:
        return torch.full((32, 32), -20.0)
    height, width = picture.shape[:2]
    seen = inputs.reshaped_input_sizes.tolist()
    ratio = torch.tensor([seen[0][1] / width, seen[0][0] / height]).repeat(2)
    square = torch.full((4,), 64 / max(height, width))
    assert (boxes * (ratio - square)).abs().max() <= 0.75
    ratio = square if by_longer_side else ratio
    with torch.inference_mode():
        low = model.adapter.module["segmenter"](
            pixel_values=inputs.pixel_values,
            input_boxes=(boxes * ratio)[None],
            multimask_output=False,
        ).pred_masks
    return processor.post_process_masks(low, [(32, 32)], seen, binarize=False)[0].amax(dim=(0, 1))


def owl_boxes(model, picture, text):
    from transformers import Owlv2ImageProcessor

    processor = Owlv2ImageProcessor(size={"height": 64, "width": 64})
    ids, mask = model.raw.tokenize([text])
    with torch.inference_mode():
        output = model.adapter.module["detector"](
            input_ids=ids,
            attention_mask=mask,
            pixel_values=processor(Image.fromarray(picture), return_tensors="pt").pixel_values,
        )
    found = processor.post_process_object_detection(output, 0.5, target_sizes=[picture.shape[:2]])
    return found[0]["boxes"]


class Words:
    """CLIP's tokenizer as the processor of OmDet-Turbo calls it."""

    init_kwargs: dict = {}

    def __init__(self, tokenizer):
        self._tokenizer = tokenizer

    def __call__(self, text, **_):
        ids, mask = self._tokenizer(text)
        return {"input_ids": ids, "attention_mask": mask}


def omdet_boxes(model, picture, text):
    from transformers import DetrImageProcessor
    from transformers.models.omdet_turbo.processing_omdet_turbo import (
        _post_process_boxes_for_image,
        compute_score,
    )

    processor = DetrImageProcessor(size={"height": 64, "width": 64}, do_pad=False)
    names, masks = model.raw._tokenizer([text])
    tasks, task_masks = model.raw._tokenizer([f"Detect {text}."])
    with torch.inference_mode():
        output = model.adapter.module["detector"](
            pixel_values=processor(Image.fromarray(picture), return_tensors="pt").pixel_values,
            classes_input_ids=names,
            classes_attention_mask=masks,
            tasks_input_ids=tasks,
            tasks_attention_mask=task_masks,
            classes_structure=torch.tensor([1]),
        )
    scores, labels = compute_score(output.decoder_class_logits)
    return _post_process_boxes_for_image(
        output.decoder_coord_logits[0],
        scores[0],
        labels,
        1,
        picture.shape[:2],
        threshold=0.5,
        nms_threshold=0.5,
    )[0]


@pytest.mark.parametrize(
    ("name", "boxes_of"), [("owlv2-sam", owl_boxes), ("omdet-turbo-sam", omdet_boxes)]
)
def test_masks_are_those_of_the_official_pipeline(models, pictures, name, boxes_of):
    """One by one through the models' own forwards and processors, in a batch through ours."""
    model = models[name]
    logits = staged(model, pictures, TEXTS)
    counts = []
    for row, picture, text in zip(logits, pictures, TEXTS, strict=True):
        boxes = boxes_of(model, picture, text)
        counts.append(len(boxes))
        expected = masks_of(model, picture, boxes, by_longer_side=name == "owlv2-sam")
        torch.testing.assert_close(row, expected, rtol=0, atol=1e-3)
    assert max(counts) > 1


def test_old_text_features_are_not_kept(models, pictures, golden):
    """transformers' OmDet-Turbo goes on with those of the weights before."""
    model = models["omdet-turbo-sam"]
    module = model.adapter.module
    before = staged(model, pictures[:1], ["polyp"])
    state = {key: value.clone() for key, value in module.state_dict().items()}
    omdet_boxes(model, pictures[0], "polyp")  # fills the cache of the library
    moved = {
        key: value.flip(0) if "language_backbone" in key else value for key, value in state.items()
    }
    module.load_state_dict(moved)
    after = staged(model, pictures[:1], ["polyp"])
    module.load_state_dict(state)
    assert (before - after).abs().max() > 0.1
    assert torch.equal(staged(model, pictures[:1], ["polyp"]), before)
    module["detector"].language_cache_class.cache.clear()
    module["detector"].language_cache_prompt.cache.clear()


@pytest.mark.parametrize("name", CARDS)
def test_a_picture_of_nothing_is_measured(models, name):
    """What chooses the size of batches gives zeros, which look like padding alone."""
    assert bytes_per_pair(models[name]) > 0


def test_owlv2_cuts_at_16_tokens(models):
    counts = models["owlv2-sam"].adapter.count_tokens([TEXTS[0], "red " * 14, "red " * 15])
    assert counts.truncated == (False, False, True)
    assert models["omdet-turbo-sam"].adapter.count_tokens(["polyp"]).n_tokens == (6,)


def test_grounding_dino_and_its_successor_refuse_each_other(models, hubs, tmp_path):
    """The keys of one are all keys of the other: the wrong class would load without a word."""
    hub = hubs["mm-grounded-sam"]
    gd = write_card(tmp_path / "gd", "mm-grounded-sam", hub=hub, family="grounding-dino")
    text = "model_type is 'mm-grounding-dino', GroundingDinoForObjectDetection has 'grounding-dino'"
    with pytest.raises(CheckpointError, match=text):
        load_model(gd, device="cpu")
    whole = tmp_path / "mm.safetensors"
    module = models["mm-grounded-sam"].adapter.module
    save_file({k: v.clone() for k, v in module.state_dict().items()}, whole)
    (gd.parent / "vocab.txt").write_text("\n".join(vocabulary()) + "\n")
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary()) + "\n")
    own = write_card(tmp_path / "own", "mm-grounded-sam")
    assert load_model(own, checkpoint=whole, device="cpu").weights_sha256
    gd = write_card(tmp_path / "gd", "mm-grounded-sam", family="grounding-dino")
    with pytest.raises(CheckpointError, match="more. Its keys look like the model 'mm-grounded-s"):
        load_model(gd, checkpoint=whole, device="cpu")
    state = load_file(whole)
    kept = {key: value for key, value in state.items() if "class_embed" not in key}
    save_file(kept, tmp_path / "gd.safetensors")
    with pytest.raises(CheckpointError, match="missing, first 'detector.*class_embed"):
        load_model(own, checkpoint=tmp_path / "gd.safetensors", device="cpu")


@pytest.mark.parametrize(
    ("name", "settings", "text"),
    [
        ("owlv2-sam", {"box_threshold": 1}, "settings.box_threshold: found 1. Input should be"),
        ("owlv2-sam", {"detector": {"x": 1}}, "settings.detector: unknown setting 'x'"),
        (
            "omdet-turbo-sam",
            {"detector": OMDET | {"num_feature_levels": 2}},
            "settings.detector.num_feature_levels: found 2. This adapter keeps 3 levels.",
        ),
        ("mm-grounded-sam", {"family": "dino"}, "settings.family: found 'dino'. Input should be"),
    ],
)
def test_settings_that_cannot_be_are_refused(tmp_path, name, settings, text):
    with pytest.raises(CardError, match=re.escape(text)):
        load_model(write_card(tmp_path, name, **settings), random_weights=True)
