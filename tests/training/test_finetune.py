"""A training learns, stops, continues as if it had not stopped, and leaves a card."""

import json
import math
import re
import sys
import textwrap

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from harness.cards import load_model_card
from harness.data import load_samples
from harness.errors import CardError, DataError, ModelError, RunError, UsageError
from harness.model.loading import load_model
from harness.training import Recipe, finetune
from harness.training.examples import Examples, Shuffled, prompt_choices
from harness.training.recipe import segmentation_loss, soft_dice_loss
from harness.training.trainee import Trainee, image_dice
from harness.weights.loading import file_sha256, read_tensors

ADAPTER = '''
"""A network small enough to learn in a second."""
from typing import NamedTuple
import torch
from harness.model.contract import TokenCounts, device_of, standardise

class Maps(NamedTuple):
    maps: torch.Tensor

class Lengths(NamedTuple):
    lengths: torch.Tensor

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = torch.nn.Conv2d(3, 6, 3, padding=1)
        self.dropout = torch.nn.Dropout2d(0.1)
        self.decoder = torch.nn.Conv2d(6, 1, 1)

class Tiny:
    def __init__(self, settings, *, weights):
        self.input_size, self.module = (20, 24), Net()
        self.half = settings.get("half", False)
    def preprocess(self, image):
        return standardise(image, self.input_size, mean=(0.5,) * 3, std=(0.25,) * 3)
    def count_tokens(self, texts):
        return TokenCounts((0,) * len(texts), (False,) * len(texts))
    def encode_images(self, pixels):
        return Maps(self.module.dropout(torch.relu(self.module.encoder(pixels))))
    def encode_texts(self, texts):
        lengths = torch.tensor([len(t) / 100 for t in texts], device=device_of(self.module))
        return Lengths(lengths)
    def decode(self, image_features, text_features):
        logits = self.module.decoder(image_features.maps).squeeze(1)
        logits = logits + text_features.lengths[:, None, None]
        return logits[:, ::2, ::2] if self.half else logits

class Settled(Tiny):
    """Without dropout, with batch norm, and with a text tower that is trained."""
    def __init__(self, settings, *, weights):
        super().__init__(settings, weights=weights)
        self.module.dropout = torch.nn.BatchNorm2d(6)
        self.module.text = torch.nn.Linear(1, 1)
        self.n_encoded = 0
    def encode_images(self, pixels):
        self.n_encoded += len(pixels)
        return super().encode_images(pixels)
    def encode_texts(self, texts):
        return Lengths(self.module.text(super().encode_texts(texts).lengths[:, None]).squeeze(1))

class Black:
    __init__, preprocess, count_tokens = Tiny.__init__, Tiny.preprocess, Tiny.count_tokens
    def predict(self, pixels, texts):
        return self.module.decoder(self.module.encoder(pixels)).squeeze(1)

class Parted(Tiny):
    def decoder_modules(self):
        return [self.module.decoder]
'''
QUICK = {"learning_rate": 0.05, "batch_size": 4, "max_epochs": 4, "stop_patience": 50}
P6 = "one medium {color} round polyp, located in center of the image"
P7 = [
    "polyp which is a projecting growth of tissue",
    "polyp which is often a bumpy flesh in rectum",
]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A data root whose targets are bright squares on dark ground; row 0 of val has none."""
    root = tmp_path_factory.mktemp("data")
    folder = root / "kvasir_polyp"
    for name in ("anns", "images", "masks"):
        (folder / name).mkdir(parents=True)
    rng = np.random.default_rng(7)
    for split, n in (("train", 10), ("val", 5)):
        rows = []
        for index in range(n):
            image = rng.integers(0, 60, (30, 36, 3), np.uint8)
            mask = np.zeros((30, 36), np.uint8)
            if (split, index) != ("val", 0):
                top, left = rng.integers(0, 15, 2)
                mask[top : top + 14, left : left + 16] = 255
            image[mask > 0] += 120
            name = f"{split}{index}.png"
            Image.fromarray(image).save(folder / "images" / name)
            Image.fromarray(mask).save(folder / "masks" / name)
            color = ("pink", "white")[index % 2]
            prompts = {"p0": "", "p1": "polyp", "p6": P6.format(color=color), "p7": P7}
            rows.append({"img_name": name, "mask_name": name, "prompts": prompts})
        (folder / "anns" / f"{split}.json").write_text(json.dumps(rows))
    return root


@pytest.fixture
def card(tmp_path):
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "adapter.py").write_text(textwrap.dedent(ADAPTER))
    return write_card(folder)


def write_card(folder, *, adapter="Tiny", **keys):
    content = {"name": "tiny", "title": "Tiny", "adapter": f"adapter.py:{adapter}"}
    (folder / "card.yaml").write_text(yaml.safe_dump(content | {"threshold": 0.5} | keys))
    return folder / "card.yaml"


def train(card, root, out, *, report=lambda figures: None, prompt_type=None, **recipe):
    return finetune(
        card,
        ["kvasir_polyp"],
        out=out,
        data_root=root,
        prompt_type=prompt_type,
        recipe=Recipe(**(QUICK | recipe)),
        device="cpu",
        report=report,
    )


def samples_of(root, split):
    from harness.cards import load_dataset_card

    return load_samples(load_dataset_card("kvasir_polyp"), root, split)


def test_it_learns_and_leaves_a_card_that_loads(card, root, tmp_path):
    epochs = []
    done = train(card, root, tmp_path / "tiny-polyp", report=epochs.append, max_epochs=12)

    assert done.card == tmp_path / "tiny-polyp" / "card.yaml"
    assert [e["epoch"] for e in epochs] == list(range(12))
    assert epochs[-1]["train_loss"] < 0.7 * epochs[0]["train_loss"]
    assert done.figures["val_dice"] == max(e["val_dice"] for e in epochs) > 0.7
    assert done.figures["best_epoch"] == int(np.argmax([e["val_dice"] for e in epochs]))
    model = load_model(done.card)
    weights = tmp_path / "tiny-polyp" / "model.safetensors"
    assert model.weights_sha256 == file_sha256(weights) == done.figures["weights_sha256"]
    card_text = yaml.safe_load(done.card.read_text())
    assert card_text == {
        "extends": "../base/card.yaml",
        "name": "tiny-polyp",
        "title": "Tiny, finetuned on kvasir_polyp",
        "checkpoint": {"path": "model.safetensors", "sha256": model.weights_sha256},
        "trained_on": ["kvasir_polyp"],
        "prompt_type": "p6",
        "threshold": 0.5,
        "training": {"prompt_types": {"kvasir_polyp": "p6"}, **QUICK, "max_epochs": 12},
    }


def test_the_best_epoch_is_what_is_written(card, root, tmp_path):
    done = train(card, root, tmp_path / "out", max_epochs=6)
    model = load_model(done.card)
    val = Examples(samples_of(root, "val"), model.adapter, prompt_types=["p6"] * 5, recipe=Recipe())
    batch = val.validation_batch(range(5))

    with torch.inference_mode():
        images = model.adapter.encode_images(batch.pixels)
        logits = model.adapter.decode(images, model.adapter.encode_texts(batch.texts))
        dice = image_dice(torch.sigmoid(logits) > 0.5, batch.masks)

    assert float(dice.mean()) == pytest.approx(done.figures["val_dice"], abs=1e-6)
    best = torch.load(tmp_path / "out" / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["epoch"] == done.figures["best_epoch"]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError])
def test_a_stopped_training_continues_as_if_it_had_not(card, root, tmp_path, stop):
    """Weights, schedule, order, prompts, dropout and best epoch: the files are equal."""
    options = {"prompt_type": "random", "photometric": True, "plateau_patience": 0}
    undisturbed = train(card, root, tmp_path / "a" / "out", **options)

    def stopping(figures):
        if figures["epoch"] == 2:
            raise stop("pulled the plug")

    with pytest.raises(stop):
        train(card, root, tmp_path / "b" / "out", report=stopping, **options)
    assert not (tmp_path / "b" / "out" / "card.yaml").exists()
    epochs = []
    continued = train(card, root, tmp_path / "b" / "out", report=epochs.append, **options)

    assert [e["epoch"] for e in epochs] == [2, 3]
    for key in ("weights_sha256", "val_dice", "best_epoch", "epochs"):
        assert continued.figures[key] == undisturbed.figures[key]


def test_a_finished_training_is_returned_and_may_be_prolonged(card, root, tmp_path):
    first = train(card, root, tmp_path / "out", max_epochs=2)

    def unexpected(figures):
        raise AssertionError("trained again")

    again = train(card, root, tmp_path / "out", max_epochs=2, report=unexpected)
    epochs = []
    longer = train(card, root, tmp_path / "out", max_epochs=3, report=epochs.append)

    assert again.figures == first.figures
    assert [e["epoch"] for e in epochs] == [2]
    assert longer.figures["epochs"] == 3
    undisturbed = train(card, root, tmp_path / "other" / "out", max_epochs=3)
    assert undisturbed.figures["weights_sha256"] == longer.figures["weights_sha256"]


def test_a_folder_holds_one_training(card, root, tmp_path):
    train(card, root, tmp_path / "out", max_epochs=1)

    message = (
        f"{tmp_path / 'out' / 'training.json'}: another training was begun here: its "
        "'recipe.batch_size' is 4, this one's 5. A folder holds one training. "
        "Choose another --out, or delete the folder."
    )
    with pytest.raises(RunError, match="^" + re.escape(message)):
        train(card, root, tmp_path / "out", max_epochs=1, batch_size=5)
    with pytest.raises(RunError, match=r"its 'prompt_types' is \{'kvasir_polyp': 'p6'\}"):
        train(card, root, tmp_path / "out", max_epochs=1, prompt_type="p1")


def test_the_decoder_alone_is_trained_where_the_card_says_so(card, root, tmp_path):
    parted = write_card(card.parent, adapter="Parted", trainable="decoder")
    before = load_model(parted, random_weights=True, seed=42).adapter.module.state_dict()

    done = train(parted, root, tmp_path / "out")

    after = read_tensors(tmp_path / "out" / "model.safetensors")
    moved = {key for key, value in before.items() if not torch.equal(value, after[key])}
    assert moved == {"decoder.weight", "decoder.bias"}
    assert done.figures["n_parameters_trained"] == 7
    assert done.figures["n_parameters"] == 7 + 6 * 28


def test_a_model_without_parts_cannot_train_its_decoder(card, root, tmp_path):
    write_card(card.parent, trainable="decoder")
    text = f"{card}: trainable: the adapter 'Tiny' does not say which part its decoder is."
    with pytest.raises(CardError, match=re.escape(text)):
        train(card, root, tmp_path / "out")


def test_logits_of_another_size_are_brought_to_the_masks(card, root, tmp_path):
    write_card(card.parent, settings={"half": True})

    assert train(card, root, tmp_path / "out", max_epochs=8).figures["val_dice"] > 0.5


def test_it_stops_after_its_minutes_and_when_nothing_improves(card, root, tmp_path):
    timed = train(card, root, tmp_path / "a", max_minutes=0.0)
    # A rate of almost nothing: the first epoch stays the best.
    stuck = train(card, root, tmp_path / "b", learning_rate=1e-12, stop_patience=2, max_epochs=50)

    assert timed.figures["epochs"] == 1
    assert stuck.figures["epochs"] == 3
    assert stuck.figures["best_epoch"] == 0


def test_the_minutes_are_minutes(card, root, tmp_path, monkeypatch):
    """Steps of 70 seconds: the second of the first epoch's three is the last."""
    monkeypatch.setattr(Trainee, "elapsed_s", property(lambda t: 70.0 * t.global_step))
    figures = []
    done = train(card, root, tmp_path / "out", max_minutes=2.0, max_epochs=6, report=figures.append)
    assert done.figures["stopped_after_epochs"] == round(2 / 3, 3)
    assert [f["epoch"] for f in figures] == [0]
    assert load_model(done.card).weights_sha256 == done.figures["weights_sha256"]


