"""Simulated studies of known truth: do intervals cover, do tests keep their level?

``python reports/simulations.py`` (or ``make simulations``) runs every cell, minutes on one
core, and writes ``statistics.md`` beside this file, and what of it stands beside verdicts into
``harness/stats/coverage.json``; tests run the same cells, short or whole.
With ``--verdicts`` it renews the page's last part alone, that of the verdicts on language and
refusal: cells have seeds of their own, so that the page is the same.

Conventions: a study is one data set of G clusters; studies stand in columns. Dice is bounded:
a sample's Dice before the change is a beta variate around its cluster's own quality. After it,
a steady sample moves a little, up or down, without bias; a dropping one keeps 0 to 10 % of its
Dice. With a share s of drops the true relative change is ``-95 s`` percent, exactly.
"""

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from harness.files.writing import write_json
from harness.stats.bootstrap import Draws, cluster_draws, crossed_inference, ratio_inference
from harness.stats.inference import Estimate, Inference, Intervals, adjust, deciding_test
from harness.stats.intervals import share_inference, share_limit
from harness.stats.language import STAYS, LanguageVerdict
from harness.stats.listening import language_verdicts
from harness.stats.refusal import judge_refusal
from harness.stats.verdicts import COVERAGE
from harness.suite.schema import Statistics

HERE = Path(__file__).resolve().parent
Floats = NDArray[np.float64]
LOSS = 0.95
"""Mean share of its Dice that a dropping sample loses."""


@dataclass(frozen=True)
class Design:
    """How changes arise.

    Attributes:
        name: In tables.
        share: Of samples that drop.
        gathered: Correlation of drops within a cluster: 0 strikes samples, 1 whole clusters.
        sizes: Smallest and largest number of samples of a cluster, uniform between.
        by_size: Whether drops are the likelier the larger the cluster.
    """

    name: str
    share: float = 0.10
    gathered: float = 0.0
    sizes: tuple[int, int] = (1, 8)
    by_size: bool = False

    @property
    def truth(self) -> float:
        """The true ratio of means."""
        return 1 - LOSS * self.share


DESIGNS = (
    Design("drops strike single samples"),
    Design("drops gather in clusters (0.3)", gathered=0.3),
    Design("drops gather, and in large clusters", gathered=0.3, by_size=True),
    Design("whole clusters drop", gathered=1.0),
    Design("one sample a cluster", sizes=(1, 1)),
)


STATED = DESIGNS[2]
"""The design on which coverage must lie between 93 and 97 %: unequal clusters, bounded Dice,
10 % near-total drops that gather in some clusters, the large ones above all."""

RARE = (
    Design("2 % lost in rare drops that gather", share=0.02 / LOSS, gathered=0.3),
    Design("2 % lost in rare drops, one sample a cluster", share=0.02 / LOSS, sizes=(1, 1)),
)
"""Just beyond the default margin, by few samples: the hardest case for equivalence."""

SIZES = (13, 20, 50, 100, 300)


class Studies(NamedTuple):
    """Sums of each cluster after and before the change, ``(G, studies)``."""

    after: Floats
    before: Floats


def simulate(design: Design, size: int, studies: int, rng: np.random.Generator) -> Studies:
    """Draw so many studies of so many clusters."""
    shape = (size, studies)
    counts = rng.integers(design.sizes[0], design.sizes[1] + 1, shape)
    propensity = _propensity(design, counts, rng)
    quality = rng.beta(8, 2, shape)
    after, before = np.zeros((2, *shape))
    for place in range(design.sizes[1]):
        there = counts > place
        dice = rng.beta(20 * quality, 20 * (1 - quality))
        steady = dice * (1 + (1 - dice) * rng.uniform(-0.1, 0.1, shape))
        dropped = dice * rng.uniform(0, 2 * (1 - LOSS), shape)
        before += there * dice
        after += there * np.where(rng.random(shape) < propensity, dropped, steady)
    return Studies(after, before)


