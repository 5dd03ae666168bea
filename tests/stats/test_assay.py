"""The assay card: exact limits, what is counted as what, and the sentences for a report."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from harness.stats.assay import (
    ASSAY_VERSION,
    CARD,
    GROUPS,
    Count,
    assay_lines,
    clopper_pearson,
    read_card,
    sentences,
    share_text,
    sizes_of,
    total,
)

cases = st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(cases)
def test_limits_are_exact(case):
    limits = binomtest(*case).proportion_ci(method="exact")
    assert clopper_pearson(*case) == pytest.approx((limits.low, limits.high), abs=1e-9)


@given(cases)
def test_the_other_outcome_has_the_mirrored_limits(case):
    events, n = case
    low, high = clopper_pearson(events, n)
    assert clopper_pearson(n - events, n) == pytest.approx((1 - high, 1 - low), abs=1e-9)


ROWS = (
    Count("attribute", "yes", None, 20, 10, 9, 0),
    Count("attribute", "yes", 0.5, 20, 10, 8, 1),
    Count("attribute", "yes", 0.1, 20, 10, 1, 2),
    Count("attribute", "no", 0.0, 20, 10, 7, 0),
    Count("attribute", "no", None, 20, 5, 5, 0),
    Count("attribute", "no", None, 40, 5, 5, 0),
)


def test_groups_share_out_the_models_by_truth_and_strength():
    found = [total(ROWS, group, 20) for group in GROUPS if group.kind == "attribute"]
    assert [(one.n, one.right, one.wrong, one.undecided) for one in found] == [
        (20, 17, 1, 2), (10, 1, 2, 7), (15, 12, 0, 3),
    ]  # fmt: skip
    assert sizes_of(ROWS, "attribute") == [20, 40]


def test_every_row_of_the_card_that_ships_is_in_one_group():
    rows = read_card()
    counted = sum(
        total(rows, group, size).n for group in GROUPS for size in sizes_of(rows, group.kind)
    )
    content = json.loads(CARD.read_text(encoding="utf-8"))
    assert content["version"] == ASSAY_VERSION
    assert counted == content["n_verdicts"] == sum(row.n for row in rows)
    for row in rows:
        assert 0 <= row.right <= row.n - row.wrong, row
        assert row.truth in ("yes", "no"), row


def test_verdicts_that_ship_are_seldom_wrong_and_find_what_is_strong():
    """What the card says of this build: few verdicts are the opposite of the truth."""
    rows = read_card()
    assert sum(row.wrong for row in rows) <= 0.02 * sum(row.n for row in rows)
    for group in (g for g in GROUPS if g.least == 0.5 or g.kind == "refusal"):
        for size in sizes_of(rows, group.kind):
            one = total(rows, group, size)
            assert one.right >= 0.9 * one.n, (group.name, size)


def test_a_report_has_a_sentence_a_kind():
    words, refusal = assay_lines()
    assert assay_lines() == tuple(sentences(read_card()))
    assert words.startswith(
        "How often verdicts on words are right on models of known truth, with 20 and 40 clusters: "
        "heard in half of the pictures or more and called so 0."
    )
    assert "; not heard and called so 0." in words
    assert "; the opposite said of " in words
    assert "refused more often than the bound and called so " in refusal
    assert share_text(3, 4) == "0.75 [0.19, 0.99]"