def test_what_was_stopped_inside_an_epoch_continues_as_if_it_had_not(
    card, root, tmp_path, monkeypatch
):
    """The epoch that was cut short is trained anew from its first batch."""
    undisturbed = train(card, root, tmp_path / "a" / "out")
    with monkeypatch.context() as patched:
        patched.setattr(Trainee, "elapsed_s", property(lambda t: 60.0 * t.global_step))
        cut = train(card, root, tmp_path / "b" / "out", max_minutes=4.5)
    assert cut.figures["stopped_after_epochs"] == round(1 + 2 / 3, 3)
    epochs = []
    continued = train(card, root, tmp_path / "b" / "out", report=epochs.append)
    assert [e["epoch"] for e in epochs] == [1, 2, 3]
    assert "stopped_after_epochs" not in continued.figures
    for key in ("weights_sha256", "val_dice", "best_epoch", "epochs"):
        assert continued.figures[key] == undisturbed.figures[key]


def test_losses_that_are_not_finite_end_the_training(card, root, tmp_path):
    with pytest.raises(ModelError, match=r"finetune: epoch 0: the figures are .*nan.* All must be"):
        train(card, root, tmp_path / "out", learning_rate=1e30)


def test_what_cannot_be_trained_is_said(card, root, tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="the folder's name 'a b' becomes the model's name"):
        train(card, root, tmp_path / "a b")
    with pytest.raises(
        UsageError, match=r"'\.\./b' cannot be the model's name\. .* another --name"
    ):
        train(card, root, tmp_path / "ab", model_name="../b")
    with pytest.raises(
        DataError, match=r"etis_polyp: there is no 'val' split, only 'train', 'test'. Train"
    ):
        finetune(card, ["etis_polyp"], out=tmp_path / "out", data_root=root)
    with pytest.raises(
        DataError, match=r"unknown prompt type 'p9'.*Known prompt types: 'p0', 'p1'"
    ):
        train(card, root, tmp_path / "out", prompt_type="p9")
    monkeypatch.setitem(sys.modules, "lightning.pytorch", None)
    with pytest.raises(UsageError, match=r"Install it with `pip install 'vlsm-harness\[train\]'`"):
        train(card, root, tmp_path / "out")


