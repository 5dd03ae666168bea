"""How far edits move a text embedding, in units that compare models."""

import numpy as np
import polars as pl
import pytest
import torch

from harness.engine import texts
from harness.engine.texts import (
    SHIFT_SCHEMA,
    STORED_SCHEMA,
    embedding_shifts,
    text_table,
    with_shifts,
)


class Points:
    """Embeds a text as a point of the plane: its length and its number of words."""

    def __init__(self, scale=1.0):
        self.scale, self.asked = scale, []

    def text_embedding(self, texts):
        self.asked += texts
        rows = [[len(text), 10.0 * len(text.split())] for text in texts]
        return self.scale * torch.tensor(rows)


class Model:
    """As much of a loaded model as is asked for."""

    def __init__(self, raw):
        import contextlib

        self.raw, self.autocast = raw, contextlib.nullcontext


def cases(*edits, probe="antonym"):
    keys = {"dataset": "d", "split": "test", "prompts": "released", "prompt_type": "p6"}
    rows = [
        keys | {"probe": probe, "attribute": "size", "prompt": after, "original_prompt": before}
        for before, after in edits
    ]
    return pl.DataFrame(rows)


EDITS = (("a b", "a b c"), ("a b", "a"), ("x", "xyz"), ("x", "x"))


def test_a_shift_is_a_distance_over_the_typical_distance_of_two_texts():
    found = embedding_shifts(Model(Points()), cases(*EDITS))
    texts = ["a b", "a b c", "a", "x", "xyz"]
    points = {t: np.array([len(t), 10.0 * len(t.split())]) for t in texts}
    apart = [((points[s] - points[t]) ** 2).sum() for s in texts for t in texts if s != t]
    typical = np.mean(apart) ** 0.5
    expected = [
        np.linalg.norm(points[after] - points[before]) / typical for before, after in EDITS[:3]
    ]
    assert found.schema == SHIFT_SCHEMA
    assert found["shift"].to_list() == pytest.approx(expected)
    # An original is no edit.
    assert found.height == 3


def test_the_scale_of_an_embedding_does_not_matter():
    one, other = (embedding_shifts(Model(Points(s)), cases(*EDITS)) for s in (1.0, 1e-3))
    assert one["shift"].to_list() == pytest.approx(other["shift"].to_list())


def test_an_embedding_that_tells_nothing_apart_shifts_nothing():
    found = embedding_shifts(Model(Points(0.0)), cases(*EDITS))
    assert found["shift"].to_list() == [0.0] * 3


def test_each_probe_has_so_many_edits_embedded_and_no_more(monkeypatch):
    monkeypatch.setattr(texts, "EDITS_PER_CELL", 2)
    model = Model(Points())
    many = pl.concat(
        [cases(*EDITS), cases(("a b", "q"), ("a b", "r"), ("a b", "s"), probe="other")]
    )
    found = embedding_shifts(model, many)
    assert found["text"].to_list() == ["a b c", "a", "q", "r"]
    assert "s" not in model.raw.asked
    assert len(model.raw.asked) == len(set(model.raw.asked))


def test_a_model_without_an_embedding_has_no_shifts():
    assert embedding_shifts(Model(object()), cases(*EDITS)).is_empty()


@pytest.mark.parametrize("kind", ["toy", "box"])
def test_the_stored_table_has_a_shift_or_null(toy_card, kind):
    from harness.model.loading import load_model

    model = load_model(toy_card(kind), random_weights=True, device="cpu")
    stored = with_shifts(text_table(model, cases(*EDITS)), model, cases(*EDITS))
    assert stored.schema == STORED_SCHEMA
    assert stored["shift"].null_count() == stored.height
