"""VLSM-Adapter: every variant is built from its keys and computes what its equations say."""

import functools
import json
import re

import numpy as np
import pytest
import torch

from harness.cards import load_model_card
from harness.errors import CardError, CheckpointError
from harness.model.adapters import adapter_class
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
    "text_layers": 5,
    "text_heads": 2,
    "context_length": 16,
    "projection_dim": 16,
    "reduce_dim": 8,
    "extract_layers": [0, 1, 3],
    "decoder_heads": 2,
    "decoder_intermediate_size": 16,
    "adapter_width": 6,
    "condition_width": 7,
}
VARIANTS = [(kind, parts) for kind in ("dense", "shallow") for parts in ("V", "VL", "VLC")]
NETWORKS = [f"vlsm_adapter_{kind}_{parts.lower()}" for kind, parts in VARIANTS]
TEXTS = ["one small pink circle polyp, located in right of the image", "", "two red polyp"]


def write_card(folder, *, extends="vlsm-adapter", **settings):
    folder.mkdir(parents=True, exist_ok=True)
    chosen = TINY | settings
    if extends != "vlsm-adapter":
        chosen = {k: v for k, v in chosen.items() if k not in ("adapter_width", "condition_width")}
    lines = "".join(f"  {key}: {json.dumps(value)}\n" for key, value in chosen.items())
    (folder / "card.yaml").write_text(f"extends: {extends}\nname: tiny\nsettings:\n{lines}")
    return folder / "card.yaml"


def write_checkpoint(path, module, golden, *, drop=()):
    """As Lightning writes it, with objects in it that only an unpickler could make."""
    state = {k: v for k, v in golden.state(module).items() if not k.startswith(tuple(drop) or "?")}
    hyper = {
        "optimizer": functools.partial(torch.optim.AdamW, lr=1e-3),
        "scheduler": torch.optim.lr_scheduler.ReduceLROnPlateau,
        "threshold": 0.5,
    }
    content = {"epoch": 3, "pytorch-lightning_version": "2.2.5", "hyper_parameters": hyper}
    content |= {"state_dict": {f"net.{k}": v for k, v in state.items()}, "callbacks": {}}
    torch.save(content | {"optimizer_states": [{"state": {}, "param_groups": []}]}, path)
    return path


@pytest.fixture
def loaded(tmp_path, golden):
    """A variant from its checkpoint, through a card that says another variant."""

    def load(kind, parts):
        made = load_model(write_card(tmp_path / "a", kind=kind, parts=parts), random_weights=True)
        file = write_checkpoint(tmp_path / "best.ckpt", made.adapter.module, golden)
        other = {"kind": "shallow" if kind == "dense" else "dense", "parts": "V"}
        card = write_card(tmp_path / "b", adapter_width=3, condition_width=2, **other)
        return load_model(card, checkpoint=file), made

    return load


@pytest.mark.parametrize(("kind", "parts"), VARIANTS)
def test_the_keys_say_which_variant_it_is(loaded, kind, parts):
    model, made = loaded(kind, parts)

    found, expected = model.adapter.module.state_dict(), made.adapter.module.state_dict()
    assert {k: v.shape for k, v in found.items()} == {k: v.shape for k, v in expected.items()}
    assert any(key.startswith("clip.") for key in found) == (kind == "shallow")
    assert ("cond_adapter.fc1.weight" in found) == (parts == "VLC")
    assert model.notes == ()


def adapted(parameters, name, x):
    """The equation of one adapter."""
    get = lambda part: parameters[f"{name}.{part}"]  # noqa: E731
    hidden = torch.relu(x @ get("fc1.weight").T + get("fc1.bias"))
    return x + torch.relu(hidden @ get("fc2.weight").T + get("fc2.bias"))


