"""Rows of features are moved about unchanged; a text is encoded once while it fits."""

from typing import NamedTuple

import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.engine.text_cache import TEXTS_PER_BLOCK, TextCache
from harness.model.features import bytes_per_row, concatenate, select


class Pair(NamedTuple):
    vector: torch.Tensor
    mask: torch.Tensor


def features(texts):
    numbers = torch.tensor([float(text) for text in texts])
    return Pair(numbers[:, None].repeat(1, 3), numbers.bool())


def test_selecting_and_concatenating_keep_every_leaf():
    whole = features(["0", "1", "2"])
    rows = select(whole, torch.tensor([2, 0]))
    both = concatenate([rows, select(whole, torch.tensor([1]))])
    assert isinstance(both, Pair)
    assert both.vector[:, 0].tolist() == [2.0, 0.0, 1.0]
    assert both.mask.tolist() == [True, False, True]


def test_memory_of_a_row_counts_every_leaf():
    assert bytes_per_row(features(["1", "2"])) == 3 * 4 + 1


@given(st.lists(st.integers(0, 3 * TEXTS_PER_BLOCK + 5), min_size=1, max_size=40))
def test_the_cache_gives_what_encoding_gives(wanted):
    texts = [str(n) for n in range(3 * TEXTS_PER_BLOCK + 6)]
    for budget in (0, 1 << 30):
        cache = TextCache(texts, features, budget_bytes=budget)
        rows = cache.rows(torch.tensor(wanted))
        assert rows.vector[:, 0].tolist() == [float(n) for n in wanted]


def encoded(budget, requests):
    calls = []

    def encode(texts):
        calls.extend(texts)
        return features(texts)

    cache = TextCache([str(n) for n in range(200)], encode, budget_bytes=budget)
    for request in requests:
        cache.rows(torch.tensor(request))
    return calls


def test_each_text_is_encoded_once_while_it_fits():
    calls = encoded(1 << 30, [[0, 199], [5, 150], [0, 1]])
    assert len(calls) == len(set(calls))


def test_the_block_used_longest_ago_is_dropped():
    row = bytes_per_row(features(["1"]))
    calls = encoded(2 * TEXTS_PER_BLOCK * row, [[0], [64], [0], [128], [0], [64]])
    assert calls.count("0") == 1
    assert calls.count("64") == 2