def _propensity(design: Design, counts: NDArray[np.int64], rng: np.random.Generator) -> Floats:
    share = np.full(counts.shape, design.share)
    if design.by_size:
        all_sizes = np.arange(design.sizes[0], design.sizes[1] + 1)
        share = design.share * counts * all_sizes.mean() / (all_sizes**2).mean()
    if 0 in (design.gathered, design.share):
        return share
    if design.gathered == 1:
        return (rng.random(counts.shape) < share).astype(float)
    strength = 1 / design.gathered - 1
    return rng.beta(share * strength, (1 - share) * strength)


def draws_of(size: int, count: int, role: str = "clusters") -> Draws:
    """Draws of so many nameless units."""
    return cluster_draws(
        "simulated", [f"c{i}" for i in range(size)], count=count, seed=0, role=role
    )


class Coverage(NamedTuple):
    """Shares of studies; their standard error is below ``0.5 / sqrt(studies)``."""

    covered: float
    too_high: float
    too_low: float
    covered90: float
    percentile: float
    bca: float
    width: float


def coverage(found: Intervals, truth: float) -> Coverage:
    """How often intervals hold the truth, and on which side they miss it."""

    def inside(low: Floats, high: Floats) -> float:
        return float(np.mean((low <= truth) & (truth <= high)))

    return Coverage(
        covered=inside(found.low, found.high),
        too_high=float(np.mean(found.low > truth)),
        too_low=float(np.mean(found.high < truth)),
        covered90=inside(found.low90, found.high90),
        percentile=inside(found.percentile_low, found.percentile_high),
        bca=inside(found.bca_low, found.bca_high),
        width=float(np.mean(found.high - found.low)),
    )


def one_way(design: Design, size: int, *, studies: int, draws: int, seed: int = 0) -> Inference:
    """Intervals of all studies of one cell."""
    rng = np.random.default_rng([seed, size, *design.name.encode()])
    data = simulate(design, size, studies, rng)
    return ratio_inference(data.after, data.before, draws=draws_of(size, draws))


@dataclass(frozen=True)
class Words:
    """How random words act: each has its own weight, the same on every cluster.

    The chance that a sample drops under a word is logistic in the sum of the word's and the
    cluster's normal effects, with these standard deviations, and 10 % on average.
    """

    word_spread: float
    cluster_spread: float = 1.0

    @property
    def name(self) -> str:
        """In tables."""
        return f"words {self.word_spread:g}, clusters {self.cluster_spread:g}"

    @property
    def centre(self) -> float:
        """The constant that makes the mean chance 10 %."""
        from scipy.optimize import brentq

        spread = float(np.hypot(self.word_spread, self.cluster_spread))
        points, weights = np.polynomial.hermite_e.hermegauss(60)

        def off(centre: float) -> float:
            chances = 1 / (1 + np.exp(-(centre + spread * points)))
            return float((weights * chances).sum() / weights.sum()) - 0.10

        return float(brentq(off, -10, 0))


WORDS = (Words(0.3), Words(1.0), Words(1.5, 0.5))


def two_way(
    words: Words, size: int, n_words: int, *, studies: int, draws: int, seed: int = 0
) -> tuple[Intervals, Intervals]:
    """Intervals that resample words and clusters, and those that resample clusters alone."""
    parts = [
        _two_way(
            words, size, n_words, studies=min(_AT_ONCE, studies - k), draws=draws, seed=seed + k
        )
        for k in range(0, studies, _AT_ONCE)
    ]
    both, alone = (
        Intervals(*(np.concatenate(column) for column in zip(*side, strict=True)))
        for side in zip(*parts, strict=True)
    )
    return both, alone


_AT_ONCE = 250