def plain_logits(model, pixels, texts):
    """transformers' own forward, with the adapters as hooks at their places."""
    module, settings = model.adapter.module, model.raw.settings
    weights, clipseg = module.state_dict(), module.clipseg
    has = {key.split(".")[0] for key in weights}
    hooks = []
    for letter, tower in (("v", clipseg.clip.vision_model), ("l", clipseg.clip.text_model)):
        for number, layer in enumerate(tower.encoder.layers[: max(settings.extract_layers)]):
            for place, part in (("attn", layer.self_attn), ("out", layer.mlp)):
                name = f"{letter}_{place}_adapters"
                if name in has:
                    hooks.append(part.register_forward_hook(_hook(weights, f"{name}.{number}")))
    for place in range(3 if "vision_extract_adapters" in has else 0):
        # The deepest activation goes to the first of the decoder's reductions.
        reduce = clipseg.decoder.reduces[len(settings.extract_layers) - 1 - place]
        name = f"vision_extract_adapters.{place}"
        hooks.append(
            reduce.register_forward_pre_hook(
                lambda _, given, n=name: (adapted(weights, n, given[0]),)
            )
        )
    ids, mask = model.raw.tokenize(texts)
    output = clipseg.clip.text_model(ids, attention_mask=mask, output_hidden_states=True)
    condition = clipseg.clip.text_projection(output.pooler_output)
    if "cond_adapter" in has:
        condition = adapted(weights, "cond_adapter", condition)
    for place, layer in enumerate(
        settings.extract_layers if "text_extract_adapters" in has else ()
    ):
        state = output.hidden_states[layer + 1][range(len(ids)), ids.argmax(1)]
        condition = condition + adapted(weights, f"text_extract_adapters.{place}", state)
    logits = clipseg(
        pixel_values=pixels, conditional_embeddings=condition, interpolate_pos_encoding=True
    ).logits
    for hook in hooks:
        hook.remove()
    return logits


def _hook(weights, name):
    def act(_, __, output):
        if isinstance(output, tuple):
            return (adapted(weights, name, output[0]), *output[1:])
        return adapted(weights, name, output)

    return act


@pytest.mark.parametrize(("kind", "parts"), VARIANTS)
def test_stages_equal_the_plain_forward_with_adapters_hooked_in(loaded, golden, kind, parts):
    model, _ = loaded(kind, parts)
    pixels = torch.stack([model.adapter.preprocess(golden.picture(48 + n)) for n in range(2)])
    rows = torch.tensor([0, 1, 1])

    with torch.inference_mode():
        images = golden.rows(model.adapter.encode_images(pixels), rows)
        staged = model.adapter.decode(images, model.adapter.encode_texts(TEXTS))
        full = plain_logits(model, pixels[rows], TEXTS)
        bare = model.raw._clipseg.predict(pixels[rows], TEXTS)

    torch.testing.assert_close(staged, full, rtol=0, atol=2e-5)
    assert (staged - bare).abs().max() > 1e-3


def test_where_clip_stands_twice_the_second_counts(tmp_path, golden):
    made = load_model(write_card(tmp_path, kind="shallow", parts="V"), random_weights=True)
    file = write_checkpoint(tmp_path / "a.ckpt", made.adapter.module, golden)
    content = torch.load(file, weights_only=False)
    content["state_dict"]["net.clip.logit_scale"] = torch.tensor(5.0)
    torch.save(content, file)

    model = load_model(tmp_path / "card.yaml", checkpoint=file)

    assert model.adapter.module.clipseg.clip.logit_scale.item() == 5.0


def test_a_checkpoint_without_the_repetition_is_taken(tmp_path, golden):
    made = load_model(write_card(tmp_path, kind="shallow", parts="VLC"), random_weights=True)
    file = write_checkpoint(tmp_path / "a.ckpt", made.adapter.module, golden, drop=["clip."])

    model = load_model(tmp_path / "card.yaml", checkpoint=file)

    assert not any(key.startswith("clip.") for key in model.adapter.module.state_dict())


def keys_of(settings):
    card = load_model_card("vlsm-adapter")
    with torch.device("meta"):
        kind = adapter_class(card)
        return kind({**card.card.settings, **settings}, weights=None).module.state_dict()


@pytest.mark.parametrize(("kind", "parts"), VARIANTS)
def test_it_is_refused_by_name_where_clipseg_is_asked_for(tmp_path, kind, parts):
    """All of CLIPSeg is in the file: without the adapters its masks would be others."""
    from harness.weights.loading import fit

    width = {"adapter_width": 64 if kind == "dense" else 512}
    given = {f"net.{k}": v for k, v in keys_of({"kind": kind, "parts": parts, **width}).items()}
    with torch.device("meta"):
        card = load_model_card("clipseg")
        module = adapter_class(card)(card.card.settings, weights=None).module
    text = (
        f"Its keys look like the model 'vlsm-adapter' ({kind} {parts}). Without the rest its masks "
        "would be others. Give it as --model vlsm-adapter=FILE."
    )
    with pytest.raises(CheckpointError, match=re.escape(text)):
        fit(module, given, where="best.ckpt")


