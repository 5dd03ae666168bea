"""Out of distribution: the change of Dice from the sets a model was trained on to the others.

Conventions: a *set* is (dataset, split, prompts, prompt type); a model's in-distribution sets
are the test splits of the datasets it was trained on. The partition is made per model and
lives here, not in the plan. The change is relative to the unweighted mean of the
in-distribution sets' mean Dice, original prompts only, as a fraction. Clusters of each set are
resampled independently of the other sets; all models that are compared share the draws, so
differences are paired.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from harness.stats.bootstrap import Draws, cluster_draws
from harness.stats.columns import limit_columns, relative_columns, why_too_low
from harness.stats.inference import Floats, Intervals, acceleration_of, inference_of
from harness.stats.pairs import CELL_KEYS, SET_KEYS, ModelFacts, Pairs
from harness.suite.schema import Statistics

_NO_ERROR = 1e-7


class ShiftSet(NamedTuple):
    """One set, for M models: how many samples and how much Dice each cluster holds."""

    draws: Draws  # of its G clusters
    counts: Floats  # samples with a Dice, ``(G, M)``
    sums: Floats  # sum of their Dice, ``(G, M)``


class ShiftIntervals(NamedTuple):
    """Results of one comparison, fields of `Intervals` each with shape ``(M,)``.

    `harmonic` is the harmonic mean of a model's Dice on the target and on the reference;
    `beyond` is its change minus the mean change of the controls, NaN without controls.
    """

    target: Intervals
    reference: Intervals
    points: Intervals
    harmonic: Intervals
    relative: Intervals
    control: Intervals
    beyond: Intervals


def shift_intervals(
    target: ShiftSet, references: Sequence[ShiftSet], *, controls: Sequence[int] = ()
) -> ShiftIntervals:
    """Compare one set with the sets of training, for several models at once.

    References are the test sets of the training data; `controls` says which of the M models are
    controls.

    Raises:
        ValueError: There is no reference.

    Example:
        >>> from harness.stats.bootstrap import cluster_draws
        >>> draws = [cluster_draws(d, "abc", count=100, seed=0) for d in ("in", "out")]
        >>> ones = np.ones((3, 1))
        >>> inside, away = (ShiftSet(d, ones, s * ones) for d, s in zip(draws, (0.8, 0.4)))
        >>> shift_intervals(away, [inside]).relative.estimate
        array([-0.5])
    """
    if not references:
        raise ValueError(
            "shift: no set of the training data. At least one is needed. Name its reason instead."
        )
    sets = [target, *references]
    n_models = target.counts.shape[1]
    mean = np.full((n_models, n_models), 0.0 if controls else np.nan)
    mean[:, list(controls)] = 1 / max(len(controls), 1)
    contrasts = np.vstack([mean, np.eye(n_models) - mean])
    whole = _rows([_moments(s, np.ones((1, len(s.counts)))) for s in sets], contrasts)
    drawn = _rows([_resampled(s) for s in sets], contrasts)
    estimate = whole.values[0]
    influences = [_features(s) @ c[0].T for s, c in zip(sets, whole.forms, strict=True)]
    solved = inference_of(
        estimate,
        _errors(sets, whole)[0],
        shifts=drawn.values - estimate,
        errors=_errors(sets, drawn),
        acceleration=acceleration_of(*influences),
    ).intervals
    parts = [np.split(field, len(ShiftIntervals._fields)) for field in solved]
    return ShiftIntervals(*(Intervals(*fields) for fields in zip(*parts, strict=True)))


class _Moments(NamedTuple):
    """Sums over a set's resampled clusters of x = (counts, sums) and of x x', q = 2 M."""

    first: Floats  # (draws, q)
    second: Floats  # (draws, q, q)


class _Rows(NamedTuple):
    """All quantities of all models as R rows, and their linearisation in each set."""

    values: Floats  # (draws, R)
    forms: list[Floats]  # (draws, R, q) for each set: a cluster's influence is form . x
    moments: list[_Moments]


def _features(one: ShiftSet) -> Floats:
    return np.hstack([one.counts, one.sums])


def _moments(one: ShiftSet, weights: Floats) -> _Moments:
    x = _features(one)
    size, q = x.shape
    products = (x[:, :, None] * x[:, None, :]).reshape(size, q * q)
    return _Moments(weights @ x, (weights @ products).reshape(-1, q, q))


def _resampled(one: ShiftSet) -> _Moments:
    blocks = [_moments(one, weights) for _, weights in one.draws.blocks()]
    return _Moments(*(np.concatenate(part) for part in zip(*blocks, strict=True)))


def _rows(moments: list[_Moments], contrasts: Floats) -> _Rows:
    means = [_set_means(m) for m in moments]
    away, inside = means[0], np.mean(means[1:], axis=0)
    inside_or_none = np.where(inside > 0, inside, np.nan)
    change = away / inside_or_none - 1
    both = away + inside_or_none
    values = [away, inside, away - inside, 2 * away * inside / both, change, change @ contrasts.T]
    one, none, slope = np.ones_like(away), np.zeros_like(away), (1 + change) / inside
    # Derivatives of target, reference, points, harmonic mean and relative change, by the
    # target's and by a reference's mean.
    by_away = [one, none, one, 2 * (inside / both) ** 2, 1 / inside]
    inner = (none, one, -one, 2 * (away / both) ** 2, -slope)
    by_inside = [g / (len(means) - 1) for g in inner]
    gradients = [by_away] + [by_inside] * (len(means) - 1)
    triples = zip(moments, means, gradients, strict=True)
    forms = [_forms(m.first, mean, g, contrasts) for m, mean, g in triples]
    return _Rows(np.hstack(values), forms, moments)


def _set_means(moments: _Moments) -> Floats:
    counts, sums = np.split(moments.first, 2, axis=1)
    return np.asarray(sums / np.where(counts > 0, counts, np.nan))


def _forms(first: Floats, mean: Floats, gradients: list[Floats], contrasts: Floats) -> Floats:
    """Coefficients ``(draws, R, q)`` of a cluster's x in its influence on each row."""
    n_models = mean.shape[1]
    counts = first[:, :n_models]
    eye = np.eye(n_models)
    rows = []
    for gradient in gradients:
        by_sum = gradient / np.where(counts > 0, counts, np.nan)
        form = [(-by_sum * mean)[:, :, None] * eye, by_sum[:, :, None] * eye]
        rows.append(np.concatenate(form, axis=2))
    return np.concatenate([*rows, contrasts @ rows[-1]], axis=1)