def _two_way(
    words: Words, size: int, n_words: int, *, studies: int, draws: int, seed: int
) -> tuple[Intervals, Intervals]:
    rng = np.random.default_rng([seed, size, n_words, *words.name.encode()])
    counts = rng.integers(1, 9, (size, studies))
    effect = rng.normal(0, words.word_spread, (1, n_words, studies))
    effect = effect + rng.normal(0, words.cluster_spread, (size, 1, studies)) + words.centre
    chance = 1 / (1 + np.exp(-effect))
    quality = rng.beta(8, 2, (size, studies))
    after, before = np.zeros((size, n_words, studies)), np.zeros((size, studies))
    for place in range(8):
        there = counts > place
        dice = rng.beta(20 * quality, 20 * (1 - quality))[:, None]
        steady = dice * (1 + (1 - dice) * rng.uniform(-0.1, 0.1, chance.shape))
        dropped = dice * rng.uniform(0, 2 * (1 - LOSS), chance.shape)
        before += there * dice[:, 0]
        after += there[:, None] * np.where(rng.random(chance.shape) < chance, dropped, steady)
    clusters = draws_of(size, draws)
    both = crossed_inference(
        after, before, clusters=clusters, words=draws_of(n_words, draws, "words")
    ).intervals
    return both, ratio_inference(after.mean(axis=1), before, draws=clusters).intervals


def estimates(found: Inference) -> Iterator[Estimate]:
    """Each study's relative change in percent."""
    i = found.intervals
    for k in range(len(i.estimate)):
        figures = (i.low[k], i.high[k], i.low90[k], i.high90[k])
        one = Estimate(
            float(i.estimate[k]), float(i.standard_error[k]), float(found.word_error[k]),
            *map(float, figures), found.pivot[:, k], float(found.n_draws[k]),
        )  # fmt: skip
        yield one.scaled(100, offset=1)


class Errors(NamedTuple):
    """Shares of studies with a false claim, where the truth lies on the bound itself."""

    equivalent: float
    beyond: float
    better: float
    worse: float


def errors_at_the_bound(found: Inference, design: Design) -> Errors:
    """How often each test claims what is just not true.

    The margin is the true change: *equivalent* (5 % allowed) and *beyond* the margin (2.5 % on
    the side where the truth lies) are both false claims then; so are *better* and *worse* than
    the truth of a one-sided expectation (2.5 % each).
    """
    truth = 100 * (design.truth - 1)
    claims = {"equivalence": 0, "difference": 0, "holds": 0, "fails": 0}
    count = 0
    for one in estimates(found):
        count += 1
        margin = deciding_test(one, (truth, -truth), "invariance")
        claims[margin.name] += margin.p_value <= 0.05
        side = deciding_test(one, (truth, np.inf), "minimum")
        claims[side.outcome] += side.p_value <= 0.05
    return Errors(*(claim / count for claim in claims.values()))


def family_errors(
    design: Design, size: int, *, members: int, studies: int, draws: int, correction: str = "holm"
) -> float:
    """Share of families of true nulls in which at least one is rejected (5 % allowed)."""
    rng = np.random.default_rng([size, members, *design.name.encode()])
    data = simulate(design, size, studies * members, rng)
    found = ratio_inference(data.after, data.before, draws=draws_of(size, draws))
    truth = 100 * (design.truth - 1)
    tests = [deciding_test(one, (truth, np.inf), "minimum") for one in estimates(found)]
    wrong = 0
    for start in range(0, len(tests), members):
        p_values = [test.p_value for test in tests[start : start + members]]
        wrong += min(adjust(p_values, correction)) <= 0.05  # type: ignore[arg-type]
    return wrong / studies


class Power(NamedTuple):
    """Power of the test of no change, simulated and by the noncentral t distribution."""

    effect: float
    simulated: float
    analytic: float


def power_at(size: int, spread: float, effect: float, *, studies: int, draws: int) -> Power:
    """Power of a study of `size` clusters whose changes are normal.

    Args:
        size: Clusters of one sample each, Dice 0.8 before.
        spread: Standard deviation of a change, percent of Dice.
        effect: True change in percent.
        studies: Simulated.
        draws: Of each bootstrap.
    """
    from harness.stats.power import power_of

    rng = np.random.default_rng([size, int(1000 * spread)])
    change = rng.normal(effect, spread, (size, studies)) / 100
    before = np.full((size, studies), 0.8)
    found = ratio_inference(before * (1 + change), before, draws=draws_of(size, draws))
    shown = [
        deciding_test(one, (-np.inf, 0.0), "direction").p_value <= 0.05 for one in estimates(found)
    ]
    error = spread / np.sqrt(size)
    return Power(effect, float(np.mean(shown)), power_of(effect, float(error), size - 1))


