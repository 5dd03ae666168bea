"""The control: whatever the prompt, the same mask."""

import hashlib
import re
from functools import partial

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from harness.cards import load_model_card
from harness.errors import CardError, CheckpointError
from harness.model.contract import EmbedsText, Staged
from harness.model.loading import load_model

SMALL = "extends: image-only\nname: image-only\nsettings: {input_size: 64}\n"


@pytest.fixture(scope="module")
def card(tmp_path_factory):
    path = tmp_path_factory.mktemp("image_only") / "card.yaml"
    path.write_text(SMALL)
    return path


@pytest.fixture(scope="module")
def model(card):
    return load_model(card, random_weights=True)


def test_the_card_says_that_it_is_a_control():
    for name in ("image-only", "image-only-small"):
        model = load_model(name, random_weights=True)
        assert model.card.control
        assert model.model_id.startswith(f"{name}-random0@")


def test_no_text_changes_a_logit(model):
    pixels = torch.rand(4, 3, 64, 64)
    with torch.inference_mode():
        images = model.adapter.encode_images(pixels)
        one = model.adapter.decode(images, model.adapter.encode_texts(["", "a", "b c", "d"]))
        other = model.adapter.decode(images, model.adapter.encode_texts(["e"] * 4))

    assert one.shape == (4, 64, 64)
    assert torch.equal(one, other)
    assert one.std() > 0
    assert not torch.equal(one[0], one[1])


def test_it_has_no_text_to_show(model):
    assert isinstance(model.raw, Staged)
    assert not isinstance(model.raw, EmbedsText)
    assert model.adapter.count_tokens(["a b c", ""]) == ((0, 0), (False, False))


def test_a_finetuned_file_is_loaded(card, model, tmp_path):
    state = {k: v.contiguous() for k, v in model.adapter.module.state_dict().items()}
    save_file(state, tmp_path / "a.safetensors")
    pixels = model.adapter.preprocess(np.zeros((20, 30, 3), np.uint8))[None]

    again = load_model(card, checkpoint=tmp_path / "a.safetensors")

    with torch.inference_mode():
        expected = model.adapter.encode_images(pixels).logits
        assert torch.equal(again.adapter.encode_images(pixels).logits, expected)


def test_settings_are_checked(tmp_path):
    path = tmp_path / "card.yaml"
    path.write_text(SMALL.replace("input_size: 64", "input_size: 100"))
    text = f"{path}: settings.input_size: found 100. Input should be a multiple of 32. Correct"
    with pytest.raises(CardError, match=re.escape(text)):
        load_model(path, random_weights=True)


BASELINES = ("unet", "unetplusplus", "deeplabv3plus")
# From segmentation_models_pytorch 0.3.3, the library of the paper's time: number of tensors,
# SHA-256 of "key shape" lines (16 digits), and logits by the rule of the golden outputs.
REFERENCE = {
    "unet": (380, "17cd6f6fc3cb9e96", (-0.28218, -0.13498, -0.17187, -0.17411, -0.27385)),
    "unetplusplus": (452, "2a858cdfeb449658", (0.00542, 0.06661, 0.05706, 0.39951, 0.07333)),
    "deeplabv3plus": (379, "2a1041844299b1cd", (0.21929, 0.05312, -0.06023, 0.37177, 0.20316)),
}


@pytest.fixture(scope="module", params=BASELINES)
def baseline(request, tmp_path_factory):
    """Name, small-image card and model of a baseline; the network has its full size."""
    card = tmp_path_factory.mktemp(request.param) / "card.yaml"
    card.write_text(f"extends: {request.param}\nname: tried\nsettings: {{input_size: 64}}\n")
    return request.param, card, load_model(card, random_weights=True)


def test_a_baseline_has_the_papers_settings(baseline):
    name, _, model = baseline
    whole = load_model_card(name).card

    assert model.card.control
    assert whole.settings["encoder"] == "resnet50"
    assert whole.settings["input_size"] == 256
    assert whole.threshold == 0.5
    assert whole.weights.hub == "smp-hub/resnet50.imagenet"
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    grey = model.adapter.preprocess(np.full((9, 9, 3), 51, np.uint8))
    torch.testing.assert_close(grey[:, 0, 0], (0.2 - mean) / std)


