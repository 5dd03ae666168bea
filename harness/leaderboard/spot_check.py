"""Reruns a random sample of a submission's cases with the weights it names.

The sample is drawn from the submission's hash and entropy of the verifier's own, so that nobody
knows it beforehand. Cases are drawn alone, with their originals: scattered ones find scattered
tampering best. In other batches than in the run single pixels may move; where the hardware is the
same and a count differs, the whole shard is computed again in the run's own batches, and must agree
to the pixel. On other hardware Dice (own mask, named mask, mask of the original prompt) may differ
by `CASE_TOLERANCE` in a case and by `MEAN_TOLERANCE` on average.
"""

import hashlib
import platform
import secrets
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl

from harness.cards import load_dataset_card
from harness.data.readings import kept_readings
from harness.files.writing import temporary_folder
from harness.leaderboard.counts import AGAIN
from harness.leaderboard.reasons import reason
from harness.leaderboard.submission import COUNTS, RunFacts
from harness.leaderboard.tracks import Reference
from harness.runs.store import DONE, RunStore

if TYPE_CHECKING:
    from harness.leaderboard.verification import Accepted
    from harness.model.loading import LoadedModel

CASE_TOLERANCE = 0.01
MEAN_TOLERANCE = 0.001

_COMPARED = {
    "Dice": ("tp", "n_pred", "n_gt"),
    "Dice with the named mask": ("tp_named", "n_pred", "n_named"),
    "agreement with the original": ("tp_original", "n_pred", "n_pred_original"),
}


class Sample(NamedTuple):
    """Drawn ids; the plan's rows to be run (originals and named samples, too); the seed."""

    drawn: pl.Series
    cases: pl.DataFrame
    seed: int


