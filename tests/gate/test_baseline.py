"""The baseline's file: the same bytes for the same run, and what is said of a wrong one."""

import json
import re

import pytest

from harness.errors import UsageError
from harness.gate.baseline import read_file, text_of
from harness.gate.gating import as_baseline, baseline_at
from harness.stats.relative import SUMS


@pytest.fixture
def text(make):
    return text_of(as_baseline(make("run")))


@pytest.fixture
def refused(tmp_path, text):
    """A function: the file with one thing changed is refused with this message."""

    def check(message, *, old=None, new="", whole=None):
        path = tmp_path / "base.json"
        assert whole is not None or old in text
        path.write_text(whole if whole is not None else text.replace(old, new, 1), encoding="utf-8")
        with pytest.raises(UsageError, match="^" + re.escape(f"{path}: {message}")):
            read_file(path)

    return check


def test_it_is_read_back_to_the_same_bytes(text, tmp_path):
    path = tmp_path / "base.json"
    path.write_text(text, encoding="utf-8")
    found = read_file(path)
    assert text_of(found) == text
    assert found.run is None


def test_the_order_of_rows_leaves_the_bytes_alone(make, text):
    assert text_of(as_baseline(make("other", shuffled=True))) == text


def test_one_cluster_is_one_line_so_that_changes_read_well(text, make, behaviour):
    content = json.loads(text)
    named = ["n_named", "own_named", "dice_named"]
    assert content["columns"] == ["n", "reference", "dice", *named, "n_refused", "refused"]
    assert text.count('"patient007": [') == len(content["cells"]) == 5
    assert max(map(len, text.splitlines())) < 300
    lengths = {c["probe"]: len(c["clusters"]["patient007"]) for c in content["cells"]}
    assert lengths == {"antonym": 6, "gone": 3, "noise": 3, "original": 3, "synonym": 3}
    left = {"synonym": 1.0, "gone": 0.5, "noise": 0.8, "antonym": 0.2}
    other = text_of(as_baseline(make("other", behaviour(left=left, noise=0.0))))
    same = text_of(as_baseline(make("same", behaviour(noise=0.0))))
    changed = [(a, b) for a, b in zip(same.splitlines(), other.splitlines(), strict=True) if a != b]
    assert len(changed) == 30, "the clusters of one probe"


def test_the_sums_are_those_of_the_cases(make, behaviour):
    """Two samples a cluster, by hand: 1000 true, 1000 predicted and tp shared pixels."""
    import polars as pl

    run = make("run", behaviour(noise=0.0))
    content = json.loads(text_of(as_baseline(run)))
    gone = next(c for c in content["cells"] if c["probe"] == "gone")
    scores = pl.read_parquet(run.folder / "scores").join(
        pl.read_parquet(run.folder / "plan.parquet"), on="case_id"
    )
    for name in ("patient000", "patient029"):
        own = scores.filter(pl.col("cluster_id") == name)
        tp = {p: own.filter(pl.col("probe") == p)["tp"].sum() / 1000 for p in ("original", "gone")}
        assert gone["clusters"][name] == [2, tp["original"], tp["gone"]]


def test_a_missing_file(tmp_path, make):
    message = (
        "nowhere.json: no such file. A baseline is a run directory or a file. Write one: "
        "`vlsm-harness gate RUN --update FILE`."
    )
    with pytest.raises(UsageError, match=re.escape(message)):
        baseline_at(tmp_path / "nowhere.json", run=make("run"))


def test_wrong_files_are_explained(refused):
    renew = "Write it anew: `vlsm-harness gate RUN --update FILE`."
    refused(
        f"version 2 of a baseline. This harness reads version 1. {renew}",
        old='"version": 1', new='"version": 2',
    )  # fmt: skip
    refused("version None of a baseline. This harness reads version 1.", whole="[]")
    refused("not valid JSON (Expecting value: line 1 column 1 (char 0)). A", whole="plan")
    refused("nested too deeply. Flat rows are expected. A", whole="[" * 100_000)
    refused("sed: Extra inputs are not permitted. Write it", old='"seed"', new='"seed": 0, "sed"')
    refused("seed: Input should be a valid integer, ", old='"seed": 0', new='"seed": "x"')
    refused("columns ['n', 'dice']. They must be ['n', 'reference', ", old=COLUMNS, new=SHORT)


COLUMNS = """[
  "n",
  "reference",
  "dice",
  "n_named",
  "own_named",
  "dice_named",
  "n_refused",
  "refused"
 ]"""


def test_a_file_from_before_refusal_was_measured_is_as_good_for_the_rest(text, tmp_path):
    path = tmp_path / "old.json"
    path.write_text(text.replace(COLUMNS, json.dumps(list(SUMS[:6]))), encoding="utf-8")
    assert read_file(path).sums["n_refused"].sum() == 0


SHORT = '["n", "dice"]'


@pytest.mark.parametrize(
    ("figures", "message"),
    [
        ([1, 2], "cells.0: cluster 'patient000' has 2 figures, 3, 6 or 8 are needed. Write it"),
        ([1, 2, -3], "cells.0.clusters.patient000.2: Input should be greater than or equal to 0."),
        ([1, 2, float("nan")], "not valid JSON (NaN is no number of JSON). A baseline is a run"),
        ([1, 2, "x"], "cells.0.clusters.patient000.2: Input should be a valid number, unable to"),
    ],
)
def test_wrong_sums_are_explained(refused, text, figures, message):
    content = json.loads(text)
    content["cells"][0]["clusters"]["patient000"] = figures
    refused(message, whole=json.dumps(content))


def test_a_number_of_words_that_no_column_holds_is_refused(refused, text):
    content = json.loads(text)
    content["cells"][0]["n_words"] = 2**63
    refused(
        "cells.0.n_words: Input should be less than or equal to 1000000. Write it anew",
        whole=json.dumps(content),
    )
