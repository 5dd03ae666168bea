"""The run directory: a plan, the scores of its cases, and how they were made.

Conventions: a part file holds the whole image groups of one shard for one model;
it is written under a temporary name and renamed, so that a part is there in full
or not at all. Counts are pixels. Nothing is pickled. What is read back is what was written:
`harness.files.writing.Ledger` holds the hash of every file, ``run.json`` that of its own
content, and both are looked at before anything is decoded.
"""

import contextlib
import glob
import itertools
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from harness.errors import RunError
from harness.files.writing import (
    SUMS,
    TEMPORARY,
    Ledger,
    make_folder,
    parquet_bytes,
    remove_leftovers,
    replace_together,
    sealed,
    unsealed,
    writing,
)
from harness.plan.build import NOT_APPLICABLE_SCHEMA, PLAN_SCHEMA, Plan
from harness.suite.schema import Suite

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
NO_ANSWER = "no answer: the model gave no mask, and an empty one is scored"
"""The ``error`` of a case that is done all the same."""

THRESHOLDS = tuple(round(0.05 * n, 2) for n in range(1, 20))
"""Thresholds at which cases are counted where a run asks for it."""

CURVE = "thresholds.parquet"
CURVE_SCHEMA = pl.Schema(
    {"case_id": pl.UInt64(), "n_pred": pl.List(pl.UInt32), "tp": pl.List(pl.UInt32)}
)

# What fixes the counts of a model bit for bit; a run holds one value of each.
TABLES = ("repeats", "speeds")
"""Folders with a table a shard: counts of both halves of a sampling model's answers, and what two
speeds did (`harness.engine.two_speed`)."""

FIXED = ("device", "precision", "backend", "batch_size", "shard_size", "thresholds")

# Which samples show what: a row a sample, with the hash of its picture and mask.
DATA_KEYS = ("dataset", "split", "sample_id")
DATA = "data.parquet"
_COPY = ".run.json"
_ONE = "A run holds one plan, metric and data. Choose another --out, or start again with --fresh."


