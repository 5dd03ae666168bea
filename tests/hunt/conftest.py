"""Small scenes with two targets, and hunts on them."""

import json
import shutil

import pytest

from harness.auditing.samples import read_sets
from harness.commands.hunt import hunting
from harness.hunt.evaluator import ImageEncoder
from harness.hunt.hunt import Hunt, HuntConfig, families
from harness.hunt.space import Kind
from harness.model.loading import load_model
from harness.prompts.lexicon import load_lexicon
from harness.prompts.perturbations import PERTURBATIONS


@pytest.fixture
def twin_root(photo_root):
    """The photos, the first of which two samples share: the second's words name the other."""
    folder = photo_root / "kvasir_polyp"
    path = folder / "anns" / "test.json"
    rows = json.loads(path.read_text(encoding="utf-8"))
    shutil.copy(folder / "images" / rows[0]["img_name"], folder / "images" / rows[1]["img_name"])
    shutil.copy(folder / "masks" / rows[0]["mask_name"], folder / "masks" / rows[1]["mask_name"])
    text = json.dumps(rows[1]["prompts"]).replace("a circle", "oval")
    rows[1]["prompts"] = json.loads(text)
    path.write_text(json.dumps(rows), encoding="utf-8")
    return photo_root


@pytest.fixture
def hunter(toy_card, photo_root):
    """A function that makes a hunt with the spotter, whose breaks its settings decide."""

    def make(kind, *, names=None, rung="p4", limit=None, budget=1000, seed=0, **settings):
        model = load_model(toy_card("spotter", **settings), random_weights=True, device="cpu")
        suite = hunting(["kvasir_polyp"], prompt_type=rung)
        (planned,) = read_sets(suite, photo_root, limit=limit)
        kind = Kind(kind)
        rules = [PERTURBATIONS[name] for name in names or ()] or families(kind, PERTURBATIONS)
        config = HuntConfig([kind], {kind: rules}, budget, seed, suite.statistics.dice_floor)
        return Hunt(planned, ImageEncoder(model, suite.metric), load_lexicon("curated"), config)

    return make
