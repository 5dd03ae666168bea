"""Join each variant with its baseline: the table from which all averages start.

Conventions: one row is one (model, case) that was planned. A *cell* is one row of
the summary: model, dataset, split, prompts, prompt type, probe, attribute; cells are
numbered in the order of these keys. Scores are fractions in [0, 1]; a null score is
unknown or undefined, and the columns ``failed``, ``missing``, ``original_lost``,
``undefined`` and ``cut_away`` say which. A case *asks for what is absent* where the right mask is
empty: by the plan, or because its own mask is. A mask of at most `refusal_area` of the picture, or
of `REFUSAL_PIXELS` in a small one, refuses; where there is a target it misses it, unless the
target is as small. Cases come in chunks of whole clusters, so that
memory does not grow with their number.
"""

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from harness.data.readings import rules_of
from harness.files.writing import parquet_bytes
from harness.metrics import ABOVE_HALF, REFUSAL_PIXELS, Scores, agreement, dice
from harness.records import ExpectedMask
from harness.stats.coding import (
    PLAN_KEYS,
    WANTED,
    CodedPlan,
    code_plan,
    code_scores,
    refuse_doubled,
)

IMPORTED = "predictions imported"
"""What stands beside the name of whatever made masks that were not computed by the run."""


def shown_name(entry: Mapping[str, Any]) -> str:
    """The name of a model of a run as figures and tables show it."""
    return f"{entry['name']} ({IMPORTED})" if entry.get("imported") else str(entry["name"])


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Metadata of one model of a run."""

    model_id: str  # key of its scores
    name: str  # what tables call it
    # Datasets whose training split it saw; empty where its card is silent.
    trained_on: tuple[str, ...]
    control: bool  # whether it ignores its prompt by construction
    # Probability above which a pixel belongs to the mask, in (0, 1); NaN where masks were made
    # elsewhere.
    threshold: float
    # Dataset -> rule by which its run read the true masks.
    foreground: Mapping[str, str] = field(default_factory=dict)
    # Ids of the checkpoints of a recipe, two or more; none for a single model.
    seeds: tuple[str, ...] = ()
    backend: str = "torch"  # what computed it; empty where masks were made elsewhere

    @property
    def known_as(self) -> tuple[str, ...]:
        """What a user may call it."""
        return self.model_id, self.name, self.name.removesuffix(f" ({IMPORTED})")

    def rule(self, dataset: str | None) -> str:
        """The rule for the true masks of a dataset."""
        return self.foreground.get(dataset or "", ABOVE_HALF)


def models_of(manifest: Mapping[str, Any]) -> list[ModelFacts]:
    """Metadata of each model of a run, from its manifest."""
    foreground = rules_of(manifest)
    return [
        ModelFacts(
            model_id=entry["model_id"],
            name=shown_name(entry),
            trained_on=tuple(entry["trained_on"]),
            control=entry["control"],
            threshold=math.nan if entry["threshold"] is None else entry["threshold"],
            foreground=foreground,
            backend="" if entry.get("imported") else entry.get("backend", "torch"),
        )
        for entry in manifest.get("models", [])
    ]


def assessed(manifest: Mapping[str, Any]) -> list[ModelFacts]:
    """Metadata of what a run is assessed of: recipes in place of their checkpoints."""
    models = {one.model_id: one for one in models_of(manifest)}
    recipes = [
        replace(
            models[recipe["seeds"][0]],
            model_id=recipe["model_id"],
            name=recipe["name"],
            seeds=tuple(recipe["seeds"]),
        )
        for recipe in manifest.get("recipes", [])
        if {*recipe["seeds"]} <= {*models}
    ]
    in_one = {seed for recipe in recipes for seed in recipe.seeds}
    return [*recipes, *(one for name, one in models.items() if name not in in_one)]


CELL_KEYS = ("model_id", *PLAN_KEYS)
SET_KEYS = ("dataset", "split", "prompts", "prompt_type")
CATASTROPHE = -0.5
"""Relative change below which a single case is a catastrophic drop."""

REFUSAL_AREA = 0.001
"""Share of the picture up to which a mask counts as empty, where a suite does not say."""

_CHUNK = 500_000
_COUNTS = ("tp", "n_pred", "n_gt", "tp_original", "n_pred_original", "tp_named", "n_named")
_FLAG_SCHEMA = {
    **{"model_id": pl.String, "case_id": pl.UInt64},
    **dict.fromkeys(("cut_away", "same_tokens"), pl.Boolean),
}
_PLANNED = (ExpectedMask.OWN, ExpectedMask.NAMED, ExpectedMask.EMPTY)
_ORDER = ("cell", "sample", "prompt_index", "word", "repeat", "case_id")


@dataclass(frozen=True, slots=True)
class Pairs:
    """A run's plan in numbers with its scores, and the rows it will be summarised in."""

    plan: CodedPlan
    scores: pl.DataFrame | pl.LazyFrame  # as in the run directory
    flags: pl.DataFrame  # ``model_id, case_id, cut_away, same_tokens`` of the cases with either
    model_ids: tuple[str, ...]  # those to summarise, in order
    cells: pl.DataFrame  # ``cell``, `CELL_KEYS` and what the plan says of them, in order
    empty: float  # Dice where both masks are empty
    floor: float  # originals with a lower Dice have no relative change of their own
    refusal_area: float = REFUSAL_AREA  # share of the picture up to which a mask counts as empty

    def chunks(self, *, rows: int = _CHUNK) -> Iterator[pl.DataFrame]:
        """Cases of whole clusters with their scores, about `rows` at a time, in order.

        Raises:
            RunError: A (model, case) has two scores, or counts are impossible.
        """
        chunk_of = _chunks_of(self.plan.clusters, rows)
        for number, model_id in enumerate(self.model_ids):
            first_cell = number * self.plan.cells.height
            parts: dict[int, list[bytes]] = {int(chunk): [] for chunk in chunk_of["chunk"].unique()}
            for joined in self._joined(model_id):
                with_chunk = joined.join(chunk_of, on="cluster", how="left")
                for (chunk,), own in with_chunk.group_by("chunk"):
                    parts[int(str(chunk))].append(parquet_bytes(own.drop("chunk")))
            for chunk in sorted(parts):
                own = pl.read_parquet(parts.pop(chunk))
                cases = own.with_columns(cell=pl.col("plan_cell") + first_cell)
                scored = _scored(cases, self.empty, self.refusal_area)
                yield _with_original(scored, self.floor).sort(_ORDER)

    def _joined(self, model_id: str) -> Iterator[pl.DataFrame]:
        """Cases with the counts of one model, a range of case ids at a time."""
        scores = code_scores(self.scores, model_id)
        flags = self.flags.filter(pl.col("model_id") == model_id).drop("model_id")
        for own in self.plan.ranges():
            counts = pl.scan_parquet(io.BytesIO(scores)).filter(own).collect()
            refuse_doubled(counts)
            cases = self.plan.scan().filter(own).collect()
            for beside in (counts, flags):
                cases = cases.join(beside, on="case_id", how="left")
            yield cases.with_columns(pl.col("cut_away", "same_tokens").fill_null(False))


