"""``hunt``: the smallest edit that breaks this model on this sample."""

from collections import Counter
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from harness.auditing.choices import model_arguments, split_names, with_choices
from harness.auditing.samples import choose_root, read_sets, sets_of
from harness.commands.laws import rules_named
from harness.commands.options import (
    AsJson,
    Backend,
    Checkpoint,
    DataRoot,
    DataType,
    Device,
    Limit,
    Model,
    PromptRung,
    PromptSource,
    Quiet,
    RandomWeights,
    Split,
)
from harness.commands.output import say, say_json, terminal
from harness.commands.peek import sides
from harness.commands.progress import Terminal
from harness.errors import NothingSelectedError, UsageError, choose
from harness.files.writing import make_folder, refuse_unwritable
from harness.prompts.lexicon import load_lexicon
from harness.prompts.perturbations import PERTURBATIONS, Perturbation
from harness.suite.schema import Suite

if TYPE_CHECKING:
    from harness.hunt.hunt import Hunt, PromptResult
    from harness.hunt.space import Kind
    from harness.model.loading import LoadedModel

KINDS = ("preserved", "deaf", "both")


def hunt(
    model: Model,
    datasets: Annotated[
        list[str],
        typer.Option("--datasets", help="NAME, NAME/SPLIT or card file: a,b or repeated."),
    ],
    checkpoint: Checkpoint = None,
    kind: Annotated[
        str,
        typer.Option(
            "--kind",
            help="preserved: same meaning, Dice falls by more than 20 %. deaf: another target is "
            "named, the mask stays. both.",
        ),
    ] = "both",
    families: Annotated[
        list[str] | None,
        typer.Option("--families", help="Perturbations to try: a,b. [default: all that fit]"),
    ] = None,
    budget: Annotated[
        int, typer.Option("--budget", min=2, help="Calls of the model per prompt and kind.")
    ] = 1000,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for breaks to replay.")] = Path(
        "breaks"
    ),
    data_root: DataRoot = None,
    split: Split = None,
    prompt_type: PromptRung = None,
    prompts: PromptSource = None,
    limit: Limit = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of Hypothesis.")] = 0,
    device: Device = "auto",
    dtype: DataType = "float32",
    backend: Backend = "torch",
    random_weights: RandomWeights = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Search, sample by sample, for the smallest edit that breaks a model; write each to a file."""
    from harness.hunt.hunt import HuntConfig
    from harness.model.loading import load_model

    choose(kind, KINDS, kind="kind", where="--kind", error=UsageError)
    rules = _rules(kind, families)
    suite = hunting(datasets, split=split, prompt_type=prompt_type, prompts=prompts, seed=seed)
    ((name, file),) = model_arguments([model], checkpoint)
    refuse_unwritable(out, is_folder=True)
    root = choose_root(data_root, sets_of(suite), listener=Terminal())
    sets = read_sets(suite, root, limit=limit, listener=Terminal(quiet=quiet or as_json))
    loaded = load_model(
        name,
        checkpoint=file,
        device=device,
        dtype=dtype,
        backend=backend,
        random_weights=random_weights,
    )
    config = HuntConfig(list(rules), rules, budget, seed, suite.statistics.dice_floor)
    found = _hunt_all(_hunts(loaded, suite, sets, config), out, quiet=quiet, as_json=as_json)
    if as_json:
        content = {"model_id": loaded.model_id, "hypothesis": version("hypothesis"), "seed": seed}
        rows = [_row(outcome, out) for outcome in found]
        say_json(content | {"prompts": rows})
    elif not quiet:
        _sum_up(found, loaded, out, seed)


def hunting(
    datasets: Sequence[str],
    *,
    split: str | None = None,
    prompt_type: str | None = None,
    prompts: str | None = None,
    seed: int = 0,
) -> Suite:
    """A suite without probes, for verbs that choose their own edits."""
    if prompts == "table":
        raise UsageError(
            "--prompts: found 'table'. A hunt begins with released or corrected prompts, which "
            "can be parsed. Leave it out."
        )
    if not split_names(datasets):
        raise UsageError(
            "--datasets: found no name. A hunt needs at least one dataset. Name it; "
            "`vlsm-harness ls datasets` lists them."
        )
    return with_choices(
        Suite(name="hunt", title="The smallest edit that breaks a model"),
        datasets=datasets,
        split=split,
        prompt_type=prompt_type,
        prompts=prompts,
        seed=seed,
    )


def _rules(kind: str, families: Sequence[str] | None) -> "dict[Kind, list[Perturbation]]":
    """The perturbations of each kind; of those named, the ones that do what the kind needs."""
    from harness.hunt.hunt import families as all_families
    from harness.hunt.space import Kind

    kinds = list(Kind) if kind == "both" else [Kind(kind)]
    named = rules_named(split_names(families), where="--families")
    if not named:
        return {one: all_families(one, PERTURBATIONS) for one in kinds}
    found = {one: [rule for rule in named if rule.meaning is one.meaning] for one in kinds}
    found = {one: rules for one, rules in found.items() if rules}
    if not found:
        meanings = {rule.name: rule.meaning.value for rule in named}
        wanted = " or ".join(repr(one.meaning.value) for one in kinds)
        raise UsageError(
            f"--families: {meanings!r}. For --kind {kind} the meaning must be {wanted}. Name other "
            "perturbations, or another kind."
        )
    return found


def _hunts(model: "LoadedModel", suite: Suite, sets: Any, config: Any) -> "list[Hunt]":
    from harness.hunt.evaluator import ImageEncoder
    from harness.hunt.hunt import Hunt

    encoder, lexicon = ImageEncoder(model, suite.metric), load_lexicon(suite.lexicon)
    hunts = [Hunt(planned, encoder, lexicon, config) for planned in sets]
    if not any(one.prompts() for one in hunts):
        raise NothingSelectedError(
            "hunt: no prompt is left. At least one sample with a prompt of the chosen type is "
            "needed. Loosen --datasets, --split, --prompt-type or --limit."
        )
    return hunts


def _hunt_all(
    hunts: "Sequence[Hunt]", out: Path, *, quiet: bool, as_json: bool
) -> "list[PromptResult]":
    """Hunt on every prompt, write each break at once, and show it."""
    from harness.hunt.breaks import write_break

    make_folder(out)
    found, total = [], sum(len(one.prompts()) for one in hunts)
    with Terminal(quiet=quiet or as_json).progress("hunting", total, unit="prompts") as advance:
        for outcome in (outcome for one in hunts for outcome in one.results()):
            found.append(outcome)
            if outcome.smallest is not None:
                write_break(outcome.smallest, out)
            if not (quiet or as_json):
                _show(outcome)
            advance(1)
    return found


def _show(outcome: "PromptResult") -> None:
    console = terminal(110)
    sample, case = outcome.sample, outcome.smallest
    head = f"{sample.dataset}/{sample.split}/{sample.sample_id} {outcome.kind}: "
    if case is None:
        tail = outcome.reason or _nothing(outcome)
        console.print(Text(head + tail, style="dim"), soft_wrap=True)
        return
    line = Text(head, style="bold").append_text(_difference(case))
    console.print(line, soft_wrap=True)
    figures, size = case.figures, case.size
    lost = "" if figures.edit_survives is not False else "; truncation cuts the edit away"
    console.print(
        Text(
            f"  {', '.join(case.made_by)}: {size.edits} edits, {size.characters} characters; Dice "
            f"{figures.dice_original:.3f} -> {figures.dice:.3f}, agreement {figures.agreement:.3f};"
            f" smallest: {case.search.minimality}, {case.search.calls} calls{lost}"
        ),
        soft_wrap=True,
    )


def _nothing(outcome: "PromptResult") -> str:
    search = outcome.search
    assert search is not None  # without a reason it was hunted
    return f"no break in {search.calls} calls ({search.minimality})"


def _difference(case: Any) -> Text:
    """The original with removed words struck out and inserted ones in green."""
    left, right = sides({"original_prompt": case.original_prompt, "prompt": case.variant})
    return Text(" -> ").join([left, right])


def _row(outcome: "PromptResult", out: Path) -> dict[str, Any]:
    """One prompt for ``--json``."""
    sample, search, case = outcome.sample, outcome.search, outcome.smallest
    return {
        "dataset": sample.dataset,
        "split": sample.split,
        "sample_id": sample.sample_id,
        "prompt": outcome.prompt.text,
        "kind": outcome.kind.value,
        "skipped": outcome.reason,
        "calls": None if search is None else search.calls,
        "tried": None if search is None else search.n_tried,
        "minimality": None if search is None else search.minimality.value,
        "file": None if case is None else str(out / case.file_name),
        "break": None if case is None else case.model_dump(mode="json"),
    }


def _sum_up(found: "Iterable[PromptResult]", model: "LoadedModel", out: Path, seed: int) -> None:
    counts: Counter[tuple[str, str]] = Counter()
    for outcome in found:
        what = "skipped" if outcome.reason else "broken" if outcome.smallest else "unbroken"
        counts[outcome.kind.value, what] += 1
    for kind in dict.fromkeys(name for name, _ in counts):
        parts = [f"{counts[kind, what]} {what}" for what in ("broken", "unbroken", "skipped")]
        say(f"{model.model_id} {kind}: {', '.join(parts)}.")
    say(f"seed {seed}, Hypothesis {version('hypothesis')}.")
    if any(what == "broken" for _, what in counts):
        say(f"  vlsm-harness replay {out} --model ... asks again about every break.")
