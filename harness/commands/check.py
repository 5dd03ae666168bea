"""``check``: suites, cards, data and models, before anything slow begins."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.commands.options import (
    AsJson,
    Backend,
    DataRoot,
    Datasets,
    DataType,
    Device,
    PromptSource,
    Quiet,
    Split,
)
from harness.commands.output import say, say_json

if TYPE_CHECKING:
    from harness.plan.build import PlannedSet
    from harness.suite.schema import Suite


def check(
    suite: Annotated[
        str | None,
        typer.Argument(
            help="A suite's name or the path of its file. [default: paper; none with --model or "
            "--perturbation]",
            show_default=False,
        ),
    ] = None,
    data_root: DataRoot = None,
    datasets: Datasets = None,
    split: Split = None,
    prompts: PromptSource = None,
    tokens: Annotated[
        int | None,
        typer.Option("--tokens", min=1, help="Report prompts of more CLIP tokens: 77 for CLIP."),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", help="CARD or CARD=CHECKPOINT whose contract is checked; repeat."),
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option("--checkpoint", help="Finetuned weights, with one --model.")
    ] = None,
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="Untrained models, to try the machinery.")
    ] = False,
    picture: Annotated[
        list[Path] | None,
        typer.Option("--picture", help="Picture of the model's domain; repeat. [default: made up]"),
    ] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option("--prompt", help="Prompt that fits the pictures; two or more."),
    ] = None,
    perturbation: Annotated[
        list[str] | None,
        typer.Option("--perturbation", help="NAME whose laws are tried, built in or outside; a,b."),
    ] = None,
    examples: Annotated[
        int, typer.Option("--examples", min=1, help="Prompts invented per dataset and law.")
    ] = 50,
    device: Device = "auto",
    dtype: DataType = "float32",
    backend: Backend = "torch",
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 2 on a finding, too, not only a failure.")
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Check a suite, its cards and every row of its data; a model's contract; a perturbation."""
    from harness.auditing.choices import model_arguments, select_suite, split_names
    from harness.auditing.samples import choose_root, sets_of
    from harness.commands.contract import Trial, exit_code, show, try_model
    from harness.commands.laws import any_broken, try_laws
    from harness.commands.laws import show as show_laws
    from harness.commands.progress import Terminal

    content: dict[str, Any] = {}
    rules = split_names(perturbation)
    models = model_arguments(model or [], checkpoint) if model else []
    if suite is not None or not (model or rules):
        chosen = select_suite(suite or "paper", datasets=datasets, split=split, prompts=prompts)
        silent = quiet or as_json
        root = choose_root(data_root, sets_of(chosen), listener=Terminal())
        content, sets = _suite(chosen, root, tokens=tokens, quiet=quiet, silent=silent)
        content["training_overlap"] = _overlaps(models, sets, root, quiet=silent)
        if not as_json:
            _show_suite(content)
    trial = Trial(
        picture,
        prompt,
        device=device,
        dtype=dtype,
        backend=backend,
        random_weights=random_weights,
    )
    reports = [try_model(one, trial, quiet=quiet or as_json) for one in models]
    tried = try_laws(rules, datasets, examples=examples, quiet=quiet or as_json)
    if as_json:
        content |= {"models": [report.content() for report in reports], "perturbations": tried}
        say_json(content)
    else:
        show(reports, quiet=quiet)
        show_laws(tried, quiet=quiet)
    if exit_code(reports, strict=strict) or any_broken(tried):
        raise typer.Exit(2)


def _suite(
    chosen: "Suite", root: Path, *, tokens: int | None, quiet: bool, silent: bool
) -> "tuple[dict[str, Any], list[PlannedSet]]":
    """Read every row, picture and mask of a suite's data, and count them and their defects."""
    from harness.auditing.samples import read_sets, span_counts
    from harness.commands import defects
    from harness.commands.progress import Terminal
    from harness.plan.build import build_plan

    # Defects first: what stops the reading may be among them.
    inspected = defects.data_check(chosen, root, tokens=tokens, quiet=quiet)
    if not silent:
        defects.show(inspected)
    sets = read_sets(chosen, root, pictures=None, listener=Terminal(quiet=quiet))
    made = build_plan(chosen, sets)
    rows = [
        {
            "dataset": planned.card.name,
            "split": planned.entry.split,
            "samples": len(planned.samples),
            "images": len({s.image_id for s in planned.samples}),
            "clusters": len({s.cluster_id for s in planned.samples}),
            "prompts": sum(len(ps) for s in planned.samples for ps in s.prompts.values()),
            "defects": planned.card.defects,
        }
        for planned in sets
    ]
    counts = {"suite": chosen.name, "datasets": rows, "cases": made.n_cases}
    counts["spans"] = span_counts(sets)
    return counts | {"data": defects.content(inspected)}, sets


def _overlaps(
    models: "Sequence[tuple[str, Path | None]]",
    sets: "list[PlannedSet]",
    root: Path,
    *,
    quiet: bool,
) -> list[dict[str, Any]]:
    """What each model was trained on that the suite would audit it with."""
    from harness.auditing.overlap import training_overlap
    from harness.cards import load_model_card
    from harness.commands.progress import Terminal

    found = []
    for name, _ in models:
        card = load_model_card(name).card
        for one in training_overlap(card.trained_on, sets, root, listener=Terminal(quiet=quiet)):
            said = {"model": card.name, "notes": list(one.sentences())}
            found.append(said | asdict(one))
    return found


def _show_suite(content: dict[str, Any]) -> None:
    from harness.prompts.freetext.counting import span_lines

    for row in content["datasets"]:
        say(
            f"{row['dataset']}/{row['split']}: {row['samples']} samples, {row['images']} images, "
            f"{row['clusters']} clusters, {row['prompts']} prompts parsed."
        )
        for defect in row["defects"]:
            say(f"  known defect: {defect}")
    for line in span_lines(content["spans"]):
        say(line)
    say(f"{content['cases']} cases would be evaluated per model.")
    for one in content["training_overlap"]:
        for sentence in one["notes"] or [_nothing_shared(one)]:
            say(f"{one['model']}: {sentence}")
        for pair in one["pairs"]:
            say(f"  {pair['audited']}  {pair['trained']}  ({pair['distance']} of 64 bits differ)")


def _nothing_shared(one: dict[str, Any]) -> str:
    unread = f" ({one['n_unread']} pictures could not be read)" if one["n_unread"] else ""
    return (
        f"no picture of {one['audited']} is a near copy of one of the {one['n_trained']} in "
        f"{', '.join(one['trained'])}{unread}."
    )
