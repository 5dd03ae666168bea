"""SAM 3 as it is finetuned: Meta's names, low-rank additions, rules of reading, LiteText."""

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from harness.cards import load_model_card
from harness.errors import CardError, CheckpointError
from harness.model.checks import Outcome, check_model
from harness.model.loading import load_model
from tests.models.test_sam3 import TEXTS, TINY, write_card

MADE_BY_PEFT = Path(__file__).parent / "made_by_peft"
SEEN = {"score_threshold": 0.0}
LITE = TINY | {
    "text_config": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "projection_dim": 16,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "max_position_embeddings": 16,
    }
}


@pytest.fixture(scope="module")
def hub(tmp_path_factory, golden):
    folder = tmp_path_factory.mktemp("sam3")
    module = load_model(write_card(folder / "card"), random_weights=True).adapter.module
    golden.fill(module)
    module.save_pretrained(folder / "hub")
    return folder / "hub"


@pytest.fixture(scope="module")
def tiny(hub, tmp_path_factory):
    card = write_card(tmp_path_factory.mktemp("tiny"), weights=hub, **SEEN)
    return load_model(card, device="cpu")


@pytest.fixture(scope="module")
def pixels(tiny, golden):
    pictures = [golden.picture(90), golden.picture(120)[:70]]
    return torch.stack([tiny.adapter.preprocess(picture) for picture in pictures])


def names(model):
    """The module of Meta's names, which has a private name."""
    return sys.modules[f"{type(model.raw).__module__.rpartition('.')[0]}.meta_names"]


def answer(model, pixels):
    with torch.inference_mode():
        return model.adapter.decode(
            model.adapter.encode_images(pixels), model.adapter.encode_texts(TEXTS[: len(pixels)])
        )


def with_lora(folder, hub, place, **lora):
    card = write_card(folder, weights=hub, **SEEN)
    content = yaml.safe_load(card.read_text()) | {"lora": {"path": str(place)} | lora}
    card.write_text(yaml.safe_dump(content))
    return card


def as_metas(model):
    """The weights of a model under Meta's names, what has no place in it included."""
    rules, state = names(model), model.adapter.module.state_dict()
    keys = [f"{meta}.{leaf}" for meta in rules._MODULES for leaf in ("weight", "bias")]
    for meta in rules._ATTENTION:
        block, out = (
            ("qkv.", "proj.") if meta.startswith(rules._TRUNK) else ("in_proj_", "out_proj.")
        )
        keys += [f"{meta}.{part}{leaf}" for part in (block, out) for leaf in ("weight", "bias")]
    made = {}
    for key in [*keys, *rules._PARAMETERS]:
        for number in range(10):
            name = key.replace("#", str(number))
            if name in made or not set(rules._find(name).ours) <= set(state):
                continue
            value = torch.cat([state.pop(ours) for ours in rules._find(name).ours])
            if key.endswith("trunk.pos_embed"):
                value = torch.cat([torch.full_like(value[:, :1], 9.0), value], dim=1)
            made[name] = value.T if key.endswith("encoder.text_projection") else value
    assert not state
    rotation = "backbone.vision_backbone.trunk.blocks.0.attn.freqs_cis"
    made[rotation] = torch.ones(4, 2, dtype=torch.complex64)
    made["geometry_encoder.points_direct_project.weight"] = torch.ones(32, 2)
    return made


def test_every_name_of_the_published_model_has_its_place(tiny, shared_reference):
    """The expanded table of the reference, key by key."""
    folder, rules = shared_reference / "sam3", names(tiny)
    table = json.loads((folder / "meta_to_hf_table.json").read_text())
    keys = json.loads((folder / "meta_keys.json").read_text())["detector_keys"]
    ours = json.loads((folder / "hf_sam3_keys.json").read_text())
    assert {key: list(rules._find(key).ours) for key in table} == {
        key: row["hf"] for key, row in table.items()
    }
    for prefix in ("detector.", "", "module.detector."):
        state = {
            key.replace("detector.", prefix, 1): torch.empty(row["shape"], device="meta")
            for key, row in keys.items()
        }
        told = rules.translate(state | {"tracker.mask_downsample.weight": torch.empty(1)})
        assert {key: list(v.shape) for key, v in told.tensors.items()} == {
            key: row["shape"] for key, row in ours.items()
        }
        assert len(told.left_out) == 61
    modules = json.loads((folder / "lora_layouts.json").read_text())["targets"]
    assert len(modules) == 458
    for path, row in modules.items():
        assert list(rules._find(f"{path}.weight").ours) == row["hf_weight"]


