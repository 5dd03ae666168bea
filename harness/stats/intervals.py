"""The intervals of every cell of a summary, cells with the same units in one resampling.

Conventions: a *quantity* is a ratio of sums over units: ``dice`` and ``reference``
(mean Dice after the change and of the originals), ``relative`` (their ratio),
``points`` (their difference), ``agreement``, ``worst`` (lowest Dice over the originals'),
and over the samples with a named target ``named_gain`` (Dice with it minus Dice with the own
mask) and ``decisive`` (the relative one there); over prompts for what is absent
``false_positive`` (share of the picture that is painted), ``aligned`` (share of it on the mask of
the original prompt) and ``present_dice`` (Dice of their originals); all are fractions, and ratios
of Dice are 1 where nothing changes.

References:
    E. L. Korn and B. I. Graubard, Confidence intervals for proportions with small expected
    number of positive counts estimated from survey data, Survey Methodology 24(2):193-201, 1998.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from harness.stats.bootstrap import Draws, cluster_draws, crossed_inference, ratio_inference
from harness.stats.inference import PIVOT_LEVELS, Floats, Inference

QUANTITIES: Mapping[str, tuple[str, str]] = {
    "reference": ("reference", "n"),
    "dice": ("dice", "n"),
    "relative": ("dice", "reference"),
    "points": ("change", "n"),
    "agreement": ("agreement", "n_agreement"),
    "worst": ("worst", "reference"),
    "named_gain": ("gain", "n_named"),
    "decisive": ("own_named", "reference_named"),
    "false_positive": ("false_positive", "n_refused"),
    "aligned": ("aligned", "painted"),
    "present_dice": ("present_dice", "n_present_dice"),
}
"""Numerator and denominator of each quantity, columns of the units' sums."""

RATES = {"refusal_rate": ("refused", "n_refused"), "miss_rate": ("missed", "n_missed")}
"""Shares with their events and samples, columns of the units' sums."""

RELATIVE = ("relative", "worst", "decisive")
"""Those that say nothing where the Dice of the originals is too low."""

MINIMUM_WORDS = 10
"""With fewer words an interval speaks of these words only: they are not resampled."""

_COUNTS = {"agreement": "n_agreement", "named_gain": "n_named", "decisive": "n_named"}
_ABSENT = {"false_positive": "n_refused", "aligned": "painted", "present_dice": "n_present_dice"}
_COUNTED = _COUNTS | _ABSENT
_OF_ORIGINALS = ("dice", "false_positive", "present_dice")
_WORD_COLUMNS = {"dice": "dice", "relative": "dice", "points": "dice", "agreement": "agreement"}
_SHARE = tuple(f"catastrophic_share{end}" for end in ("", "_low", "_high"))


class _Problem(NamedTuple):
    """One quantity of one cell: sums of its units, and each word's deviation from them."""

    cell: int
    quantity: str
    numerator: Floats
    denominator: Floats
    words: tuple[str, ...]
    deviations: Floats | None


def cell_intervals(
    sums: pl.DataFrame,
    deviations: pl.DataFrame,
    *,
    cells: pl.DataFrame,
    units: pl.DataFrame,
    words: Sequence[str],
    count: int,
    seed: int,
) -> dict[str, Inference]:
    """Intervals of each quantity for all cells.

    Figures are NaN where a cell has none.
    """
    found = {q: Inference.undefined(cells.height) for q in QUANTITIES}
    groups: dict[bytes, tuple[NDArray[np.uint32], list[_Problem]]] = {}
    for kept, problem in _problems(sums, deviations, cells, words):
        groups.setdefault(kept.tobytes(), (kept, []))[1].append(problem)
    for kept, problems in groups.values():
        draws = unit_draws(units, kept, count=count, seed=seed)
        _solve([p for p in problems if p.deviations is None], draws, found)
        crossed = [p for p in problems if p.deviations is not None]
        for named in sorted({p.words for p in crossed}):
            own = word_draws(named, count=count, seed=seed)
            _solve([p for p in crossed if p.words == named], draws, found, words=own)
    return found


def _problems(
    sums: pl.DataFrame, deviations: pl.DataFrame, cells: pl.DataFrame, names: Sequence[str]
) -> Iterator[tuple[NDArray[np.uint32], _Problem]]:
    sums = sums.with_columns(
        change=pl.col("dice") - pl.col("reference"),
        gain=pl.col("dice_named") - pl.col("own_named"),
    )
    original = set(cells.filter(pl.col("probe") == "original")["cell"])
    words = {cell: rows for (cell,), rows in deviations.group_by("cell", maintain_order=True)}
    for (cell,), rows in sums.group_by("cell", maintain_order=True):
        asked = rows["n_refused"].sum() > 0
        seen: dict[str, pl.DataFrame] = {}
        for quantity in _OF_ORIGINALS if cell in original else QUANTITIES:
            if quantity in _ABSENT and not asked:
                continue
            counted = _COUNTED.get(quantity, "n")
            if counted not in seen:
                seen[counted] = rows.filter(pl.col(counted) > 0)
            if (kept := seen[counted]).height:
                own = words.get(cell) if quantity in _WORD_COLUMNS else None
                yield kept["unit"].to_numpy(), _problem(cell, quantity, kept, own, names)