def _errors(sets: Sequence[ShiftSet], rows: _Rows) -> Floats:
    """Standard errors ``(draws, R)``; NaN when a set has one cluster only."""
    square = np.zeros_like(rows.values)
    for one, form, moments in zip(sets, rows.forms, rows.moments, strict=True):
        size = len(one.counts)
        correction = size / (size - 1) if size > 1 else np.nan
        square += correction * ((form @ moments.second) * form).sum(axis=2)
    # Without variance, sums of squares leave a rest of this size when they cancel.
    return np.sqrt(np.where(square < _NO_ERROR**2, 0.0, square))


PROBE = "out_of_distribution"
Set = tuple[str, str, str, str]
Row = dict[str, Any]


def rows_away(
    pairs: Pairs, originals: pl.DataFrame, *, models: Sequence[ModelFacts], settings: Statistics
) -> list[Row]:
    """One row for each model and each set away from its training data.

    Controls are compared with models of the same `trained_on`. A model without a usable
    in-distribution set has rows that give the reason.
    """
    table = _with_names(pairs, originals)
    sets = sorted(set(pairs.cells.select(SET_KEYS).iter_rows()))
    groups: dict[tuple[str, ...], list[ModelFacts]] = {}
    for model in sorted(models, key=lambda m: m.model_id):
        groups.setdefault(tuple(sorted(set(model.trained_on))), []).append(model)
    has_answers = pairs.plan.has_answers
    unknown = {model.model_id: _unknown(model, has_answers=has_answers) for model in models}
    return [
        row | {"notes": [*row.get("notes", []), *unknown[row["model_id"]]]}
        for trained_on, group in sorted(groups.items(), key=lambda item: item[0])
        for target in sets
        if target[0] not in trained_on
        for row in _target_rows(table, target, sets, trained_on, group, settings)
    ]


