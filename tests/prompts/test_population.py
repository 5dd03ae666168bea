"""Everybody's prompt is lent once, to somebody of another image who says something else."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.prompts.population import Population, derange
from harness.records import Prompt, Sample

people = st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from("uvwxyz")), max_size=14)


def clash(people, a, b):
    return people[a][0] == people[b][0] or people[a][1] == people[b][1]


def deranged(people, seed):
    def clashing(a, b):
        return clash(people, a, b)

    return derange(len(people), clashing, np.random.default_rng(seed))


@given(people, st.integers(0, 2**32))
def test_nobody_is_given_what_clashes_and_nothing_is_given_twice(people, seed):
    partners = deranged(people, seed)

    given_out = [partner for partner in partners if partner is not None]
    assert len(partners) == len(people)
    assert len(set(given_out)) == len(given_out)
    for one, other in enumerate(partners):
        assert other is None or not clash(people, one, other)


@given(people, st.integers(0, 2**32))
def test_all_are_served_where_each_clashes_with_fewer_than_half(people, seed):
    counts = [sum(clash(people, a, b) for b in range(len(people))) for a in range(len(people))]
    if not people or 2 * max(counts) >= len(people):
        return

    assert None not in deranged(people, seed)


def test_derangements_are_uniform():
    """The nine derangements of four; 2,700 draws, 300 expected of each, 4 sigma = 65."""
    found = Counter(
        tuple(deranged([*zip("abcd", "wxyz", strict=True)], seed)) for seed in range(2700)
    )

    assert len(found) == 9
    assert all(235 < count < 365 for count in found.values())


def sample(number, text, image=None, rung="p6"):
    prompts = {rung: (Prompt(text, rung), Prompt(text + "!", rung, 1))}
    return Sample("d", "test", f"s{number}", Path(), Path(), image or f"i{number}", "c", prompts)


def differ(one, other):
    return one.text != other.text


@pytest.fixture
def population():
    return Population([sample(n, f"text {n}") for n in range(7)])


def test_partners_of_one_seed_are_a_derangement_of_the_split(population):
    def lent(seed):
        return [
            population.partner(s, s.prompts["p6"][0], seed=seed, excludes=differ).text
            for s in population.samples
        ]

    own = [s.prompts["p6"][0].text for s in population.samples]
    assert sorted(lent(1)) == sorted(own)
    assert all(a != b for a, b in zip(lent(1), own, strict=True))
    assert lent(1) == lent(1)
    assert len({tuple(lent(seed)) for seed in range(20)}) > 15


def test_prompts_of_a_list_borrow_from_the_same_place(population):
    for one in population.samples:
        own = one.prompts["p6"][1]
        lent = population.partner(one, own, seed=0, excludes=differ)
        assert lent.text.endswith("!")
        assert lent.index == 1


def test_prompts_that_mean_the_same_are_never_exchanged():
    people = Population([sample(0, "round"), sample(1, "circle"), sample(2, "square")])
    meaning = {"round": 1, "circle": 1, "square": 2}

    lent = [
        people.partner(
            s,
            s.prompts["p6"][0],
            seed=3,
            excludes=lambda a, b: meaning[a.text] != meaning[b.text],
        )
        for s in people.samples
    ]

    assert lent[0] is None or lent[0].text == "square"
    assert lent[1] is None or lent[1].text == "square"
    assert [partner is None for partner in lent].count(True) >= 1


def test_samples_of_an_image_are_found():
    people = Population([sample(0, "a", "x"), sample(1, "b", "x"), sample(2, "c", "y")])

    assert [s.sample_id for s in people.of_image("x")] == ["s0", "s1"]
    assert people.of_image("z") == ()
