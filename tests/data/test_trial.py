"""A file that unfolds to too much is found where failing harms nobody."""

import io
import json
import subprocess
import sys

import polars as pl
import pytest

from harness.data import trial


def parquet(table):
    buffer = io.BytesIO()
    table.write_parquet(buffer)
    return buffer.getvalue()


def test_a_table_that_unfolds_too_far_dies_in_its_own_process():
    """A megabyte of zeros a thousand times; the limit is lowered instead of the test's memory."""
    content = parquet(pl.DataFrame({"zeros": pl.zeros(60_000_000, pl.Int64, eager=True)}))
    assert len(content) < 1 << 20
    program = (
        "import polars, harness.data.trial as t\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * 4096\n"
        "t.MEMORY_BYTES = used + {} * 2**20\n"
        "t.main()"
    )

    def code(mebibytes, most=1 << 30):
        said = {"sizes": [len(content)], "columns": None, "most_bytes": most}
        head = json.dumps(said).encode() + b"\n"
        command = [sys.executable, "-c", program.format(mebibytes)]
        return subprocess.run(
            command, input=head + content, capture_output=True, check=False
        ).returncode

    if not sys.platform.startswith("linux"):
        pytest.skip("the limit on memory is Linux's")
    assert code(300) != 0
    assert code(4000) == 0
    assert code(4000, 400_000_000) == 1


def test_a_text_that_a_dictionary_repeats_counts_each_time():
    table = pl.DataFrame({"text": ["x" * 10_000] * 5_000, "other": ["y"] * 5_000})
    content = parquet(table)
    assert len(content) < 100_000
    assert not trial.survives([content], most_bytes=10_000_000)
    assert trial.survives([content], most_bytes=100_000_000)
    assert trial.survives([content], most_bytes=10_000_000, columns=["other"])


def test_what_is_no_parquet_does_not_survive():
    assert not trial.survives([b"PAR1 not at all PAR1"], most_bytes=1000)


def test_time_is_bounded(monkeypatch):
    monkeypatch.setattr(trial, "SECONDS", 0.01)
    assert not trial.survives([parquet(pl.DataFrame({"a": [1]}))], most_bytes=1000)