def _unknown(model: ModelFacts, *, has_answers: bool) -> list[str]:
    """What varies of a model and is in no limit here: clusters alone are resampled."""
    varied = [f"{len(model.seeds)} seeds"] if model.seeds else []
    varied += ["several answers to a case"] if has_answers else []
    return [f"what {' and '.join(varied)} vary is not in these limits"] if varied else []


def _with_names(pairs: Pairs, originals: pl.DataFrame) -> pl.DataFrame:
    """Dice of each sample's original prompts with the names of its set, image and unit."""
    units = pairs.plan.units.select("unit", unit_name="name")
    return (
        originals.join(pairs.cells.select("cell", *CELL_KEYS[:5]), on="cell", how="left")
        .join(pairs.plan.images, on="sample", how="left")
        .join(units, on="unit", how="left")
        .sort("cell", "sample")
    )


def _references(target: Set, sets: Sequence[Set], trained_on: Sequence[str]) -> list[Set]:
    """The test set of each training dataset: the target's prompt type, else its highest."""
    found = []
    for dataset in trained_on:
        tests = [s for s in sets if s[0] == dataset and s[1] == "test" and s[2] == target[2]]
        same = [s for s in tests if s[3] == target[3]]
        found += (same or tests)[-1:]
    return found


def _target_rows(
    table: pl.DataFrame,
    target: Set,
    sets: Sequence[Set],
    trained_on: tuple[str, ...],
    group: Sequence[ModelFacts],
    settings: Statistics,
) -> Iterator[Row]:
    references = _references(target, sets, trained_on)
    if not references:
        reason = _why_not(trained_on)
        yield from (_key(model, target) | {"reason": reason} for model in group)
        return
    comparison = _compare(table, target, references, group, settings)
    for place, model in enumerate(group):
        row = _key(model, target) | {"in_distribution": ", ".join(map(_label, references))}
        row |= _figures(comparison, place, group, settings)
        missing = sorted(set(trained_on) - {r[0] for r in references})
        if missing:
            note = f"also trained on {', '.join(missing)}, which this run does not test"
            row["notes"] = [*row.get("notes", []), note]
        yield row


def _why_not(trained_on: Sequence[str]) -> str:
    if not trained_on:
        return "not applicable: the model's card does not say what it was trained on"
    return f"not applicable: no test split of {', '.join(trained_on)} is in this run"


def _key(model: ModelFacts, target: Set) -> Row:
    keys = dict(zip(SET_KEYS, target, strict=True))
    return {"model_id": model.model_id, **keys, "probe": PROBE, "attribute": None}


def _label(one: Set) -> str:
    return f"{one[0]}/{one[1]} {one[3]}"


class _Comparison(NamedTuple):
    intervals: ShiftIntervals | None
    controls: list[int]
    counts: list[Floats]
    n_clusters: list[list[int]]
    n_shared_images: int


def _compare(
    table: pl.DataFrame,
    target: Set,
    references: Sequence[Set],
    group: Sequence[ModelFacts],
    settings: Statistics,
) -> _Comparison:
    frames = [_of_set(table, one) for one in (target, *references)]
    known = pl.concat(frame.select("image_id") for frame in frames[1:])
    shared = frames[0].select("image_id").unique().join(known, on="image_id", how="semi")
    kept = [
        frame.join(shared, on="image_id", how="anti", maintain_order="left") for frame in frames
    ]
    pairs = zip((target, *references), kept, strict=True)
    parts = [_shift_set(one, frame, group, settings) for one, frame in pairs]
    controls = [place for place, model in enumerate(group) if model.control]
    counts = [part.counts for part in parts]
    whole = all(len(c) for c in counts)
    intervals = shift_intervals(parts[0], parts[1:], controls=controls) if whole else None
    return _Comparison(intervals, controls, counts, _n_clusters(kept, group), shared.height)


