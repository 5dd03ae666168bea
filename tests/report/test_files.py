"""The files of an assessment."""

import json
import math
import re

import polars as pl
import pytest

from harness.errors import RunError
from harness.files.writing import SUMS, Ledger
from harness.report.files import summary_json, write_assessment
from harness.report.markdown import markdown
from harness.stats.assessment import Assessment
from harness.stats.language import LanguageVerdict
from harness.stats.verdicts import Verdict

VERDICT = Verdict(
    model_id="small@1a2b", model="small", dataset="kvasir_polyp", split="test", prompts="released",
    prompt_type="p6", probe="synonym", attribute="size", perturbation="synonym",
    meaning="preserved", kind="invariance", of="relative_change", accepted_low=-3.0,
    accepted_high=3.0, binding=True, verdict="holds", reason="It stays.", p_value=1 / 3,
)  # fmt: skip
LANGUAGE = LanguageVerdict(
    "small@1a2b", "small", "kvasir_polyp", "released", "p6", "cannot tell", "steady", "Why.", False
)


def test_the_files_hold_the_assessment(summary, assessment, tmp_path):
    found = assessment(summary, verdicts=[VERDICT], language=[LANGUAGE])
    paths = write_assessment(found, tmp_path, title="Paper")

    names = ["summary.parquet", "summary.json", "summary.md", "verdicts.json"]
    assert [p.name for p in paths] == names
    assert pl.read_parquet(paths[0]).equals(summary)
    rows = json.loads(paths[1].read_text(encoding="utf-8"))["rows"]
    assert len(rows) == summary.height
    assert list(rows[0]) == summary.columns
    assert paths[2].read_text(encoding="utf-8") == markdown(found, title="Paper")
    assert sorted(tmp_path.iterdir()) == sorted([*paths, tmp_path / SUMS])
    content = json.loads(paths[3].read_text(encoding="utf-8"))
    assert set(content) == {"version", "signature", "language", "expectations"}
    assert content["expectations"][0]["p_value"] == 0.3333333333
    assert content["expectations"][0]["flips_at"] is None


def test_what_was_written_can_be_read(summary, assessment, tmp_path):
    found = assessment(summary, verdicts=[VERDICT], language=[LANGUAGE])
    write_assessment(found, tmp_path)
    again = Assessment.read(tmp_path)
    assert again.summary.equals(found.summary)
    assert again.language == found.language
    assert again.verdicts[0].record() | {"p_value": 1 / 3} == VERDICT.record()
    assert again.signature == found.signature


def test_a_folder_without_verdicts_says_how_to_get_them(tmp_path):
    message = (
        f"{tmp_path}: no verdicts.json here. A run directory with its verdicts is needed. "
        "Summarise the run first: `vlsm-harness score RUN`."
    )
    with pytest.raises(RunError, match="^" + re.escape(message) + "$"):
        Assessment.read(tmp_path)


def test_verdicts_of_another_version_are_refused(tmp_path):
    Ledger(tmp_path).write({"summary.parquet": b"", "verdicts.json": b'{"version": 99}'})
    message = "verdicts.json: version 99, this harness reads version 1. Both must be one."
    with pytest.raises(RunError, match=re.escape(message)):
        Assessment.read(tmp_path)


@pytest.mark.parametrize("name", ["summary.parquet", "verdicts.json"])
def test_an_edited_summary_is_refused(summary, assessment, tmp_path, name):
    write_assessment(assessment(summary), tmp_path)
    path = tmp_path / name
    path.write_bytes(path.read_bytes() + b" ")
    message = (
        f"{path}: damaged or edited: its SHA-256 is not the one in written.sha256. A summary is "
        f"read only as it was written. Write it anew: `vlsm-harness score {tmp_path}`."
    )
    with pytest.raises(RunError, match="^" + re.escape(message) + "$"):
        Assessment.read(tmp_path)


def test_writing_again_gives_the_same_bytes_and_replaces(summary, assessment, tmp_path):
    first = [p.read_bytes() for p in write_assessment(assessment(summary), tmp_path)]
    second = [p.read_bytes() for p in write_assessment(assessment(summary), tmp_path)]

    assert first == second


def test_undefined_figures_are_null_in_json(summary):
    rows = json.loads(summary_json(summary))["rows"]

    assert rows[0]["relative_change_percent"] is None
    assert rows[0]["attribute"] is None
    assert rows[2]["notes"] == ["for these words only"]
    assert rows[-1]["n_cases"] is None


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.1 + 0.2, "0.3"), (-1e-320 * 0, "0.0"), (1 / 3, "0.3333333333"), (math.inf, "null"),
     (123456.789012345, "123456.789")],
)  # fmt: skip
def test_figures_have_ten_digits(summary_of, value, text):
    line = next(x for x in summary_json(summary_of({"dice": value})).splitlines() if '"dice"' in x)

    assert line.strip() == f'"dice": {text},'


def test_json_says_its_version_and_no_times(summary):
    content = json.loads(summary_json(summary))

    assert content["version"] == 2
    assert set(content) == {"version", "rows"}
    assert not [c for c in summary.columns if "time" in c or "seconds" in c]