@dataclass(frozen=True)
class Word:
    """What another word for one attribute does to the masks.

    Attributes:
        name: In tables.
        leaving: Share of samples whose mask leaves its target for the named one; leaves gather
            in clusters (0.3). Such a mask keeps 0 to 10 % of its Dice and of its agreement.
        loss: Share of its Dice that every other sample loses.
        wobble: Mean of 1 less the agreement of every other sample.
        other: Dice with the named mask of every other sample, as a share of its Dice before.
    """

    name: str
    leaving: float = 0.0
    loss: float = 0.0
    wobble: float = 0.005
    other: float = 0.05

    @property
    def truth(self) -> tuple[float, float, float]:
        """Relative change, agreement, and Dice gained over the Dice before: all exact."""
        s, kept = self.leaving, 1 - LOSS
        return (
            s * kept + (1 - s) * (1 - self.loss) - 1,
            s * kept + (1 - s) * (1 - self.wobble),
            s * LOSS + (1 - s) * (self.other - 1 + self.loss),
        )


_MARGIN = Statistics().margins.changed / 100
DEAF = Word("changes nothing")
TARGET = Word("gain of the named target", leaving=(1 + _MARGIN / LOSS) / 2)
NAMED = (
    TARGET,
    Word("loss of the own target", loss=_MARGIN, wobble=0.3, other=1.25),
    Word("movement of the mask", loss=0.2, wobble=1 - STAYS, other=1.25),
)
"""Each just not heard, where targets are named: one condition lies on its bound."""

UNNAMED = (
    Word("loss of Dice", loss=_MARGIN),
    Word("loss of Dice, by rare drops", leaving=_MARGIN / LOSS),
    Word("movement of the mask", wobble=1 - STAYS),
    Word("loss and movement", loss=_MARGIN, wobble=1 - STAYS),
)
"""Each just not heard and just not unheard, where they are not named."""


