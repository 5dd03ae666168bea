"""Two runs of one plan, case by case."""

import numpy as np
import polars as pl
import pytest

from harness.gate.against import _pair, _with_words
from harness.stats.inference import PIVOT_LEVELS, Estimate
from harness.stats.relative import matched_sums


def test_a_case_counts_where_both_runs_have_it(make, behaviour):
    """The last sample's antonym is the last case: it fails in one run alone."""
    whole, lacking = make("whole"), make("lacking", behaviour(model_seed=2), lost=1)

    new, old = matched_sums(lacking.estimates.pairs, whole.estimates.pairs)

    rows = {probe: (a["n"].sum(), b["n"].sum()) for probe, a, b in _by_probe(new, old)}
    assert rows["antonym"] == (59, 59)
    assert {v for k, v in rows.items() if k != "antonym"} == {(60, 60)}
    # The others' sums are those of each run alone.
    other = pl.col("probe") != "antonym"
    assert new.filter(other).equals(lacking.sums.filter(other))
    assert old.filter(other).equals(whole.sums.filter(other))
    assert old.filter(~other)["dice"].sum() < whole.sums.filter(~other)["dice"].sum()


def test_other_plans_are_not_matched(make):
    message = "matching: the two runs hold other cases. Compare them by cluster."
    one, other = make("one"), make("other", lexicon="other")
    with pytest.raises(ValueError, match=message):
        matched_sums(one.estimates.pairs, other.estimates.pairs)


def _by_probe(new, old):
    for (probe,), rows in new.group_by("probe", maintain_order=True):
        yield probe, rows, old.filter(pl.col("probe") == probe)


def test_clusters_are_paired_by_name_whatever_their_order():
    new = pl.DataFrame({"cluster": ["c", "a", "b", "x"], "n": [1, 1, 1, 1]})
    old = pl.DataFrame({"cluster": ["b", "c", "y", "a"], "n": [1, 1, 1, 0]})
    found = _pair({}, "relative_change", new, old, 0.0)
    assert found.new["cluster"].to_list() == found.old["cluster"].to_list() == ["b", "c"]
    assert (found.new_size, found.old_size) == (4, 3)


def test_errors_of_words_and_of_clusters_add_as_variances():
    pivot = np.linspace(-3, 3, len(PIVOT_LEVELS))
    alone = Estimate(-1.0, 3.0, 0.0, -7.0, 5.0, -6.0, 4.0, pivot, 999)
    found = _with_words(alone, 4.0)
    assert (found.error, found.word_error) == (5.0, 4.0)
    width = alone.limit(0.025) - alone.limit(0.975)
    assert found.high - found.low == pytest.approx(5 / 3 * width)