@pytest.mark.parametrize(
    ("wrap", "prefix"),
    [
        (lambda state: {"model": state, "optimizer": {"0": torch.ones(3)}}, "detector."),
        (lambda state: state, ""),
        (lambda state: {"state_dict": state}, "module.detector."),
    ],
)
def test_a_full_finetune_under_metas_names(tiny, pixels, tmp_path, wrap, prefix):
    state = {prefix + key: value for key, value in as_metas(tiny).items()}
    state["tracker.transformer.encoder.layers.0.self_attn.q_proj.weight"] = torch.ones(2, 2)
    torch.save(wrap(state), tmp_path / "medical.pt")
    card = write_card(tmp_path, **SEEN)

    model = load_model(card, checkpoint=tmp_path / "medical.pt", device="cpu")

    ours, theirs = model.adapter.module.state_dict(), tiny.adapter.module.state_dict()
    assert all(torch.equal(ours[key], value) for key, value in theirs.items())
    assert {m.eps for m in model.adapter.module.modules() if isinstance(m, torch.nn.LayerNorm)} == {
        1e-5
    }
    assert (answer(model, pixels) - answer(tiny, pixels)).abs().max() < 0.05
    assert model.notes[-1].text.startswith("medical.pt: read under the names of its own project")
    assert "3 of its tensors have no place in it" in model.notes[-1].text


def test_a_name_that_is_not_metas_is_refused(tiny, tmp_path):
    for strange in ("transformer.decoder.adapter.weight", "backbone.language_backbone.prefix"):
        torch.save(as_metas(tiny) | {strange: torch.ones(2)}, tmp_path / "a.pt")
        text = "a.pt: the checkpoint has Meta's names of SAM 3, and 1 tensors that are not among"
        with pytest.raises(CheckpointError, match=re.escape(text) + f".*{strange}"):
            load_model(write_card(tmp_path), checkpoint=tmp_path / "a.pt")
    state = as_metas(tiny)
    del state["transformer.decoder.presence_token.weight"]
    torch.save(state, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"1 missing, first 'detr_decoder\.presence_token"):
        load_model(write_card(tmp_path), checkpoint=tmp_path / "a.pt")
    state["segmentation_head.cross_attend_prompt.in_proj_weight"] = torch.ones(32, 32)
    torch.save(state, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"three equal blocks of its rows"):
        load_model(write_card(tmp_path), checkpoint=tmp_path / "a.pt")


def test_the_token_is_metas_and_check_shows_what_it_does(tiny, hub, pixels, tmp_path):
    bare = load_model(
        write_card(tmp_path, weights=hub, prompt_class_token=False, **SEEN), device="cpu"
    )
    ids, mask = tiny.raw.tokenize(TEXTS[:2])
    with torch.inference_mode():
        without = bare.raw._logits(
            bare.adapter.module(pixel_values=pixels, input_ids=ids, attention_mask=mask)
        )
    torch.testing.assert_close(answer(bare, pixels), without, rtol=0, atol=1e-5)
    assert (answer(tiny, pixels) - without).abs().max() > 0.1
    found = {one.name: one for one in check_model(tiny)}["alternatives"]
    assert found.outcome is Outcome.HOLDS
    assert "prompt_class_token: false, as transformers' computes: logits differ by up to" in (
        found.sentence
    )


def lora_of(model, *, own_names):
    """Additions of rank 2 to a few modules: paths -> (out, in) and which of our weights."""
    rng = np.random.RandomState(5)
    paths = {
        "transformer.encoder.layers.0.cross_attn_image.k_proj": (
            "detr_encoder.layers.0.cross_attn.k_proj"
        ),
        "transformer.decoder.layers.1.linear1": "detr_decoder.layers.1.mlp.fc1",
        "backbone.language_backbone.encoder.transformer.resblocks.1.attn.out_proj": (
            "text_encoder.text_model.encoder.layers.1.self_attn.out_proj"
        ),
        "dot_prod_scoring.prompt_proj": "dot_product_scoring.text_proj",
    }
    state, deltas, made = model.adapter.module.state_dict(), {}, {}
    for meta, ours in paths.items():
        out, inside = state[f"{ours}.weight"].shape
        a, b = (torch.from_numpy(rng.randn(*s)).float() for s in ((inside, 2), (2, out)))
        made[ours if own_names else meta], deltas[f"{ours}.weight"] = (a, b), (a @ b).T
    if not own_names:  # the image tower keeps one block of rows for three
        a, b = (torch.from_numpy(rng.randn(*s)).float() for s in ((32, 2), (2, 96)))
        made["backbone.vision_backbone.trunk.blocks.1.attn.qkv"] = (a, b)
        for name, part in zip("qkv", (a @ b).T.chunk(3), strict=True):
            deltas[f"vision_encoder.backbone.layers.1.attention.{name}_proj.weight"] = part
    return made, deltas


