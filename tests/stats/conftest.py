"""Runs made of numbers: plans and scores of the shape that the engine writes, without a model."""

from dataclasses import asdict, dataclass, replace

import numpy as np
import polars as pl
import pytest

from harness.files.writing import parquet_bytes
from harness.plan.build import NOT_APPLICABLE_SCHEMA, PLAN_SCHEMA
from harness.runs.store import SCORE_SCHEMA, RunStore
from harness.stats.columns import SUMMARY_SCHEMA
from harness.stats.pairs import ModelFacts
from harness.suite.schema import Suite

SIDE = 64


@dataclass(frozen=True)
class SyntheticRun:
    plan: pl.DataFrame
    scores: pl.DataFrame
    models: list[ModelFacts]
    not_applicable: pl.DataFrame

    @property
    def arguments(self):
        return {
            "plan": self.plan,
            "scores": self.scores,
            "models": self.models,
            "not_applicable": self.not_applicable,
        }


def _row(rng, **given):
    row = dict.fromkeys(PLAN_SCHEMA)
    row |= {"split": "test", "prompts": "released", "prompt_index": 0, "repeat": 0, "edits": "[]"}
    row |= {"expected_mask": "own", "meaning": "changed", "prompt": "x", "original_prompt": "x"}
    row |= given
    row["case_id"] = int(rng.integers(1, 2**63))
    row["perturbation"] = row["probe"]
    row["variant_type"] = row["prompt_type"]
    return row


def plan_rows(dataset, *, n_samples, n_words, rng, per_cluster=2, prompt_type="p6", split="test"):
    """Every sample with one original, two attributes of two probes, words, and `empty`."""
    rows = []
    for s in range(n_samples):
        one = {"dataset": dataset, "split": split, "sample_id": f"s{s:04d}", "image": f"{s}.png"}
        one |= {"mask": f"{s}.png", "image_id": f"{dataset}-{s}", "prompt_type": prompt_type}
        one["cluster_id"] = f"patient{s // per_cluster:03d}"
        original = _row(rng, **one, probe="original") | {"meaning": "original"}
        original["original_case_id"] = original["case_id"]
        variants = [_row(rng, **one, probe="empty_prompt")]
        for a in ("size", "color"):
            variants += [_row(rng, **one, probe="swap", attribute=a, repeat=r) for r in range(3)]
            variants += [
                _row(rng, **one, probe="random_word", attribute=a, word=f"word{w}", repeat=w)
                for w in range(n_words)
            ]
        rows.append(original)
        rows += [v | {"original_case_id": original["case_id"]} for v in variants]
    return rows


def score_rows(plan, model_id, *, rng, hears):
    """Counts of masks: `hears` is how much of a mask a changed prompt moves, on average."""
    n = len(plan)
    truth = rng.integers(200, 1000, n)
    hit = rng.beta(6, 2, n)
    moved = hears * rng.exponential(1, n).clip(0, 1)
    moved = np.where([r["probe"] == "original" for r in plan], 0.0, moved)
    tp = (truth * hit * (1 - moved)).astype(int)
    pred = tp + rng.integers(0, 100, n)
    shared = (pred * (1 - moved)).astype(int)
    return [
        {
            "model_id": model_id, "case_id": row["case_id"], "tp": int(tp[i]),
            "n_pred": int(pred[i]), "n_gt": int(truth[i]), "tp_original": int(shared[i]),
            "n_pred_original": int(pred[i]), "height": SIDE, "width": SIDE, "status": "done",
        }
        for i, row in enumerate(plan)
    ]  # fmt: skip


def make_run(datasets=None, *, seed=0, n_words=3, models=None):
    rng = np.random.default_rng(seed)
    datasets = datasets or {"inside": 40, "outside": 30}
    plan = [
        row
        for name, size in datasets.items()
        for row in plan_rows(name, n_samples=size, n_words=n_words, rng=rng)
    ]
    models = models or [
        ModelFacts("m@1", "m", ("inside",), False, 0.5),
        ModelFacts("blind@1", "blind", ("inside",), True, 0.35),
    ]
    scores = [
        row
        for m in models
        for row in score_rows(plan, m.model_id, rng=rng, hears=0.0 if m.control else 0.2)
    ]
    return SyntheticRun(
        pl.DataFrame(plan, schema=PLAN_SCHEMA, orient="row"),
        pl.DataFrame(scores, schema=SCORE_SCHEMA, orient="row"),
        models,
        pl.DataFrame(schema=NOT_APPLICABLE_SCHEMA),
    )


def with_one_truth(run):
    """The same run on one set of true masks: what all models of real data have in common."""
    truth = run.scores.group_by("case_id").agg(truth=pl.col("n_gt").min())
    scores = run.scores.join(truth, on="case_id", how="left", maintain_order="left")
    scores = scores.with_columns(n_gt="truth", tp=pl.min_horizontal("tp", "truth")).drop("truth")
    return replace(run, scores=scores)


def write_run(folder, run):
    """The run as a directory, one part a model; returns the directory."""
    files = {"plan.parquet": parquet_bytes(run.plan)}
    files["not_applicable.parquet"] = parquet_bytes(run.not_applicable)
    for model in run.models:
        part = run.scores.filter(pl.col("model_id") == model.model_id)
        files[f"scores/part-{model.model_id}-000000-0.parquet"] = parquet_bytes(part)
    suite = "name: s\ntitle: s\nstatistics: {draws: 400}\n"
    store = RunStore(folder)
    store.ledger.write(files | {"suite.lock.yaml": suite.encode()})
    entries = [asdict(model) for model in run.models]
    store.update(models=entries, cluster_kinds={"inside": "patient"}, plan_sha256="0")
    return folder


@pytest.fixture(scope="session")
def synthetic():
    """The function that makes a run."""
    return make_run


@pytest.fixture(scope="session")
def compared_run(tmp_path_factory):
    """A function that writes a run of models on one set of true masks; `change` edits it first."""

    def write(
        models=("m", "blind"), *, size=60, seed=0, n_words=10, sets=("inside",), change=lambda r: r
    ):
        facts = [
            ModelFacts(f"{m}@1", m, (), m == "blind", 0.35 + 0.1 * k) for k, m in enumerate(models)
        ]
        sizes = dict.fromkeys(sets, size)
        run = with_one_truth(make_run(sizes, seed=seed, n_words=n_words, models=facts))
        kept = pl.when(pl.col("probe") == "swap").then(pl.lit("preserved")).otherwise("meaning")
        run = change(replace(run, plan=run.plan.with_columns(meaning=kept)))
        return write_run(tmp_path_factory.mktemp("runs") / "run", run)

    return write


@pytest.fixture(scope="session")
def quick_suite():
    """A suite with few draws."""

    def make(**statistics):
        settings = {"draws": 400} | statistics
        return Suite.model_validate(
            {"name": "s", "title": "s", "out_of_distribution": True, "statistics": settings}
        )

    return make


def _summary_row(given):
    kinds = {pl.Int64: 0, pl.Float64: float("nan")}
    row = {name: kinds.get(kind) for name, kind in SUMMARY_SCHEMA.items()}
    row |= {"model_id": "m@1", "model": "m", "dataset": "d", "split": "test", "notes": []}
    row |= {"prompts": "released", "prompt_type": "p6", "n_cases": 100, "n_clusters": 50}
    return row | given


@pytest.fixture(scope="session")
def summary_of():
    """A function from rows (dictionaries of what differs) to a summary."""
    return lambda *given: pl.DataFrame(
        [_summary_row(g) for g in given], schema=SUMMARY_SCHEMA, orient="row"
    )
