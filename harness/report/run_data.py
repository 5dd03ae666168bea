"""The content of a run directory: frames, manifest, verdicts, kept masks.

Conventions: everything is read when it is first asked for. Frames are those of the run
directory (`harness.plan.build`, `harness.runs.store`, `harness.stats.columns`); nothing is
computed anew.
"""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from harness.runs.frames import frame_cases
from harness.runs.kept_masks import Kept, read_saved_masks
from harness.runs.store import CURVE, RunStore
from harness.stats.assessment import Assessment
from harness.stats.pairs import shown_name
from harness.suite.schema import Suite


class RunData:
    """One run directory that was summarised."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = RunStore(folder)

    @cached_property
    def manifest(self) -> Mapping[str, Any]:
        """The content of ``run.json``."""
        return self.store.manifest

    @cached_property
    def suite(self) -> Suite:
        """The suite as it was run."""
        return self.store.suite()

    @cached_property
    def assessment(self) -> Assessment:
        """Summary and verdicts."""
        return Assessment.read(self.folder)

    @cached_property
    def plan(self) -> pl.DataFrame:
        """Every planned case."""
        return self.store.plan_cases()

    @cached_property
    def scores(self) -> pl.DataFrame:
        """The counts of every case and model."""
        return self.store.scores()

    def cases(self) -> pl.DataFrame:
        """Every case beside its original, one row a (model, case); see `frame_cases`."""
        return frame_cases(self.store)

    @cached_property
    def curve(self) -> pl.DataFrame | None:
        """Refusal against Dice over thresholds, if the run kept the counts for it."""
        known = self.store.ledger.knows(CURVE)
        return pl.read_parquet(self.store.file(CURVE)) if known else None

    @property
    def summary(self) -> pl.DataFrame:
        """One row a (model, data set, split, prompts, prompt type, probe, attribute)."""
        return self.assessment.summary

    @cached_property
    def verdicts(self) -> pl.DataFrame:
        """One row an expectation."""
        return pl.DataFrame(
            [v.record() for v in self.assessment.verdicts], infer_schema_length=None
        )

    @cached_property
    def language(self) -> pl.DataFrame:
        """One row a (model, data set, prompts, prompt type)."""
        rows = [v.record() for v in self.assessment.language]
        return pl.DataFrame(rows, infer_schema_length=None)

    @cached_property
    def models(self) -> tuple[Mapping[str, Any], ...]:
        """The models' entries of the manifest, recipes in place of their seeds; controls last."""
        entries = list(self.manifest.get("models", []))
        known = {entry["model_id"]: entry for entry in entries}
        for recipe in self._recipes:
            entries.append({**known[recipe["seeds"][0]], **recipe, **_shared(recipe, known)})
        seeds = {seed for recipe in self._recipes for seed in recipe["seeds"]}
        entries = [entry for entry in entries if entry["model_id"] not in seeds]
        return tuple(sorted(entries, key=lambda m: (bool(m.get("control")), m["name"])))

    @cached_property
    def names(self) -> dict[str, str]:
        """What stands for each model, by its id: its name, or its id where two share a name."""
        names = [shown_name(m) for m in self.models]
        seeds = {seed: seed for recipe in self._recipes for seed in recipe["seeds"]}
        return seeds | {
            m["model_id"]: name if names.count(name) == 1 else m["model_id"]
            for m, name in zip(self.models, names, strict=True)
        }

    @property
    def _recipes(self) -> list[Mapping[str, Any]]:
        done = {entry["model_id"] for entry in self.manifest.get("models", [])}
        return [r for r in self.manifest.get("recipes", []) if {*r["seeds"]} <= done]

    @cached_property
    def title(self) -> str:
        """What the suite calls itself."""
        return self.suite.title

    @cached_property
    def private_sets(self) -> frozenset[str]:
        """Data sets whose pictures are not to be shown; an older run did not say which."""
        known = self.manifest.get("private_sets")
        return frozenset(known if known is not None else self.summary["dataset"].unique())

    def kept(self, model_id: str) -> tuple[Kept, ...]:
        """The cases of a model whose masks the run kept; of a recipe those of its first seed."""
        first = {recipe["model_id"]: recipe["seeds"][0] for recipe in self._recipes}
        return tuple(read_saved_masks(self.folder, first.get(model_id, model_id)))

    @cached_property
    def numbers(self) -> dict[str, int]:
        """A number for each model, in the order of `models`; then for the seeds of recipes."""
        ids = dict.fromkeys([*(m["model_id"] for m in self.models), *self.names])
        return {model_id: n for n, model_id in enumerate(ids, start=1)}


def _shared(recipe: Mapping[str, Any], known: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What a report says of a recipe that no single seed of it can say."""
    weights = [known[seed].get("weights_sha256") or "" for seed in recipe["seeds"]]
    listed = ", ".join(recipe["seeds"])
    note = f"{len(recipe['seeds'])} checkpoints of one recipe: {listed}; pictures are of the first"
    first = list(known[recipe["seeds"][0]].get("notes", ()))
    return {"weights_sha256": ", ".join(weights), "notes": [note, *first]}