@pytest.mark.parametrize("layout", ["meta", "transformers", "older", "older of meta"])
def test_low_rank_additions_are_merged_in_every_layout(tiny, hub, pixels, tmp_path, layout):
    made, deltas = lora_of(tiny, own_names=layout in ("transformers", "older"))
    turn = layout.startswith("older")
    flat = {}
    for path, (a, b) in made.items():
        flat[f"{path}.lora.lora_A"] = torch.nn.Parameter(a.T if turn else a)
        flat[f"{path}.lora.lora_B"] = torch.nn.Parameter(b.T if turn else b)
    if layout == "meta":
        flat["geometry_encoder.points_direct_project.lora.lora_A"] = torch.ones(2, 2)
        flat["geometry_encoder.points_direct_project.lora.lora_B"] = torch.ones(2, 32)
    torch.save(
        {"lora_state_dict": flat, "epoch": 3, "optimizer": {"state": {0: torch.ones(2)}}}
        if turn
        else flat,
        tmp_path / "best_lora_weights.pt",
    )
    card = with_lora(tmp_path / "card", hub, tmp_path / "best_lora_weights.pt", alpha=6)

    model = load_model(card, device="cpu")

    expected = tiny.adapter.module.state_dict() | {}
    for key, value in model.adapter.module.state_dict().items():
        added = 6 / 2 * deltas[key] if key in deltas else 0
        torch.testing.assert_close(value, expected[key] + added, rtol=0, atol=1e-5)
    assert f"{len(made)} low-rank additions of rank 2 (alpha 6)" in model.notes[-1].text
    assert ("1 have no counterpart" in model.notes[-1].text) == (layout == "meta")
    assert model.model_id != tiny.model_id
    assert (answer(model, pixels) - answer(tiny, pixels)).abs().max() > 0.1


def test_a_file_of_peft_gives_the_logits_of_peft(hub, pixels, tmp_path):
    """Both made by PEFT 0.21.2: the additions, and the logits of its own merged model."""
    model = load_model(with_lora(tmp_path, hub, MADE_BY_PEFT), device="cpu")
    expected = torch.from_numpy(np.load(MADE_BY_PEFT / "logits.npy"))
    torch.testing.assert_close(answer(model, pixels), expected, rtol=0, atol=1e-5)
    assert "43 low-rank additions of rank 2 (alpha 4)" in model.notes[-1].text


def peft(folder, tensors=None, **config):
    """PEFT's files with some of their content changed."""
    folder.mkdir()
    said = json.loads((MADE_BY_PEFT / "adapter_config.json").read_text()) | config
    (folder / "adapter_config.json").write_text(json.dumps(said))
    held = load_file(MADE_BY_PEFT / "adapter_model.safetensors")
    save_file(held | (tensors or {}), folder / "adapter_model.safetensors")
    return folder


PREFIX = "base_model.model.detr_decoder.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"use_dora": True}, CheckpointError, "adapter_config.json: found use_dora. Plain LoRA"),
        ({"peft_type": "IA3"}, CheckpointError, "found peft_type 'IA3'. Plain LoRA (peft_type"),
        ({"init_lora_weights": "pissa_niter_4"}, CheckpointError, "which changes the base. Plain"),
        ({"alpha_pattern": {"(a+)+$": 2}}, CheckpointError, "found the pattern '(a+)+$'."),
        ({"lora_alpha": "4"}, CheckpointError, "lora_alpha is '4', alpha_pattern {}. Positive"),
        ({"alpha": 5}, CardError, "lora.alpha: found 5, "),
        (
            {"tensors": {f"{PREFIX}.lora_magnitude_vector": torch.ones(32)}},
            CheckpointError,
            "lora_magnitude_vector' is no factor A or B of a LoRA: it is another kind of addition",
        ),
        (
            {"tensors": {f"{PREFIX}.lora_A.other.weight": torch.ones(2, 32)}},
            CheckpointError,
            "is the second factor A of 'detr_decoder.layers.0.self_attn.q_proj'. One set",
        ),
        (
            {"tensors": {"base_model.model.neck.fc.lora_A.weight": torch.ones(2, 32)}},
            CheckpointError,
            "and 1 without their other half, first 'neck.fc'. A file of low-rank additions",
        ),
        (
            {
                "tensors": {
                    "base_model.model.head.fc.lora_A.weight": torch.ones(2, 32),
                    "base_model.model.head.fc.lora_B.weight": torch.ones(32, 2),
                }
            },
            CheckpointError,
            "the addition to 'head.fc' finds no weight in this model. Every addition must find",
        ),
        (
            {"tensors": {f"{PREFIX}.lora_A.weight": torch.ones(2, 33)}},
            CheckpointError,
            "have the shapes (2, 33) and (32, 2), which make no addition to its weight",
        ),
        (
            {"tensors": {f"{PREFIX}.lora_A.weight": torch.full((2, 32), torch.nan)}},
            CheckpointError,
            "holds torch.float32 or numbers that are not finite. Finite floating-point factors",
        ),
        (
            {"tensors": {"base_model.model.classifier.weight": torch.ones(2)}},
            CheckpointError,
            "the addition to 'classifier' finds no weight in this model",
        ),
    ],
)
def test_additions_that_do_not_fit_are_refused(hub, tmp_path, changes, error, text):
    alpha = {"alpha": changes.pop("alpha")} if "alpha" in changes else {}
    folder = peft(tmp_path / "lora", **changes)
    with pytest.raises(error, match=re.escape(text)):
        load_model(with_lora(tmp_path / "card", hub, folder, **alpha), device="cpu")


