"""The tables of a study, from what `study.py` trained and ran.

Conventions: changes are percent of Dice, refusal a share of prompts for what is absent, both with
95 % limits. A stage's shift is a mean distance over that of another picture's prompt.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import torch

from harness.cards import load_dataset_card
from harness.data import load_samples
from harness.data.images import read_image
from harness.model.loading import LoadedModel, load_model
from harness.report.sheet import interval, number
from harness.runs.store import RunStore

KVASIR = "kvasir_polyp"
ATTRIBUTES = ("size", "number", "color", "shape", "location")
KINDS = ("absent_near", "absent_far", "absent_nonsense", "absent_modality")
WHOLE = ("empty", "p1", "other_sample", "paraphrase", "typo")
REFUSED = 0.001  # of the picture, at least 10 pixels: what is painted by a model that refuses
Rows = Iterator[Sequence[object]]


def markdown(header: Sequence[str], rows: Rows) -> str:
    """A table; the first column is text, the others are figures."""
    lines = [header, ["---", *["--:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


class Found:
    """A run's summary and verdicts, by the names of its cells."""

    def __init__(self, run: Path, labels: Mapping[str, str]) -> None:
        self.labels = labels
        self.summary = pl.read_parquet(run / "summary.parquet")
        content = json.loads((run / "verdicts.json").read_text(encoding="utf-8"))
        self.language = {(v["model"], v["dataset"]): v for v in content["language"]}

    def row(self, cell: str, dataset: str, probe: str, attribute: str | None = None) -> Any:
        """One row of the summary; None where there is none."""
        own = self.summary.filter(model=self.labels[cell], dataset=dataset, probe=probe).filter(
            pl.col("attribute").eq_missing(attribute)
        )
        return next(own.iter_rows(named=True), None)


def trainings(folders: Mapping[str, Sequence[Path]]) -> str:
    """What was trained, for how long, and the validation Dice of each seed."""

    def rows() -> Rows:
        for cell, places in folders.items():
            held = [json.loads((place / "figures.json").read_text()) for place in places]
            trained = held[0]["n_parameters_trained"] / 1e6
            digits = 2 if trained >= 0.01 else 4
            dice = ", ".join(number(one["val_dice"], 3) for one in held)
            epochs = ", ".join(str(one["best_epoch"] + 1) for one in held)
            minutes = ", ".join(number(one["elapsed_s"] / 60, 0) for one in held)
            yield cell, number(trained, digits), dice, epochs, minutes

    header = ("cell", "trained, M", "validation Dice by seed", "best epoch", "minutes")
    return markdown(header, rows())


def words(found: Found) -> str:
    """Dice on Kvasir test, its spread between seeds, and what whole prompts do."""

    def rows() -> Rows:
        for cell in found.labels:
            own = found.row(cell, KVASIR, "original")
            yield (
                cell,
                interval(own, "dice", "", 3),
                number(own["seed_deviation_dice"], 3),
                *(
                    interval(found.row(cell, KVASIR, p), "relative_change", "_percent", 1)
                    for p in WHOLE
                ),
            )

    return markdown(
        ("cell", "Dice", "seeds' sd", "empty", "class alone", "another's", "paraphrase", "typo"),
        rows(),
    )


def attributes(found: Found) -> str:
    """What exchanging one word does, and what the verdict says of the attribute."""

    def cell_of(cell: str, name: str) -> str:
        verdict = found.language[found.labels[cell], KVASIR]
        states = {"heard": "heard", "unheard": "not heard", "unclear": "cannot tell"}
        state = next((s for k, s in states.items() if name in verdict[k]), "-")
        changes = [
            interval(row, "relative_change", "_percent", 1)
            for probe in ("swap_value", "antonym")
            if (row := found.row(cell, KVASIR, probe, name)) is not None
        ]
        return f"{' / '.join(changes)}: {state}"

    def rows() -> Rows:
        for name in ATTRIBUTES:
            yield name, *(cell_of(cell, name) for cell in found.labels)

    return markdown(("attribute", *found.labels), rows())


def agreement(found: Found) -> str:
    """Dice of the masks before and after the opposite word; 1 where nothing moved."""

    def rows() -> Rows:
        for name in ATTRIBUTES:
            held = [found.row(cell, KVASIR, "antonym", name) for cell in found.labels]
            yield name, *("-" if row is None else interval(row, "agreement", "", 2) for row in held)

    return markdown(("attribute", *found.labels), rows())


def refusal(found: Found, datasets: Sequence[str]) -> str:
    """The share of prompts for what is absent that are refused, by kind, and what it cost."""

    def rows() -> Rows:
        for dataset in datasets:
            for cell in found.labels:
                held = [found.row(cell, dataset, kind) for kind in KINDS]
                rates = ["-" if r is None else interval(r, "refusal_rate", "", 2) for r in held]
                first = found.row(cell, dataset, "empty")
                missed = next((interval(r, "miss_rate", "", 2) for r in held if r), "-")
                yield dataset, cell, *rates, missed, interval(first, "reference_dice", "", 3)

    header = ("data set", "cell", "near", "far", "nonsense", "other modality", "missed", "Dice")
    return markdown(header, rows())


