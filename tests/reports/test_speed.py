"""The page of speed says what was measured, and of which build."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason="the extra 'openvino' is not installed"
)


def test_the_ways_take_turns_and_are_compared(script, toy_card):
    """This build stands for the earlier one, a toy for the models."""
    speed = script("speed")
    card = str(toy_card())
    ways = [speed.Way(card, "then"), speed.Way(card, "today", {"backend": "openvino"})]
    size = speed.Size(images=3, prompts=3, threads=1, blocks=2)
    loads = speed.measure(ways, {"then": ROOT}, size)
    assert [len(way.laps) for way in ways] == [2, 2]
    assert ways[0].stages == {}
    assert ways[1].stages["decode"] == "openvino"

    lines = speed.page([ways], loads, size).splitlines()
    first, second = (line for line in lines if line.startswith(f"| {card}"))
    assert first.split(" | ")[1:2] + first.split(" | ")[4:] == [
        "then: torch float32", "1.00", "1.00", "100.0 %", "0 |",
    ]  # fmt: skip
    fields = second.split(" | ")
    assert fields[1] == "today: openvino float32"
    assert fields[2] == f"{ways[1].median('wall'):.4f}"
    assert fields[4] == f"{ways[0].median('wall') / ways[1].median('wall'):.2f}"
    assert any("3 invented images x 3 prompts" in line for line in lines)
    assert any(
        f"`{card}` by openvino: encode_texts (torch: it has no 'tok" in line for line in lines
    )


def test_unequal_counts_are_told(script):
    speed = script("speed")
    then, now = speed.Way("m", "then"), speed.Way("m", "today")
    then.laps = [{"wall": 2.0, "cpu": 3.0, "counts": [1, 2, 3, 4]}]
    now.laps = [{"wall": 1.0, "cpu": 1.0, "counts": [1, 2, 3, 9]}]
    assert speed.rows([then, now])[1] == (
        "| m | today: torch float32 | 1.0000 | 1.0000 | 2.00 | 3.00 | 75.0 % | 5 |"
    )


def test_this_machine_has_a_name(script):
    assert "cores" in script("speed").machine()
