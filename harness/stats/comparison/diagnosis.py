"""Why a tuned model's language may differ from its base's: what the runs hold, and no more."""

from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl

from harness.stats.comparison.common import Subject

_SAME_EMBEDDING = 1e-4  # of the distance between two prompts: what arithmetic leaves


def diagnose(base: Subject, tuned: Subject) -> Iterator[str]:
    """What two stored runs say about why the tuned model's language differs, a sentence each."""
    yield from _redundancy(tuned)
    yield from _training(tuned)
    yield from _text_tower(base, tuned)


def _redundancy(tuned: Subject) -> Iterator[str]:
    trained = [d for d in tuned.facts.trained_on if d]
    plan = tuned.store.plan_scan().filter(
        (pl.col("probe") == "original") & pl.col("dataset").is_in(trained)
    )
    targets = plan.group_by("dataset", "image").agg(n=pl.col("sample_id").n_unique())
    counts = targets.group_by("dataset").agg(one=(pl.col("n") == 1).mean()).sort("dataset")
    for dataset, share in counts.collect().iter_rows():
        if share == 1:
            yield (
                f"Every picture of {dataset} that was audited holds one target. If its training "
                "split is alike, the picture alone told what to segment there, and training had "
                "no need of the words."
            )


def _training(tuned: Subject) -> Iterator[str]:
    card = _card(tuned)
    kind = card.get("prompt_type")
    if kind:
        yield f"{tuned.label} was trained with prompts of type {kind}, says its card."
    recipe = card.get("training")
    if recipe is None:
        yield (
            f"The card of {tuned.label} tells nothing of its training: whether it saw prompts for "
            "what is absent is unknown."
        )
    elif not _mentions(recipe, "negatives"):
        yield f"The training recorded on the card of {tuned.label} holds no negatives."


def _mentions(recipe: Any, key: str) -> bool:
    if isinstance(recipe, Mapping):
        return bool(recipe.get(key)) or any(_mentions(v, key) for v in recipe.values())
    return isinstance(recipe, list) and any(_mentions(v, key) for v in recipe)


def _card(subject: Subject) -> Mapping[str, Any]:
    for entry in subject.store.manifest["models"]:
        if entry["model_id"] == subject.facts.model_id:
            card: Mapping[str, Any] = entry.get("card") or {}
            return card
    return {}


def _text_tower(base: Subject, tuned: Subject) -> Iterator[str]:
    """Embeddings are not stored; how far each edit moves them is."""
    tables = [_shifts(one, name) for one, name in ((base, "base"), (tuned, "tuned"))]
    both = tables[0].join(tables[1], on=["text", "original_text"], how="inner")
    if both.is_empty():
        yield "Whether the text tower was changed is unknown: not both models show its embedding."
        return
    most = float((both["base"] - both["tuned"]).abs().max())  # type: ignore[arg-type]
    same = most <= _SAME_EMBEDDING
    said = "answers as before" if same else "was changed"
    yield (
        f"The text tower {said}: over {both.height} edits the shift of its embedding differs by at "
        f"most {most:.2g} of the distance between two prompts."
    )


def _shifts(subject: Subject, name: str) -> pl.DataFrame:
    schema = {"text": pl.String, "original_text": pl.String, name: pl.Float64}
    found = subject.store.texts()
    if found.is_empty() or "shift" not in found.columns:
        return pl.DataFrame(schema=schema)
    own = found.filter((pl.col("model_id") == subject.facts.model_id) & pl.col("shift").is_finite())
    return own.select("text", "original_text", pl.col("shift").alias(name)).unique(
        ["text", "original_text"], keep="first", maintain_order=True
    )
