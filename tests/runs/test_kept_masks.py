"""What is saved depends on the cases alone: not on order, pieces or interruptions."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.data.images import read_mask
from harness.runs.kept_masks import (
    STEADY,
    WORST,
    Bits,
    Kept,
    Masks,
    SavedMasks,
    Selection,
    mask_paths,
    names_of,
    read_saved_masks,
)


def kept(case_id, *, kind=WORST, group="a", sample="s", score=0.0):
    rng = np.random.default_rng(case_id)
    masks = Masks(*(Bits.of(rng.random((5, 11)) < 0.5) for _ in range(3)))
    place = ("data", "test", "released", "p6", group, None)
    return Kept(kind, place, sample, case_id, case_id // 10, score, 0.2, 0.9, 0.5, masks)


cases = st.lists(
    st.builds(
        kept,
        st.integers(0, 10**6),
        kind=st.sampled_from([WORST, STEADY]),
        group=st.sampled_from("ab"),
        sample=st.sampled_from("stuvw"),
        score=st.sampled_from([0.0, 0.1, 0.5, 0.9]),
    ),
    max_size=40,
    unique_by=lambda case: case.case_id,
)


def best(offered, k):
    """The definition: the best case of each sample, then the best samples."""
    found = []
    for key in {(c.group, c.kind) for c in offered}:
        own = sorted((c for c in offered if (c.group, c.kind) == key), key=lambda c: c.rank)
        first = {}
        for case in own:
            first.setdefault(case.sample_id, case)
        found += list(first.values())[:k]
    return {(c.group, c.kind, c.case_id) for c in found}


def chosen(selection):
    return {(c.group, c.kind, c.case_id) for c in selection.all()}


@given(cases, st.integers(1, 4), st.randoms(use_true_random=False))
def test_a_selection_agrees_with_its_definition_in_any_order(offered, k, random):
    selection = Selection(k)
    random.shuffle(offered)
    for case in offered:
        selection.offer(case)
    assert chosen(selection) == best(offered, k)


@given(cases, st.integers(0, 40))
def test_shards_that_choose_for_themselves_lose_nothing(offered, place):
    """Each part offers what it would keep; the whole keeps what it would have kept at once."""
    whole = Selection(2)
    for part in (offered[:place], offered[place:]):
        own = Selection(2)
        for case in part:
            own.offer(case)
        for case in own.all():
            whole.offer(case)
    assert chosen(whole) == best(offered, 2)


@pytest.fixture
def offered():
    rng = np.random.default_rng(0)
    return [
        kept(
            int(n),
            kind=(WORST, STEADY)[n % 2],
            group="ab"[int(n % 3 == 0)],
            sample=f"s{n % 7}",
            score=round(rng.random(), 1),
        )
        for n in rng.permutation(100)
    ]


def files(run):
    return sorted(p.name for p in (run / "masks" / "m@1").iterdir())


def test_disk_holds_what_is_kept_and_nothing_else(tmp_path, offered):
    saved = SavedMasks(tmp_path, "m@1", k=3)
    for place in range(0, 100, 9):
        saved.add(offered[place : place + 9])
    found = read_saved_masks(tmp_path, "m@1")
    assert {(c.group, c.kind, c.case_id) for c in found} == best(offered, 3)
    assert files(tmp_path) == sorted({name for c in found for name in names_of(c)})
    of = {c.case_id: c for c in offered}
    for case in found:
        assert case == of[case.case_id]
        variant = read_mask(mask_paths(tmp_path, "m@1", case)[0])
        np.testing.assert_array_equal(
            variant, np.random.default_rng(case.case_id).random((5, 11)) < 0.5
        )


def test_an_album_that_is_opened_again_goes_on(tmp_path, offered):
    """Killed after any shard, and that shard offered twice."""
    for place in (0, 30, 30, 60):
        SavedMasks(tmp_path / "parts", "m@1", k=2).add(offered[place : place + 40])
    SavedMasks(tmp_path / "whole", "m@1", k=2).add(offered)
    assert read_saved_masks(tmp_path / "parts", "m@1") == read_saved_masks(
        tmp_path / "whole", "m@1"
    )
    assert files(tmp_path / "parts") == files(tmp_path / "whole")


def test_masks_on_disk_leave_memory(tmp_path, offered):
    saved = SavedMasks(tmp_path, "m@1", k=2)
    saved.add(offered)
    assert all(case.masks is None for case in saved.selection.all())


def test_a_run_without_an_album_has_none(tmp_path):
    assert list(read_saved_masks(tmp_path, "m@1")) == []


def test_the_worst_is_never_the_one_that_costs_least():
    selection = Selection(1)
    case = kept(1, score=0.9)
    selection.offer(case)
    assert not selection.offer(replace(case, case_id=2, sample_id="t", score=0.1))
    assert [c.case_id for c in selection.all()] == [1]