def _problem(
    cell: int, quantity: str, rows: pl.DataFrame, words: pl.DataFrame | None, names: Sequence[str]
) -> _Problem:
    numerator, denominator = (rows[column].to_numpy() for column in QUANTITIES[quantity])
    numbers = [] if words is None else sorted(words["word"].unique())
    if words is None or len(numbers) < MINIMUM_WORDS:
        return _Problem(cell, quantity, numerator, denominator, (), None)
    deviations = word_deviations(rows, words, _WORD_COLUMNS[quantity])
    texts = tuple(names[n] for n in numbers)
    return _Problem(cell, quantity, numerator, denominator, texts, deviations)


def unit_draws(units: pl.DataFrame, kept: NDArray[np.uint32], *, count: int, seed: int) -> Draws:
    """Draws of some units of one set, numbers of rows of `units`."""
    rows = units[kept.tolist()]
    dataset = f"{rows['dataset'][0]}/{rows['split'][0]}"
    return cluster_draws(dataset, rows["name"].to_list(), count=count, seed=seed)


def word_draws(words: Sequence[str], *, count: int, seed: int) -> Draws:
    """Draws of words, the same in every set."""
    return cluster_draws("", words, count=count, seed=seed, role="words")


def word_deviations(rows: pl.DataFrame, words: pl.DataFrame, column: str) -> Floats:
    """How far each word's sums lie from those over all words, ``(G, m)``.

    `words` has ``unit, word`` and the column (``dice`` or ``agreement``) of one cell; the m words
    are numbered in order.
    """
    numbers = sorted(words["word"].unique())
    words = words.filter(pl.col("unit").is_in(rows["unit"].implode()))
    deviations = np.zeros((rows.height, len(numbers)))
    row = np.searchsorted(rows["unit"].to_numpy(), words["unit"].to_numpy())
    deviations[row, np.searchsorted(numbers, words["word"].to_numpy())] = words[column].to_numpy()
    return deviations


def _solve(
    problems: list[_Problem],
    draws: Draws,
    found: Mapping[str, Inference],
    *,
    words: Draws | None = None,
) -> None:
    """Fill in the intervals of problems that share units (and words)."""
    if not problems:
        return
    numerator = np.column_stack([p.numerator for p in problems])
    denominator = np.column_stack([p.denominator for p in problems])
    if words is None:
        solved = ratio_inference(numerator, denominator, draws=draws)
    else:
        deviations = [p.deviations for p in problems if p.deviations is not None]
        by_word = numerator[:, None, :] + np.stack(deviations, axis=-1)
        solved = crossed_inference(by_word, denominator, clusters=draws, words=words)
    for place, problem in enumerate(problems):
        found[problem.quantity].put(problem.cell, solved, place)


def catastrophic_shares(sums: pl.DataFrame) -> pl.DataFrame:
    """``catastrophic_share`` with its limits, a row a cell."""
    rows = [
        (cell, *clustered_share(own["catastrophic"].to_numpy(), own["n_catastrophic"].to_numpy()))
        for (cell,), own in sums.group_by("cell", maintain_order=True)
    ]
    schema = {"cell": pl.UInt32} | dict.fromkeys(_SHARE, pl.Float64)
    return pl.DataFrame(rows, schema=schema, orient="row")


def clustered_share(events: Floats, sizes: Floats) -> tuple[float, float, float]:
    """A share of clustered samples with 95 % limits that do not collapse where none occurred.

    Clopper-Pearson limits for the effective number of samples; without an event, or with
    nothing else, that number is the number of clusters, the least it can be.

    `events`, which may be fractions, and `sizes` are those of each cluster, ``(G,)``. All is NaN
    without a sample.

    Example:
        >>> share, low, high = clustered_share(np.zeros(20), np.ones(20))
        >>> share, low, round(high, 3)
        (0.0, 0.0, 0.168)
    """
    from scipy.special import betaincinv

    kept = sizes > 0
    events, sizes = events[kept], sizes[kept]
    n_clusters, total = len(sizes), sizes.sum()
    if not n_clusters:
        return np.nan, np.nan, np.nan
    share = float(events.sum() / total)
    effective = float(n_clusters)
    if 0 < share < 1 and n_clusters > 1:
        square = ((events - share * sizes) ** 2).sum() / total**2
        effective = min(share * (1 - share) / square, float(total)) if square > 0 else total
    seen = share * effective
    low = betaincinv(seen, effective - seen + 1, 0.025) if seen > 0 else 0.0
    high = betaincinv(seen + 1, effective - seen, 0.975) if seen < effective else 1.0
    return share, float(low), float(high)


_NO_DRAWS = 1 / float(PIVOT_LEVELS[0]) - 1


