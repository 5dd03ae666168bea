"""The command trains, says so line by line, and its card can be run."""

import pytest
import torch
from typer.testing import CliRunner

from harness.cards import load_model_card
from harness.cli import app
from harness.errors import CardError, CheckpointError, UsageError
from harness.model.loading import load_model


@pytest.fixture
def trainable_root(tmp_path, write_photos):
    for split, count in (("train", 6), ("val", 4)):
        write_photos(tmp_path, "kvasir_polyp", split=split, n=count)
    return tmp_path


def test_a_finetuned_card_is_written_and_loads(trainable_root, tmp_path):
    out = tmp_path / "tiny"
    arguments = [
        "finetune", "--model", "phantom-image-only-crowd", "--datasets", "kvasir_polyp",
        "--data-root", str(trainable_root), "--out", str(out), "--device", "cpu",
        "--max-epochs", "2", "--batch-size", "3", "--learning-rate", "0.01",
    ]  # fmt: skip
    result = CliRunner().invoke(app, arguments)

    assert result.exit_code == 0, result.output
    assert result.output.count("train_loss") == 2
    assert f"model card: {out / 'card.yaml'}" in result.output
    card = load_model_card(out).card
    assert (card.name, card.trained_on, card.control) == ("tiny", ["kvasir_polyp"], True)

    # Issued again, a finished training is returned as it stands.
    again = CliRunner().invoke(app, arguments)
    assert again.exit_code == 0
    assert "train_loss" not in again.output
    assert "best_epoch" in again.output

    other = "phantom-clipseg-crowd"
    with pytest.raises(CheckpointError, match=rf"of a training whose card is --model {out}, or"):
        load_model(other, checkpoint=out / "checkpoints" / "last.ckpt", device="cpu")
    wrong = ["--model", str(out / "checkpoints" / "last.ckpt"), "--data-root", str(trainable_root)]
    with pytest.raises(CardError, match=r"a file of weights\. A model is a card, .* --model CARD="):
        CliRunner().invoke(app, ["run", "empty_prompt", *wrong], catch_exceptions=False)

    named = CliRunner().invoke(app, [*arguments, "--name", "small-polyps", "--max-minutes", "0"])
    assert named.exit_code == 0, named.output
    assert load_model_card(out).card.name == "small-polyps"


def test_a_function_is_trained_elsewhere(trainable_root, tmp_path):
    (tmp_path / "code.py").write_text("def segment(image, prompt):\n    return image[..., 0] > 9\n")
    card = tmp_path / "card.yaml"
    card.write_text("name: f\nadapter: code.py:segment\nkind: callable\n")
    arguments = ["--datasets", "kvasir_polyp", "--data-root", str(trainable_root)]
    arguments += ["--model", str(card), "--out", str(tmp_path / "tuned")]
    with pytest.raises(UsageError, match="shows no parameters, so that nothing can be trained"):
        CliRunner().invoke(app, ["finetune", *arguments], catch_exceptions=False)
    assert not (tmp_path / "tuned").exists()


@pytest.mark.parametrize(
    ("base", "trained", "options"),
    [
        ("vlsm-adapter-small", "_adapter", ()),
        ("tunevlseg-small", "context_learner.", ("--freeze", "image")),
    ],
)
def test_small_tunings_are_trained_and_come_back(trainable_root, tmp_path, base, trained, options):
    """By the new card, and by the checkpoint that training itself wrote."""
    out = tmp_path / "tuned"
    arguments = [
        "finetune", "--model", base, "--datasets", "kvasir_polyp", "--device", "cpu", *options,
        "--data-root", str(trainable_root), "--out", str(out), "--max-epochs", "1",
    ]  # fmt: skip
    result = CliRunner().invoke(app, arguments)

    assert result.exit_code == 0, result.output
    assert "random numbers" not in result.output
    begun, card = load_model(base, device="cpu"), load_model(out, device="cpu")
    file = load_model(base, checkpoint=out / "checkpoints" / "best.ckpt", device="cpu")
    before, after = (m.adapter.module.state_dict() for m in (begun, card))
    moved = [key for key, value in before.items() if not torch.equal(value, after[key])]
    assert moved
    assert all(trained in key for key in moved)
    logits = []
    for model in (begun, card, file):
        with torch.inference_mode():
            images = model.adapter.encode_images(torch.zeros(1, 3, 96, 96))
            logits.append(model.adapter.decode(images, model.adapter.encode_texts(["red polyp"])))
    assert torch.equal(logits[1], logits[2])
    assert not torch.equal(logits[0], logits[1])


def test_a_card_that_inherits_no_weights_is_said_to_start_from_random_numbers(
    trainable_root, tmp_path
):
    card = tmp_path / "card.yaml"
    card.write_text("extends: phantom-image-only-crowd\nname: bare\n")
    arguments = ["--datasets", "kvasir_polyp", "--data-root", str(trainable_root)]
    arguments += ["--model", str(card), "--out", str(tmp_path / "t"), "--max-epochs", "1"]
    result = CliRunner().invoke(app, ["finetune", *arguments])

    text = "the card names no weights (a card that extends another inherits none): training starts"
    assert f"finetune: {card}: {text} from random numbers." in " ".join(result.output.split())
