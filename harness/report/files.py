"""Writes an assessment into a run directory: a summary in three forms, and its verdicts.

Conventions: the summary's files hold the same rows in the same order; no file holds times. In
JSON an undefined figure is null and figures have 10 significant digits, so that equal counts
give equal files on machines whose sums round differently.
"""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import polars as pl

from harness.files.writing import Ledger, parquet_bytes
from harness.report.markdown import markdown
from harness.runs.store import CURVE
from harness.stats.assessment import VERDICTS, Assessment

SUMMARY_VERSION = 2
"""Raised whenever a column of the summary changes its name or meaning."""

_DIGITS = 10


def write_assessment(
    found: Assessment,
    folder: Path,
    *,
    title: str = "Audit of prompts",
    masks: Iterable[str] = (),
    curve: pl.DataFrame | None = None,
) -> list[Path]:
    """Write ``summary.{parquet,json,md}`` and ``verdicts.json``, all or nothing.

    `masks` are sentences on how true masks and free text were read, for the Markdown file.
    """
    contents = {
        "summary.parquet": parquet_bytes(found.summary),
        "summary.json": summary_json(found.summary).encode(),
        "summary.md": markdown(found, title=title, masks=masks, curve=curve).encode(),
        VERDICTS: verdicts_json(found).encode(),
    }
    if curve is not None:
        contents[CURVE] = parquet_bytes(curve)
    return Ledger(folder).write(contents)


def summary_json(summary: pl.DataFrame) -> str:
    """The text of ``summary.json``: a version and one object a row, columns in order."""
    rows = [{k: _jsonable(v) for k, v in row.items()} for row in summary.iter_rows(named=True)]
    content = {"version": SUMMARY_VERSION, "rows": rows}
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def verdicts_json(found: Assessment) -> str:
    """The text of ``verdicts.json``."""
    content = _rounded(found.records())
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    return [_rounded(v) for v in value] if isinstance(value, list) else _jsonable(value)


def _jsonable(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    if not math.isfinite(value):
        return None
    # Adding 0 turns -0.0, a matter of rounding, into 0.0.
    return float(f"{value:.{_DIGITS}g}") + 0.0