def test_alpha_must_be_known_and_a_folder_have_additions(hub, tmp_path):
    flat = tmp_path / "best_lora_weights.pt"
    shapes = {"A": (32, 4), "B": (4, 32)}
    path = "transformer.decoder.layers.0.self_attn.q_proj"
    torch.save({f"{path}.lora.lora_{n}": torch.ones(s) for n, s in shapes.items()}, flat)
    text = f"lora: {flat} does not say alpha, and neither does the card. It scales every addition"
    with pytest.raises(CardError, match=re.escape(text) + ".*here 8"):
        load_model(with_lora(tmp_path / "card", hub, flat), device="cpu")
    with pytest.raises(CheckpointError, match="SHA-256 is .*, the card says 000"):
        load_model(with_lora(tmp_path / "card", hub, flat, alpha=8, sha256="0" * 64), device="cpu")
    with pytest.raises(CheckpointError, match="there are no low-rank additions. A file of tensors"):
        load_model(with_lora(tmp_path / "card", hub, tmp_path / "card"), device="cpu")
    # Square factors of full rank allow both orders.
    torch.save({f"{path}.lora.lora_{n}": torch.ones(32, 32) for n in "AB"}, flat)
    with pytest.raises(CheckpointError, match=r"its 1 pairs of factors allow both orders: A \(r"):
        load_model(with_lora(tmp_path / "card", hub, flat, alpha=8), device="cpu")
    with pytest.raises(CheckpointError, match=r"low-rank additions \(LoRA\).* Name the file on a"):
        load_model(write_card(tmp_path / "card", weights=hub), checkpoint=flat, device="cpu")


def outputs(scores, masks, boxes=None, presence=0.5):
    """What the model says of one picture: Q scores, masks of one pixel row, boxes."""
    from types import SimpleNamespace

    return SimpleNamespace(
        pred_logits=torch.tensor([scores]).logit(),
        presence_logits=torch.tensor([[presence]]).logit(),
        pred_masks=torch.tensor([masks]).float()[:, :, None],
        pred_boxes=torch.tensor([boxes or [[0, 0, 1, 1]] * len(scores)]).float(),
    )


def read(tiny, output, /, **settings):
    raw = tiny.raw
    before, raw.settings = raw.settings, raw.settings.model_copy(update=settings)
    try:
        return raw._logits(output)[0, 0].tolist()
    finally:
        raw.settings = before


