"""The change away from training data, against loops over the same draws."""

import re

import numpy as np
import pytest

from harness.stats.draws import cluster_draws
from harness.stats.limits import LEAST_ERROR
from harness.stats.shift import ShiftSet, shift_intervals

NAMES = ("target", "reference", "points", "harmonic", "relative")


def make_set(name, size, models=2, seed=0, mean=0.8, draws=120):
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 4, (size, 1)) * np.ones((1, models))
    sums = counts * np.clip(rng.normal(mean, 0.1, (size, models)), 0, 1)
    units = cluster_draws(name, [f"c{i}" for i in range(size)], count=draws, seed=0)
    return ShiftSet(units, counts, sums)


def slow_values(sets, weights, model):
    """(values, influences by set): one figure after the other, clusters in a loop."""
    means = [
        sum(w * s for w, s in zip(ws, one.sums[:, model], strict=True))
        / sum(w * c for w, c in zip(ws, one.counts[:, model], strict=True))
        for one, ws in zip(sets, weights, strict=True)
    ]
    away, inside = means[0], sum(means[1:]) / len(means[1:])
    values = {"target": away, "reference": inside, "points": away - inside}
    values["harmonic"] = 2 / (1 / away + 1 / inside)
    values["relative"] = away / inside - 1
    influences = {name: [] for name in NAMES}
    for j, (one, ws) in enumerate(zip(sets, weights, strict=True)):
        total = sum(w * c for w, c in zip(ws, one.counts[:, model], strict=True))
        own = [
            (s - means[j] * c) / total
            for s, c in zip(one.sums[:, model], one.counts[:, model], strict=True)
        ]
        first, share = j == 0, 1 / (len(sets) - 1)
        slopes = {
            "target": float(first),
            "reference": 0.0 if first else share,
            "points": 1.0 if first else -share,
            "harmonic": 2
            * ((inside if first else away) / (away + inside)) ** 2
            * (1 if first else share),
            "relative": 1 / inside if first else -share * away / inside**2,
        }
        for name in NAMES:
            influences[name].append([slopes[name] * x for x in own])
    return values, influences


def slow_error(influences, weights):
    square = 0.0
    for own, ws in zip(influences, weights, strict=True):
        size = len(own)
        square += size / (size - 1) * sum(w * x * x for w, x in zip(ws, own, strict=True))
    return square**0.5


def slow_limits(estimate, error, drawn):
    t = [(e - estimate) / max(s, LEAST_ERROR * error) for e, s in drawn]
    return estimate - np.quantile(t, 0.975) * error, estimate - np.quantile(t, 0.025) * error


def weight_rows(sets):
    """For each draw the weights of every set."""
    blocks = [np.vstack([b for _, b in one.draws.blocks()]) for one in sets]
    return list(zip(*blocks, strict=True))


def subtract(first, second):
    return [[a - b for a, b in zip(x, y, strict=True)] for x, y in zip(first, second, strict=True)]


def test_every_figure_agrees_with_a_plain_loop_over_the_same_draws():
    sets = [
        make_set("out", 7, seed=1, mean=0.6),
        make_set("a", 6, seed=2),
        make_set("b", 9, seed=3),
    ]
    ones = [np.ones(len(s.counts)) for s in sets]

    found = shift_intervals(sets[0], sets[1:], controls=[1])

    for name in NAMES:
        for model in (0, 1):
            values, influences = slow_values(sets, ones, model)
            drawn = []
            for ws in weight_rows(sets):
                v, i = slow_values(sets, ws, model)
                drawn.append((v[name], slow_error(i[name], ws)))
            error = slow_error(influences[name], ones)
            low, high = slow_limits(values[name], error, drawn)
            intervals = getattr(found, name)
            assert intervals.estimate[model] == pytest.approx(values[name], rel=1e-9)
            assert intervals.standard_error[model] == pytest.approx(error, rel=1e-6)
            assert intervals.low[model] == pytest.approx(low, rel=1e-6)
            assert intervals.high[model] == pytest.approx(high, rel=1e-6)