def examples(root, prompt_type, **recipe):
    adapter = load_model("image-only-small", random_weights=True).adapter
    samples = samples_of(root, "train")
    types = [prompt_type] * len(samples)
    return Examples(samples, adapter, prompt_types=types, recipe=Recipe(**recipe))


def test_prompts_are_drawn_anew_each_epoch_and_the_same_again(root):
    data = examples(root, "p7")
    drawn = [data.training_batch(range(10), epoch=epoch).texts for epoch in range(6)]

    assert {text for texts in drawn for text in texts} == set(P7)
    assert len(set(map(tuple, drawn))) > 1
    assert data.training_batch([3], epoch=2).texts == [drawn[2][3]]
    assert data.validation_batch([0, 1]).texts == [P7[0]] * 2


def test_random_prompts_come_from_every_rung_but_the_empty_one(root):
    data = examples(root, "random")
    drawn = {t for e in range(8) for t in data.training_batch(range(10), epoch=e).texts}
    (choices, *_) = [prompt_choices(s, "random") for s in samples_of(root, "train")[:1]]

    assert drawn == {"polyp", *P7, P6.format(color="pink"), P6.format(color="white")}
    assert choices == [["polyp"], [P6.format(color="pink")], P7]


def test_examples_are_the_models_own_view(root):
    data = examples(root, "p6")
    batch = data.validation_batch([4])
    sample = samples_of(root, "train")[4]
    with Image.open(sample.image) as image, Image.open(sample.mask) as mask:
        adapter = load_model("image-only-small", random_weights=True).adapter
        expected = adapter.preprocess(image)
        target = np.asarray(mask.resize((160, 160), Image.Resampling.NEAREST)) > 127

    torch.testing.assert_close(batch.pixels[0], expected, rtol=1e-3, atol=1e-3)
    assert np.array_equal(batch.masks[0].numpy(), target)