@dataclass(frozen=True)
class SpotCheck:
    """The outcome of a rerun; `reasons` say why the submission is disputed, if it is.

    `same_hardware`: counts had to be equal. `n_unequal` cases had other counts when computed alone.
    `largest` and `mean` are differences of Dice, the mean that of the worst of the three kinds.
    """

    model_id: str
    seed: int
    n_cases: int = 0
    same_hardware: bool = False
    n_unequal: int = 0
    largest: float = 0.0
    mean: float = 0.0
    reasons: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without the reasons."""
        return {name: value for name, value in asdict(self).items() if name != "reasons"}

    def sentence(self) -> str:
        """What was done and what came out, for a flag."""
        kind = "the same hardware" if self.same_hardware else "other hardware"
        return (
            f"{self.n_cases} cases rerun on {kind} (seed {self.seed}): {self.n_unequal} with other "
            f"counts, Dice off by {self.largest:.4f} at most and {self.mean:.5f} on average."
        )


def draw_sample(
    cases: pl.DataFrame, digest: str, *, share: float, seed: int | None = None
) -> Sample:
    """Draw a share of the plan's cases, at least one.

    The submission's `digest` enters the draw; where `seed` is None the verifier's is drawn too.
    """
    own = secrets.randbits(48) if seed is None else seed
    entropy = int.from_bytes(hashlib.sha256(f"{digest} {own}".encode()).digest(), "little")
    rng = np.random.default_rng(np.random.SeedSequence(entropy))
    count = max(1, round(share * cases.height))
    drawn = cases[np.sort(rng.choice(cases.height, size=count, replace=False))]
    samples = drawn.filter(pl.col("named_sample_id").is_not_null()).select(
        "dataset", "split", sample_id="named_sample_id"
    )
    named = cases.filter(pl.col("probe") == "original").join(
        samples.unique(), on=["dataset", "split", "sample_id"], how="semi"
    )
    ids = [drawn["case_id"], drawn["original_case_id"], named["case_id"]]
    wanted = pl.concat([s.alias("case_id") for s in ids]).unique()
    return Sample(drawn["case_id"], cases.filter(pl.col("case_id").is_in(wanted.implode())), own)


def rerun(
    accepted: "Accepted",
    reference: Reference,
    sample: Sample,
    model: "LoadedModel",
    *,
    root: Path,
    advance: Callable[[int], None] = lambda _: None,
) -> SpotCheck:
    """Run the sampled cases with a model and compare their counts with the submitted ones.

    `model` is loaded from the weights that the submission names; `root` is the data root.
    """
    facts, scores = accepted.facts, accepted.scores
    mismatches = tuple(_model_reasons(accepted, model))
    if mismatches:
        return SpotCheck(model.model_id, sample.seed, reasons=mismatches)
    same = same_hardware(facts, model)
    again = _compute(sample.cases, reference, model, facts, root=root, advance=advance)
    both = compare_counts(scores, again, sample.drawn)
    unequal = both.filter("unequal")["case_id"]
    reasons: list[str] = []
    if not same:
        reasons = list(difference_reasons(both))
    elif len(unequal):
        whole = _compute_shards(unequal, reference, model, facts, root=root)
        reasons = _unequal_reasons(compare_counts(scores, whole, unequal).filter("unequal"))
    largest, mean = _differences(both)
    return SpotCheck(
        model_id=model.model_id,
        seed=sample.seed,
        n_cases=both.height,
        same_hardware=same,
        n_unequal=len(unequal),
        largest=largest,
        mean=mean,
        reasons=tuple(reasons),
    )


def _model_reasons(accepted: "Accepted", model: "LoadedModel") -> Iterator[str]:
    """Where the model that was loaded is not the one that was submitted."""
    submitted = accepted.submission.weights.sha256
    if model.weights_sha256 != submitted:
        yield reason(
            "--model",
            f"its weights have the hash {model.weights_sha256}",
            f"The submission names {submitted}",
            "Give the file that the submission names: --model CARD=CHECKPOINT",
        )
    for name, now, then in (
        ("threshold", model.card.threshold, accepted.facts.threshold),
        ("precision", str(model.precision), accepted.facts.precision),
    ):
        if now != then:
            right = f"The submission was run with {then!r}"
            yield reason(f"--model: {name}", repr(now), right, "Give the same one")


def same_hardware(facts: RunFacts, model: "LoadedModel") -> bool:
    """Whether counts made here must equal those of a run to the pixel."""
    import torch

    from harness.model.precision import device_name

    here = (device_name(model.device), torch.get_num_threads(), platform.platform())
    there = (facts.hardware.device_name, facts.hardware.threads, facts.platform)
    return (
        here == there
        and facts.device == model.device.type
        and facts.libraries.get("torch") == metadata.version("torch")
        and facts.halved_to is None
    )


def _compute(
    cases: pl.DataFrame,
    reference: Reference,
    model: "LoadedModel",
    facts: RunFacts,
    *,
    root: Path,
    advance: Callable[[int], None] = lambda _: None,
    prepare: Callable[[RunStore], None] = lambda _: None,
) -> pl.DataFrame:
    """Compute the scores of some cases in a run directory that is thrown away."""
    from harness.engine.local import execute

    with temporary_folder() as folder:
        store = RunStore(folder)
        store.begin(cases)
        prepare(store)
        cards = [load_dataset_card(one.name) for one in reference.track.datasets]
        store.update(readings=kept_readings({card.name: card.reading for card in cards}))
        execute(
            store,
            model,
            root=root,
            metric=reference.suite.metric,
            batch_size=facts.batch_size,
            advance=advance,
        )
        return store.scores()


def _compute_shards(
    ids: pl.Series, reference: Reference, model: "LoadedModel", facts: RunFacts, *, root: Path
) -> pl.DataFrame:
    """Compute the whole shards of some cases, in the batches of the run itself."""
    from harness.engine.shards import cut, distinct_texts

    cases = reference.plan.cases

    def skip_others(store: RunStore) -> None:
        """An empty part says that nothing of a shard is left to do."""
        for shard in cut(cases, distinct_texts(cases)):
            if not shard.cases["case_id"].is_in(ids.implode()).any():
                store.write_part(model.model_id, shard.index, store.scores())

    return _compute(cases, reference, model, facts, root=root, prepare=skip_others)


def compare_counts(scores: pl.DataFrame, again: pl.DataFrame, ids: pl.Series) -> pl.DataFrame:
    """Join submitted counts and those computed here (``_here``), for the cases in `ids`.

    Adds ``unequal`` and, for each of `_COMPARED`, the difference of Dice.
    """
    both = (
        pl.DataFrame({"case_id": ids})
        .join(scores, on="case_id", how="left")
        .join(again.select("case_id", "status", *COUNTS), on="case_id", how="left", suffix="_here")
    )
    unequal = pl.any_horizontal(pl.col(c).ne_missing(pl.col(f"{c}_here")) for c in COUNTS)
    differences = {
        name: (_dice(*parts) - _dice(*(f"{p}_here" for p in parts))).fill_nan(None)
        for name, parts in _COMPARED.items()
    }
    return both.with_columns(unequal=unequal | _LOST, **differences).sort("case_id")


_LOST = (pl.col("status") != DONE).fill_null(True)


def _dice(tp: str, first: str, second: str) -> pl.Expr:
    size = pl.col(first) + pl.col(second)
    return pl.when(size == 0).then(1.0).otherwise(2 * pl.col(tp) / size)


def _differences(both: pl.DataFrame) -> tuple[float, float]:
    """Largest difference of a case, and largest mean difference."""
    columns = [both[name].drop_nulls().to_numpy() for name in _COMPARED]
    filled = [values for values in columns if len(values)]
    largest = max((float(np.abs(values).max()) for values in filled), default=0.0)
    return largest, max((abs(float(values.mean())) for values in filled), default=0.0)


def _unequal_reasons(wrong: pl.DataFrame) -> list[str]:
    if not wrong.height:
        return []
    first = wrong.row(0, named=True)
    differing = [c for c in COUNTS if first[c] != first[f"{c}_here"]]
    texts = ", ".join(f"{c} {first[f'{c}_here']} instead of {first[c]}" for c in differing)
    return [
        reason(
            f"scores.parquet: case {first['case_id']}",
            f"rerun in the same batches on the same hardware it has {texts or 'no score'} "
            f"({wrong.height} of the drawn cases differ)",
            "The same hardware gives the same counts",
            AGAIN,
        )
    ]


def difference_reasons(both: pl.DataFrame) -> Iterator[str]:
    """Where counts of other hardware differ too much from those submitted; `compare_counts`."""
    lost = both.filter(_LOST)
    if lost.height:
        what = f"{lost.height} drawn cases could not be computed, first {lost['case_id'][0]}"
        yield reason("spot check", what, "Every case has a score", "Check the data root")
    for name in _COMPARED:
        far = both.filter(pl.col(name).abs() > CASE_TOLERANCE)
        if far.height:
            first = far.row(0, named=True)
            yield reason(
                f"scores.parquet: case {first['case_id']}",
                f"{name} is off by {abs(first[name]):.4f} ({far.height} of the drawn cases are "
                "too far off)",
                f"Other hardware moves a case by {CASE_TOLERANCE} at most",
                AGAIN,
            )
        mean = both[name].drop_nulls().mean()
        if isinstance(mean, float) and abs(mean) > MEAN_TOLERANCE:
            right = f"Other hardware moves the mean by {MEAN_TOLERANCE} at most"
            what = f"{name} of the drawn cases is off by {abs(mean):.5f} on average"
            yield reason("scores.parquet", what, right, AGAIN)
