"""Ranks with ties from pairs that are shown to differ."""

from hypothesis import given
from hypothesis import strategies as st

from harness.stats.ranks import ranks


def test_models_that_are_not_shown_to_differ_share_their_ranks():
    assert [r.text for r in ranks(3, [(0, 1), (0, 2)])] == ["1", "2-3", "2-3"]
    assert [r.text for r in ranks(2, [])] == ["1-2", "1-2"]
    assert [r.tied_with for r in ranks(3, [(0, 1), (0, 2)])] == [(), (2,), (1,)]


def test_a_tie_need_not_be_transitive_and_the_ranges_say_so():
    first, second, third = ranks(3, [(0, 2)])
    assert (first.text, second.text, third.text) == ("1-2", "1-3", "2-3")
    assert second.tied_with == (0, 2)


@st.composite
def tournaments(draw):
    size = draw(st.integers(1, 6))
    pairs = [(a, b) for a in range(size) for b in range(a + 1, size)]
    results = [draw(st.sampled_from([None, (a, b), (b, a)])) for a, b in pairs]
    return size, [r for r in results if r]


@given(tournaments())
def test_ranges_are_within_bounds_and_ties_are_mutual(tournament):
    size, shown = tournament
    found = ranks(size, shown)
    for place, rank in enumerate(found):
        assert 1 <= rank.first <= rank.last <= size
        assert rank.last - rank.first == len(rank.tied_with)
        assert all(place in found[other].tied_with for other in rank.tied_with)


@given(st.integers(1, 6), st.randoms())
def test_a_full_order_has_no_ties_whatever_the_order_of_the_pairs(size, random):
    shown = [(a, b) for a in range(size) for b in range(a + 1, size)]
    random.shuffle(shown)
    assert [r.text for r in ranks(size, shown)] == [str(k + 1) for k in range(size)]
