"""What was registered before a run, and what a run did otherwise."""

import json
from dataclasses import replace

import polars as pl
import pytest

from harness.errors import UsageError
from harness.files.writing import parquet_bytes
from harness.plan.registration import (
    SEAL,
    differences,
    read_registration,
    record,
    register,
    sentence,
)
from harness.suite.schema import with_tolerances


@pytest.fixture
def made(planned):
    suite, sets, plan = planned("empty_prompt", limit=2)
    return with_tolerances(suite, [one.card for one in sets]), plan


def test_what_was_registered_comes_back(made, tmp_path):
    suite, plan = made
    held = register(tmp_path / "r.json", plan, suite, limit=2)
    assert held == read_registration(tmp_path / "r.json")
    assert (held.plan_sha256, held.n_cases, held.limit) == (plan.sha256, plan.cases.height, 2)
    assert differences(held, plan, suite, limit=2) == []
    assert sentence(record(held, [])) == (
        f"registered on {held.registered} (seal {held.seal[:12]}); run as registered"
    )


def test_every_difference_is_named(made, tmp_path):
    suite, plan = made
    held = register(tmp_path / "r.json", plan, suite, limit=2)
    fewer = replace(plan, parquet=parquet_bytes(plan.cases.head(3)))
    other = suite.model_copy(update={"seed": suite.seed + 1})
    margins = suite.statistics.model_copy(update={"draws": 77})
    sizes = f"plan: {plan.cases.height} cases were registered, 3 were planned"

    assert differences(held, fewer, suite, limit=2) == [f"{sizes}; the data or the code are others"]
    assert differences(held, fewer, suite, limit=1) == [
        "limit: 2 was registered, 1 was run",
        sizes,
    ]
    assert differences(held, plan, other, limit=2) == ["suite: seed"]
    changed = suite.model_copy(update={"statistics": margins})
    assert differences(held, plan, changed, limit=2) == ["suite: statistics"]
    assert sentence(record(held, ["suite: seed", "limit: 2"])).endswith(
        "; differs in suite: seed; limit: 2"
    )


@pytest.mark.parametrize("key", ["registered", "plan_sha256", "n_cases", "suite", "limit"])
def test_no_key_can_be_changed_afterwards(made, tmp_path, key):
    suite, plan = made
    path = tmp_path / "r.json"
    register(path, plan, suite, limit=None)
    found = json.loads(path.read_text())
    changed = {"registered": "2020-01-01", "plan_sha256": "0", "n_cases": 1, "limit": 5}
    found[key] = changed.get(key, {})
    path.write_text(json.dumps(found))
    with pytest.raises(UsageError, match="it was changed after it was sealed. The file as it was"):
        read_registration(path)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "no registration (No such file or directory). Write it with"),
        ("[]", "no registration. It has other keys than one has. Write it with"),
        ("{}", "no registration. It has other keys than one has. Write it with"),
    ],
)
def test_what_is_none_is_refused(tmp_path, content, text):
    path = tmp_path / "r.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UsageError) as refused:
        read_registration(path)
    assert str(refused.value).startswith(f"{path}: {text}")


def test_values_of_other_kinds_are_refused(made, tmp_path):
    suite, plan = made
    path = tmp_path / "r.json"
    register(path, plan, suite, limit=None)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"suite": [1]}))
    with pytest.raises(UsageError, match="Its values are of other kinds"):
        read_registration(path)


def test_a_file_is_not_written_over(made, tmp_path):
    suite, plan = made
    (tmp_path / "r.json").write_text("mine")
    with pytest.raises(UsageError, match="A registration is not written over"):
        register(tmp_path / "r.json", plan, suite, limit=None)
    assert (tmp_path / "r.json").read_text() == "mine"


def test_a_run_is_held_against_its_registration(call, toy_card, tmp_path):
    path, out = tmp_path / "r.json", tmp_path / "run"
    asked = ["empty_prompt", "--datasets", "kvasir_polyp", "--limit", "2"]
    how = ["--model", toy_card(), "--random-weights", "--device", "cpu", "--out", out, "-q"]
    code, _, err = call("plan", *asked, "--register", path, "-q")
    assert code == 0
    assert f"{path}: registered on " in err
    assert call("run", *asked, *how, "--registration", path)[0] == 0
    kept = json.loads((out / "run.json").read_text())["registration"]
    assert kept["differs"] == []
    assert kept[SEAL] == json.loads(path.read_text())[SEAL]

    asked[-1] = "1"
    how[-2] = tmp_path / "other"
    assert call("run", *asked, *how)[0] == 0
    assert call("run", *asked, *how, "--registration", path)[0] == 0
    found = json.loads((tmp_path / "other" / "run.json").read_text())["registration"]["differs"]
    assert found[0] == "limit: 2 was registered, 1 was run"
    assert found[-1] == "time: cases were evaluated before the run named it"
    # Named again, the run still began before it.
    assert call("run", *asked, *how, "--registration", path)[0] == 0
    again = json.loads((tmp_path / "other" / "run.json").read_text())["registration"]["differs"]
    assert again == found

    from harness.report.html import facts
    from harness.report.loaded import load_run

    shown = dict(facts(load_run(tmp_path / "other")))["registration"]
    assert shown.endswith("time: cases were evaluated before the run named it")
    assert pl.read_parquet(out / "summary.parquet").height > 0
