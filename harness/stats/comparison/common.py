"""Cases scored by every model, and the figures that models are compared by.

Three figures: *original Dice* (one a set), the *relative change* of Dice (one a cell of the
plan) and *steadiness* (one a set): the mean agreement between the masks before and after edits
that preserve the meaning, over samples and cells alike. A model that ignores its prompt is
perfectly steady.

Conventions: a *subject* is one model of one run. Cases are the same when their ids are, which
hash everything that a plan says of them. A case counts only where every subject has a Dice for
it and for its original, and the edit reached each of them; all others are left out and counted.
A *set* is (dataset, split, prompts, prompt type). Ratios are fractions.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import NamedTuple

import numpy as np
import polars as pl

from harness.errors import NothingSelectedError, RunError
from harness.metrics import EMPTY_SCORES, combined_rule, signature
from harness.plan.repeats import answer_step
from harness.records import Meaning
from harness.runs.store import RunStore
from harness.stats.bootstrap import Ratios
from harness.stats.coding import PLAN_KEYS
from harness.stats.intervals import MINIMUM_WORDS, word_deviations
from harness.stats.pairs import SET_KEYS, ModelFacts, Pairs, assessed, pair
from harness.stats.relative import ClusterSums
from harness.suite.schema import Suite

_UNREAD = ("image", "mask", "edits", "named_sample_id", "variant_type")


@dataclass(frozen=True, slots=True)
class Subject:
    """One model of one run."""

    label: str  # what tables call it; no two subjects share one
    run: str  # the run directory, as it was given
    store: RunStore  # the same, opened
    suite: Suite  # with the rules under which its counts are read
    facts: ModelFacts


class Coverage(NamedTuple):
    """How much of a subject's plan is compared."""

    label: str
    run: str
    model_id: str
    plan_sha256: str
    n_planned: int  # cases of its plan
    n_common: int  # those that stand in every plan
    n_compared: int  # those that every subject has a Dice for
    note: str = ""  # what its differences do not know; empty where nothing


class Common(NamedTuple):
    """The common cases of all subjects."""

    pairs: Pairs  # their plan and scores; the subjects' keys are their places, ``"000"`` onwards
    coverage: tuple[Coverage, ...]  # one a subject
    case_ids: pl.Series


def key_of(place: int) -> str:
    """The key of a subject: in the order of places, and one even where two are one model."""
    return f"{place:03d}"


def common_cases(subjects: Sequence[Subject]) -> Common:
    """Put the subjects' scores beside the cases that all of them have.

    Raises:
        RunError: Metrics differ, or one case was scored against two true masks.
        NothingSelectedError: No case is left.
    """
    refuse_other_metrics(subjects)
    plans = {s.run: s.store.plan_scan() for s in subjects}
    ids = {run: plan.select("case_id").collect()["case_id"] for run, plan in plans.items()}
    everywhere = reduce(_intersection, ids.values())
    scores = pl.concat([_scores(s, place) for place, s in enumerate(subjects)])
    refuse_other_truths(subjects, scores, everywhere)
    plan = next(iter(plans.values())).drop(*_UNREAD)
    pairs = _pair(_only(plan, everywhere), scores, subjects) if len(everywhere) else None
    kept = pl.Series("case_id", [], pl.UInt64) if pairs is None else _answered(pairs)
    coverage = tuple(
        Coverage(
            *(s.label, s.run, s.facts.model_id, s.store.manifest["plan_sha256"]),
            *(len(ids[s.run]), len(everywhere), len(kept), _unknown(s, subjects)),
        )
        for s in subjects
    )
    if kept.is_empty():
        counts = ", ".join(f"{c.label} {c.n_planned}" for c in coverage)
        raise NothingSelectedError(
            f"compare: {len(everywhere)} cases stand in every plan (planned: {counts}), and for "
            "none of them has every model a Dice. Models are compared on the same cases. Run the "
            "same suite, seed, data and prompts with each."
        )
    return Common(_pair(_only(plan, kept), scores, subjects), coverage, kept)