def test_rules_of_reading(tiny):
    """Medical-SAM3: the best above 0.1 of class times presence. SAM3_LoRA: the class alone, NMS."""
    masks = [[5, -1, -1], [-1, 6, -1], [4, 4, -1]]
    out = outputs([0.9, 0.5, 0.88], masks, [[0, 0, 0.5, 1], [0.5, 0, 1, 1], [0, 0, 0.6, 1]])
    nothing = [-20.0] * 3
    medical = {"output": "best", "score_threshold": 0.1}
    assert read(tiny, out, **medical) == [5, -1, -1]
    assert read(tiny, out, **medical | {"score_threshold": 0.45}) == nothing
    assert read(tiny, out, output="instances", score_threshold=0.3) == [5, 4, -1]
    assert read(tiny, out, score="class", score_threshold=0.6) == [5, 4, -1]
    assert read(tiny, out, score="class", score_threshold=0.6, nms="box") == [5, -1, -1]
    assert read(tiny, out, score="class", score_threshold=0.4, nms="box") == [5, 6, -1]
    boxes = {"score": "class", "score_threshold": 0.6, "nms": "box", "nms_threshold": 0.9}
    assert read(tiny, out, **boxes) == [5, 4, -1]
    by_mask = {"score": "class", "score_threshold": 0.6, "nms": "mask"}
    assert read(tiny, out, **by_mask | {"nms_threshold": 0.4}) == [5, -1, -1]
    assert read(tiny, out, **by_mask | {"nms_threshold": 0.5}) == [5, 4, -1]
    equal = outputs([0.9, 0.9], masks[:2])
    assert read(tiny, equal, **medical) == [5, -1, -1]
    cards = {name: load_model_card(name).card.settings for name in ("sam3-medical", "sam3-lora")}
    assert (cards["sam3-medical"]["output"], cards["sam3-medical"]["score_threshold"]) == (
        "best",
        0.1,
    )
    assert (cards["sam3-lora"]["score"], cards["sam3-lora"]["nms"]) == ("class", "box")


def test_box_suppression_is_torchvisions(tiny):
    rng, rules = np.random.default_rng(0), sys.modules[type(tiny.raw).__module__]
    from torchvision.ops import nms

    for _ in range(20):
        corners = torch.from_numpy(rng.random((30, 2, 2))).float().sort(dim=1).values
        boxes, scores = corners.reshape(30, 4), torch.from_numpy(rng.random(30)).float()
        order = scores.argsort(descending=True)
        kept = rules.not_covered(rules.box_overlaps(boxes[order]) > 0.3)
        assert order[kept].tolist() == nms(boxes, scores, 0.3).tolist()


@pytest.fixture(scope="module")
def lite(tmp_path_factory, golden):
    folder = tmp_path_factory.mktemp("lite")
    card = {"extends": "sam3-lite-text", "name": "lite", "settings": {"config": LITE} | SEEN}
    (folder / "card.yaml").write_text(yaml.safe_dump(card))
    module = load_model(folder / "card.yaml", random_weights=True).adapter.module
    golden.fill(module)
    module.save_pretrained(folder / "hub")
    card["weights"] = {"path": str(folder / "hub")}
    (folder / "card.yaml").write_text(yaml.safe_dump(card))
    return load_model(folder / "card.yaml", device="cpu")


def test_lite_text_is_always_padded_to_one_length(lite, pixels):
    """The tower sees its padding: another batch must not be another length."""
    lengths = []
    hook = lite.adapter.module.text_encoder.register_forward_hook(
        lambda _, args, keys, output: lengths.append(keys["input_ids"].shape[1]), with_kwargs=True
    )
    with torch.inference_mode():
        alone, together = lite.raw.encode_texts(["polyp"]), lite.raw.encode_texts(TEXTS)
    hook.remove()
    assert lengths == [32, 32]
    torch.testing.assert_close(alone.tokens[0], together.tokens[1], rtol=0, atol=1e-5)
    found = check_model(lite)
    assert [r for r in found if r.outcome in (Outcome.FAILS, Outcome.FINDING)] == []
    assert lite.adapter.count_tokens(["red " * 31])[1] == (True,)


def test_each_of_the_two_is_refused_under_the_others_card(tiny, hub, lite, tmp_path):
    folder = Path(lite.card.weights.path)
    with pytest.raises(
        CheckpointError, match="model_type is 'sam3_lite_text', Sam3Model has 'sam3'"
    ):
        load_model(write_card(tmp_path / "a", config={}, weights=folder))
    text = "Its keys look like the model 'sam3-lite-text'"
    shutil.copy(folder / "model.safetensors", tmp_path / "lite.safetensors")
    with pytest.raises(CheckpointError, match=text):
        load_model(write_card(tmp_path / "a"), checkpoint=tmp_path / "lite.safetensors")
    shutil.copy(hub / "model.safetensors", tmp_path / "sam3.safetensors")
    card = tmp_path / "lite.yaml"
    settings = {"config": LITE}
    card.write_text(
        yaml.safe_dump({"extends": "sam3-lite-text", "name": "b", "settings": settings})
    )
    with pytest.raises(CheckpointError, match="Its keys look like the model 'sam3'"):
        load_model(card, checkpoint=tmp_path / "sam3.safetensors")
    torch.save(as_metas(tiny), tmp_path / "meta.pt")
    with pytest.raises(CheckpointError, match="1 missing|missing, first 'text_encoder"):
        load_model(card, checkpoint=tmp_path / "meta.pt")
