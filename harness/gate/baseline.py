"""What a run is compared with: another run, or a small file; and whether both ask the same.

The file holds sums, not figures: per row of the summary and cluster the number of samples and the
sums of Dice before and after; where targets are named, also over those samples their number and the
sums of Dice with the own and the named mask; where the right mask is empty, also the number of
samples and of refusals. So another run can be paired with it by cluster.

Conventions: JSON, sorted, one cluster a line, 10 significant digits; the same run gives the same
bytes. A file is read as data from a stranger. Two plans are *cases* when they are one and the same,
a *draw* when they are of one design and differ by their seed, and *drift* when prompts changed
otherwise, so that a difference of the models could be one of the questions.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import polars as pl
import pydantic
from pydantic import Field

from harness.cards import Strict
from harness.errors import UsageError
from harness.files.canonical import read_json
from harness.gate.audited import Audited, Identity
from harness.metrics import ELSEWHERE
from harness.stats.relative import SUM_KEYS, SUMS

BASELINE_VERSION = 1
"""Raised whenever a field of the file changes its name or meaning."""

_CELL_SCHEMA: dict[str, Any] = dict.fromkeys((*SUM_KEYS, "meaning", "cases"), pl.String)
_CELL_SCHEMA |= {"n_words": pl.Int64, "word_error": pl.Float64}
_SUM_SCHEMA = {
    **dict.fromkeys((*SUM_KEYS, "cluster"), pl.String),
    **dict.fromkeys(SUMS, pl.Float64),
}
_PLAIN, _NAMED = 3, 6
_RENEW = "Write it anew: `vlsm-harness gate RUN --update FILE`."


@dataclass(frozen=True, slots=True)
class Baseline:
    """What is known of the model that another one is compared with; `run` where it is a run.

    `cells` and `sums` are as of `harness.gate.audited.Audited`, `failures` the keys of failed
    checks.
    """

    identity: Identity
    cells: pl.DataFrame
    sums: pl.DataFrame
    failures: tuple[str, ...]
    run: Audited | None = None


_Figure = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_MOST_WORDS = 1_000_000  # a number that no column holds is no number of words


class _Signature(Strict):
    metric: str
    verdict: str


class _Cell(Strict):
    dataset: str
    split: str
    prompts: str
    prompt_type: str
    probe: str
    attribute: str | None
    meaning: str
    cases: str
    n_words: int = Field(ge=0, le=_MOST_WORDS)
    word_error: _Figure
    clusters: dict[str, list[_Figure]]

    @pydantic.model_validator(mode="after")
    def _whole_parts(self) -> "_Cell":
        for name, figures in self.clusters.items():
            if len(figures) not in (_PLAIN, _NAMED, len(SUMS)):
                raise ValueError(
                    f"cluster {name!r} has {len(figures)} figures, "
                    f"{_PLAIN}, {_NAMED} or {len(SUMS)} are needed"
                )
        return self


class _File(Strict):
    version: int
    columns: list[str]
    model: str
    model_id: str
    plan_sha256: str
    seed: int
    design: dict[str, str]
    signature: _Signature
    # Files from before there were two say nothing of it.
    backend: Annotated[str, Field(pattern="^[a-z]{0,20}$")] = ""
    failures: list[str]
    cells: list[_Cell]


def text_of(baseline: Baseline) -> str:
    """The text of a baseline's file."""
    own = baseline.identity
    head = {
        "version": BASELINE_VERSION,
        "columns": list(SUMS),
        "model": own.model,
        "model_id": own.model_id,
        "plan_sha256": own.plan_sha256,
        "seed": own.seed,
        "design": dict(own.design),
        "signature": {"metric": own.metric, "verdict": own.verdict},
        "backend": own.backend,
        "failures": sorted(baseline.failures),
    }
    lines = json.dumps(head, indent=1, ensure_ascii=False).removesuffix("\n}")
    cells = ",\n".join(_cell_texts(baseline))
    return f'{lines},\n "cells": [\n{cells}\n ]\n}}\n'


def _cell_texts(baseline: Baseline) -> list[str]:
    """Each row's object, its clusters one a line."""
    groups = baseline.sums.group_by(SUM_KEYS, maintain_order=True)
    rows = {key: frame for key, frame in groups}
    texts = []
    for cell in baseline.cells.sort(SUM_KEYS, nulls_last=False).iter_rows(named=True):
        own = rows.get(tuple(cell[key] for key in SUM_KEYS))
        keys = {name: cell[name] for name in _CELL_SCHEMA}
        keys["word_error"] = _rounded(keys["word_error"])
        opening = json.dumps(keys, ensure_ascii=False).removesuffix("}")
        clusters = [] if own is None else own.select("cluster", *SUMS).sort("cluster").rows()
        lines = ",\n".join(
            f"   {json.dumps(name, ensure_ascii=False)}: {_figures(values)}"
            for name, *values in clusters
        )
        texts.append(f'  {opening}, "clusters": {{\n{lines}\n  }}}}')
    return texts


def _figures(values: Sequence[float]) -> str:
    kept = values if values[_NAMED] else values[:_NAMED] if values[_PLAIN] else values[:_PLAIN]
    return json.dumps([_rounded(value) for value in kept])


def _rounded(value: float) -> float | int:
    short = float(f"{value:.10g}") + 0.0
    return int(short) if short.is_integer() else short