def _unknown(subject: Subject, subjects: Sequence[Subject]) -> str:
    """What varies of a subject and is in no difference; what is in them and no matter of models."""
    own = subject.facts.model_id
    recipe = next((m.name for m in assessed(subject.store.manifest) if own in m.seeds), None)
    said = [] if recipe is None else [f"one seed of {recipe}; what seeds vary"]
    if answer_step(subject.store.plan_scan()) is not None:
        said.append("what several answers to a case vary")
    told = [f"{', and '.join(said)} is in no difference"] if said else []
    backend = subject.facts.backend
    if backend and {s.facts.backend for s in subjects} - {backend, ""}:
        told.append(f"computed by {backend}, others are not: pixels near the threshold may differ")
    return "; ".join(told)


def _only(rows: pl.LazyFrame, case_ids: pl.Series) -> pl.LazyFrame:
    """The rows of some cases, in order."""
    return rows.filter(pl.col("case_id").is_in(case_ids.implode()))


def _intersection(one: pl.Series, other: pl.Series) -> pl.Series:
    return one.to_frame().join(other.to_frame(), on="case_id", how="semi")["case_id"]


def _scores(subject: Subject, place: int) -> pl.LazyFrame:
    own = subject.store.scores_scan().filter(pl.col("model_id") == subject.facts.model_id)
    return own.with_columns(model_id=pl.lit(key_of(place)))


def _pair(plan: pl.LazyFrame, scores: pl.LazyFrame, subjects: Sequence[Subject]) -> Pairs:
    texts = [_texts(s, place) for place, s in enumerate(subjects)]
    settings = subjects[0].suite
    return pair(
        plan,
        scores,
        models=[replace(s.facts, model_id=key_of(p)) for p, s in enumerate(subjects)],
        empty=EMPTY_SCORES[settings.metric.empty],
        floor=settings.statistics.dice_floor,
        texts=pl.concat(texts, how="diagonal"),
    )


def _texts(subject: Subject, place: int) -> pl.DataFrame:
    found = subject.store.texts()
    if found.is_empty():
        return found
    own = found.filter(pl.col("model_id") == subject.facts.model_id)
    return own.with_columns(model_id=pl.lit(key_of(place)))


def _answered(pairs: Pairs) -> pl.Series:
    """Cases with a Dice of their own and of their original, and agreement, for every subject."""
    found: dict[int, list[pl.Series]] = {}
    originals = pairs.cells.filter(pl.col("probe") == "original")["cell"]
    compared = pl.col("agreement").is_not_null() | pl.col("cell").is_in(originals.implode())
    n_cells = pairs.plan.cells.height
    for cases in pairs.chunks():
        both = pl.col("dice").is_not_null() & pl.col("reference").is_not_null()
        whole = cases.filter(both & compared)
        subject = int(cases["cell"][0]) // n_cells
        found.setdefault(subject, []).append(whole["case_id"])
    return reduce(_intersection, [pl.concat(parts) for parts in found.values()])


def refuse_other_metrics(subjects: Sequence[Subject]) -> None:
    """Numbers of different signatures are never compared; a threshold is the model's own.

    Raises:
        RunError: Two subjects are scored by different rules.
    """
    first = subjects[0]
    for other in subjects[1:]:
        both = sorted(_datasets(first) & _datasets(other))
        wanted, found = (
            signature(
                one.suite.metric, 0.5, combined_rule({name: one.facts.rule(name) for name in both})
            )
            for one in (first, other)
        )
        if found != wanted:
            raise RunError(
                f"compare: {first.run} has the metric {wanted!r}, {other.run} has {found!r}. "
                "Numbers of different metrics are not compared. Where the rule for empty masks "
                "alone differs give --empty; else run both with the same metric settings."
            )


