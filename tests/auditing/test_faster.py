"""Whoever waits for a long run on a CPU is told once how it would be faster."""

import importlib.util

import pytest

from harness.auditing import faster
from harness.auditing.faster import FasterWay, faster_ways
from harness.auditing.listener import Listener

PLAIN = {"device": "cpu", "precision": "float32", "backend": "torch", "card": {"name": "m"}}


class Ears(Listener):
    def __init__(self):
        self.heard = []

    def note(self, text):
        self.heard.append(text)


@pytest.fixture
def machine(monkeypatch):
    """A clock that each shard moves by 100 s, and a CPU and packages of one's own."""
    monkeypatch.setattr("harness.model.precision.bfloat16_gain", lambda: 3.14)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
    clock = iter(range(0, 10_000, 100))
    monkeypatch.setattr(faster.time, "monotonic", lambda: next(clock))
    return monkeypatch


def told(n_cases, *, entry=PLAIN, shards=3):
    ears, told = Ears(), []
    advance = FasterWay(entry, n_cases, ears, told.append, next_clock())
    for _ in range(shards):
        advance(100)
    assert told == [100] * shards
    return ears.heard


def next_clock():
    return faster.time.monotonic()


def test_it_is_said_once_and_only_of_a_long_run(machine):
    assert told(900) == []  # 800 cases at 1 s each, when the first hundred are done
    (heard,) = told(2000)
    assert heard == (
        "note: about 32 minutes remain. --backend openvino (is installed) computes the same masks, "
        "but for single pixels at the threshold, mostly in less time. --dtype bfloat16 multiplies "
        "matrices 3.1 times as fast here and moves Dice "
        "by about 0.0015 a case (reports/precision.md). A model that computes otherwise is "
        "another one to a run, and begins anew."
    )


@pytest.mark.parametrize(
    "other",
    [{"device": "cuda"}, {"precision": "bfloat16"}, {"backend": "openvino"},
     {"card": {"kind": "callable"}}],
)  # fmt: skip
def test_what_is_fast_already_or_a_function_hears_nothing(machine, other):
    assert told(50_000, entry=PLAIN | other) == []


def test_only_what_helps_here_is_named(machine):
    machine.setattr("harness.model.precision.bfloat16_gain", lambda: 0.05)
    machine.setattr(importlib.util, "find_spec", lambda _: None)
    assert faster_ways() == [
        "--backend openvino (comes with `pip install 'vlsm-harness[openvino]'`) computes the same "
        "masks, but for single pixels at the threshold, mostly in less time."
    ]
