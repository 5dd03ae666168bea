"""Every case beside its own original: the table from which all averages start.

Conventions: one row is one (model, case) that was planned. A *cell* is one row of
the summary: model, dataset, split, prompts, prompt type, probe, attribute; cells are
numbered in the order of these keys. Scores are fractions in [0, 1]; a null score is
unknown or undefined, and the columns ``failed``, ``missing``, ``original_lost``,
``undefined`` and ``cut_away`` say which.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from harness.errors import RunError
from harness.metrics import agreement, dice
from harness.stats.facts import ModelFacts

CELL_KEYS = ("model_id", "dataset", "split", "prompts", "prompt_type", "probe", "attribute")
SET_KEYS = ("dataset", "split", "prompts", "prompt_type")

_SAMPLE_KEYS = ("dataset", "split", "sample_id")
_CLUSTER_KEYS = ("dataset", "split", "cluster_id")
_COUNTS = ("tp", "n_pred", "n_gt", "tp_original", "n_pred_original", "tp_named", "n_named")
_ORDER = ("cell", "sample", "prompt_index", "word", "repeat", "case_id")


@dataclass(frozen=True, slots=True)
class Pairs:
    """The cases of a run with their scores, and what their numbers stand for.

    Attributes:
        cases: One row a (model, case), sorted; columns ``cell``, ``sample``,
            ``cluster``, ``word`` are numbers, 0 is "no word".
        cells: ``cell`` and `CELL_KEYS`, in order.
        clusters: ``cluster``, ``dataset``, ``split``, ``cluster_id``, in order.
        words: Text of each word number.
        images: ``sample`` and ``image_id``.
    """

    cases: pl.DataFrame
    cells: pl.DataFrame
    clusters: pl.DataFrame
    words: tuple[str, ...]
    images: pl.DataFrame


def paired(
    plan: pl.DataFrame,
    scores: pl.DataFrame,
    *,
    models: Sequence[ModelFacts],
    empty: float,
    texts: pl.DataFrame | None = None,
) -> Pairs:
    """Join plan and scores, score every case, and put its original's Dice beside it.

    Args:
        plan: As in the run directory.
        scores: As in the run directory; other models' rows are left out.
        models: Those to summarise.
        empty: Dice where both masks are empty.
        texts: How texts reach each model, where that is known.

    Raises:
        RunError: A (model, case) has two scores, or counts are impossible.
    """
    ids = pl.Series("model_id", sorted({m.model_id for m in models}), dtype=pl.String)
    _refuse_doubles(scores)
    cells = _numbered(ids.to_frame().join(plan.select(CELL_KEYS[1:]).unique(), how="cross"), "cell")
    cells = cells.select("cell", *CELL_KEYS)
    samples = _numbered(plan.select(*_SAMPLE_KEYS, "image_id").unique(_SAMPLE_KEYS), "sample")
    clusters = _numbered(plan.select(_CLUSTER_KEYS).unique(), "cluster")
    words = tuple(plan["word"].drop_nulls().unique().sort())
    coded = _coded(plan, samples=samples, clusters=clusters, words=words)
    cases = (
        ids.to_frame()
        .join(coded, how="cross")
        .join(cells, on=CELL_KEYS, nulls_equal=True)
        .join(_scored(scores, empty), on=["model_id", "case_id"], how="left")
        .join(_reached(plan, texts), on=["model_id", "case_id"], how="left")
    )
    return Pairs(
        cases=_with_original(cases).sort(_ORDER).drop("model_id", *CELL_KEYS[1:5], "attribute"),
        cells=cells,
        clusters=clusters,
        words=("", *words),
        images=samples.select("sample", "image_id"),
    )


def _refuse_doubles(scores: pl.DataFrame) -> None:
    doubled = scores.height - scores.select("model_id", "case_id").n_unique()
    if doubled:
        raise RunError(
            f"scores: {doubled} cases are scored twice for one model. A case has one score. "
            "Merge the parts before averaging (harness.store does)."
        )


def _numbered(frame: pl.DataFrame, name: str) -> pl.DataFrame:
    keys = [c for c in CELL_KEYS if c in frame.columns]
    keys += [c for c in frame.columns if c not in keys]
    return frame.sort(keys, nulls_last=False).with_row_index(name)


def _coded(
    plan: pl.DataFrame, *, samples: pl.DataFrame, clusters: pl.DataFrame, words: Sequence[str]
) -> pl.DataFrame:
    """The plan with numbers for samples, clusters and words."""
    numbers = pl.DataFrame(
        {"word": words, "word_number": range(1, len(words) + 1)},
        schema={"word": pl.String, "word_number": pl.UInt32},
    )
    return (
        plan.select(
            "case_id", "original_case_id", *CELL_KEYS[1:], "sample_id", "cluster_id",
            "prompt_index", "repeat", "word", "perturbation", "meaning", "expected_mask",
        )
        .join(samples.drop("image_id"), on=_SAMPLE_KEYS)
        .join(clusters, on=_CLUSTER_KEYS)
        .join(numbers, on="word", how="left")
        .drop("sample_id", "cluster_id", "word")
        .with_columns(pl.col("word_number").fill_null(0).alias("word"))
        .drop("word_number")
    )  # fmt: skip


def _scored(scores: pl.DataFrame, empty: float) -> pl.DataFrame:
    """Scores of the cases that were done; a failed case keeps its row and loses its counts."""
    done = (scores["status"] == "done").to_numpy()
    count = {
        name: np.where(done, scores[name].cast(pl.Float64).to_numpy(), np.nan) for name in _COUNTS
    }
    pred, original = count["n_pred"], count["n_pred_original"]
    pixels = scores["height"].cast(pl.Float64).to_numpy() * scores["width"].to_numpy()
    columns = {
        "dice": dice(count["tp"], pred, count["n_gt"], empty=empty),
        "agreement": agreement(count["tp_original"], pred, original),
        "empty_prediction": np.where(np.isnan(pred), np.nan, pred == 0),
        "dice_named": dice(count["tp_named"], pred, count["n_named"], empty=empty),
        "foreground": pred / pixels,
        "both_empty": (pred == 0) & (original == 0),
        "failed": ~done,
    }
    return scores.select("model_id", "case_id").with_columns(
        pl.Series(name, values).fill_nan(None) if values.dtype == float else pl.Series(name, values)
        for name, values in columns.items()
    )


def _reached(plan: pl.DataFrame, texts: pl.DataFrame | None) -> pl.DataFrame:
    """Per (model, case): whether its edits were cut away, and whether its tokens are the same."""
    if texts is None or not texts.height:
        keys = {"model_id": pl.String, "case_id": pl.UInt64}
        return pl.DataFrame(schema={**keys, "cut_away": pl.Boolean, "same_tokens": pl.Boolean})
    keyed = plan.select("case_id", text="prompt", original_text="original_prompt")
    return keyed.join(texts, on=["text", "original_text"]).select(
        "model_id", "case_id", pl.col("edit_survives").not_().alias("cut_away"), "same_tokens"
    )


def _with_original(cases: pl.DataFrame) -> pl.DataFrame:
    """Each case beside its original's Dice; both are null where one of them is."""
    originals = cases.filter(pl.col("probe") == "original").select(
        "model_id",
        original_case_id="case_id",
        reference="dice",
        original_empty="empty_prediction",
        original_failed="failed",
    )
    joined = cases.join(originals, on=["model_id", "original_case_id"], how="left")
    done, is_original = pl.col("failed").not_().fill_null(False), pl.col("probe") == "original"
    whole = pl.col("original_failed").not_().fill_null(False)
    both = pl.col("dice").is_not_null() & pl.col("reference").is_not_null()
    seen = both & ~pl.col("cut_away")
    flags = pl.col("cut_away", "same_tokens").fill_null(False)
    return (
        joined.with_columns(flags)
        .with_columns(
            missing=pl.col("failed").is_null(),
            failed=pl.col("failed").fill_null(False),
            original_lost=done & ~whole,
            undefined=done & whole & ~both,
            both_empty=pl.col("both_empty").fill_null(False) & ~is_original,
            dice=pl.when(seen).then("dice"),
            reference=pl.when(seen).then("reference"),
            agreement=pl.when(~is_original & ~pl.col("cut_away")).then("agreement"),
            dice_named=pl.when(~pl.col("cut_away")).then("dice_named"),
            false_positive=pl.when(pl.col("expected_mask") == "empty", ~pl.col("cut_away")).then(
                "foreground"
            ),
        )
        .drop("original_case_id", "original_failed", "empty_prediction", "foreground")
    )