def _datasets(subject: Subject) -> set[str]:
    return {*subject.store.manifest.get("cluster_kinds", {}), *subject.facts.foreground}


def refuse_other_truths(
    subjects: Sequence[Subject], scores: pl.LazyFrame, everywhere: pl.Series
) -> None:
    """One case has one true mask: at one size it has one number of pixels.

    Raises:
        RunError: Two runs saw different masks for one case.
    """
    done = scores.filter(pl.col("status") == "done")
    sizes = (
        _only(done, everywhere)
        .group_by("case_id", "height", "width")
        .agg(low=pl.col("n_gt").min(), high=pl.col("n_gt").max())
    )
    unequal = sizes.filter(pl.col("low") != pl.col("high")).sort("case_id")
    wrong = unequal.collect(engine="streaming")
    if wrong.height:
        first = wrong.row(0, named=True)
        runs = ", ".join(dict.fromkeys(s.run for s in subjects))
        raise RunError(
            f"compare: {wrong.height} cases have true masks of different sizes in {runs}; the "
            f"first is {first['case_id']} with {first['low']} and {first['high']} pixels. The "
            "data must be the same. Run the models on the same data."
        )


ORIGINAL, CHANGE, STEADINESS = "original_dice", "relative_change", "steadiness"
FIGURES = (ORIGINAL, CHANGE, STEADINESS)
DECISIVE = "decisive_change"
"""The relative change over the samples in which the changed word points to another target."""


class Figure(NamedTuple):
    """One figure of every model over the same samples."""

    name: str  # one of `FIGURES`, or `DECISIVE`
    # Values of `PLAN_KEYS`; probe and attribute are None where a set is meant.
    keys: dict[str, str | None]
    meaning: str | None  # what the change does to the meaning; None for a set
    units: np.ndarray  # numbers of the units, ``(G,)``, in order
    # A model each, ``(G, 1)``, or ``(G, m, 1)`` where words are resampled.
    sides: tuple[Ratios, ...]
    words: tuple[str, ...]  # texts of the m words; empty where words are fixed
    n_samples: int
    references: tuple[Ratios, ...]  # mean Dice of the originals as ratios, a model each
    empty_shares: tuple[float, ...]  # share of originals with an empty mask, a model each
    fixed_words: bool  # whether it speaks of its few words only


def figures_of(pairs: Pairs, sums: ClusterSums, *, decisive: bool = False) -> Iterator[Figure]:
    """Every figure, sets in order, within a set by figure, probe and attribute.

    `DECISIVE` stands behind each change that has named targets, if `decisive`.
    """
    tables = _Tables(pairs, sums)
    cells = pairs.plan.cells
    for _, own in cells.group_by(SET_KEYS, maintain_order=True):
        rows = own.rows(named=True)
        original = next(r for r in rows if r["probe"] == "original")
        yield tables.figure(ORIGINAL, original, ("dice", "n"))
        changed = [r for r in rows if r["probe"] != "original"]
        for row in changed:
            yield tables.figure(CHANGE, row, ("dice", "reference"))
            if decisive and tables.has_named(row):
                yield tables.figure(
                    DECISIVE, row, ("own_named", "reference_named"), count="n_named"
                )
        kept = [r for r in changed if r["meaning"] == Meaning.PRESERVED]
        if kept:
            yield tables.pooled(kept, original)


