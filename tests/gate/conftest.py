"""Runs for the gate, made of numbers: every Dice of every case is known, no model is there."""

import functools
import hashlib
from dataclasses import dataclass, field

import numpy as np
import polars as pl
import pytest
import yaml

from harness.files.writing import parquet_bytes
from harness.gate.audited import read_run
from harness.plan.build import NOT_APPLICABLE_SCHEMA, PLAN_SCHEMA
from harness.runs.store import SCORE_SCHEMA, RunStore

PIXELS = 1000
PROBES = {
    "synonym": ("preserved", "own"),
    "gone": ("removed", "own"),
    "noise": ("destroyed", "undefined"),
    "antonym": ("changed", "named"),
}
"""Meaning and right mask of each probe; all change the size."""


@dataclass(frozen=True)
class Behaviour:
    """What a model does: Dice of its originals, and what is left of it after each probe.

    `follows` is Dice with the named target after the change, as a share of the original's;
    `refuses` the share of prompts for absent things that are answered with an empty mask, in a
    probe that stands in the plan where it is given.
    """

    quality: float = 0.8
    left: dict = field(
        default_factory=lambda: {"synonym": 1.0, "gone": 0.7, "noise": 0.8, "antonym": 0.2}
    )
    follows: float = 1.0
    noise: float = 0.02
    model_seed: int = 1
    refuses: float | None = None


GOOD = Behaviour()


def _id(*content):
    return int.from_bytes(hashlib.blake2b(repr(content).encode(), digest_size=8).digest(), "little")


def _plan(dataset, n_clusters, seed, lexicon, n_words, absent):
    rows = []
    probes = PROBES | ({"absent": ("changed", "empty")} if absent else {})
    for s in range(2 * n_clusters):
        one = dict.fromkeys(PLAN_SCHEMA) | {"dataset": dataset, "split": "test", "edits": "[]"}
        one |= {"sample_id": f"s{s:03d}", "image": f"{s}.png", "mask": f"{s}.png", "repeat": 0}
        one |= {"image_id": f"i{s}", "cluster_id": f"patient{s // 2:03d}", "prompt_index": 0}
        one |= {"prompts": "released", "prompt_type": "p6", "variant_type": "p6"}
        one |= {"original_prompt": f"a small polyp {s}"}
        original = one | {"probe": "original", "perturbation": "original", "meaning": "original"}
        original |= {"expected_mask": "own", "prompt": one["original_prompt"]}
        original["case_id"] = original["original_case_id"] = _id(dataset, s)
        rows.append(original)
        for probe, (meaning, mask) in probes.items():
            words = [f"word{seed}{w}" for w in range(n_words)] if probe == "noise" else [None]
            for repeat, word in enumerate(words):
                row = one | {"probe": probe, "perturbation": probe, "meaning": meaning}
                drawn = seed if probe == "synonym" else 0
                row |= {"expected_mask": mask, "attribute": "size", "word": word, "repeat": repeat}
                row |= {"prompt": f"{lexicon} {probe} {word} {drawn} {s}"}
                row["case_id"] = _id(dataset, s, probe, word, row["prompt"])
                row["original_case_id"] = original["case_id"]
                rows.append(row)
    return rows


@functools.cache
def _ease(dataset, cluster_id):
    return np.random.default_rng(_id(dataset, cluster_id) % 2**32).uniform(0.85, 1.1)


