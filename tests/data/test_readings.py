"""What a run keeps and says of how its masks were read."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from harness.cards import DatasetCard, load_dataset_card
from harness.data.layout import UNREADABLE, fingerprint, load_samples
from harness.data.readings import kept_readings, mask_counts, mask_lines, readings_of, rules_of
from harness.errors import DataError, EncodingError
from harness.metrics import combined_rule
from harness.records import Reading


def card(**more):
    content = load_dataset_card("kvasir_polyp").model_dump() | {"masks": None}
    return DatasetCard.model_validate(content | {"name": "mine"} | more)


@pytest.fixture
def root(tmp_path):
    """Four rows: 0/1, 0/255, an empty mask, and one cut short."""
    folder = tmp_path / "mine"
    for part in ("anns", "images", "masks"):
        (folder / part).mkdir(parents=True)
    rows, target = [], np.zeros((12, 16), "uint8")
    target[2:6, 3:9] = 1
    for number, value in enumerate((1, 255, 0, 1)):
        name = f"{number}.png"
        Image.fromarray(np.full((12, 16), 40 * number, "uint8")).save(folder / "images" / name)
        Image.fromarray(target * value).save(folder / "masks" / name)
        rows.append({"img_name": name, "mask_name": name, "prompts": {"p0": ""}})
    whole = (folder / "masks" / "3.png").read_bytes()
    (folder / "masks" / "3.png").write_bytes(whole[:50])
    (folder / "anns" / "test.json").write_text(json.dumps(rows))
    return tmp_path


def test_a_set_says_how_its_masks_were_read(root):
    samples = load_samples(card(), root, "test")
    assert [sample.is_empty for sample in samples] == [False, False, True, None]
    counts = mask_counts(samples)
    assert counts["n_masks"] == 4
    assert counts["n_empty"] == 1
    line = next(mask_lines([{"dataset": "mine", "split": "test", **counts}]))
    assert line == (
        "mine/test: masks read by what each file holds: 8-bit grey 0 (1), 8-bit grey 0/1 (1), "
        f"8-bit grey 0/255 (1), {UNREADABLE} (1); 1 of 4 are empty."
    )


def test_a_mask_that_could_mean_two_things_stops_the_reading_with_its_row(root):
    Image.fromarray(np.arange(192, dtype="uint8").reshape(12, 16) % 3).save(
        root / "mine" / "masks" / "1.png"
    )
    with pytest.raises(
        EncodingError, match=r"test.json: row 1: .*1.png: the mask holds the values"
    ):
        load_samples(card(), root, "test")
    by_rule = load_samples(card(masks={"values": [2]}), root, "test")
    assert by_rule[1].encoding == "8-bit grey, =2"


def test_a_missing_mask_stops_the_reading(root):
    (root / "mine" / "masks" / "2.png").unlink()
    with pytest.raises(DataError, match=r"row 2: the mask .* is missing"):
        load_samples(card(), root, "test")


def test_another_rule_is_other_data(root):
    """A run is not continued under another rule; released sets keep the hash they had."""
    samples = load_samples(card(), root, "test")
    readings = [Reading(), Reading(above=127), Reading(values=(1,)), Reading(intensity="full")]
    found = {fingerprint([replace(s, reading=r) for s in samples]) for r in readings}
    assert len(found) == 4


def test_readings_survive_the_manifest():
    readings = {
        "a": Reading(),
        "b": Reading(values=(2, 3), channel="g", intensity=(1.0, 2.0), orientation="stored"),
        "c": Reading(above=127.0, intensity=("percentiles", 1.0, 99.0)),
    }
    manifest = json.loads(json.dumps({"readings": kept_readings(readings)}))
    assert readings_of(manifest) == readings
    assert rules_of(manifest) == {"a": "auto", "b": "g:=2,3", "c": ">127"}
    assert combined_rule(rules_of(manifest)) == "a:auto,b:g:=2,3,c>127"
    assert readings_of({}) == {}


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        (None, "auto"),
        ({"foreground": "nonzero"}, "nonzero"),
        ({"foreground": "alpha"}, "a:auto"),
        ({"above": 0.5}, ">0.5"),
        ({"foreground": {"values": [2]}}, "=2"),
        ({"channel": "g"}, "g:auto"),
        ({"channel": "g", "above": 9}, "g:>9"),
    ],
)
def test_a_cards_rule_as_signatures_spell_it(rule, wanted):
    assert card(masks=rule).reading.rule == wanted


@pytest.mark.parametrize(
    "wrong",
    [
        {"masks": {}},
        {"masks": {"above": 1, "values": [2]}},
        {"masks": {"foreground": "alpha", "channel": "g"}},
        {"masks": {"foreground": "some"}},
        {"masks": {"channel": "x"}},
        {"intensity": "some"},
        {"intensity": [5, 5]},
        {"intensity": [0, float("inf")]},
        {"intensity": {"percentiles": [99, 1]}},
        {"orientation": "both"},
    ],
)
def test_rules_that_say_nothing_or_two_things_are_refused(wrong):
    with pytest.raises(ValidationError):
        card(**wrong)


def test_intensities_of_a_card():
    assert card(intensity=[0, 4095]).reading.intensity == (0.0, 4095.0)
    percentiles = card(intensity={"percentiles": [1, 99]}).reading.intensity
    assert percentiles == ("percentiles", 1.0, 99.0)