def test_augmentation_keeps_or_mirrors_the_mask(root):
    plain = examples(root, "p6").validation_batch(range(10))
    assert torch.equal(examples(root, "p6").training_batch(range(10), epoch=0).pixels, plain.pixels)
    photometric = examples(root, "p6", photometric=True).training_batch(range(10), epoch=0)
    assert torch.equal(photometric.masks, plain.masks)
    assert (photometric.pixels - plain.pixels).abs().amax((1, 2, 3)).min() > 0.01
    mirrored = examples(root, "p6", flip=True).training_batch(range(10), epoch=0)
    flipped = [not torch.equal(a, b) for a, b in zip(mirrored.pixels, plain.pixels, strict=True)]
    assert 0 < sum(flipped) < 10
    for index, changed in enumerate(flipped):
        for ours, own in ((mirrored.masks, plain.masks), (mirrored.pixels, plain.pixels)):
            assert torch.equal(ours[index], own[index].flip(-1) if changed else own[index])


def test_pictures_beyond_the_budget_are_read_anew(root, monkeypatch):
    whole = examples(root, "p6")
    monkeypatch.setattr("harness.training.examples.CACHE_BYTES", 3 * 160 * 160 * 7)
    part = examples(root, "p6")
    for _ in range(2):
        ours, theirs = (data.validation_batch(range(10)) for data in (part, whole))
        assert torch.equal(ours.pixels, theirs.pixels)
    assert len(part._cache) == 3