def _scores(plan, model_id, how):
    rng = np.random.default_rng(how.model_seed)
    hard = {}
    rows = []
    for row in plan:
        # What is hard in a cluster is hard for every model.
        ease = _ease(row["dataset"], row["cluster_id"])
        base = hard.setdefault(row["sample_id"], how.quality * ease)
        share = how.left.get(row["probe"], 1.0)
        dice = np.clip(base * share + rng.normal(0, how.noise), 0, 1)
        moved = 1.0 if row["probe"] == "original" else min(share, 1.0)
        named = row["expected_mask"] == "named"
        follow = np.clip(base * how.follows + rng.normal(0, how.noise), 0, 1)
        rows.append(
            {
                "model_id": model_id, "case_id": row["case_id"], "tp": int(PIXELS * dice),
                "n_pred": PIXELS, "n_gt": PIXELS, "tp_original": int(PIXELS * moved),
                "n_pred_original": PIXELS, "height": 64, "width": 64, "status": "done",
                "tp_named": int(PIXELS * follow) if named else None,
                "n_named": PIXELS if named else None,
            }
        )  # fmt: skip
        if row["probe"] == "absent" and int(row["sample_id"][1:]) % 20 < 20 * how.refuses:
            rows[-1] |= {"tp": 0, "n_pred": 0, "tp_original": 0}
    return rows


def write_run(
    folder, how=GOOD, *, model="m", n=30, seed=0, gate=None, limit=None, lexicon="curated",
    datasets=("d",), lost=0, shuffled=False, expect=None, threshold=0.5, more=(),
    draws=1000, n_words=10, **manifest,
):  # fmt: skip
    """A run directory; `lost` cases have no score, `more` are further (name, behaviour)."""
    absent = how.refuses is not None
    plan = [row for d in datasets for row in _plan(d, n, seed, lexicon, n_words, absent)]
    files = {}
    frame = pl.DataFrame(plan, schema=PLAN_SCHEMA, orient="row")
    rng = np.random.default_rng(0)
    models = []
    for own, behaviour in ((model, how), *more):
        model_id = f"{own}@1"
        scores = pl.DataFrame(_scores(plan, model_id, behaviour), schema=SCORE_SCHEMA)
        scores = scores[: scores.height - lost]
        if shuffled:
            scores = scores[rng.permutation(scores.height)]
        files[f"scores/part-{model_id}-000000-0.parquet"] = parquet_bytes(scores)
        entry = {"model_id": model_id, "name": own, "trained_on": [], "threshold": threshold}
        models.append(entry | {"control": own.startswith("control")})
    if shuffled:
        frame = frame[rng.permutation(frame.height)]
    files["plan.parquet"] = parquet_bytes(frame)
    nothing = pl.DataFrame(schema=NOT_APPLICABLE_SCHEMA)
    files["not_applicable.parquet"] = parquet_bytes(nothing)
    probes = [{"name": p, "perturbation": p} for p in (*PROBES, *["absent"] * absent)]
    probes[0] |= {} if expect is None else {"expect": expect}
    suite = {"name": "s", "title": "A suite", "seed": seed, "probes": probes}
    suite |= {"statistics": {"draws": draws}, "gate": gate or {}}
    suite |= {"datasets": [{"name": d} for d in datasets]}
    files["suite.lock.yaml"] = yaml.safe_dump(suite).encode()
    ids = sorted(row["case_id"] for row in plan)
    facts = {
        "models": models,
        "plan_sha256": hashlib.sha256(repr((ids, seed)).encode()).hexdigest(),
        "data_sha256": "0" * 64,
        "limit": limit,
        "sources": {
            "seed": seed,
            "lexicon": lexicon,
            "words": [f"word{w}" for w in range(n_words)],
        },
    }
    store = RunStore(folder)
    store.ledger.write(files)
    store.update(**facts | manifest)
    return folder


@pytest.fixture(scope="session")
def behaviour():
    """The kind of thing that `write` takes."""
    return Behaviour


@pytest.fixture(scope="session")
def write_at():
    """`write_run`."""
    return write_run


@pytest.fixture
def write(tmp_path):
    """A function that writes a run directory under a name."""
    return lambda name, how=GOOD, **settings: write_run(tmp_path / name, how, **settings)


@pytest.fixture
def make(write):
    """A function that writes a run and reads it back as the gate does."""
    return lambda name, how=GOOD, **settings: read_run(write(name, how, **settings))