def test_a_reference_checkpoint_of_a_baseline_gives_its_logits(baseline, golden, tmp_path):
    """Keys, shapes and logits are those of the library's version of that time."""
    name, card, model = baseline
    n_tensors, digest, expected = REFERENCE[name]
    shapes = golden.shapes(model.adapter.module)
    lines = "".join(f"{key} {shape}\n" for key, shape in sorted(shapes.items()))
    assert len(shapes) == n_tensors
    assert hashlib.sha256(lines.encode()).hexdigest()[:16] == digest

    path = golden.save_checkpoint(tmp_path / "best.ckpt", model.adapter.module)
    loaded = load_model(card, checkpoint=path)
    pixels = loaded.adapter.preprocess(golden.picture(64))[None]
    with torch.inference_mode():
        logits = loaded.adapter.encode_images(pixels).logits
    assert logits.shape == (1, 64, 64)
    assert logits[0, 5::13, 3::17].flatten()[:5].tolist() == pytest.approx(expected, abs=2e-5)
    assert loaded.notes == ()


@pytest.mark.filterwarnings("ignore:Attribute 'loss_fn' is an instance")
def test_a_lightning_checkpoint_comes_back(baseline, tmp_path):
    """Saved by Lightning around the network, with the objects that it pickles beside it."""
    pl = pytest.importorskip("lightning.pytorch")
    _, card, model = baseline

    class Module(pl.LightningModule):
        def __init__(self, net, loss_fn, optimizer):
            super().__init__()
            self.save_hyperparameters(ignore=["net"], logger=False)
            self.net = net

        def configure_optimizers(self):
            return self.hparams.optimizer(self.parameters())

    module = Module(
        model.adapter.module, torch.nn.BCEWithLogitsLoss(), partial(torch.optim.Adam, lr=1e-3)
    )
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(tmp_path / "last.ckpt", weights_only=False)

    loaded = load_model(card, checkpoint=tmp_path / "last.ckpt")

    state = loaded.adapter.module.state_dict()
    assert all(torch.equal(state[k], v) for k, v in model.adapter.module.state_dict().items())


def test_a_pretrained_encoder_is_a_start(baseline, tmp_path):
    """ImageNet's file: a classifier behind the encoder, and no counters of batch norm."""
    name, card, _ = baseline
    encoder = load_model(card, random_weights=True, seed=5).adapter.module.encoder.state_dict()
    kept = {k: v for k, v in encoder.items() if not k.endswith("num_batches_tracked")}
    save_file(
        kept | {"fc.weight": torch.ones(10, 2048), "fc.bias": torch.ones(10)},
        tmp_path / "model.safetensors",
    )
    (tmp_path / "start.yaml").write_text(
        f"extends: {name}\nname: start\nweights: {{path: .}}\nsettings: {{input_size: 64}}\n"
    )

    started = load_model(tmp_path / "start.yaml")

    assert torch.equal(started.adapter.module.encoder.conv1.weight, encoder["conv1.weight"])
    assert "only the encoder is pretrained: the masks mean nothing yet" in started.notes[0].text
    assert not started.notes[0].untrained_only


def test_whole_weights_need_no_note(card, model, tmp_path):
    state = {k: v.contiguous() for k, v in model.adapter.module.state_dict().items()}
    save_file({f"net.{k}": v for k, v in state.items()}, tmp_path / "model.safetensors")
    path = tmp_path / "card.yaml"
    path.write_text(SMALL + "weights: {path: .}\n")

    loaded = load_model(path)

    assert loaded.notes == ()
    assert torch.equal(loaded.adapter.module.encoder.conv1.weight, state["encoder.conv1.weight"])


def test_a_file_with_more_planes_does_not_fit(tmp_path):
    """The reference's pooled networks have 17 output planes, those of CAMUS 4."""
    import segmentation_models_pytorch as smp

    network = smp.Unet("resnet50", encoder_weights=None, classes=17)
    torch.save({f"net.{k}": v for k, v in network.state_dict().items()}, tmp_path / "pooled.ckpt")
    text = r"2 mis-shaped, first 'segmentation_head.0.weight' \(17, 16, 3, 3\) instead of \(1, 16"
    with pytest.raises(CheckpointError, match=text):
        load_model("unet", checkpoint=tmp_path / "pooled.ckpt")