def test_the_order_is_a_permutation_of_its_epoch():
    order, again = Shuffled(9, seed=1), Shuffled(9, seed=1)
    first = list(order)
    order.set_epoch(1)
    again.set_epoch(1)

    assert sorted(first) == sorted(order) == list(range(9))
    assert first != list(order) == list(again)
    assert len(order) == 9


@given(st.integers(0, 10_000), st.integers(1, 3), st.floats(0, 1))
def test_soft_dice_agrees_with_its_definition(seed, n, density):
    rng = np.random.default_rng(seed)
    p, y = rng.random((n, 4, 5)), rng.random((n, 4, 5)) < density

    expected = np.mean(
        [
            1
            - (2 * sum(a * b for a, b in zip(q.flat, z.flat, strict=True)) + 1e-5)
            / (sum(q.flat) + sum(z.flat) + 1e-5)
            for q, z in zip(p, y, strict=True)
        ]
    )
    ours = soft_dice_loss(torch.from_numpy(p), torch.from_numpy(y).double())
    assert float(ours) == pytest.approx(expected, abs=1e-12)


def test_the_loss_is_what_the_references_amounts_to(shared_reference):
    """MONAI's DiceCE on sigmoid outputs: its cross-entropy over one channel is exactly 0."""
    golden = json.loads((shared_reference / "golden" / "dice.json").read_text())["loss"]
    assert len(golden) == 4
    for case in golden:
        rng = np.random.RandomState(case["seed"])
        logits = np.float32(rng.standard_normal((2, 1, 8, 9)))
        targets = rng.rand(2, 1, 8, 9) < case["gt_density"]
        ours = segmentation_loss(
            torch.from_numpy(logits)[:, 0], torch.from_numpy(targets)[:, 0], cross_entropy=0.0
        )
        assert float(ours) == pytest.approx(case["dice_ce_loss"], abs=1e-6)


def test_the_cross_entropy_is_a_real_one():
    logits, targets = torch.tensor([[[2.0, -1.0]]]), torch.tensor([[[1.0, 0.0]]])
    alone = segmentation_loss(logits, targets, cross_entropy=0.0)
    both = segmentation_loss(logits, targets, cross_entropy=0.5)
    expected = -(math.log(1 / (1 + math.exp(-2))) + math.log(1 - 1 / (1 + math.exp(1)))) / 2

    assert float(both - alone) == pytest.approx(0.5 * expected, abs=1e-6)


def test_dice_of_images_follows_the_reference(shared_reference):
    cases = json.loads((shared_reference / "golden" / "dice.json").read_text())["cases"]
    counted = 0
    for case in cases:
        pred, gt = (torch.tensor(case[key]) for key in ("pred", "gt"))
        if pred.ndim == 2 and set(gt.flatten().tolist()) <= {0, 1}:
            expected = case["dice"][0][0]
            assert float(image_dice(pred[None] > 0, gt[None] > 0)) == pytest.approx(expected)
            counted += 1
    assert counted >= 10


