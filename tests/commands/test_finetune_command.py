"""The command trains, says so line by line, and its card can be run."""

import pytest
from typer.testing import CliRunner

from harness.cards import load_model_card
from harness.cli import app
from harness.errors import UsageError


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


def test_a_function_is_trained_elsewhere(trainable_root, tmp_path):
    (tmp_path / "code.py").write_text("def segment(image, prompt):\n    return image[..., 0] > 9\n")
    card = tmp_path / "card.yaml"
    card.write_text("name: f\nadapter: code.py:segment\nkind: callable\n")
    arguments = ["--datasets", "kvasir_polyp", "--data-root", str(trainable_root)]
    arguments += ["--model", str(card), "--out", str(tmp_path / "tuned")]
    with pytest.raises(UsageError, match="shows no parameters, so that nothing can be trained"):
        CliRunner().invoke(app, ["finetune", *arguments], catch_exceptions=False)
    assert not (tmp_path / "tuned").exists()