def read_file(path: Path) -> Baseline:
    """Read a baseline's file."""
    content = _json(path)
    version = content.get("version") if isinstance(content, dict) else None
    if version != BASELINE_VERSION:
        raise UsageError(
            f"{path}: version {version!r} of a baseline. This harness reads version "
            f"{BASELINE_VERSION}. {_RENEW}"
        )
    try:
        found = _File.model_validate(content)
    except pydantic.ValidationError as problems:
        raise UsageError("\n".join(_explained(path, p) for p in problems.errors())) from None
    # Files from before refusal was measured say nothing of it, and are as good for the rest.
    if found.columns not in (list(SUMS), list(SUMS[:_NAMED])):
        raise UsageError(
            f"{path}: columns {found.columns!r}. They must be {list(SUMS)!r}. {_RENEW}"
        )
    return _from_file(found)


def _json(path: Path) -> Any:
    missing = (
        "A baseline is a run directory or a file. Write one: `vlsm-harness gate RUN --update FILE`."
    )
    repair = f"A baseline is a run directory, or a file that the gate wrote. {_RENEW}"
    return read_json(path, error=UsageError, missing=missing, repair=repair)


def _explained(path: Path, problem: Any) -> str:
    where = ".".join(str(step)[:60] for step in problem["loc"])
    where = "".join(char if char.isprintable() else "?" for char in where)
    message = str(problem["msg"]).removeprefix("Value error, ").rstrip(".")
    return f"{path}: {where}: {message}. {_RENEW}"


def _from_file(found: _File) -> Baseline:
    cells, sums = [], []
    for cell in found.cells:
        keys = [getattr(cell, key) for key in SUM_KEYS]
        cells.append([*keys, cell.meaning, cell.cases, cell.n_words, cell.word_error])
        for name, figures in cell.clusters.items():
            rest = [0.0] * (len(SUMS) - len(figures))
            sums.append([*keys, name, *figures, *rest])
    identity = Identity(
        model=found.model,
        model_id=found.model_id,
        plan_sha256=found.plan_sha256,
        seed=found.seed,
        design=found.design,
        metric=found.signature.metric,
        verdict=found.signature.verdict,
        backend=found.backend,
    )
    return Baseline(
        identity,
        pl.DataFrame(cells, schema=_CELL_SCHEMA, orient="row"),
        pl.DataFrame(sums, schema=_SUM_SCHEMA, orient="row"),
        tuple(found.failures),
    )


Kind = Literal["cases", "draw", "drift"]
_SHOWN = 5


class Drift(NamedTuple):
    """How the plans of two runs differ, and why."""

    kind: Kind
    reasons: tuple[str, ...]


def drift_between(
    new: Identity, old: Identity, *, new_cells: pl.DataFrame, old_cells: pl.DataFrame
) -> Drift:
    """Compare two plans by their hashes, from the whole down to the rows of the summary.

    The cells have `SUM_KEYS` and ``cases``.
    """
    if new.plan_sha256 == old.plan_sha256:
        return Drift("cases", ())
    reasons = [*_of_design(new, old), *_of_cells(new, old, new_cells, old_cells)]
    if not reasons and new.seed == old.seed:
        reasons = ["what does not apply is another"]
    return Drift("drift", tuple(reasons)) if reasons else Drift("draw", ())


def _of_design(new: Identity, old: Identity) -> Iterator[str]:
    for key in sorted({*new.design, *old.design}):
        before, now = old.design.get(key, "nothing"), new.design.get(key, "nothing")
        if before != now:
            yield f"{key} was {before!r}, is {now!r}"


def _of_cells(
    new: Identity, old: Identity, new_cells: pl.DataFrame, old_cells: pl.DataFrame
) -> Iterator[str]:
    """Rows that one of the two lacks; rows whose prompts changed though no seed did."""
    before, now = (
        {row[:-1]: row[-1] for row in cells.select(*SUM_KEYS, "cases").iter_rows()}
        for cells in (old_cells, new_cells)
    )
    for key in sorted({*before, *now}, key=lambda k: tuple(part or "" for part in k)):
        place = " ".join(part for part in key if part)
        if key not in now:
            yield f"{place} is not in this run"
        elif key not in before:
            yield f"{place} is not in the baseline"
        elif before[key] != now[key] and (new.seed == old.seed or key[4] == "original"):
            yield f"the cases of {place} are others"


def refuse_other_signatures(new: Identity, old: Identity, *, where: str) -> None:
    """Numbers of different signatures are never compared."""
    for kind, before, now in (
        ("metric", old.metric, new.metric),
        ("verdict", old.verdict, new.verdict),
    ):
        if _with_any_cut(before, now) != _with_any_cut(now, before):
            raise UsageError(
                f"{where}: the {kind} signature of the baseline is {before!r}, this run's is "
                f"{now!r}. Numbers of different signatures are never compared. Run both with "
                "one metric, threshold and statistics, or write the baseline anew from this run."
            )


def _with_any_cut(signature: str, other: str) -> str:
    """A signature without its threshold where either side's masks were cut elsewhere."""
    if ELSEWHERE not in (*signature.split("|"), *other.split("|")):
        return signature
    return "|".join(part for part in signature.split("|") if not part.startswith("thr:"))


def refuse_drift(found: Drift, *, where: str, example: str = "") -> None:
    """Prompt drift is an error of its own; `example` is a prompt that changed, if one is known."""
    if found.kind != "drift":
        return
    listed = "; ".join(found.reasons[:_SHOWN])
    more = len(found.reasons) - _SHOWN
    listed += f"; and {more} more" if more > 0 else ""
    listed = "".join(char if char.isprintable() else "?" for char in listed)
    raise UsageError(
        f"{where}: prompt drift: the plan of this run asks something else than the baseline's did "
        f"({listed}).{example} Only a plan of the same design, whatever its seed, shows that it is "
        "the model that changed. Write the baseline anew with the model it stands for, or compare "
        "what is common to both by cluster: --allow-drift."
    )
