"""A BiomedCLIPSeg is filled from published towers and decoders, or from a finetuned file."""

import json
import re

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from harness.cli import app
from harness.errors import CardError, CheckpointError, ModelError
from harness.model.loading import load_model
from harness.training.finetune import Recipe, finetune

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(chr(97 + n) for n in range(26))]
PIECES += [f"word{n}" for n in range(40)]
SETTINGS = {
    "vocabulary": "published",
    "vocabulary_size": len(PIECES),
    "use_complex_transposed_convolution": True,
    "patch_size": 16,
}
TEXTS = ["a b c", "", "word3"]


def write_card(folder, extra="", *, name="card", **settings):
    path = folder / f"{name}.yaml"
    lines = "".join(
        f"  {key}: {json.dumps(value)}\n" for key, value in (SETTINGS | settings).items()
    )
    path.write_text(f"extends: biomedclipseg-small\nname: {name}\n{extra}settings:\n{lines}")
    return path


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A model of known weights, and its parts as their publishers would have saved them."""
    folder = tmp_path_factory.mktemp("source")
    (folder / "vocab.txt").write_text("\n".join(PIECES) + "\n")
    card = write_card(folder, "tokenizer: {path: vocab.txt}\n")
    model = load_model(card, random_weights=True, seed=7)
    state = model.adapter.module.state_dict()
    towers = {k.removeprefix("biomedclip."): v for k, v in state.items() if "decoder" not in k}
    decoder = {k: v for k, v in state.items() if k.startswith("decoder.")}
    hub, clipseg = folder / "hub", folder / "clipseg"
    hub.mkdir(), clipseg.mkdir()
    # Files saved by older libraries also hold the positions' numbers.
    extra = {"text.transformer.embeddings.position_ids": torch.arange(256)[None]}
    torch.save(towers | extra, hub / "open_clip_pytorch_model.bin")
    (hub / "open_clip_config.json").write_text(json.dumps(OPEN_CLIP))
    save_file(decoder | {"clip.logit_scale": torch.ones(())}, clipseg / "model.safetensors")
    torch.save({"state_dict": {f"net.{k}": v for k, v in state.items()}}, folder / "tuned.ckpt")
    return model, folder


OPEN_CLIP = {
    "model_cfg": {
        "embed_dim": 64,
        "vision_cfg": {"timm_model_name": "vit_base_patch16_224", "timm_proj": "linear"},
        "text_cfg": {
            "hf_proj_type": "mlp",
            "hf_pooler_type": "cls_last_hidden_state_pooler",
            "context_length": 256,
        },
    },
    "preprocess_cfg": {
        "mean": [0.48145466, 0.4578275, 0.40821073],
        "std": [0.26862954, 0.26130258, 0.27577711],
    },
}


def predicted(model):
    pixels = torch.linspace(-1, 1, 3 * 3 * 96 * 96).reshape(3, 3, 96, 96)
    with torch.inference_mode():
        return model.raw.predict(pixels, TEXTS)


def test_towers_and_decoder_come_from_two_publishers(tmp_path, source):
    model, folder = source
    words = f"tokenizer: {{path: {folder / 'vocab.txt'}}}\n"
    towers = f"weights: {{path: {folder / 'hub'}}}\n" + words
    decoder = f"further_weights: {{decoder: {{path: {folder / 'clipseg'}}}}}\n"

    new = load_model(write_card(tmp_path, towers, name="new"))
    pretrained = load_model(write_card(tmp_path, towers + decoder, name="pretrained"))

    assert torch.equal(predicted(pretrained), predicted(model))
    assert torch.equal(new.raw.text_embedding(TEXTS), model.raw.text_embedding(TEXTS))
    assert not torch.equal(predicted(new), predicted(model))
    for start in (new, pretrained):
        assert [note.text for note in start.notes] == [
            "the decoder was never trained on these towers: its masks mean nothing yet. Finetune "
            "the model, or give a finetuned file with --checkpoint."
        ]


def test_a_finetuned_file_of_the_reference_fills_everything(tmp_path, source):
    model, folder = source
    card = write_card(tmp_path, f"tokenizer: {{path: {folder / 'vocab.txt'}}}\n")
    tuned = load_model(card, checkpoint=folder / "tuned.ckpt")

    assert torch.equal(predicted(tuned), predicted(model))
    assert tuned.notes == ()


def test_trained_weights_with_the_stand_in_are_refused(tmp_path, source):
    """Never quietly: every prompt would be other words than the model was trained on."""
    _, folder = source
    text = (
        "the tokens are those of a stand-in: PubMedBERT's vocabulary lies only on a hub and is not "
        "at hand. Trained weights need the vocabulary they were trained with. Download 'vocab.txt' "
        "of microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract and write `tokenizer: {path: "
        "FILE}` on the card; or write `vocabulary: stand_in` under 'settings' to train from "
        "scratch with it."
    )
    card = write_card(tmp_path)
    with pytest.raises(ModelError, match="^" + re.escape(f"{card}: {text}") + "$"):
        load_model(card, checkpoint=folder / "tuned.ckpt")
    random = load_model(card, random_weights=True)
    assert [note.text for note in random.notes] == [text]


def test_the_built_in_card_says_where_the_vocabulary_is_to_be_put(tmp_path, source, monkeypatch):
    def snapshot_download(*_, **__):
        raise ConnectionError("no route")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    text = (
        "tokenizer.hub: 'microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract' cannot be had "
        "(ConnectionError: no route). The repository must be reachable or in the hub's cache. "
        "Download its 'vocab.txt' or 'tokenizer.json' elsewhere and put it beside the file of "
        "weights; or write a card"
    )
    # A file without a vocabulary beside it.
    (tmp_path / "tuned.ckpt").write_bytes((source[1] / "tuned.ckpt").read_bytes())
    for name in ("biomedclipseg", "biomedclipseg-d"):
        with pytest.raises(ModelError, match=re.escape(text)):
            load_model(name, checkpoint=tmp_path / "tuned.ckpt")


def test_finetuning_starts_from_the_towers_and_trains_the_decoder_alone(
    tmp_path, source, write_photos
):
    """As the reference did. The new card, elsewhere, still finds the vocabulary."""
    _, folder = source
    for split in ("train", "val"):
        write_photos(tmp_path / "data", "kvasir_polyp", split=split, n=2)
    (tmp_path / "vocab.txt").write_bytes((folder / "vocab.txt").read_bytes())
    places = f"weights: {{path: {folder / 'hub'}}}\ntokenizer: {{path: vocab.txt}}\n"
    card = write_card(tmp_path, places + "trainable: decoder\n")
    start = load_model(card, seed=42)
    out = finetune(
        card,
        ["kvasir_polyp"],
        out=tmp_path / "models" / "tuned",
        data_root=tmp_path / "data",
        recipe=Recipe(max_epochs=1, batch_size=2, seed=42),
        device="cpu",
        report=lambda figures: None,
    )
    tuned = load_model(out.card)

    before, after = (m.adapter.module.state_dict() for m in (start, tuned))
    changed = {key.partition(".")[0] for key in before if not torch.equal(before[key], after[key])}
    assert changed == {"decoder"}
    assert tuned.notes == ()
    assert tuned.card.tokenizer.path == str(tmp_path / "vocab.txt")


def test_a_run_with_the_stand_in_says_so(tmp_path, photo_root):
    card = write_card(tmp_path)
    out = tmp_path / "run"
    command = ["run", "empty_prompt", "--model", str(card), "--datasets", "kvasir_polyp"]
    command += ["--data-root", str(photo_root), "--out", str(out), "--random-weights"]
    result = CliRunner().invoke(app, [*command, "--limit", "2", "--quiet"])

    assert result.exit_code == 0, result.output
    (entry,) = json.loads((out / "run.json").read_text())["models"]
    assert f"note: {entry['model_id']}: the tokens are those of a stand-in" in result.stderr
    assert [note[:32] for note in entry["notes"]] == ["the tokens are those of a stand-"]


@pytest.mark.parametrize(
    ("part", "key", "value", "text"),
    [
        ("text_cfg", "hf_pooler_type", "mean_pooler", "model_cfg.text_cfg.hf_pooler_type = 'mean_"),
        ("text_cfg", "context_length", 77, "model_cfg.text_cfg.context_length = 77, this model"),
        (None, "mean", [0.5, 0.5, 0.5], "preprocess_cfg.mean = [0.5, 0.5, 0.5], this model has"),
    ],
)
def test_towers_of_another_configuration_are_refused(tmp_path, source, part, key, value, text):
    """Equal shapes, other numbers: nothing else would notice."""
    _, folder = source
    content = json.loads(json.dumps(OPEN_CLIP))
    (content["model_cfg"][part] if part else content["preprocess_cfg"])[key] = value
    (tmp_path / "hub").mkdir()
    weights = (folder / "hub" / "open_clip_pytorch_model.bin").read_bytes()
    (tmp_path / "hub" / "open_clip_pytorch_model.bin").write_bytes(weights)
    (tmp_path / "hub" / "open_clip_config.json").write_text(json.dumps(content))
    words = f"tokenizer: {{path: {folder / 'vocab.txt'}}}\n"
    card = write_card(tmp_path, "weights: {path: hub}\n" + words)
    with pytest.raises(CardError, match=re.escape(f"open_clip_config.json says {text}")):
        load_model(card)


def test_towers_and_decoders_of_another_size_are_refused(tmp_path, source):
    _, folder = source
    places = f"weights: {{path: {folder / 'hub'}}}\ntokenizer: {{path: {folder / 'vocab.txt'}}}\n"
    places += f"further_weights: {{decoder: {{path: {folder / 'clipseg'}}}}}\n"
    card = write_card(tmp_path, places, decoder_intermediate_size=128)
    with pytest.raises(
        CheckpointError, match=r"clipseg: the checkpoint does not fit .* mis-shaped"
    ):
        load_model(card)
    with pytest.raises(CheckpointError, match=r"hub: the checkpoint does not fit"):
        load_model(write_card(tmp_path, places, text_layers=1))


def test_only_the_decoder_comes_from_elsewhere(tmp_path, source):
    _, folder = source
    places = f"weights: {{path: {folder / 'hub'}}}\ntokenizer: {{path: {folder / 'vocab.txt'}}}\n"
    card = write_card(tmp_path, places + f"further_weights: {{neck: {{path: {folder / 'hub'}}}}}\n")
    text = f"{card}: further_weights: found 'neck'. Only 'decoder' can be filled from elsewhere."
    with pytest.raises(CardError, match=re.escape(text)):
        load_model(card)