def pair(
    plan: pl.DataFrame | pl.LazyFrame,
    scores: pl.DataFrame | pl.LazyFrame,
    *,
    models: Sequence[ModelFacts],
    empty: float,
    floor: float,
    refusal_area: float = REFUSAL_AREA,
    texts: pl.DataFrame | None = None,
) -> Pairs:
    """Number the plan, and make ready to put scores beside it."""
    coded = code_plan(plan)
    ids = tuple(sorted({m.model_id for m in models}))
    cells = (
        pl.Series("model_id", ids, dtype=pl.String)
        .to_frame()
        .join(coded.cells.drop("plan_cell"), how="cross", maintain_order="left_right")
        .with_row_index("cell")
        .select("cell", *CELL_KEYS, "perturbation", "meaning", "expected_mask", "n_cases")
    )
    flags = _flagged(plan, texts)
    return Pairs(coded, scores, flags, ids, cells, empty, floor, refusal_area)


def _flagged(plan: pl.DataFrame | pl.LazyFrame, texts: pl.DataFrame | None) -> pl.DataFrame:
    """Cases whose edits a model's token limit cuts away, or that leave its tokens alone."""
    cut, same = pl.col("edit_survives").not_().fill_null(False), pl.col("same_tokens")
    same = same.fill_null(False)
    flagged = texts.filter(cut | same) if texts is not None and texts.height else None
    if flagged is None or flagged.is_empty():
        return pl.DataFrame(schema=_FLAG_SCHEMA)
    keyed = plan.lazy().select("case_id", text="prompt", original_text="original_prompt")
    joined = keyed.join(flagged.lazy(), on=["text", "original_text"])
    return joined.select("model_id", "case_id", cut_away=cut, same_tokens=same).collect()


def _chunks_of(clusters: pl.DataFrame, rows: int) -> pl.DataFrame:
    """The chunk of each cluster: one ends with the first cluster that fills it."""
    chunks, filled = [0], 0
    for size in clusters["n_cases"]:
        filled += size
        chunks.append(chunks[-1] + (filled >= rows))
        filled = 0 if filled >= rows else filled
    return clusters.select("cluster", chunk=pl.Series(chunks[:-1], dtype=pl.UInt32))