def _n_clusters(frames: Sequence[pl.DataFrame], group: Sequence[ModelFacts]) -> list[list[int]]:
    """For each set, how many clusters each model has a Dice in."""
    ids = pl.Series("model_id", [model.model_id for model in group])
    found = []
    for frame in frames:
        counted = frame.group_by("model_id").agg(n=pl.col("cluster").n_unique())
        joined = ids.to_frame().join(counted, on="model_id", how="left", maintain_order="left")
        found.append(joined["n"].fill_null(0).to_list())
    return found


def _of_set(table: pl.DataFrame, one: Set) -> pl.DataFrame:
    return table.filter(pl.col(k) == v for k, v in zip(SET_KEYS, one, strict=True))


def _shift_set(
    one: Set, frame: pl.DataFrame, group: Sequence[ModelFacts], settings: Statistics
) -> ShiftSet:
    ids = [model.model_id for model in group]
    frame = frame.filter(pl.col("model_id").is_in(ids))
    sums = frame.group_by("unit", "unit_name", "model_id", maintain_order=True).agg(
        n=pl.len(), dice=pl.col("dice").sum()
    )
    names = sums.select("unit", "unit_name").unique().sort("unit")
    counts, totals = np.zeros((2, names.height, len(ids)))
    row = np.searchsorted(names["unit"].to_numpy(), sums["unit"].to_numpy())
    column = np.array([ids.index(i) for i in sums["model_id"]], dtype=int)
    counts[row, column], totals[row, column] = sums["n"].to_numpy(), sums["dice"].to_numpy()
    draws = cluster_draws(
        f"{one[0]}/{one[1]}",
        names["unit_name"].to_list(),
        count=settings.draws,
        seed=settings.seed,
    )
    return ShiftSet(draws, counts, totals)


def _figures(
    comparison: _Comparison, place: int, group: Sequence[ModelFacts], settings: Statistics
) -> Row:
    """Columns of one model's row."""
    n_clusters = [counted[place] for counted in comparison.n_clusters]
    row: Row = {
        "n_samples": int(comparison.counts[0][:, place].sum()),
        "n_clusters": n_clusters[0],
        "n_shared_images": comparison.n_shared_images,
    }
    found = comparison.intervals
    if found is None or min(n_clusters) == 0:
        return row | {"reason": "no Dice is left to compare", "verdict_allowed": False}
    named = {"dice": found.target, "reference_dice": found.reference}
    named["harmonic_dice"] = found.harmonic
    for name, intervals in named.items():
        row |= limit_columns(name, "", intervals, place=place, low=0, high=1)
    row |= limit_columns("change", "_points", found.points, place=place, scale=100, low=-100)
    reason = why_too_low(found.reference, place, settings.dice_floor)
    if reason:
        return row | {"reason": reason, "verdict_allowed": False}
    row |= relative_columns(found.relative, place, offset=0)
    row["verdict_allowed"] = min(n_clusters) >= settings.minimum_clusters
    if not row["verdict_allowed"]:
        row["notes"] = [f"a set has under {settings.minimum_clusters} clusters: no verdict"]
    if group[place].control or not comparison.controls:
        return row
    if any(why_too_low(found.reference, c, settings.dice_floor) for c in comparison.controls):
        return row
    row["control"] = ", ".join(group[c].name for c in comparison.controls)
    row |= limit_columns("control_change", "_percent", found.control, place=place, scale=100)
    row |= limit_columns("beyond_control", "_percent", found.beyond, place=place, scale=100)
    return row