def test_what_is_absent_is_learnt_to_be_left_out():
    """Soft Dice of an empty target has no gradient to speak of; cross-entropy has."""
    logits = torch.full((2, 4, 4), 2.0, requires_grad=True)
    targets = torch.zeros(2, 4, 4)
    targets[0, 0] = 1
    for learn_empty, moves in ((False, False), (True, True)):
        loss = segmentation_loss(logits, targets, cross_entropy=0.0, learn_empty=learn_empty)
        (gradient,) = torch.autograd.grad(loss, logits)
        assert bool(gradient[1].abs().max() > 1e-3) is moves
        assert bool((gradient[1] >= 0).all())
    plain = segmentation_loss(logits[:1], targets[:1], cross_entropy=0.3)
    other = segmentation_loss(logits[:1], targets[:1], cross_entropy=0.3, learn_empty=True)
    assert torch.equal(plain, other)  # of a target that is there nothing changes
    painted, left = (
        segmentation_loss(torch.full((1, 4, 4), v), targets[1:], cross_entropy=0, learn_empty=True)
        for v in (2.0, -20.0)
    )
    assert float(painted) == pytest.approx(math.log(1 + math.exp(2)))
    assert float(left) < 1e-6


def examples_with(root, card="kvasir_polyp", *, prompt_type="p6", **settings):
    from harness.cards import load_dataset_card
    from harness.training.negatives import AbsentPrompts

    recipe = Recipe(**settings)
    dataset = load_dataset_card(card)
    samples = load_samples(dataset, root, "train")
    types = {dataset.name: prompt_type}
    negatives = AbsentPrompts([dataset], samples, types, recipe.negative_kinds)
    model = load_model("phantom-image-only-crowd", device="cpu")
    return Examples(
        samples,
        model.adapter,
        prompt_types=[prompt_type] * len(samples),
        recipe=recipe,
        negatives=negatives if recipe.negatives else None,
    )


def test_negatives_have_empty_masks_and_texts_for_what_is_absent(root):
    plain = examples_with(root)
    mixed = examples_with(root, negatives=0.5, negative_kinds=("far", "nonsense"))
    n = len(plain)
    seen = 0
    for epoch in range(6):
        own = plain.training_batch(range(n), epoch=epoch)
        batch = mixed.training_batch(range(n), epoch=epoch)
        again = mixed.training_batch(range(n), epoch=epoch)
        assert batch.texts == again.texts
        for k in range(n):
            if batch.texts[k] == own.texts[k]:
                assert torch.equal(batch.masks[k], own.masks[k])
                assert torch.equal(batch.pixels[k], own.pixels[k])
            else:
                seen += 1
                assert "polyp" not in batch.texts[k]
                assert not batch.masks[k].any()
    assert 0.25 < seen / (6 * n) < 0.75
    assert "polyp" in " ".join(mixed.validation_batch(range(n)).texts)


def test_negatives_stand_on_the_rung_that_is_trained(root):
    """On another rung a prompt's length alone would tell it from the others."""
    for prompt_type, has_place in (("p6", True), ("p1", False)):
        mixed = examples_with(
            root, prompt_type=prompt_type, negatives=0.9, negative_kinds=("nonsense",)
        )
        batch = mixed.training_batch(range(len(mixed)), epoch=0)
        absent = [t for t, m in zip(batch.texts, batch.masks, strict=True) if not m.any()]
        assert absent
        assert all(("located in" in text) is has_place for text in absent)