def empties(run: Path, labels: Mapping[str, str]) -> str:
    """Of BUSI's pictures without a tumor, asked with their own prompt: how many stay empty."""
    store = RunStore(run)
    plan = store.plan_cases().filter(dataset="busi", perturbation="original")
    limit = pl.max_horizontal(REFUSED * pl.col("height") * pl.col("width"), 10)
    answers = store.scores().join(plan.select("case_id", "dataset"), on="case_id")
    normal = answers.filter(n_gt=0).with_columns(is_empty=pl.col("n_pred") <= limit)
    # A run that was continued with changed models still holds what it had of the earlier ones.
    asked = set(store.manifest["evaluated"])
    cells = {
        m["model_id"]: m["card"]["name"] for m in store.manifest["models"] if m["model_id"] in asked
    }

    def rows() -> Rows:
        for cell in labels:
            own = normal.filter(pl.col("model_id").replace_strict(cells, default=None) == cell)
            yield cell, own.height, number(own["is_empty"].mean(), 2)

    return markdown(("cell", "answers", "empty masks"), rows())


def language(comparisons: Mapping[str, Sequence[Path]]) -> str:
    """Kept, lost, gained, never heard, by seed, with the differences of the changes."""

    def rows() -> Rows:
        for pair, places in comparisons.items():
            held = [json.loads(p.read_text(encoding="utf-8")) for p in places if p.is_file()]
            own = [{a["name"]: a for a in one["aspects"] if a["dataset"] == KVASIR} for one in held]
            for name in sorted(own[0], key=_ORDER.index):
                found = [one[name] for one in own]
                outcomes = ", ".join(one["outcome"] for one in found)
                yield pair, name, outcomes, *(_by_seed(found, key) for key in _THREE)

    header = ("base → tuned", "what", "outcome by seed", "base", "tuned", "difference")
    return markdown(header, rows())


_ORDER = ("the whole prompt", *ATTRIBUTES, "class", "steadiness", "refusal")
# Key of the figures -> key of the state that stands behind each.
_THREE = {"value_base": "base", "value_tuned": "tuned", "difference": ""}


def _by_seed(found: Sequence[Mapping[str, Any]], key: str) -> str:
    """The figures of all seeds, and the states; limits stand in the comparisons themselves."""
    shown = []
    for one in found:
        digits = 2 if one["figure"] in ("steadiness", "refusal") else 1
        state = one.get(_THREE[key], "")
        shown.append(f"{number(one[key][0], digits)} {state}".strip())
    return ", ".join(shown)


def stages(run: Path, folders: Mapping[str, Sequence[Path]], data: Path) -> str:
    """How far an exchanged word moves the text's vector, the fused maps and the mask, by training.

    Each as a share of what another picture's whole prompt does: a word that is lost between two
    columns is lost there.
    """

    def rows() -> Rows:
        for cell, places in folders.items():
            held = [_kept_shifts(place, run, data) for place in places]
            for name in ATTRIBUTES:
                shares = [
                    "/".join(number(one[name][stage], 2) for one in held)
                    for stage in ("text", "fused", "mask")
                ]
                yield cell, name, *shares

    return markdown(("cell", "attribute", "text vector", "fused maps", "mask"), rows())


def _kept_shifts(place: Path, run: Path, data: Path) -> dict[str, dict[str, float]]:
    """The shifts of one training, measured once."""
    path = place / "stages.json"
    if not path.is_file():
        found = shifts(load_model(place / "card.yaml", device="cpu"), run, data)
        path.write_text(json.dumps(found, indent=1), encoding="utf-8")
    kept: dict[str, dict[str, float]] = json.loads(path.read_text(encoding="utf-8"))
    return kept


def shifts(model: LoadedModel, run: Path, data: Path) -> dict[str, dict[str, float]]:
    """Attribute -> stage -> mean shift under `swap_value`, over that under `other_sample`."""
    plan = pl.read_parquet(run / "plan.parquet").filter(
        pl.col("probe").is_in(["swap_value", "other_sample"]), dataset=KVASIR, repeat=0
    )
    card = load_dataset_card(KVASIR)
    samples = {one.sample_id: one for one in load_samples(card, data, "test")}
    totals: dict[str, list[list[float]]] = {name: [] for name in (*ATTRIBUTES, "other")}
    with torch.inference_mode():
        for (sample_id,), rows in plan.group_by("sample_id", maintain_order=True):
            sample = samples[str(sample_id)]
            pixels = model.adapter.preprocess(read_image(sample.image, sample.reading))[None]
            maps = model.adapter.encode_images(pixels)
            for row in rows.iter_rows(named=True):
                name = "other" if row["probe"] == "other_sample" else row["attribute"]
                if name in totals:
                    pair = (row["original_prompt"], row["prompt"])
                    totals[name].append(_moved(model, maps, pair))
    means = {name: torch.tensor(found).mean(dim=0) for name, found in totals.items() if found}
    return {
        name: dict(zip(("text", "fused", "mask"), (mean / means["other"]).tolist(), strict=True))
        for name, mean in means.items()
    }


def _moved(model: LoadedModel, maps: Any, pair: tuple[str, str]) -> list[float]:
    """Distance of the vectors, of the modulated maps (mean over levels), and of the masks."""
    adapter: Any = model.adapter
    texts = adapter.encode_texts(list(pair))
    both = type(maps)(*(leaf.expand(2, -1, -1, -1) for leaf in maps))
    fused = adapter.module.decoder.modulated(both, texts)
    masks = adapter.decode(both, texts) > 0
    union = float((masks[0] | masks[1]).sum())
    apart = float((masks[0] ^ masks[1]).sum()) / union if union else 0.0
    levels = [float((level[1] - level[0]).norm() / level[0].norm()) for level in fused]
    vector = float((texts.vector[1] - texts.vector[0]).norm())
    return [vector, sum(levels) / len(levels), apart]
