"""A plan as a file: its cases, and what is needed to answer or score it elsewhere.

Conventions: ``plan.parquet`` holds the cases (`PLAN_SCHEMA`); in the file's own metadata, under
`ORIGIN`, stands as JSON from what it was made: the suite, its folder, the data root, the limit,
and the plan's hash. The plan itself knows no machine; a data root that moved is given anew.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from harness.errors import UsageError
from harness.files.canonical import parse_json
from harness.files.writing import joined_parquet, write_bytes
from harness.plan.build import Plan
from harness.suite.schema import Suite

ORIGIN = "vlsm_plan"
_AGAIN = "Write it with `vlsm-harness plan SUITE -o plan.parquet`."


@dataclass(frozen=True)
class Origin:
    """What a plan was made from."""

    suite: Suite
    data_root: Path
    limit: int | None
    plan_sha256: str


def plan_bytes(plan: Plan, suite: Suite, *, data_root: Path, limit: int | None) -> bytes:
    """The content of a plan's file."""
    origin = {
        "suite": suite.model_dump(mode="json", exclude_none=True),
        "folder": None if suite.folder is None else str(suite.folder.absolute()),
        "data_root": str(data_root.absolute()),
        "limit": limit,
        "plan_sha256": plan.sha256,
    }
    return joined_parquet([plan.parquet], metadata={ORIGIN: json.dumps(origin)})


def write_plan(path: Path, plan: Plan, suite: Suite, *, data_root: Path, limit: int | None) -> None:
    """Write a plan's file, all or nothing.

    Raises:
        RunError: The disk refuses it.
    """
    write_bytes(path, plan_bytes(plan, suite, data_root=data_root, limit=limit))


def read_origin(path: Path) -> Origin:
    """What a plan was made from: its file, or the folder it lies in.

    Raises:
        UsageError: There is no plan, or it does not say what it was made from.
    """
    file = path / "plan.parquet" if path.is_dir() else path
    if not file.is_file():
        raise UsageError(f"{file}: no such plan. A plan's file is needed. {_AGAIN}")
    try:
        said = pl.read_parquet_metadata(file).get(ORIGIN)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as problem:
        raise UsageError(f"{file}: no plan ({str(problem)[:200]}). {_AGAIN}") from None
    if said is None:
        raise UsageError(
            f"{file}: the plan does not say from which suite and data it was made, as those of "
            f"earlier versions do not. It must, to be scored. {_AGAIN}"
        )
    found = parse_json(said.encode("utf-8", "replace"), file, error=UsageError, repair=_AGAIN)
    return _origin(found, file)


def _origin(found: Any, where: Path) -> Origin:
    wanted = {"suite": dict, "data_root": str, "plan_sha256": str}
    is_whole = isinstance(found, Mapping) and all(
        isinstance(found.get(key), kind) for key, kind in wanted.items()
    )
    limit, folder = (found.get("limit"), found.get("folder")) if is_whole else (None, None)
    if (
        not is_whole
        or type(limit) not in (int, type(None))
        or type(folder) not in (str, type(None))
    ):
        raise UsageError(f"{where}: what the plan was made from cannot be read. {_AGAIN}")
    try:
        suite = Suite.model_validate(found["suite"])
    except ValueError as problem:
        first = str(problem).splitlines()[0][:200]
        raise UsageError(f"{where}: the suite of the plan is none ({first}). {_AGAIN}") from None
    placed = suite.placed(Path(folder)) if folder else suite
    return Origin(placed, Path(found["data_root"]), limit, found["plan_sha256"])