def test_the_difference_from_the_control_is_paired():
    sets = [make_set("out", 7, seed=1, mean=0.6), make_set("a", 6, seed=2)]
    ones = [np.ones(len(s.counts)) for s in sets]

    found = shift_intervals(sets[0], sets[1:], controls=[1])

    def beyond(ws):
        (v0, i0), (v1, i1) = (slow_values(sets, ws, m) for m in (0, 1))
        difference = subtract(i0["relative"], i1["relative"])
        return v0["relative"] - v1["relative"], slow_error(difference, ws)

    estimate, error = beyond(ones)
    low, high = slow_limits(estimate, error, [beyond(ws) for ws in weight_rows(sets)])
    assert found.beyond.estimate[0] == pytest.approx(estimate)
    assert found.beyond.low[0] == pytest.approx(low, rel=1e-6)
    assert found.beyond.high[0] == pytest.approx(high, rel=1e-6)
    assert found.control.estimate[0] == found.relative.estimate[1]


def test_a_model_equal_to_its_control_differs_by_exactly_nothing():
    one = make_set("out", 8, models=1, seed=1, mean=0.5)
    two = make_set("in", 8, models=1, seed=2)
    doubled = [
        ShiftSet(s.draws, np.hstack([s.counts] * 2), np.hstack([s.sums] * 2)) for s in (one, two)
    ]

    found = shift_intervals(doubled[0], doubled[1:], controls=[1])

    assert found.beyond.estimate[0] == pytest.approx(0, abs=1e-15)
    assert found.beyond.low[0] == pytest.approx(0, abs=1e-12)
    assert found.beyond.high[0] == pytest.approx(0, abs=1e-12)
    assert found.relative.high[0] - found.relative.low[0] > 0.01


def test_several_controls_count_by_their_mean():
    sets = [make_set("out", 7, models=3, seed=1, mean=0.6), make_set("a", 6, models=3, seed=2)]

    found = shift_intervals(sets[0], sets[1:], controls=[1, 2])

    mean = found.relative.estimate[1:].mean()
    assert found.control.estimate[0] == pytest.approx(mean)
    assert found.beyond.estimate[0] == pytest.approx(found.relative.estimate[0] - mean)


def test_without_a_control_there_is_no_difference():
    sets = [make_set("out", 7, seed=1), make_set("a", 6, seed=2)]

    found = shift_intervals(sets[0], sets[1:])

    assert np.isnan(found.beyond.estimate).all()
    assert np.isnan(found.control.high).all()
    assert np.isfinite(found.relative.high).all()


def test_a_set_of_one_cluster_leaves_no_limits():
    sets = [make_set("out", 1, seed=1), make_set("a", 6, seed=2)]

    found = shift_intervals(sets[0], sets[1:])

    assert np.isfinite(found.relative.estimate).all()
    assert np.isnan(found.relative.low).all()


def test_no_training_set_is_refused():
    message = "shift: no set of the training data. At least one is needed. Name its reason instead."
    with pytest.raises(ValueError, match="^" + re.escape(message) + "$"):
        shift_intervals(make_set("out", 3), [])


def test_intervals_of_a_shift_cover():
    """240 studies of one truth, two training sets of 30 and 40 clusters, one other of 30."""
    models = 60
    covered = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        sets = []
        for name, size, a in (("out", 30, 3), ("in", 30, 8), ("in2", 40, 8)):
            draws = cluster_draws(name, [f"c{i}" for i in range(size)], count=400, seed=seed)
            sets.append(ShiftSet(draws, np.ones((size, models)), rng.beta(a, 2, (size, models))))
        # Models are independent here: compare them one at a time to keep the forms small.
        for m in range(models):
            own = [ShiftSet(s.draws, s.counts[:, [m]], s.sums[:, [m]]) for s in sets]
            found = shift_intervals(own[0], own[1:]).relative
            covered.append(bool(found.low[0] <= 0.6 / 0.8 - 1 <= found.high[0]))
    assert 0.90 <= np.mean(covered) <= 0.985