def language_studies(
    words: Sequence[Word], size: int, *, named: bool, studies: int, draws: int, seed: int = 0
) -> list[LanguageVerdict]:
    """The verdicts of so many studies that change one attribute for each of `words`."""
    names = "".join(word.name for word in words)
    rng = np.random.default_rng([seed, size, len(words), named, *names.encode()])
    sums = [
        np.concatenate(c, axis=1) for c in zip(*_changes(words, size, studies, rng), strict=True)
    ]
    after, before, agreement, gain, count = sums
    ratios = {"relative": (after, before), "agreement": (agreement, count)}
    if named:
        ratios |= {"named_gain": (gain, count), "decisive": (after, before)}
    n_cells = len(words) * studies
    solved = dict.fromkeys(("named_gain", "decisive"), Inference.undefined(n_cells))
    units = draws_of(size, draws)
    solved |= {q: ratio_inference(*pair, draws=units) for q, pair in ratios.items()}
    cell = np.arange(n_cells)
    dice = before.sum(axis=0) / count.sum(axis=0)
    rows = pl.DataFrame(
        {"cell": cell, "model_id": cell % studies, "attribute": cell // studies}
        | {"reference_dice": dice, "n_cases": count.sum(axis=0).astype(int)}
    ).with_columns(
        pl.col("attribute").cast(pl.String),
        *(pl.lit(t).alias(c) for c, t in _OF_ROWS.items()),
        *(pl.lit(size).alias(c) for c in ("n_clusters",)),
        *(pl.lit(size * named).alias(c) for c in ("n_samples_named", "n_clusters_named")),
        originals_empty_share=pl.lit(0.0),
        relative_change_percent=pl.lit(0.0),
        text_shift=pl.lit(None, dtype=pl.Float64),
        reason=pl.lit(None, dtype=pl.String),
    )
    return language_verdicts(rows, solved, [], settings=Statistics())


_OF_ROWS = dict.fromkeys(("model", "dataset", "split", "prompts", "prompt_type"), "simulated")
_OF_ROWS |= {"probe": "another_word", "meaning": "changed", "expected_mask": "own"}


def _changes(
    words: Sequence[Word], size: int, studies: int, rng: np.random.Generator
) -> Iterator[tuple[Floats, ...]]:
    """Sums of each cluster for each word: Dice after and before, agreement, gain; samples."""
    shape = (size, studies)
    for word in words:
        counts = rng.integers(1, 9, shape)
        quality = rng.beta(8, 2, shape)
        leaves = _propensity(Design("", share=word.leaving, gathered=0.3), counts, rng)
        sums = np.zeros((5, *shape))
        for place in range(8):
            there = counts > place
            dice = rng.beta(20 * quality, 20 * (1 - quality))
            trembling = 1 + (1 - dice) * rng.uniform(-0.1, 0.1, shape)
            gone = rng.random(shape) < leaves
            kept = rng.uniform(0, 2 * (1 - LOSS), shape)
            own = dice * np.where(gone, kept, (1 - word.loss) * trembling)
            agreement = np.where(gone, kept, 1 - word.wobble * rng.uniform(0, 2, shape))
            other = dice * np.where(gone, 1.0, word.other)
            sums += there * np.stack([own, dice, agreement, other - own, np.ones(shape)])
        yield tuple(sums)


class Hearing(NamedTuple):
    """Shares of studies in which the one attribute is said to be heard, and to be unheard."""

    heard: float
    unheard: float


def hearing(word: Word, size: int, *, named: bool, studies: int, draws: int) -> Hearing:
    """How often one attribute is heard and unheard."""
    found = language_studies([word], size, named=named, studies=studies, draws=draws)
    states = Counter(v.evidence[0].state for v in found)
    return Hearing(states["heard"] / studies, states["unheard"] / studies)


MODELS = (
    ("four attributes on the bound: gain of the named target", True, (TARGET,) * 4),
    ("four attributes on the bound: loss and movement", False, (UNNAMED[3],) * 4),
    ("three unheard, one on the bound: loss of Dice", True, (DEAF,) * 3 + UNNAMED[:1]),
    ("three unheard, one on the bound: movement", True, (DEAF,) * 3 + UNNAMED[2:3]),
    ("*power*: deaf", True, (DEAF,) * 4),
    ("*power*: follows one attribute of four in 60 % of samples", True,
     (Word("60 %", leaving=0.6), *(DEAF,) * 3)),
    ("*power*: follows one attribute of four in 75 % of samples", True,
     (Word("75 %", leaving=0.75), *(DEAF,) * 3)),
    ("*power*: loses 5 % of its Dice by one attribute of four", False,
     (Word("5 %", leaving=0.05 / LOSS), *(DEAF,) * 3)),
)  # fmt: skip
"""What is true, whether targets are named, and what each attribute does."""


def spoken(
    words: Sequence[Word], size: int, *, named: bool, studies: int, draws: int
) -> tuple[float, float, float]:
    """Shares of studies that say listening (or moved here), deaf (or unmoved), cannot tell."""
    found = language_studies(words, size, named=named, studies=studies, draws=draws)
    said = Counter(v.language for v in found)
    uses, ignores = said["listening"] + said["moved here"], said["deaf"] + said["unmoved here"]
    return uses / studies, ignores / studies, said["cannot tell"] / studies


REFUSAL_RATES = (0.0, 0.02, 0.3, 0.98, 1.0)
CORRELATIONS = (0.0, 0.1, 0.3, 1.0)
"""Of refusals within a cluster: 0 one by one, 1 all or none."""


def refusals(
    rate: float, correlation: float, size: int, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Refused and all samples of each cluster, ``(G,)``; 1 to 8 samples."""
    sizes = rng.integers(1, 9, size)
    chance = np.full(size, rate)
    if 0 < rate < 1 and correlation == 1:
        chance = (rng.random(size) < rate).astype(float)
    elif 0 < rate < 1 and correlation > 0:
        strength = 1 / correlation - 1
        chance = rng.beta(rate * strength, (1 - rate) * strength, size)
    return rng.binomial(sizes, chance).astype(float), sizes.astype(float)


def rate_coverage(
    rate: float, correlation: float, size: int, *, studies: int
) -> tuple[float, float, float, float]:
    """Shares of studies covered, with limits too high and too low; and the mean width."""
    rng = np.random.default_rng([int(1000 * rate), int(10 * correlation), size])
    ends = np.array([0.975, 0.025])
    limits = [share_limit(*refusals(rate, correlation, size, rng))[1](ends) for _ in range(studies)]
    low, high = np.array(limits).T
    return (
        float(((low <= rate) & (rate <= high)).mean()),
        float((low > rate).mean()),
        float((high < rate).mean()),
        float((high - low).mean()),
    )


_PROBE = {"split": "test", "probe": "absent", "expected_mask": "empty", "absent_kind": "far"}
_PROBE |= {f"false_positive_area{end}": 0.1 for end in ("", "_low", "_high")}
_PROBE |= {"aligned_share": 0.5}


def refusal_verdicts(
    rate: float, correlation: float, size: int, *, studies: int
) -> tuple[float, float, float]:
    """Shares of studies that say *refuses*, *hallucinates* and *cannot tell*; one probe."""
    rng = np.random.default_rng([int(1000 * rate), int(10 * correlation), size, 1])
    said = Counter(_judged(*refusals(rate, correlation, size, rng)) for _ in range(studies))
    kinds = ("refuses", "hallucinates", "cannot tell")
    one, other, neither = (said[kind] / studies for kind in kinds)
    return one, other, neither


def _judged(refused: Floats, sizes: Floats) -> str:
    units = pl.DataFrame({"unit": range(len(sizes)), "refused": refused, "n_refused": sizes})
    units = units.with_columns(pl.lit(0).alias("cell"), missed=0.0, n_missed=0.0)
    solved = {"refusal_rate": share_inference(refused, sizes)}
    share = float(refused.sum() / sizes.sum())
    row = _PROBE | {"cell": 0, "n_samples_refusal": int(sizes.sum())}
    row |= {"n_clusters_refusal": len(sizes)}
    row |= {f"refusal_rate{end}": share for end in ("", "_low", "_high")}
    return judge_refusal([row], solved, units, Statistics()).refusal


def main(studies: int = 6000, draws: int = 2000) -> None:
    """Run all cells, or those of the verdicts, and write ``statistics.md``."""
    path = HERE / "statistics.md"
    if "--verdicts" in sys.argv[1:]:
        before = path.read_text(encoding="utf-8").partition(_LANGUAGE)[0].splitlines()
        lines = [*before, *_of_language(studies, draws), "", *_of_refusal(studies)]
    else:
        lines = list(page(studies, draws))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    write_json(HERE.parent / "harness" / "stats" / COVERAGE, coverage_table(lines))


def coverage_table(lines: Sequence[str]) -> dict[str, Any]:
    """What reports say of few clusters: percent covered, by design and clusters, off the page."""
    found: dict[str, Any] = {"source": "reports/statistics.md", "change": {}, "refusal": {}}
    titles = {"## Coverage of 95 % intervals": "change", "## Coverage of the refusal": "refusal"}
    part = ""
    for line in lines:
        if line.startswith("## "):
            part = next((name for title, name in titles.items() if line.startswith(title)), "")
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        named = 1 if part == "change" else 2
        if part and line.startswith("| ") and cells[named].isdecimal():
            design = cells[0] if part == "change" else f"{cells[0]} %, correlation {cells[1]}"
            found[part].setdefault(design, {})[cells[named]] = float(cells[named + 1])
    return found


def page(studies: int, draws: int) -> Iterator[str]:
    """The page as Markdown, a line at a time."""
    yield from _INTRODUCTION.format(studies=studies, draws=draws).splitlines()
    yield from ["", "## Coverage of 95 % intervals, in percent of studies", ""]
    header = ("design", "clusters", "covered", "limits too high", "limits too low", "90 %")
    yield from _table((*header, "percentile", "BCa", "mean width"), _coverage_rows(studies, draws))
    yield from ["", *_OF_COVERAGE.splitlines(), ""]
    yield from ["## Words and clusters resampled together", ""]
    header = ("spread of effects (logit)", "words", "clusters", "covered", "clusters alone")
    yield from _table((*header, "mean width"), _word_rows(studies // 3, draws // 2))
    yield from ["", *_OF_WORDS.splitlines(), ""]
    yield from ["## False claims where the truth lies on the bound, in percent of studies", ""]
    header = ("design", "clusters", "equivalent", "beyond", "better", "worse")
    yield from _table(header, _error_rows(studies, draws))
    yield from ["", *_OF_ERRORS.splitlines(), ""]
    yield from ["## Families of six true nulls: at least one rejected, in percent", ""]
    yield from _table(("correction", "clusters", "families with an error"), _family_rows(draws))
    yield from ["", "## Power of the test of no change", ""]
    header = ("clusters", "true change %", "simulated %", "noncentral t %")
    yield from _table(header, _power_rows(studies, draws))
    yield ""
    yield from _of_language(studies, draws)
    yield ""
    yield from _of_refusal(studies)


_LANGUAGE = "## The language verdict on one attribute, in percent of studies"


def _of_language(studies: int, draws: int) -> Iterator[str]:
    yield from [_LANGUAGE, ""]
    header = ("on the bound", "targets", "clusters", "heard falsely", "unheard falsely")
    yield from _table(header, _hearing_rows(studies // 6, draws // 4))
    yield from ["", *_OF_HEARING.splitlines(), ""]
    yield from ["## The language verdict on four attributes, in percent of studies", ""]
    header = ("truth", "targets", "clusters", "listening or moved", "deaf or unmoved")
    rows = _spoken_rows(studies // 12, draws // 4)
    yield from _table((*header, "cannot tell"), rows)
    yield from ["", *_OF_SPOKEN.splitlines()]


def _of_refusal(studies: int) -> Iterator[str]:
    yield from ["## Coverage of the refusal rate, in percent of studies", ""]
    header = ("true rate %", "correlation in clusters", "clusters", "covered", "limits too high")
    yield from _table((*header, "limits too low", "mean width"), _rate_rows(studies))
    yield from ["", *_OF_RATES.splitlines(), ""]
    yield from ["## The verdict on refusal, in percent of studies", ""]
    header = ("true rate %", "correlation in clusters", "clusters", "refuses", "hallucinates")
    yield from _table((*header, "cannot tell"), _refusal_rows(studies // 6))
    yield from ["", *_OF_REFUSAL.splitlines()]


_INTRODUCTION = """# Do the statistics keep their promises?

Written by `python reports/simulations.py` (`make simulations`). Studies of known truth: clusters
hold 1 to 8 samples, Dice is bounded, a tenth of the samples (2 % in the rare designs) loses
nearly all its Dice. {studies} studies a cell (a third of them with words), {draws} bootstrap
draws each."""

_OF_COVERAGE = """Verdicts need 20 clusters; the rows with 13 show why. Where whole clusters drop,
or every cluster is one sample, 20 clusters miss the drops altogether in 12 % of studies (0.9^20),
and no method can know what it has not seen: a summary gives the share that may be absent
(`catastrophic_share_high`), and a verdict that holds says so."""

_OF_WORDS = """With 10 words or more words are resampled, too; with 3 the same interval covers too
seldom, which is why such figures are given for these words only. *Clusters alone* takes the words
for fixed."""

_OF_ERRORS = """The margin, or the bound, is the true change, so that every claim is false. Allowed
are 5 % for *equivalent* and 2.5 % for the others. In the rare designs a change just as large as
the default margin is due to 1 sample in 47: with few clusters none of them may be in the data."""


_OF_HEARING = """One condition lies on its bound and the others are met by far, so that both claims
are false. Allowed are 2.5 % for *heard* by each condition, which is two-sided (5 % where two are
on the bound and either would do), 5 % for *unheard* by Dice (equivalence) and 2.5 % by the mask.
A sixth as many studies, a quarter of the draws."""

_OF_SPOKEN = """In the first two rows *listening* and *moved* are false, in the next two *deaf*; the
rest is power. A twelfth as many studies, a quarter of the draws."""

_OF_RATES = """Clusters of 1 to 8 samples. Correlation 0: samples refuse or not one by one; 1: whole
clusters do. At 0 and 100 % every interval covers, by nature: there is nothing to miss on the other
side. So it is where intervals cover more than 97 %: a study without a refusal does not exclude a
rate of 2 %, and one with a few excludes nothing that none would not (without that rule 92.5 % were
covered at 2 %, 100 clusters, correlation 0.3). Beyond these designs a rule for few clusters remains
open: at 200 clusters, 2 % and correlation 1, 92 % are covered."""

_OF_REFUSAL = """The bound is 80 %: there *refuses* and *hallucinates* are both false, and 2.5 % are
allowed for each (the second: with one probe); at 20 clusters *refuses* goes up to 4 %. The other
rows are power. A sixth as many studies."""


def _table(header: Sequence[str], rows: Iterator[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(header)} |"
    yield f"|:---|{'---:|' * (len(header) - 1)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _coverage_rows(studies: int, draws: int) -> Iterator[Sequence[str]]:
    for design in DESIGNS:
        for size in SIZES:
            found = one_way(design, size, studies=studies, draws=draws).intervals
            yield design.name, str(size), *map(_percent, coverage(found, design.truth))


def _word_rows(studies: int, draws: int) -> Iterator[Sequence[str]]:
    for words in WORDS:
        for n_words in (3, 10, 20):
            for size in SIZES[1:]:
                both, alone = two_way(words, size, n_words, studies=studies, draws=draws)
                one, other = coverage(both, 1 - 0.1 * LOSS), coverage(alone, 1 - 0.1 * LOSS)
                figures = (one.covered, other.covered, one.width)
                yield words.name, str(n_words), str(size), *map(_percent, figures)


def _error_rows(studies: int, draws: int) -> Iterator[Sequence[str]]:
    for design in (*DESIGNS, *RARE):
        for size in SIZES[1:]:
            found = one_way(design, size, studies=studies, draws=draws)
            yield design.name, str(size), *map(_percent, errors_at_the_bound(found, design))


def _family_rows(draws: int) -> Iterator[Sequence[str]]:
    for correction in ("none", "holm"):
        for size in SIZES[1:]:
            share = family_errors(
                STATED, size, members=6, studies=1000, draws=draws, correction=correction
            )
            yield correction, str(size), _percent(share)


def _power_rows(studies: int, draws: int) -> Iterator[Sequence[str]]:
    for size in SIZES[1:]:
        for effect in (-1.0, -2.0, -4.0):
            found = power_at(size, 10.0, effect, studies=studies, draws=draws)
            figures = (found.simulated, found.analytic)
            yield str(size), f"{effect:g}", *map(_percent, figures)


def _hearing_rows(studies: int, draws: int) -> Iterator[Sequence[str]]:
    for named, words in ((True, NAMED), (False, UNNAMED)):
        for word in words:
            for size in SIZES[1:]:
                found = hearing(word, size, named=named, studies=studies, draws=draws)
                yield word.name, _targets(named), str(size), *map(_percent, found)


def _spoken_rows(studies: int, draws: int) -> Iterator[Sequence[str]]:
    for title, named, words in MODELS:
        for size in SIZES[1:]:
            found = spoken(words, size, named=named, studies=studies, draws=draws)
            yield title, _targets(named), str(size), *map(_percent, found)


def _rate_rows(studies: int) -> Iterator[Sequence[str]]:
    for rate in REFUSAL_RATES:
        for correlation in CORRELATIONS:
            for size in SIZES[1:4]:
                found = rate_coverage(rate, correlation, size, studies=studies)
                yield f"{100 * rate:g}", f"{correlation:g}", str(size), *map(_percent, found)


def _refusal_rows(studies: int) -> Iterator[Sequence[str]]:
    for rate in (0.8, 0.6, 0.9, 0.97):
        for correlation in CORRELATIONS[1:]:
            for size in SIZES[1:4]:
                found = refusal_verdicts(rate, correlation, size, studies=studies)
                yield f"{100 * rate:g}", f"{correlation:g}", str(size), *map(_percent, found)


def _targets(named: bool) -> str:
    return "named" if named else "unknown"


if __name__ == "__main__":
    sys.exit(main())
