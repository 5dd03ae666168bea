"""The change between two arrays, and a run as one frame of cases."""

import re

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import harness
from harness.errors import DataError, ModelError, UsageError
from harness.runs.frames import frame_cases
from harness.runs.store import RunStore

fractions = st.floats(0.05, 1.0)
samples = st.lists(st.tuples(fractions, fractions, st.integers(0, 5)), min_size=3, max_size=40)


@given(samples)
def test_the_change_is_the_papers(rows):
    before, after, clusters = zip(*rows, strict=True)
    found = harness.relative_change(before, after, clusters)
    expected = 100 * (np.mean(after) - np.mean(before)) / np.mean(before)
    assert found.percent == pytest.approx(expected, abs=1e-6)
    assert (found.n_samples, found.n_clusters) == (len(rows), len(set(clusters)))
    if found.n_clusters > 1:
        assert found.low <= found.percent + 1e-6
        assert found.high >= found.percent - 1e-6


@given(samples, st.randoms(use_true_random=False))
def test_the_order_of_samples_does_not_matter_to_the_estimate(rows, random):
    mixed = random.sample(rows, len(rows))
    one, other = (harness.relative_change(*zip(*r, strict=True)) for r in (rows, mixed))
    assert one.percent == pytest.approx(other.percent, abs=1e-8)


def test_what_is_no_number_is_left_out_and_nothing_is_nan():
    found = harness.relative_change([0.5, np.nan, 0.5], [0.25, 0.1, 0.25])
    assert (found.percent, found.n_samples) == (-50, 2)
    assert np.isnan(harness.relative_change([0, 0], [0.5, 0.5]).percent)
    assert np.isnan(harness.relative_change([], []).percent)
    assert np.isnan(harness.relative_change([0.5], [0.4]).low)


def test_lengths_that_differ_are_told():
    text = "relative_change: 2 values before, 1 after. One of each a sample is needed."
    with pytest.raises(UsageError, match="^" + re.escape(text)):
        harness.relative_change([0.5, 0.5], [0.5])


def test_the_face_is_what_a_notebook_sees():
    assert dir(harness) == sorted(harness.__all__)
    assert all(callable(getattr(harness, n)) for n in harness.__all__ if n != "__version__")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("audited")
    suite = root / "small.yaml"
    suite.write_text(
        "name: small\ntitle: Small\ndatasets: [{name: phantom_solo, split: test}]\n"
        "probes:\n  - {name: gone, perturbation: empty}\n"
    )
    return harness.audit(
        model="phantom-clipseg-solo",
        suite=suite,
        data_root=root / "data",
        out=root / "run",
        limit=3,
    )


def test_an_audit_in_python_chooses_its_backend(run, tmp_path):
    assert [model["backend"] for model in run.models] == ["torch"]
    with pytest.raises(ModelError, match=r"^--backend: unknown backend 'tensorflow'\."):
        harness.audit(
            model="phantom-clipseg-solo",
            suite="empty_prompt",
            backend="tensorflow",
            data_root=tmp_path,
        )


def test_an_audit_in_python_gives_the_run(run, capsys):
    assert run.manifest["status"] == "complete"
    assert set(run.summary["probe"]) >= {"gone"}
    assert capsys.readouterr() == ("", "")


def test_cases_stand_beside_their_originals(run):
    cases = frame_cases(RunStore(run.folder))
    assert cases.equals(run.cases())
    assert set(cases["probe"]) == {"gone"}
    assert set(cases["prompt"]) == {""}
    assert cases["original_prompt"].str.len_chars().min() > 0
    assert cases["dice_before"].is_between(0, 1).all()
    dice = 2 * pl.col("tp") / (pl.col("n_pred") + pl.col("n_gt"))
    assert cases.select((dice - pl.col("dice_after")).abs().max()).item() < 1e-12
    row = run.summary.filter(pl.col("probe") == "gone").row(0, named=True)
    change = 100 * (cases["dice_after"].mean() / cases["dice_before"].mean() - 1)
    assert row["reference_dice"] == pytest.approx(cases["dice_before"].mean())
    found = harness.relative_change(cases["dice_before"], cases["dice_after"], cases["cluster_id"])
    assert found.percent == pytest.approx(change)


def test_a_bare_function_is_told_how_to_be_wrapped():
    with pytest.raises(UsageError) as caught:
        harness.audit(model=len, suite="empty_prompt")
    assert str(caught.value) == (
        "audit: model: found the function 'len'. A card, a path, or a function as `harness.wrap` "
        "returns it is needed. Give harness.wrap(function)."
    )


def test_data_sets_may_be_one_text_as_on_the_command_line(tmp_path):
    with pytest.raises(DataError, match=r"busi: no such folder"):
        harness.audit(
            model="phantom-cris-solo", suite="empty_prompt", datasets="busi", data_root=tmp_path
        )


def test_what_is_no_number_is_refused():
    with pytest.raises(UsageError) as refused:
        harness.relative_change(["a"], [0.5])
    assert str(refused.value) == (
        "relative_change: before: could not convert string to float: 'a'. The Dice of each sample "
        "is needed, such as [0.8, 0.6]. Give a list or an array of numbers."
    )
    with pytest.raises(UsageError, match="2 values before, 2 after, 1 clusters. One of each a"):
        harness.relative_change([0.5, 0.4], [0.5, 0.3], clusters=["a"])
