"""``plan -o`` writes a plan, ``plan --diff`` says what became of its variants."""

import json
import re

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.commands.plan_diff import GROUP, KEY, KINDS, counts, difference, read_plan
from harness.errors import UsageError
from harness.plan.build import PLAN_SCHEMA
from harness.runs.store import RunStore

SUITE = ("plan", "antonym_swap", "--datasets", "kvasir_polyp")


def test_a_plan_is_written_as_a_file_or_a_folder(call, tmp_path):
    code, _, _ = call(*SUITE, "-q", "-o", tmp_path / "new" / "p.parquet")
    assert code == 0
    call(*SUITE, "-q", "--out", tmp_path / "folder")
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["p.parquet"]
    assert {p.name for p in (tmp_path / "folder").iterdir()} == {
        "plan.parquet",
        "not_applicable.parquet",
    }
    file, folder = read_plan(tmp_path / "new" / "p.parquet"), read_plan(tmp_path / "folder")
    assert file.equals(folder)
    assert file.schema == PLAN_SCHEMA


def test_equal_plans_are_the_same(call, tmp_path):
    call(*SUITE, "-q", "-o", tmp_path / "p.parquet")
    code, out, _ = call(*SUITE, "--diff", tmp_path / "p.parquet")
    assert code == 0
    n_cases = read_plan(tmp_path / "p.parquet").height
    assert re.fullmatch(rf"the plans are the same: {n_cases} cases\nplan [0-9a-f]{{64}}\n", out)


def test_what_changed_is_counted_and_shown(call, photo_rows, tmp_path):
    """A larger polyp, a new prompt and a lost row."""
    rows, write = photo_rows
    call(*SUITE, "-q", "-o", tmp_path / "p.parquet")
    text = rows[0]["prompts"]["p6"]
    rows[0]["prompts"]["p6"] = text.replace("small", "large")
    rows.pop()
    write()

    code, out, _ = call(*SUITE, "--diff", tmp_path / "p.parquet")

    assert code == 0
    assert re.search(r"variants: \d+ same, 0 added, \d+ removed, \d+ changed", out)
    assert "changed: original" in out
    assert "test_0.png: one [-small-] pink round polyp" in out
    assert "-> one {+large+} pink round polyp" in out
    assert "removed: original" in out


def test_json_holds_every_change(call, tmp_path):
    call(*SUITE, "-q", "--limit", "5", "-o", tmp_path / "p.parquet")
    _, out, _ = call(*SUITE, "--json", "--diff", tmp_path / "p.parquet")
    diff = json.loads(out)["diff"]
    assert {v["kind"] for v in diff["variants"]} == {"added"}
    assert {v["sample_id"] for v in diff["variants"]} == {"test_5.png"}
    assert sum(c["added"] for c in diff["counts"]) == len(diff["variants"])


def test_a_plan_may_be_compared_with_the_file_it_replaces(call, tmp_path):
    path = tmp_path / "p.parquet"
    call(*SUITE, "-q", "--limit", "5", "-o", path)
    _, out, _ = call(*SUITE, "--json", "--diff", path, "-o", path)
    assert json.loads(out)["diff"]["variants"]
    _, out, _ = call(*SUITE, "--json", "--diff", path)
    assert json.loads(out)["diff"]["variants"] == []


def test_a_run_holds_a_plan(call, planned, tmp_path):
    suite, _, plan = planned("antonym_swap")
    RunStore(tmp_path / "run").open(plan, suite)
    _, out, _ = call(*SUITE, "--diff", tmp_path / "run")
    assert "the plans are the same" in out


@pytest.mark.parametrize("content", [None, b"PAR1 no parquet", "other"])
def test_what_is_no_plan_is_refused(call, tmp_path, content):
    path = tmp_path / "p.parquet"
    if content == "other":
        pl.DataFrame({"a": [1]}).write_parquet(path)
    elif content is not None:
        path.write_bytes(content)
    code, _, err = call(*SUITE, "-q", "--diff", path)
    assert code == 2
    expected = "no such plan. A plan.parquet, or the folder of a plan or run, is needed."
    assert (expected if content is None else "no plan of this version (") in err


def test_a_missing_plan_says_how_to_write_one(tmp_path):
    with pytest.raises(UsageError, match=r"Write one with `vlsm-harness plan SUITE -o FILE`\.$"):
        read_plan(tmp_path)


def plan_frame(cases):
    """A plan of (sample, probe, attribute, repeat) -> text."""
    rows = [
        dict.fromkeys(PLAN_SCHEMA)
        | {
            "case_id": abs(hash((key, text))) % 2**63,
            "dataset": "d", "split": "test", "prompts": "released", "prompt_type": "p6",
            "sample_id": key[0], "probe": key[1], "attribute": key[2], "repeat": key[3],
            "prompt_index": 0, "prompt": text,
        }
        for key, text in cases.items()
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=PLAN_SCHEMA, orient="row")


keys = st.tuples(
    st.sampled_from(["a", "b"]),
    st.sampled_from(["swap", "empty"]),
    st.sampled_from([None, "size"]),
    st.integers(0, 1),
)
plans = st.dictionaries(keys, st.sampled_from(["x", "y"]), max_size=8)


@given(plans, plans)
def test_a_difference_agrees_with_its_definition(old, new):
    found = difference(plan_frame(old), plan_frame(new))

    seen = {
        (row["sample_id"], row["probe"], row["attribute"], row["repeat"]): (
            row["kind"], row["old"], row["new"], row["columns"],
        )
        for row in found.iter_rows(named=True)
    }  # fmt: skip
    expected = {}
    for key in old.keys() | new.keys():
        before, after = old.get(key), new.get(key)
        if before is None or after is None:
            kind = "added" if before is None else "removed"
            expected[key] = (kind, before, after, None)
        elif before == after:
            expected[key] = ("same", before, after, [])
        else:
            expected[key] = ("changed", before, after, ["prompt"])
    assert seen == expected


@given(plans, plans)
def test_counts_add_up(old, new):
    found = difference(plan_frame(old), plan_frame(new))
    counted = counts(found)
    totals = {kind: int(counted[kind].sum()) for kind in KINDS}
    assert totals["same"] + totals["changed"] + totals["removed"] == len(old)
    assert totals["same"] + totals["changed"] + totals["added"] == len(new)
    assert counted.select(GROUP).is_unique().all()
    assert found.select(KEY).is_unique().all()