class _Tables:
    """Sums of each (model, plan cell), looked up."""

    def __init__(self, pairs: Pairs, sums: ClusterSums) -> None:
        self._n_cells = pairs.plan.cells.height
        self._n_models = len(pairs.model_ids)
        self._names = pairs.plan.words
        self._units = {cell: rows for (cell,), rows in sums.units.group_by("cell")}
        self._words = {cell: rows for (cell,), rows in sums.words.group_by("cell")}
        figures = sums.figures.select("cell", "n_samples", "originals_empty_share")
        self._facts = {cell: (n, share) for cell, n, share in figures.iter_rows()}

    def _cells(self, row: dict[str, object]) -> list[int]:
        place = int(str(row["plan_cell"]))
        return [number * self._n_cells + place for number in range(self._n_models)]

    def has_named(self, row: dict[str, object]) -> bool:
        """Whether any sample of a cell has a named target."""
        return int(self._units[self._cells(row)[0]]["n_named"].sum()) > 0

    def figure(
        self, name: str, row: dict[str, object], columns: tuple[str, str], *, count: str = "n"
    ) -> Figure:
        cells = self._cells(row)
        sums = [self._units[c].filter(pl.col(count) > 0).sort("unit") for c in cells]
        words, sides = self._sides(cells, sums, columns, worded=name == CHANGE)
        facts = [self._facts[c] for c in cells]
        n_words = self._n_words(cells[0])
        return Figure(
            name=name,
            keys={k: _text(row[k]) for k in PLAN_KEYS}
            | ({"probe": None, "attribute": None} if name == ORIGINAL else {}),
            meaning=None if name == ORIGINAL else _text(row["meaning"]),
            units=sums[0]["unit"].to_numpy(),
            sides=sides,
            words=words,
            n_samples=facts[0][0] if count == "n" else int(sums[0][count].sum()),
            references=tuple(_ratios(s, "reference", "n") for s in sums),
            empty_shares=tuple(_share(share) for _, share in facts),
            fixed_words=0 < n_words < MINIMUM_WORDS,
        )

    def pooled(self, rows: list[dict[str, object]], original: dict[str, object]) -> Figure:
        """Agreement over all cells that preserve the meaning."""
        by_model = zip(*(self._cells(row) for row in rows), strict=True)
        sums = [
            pl.concat([self._units[c] for c in cells])
            .group_by("unit")
            .agg(pl.col("agreement", "n_agreement", "reference", "n").sum())
            .filter(pl.col("n_agreement") > 0)
            .sort("unit")
            for cells in by_model
        ]
        facts = [self._facts[c] for c in self._cells(original)]
        return Figure(
            name=STEADINESS,
            keys={k: _text(original[k]) for k in PLAN_KEYS} | {"probe": None, "attribute": None},
            meaning=Meaning.PRESERVED.value,
            units=sums[0]["unit"].to_numpy(),
            sides=tuple(_ratios(s, "agreement", "n_agreement") for s in sums),
            words=(),
            n_samples=facts[0][0],
            references=tuple(_ratios(s, "reference", "n") for s in sums),
            empty_shares=tuple(_share(share) for _, share in facts),
            fixed_words=False,
        )

    def _n_words(self, cell: int) -> int:
        return self._words[cell]["word"].n_unique() if cell in self._words else 0

    def _sides(
        self, cells: list[int], sums: list[pl.DataFrame], columns: tuple[str, str], *, worded: bool
    ) -> tuple[tuple[str, ...], tuple[Ratios, ...]]:
        plain = tuple(_ratios(s, *columns) for s in sums)
        if not worded or self._n_words(cells[0]) < MINIMUM_WORDS:
            return (), plain
        numbers = sorted(self._words[cells[0]]["word"].unique())
        sides = []
        for cell, one, ratios in zip(cells, sums, plain, strict=True):
            deviations = word_deviations(one, self._words[cell], columns[0])
            by_word = ratios.numerator[:, None, :] + deviations[:, :, None]
            sides.append(Ratios(by_word, ratios.denominator))
        return tuple(self._names[n] for n in numbers), tuple(sides)


def _ratios(sums: pl.DataFrame, above: str, below: str) -> Ratios:
    numerator, denominator = (sums[c].cast(pl.Float64).to_numpy()[:, None] for c in (above, below))
    return Ratios(numerator, denominator)


def _share(share: float | None) -> float:
    return float("nan") if share is None else share


def _text(value: object) -> str | None:
    return None if value is None else str(value)