def share_limit(events: Floats, sizes: Floats) -> tuple[float, Callable[[Floats], Floats]]:
    """A share of clustered samples, and its one-sided limits.

    `events`, which may be fractions, and the positive `sizes` are those of each cluster, ``(G,)``.
    The second value is a function of levels in (0, 1): the share that a one-sided test at a level
    would just not reject from above; at 0.025 the upper, at 0.975 the lower 95 % limit.

    Example:
        >>> share, limit = share_limit(np.zeros(20), np.ones(20))
        >>> share, limit(np.array([0.025, 0.975])).round(3).tolist()
        (0.0, [0.168, 0.0])
    """
    from scipy.special import stdtrit

    n_clusters, total = len(sizes), sizes.sum()
    share = float(events.sum() / total)

    def least(levels: Floats) -> Floats:
        """Upper limits without an event, when each cluster counts as one sample."""
        return np.where(levels < 0.5, 1 - levels ** (1 / n_clusters), 0.0)

    if share <= 0:
        return 0.0, least
    if share >= 1:
        return 1.0, lambda q: 1 - least(1 - q)
    if n_clusters < 2:
        return share, lambda q: np.full_like(q, np.nan)
    squares = (events - share * sizes) ** 2
    spread = squares.sum() * n_clusters / (n_clusters - 1)
    # Fractions of a sample may vary less than yes and no do; they never count for more samples.
    effective = min(share * (1 - share) * total**2 / spread, total) if spread > 0 else total

    freedom = n_clusters - 1.0
    if spread > 0 and sizes.max() > 1:
        # Where few clusters hold all events, only these tell how alike the samples of a cluster
        # are: Satterthwaite's degrees of freedom. Alone they make limits too wide; 20 more keep
        # coverage closest to 95 % over the designs of `reports/simulations.py`.
        freedom = min(freedom, squares.sum() ** 2 / (squares**2).sum() + 20)

    def limit(levels: Floats) -> Floats:
        t = stdtrit(freedom, 1 - levels)
        middle = share * effective + t**2 / 2
        half = t * np.sqrt(share * (1 - share) * effective + t**2 / 4)
        wilson = (middle + half) / (effective + t**2)
        # Some events exclude no share that none would not: a few clusters tell too little of how
        # alike their samples are to make limits narrower than those without any.
        above, below = np.maximum(wilson, least(levels)), np.minimum(wilson, 1 - least(1 - levels))
        return np.asarray(np.where(levels < 0.5, above, below))

    return share, limit


def share_inference(events: Floats, sizes: Floats) -> Inference:
    """A share of clustered samples as one problem, with a pivot that gives its limits back."""
    kept = sizes > 0
    if not kept.any():
        return Inference.undefined(1)
    return _inference_from(*share_limit(events[kept], sizes[kept]))


def _inference_from(share: float, limit: Callable[[Floats], Floats]) -> Inference:
    """One problem, given its one-sided limits."""
    found = Inference.undefined(1)
    limits = limit(PIVOT_LEVELS)
    ends = limit(np.array([0.975, 0.025, 0.95, 0.05]))
    error = float((ends[1] - ends[0]) / (2 * 1.96))
    names = ("estimate", "standard_error", "low", "high", "low90", "high90")
    for name, value in zip(names, (share, error, *ends), strict=True):
        getattr(found.intervals, name)[0] = value
    found.pivot[:, 0] = (share - limits) / error
    found.n_draws[0], found.word_error[0] = _NO_DRAWS, 0.0
    return found


def mcc(refused: float, missed: float, n_absent: float, n_present: float) -> float:
    """Matthews correlation of "something is painted" and "the target is there", over samples.

    One answer to every prompt has no correlation: it counts as 0, the limit of a model that
    answers by chance.

    Example:
        >>> mcc(1.0, 0.0, 10, 10), mcc(0.0, 0.0, 10, 10), round(mcc(0.5, 0.1, 10, 10), 3)
        (1.0, 0.0, 0.436)
    """
    answers = (n_present * (1 - missed) + n_absent * (1 - refused)) * (
        n_present * missed + n_absent * refused
    )
    if answers == 0:
        return 0.0 if n_absent and n_present else math.nan
    return (refused - missed) * math.sqrt(n_present * n_absent / answers)


def recovered(
    figure: Callable[..., float], parts: Sequence[tuple[float, float, float]], signs: Sequence[int]
) -> tuple[float, float, float]:
    """A monotone figure of several estimates with limits recovered from theirs.

    `parts` are estimates with their limits; a sign is 1 where the figure grows with a part, -1
    where it falls.
    """
    centre = [part[0] for part in parts]
    value = figure(*centre)
    ends = []
    for side in (1, 2):
        squares = 0.0
        for k, (part, sign) in enumerate(zip(parts, signs, strict=True)):
            moved = part[side if sign > 0 else 3 - side]
            squares += (figure(*centre[:k], moved, *centre[k + 1 :]) - value) ** 2
        ends.append(value + (math.sqrt(squares) if side == 2 else -math.sqrt(squares)))
    return value, ends[0], ends[1]
