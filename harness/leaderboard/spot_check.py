"""Reruns a drawn part of a submission with the weights it names.

The part is drawn from the submission's hash and entropy of the verifier's own, so that nobody
knows beforehand which cases it holds. Cases are drawn alone, with the originals they belong to:
scattered ones find scattered tampering best. Alone they are computed in other batches than in
the run, which may move single pixels; where the hardware is the same and a count differs, the
whole shard is therefore computed again, in the run's own batches, and must agree to the pixel.

Conventions: differences are of Dice, in [0, 1]; on other hardware a case may differ by
`CASE_TOLERANCE` and the mean of all by `MEAN_TOLERANCE`. Compared are Dice with the own mask,
with the named mask, and with the mask of the original prompt.
"""

import hashlib
import platform
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from harness.cards import load_dataset_card
from harness.data.readings import kept_readings
from harness.leaderboard.reasons import reason
from harness.leaderboard.submission import COUNTS, RunFacts, Submission
from harness.leaderboard.tracks import Reference
from harness.store import DONE, RunStore
from harness.writing import temporary_folder

if TYPE_CHECKING:
    from harness.leaderboard.verification import Verification
    from harness.models import LoadedModel

CASE_TOLERANCE = 0.01
MEAN_TOLERANCE = 0.001

_COMPARED = {
    "Dice": ("tp", "n_pred", "n_gt"),
    "Dice with the named mask": ("tp_named", "n_pred", "n_named"),
    "agreement with the original": ("tp_original", "n_pred", "n_pred_original"),
}


@dataclass(frozen=True)
class Sample:
    """Drawn cases, and what must be run to count them.

    Attributes:
        drawn: Ids of the cases that are compared.
        cases: Rows of the plan: the drawn ones, their originals, and those of named samples.
        seed: By which the same cases are drawn again.
    """

    drawn: pl.Series
    cases: pl.DataFrame
    seed: int


@dataclass(frozen=True)
class SpotCheck:
    """What came out of a rerun.

    Attributes:
        model_id: Of the model that was loaded.
        seed: Of the sample.
        n_cases: That were compared.
        same_hardware: Whether counts had to be equal.
        n_unequal: Cases with any other count when computed alone.
        largest: Largest difference of a Dice.
        mean: Largest absolute mean difference of the three kinds of Dice.
        reasons: Why the submission is disputed; none where it stood.
    """

    model_id: str
    seed: int
    n_cases: int
    same_hardware: bool
    n_unequal: int
    largest: float
    mean: float
    reasons: tuple[str, ...] = field(default=())

    def record(self) -> dict[str, Any]:
        """Plain values for JSON."""
        kept = ("model_id", "seed", "n_cases", "same_hardware", "n_unequal", "largest", "mean")
        return {name: getattr(self, name) for name in kept}

    def sentence(self) -> str:
        """What was done and what came out, for a flag."""
        kind = "the same hardware" if self.same_hardware else "other hardware"
        return (
            f"{self.n_cases} cases rerun on {kind} (seed {self.seed}): {self.n_unequal} with other "
            f"counts, Dice off by {self.largest:.4f} at most and {self.mean:.5f} on average."
        )


def draw(cases: pl.DataFrame, digest: str, *, share: float, seed: int | None = None) -> Sample:
    """Draw a share of the plan's cases.

    Args:
        cases: Of the plan.
        digest: Of the submission, which enters the draw.
        share: Of the cases, at least one.
        seed: Of the verifier; drawn where it is None.
    """
    own = secrets.randbits(48) if seed is None else seed
    entropy = int.from_bytes(hashlib.sha256(f"{digest} {own}".encode()).digest(), "little")
    rng = np.random.default_rng(np.random.SeedSequence(entropy))
    count = max(1, round(share * cases.height))
    places = np.sort(rng.choice(cases.height, size=count, replace=False))
    drawn = cases[places]
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
    found: "Verification",
    reference: Reference,
    sample: Sample,
    model: "LoadedModel",
    *,
    root: Path,
    advance: Callable[[int], None] = lambda _: None,
) -> SpotCheck:
    """Compute the drawn cases with a model, and compare them with those of the submission.

    Args:
        found: An accepted submission.
        reference: Of its track.
        sample: Of `draw`.
        model: Loaded from the weights that the submission names.
        root: Data root.
        advance: Called with the number of cases of each finished shard.
    """
    facts, submission, scores = found.opened.facts, found.opened.submission, found.scores
    assert facts is not None
    assert submission is not None
    assert scores is not None  # an accepted submission has all three
    stranger = _stranger_reasons(facts, submission, model)
    if stranger:
        return SpotCheck(model.model_id, sample.seed, 0, False, 0, 0.0, 0.0, tuple(stranger))
    same = same_hardware(facts, model)
    again = _computed(sample.cases, reference, model, facts, root=root, advance=advance)
    both = compared(scores, again, sample.drawn)
    unequal = both.filter("unequal")
    reasons: list[str] = []
    if same and unequal.height:
        ids = unequal["case_id"]
        whole = _shards_again(ids, reference, model, facts, root=root)
        reasons = list(_unequal_reasons(compared(scores, whole, ids).filter("unequal")))
    elif not same:
        reasons = list(difference_reasons(both))
    largest, mean = _differences(both)
    return SpotCheck(
        model_id=model.model_id,
        seed=sample.seed,
        n_cases=both.height,
        same_hardware=same,
        n_unequal=unequal.height,
        largest=largest,
        mean=mean,
        reasons=tuple(reasons),
    )


