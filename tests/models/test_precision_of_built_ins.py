"""The models that ship, in mixed precision: they run, and stay near float32."""

import pytest
import torch

from harness.cards import load_model_card, model_names
from harness.engine.local import Worker, load_pictures
from harness.engine.shards import cut, distinct_texts
from harness.model.loading import load_model
from harness.suite.schema import Metric

SIDE = 160
SMALL = [
    name
    for name, path in model_names().items()
    if load_model_card(path).card.settings.get("input_size", SIDE + 1) <= SIDE
]
# One of each architecture as it ships is quick to try.
QUICK = [name for name in SMALL if name.endswith("-small") and name != "image-only-small"]
# Share of the logits' own deviation, for random numbers through every layer.
BOUNDS = {"bfloat16": 0.1, "float16": 0.02}


@pytest.fixture
def logits(planned, photo_root, monkeypatch):
    """What reaches the threshold, from the engine itself, batch by batch."""
    _, _, plan = planned("empty_prompt", limit=2)
    texts = distinct_texts(plan.cases)

    def collect(name, dtype):
        seen = []
        monkeypatch.setattr(
            "harness.engine.local.Tally.add", lambda _, __, part: seen.append(part.logits)
        )
        monkeypatch.setattr("harness.engine.local.Tally.frame", lambda _: None)
        model = load_model(name, random_weights=True, device="cpu", dtype=dtype)
        worker = Worker(model, texts, metric=Metric(), batch_size=8)
        for shard in cut(plan.cases, texts):
            worker.run(shard, load_pictures(shard, model, photo_root))
        return torch.cat(seen)

    return collect


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in SMALL]
)
def test_logits_are_compared_in_float32_and_stay_near(logits, name):
    exact = logits(name, "float32")

    for dtype, bound in BOUNDS.items():
        mixed = logits(name, dtype)
        assert mixed.dtype == exact.dtype == torch.float32
        assert torch.isfinite(mixed).all()
        assert 0 < (mixed - exact).std() <= bound * exact.std()
