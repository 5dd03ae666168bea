"""What a model was trained on and is audited with: pictures by content, patients by name."""

import json
import shutil

import pytest
from PIL import Image

from harness.auditing.choices import select_suite
from harness.auditing.overlap import Overlap, Pair, training_overlap
from harness.auditing.samples import read_sets
from harness.cards import load_dataset_card
from harness.runs.store import RunStore


@pytest.fixture
def trained_root(photo_root, write_photos):
    """Kvasir with a training split, two pictures of which are test pictures under other names."""
    write_photos(photo_root, "kvasir_polyp", split="train", n=8, seed=7)
    images = photo_root / "kvasir_polyp" / "images"
    for test, train in ((1, 3), (4, 5)):
        picture = Image.open(images / f"test_{test}.png").convert("RGB")
        picture.point(lambda v: min(255, int(v * 1.05))).save(images / f"train_{train}.png")
        masks = photo_root / "kvasir_polyp" / "masks"
        shutil.copy(masks / f"test_{test}.png", masks / f"train_{train}.png")
    return photo_root


def overlaps(root, trained_on, split="test"):
    sets = read_sets(select_suite("empty_prompt", datasets=["kvasir_polyp"], split=split), root)
    return training_overlap(trained_on, sets, root)


def test_copies_under_other_names_are_found_and_other_pictures_are_not(trained_root):
    (found,) = overlaps(trained_root, ["kvasir_polyp", "something private"])
    assert (found.audited, found.trained) == ("kvasir_polyp/test", ("kvasir_polyp/train",))
    assert (found.n_audited, found.n_trained, found.n_copies, found.n_unread) == (6, 8, 2, 0)
    place = "kvasir_polyp/images"
    assert [(p.audited, p.trained) for p in found.pairs] == [
        (f"{place}/test_1.png", f"{place}/train_3.png"),
        (f"{place}/test_4.png", f"{place}/train_5.png"),
    ]
    (said,) = found.sentences()
    assert said == (
        "2 of 6 audited pictures of kvasir_polyp/test are near copies of pictures in "
        "kvasir_polyp/train, which the model was trained on (kvasir_polyp/images/test_1.png and "
        "kvasir_polyp/images/train_3.png, for one): there the figures tell nothing of unseen "
        "pictures."
    )


def test_an_official_split_shares_nothing(photo_root, write_photos):
    write_photos(photo_root, "kvasir_polyp", split="train", n=8, seed=7)
    (found,) = overlaps(photo_root, ["kvasir_polyp"])
    assert (found.n_copies, found.pairs, list(found.sentences())) == (0, (), [])


def test_copies_in_another_data_set_are_found(photo_root, write_photos):
    """Sets of polyps borrow from each other."""
    shutil.copytree(photo_root / "kvasir_polyp", photo_root / "bkai_polyp")
    anns = photo_root / "bkai_polyp" / "anns"
    (anns / "test.json").rename(anns / "train.json")
    (found,) = overlaps(photo_root, ["bkai_polyp"])
    assert (found.trained, found.n_copies) == (("bkai_polyp/train",), 6)


def test_the_training_split_itself_is_all_copies(trained_root):
    (found,) = overlaps(trained_root, ["kvasir_polyp"], split="train")
    assert (found.n_audited, found.n_copies) == (8, 8)


def test_what_is_not_at_hand_is_not_compared(photo_root):
    assert overlaps(photo_root, ["kvasir_polyp", "isic", "unknown"]) == []
    assert overlaps(photo_root, []) == []


def test_a_damaged_training_picture_is_counted(trained_root):
    (trained_root / "kvasir_polyp" / "images" / "train_0.png").write_bytes(b"no picture")
    (found,) = overlaps(trained_root, ["kvasir_polyp"])
    assert (found.n_unread, found.n_copies) == (1, 2)


def test_a_damaged_training_table_is_passed_over(trained_root):
    (trained_root / "kvasir_polyp" / "anns" / "train.json").write_text("{", encoding="utf-8")
    assert overlaps(trained_root, ["kvasir_polyp"]) == []