def test_a_finetuned_clipseg_is_refused_by_name(tmp_path):
    with torch.device("meta"):
        card = load_model_card("clipseg")
        module = adapter_class(card)(card.card.settings, weights=None).module
    from harness.weights.loading import fit

    given = {f"net.clipseg.{k}": v for k, v in module.state_dict().items()}
    with torch.device("meta"):
        card = load_model_card("vlsm-adapter")
        module = adapter_class(card)(card.card.settings, weights=None).module
    text = "Its keys look like the model 'clipseg'."
    with pytest.raises(CheckpointError, match=re.escape(text) + ".*--model clipseg=FILE"):
        fit(module, given, where="best.ckpt")


def test_adapters_without_their_clipseg_are_a_part_of_the_model(tmp_path, golden):
    """What some trainers save: the parameters that were trained, and no others."""
    made = load_model(write_card(tmp_path, kind="dense", parts="V"), random_weights=True)
    state = {k: v for k, v in golden.state(made.adapter.module).items() if "_adapters." in k}
    torch.save({"state_dict": state}, tmp_path / "a.ckpt")
    text = "All of them are this model's: the file holds a part of it. All .* Save the whole"
    with pytest.raises(CheckpointError, match=text):
        load_model(tmp_path / "card.yaml", checkpoint=tmp_path / "a.ckpt")


def test_more_adapters_than_layers_are_refused(tmp_path, golden):
    made = load_model(write_card(tmp_path, kind="dense", parts="V"), random_weights=True)
    state = golden.state(made.adapter.module)
    for number in range(3, 9):
        for part in ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"):
            state[f"v_attn_adapters.{number}.{part}"] = state[f"v_attn_adapters.0.{part}"].clone()
    torch.save({"state_dict": state}, tmp_path / "a.ckpt")
    text = "9 adapters in 'v_attn_adapters', the model has 5 places"
    with pytest.raises(CheckpointError, match=text):
        load_model(tmp_path / "card.yaml", checkpoint=tmp_path / "a.ckpt")


def test_a_shape_that_the_file_cannot_hold_is_refused_before_anything_is_built(tmp_path, golden):
    made = load_model(write_card(tmp_path, kind="dense", parts="V"), random_weights=True)
    state = golden.state(made.adapter.module)
    state["v_attn_adapters.0.fc1.weight"] = torch.zeros(1).expand(10**9, 32)
    torch.save({"state_dict": state}, tmp_path / "a.ckpt")
    text = "says (1000000000, 32) numbers, the file has"
    with pytest.raises(CheckpointError, match=re.escape(text)):
        load_model(tmp_path / "card.yaml", checkpoint=tmp_path / "a.ckpt")


def test_a_shallow_text_adapter_needs_its_layer(tmp_path):
    card = write_card(tmp_path, kind="shallow", parts="VL", text_layers=2)
    with pytest.raises(CardError, match="reads layer 3, 'text_layers' is 2: take 'parts: V'"):
        load_model(card, random_weights=True)


def test_finetuning_trains_the_adapters_alone():
    from harness.training.trainee import trained_parameters

    model = load_model("vlsm-adapter-small")
    trained = {id(p) for p in trained_parameters(model)}
    names = {n for n, p in model.adapter.module.named_parameters() if id(p) in trained}
    assert names
    assert not any(name.startswith("clipseg.") for name in names)
    images = model.adapter.encode_images(torch.rand(1, 3, 96, 96))
    model.adapter.decode(images, model.adapter.encode_texts(["polyp"])).square().mean().backward()
    assert all(p.grad is not None for p in model.adapter.module.parameters() if id(p) in trained)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_full_size_equals_the_original(equals_the_original, name):
    assert equals_the_original(name, card="vlsm-adapter") >= 2


def test_the_published_counts_of_trained_numbers(shared_reference):
    """By shapes alone: trainable parameters of each network's manifest."""
    for name, (kind, parts) in zip(NETWORKS, VARIANTS, strict=True):
        folder = shared_reference / "adapters" / name
        manifest = json.loads((folder / "manifest.json").read_text())
        keys = json.loads((folder / "keys.json").read_text())
        width = {"adapter_width": 64 if kind == "dense" else 512}
        state = keys_of({"kind": kind, "parts": parts, **width})
        assert {f"net.{k}": list(v.shape) for k, v in state.items()} == {
            k: v["shape"] for k, v in keys.items()
        }
        own = {k: v for k, v in state.items() if "adapter" in k}
        assert sum(int(np.prod(v.shape)) for v in own.values()) == manifest["n_trainable"]
