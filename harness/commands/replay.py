"""``replay``: does a model still break where a hunt found that it does?

Conventions: exit 0 when every break is confirmed, 1 when at least one no longer holds
(the model was repaired there, or is another one), 2 when a file or the data are wrong.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.auditing.choices import model_arguments, split_names
from harness.auditing.samples import choose_root, read_sets
from harness.cards import dataset_names, load_dataset_card
from harness.commands.hunt import hunting
from harness.commands.options import (
    AsJson,
    Backend,
    Checkpoint,
    DataRoot,
    DataType,
    Device,
    Model,
    Quiet,
    RandomWeights,
)
from harness.commands.output import say, say_json
from harness.commands.progress import Terminal
from harness.errors import UsageError, choose

if TYPE_CHECKING:
    from harness.hunt.breaks import Break
    from harness.hunt.hunt import ReplayResult
    from harness.model.loading import LoadedModel
    from harness.plan.build import PlannedSet


def replay(
    place: Annotated[Path, typer.Argument(help="A break's file, or a folder of them.")],
    model: Model,
    checkpoint: Checkpoint = None,
    data_root: DataRoot = None,
    datasets: Annotated[
        list[str] | None,
        typer.Option("--datasets", help="Card files of datasets that do not ship; a,b."),
    ] = None,
    device: Device = "auto",
    dtype: DataType = "float32",
    backend: Backend = "torch",
    random_weights: RandomWeights = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Ask a model again about breaks; exit 1 when one no longer holds."""
    from harness.hunt.breaks import read_breaks
    from harness.model.loading import load_model

    breaks = read_breaks(place)
    cards = _cards(breaks, datasets)
    ((name, file),) = model_arguments([model], checkpoint)
    loaded = load_model(
        name,
        checkpoint=file,
        device=device,
        dtype=dtype,
        backend=backend,
        random_weights=random_weights,
    )
    used = {cards[saved.dataset] for saved in breaks.values()}
    root = choose_root(data_root, used, listener=Terminal())
    found = dict(_replayed(breaks, cards, loaded, root, quiet=quiet or as_json))
    confirmed = sum(one.breaks for one in found.values())
    if as_json:
        rows = [_row(path, one) for path, one in found.items()]
        content = {"model_id": loaded.model_id, "confirmed": confirmed, "breaks": rows}
        say_json(content)
    else:
        for path, one in found.items():
            if not (quiet and one.breaks):
                say(_line(path, one, loaded))
        if not quiet:
            say(f"{loaded.model_id}: {confirmed} of {len(found)} breaks confirmed.")
    if confirmed < len(found):
        raise typer.Exit(1)


def _cards(breaks: "Mapping[Path, Break]", datasets: Sequence[str] | None) -> dict[str, str]:
    """Dataset -> name or path of its card: of a dataset that ships, or of one given here."""
    known = {name: name for name in dataset_names()}
    known |= {load_dataset_card(path).name: path for path in split_names(datasets)}
    for path, saved in breaks.items():
        where = f"{path}: dataset"
        choose(saved.dataset, known, kind="dataset", where=where, error=UsageError)
    return known


def _replayed(
    breaks: "Mapping[Path, Break]",
    cards: Mapping[str, str],
    model: "LoadedModel",
    root: Path,
    *,
    quiet: bool,
) -> "Iterator[tuple[Path, ReplayResult]]":
    """Every break, those of one dataset together, so that each is read once."""
    from harness.hunt.evaluator import ImageEncoder
    from harness.hunt.hunt import replay

    sets: dict[tuple[str, ...], PlannedSet] = {}
    with Terminal(quiet=quiet).progress("replaying", len(breaks), unit="breaks") as advance:
        for path, saved in breaks.items():
            key = (cards[saved.dataset], saved.split, saved.prompt_type, saved.prompts)
            card, split, rung, prompts = key
            suite = hunting([card], split=split, prompt_type=rung, prompts=prompts)
            if key not in sets:
                sets[key] = read_sets(suite, root, listener=Terminal(quiet=quiet))[0]
            metric = suite.metric.model_copy(update={"resolution": _resolution(saved)})
            yield path, replay(saved, sets[key], ImageEncoder(model, metric), where=str(path))
            advance(1)


def _resolution(saved: "Break") -> str:
    """At which size masks were compared; the rest of a signature is the model's own."""
    return "native" if "|res:native|" in saved.signature else "model"


def _line(path: Path, one: "ReplayResult", model: "LoadedModel") -> str:
    before, now = one.saved.figures, one.scores
    verdict = "still breaks" if one.breaks else "no longer breaks"
    same = ""
    if one.saved.model_id == model.model_id:
        same = ", the same figures" if one.same_scores else ", other figures of the same model"
    return (
        f"{path.name}: {verdict} ({one.saved.kind}): Dice {now.dice_original:.3f} -> "
        f"{now.dice:.3f}, was {before.dice_original:.3f} -> {before.dice:.3f}; agreement "
        f"{now.agreement:.3f}, was {before.agreement:.3f}{same}"
    )


def _row(path: Path, one: "ReplayResult") -> dict[str, Any]:
    return {
        "file": str(path),
        "kind": one.saved.kind.value,
        "breaks": one.breaks,
        "same_figures": one.same_scores,
        "found_in": one.saved.model_id,
        "before": one.saved.figures.model_dump(mode="json"),
        "now": one.scores.model_dump(mode="json"),
    }
