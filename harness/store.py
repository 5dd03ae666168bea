"""The run directory: a plan, the scores of its cases, and how they were made.

Conventions: a part file holds the whole image groups of one shard for one model;
it is written under a temporary name and renamed, so that a part is there in full
or not at all. Counts are pixels. Nothing is pickled.
"""

import contextlib
import itertools
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from harness.errors import RunError
from harness.plan import NOT_APPLICABLE_SCHEMA, PLAN_SCHEMA, Plan
from harness.suites import Suite
from harness.writing import TEMPORARY, is_whole, remove_leftovers, write_bytes, writing
from harness.writing import write_json as write_json
from harness.writing import write_parquet as write_parquet

SCORE_SCHEMA = pl.Schema(
    {
        "model_id": pl.String,
        "case_id": pl.UInt64,
        "tp": pl.Int64,
        "n_pred": pl.Int64,
        "n_gt": pl.Int64,
        "tp_original": pl.Int64,
        "n_pred_original": pl.Int64,
        "tp_named": pl.Int64,
        "n_named": pl.Int64,
        "height": pl.Int32,
        "width": pl.Int32,
        "status": pl.String,
        "error": pl.String,
        "iou": pl.Float64,
        "hausdorff_px": pl.Float64,
        "hd95_px": pl.Float64,
        "nsd": pl.Float64,
    }
)
DONE, FAILED = "done", "failed"

# What fixes the counts of a model bit for bit; a run holds one value of each.
FIXED = ("device", "precision", "batch_size", "shard_size")


