"""Two runs of one plan, case by case."""

import polars as pl
import pytest

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