def test_dropped_prompts_keep_their_masks(root):
    plain, dropped = examples_with(root), examples_with(root, prompt_dropout=0.5)
    n = len(plain)
    own, batch = (e.training_batch(range(n), epoch=3) for e in (plain, dropped))
    empty = [text == "" for text in batch.texts]
    assert 0 < sum(empty) < n
    assert torch.equal(own.masks, batch.masks)
    assert [t for t, e in zip(own.texts, empty, strict=True) if not e] == [
        t for t in batch.texts if t
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"negatives": 1.0}, "negatives: found 1.0. A share of the examples is needed, at least 0"),
        ({"prompt_dropout": -0.1}, "prompt_dropout: found -0.1. A share of the examples is needed"),
        ({"negative_kinds": ("far",)}, "kinds of negatives are named, and the share of negatives"),
        ({"freeze": "decoder"}, "freeze: found 'decoder'. The stages that can be left untrained"),
        ({"freeze": "text,text"}, "freeze: found 'text,text'. The stages that can be left untrai"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(card, root, tmp_path, settings, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        finetune(
            card, ["kvasir_polyp"], out=tmp_path / "m", data_root=root, recipe=Recipe(**settings)
        )


def test_unknown_kinds_and_kinds_that_never_apply_are_refused(root):
    with pytest.raises(DataError, match=r"negative_kinds: .*unknown kind 'nowhere'"):
        examples_with(root, negatives=0.1, negative_kinds=("nowhere",))
    with pytest.raises(
        DataError,
        match=r"nothing is known to be absent from the pictures of kvasir_polyp \(kinds: target\)",
    ):
        examples_with(root, negatives=0.1, negative_kinds=("target",))


def test_prompt_types_may_be_mixed(root):
    (sample, *_) = samples_of(root, "train")
    rungs = sorted(sample.prompts)
    assert prompt_choices(sample, f"{rungs[0]}, {rungs[-1]}") == [
        [p.text for p in sample.prompts[r]] for r in (rungs[0], rungs[-1])
    ]
    assert prompt_choices(sample, f"{rungs[0]}..{rungs[-1]}") == [
        [p.text for p in sample.prompts[r]] for r in sample.prompts
    ]
    with pytest.raises(DataError, match="prompt type"):
        prompt_choices(sample, "p6,p77")


def test_the_text_tower_stays_where_it_is_frozen():
    """What lies behind the text features, found by their gradients; all else is trained."""
    from harness.training.trainee import trained_parameters

    model = load_model("phantom-clipseg-solo", device="cpu")
    everything = trained_parameters(model)
    rest = {id(p) for p in trained_parameters(model, freeze="text")}
    frozen = {n for n, p in model.adapter.module.named_parameters() if id(p) not in rest}
    assert 0 < len(rest) < len(everything)
    assert any("text_model" in name for name in frozen)
    assert not any(part in name for name in frozen for part in ("vision_model", "decoder."))
    assert all(
        not p.requires_grad for n, p in model.adapter.module.named_parameters() if n in frozen
    )


def test_the_new_card_tells_the_recipe(card, root, tmp_path):
    recipe = Recipe(**QUICK, negatives=0.25, negative_kinds=("far",), prompt_dropout=0.1)
    made = finetune(
        card, ["kvasir_polyp"], out=tmp_path / "m", data_root=root, recipe=recipe, device="cpu"
    )
    training = yaml.safe_load(made.card.read_text())["training"]
    assert training["negatives"] == 0.25
    assert training["negative_kinds"] == ["far"]
    assert training["prompt_types"] == {"kvasir_polyp": "p6"}
    again = finetune(
        card, ["kvasir_polyp"], out=tmp_path / "m", data_root=root, recipe=recipe, device="cpu"
    )
    assert again.figures == made.figures


def settled(card, **settings):
    """The model with its stages told apart, as it is before a training."""
    write_card(card.parent, adapter="Settled", settings=settings)
    return load_model(card, random_weights=True, device="cpu", seed=42)


def weights_of(done):
    return read_tensors(done.card.parent / "model.safetensors")


def test_a_frozen_image_tower_stays_and_encodes_each_picture_once(
    card, root, tmp_path, monkeypatch
):
    """Keeping its features changes no result; batch norm in it counts nothing either."""
    from harness.training import trainee

    start = settled(card).adapter.module.state_dict()
    counts = []
    seen = trainee.Trainee.on_train_start

    def counting(self):
        counts.append(self)
        seen(self)

    monkeypatch.setattr(trainee.Trainee, "on_train_start", counting)
    kept = weights_of(train(card, root, tmp_path / "kept", freeze="image"))
    monkeypatch.setattr(trainee, "is_settled", lambda encode: False)
    anew = weights_of(train(card, root, tmp_path / "anew", freeze="image"))

    for key, value in kept.items():
        torch.testing.assert_close(value, anew[key], rtol=1e-4, atol=1e-5)
        stays = key.startswith(("encoder.", "dropout."))
        assert torch.equal(value, start[key]) == stays, key
    once, often = (one._adapter.n_encoded for one in counts)
    tried = 2 + 4  # to find what lies behind the features, and whether they are settled
    assert once == tried + 15
    assert often == 2 + 4 * 15


def test_features_that_change_are_not_kept(card, root):
    """Dropout that is no part of a frozen module, and pictures that are varied."""
    from harness.training.trainee import _kept_stages, trained_parameters

    tiny = load_model(card, random_weights=True, device="cpu")
    trained_parameters(tiny, freeze="image")
    assert _kept_stages(tiny, Recipe(freeze="image")) == {}
    model = settled(card)
    trained_parameters(model, freeze="image,text")
    assert set(_kept_stages(model, Recipe(freeze="image,text"))) == {"image", "text"}
    assert set(_kept_stages(model, Recipe(freeze="image, text", flip=True))) == {"text"}
    assert _kept_stages(model, Recipe()) == {}


def test_beyond_the_budget_rows_are_encoded_anew():
    from typing import NamedTuple

    from harness.training.encoded import EncodedOnce

    class Row(NamedTuple):
        value: torch.Tensor

    calls = []

    def rows(keys):
        def encode(place):
            calls.append(keys[place])
            return Row(torch.tensor([[float(ord(keys[place]))]]))

        return kept.rows(keys, encode).value.flatten().tolist()

    kept = EncodedOnce(budget_bytes=8)  # two rows of one float
    assert rows("aba") == [97, 98, 97]
    assert rows("cac") == [99, 97, 99]
    assert calls == ["a", "b", "c", "c"]


def test_the_text_tower_may_learn_at_its_own_rate(card, root, tmp_path):
    start = settled(card).adapter.module.state_dict()
    own = train(card, root, tmp_path / "own", text_learning_rate=0.0, weight_decay=0.0)
    state = weights_of(own)

    assert torch.equal(state["text.weight"], start["text.weight"])
    assert not torch.equal(state["encoder.weight"], start["encoder.weight"])
    assert yaml.safe_load(own.card.read_text())["training"]["text_learning_rate"] == 0.0
    message = r"a learning rate of the text tower is given, and nothing that is trained lies behind"
    with pytest.raises(UsageError, match=message):
        train(card, root, tmp_path / "m", text_learning_rate=0.1, freeze="text")


def test_a_black_box_has_no_stage_to_freeze(card, root, tmp_path):
    write_card(card.parent, adapter="Black")
    message = r"the adapter offers 'predict' alone, which has no image stage to freeze. A staged"
    with pytest.raises(CardError, match=message):
        train(card, root, tmp_path / "m", freeze="image")


def test_what_becomes_of_an_earlier_training_is_said(card, root, tmp_path):
    out = tmp_path / "out"
    first = train(card, root, out, max_epochs=1, model_name="mine")
    again = train(card, root, out, max_epochs=1)
    longer = train(card, root, out, max_epochs=2)
    renamed = train(card, root, out, max_epochs=2, model_name="yours")

    assert first.notes == ()
    assert again.notes == (f"{out}: the training had ended; nothing was trained again.",)
    assert longer.notes == (
        f"{out}: the training that was begun here went on; the card and the weights that it had "
        "ended with were written anew.",
    )
    assert load_model_card(longer.card).card.name == "yours"
    assert renamed.notes == (
        f"{out}: the training had ended; nothing was trained again.",
        f"{out}: the model was called 'mine' and is now called 'yours'.",
    )


def test_a_set_without_the_splits_is_told_how_to_get_them(card, root, tmp_path):
    own = tmp_path / "mine.yaml"
    own.write_text("name: mine\nsplits: [test]\nprompt_type: p1\n", encoding="utf-8")
    message = (
        "mine: there is no 'train' split, only 'test'. Training needs 'train' and 'val'. Give its "
        "table a column 'split' that says which row is which and read it anew (`vlsm-harness data "
        "init FOLDER --overwrite`), or take another data set."
    )
    with pytest.raises(DataError, match="^" + re.escape(message) + "$"):
        finetune(card, [own], out=tmp_path / "out", data_root=root)