@dataclass(frozen=True)
class RunStore:
    """One run directory."""

    folder: Path

    @property
    def manifest(self) -> dict[str, Any]:
        """The content of ``run.json``; empty before the run was created."""
        path = self.folder / "run.json"
        try:
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except json.JSONDecodeError as problem:
            raise RunError(
                f"{path}: not valid JSON ({problem}). The file is written by the harness alone. "
                "Start again with --fresh."
            ) from None
        return found

    def update(self, **entries: Any) -> None:
        """Replace top-level entries of ``run.json``, in one atomic step."""
        write_json(self.folder / "run.json", self.manifest | entries)

    def open(self, plan: Plan, suite: Suite, **facts: Any) -> None:
        """Create the run, or continue it when it holds the same plan and metric.

        Raises:
            RunError: The directory holds another plan, another metric, or
                something that is no run.
        """
        before = self.manifest
        if not before and self.folder.is_dir() and any(self._foreign()):
            raise RunError(
                f"{self.folder}: the folder holds other files and no run.json. A new or empty "
                "folder, or a run, is needed. Choose another --out."
            )
        for key, now in (
            ("plan_sha256", plan.sha256),
            ("metric", suite.metric.model_dump(mode="json")),
            ("data_sha256", facts.get("data_sha256")),
        ):
            if before and before.get(key) != now:
                raise RunError(
                    f"{self.folder}: {key} of this run is {before.get(key)!r}, the command gives "
                    f"{now!r}. A run holds one plan, metric and data. Choose another --out, or "
                    "start again with --fresh."
                )
        with writing(self.folder):
            (self.folder / "scores").mkdir(parents=True, exist_ok=True)
        for folder in (self.folder, self.folder / "scores", self.folder / "texts"):
            remove_leftovers(folder)
        for name in ("plan", "not_applicable"):
            path = self.folder / f"{name}.parquet"
            # The same plan is at hand, so that a damaged file of it costs nothing.
            if not before or not is_whole(path):
                write_parquet(path, plan.cases if name == "plan" else plan.not_applicable)
        lock = suite.model_dump(mode="json", exclude_none=True)
        write_bytes(
            self.folder / "suite.lock.yaml",
            yaml.safe_dump(lock, sort_keys=False, allow_unicode=True).encode(),
        )
        self.update(
            plan_sha256=plan.sha256,
            metric=suite.metric.model_dump(mode="json"),
            sources=dict(plan.sources),
            **facts,
        )

    def _foreign(self) -> Iterator[Path]:
        own = {"plan.parquet", "not_applicable.parquet", "scores", "suite.lock.yaml", ".lock"}
        return (
            path
            for path in self.folder.iterdir()
            if path.name not in own and not path.name.endswith(TEMPORARY)
        )

    def add_model(self, entry: Mapping[str, Any]) -> None:
        """Record a model of the run.

        Raises:
            RunError: The model stands in the run with another device type,
                precision or batch size: its counts could differ in single pixels.
        """
        models = list(self.manifest.get("models", []))
        for index, known in enumerate(models):
            if known["model_id"] != entry["model_id"]:
                continue
            for key in FIXED:
                if known.get(key) != entry.get(key):
                    raise RunError(
                        f"{self.folder}: {entry['name']} was run with {key} {known.get(key)!r}, "
                        f"now it is {entry.get(key)!r}. A run keeps one {key} per model. Give the "
                        "same one, choose another --out, or start again with --fresh."
                    )
            models[index] = {**known, **entry}
            self.update(models=models)
            return
        self.update(models=[*models, dict(entry)])

    def plan_cases(self) -> pl.DataFrame:
        """The stored plan, one row a case."""
        return pl.read_parquet(self.folder / "plan.parquet").cast(PLAN_SCHEMA)

    def plan_scan(self) -> pl.LazyFrame:
        """The stored plan, read column by column where it is used."""
        return pl.scan_parquet(self.folder / "plan.parquet")

    def not_applicable(self) -> pl.DataFrame:
        """What did not apply, counted by reason."""
        path = self.folder / "not_applicable.parquet"
        found = pl.read_parquet(path)
        if "prompts" not in found.columns:  # an earlier version knew the released ones alone
            found = found.with_columns(prompts=pl.lit("released"))
        return found.select(NOT_APPLICABLE_SCHEMA.names()).cast(NOT_APPLICABLE_SCHEMA)

    def texts(self) -> pl.DataFrame:
        """How the plan's texts reach each model: its table of `harness.engine.texts`, if any."""
        parts = [
            pl.read_parquet(path).with_columns(model_id=pl.lit(path.stem))
            for path in sorted((self.folder / "texts").glob("*.parquet"))
            if is_whole(path)
        ]
        # An earlier version wrote a row per text and nothing about edits.
        whole = [part for part in parts if "edit_survives" in part.columns]
        return pl.concat(whole, how="diagonal") if whole else pl.DataFrame()

    def suite(self) -> Suite:
        """The resolved suite of the run."""
        text = (self.folder / "suite.lock.yaml").read_text(encoding="utf-8")
        return Suite.model_validate(yaml.safe_load(text))

    def write_part(self, model_id: str, shard: int, scores: pl.DataFrame) -> None:
        """Write the scores of one shard; a retry stands beside the first attempt."""
        folder = self.folder / "scores"
        # Asking for names, not listing the folder: a run of millions of images has many parts.
        names = (folder / f"part-{model_id}-{shard:06d}-{n}.parquet" for n in itertools.count())
        write_parquet(next(path for path in names if not path.exists()), scores)

    def set_damaged_aside(self) -> list[Path]:
        """Move parts that were cut short to ``damaged/``, so that their shards are run again.

        Returns:
            Where they are now.
        """
        moved = []
        with writing(self.folder):
            for path in sorted((self.folder / "scores").glob("part-*.parquet")):
                if is_whole(path):
                    continue
                (self.folder / "damaged").mkdir(exist_ok=True)
                moved.append(self.folder / "damaged" / path.name)
                path.replace(moved[-1])
        return moved

    def settled_shards(self, model_id: str) -> dict[int, int]:
        """Shards of which every case succeeded, with their cases; the others are (re)tried."""
        settled = {}
        for path in sorted((self.folder / "scores").glob(f"part-{model_id}-*.parquet")):
            status = pl.read_parquet(path, columns=["status"])["status"]
            if (status == DONE).all():
                settled[int(path.stem.split("-")[-2])] = len(status)
        return settled

    def scores(self) -> pl.DataFrame:
        """One row per (model, case): a success beats an error.

        Raises:
            RunError: Two successes of one case differ.
        """
        return self._merged(self._parts()).sort("model_id", "case_id")

    def _parts(self) -> list[Path]:
        paths = sorted((self.folder / "scores").glob("part-*.parquet"))
        for path in paths:
            if not is_whole(path):
                raise RunError(
                    f"{path}: the file is cut short or damaged. A part holds the scores of whole "
                    "images. Issue the command of the run again: it sets the part aside and "
                    "evaluates its images anew."
                )
        return paths

    def scores_scan(self) -> pl.LazyFrame:
        """The same rows in any order, read where they are used.

        A case belongs to one shard, so that only shards that were tried more than once have
        anything to merge.

        Raises:
            RunError: Two successes of one case differ.
        """
        tries: dict[str, list[Path]] = {}
        for path in self._parts():
            tries.setdefault(path.stem.rpartition("-")[0], []).append(path)
        once = [paths[0] for paths in tries.values() if len(paths) == 1]
        frames = [self._merged(paths).lazy() for paths in tries.values() if len(paths) > 1]
        if once:
            parts = pl.scan_parquet(
                once, schema=SCORE_SCHEMA, missing_columns="insert", extra_columns="ignore"
            )
            frames.append(parts.select(SCORE_SCHEMA.names()))
        return pl.concat([pl.LazyFrame(schema=SCORE_SCHEMA), *frames])

    def _merged(self, paths: Sequence[Path]) -> pl.DataFrame:
        if not paths:
            return pl.DataFrame(schema=SCORE_SCHEMA)
        rows = pl.concat([_with_all_columns(pl.read_parquet(path)) for path in paths])
        rows = rows.unique(maintain_order=True)
        done = rows.filter(pl.col("status") == DONE)
        doubled = done.filter(pl.struct("model_id", "case_id").is_duplicated())
        if doubled.height:
            first = doubled.row(0, named=True)
            raise RunError(
                f"{self.folder}: case {first['case_id']} of {first['model_id']} has two unequal "
                "scores. A case has one score per model. The model or its hardware is not "
                "deterministic: start again with --fresh."
            )
        return rows.sort(
            "model_id", "case_id", pl.col("status") == FAILED, maintain_order=True
        ).unique(["model_id", "case_id"], keep="first", maintain_order=True)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for one process.

        Raises:
            RunError: Another process works on this run.
        """
        import fcntl

        with contextlib.ExitStack() as stack:
            with writing(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
                handle = stack.enter_context((self.folder / ".lock").open("w"))
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunError(
                    f"{self.folder}: another process works on this run. One process at a time may "
                    "write to it. Wait for it, or choose another --out."
                ) from None
            yield

    def set_aside(self) -> Path | None:
        """Move an existing run out of the way (``--fresh``); nothing is deleted.

        Raises:
            RunError: Another process works on this run.
        """
        if not self.folder.exists():
            return None
        with self.locked():
            return self._moved()

    def _moved(self) -> Path:
        number = 1
        while (aside := self.folder.with_name(f"{self.folder.name}.old{number}")).exists():
            number += 1
        shutil.move(self.folder, aside)
        return aside


def _with_all_columns(part: pl.DataFrame) -> pl.DataFrame:
    """A part as this version writes it; an earlier one did not have every optional column."""
    missing = [name for name in SCORE_SCHEMA if name not in part.columns]
    blank = part.with_columns(pl.lit(None).alias(name) for name in missing)
    return blank.select(SCORE_SCHEMA.names()).cast(SCORE_SCHEMA)
