"""How far an edit moves the embedding by which a text enters a model.

Conventions: a shift is the distance between the embeddings of a changed and of its original
prompt, in units of the typical (root mean square) distance between two of the texts that were
embedded: 0 says "the same", 1 "as far apart as any two prompts".
"""

from collections.abc import Sequence

import polars as pl
import torch

from harness.engine.texts import TEXT_SCHEMA
from harness.model.contract import EmbedsText
from harness.model.loading import LoadedModel

EDITS_PER_CELL = 40
"""Edits of one probe and attribute that are embedded: enough for their mean, and no more, since
every text costs a pass through the text tower."""

SHIFT_SCHEMA = pl.Schema({"text": pl.String, "original_text": pl.String, "shift": pl.Float64})
STORED_SCHEMA = pl.Schema([*TEXT_SCHEMA.items(), ("shift", pl.Float64)])
"""Of ``texts/<model_id>.parquet``: the table of texts with the shifts that were computed."""

_BATCH = 64
CELL = ("dataset", "split", "prompts", "prompt_type", "probe", "attribute")
"""Columns of a plan within which edits are counted."""


def with_shifts(texts: pl.DataFrame, model: LoadedModel, cases: pl.DataFrame) -> pl.DataFrame:
    """A table of texts with a column ``shift``, null where an edit was not embedded.

    Args:
        texts: Of `harness.engine.texts.text_table`.
        model: The same model.
        cases: Of the same plan.
    """
    shifts = embedding_shifts(model, cases)
    joined = texts.join(shifts, on=["text", "original_text"], how="left", maintain_order="left")
    return joined.cast(STORED_SCHEMA)


def embedding_shifts(model: LoadedModel, cases: pl.DataFrame) -> pl.DataFrame:
    """Shifts of the first `EDITS_PER_CELL` edits of each probe and attribute.

    Args:
        model: Asked for its text embedding; one without it gives no rows.
        cases: Of a plan.

    Returns:
        A frame with `SHIFT_SCHEMA`, one row a distinct edit.
    """
    raw = model.raw
    edits = (
        cases.select(*CELL, text="prompt", original_text="original_prompt")
        .filter(pl.col("text") != pl.col("original_text"))
        .unique(maintain_order=True)
        .filter(pl.int_range(pl.len()).over(CELL) < EDITS_PER_CELL)
        .select("text", "original_text")
        .unique(maintain_order=True)
    )
    if not isinstance(raw, EmbedsText) or edits.is_empty():
        return pl.DataFrame(schema=SHIFT_SCHEMA)
    texts = list(dict.fromkeys([*edits["text"], *edits["original_text"]]))
    place = {text: index for index, text in enumerate(texts)}
    vectors = _embedded(model, raw, texts)
    after, before = (vectors[[place[t] for t in edits[c]]] for c in edits.columns)
    moved = torch.linalg.vector_norm(after - before, dim=1)
    # The mean squared distance between two texts is twice their variance.
    typical = (2 * vectors.var(dim=0, correction=1).sum()).sqrt()
    shifts = moved / typical if typical > 0 else torch.zeros_like(moved)
    return edits.with_columns(shift=pl.Series(shifts.tolist(), dtype=pl.Float64))


def _embedded(model: LoadedModel, raw: EmbedsText, texts: Sequence[str]) -> torch.Tensor:
    parts = []
    with torch.inference_mode():
        for start in range(0, len(texts), _BATCH):
            with model.autocast():
                parts.append(raw.text_embedding(texts[start : start + _BATCH]).double().cpu())
    return torch.cat(parts)
