"""A run as one frame of cases."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import polars as pl

    from harness.runs.store import RunStore


def frame_cases(store: "RunStore") -> "pl.DataFrame":
    """Every case of a run beside its original, one row a (model, case).

    Originals are left out: they stand in ``dice_before``.

    Args:
        store: The run.

    Returns:
        ``model_id``, ``model``, ``dataset``, ``split``, ``image``, ``sample_id``,
        ``cluster_id``, ``probe``, ``perturbation``, ``meaning``, ``attribute``, ``prompt_type``,
        ``word``, ``repeat``, ``original_prompt``, ``prompt``; ``dice_before`` and ``dice_after``
        (against the sample's own mask, in [0, 1]); ``agreement`` of the two masks; the counts
        in pixels; ``status`` and ``error``. A case that failed or is missing has null figures.
    """
    import polars as pl

    from harness.metrics import EMPTY_SCORES, agreement, dice

    empty = EMPTY_SCORES[store.suite().metric.empty]
    names = {m["model_id"]: m["name"] for m in store.manifest.get("models", [])}
    models = pl.DataFrame(
        {"model_id": list(names), "model": list(names.values())},
        schema={"model_id": pl.String, "model": pl.String},
    )
    joined = store.plan_cases().join(models, how="cross")
    joined = joined.join(store.scores(), on=["model_id", "case_id"], how="left")
    counts = {
        name: joined[name].cast(pl.Float64).fill_null(np.nan).to_numpy()
        for name in ("tp", "n_pred", "n_gt", "tp_original", "n_pred_original")
    }
    after = dice(counts["tp"], counts["n_pred"], counts["n_gt"], empty=empty)
    same = agreement(counts["tp_original"], counts["n_pred"], counts["n_pred_original"])
    joined = joined.with_columns(
        dice_after=pl.Series(after).fill_nan(None), agreement=pl.Series(same).fill_nan(None)
    )
    originals = joined.filter(pl.col("case_id") == pl.col("original_case_id")).select(
        "model_id", original_case_id="case_id", dice_before="dice_after"
    )
    changed = joined.filter(pl.col("case_id") != pl.col("original_case_id"))
    return changed.join(
        originals, on=["model_id", "original_case_id"], how="left", maintain_order="left"
    ).select(
        *("model_id", "model", "dataset", "split", "image", "sample_id", "cluster_id"),
        *("probe", "perturbation", "meaning", "attribute", "prompt_type", "word", "repeat"),
        *("original_prompt", "prompt", "dice_before", "dice_after", "agreement"),
        *("tp", "n_pred", "n_gt", "tp_original", "n_pred_original", "status", "error"),
    )