def test_patients_in_both_are_named(monkeypatch, trained_root, write_photos):
    card = load_dataset_card("kvasir_polyp")
    rule = card.clusters.model_copy(update={"rule": "patient", "pattern": r"_(\d+)\.png"})
    own = card.model_copy(update={"clusters": rule})
    monkeypatch.setattr("harness.cards.load_dataset_card", lambda name: own)
    (found,) = overlaps(trained_root, ["kvasir_polyp"])
    assert found.patients == ("0", "1", "2", "3", "4", "5")
    said = list(found.sentences())[-1]
    assert said == (
        "6 clusters (patients, videos) of kvasir_polyp/test stand in kvasir_polyp/train, too, "
        "which the model was trained on: '0', '1', '2', '3', '4' and 1 more."
    )


def test_a_sentence_for_each_kind():
    pair = Pair("a.png", "b.png", 3)
    one = Overlap("d/test", ("d/train", "d/val"), 10, 20, 1, (pair,), patients=("p1",))
    copied, patients = one.sentences()
    assert (
        "1 of 10 audited pictures of d/test is a near copy of pictures in d/train, d/val" in copied
    )
    assert patients.endswith("trained on: 'p1'.")


def run(call, toy_card, root, folder):
    card = toy_card()
    text = card.read_text(encoding="utf-8") + "trained_on: [kvasir_polyp]\n"
    card.write_text(text, encoding="utf-8")
    arguments = [
        "run",
        "empty_prompt",
        "--datasets",
        "kvasir_polyp",
        "--data-root",
        root,
        "--random-weights",
    ]
    return card, call(*arguments, "--model", card, "--out", folder)


def test_a_run_notes_it_and_its_report_shows_it(call, toy_card, trained_root, tmp_path):
    card, (code, _, err) = run(call, toy_card, trained_root, tmp_path / "run")
    sentence = "2 of 6 audited pictures of kvasir_polyp/test are near copies"
    assert (code, err.count(sentence)) == (0, 1), err
    (entry,) = RunStore(tmp_path / "run").manifest["models"]
    assert entry["training_overlap"][0]["n_copies"] == 2
    assert sum(sentence in note for note in entry["notes"]) == 1
    again = call("run", "empty_prompt", "--datasets", "kvasir_polyp", "--data-root", trained_root,
                 "--model", card, "--out", tmp_path / "run", "--random-weights")  # fmt: skip
    assert again[0] == 0
    (entry,) = RunStore(tmp_path / "run").manifest["models"]
    assert sum(sentence in note for note in entry["notes"]) == 1, "a continued run keeps it"
    assert call("report", tmp_path / "run", "-q")[0] == 0
    assert sentence in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


def test_check_lists_the_pairs(call, toy_card, trained_root):
    card = toy_card()
    text = card.read_text(encoding="utf-8") + "trained_on: [kvasir_polyp]\n"
    card.write_text(text, encoding="utf-8")
    asked = [
        "check",
        "empty_prompt",
        "--datasets",
        "kvasir_polyp",
        "--model",
        card,
        "--random-weights",
    ]
    code, out, _ = call(*asked)
    assert code == 0
    assert "toy: 2 of 6 audited pictures of kvasir_polyp/test are near copies" in out
    assert "kvasir_polyp/images/test_1.png  kvasir_polyp/images/train_3.png  (" in out
    _, out, _ = call(*asked, "--json")
    (one,) = json.loads(out)["training_overlap"]
    assert (one["model"], one["n_copies"], len(one["pairs"])) == ("toy", 2, 2)


def test_check_says_that_nothing_is_shared(call, toy_card, photo_root, write_photos):
    write_photos(photo_root, "kvasir_polyp", split="train", n=8, seed=7)
    card = toy_card()
    text = card.read_text(encoding="utf-8") + "trained_on: [kvasir_polyp]\n"
    card.write_text(text, encoding="utf-8")
    asked = ["check", "empty_prompt", "--datasets", "kvasir_polyp", "--model", card]
    _, out, _ = call(*asked, "--random-weights")
    assert (
        "toy: no picture of kvasir_polyp/test is a near copy of one of the 8 in kvasir_polyp/train."
        in out
    )