@dataclass(frozen=True)
class RunStore:
    """One run directory."""

    folder: Path

    @cached_property
    def ledger(self) -> Ledger:
        """The hashes of the run's files."""
        return Ledger(self.folder)

    def file(self, name: str) -> Path:
        """A file of the run that is what was written.

        Raises:
            RunError: It is damaged, edited, missing or another run's.
        """
        if problem := self.ledger.problem(name):
            repair = "writes the file anew"
            if name.startswith("scores/"):
                repair = "sets the part aside and evaluates its images anew"
            raise RunError(
                f"{self.folder / name}: {problem}. A file is read only as the run wrote it. "
                f"Issue the command of the run again: it {repair}."
            )
        return self.folder / name

    @property
    def manifest(self) -> dict[str, Any]:
        """The content of ``run.json``; empty before the run was created.

        Raises:
            RunError: It is not what was written.
        """
        path = self.folder / "run.json"
        try:
            found = unsealed(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except OSError as problem:
            raise RunError(
                f"{path}: cannot be read ({problem.strerror}). The record of a run is needed. "
                "Make it readable, or give the folder of another run."
            ) from None
        if found is None:
            raise RunError(
                f"{path}: damaged or edited, or written by a version without hashes. It is read "
                "only as this version wrote it. Issue the command of the run again: it restores "
                "the file from its copy; where there is none, start again with --fresh."
            )
        return found

    def update(self, **entries: Any) -> None:
        """Replace top-level entries of ``run.json``, in one atomic step."""
        content = sealed(self.manifest | entries)
        # The copy first: a process that is killed in between has not begun the run.
        replace_together({self.folder / _COPY: content, self.folder / "run.json": content})

    def begin(self, cases: pl.DataFrame) -> None:
        """Write a plan alone, for a run that is thrown away and needs no record."""
        make_folder(self.folder / "scores")
        self.ledger.write({"plan.parquet": parquet_bytes(cases)})

    def open(
        self,
        plan: Plan,
        suite: Suite,
        *,
        data: pl.DataFrame | None = None,
        say: Callable[[str], None] = lambda _: None,
        **facts: Any,
    ) -> None:
        """Create the run, or continue it when it holds the same plan, metric and data.

        Files that are damaged are written anew or set aside. Pictures and masks may have been
        repaired since, if no case of theirs succeeded before.

        Args:
            plan: What is evaluated.
            suite: What it was made of.
            data: `DATA_KEYS` and ``sha256``, a row a sample.
            say: Called with a sentence on each file that is not what it should be.
            facts: Further entries of ``run.json``; with `data` also ``data_sha256``.

        Raises:
            RunError: The directory holds another plan, metric or data, or something that is no
                run.
        """
        self._restore(say)
        before = self.manifest
        if not before and self.folder.is_dir() and any(self._foreign()):
            raise RunError(
                f"{self.folder}: the folder holds other files and no run.json. A new or empty "
                "folder, or a run, is needed. Choose another --out."
            )
        metric = suite.metric.model_dump(mode="json")
        if before and before.get("plan_sha256") != plan.sha256:
            self._refuse_suite(before, suite, facts)
        self._refuse_other(before, "metric", metric)
        is_same = not before or before.get("data_sha256") == facts.get("data_sha256")
        changed = None if is_same else self._changed(before, data, facts)
        if changed is None:
            self._refuse_other(before, "plan_sha256", plan.sha256)
        make_folder(self.folder / "scores")
        for folder in (self.folder, self.folder / "scores", self.folder / "texts"):
            remove_leftovers(folder)
        for note in self._damaged_aside(is_begun=bool(before)):
            say(note)
        for note in () if changed is None else self._repaired(before, plan, changed):
            say(note)
        for note in self._write_inputs(plan, suite, data, is_same=bool(before) and changed is None):
            say(note)
        self.update(plan_sha256=plan.sha256, metric=metric, sources=dict(plan.sources), **facts)

    def _refuse_suite(
        self, before: Mapping[str, Any], suite: Suite, facts: Mapping[str, Any]
    ) -> None:
        """Say in which words of the suite, or in which limit, two plans differ."""
        try:
            held = self.suite()
        except RunError:  # damaged: it is written anew, once the hashes are compared
            return
        old, new = (one.model_dump(mode="json") for one in (held, suite))
        keys = [key for key in new if key not in ("name", "title") and old.get(key) != new[key]]
        if before.get("limit") != facts.get("limit"):
            keys.append(f"limit ({before.get('limit')} and {facts.get('limit')})")
        if not keys:
            return
        other = "another form of it" if held.name == suite.name else repr(suite.name)
        raise RunError(
            f"{self.folder}: this run is of the suite {held.name!r}, the command gives {other}. "
            f"They differ in: {', '.join(keys)}. {_ONE}"
        )

    def _refuse_other(self, before: Mapping[str, Any], key: str, now: Any) -> None:
        if before and before.get(key) != now:
            raise RunError(
                f"{self.folder}: {key} of this run is {before.get(key)!r}, the command gives "
                f"{now!r}. {_ONE}"
            )

    def _restore(self, say: Callable[[str], None]) -> None:
        """Put the copy of ``run.json`` in the place of a damaged one."""
        path, copy = self.folder / "run.json", self.folder / _COPY
        if not (path.is_file() and copy.is_file()):
            return
        whole = copy.read_bytes()
        if unsealed(path.read_bytes()) is None and unsealed(whole) is not None:
            replace_together({path: whole})
            say("run.json was damaged or edited and is restored from its copy.")

    def _changed(
        self, before: Mapping[str, Any], data: pl.DataFrame | None, facts: Mapping[str, Any]
    ) -> pl.DataFrame:
        """The samples whose picture or mask is not what it was; all others are the same."""
        if data is None or self.ledger.problem(DATA):
            self._refuse_other(before, "data_sha256", facts.get("data_sha256"))
        old = pl.read_parquet(self.file(DATA))
        assert data is not None, "refused above"
        if not old.select(DATA_KEYS).equals(data.select(DATA_KEYS)):
            self._refuse_other(before, "data_sha256", facts.get("data_sha256"))
        return data.filter(old["sha256"] != data["sha256"]).select(DATA_KEYS)

    def _repaired(
        self, before: Mapping[str, Any], plan: Plan, changed: pl.DataFrame
    ) -> Iterator[str]:
        """Set the parts aside in which cases of changed samples failed.

        Raises:
            RunError: A case of theirs succeeded, or the plan differs in others.
        """
        known = [plan.scan()]
        if not self.ledger.problem("plan.parquet"):
            known.append(self.plan_scan())
        keys = pl.concat(one.select("case_id", *DATA_KEYS) for one in known).unique("case_id")
        touched = keys.join(changed.lazy(), on=DATA_KEYS, how="semi").collect()
        done = self.scores().filter(pl.col("status") == DONE)
        late = touched.join(done, on="case_id", how="semi").select(DATA_KEYS)
        late = late.unique().sort(DATA_KEYS)
        if late.height:
            names = ", ".join("/".join(row) for row in late.head(3).iter_rows())
            more = f" and {late.height - 3} more" if late.height > 3 else ""
            raise RunError(
                f"{self.folder}: picture or mask of {names}{more} changed after their cases were "
                f"evaluated. {_ONE.partition('. ')[0]}. Put the old files back, choose another "
                "--out, or start again with --fresh."
            )
        planned = plan.scan().select("case_id").collect()["case_id"]
        if not done["case_id"].is_in(planned.implode()).all():
            self._refuse_other(before, "plan_sha256", plan.sha256)
        for name in self.part_names():
            ids = pl.read_parquet(self.file(name), columns=["case_id"])["case_id"]
            # Their neighbours share the part, and are evaluated with them in any case.
            if (ids.is_in(touched["case_id"].implode()) | ~ids.is_in(planned.implode())).any():
                yield f"{name} held samples that were repaired; {self._aside(name)}."

    def _write_inputs(
        self, plan: Plan, suite: Suite, data: pl.DataFrame | None, *, is_same: bool
    ) -> list[str]:
        """Write what the run is made of, where it is not there as it should be."""
        lock = suite.model_dump(mode="json", exclude_none=True)
        text = yaml.safe_dump(lock, sort_keys=False, allow_unicode=True)
        tables = {
            "plan.parquet": plan.parquet,
            "not_applicable.parquet": parquet_bytes(plan.not_applicable),
        }
        tables |= {} if data is None else {DATA: parquet_bytes(data)}
        # The same content is at hand, so that a damaged file of it costs nothing.
        problems = {name: self.ledger.problem(name) for name in (*tables, "suite.lock.yaml")}
        contents = {n: table for n, table in tables.items() if problems[n] or not is_same}
        self.ledger.write(contents | {"suite.lock.yaml": text.encode()})
        told = [(name, problem) for name, problem in problems.items() if problem and is_same]
        return [f"{name} was {problem}; it is written anew." for name, problem in told]

    def _foreign(self) -> Iterator[Path]:
        own = {"plan.parquet", "not_applicable.parquet", "scores", "suite.lock.yaml", ".lock"}
        own |= {"curves", *TABLES}
        own |= {DATA, SUMS, _COPY}
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
            # Earlier runs have no such key, and had no other backend.
            then, now = ({"backend": "torch", **one} for one in (known, entry))
            for key in FIXED:
                if then.get(key) != now.get(key):
                    raise RunError(
                        f"{self.folder}: {entry['name']} was run with {key} {then.get(key)!r}, "
                        f"now it is {now.get(key)!r}. A run keeps one {key} per model. Give the "
                        "same one, choose another --out, or start again with --fresh."
                    )
            models[index] = {**known, **entry}
            self.update(models=models)
            return
        self.update(models=[*models, dict(entry)])

    def drop_model(self, model_id: str) -> Path:
        """Take a model out of the run; returns the folder to which its parts and masks move."""
        place = make_folder(self.folder / "replaced" / model_id)
        names = [*self.part_names(model_id), f"masks/{model_id}", f"masks/{model_id}.parquet"]
        with writing(place):
            for path in (self.folder / name for name in names):
                if path.exists():
                    shutil.move(path, place / path.name)
        models = self.manifest.get("models", [])
        self.update(models=[known for known in models if known["model_id"] != model_id])
        return place

    def keeps_thresholds(self, model_id: str) -> bool:
        """Whether cases of a model are counted at `THRESHOLDS`."""
        entries = self.manifest.get("models", [])
        return any(m["model_id"] == model_id and m.get("thresholds") for m in entries)

    def plan_cases(self) -> pl.DataFrame:
        """The stored plan, one row a case."""
        return pl.read_parquet(self.file("plan.parquet")).cast(PLAN_SCHEMA)

    def plan_scan(self) -> pl.LazyFrame:
        """The stored plan, read column by column where it is used."""
        return pl.scan_parquet(self.file("plan.parquet"))

    def not_applicable(self) -> pl.DataFrame:
        """What did not apply, counted by reason."""
        return pl.read_parquet(self.file("not_applicable.parquet")).cast(NOT_APPLICABLE_SCHEMA)

    def texts(self) -> pl.DataFrame:
        """How the plan's texts reach each model: its table of `harness.engine.texts`, if any."""
        ids = dict.fromkeys(entry["model_id"] for entry in self.manifest.get("models", []))
        names = {key: f"texts/{key}.parquet" for key in ids}
        parts = [
            pl.read_parquet(self.file(name)).with_columns(model_id=pl.lit(key))
            for key, name in names.items()
            if self.ledger.knows(name)
        ]
        return pl.concat(parts, how="diagonal") if parts else pl.DataFrame()

    def suite(self) -> Suite:
        """The resolved suite of the run."""
        text = self.file("suite.lock.yaml").read_text(encoding="utf-8")
        return Suite.model_validate(yaml.safe_load(text))

    def write_part(
        self,
        model_id: str,
        shard: int,
        scores: pl.DataFrame,
        *,
        curves: pl.DataFrame | None = None,
        tables: Mapping[str, pl.DataFrame | None] | None = None,
    ) -> None:
        """Write the scores of one shard; a retry stands beside the first attempt.

        `curves` are counts at other thresholds, `tables` others of `TABLES` by the shard.
        """
        # Asking for names, not listing the folder: a run of millions of images has many parts.
        names = (f"scores/part-{model_id}-{shard:06d}-{n}.parquet" for n in itertools.count())
        free = next(name for name in names if not (self.folder / name).exists())
        contents = {free: parquet_bytes(scores)}
        if curves is not None:
            contents[free.replace("scores/", "curves/", 1)] = parquet_bytes(curves)
        # First, so that a process that is killed in between evaluates the shard again.
        for kind, table in (tables or {}).items():
            if table is not None:
                name = f"{kind}/{model_id}-{shard:06d}.parquet"
                self.ledger.write({name: parquet_bytes(table)})
        self.ledger.write(contents)

    def curves(self) -> pl.LazyFrame | None:
        """Counts at `THRESHOLDS` of the cases of every part that has them; None without any."""
        names = [name.replace("scores/", "curves/", 1) for name in self.part_names()]
        frames = [
            pl.scan_parquet(self.file(name), schema=CURVE_SCHEMA).with_columns(
                model_id=pl.lit(Path(name).stem.removeprefix("part-").rsplit("-", 2)[0])
            )
            for name in names
            if self.ledger.knows(name)
        ]
        if not frames:
            return None
        return pl.concat(frames).unique(["model_id", "case_id"], keep="first")

    def table(self, kind: str, model_id: str) -> pl.DataFrame | None:
        """One of `TABLES` of all shards of a model; None where it has none.

        Raises:
            RunError: A file is not what was written.
        """
        paths = sorted((self.folder / kind).glob(f"{glob.escape(model_id)}-*.parquet"))
        for path in paths:
            if problem := self.ledger.problem(f"{kind}/{path.name}"):
                raise RunError(
                    f"{path}: {problem}. A file is read only as the run wrote it. Start again with "
                    "--fresh, or delete it with the part of its number in scores/: its images are "
                    "evaluated again."
                )
        return pl.concat(map(pl.read_parquet, paths)) if paths else None

    def part_names(self, model_id: str = "") -> list[str]:
        """The parts that are there, of one model or of all; not looked at."""
        pattern = f"part-{glob.escape(model_id)}-*.parquet" if model_id else "part-*.parquet"
        return sorted(f"scores/{path.name}" for path in (self.folder / "scores").glob(pattern))

    def _damaged_aside(self, *, is_begun: bool) -> Iterator[str]:
        """Move what is not what the run wrote to ``damaged/``, so that its shards run again."""
        lost = "without a run.json that knows of it"
        for name in self.part_names():
            if problem := self.ledger.problem(name) if is_begun else lost:
                yield f"{name} was {problem}; {self._aside(name)}, its images are evaluated again."
        for path in sorted((self.folder / "masks").glob("*.parquet")):
            name = f"masks/{path.name}"
            if problem := self.ledger.problem(name, or_before=True):
                yield (
                    f"{name} was {problem}; {self._aside(name)}, and the report shows no masks of "
                    "this model. --fresh evaluates and keeps them anew."
                )

    def _aside(self, name: str) -> str:
        place = make_folder(self.folder / "damaged")
        with writing(place):
            (self.folder / name).replace(place / Path(name).name)
        return f"it is now in {place}"

    def settled_shards(self, model_id: str) -> dict[int, int]:
        """Shards of which every case succeeded, with their cases; the others are (re)tried."""
        settled = {}
        for name in self.part_names(model_id):
            status = pl.read_parquet(self.file(name), columns=["status"])["status"]
            if (status == DONE).all():
                settled[int(Path(name).stem.split("-")[-2])] = len(status)
        return settled

    def scores(self) -> pl.DataFrame:
        """One row per (model, case): a success beats an error.

        Raises:
            RunError: Two successes of one case differ.
        """
        return self._merged(self._parts()).sort("model_id", "case_id")

    def _parts(self) -> list[Path]:
        return [self.file(name) for name in self.part_names()]

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
            frames.append(pl.scan_parquet(once, schema=SCORE_SCHEMA))
        return pl.concat([pl.LazyFrame(schema=SCORE_SCHEMA), *frames])

    def _merged(self, paths: Sequence[Path]) -> pl.DataFrame:
        if not paths:
            return pl.DataFrame(schema=SCORE_SCHEMA)
        rows = pl.concat([pl.read_parquet(path, schema=SCORE_SCHEMA) for path in paths])
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
            make_folder(self.folder)
            with writing(self.folder):
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
        with writing(self.folder):
            shutil.move(self.folder, aside)
        return aside