def _stranger_reasons(facts: RunFacts, submission: Submission, model: "LoadedModel") -> list[str]:
    """Whether the model that was loaded is the one that was submitted."""
    found = []
    if model.weights_sha256 != submission.weights.sha256:
        found.append(
            reason(
                "--model",
                f"its weights have the hash {model.weights_sha256}",
                f"The submission names {submission.weights.sha256}",
                "Give the file that the submission names: --model CARD=CHECKPOINT",
            )
        )
    for name, now, then in (
        ("threshold", model.card.threshold, facts.threshold),
        ("precision", str(model.precision), facts.precision),
    ):
        if now != then:
            right = f"The submission was run with {then!r}"
            found.append(reason(f"--model: {name}", repr(now), right, "Give the same one"))
    return found


def same_hardware(facts: RunFacts, model: "LoadedModel") -> bool:
    """Whether counts made here must equal those of a run to the pixel."""
    import torch

    from harness.precision import device_name

    here = (device_name(model.device), torch.get_num_threads(), platform.platform())
    there = (facts.hardware.device_name, facts.hardware.threads, facts.platform)
    library = metadata.version("torch")
    return (
        here == there
        and facts.device == model.device.type
        and facts.libraries.get("torch") == library
        and facts.halved_to is None
    )


def _computed(
    cases: pl.DataFrame,
    reference: Reference,
    model: "LoadedModel",
    facts: RunFacts,
    *,
    root: Path,
    advance: Callable[[int], None] = lambda _: None,
    skipped: Callable[[RunStore], None] = lambda _: None,
) -> pl.DataFrame:
    """The scores of some cases, computed in a run directory that is thrown away."""
    from harness.engine.local import execute

    with temporary_folder() as folder:
        store = RunStore(folder)
        store.begin(cases)
        skipped(store)
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


def _shards_again(
    ids: pl.Series, reference: Reference, model: "LoadedModel", facts: RunFacts, *, root: Path
) -> pl.DataFrame:
    """The whole shards of some cases, in the batches of the run itself."""
    from harness.engine.shards import cut, distinct_texts

    cases = reference.plan.cases

    def skip_others(store: RunStore) -> None:
        """An empty part says that nothing of a shard is left to do."""
        for shard in cut(cases, distinct_texts(cases)):
            if not shard.cases["case_id"].is_in(ids.implode()).any():
                nothing = store.scores()
                store.write_part(model.model_id, shard.index, nothing)

    return _computed(cases, reference, model, facts, root=root, skipped=skip_others)


def compared(scores: pl.DataFrame, again: pl.DataFrame, ids: pl.Series) -> pl.DataFrame:
    """Submitted and recomputed counts side by side, with the differences of each Dice.

    Args:
        scores: Of the submission.
        again: Computed here, with a status.
        ids: Cases to compare.
    """
    kept = pl.DataFrame({"case_id": ids})
    here = again.select("case_id", "status", *COUNTS)
    both = kept.join(scores, on="case_id", how="left").join(
        here, on="case_id", how="left", suffix="_here"
    )
    unequal = pl.any_horizontal(pl.col(c).ne_missing(pl.col(f"{c}_here")) for c in COUNTS)
    columns = {
        name: (_dice(*parts) - _dice(*(f"{p}_here" for p in parts))).fill_nan(None)
        for name, parts in _COMPARED.items()
    }
    return both.with_columns(
        unequal=unequal | (pl.col("status") != DONE).fill_null(True), **columns
    ).sort("case_id")


def _dice(tp: str, first: str, second: str) -> pl.Expr:
    size = pl.col(first) + pl.col(second)
    return pl.when(size == 0).then(1.0).otherwise(2 * pl.col(tp) / size)


def _differences(both: pl.DataFrame) -> tuple[float, float]:
    """Largest difference of a case, and largest mean difference."""
    columns = [both[name].drop_nulls().to_numpy() for name in _COMPARED]
    there = [values for values in columns if len(values)]
    largest = max((float(np.abs(values).max()) for values in there), default=0.0)
    return largest, max((abs(float(values.mean())) for values in there), default=0.0)


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
            "Run the track again and submit the counts as they were written",
        )
    ]


def difference_reasons(both: pl.DataFrame) -> list[str]:
    """Where counts of other hardware lie too far from those submitted.

    Args:
        both: Of `compared`.
    """
    found = []
    lost = both.filter((pl.col("status") != DONE).fill_null(True))
    if lost.height:
        what = f"{lost.height} drawn cases could not be computed, first {lost['case_id'][0]}"
        found.append(reason("spot check", what, "Every case has a score", "Check the data root"))
    for name in _COMPARED:
        far = both.filter(pl.col(name).abs() > CASE_TOLERANCE)
        repair = "Run the track again and submit the counts as they were written"
        if far.height:
            first = far.row(0, named=True)
            found.append(
                reason(
                    f"scores.parquet: case {first['case_id']}",
                    f"{name} is off by {abs(first[name]):.4f} ({far.height} of the drawn cases are "
                    "too far off)",
                    f"Other hardware moves a case by {CASE_TOLERANCE} at most",
                    repair,
                )
            )
        mean = both[name].drop_nulls().mean()
        if isinstance(mean, float) and abs(mean) > MEAN_TOLERANCE:
            right = f"Other hardware moves the mean by {MEAN_TOLERANCE} at most"
            what = f"{name} of the drawn cases is off by {abs(mean):.5f} on average"
            found.append(reason("scores.parquet", what, right, repair))
    return found