def _scored(cases: pl.DataFrame, empty: float, refusal_area: float) -> pl.DataFrame:
    """Scores in place of counts; a failed case keeps its row and has none."""
    count = {name: cases[name].cast(pl.Float64).fill_null(np.nan).to_numpy() for name in _COUNTS}
    pred, original = count["n_pred"], count["n_pred_original"]
    pixels = cases["pixels"].cast(pl.Float64).fill_null(np.nan).to_numpy()
    columns = {
        "dice": dice(count["tp"], pred, count["n_gt"], empty=empty),
        "agreement": agreement(count["tp_original"], pred, original),
        "dice_named": dice(count["tp_named"], pred, count["n_named"], empty=empty),
        **_refusals(cases["wants"].to_numpy(), count, pixels, refusal_area),
    }
    figures = (pl.Series(name, values).fill_nan(None) for name, values in columns.items())
    both = pl.Series("both_empty", (pred == 0) & (original == 0))
    return cases.with_columns(*figures, both).drop(*_COUNTS, "pixels", "wants")


def _refusals(
    wants: NDArray[np.int8], count: Mapping[str, Scores], pixels: Scores, area: float
) -> dict[str, Scores]:
    """Whether a case refuses what is absent or misses what is there, and what it paints."""
    own, named, empty = (wants == WANTED.index(w) for w in _PLANNED)
    pred, n_gt = count["n_pred"], count["n_gt"]
    target = np.where(named, count["n_named"], np.where(own, n_gt, np.nan))
    absent = (empty | (target == 0)) & ~np.isnan(pred)
    present = (target > 0) & ~np.isnan(pred)
    limit = np.maximum(area * pixels, REFUSAL_PIXELS)
    nothing = np.where(target > limit, limit, 0)
    return {
        "refused": np.where(absent, pred <= limit, np.nan),
        "missed": np.where(present, pred <= nothing, np.nan),
        "false_positive": np.where(absent, pred / pixels, np.nan),
        "aligned": np.where(absent, count["tp_original"] / pixels, np.nan),
        "empty_prediction": np.where(np.isnan(pred) | (own & (n_gt == 0)), np.nan, pred == 0),
    }


def _with_original(cases: pl.DataFrame, floor: float) -> pl.DataFrame:
    """Each case beside its original's Dice; both are null where one of them is."""
    is_original = pl.col("case_id") == pl.col("original_case_id")
    originals = cases.filter(is_original).select(
        original_case_id="case_id",
        reference="dice",
        original_empty="empty_prediction",
        original_failed="failed",
        original_missed="missed",
    )
    joined = cases.join(originals, on="original_case_id", how="left")
    done = pl.col("failed").not_().fill_null(False)
    whole = pl.col("original_failed").not_().fill_null(False)
    both = pl.col("dice").is_not_null() & pl.col("reference").is_not_null()
    # What never reached the model says nothing of it.
    seen = both & ~pl.col("cut_away")
    named = seen & pl.col("dice_named").is_not_null()
    segmented = seen & (pl.col("reference") >= floor) & (pl.col("reference") > 0) & ~is_original
    lost = (pl.col("dice") / pl.col("reference") - 1 < CATASTROPHE).cast(pl.Float64)
    return joined.with_columns(
        missing=pl.col("failed").is_null(),
        failed=pl.col("failed").fill_null(False),
        original_lost=done & ~whole,
        undefined=done & whole & ~both,
        both_empty=pl.col("both_empty").fill_null(False) & ~is_original,
        dice=pl.when(seen).then("dice"),
        reference=pl.when(seen).then("reference"),
        agreement=pl.when(~is_original & ~pl.col("cut_away")).then("agreement"),
        dice_named=pl.when(named).then("dice_named"),
        own_named=pl.when(named).then("dice"),
        reference_named=pl.when(named).then("reference"),
        catastrophic=pl.when(segmented).then(lost),
        **_asked(is_original),
    ).drop("original_case_id", "original_failed", "original_missed", "empty_prediction")


def _asked(is_original: pl.Expr) -> dict[str, pl.Expr]:
    """What absent prompts paint, and beside it what their originals, which are present, find."""
    reached = ~pl.col("cut_away")
    absent = reached & pl.col("refused").is_not_null()
    moved = absent & ~is_original & pl.col("aligned").is_not_null()
    beside = absent & pl.col("original_missed").is_not_null()
    own = is_original & pl.col("missed").is_not_null()
    return {
        "refused": pl.when(reached).then("refused"),
        "false_positive": pl.when(reached).then("false_positive"),
        "aligned": pl.when(moved).then("aligned"),
        "painted": pl.when(moved).then("false_positive"),
        "missed": pl.when(reached & pl.col("missed").is_not_null())
        .then("missed")
        .when(beside)
        .then("original_missed"),
        "present_dice": pl.when(own).then("dice").when(beside).then("reference"),
    }
