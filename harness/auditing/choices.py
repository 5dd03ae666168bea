"""What a command or a notebook chooses: a suite with other data, models with checkpoints."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from harness.model.wrapping import WrappedFunction
    from harness.suite.schema import DatasetEntry, Suite

# Name or path of a card, and the checkpoint to fill it with; or a function.
Models = Sequence[tuple["str | WrappedFunction", Path | None]]


def split_names(values: Sequence[str] | None) -> list[str]:
    """``["a,b", "c"]`` -> ``["a", "b", "c"]``."""
    return [name.strip() for value in values or [] for name in value.split(",") if name.strip()]


class Chosen(NamedTuple):
    """Models that a user gave.

    Attributes:
        models: Each with its checkpoint, in order.
        recipes: Of each recipe (several checkpoints of one card) their places among `models`.
    """

    models: Models
    recipes: tuple[tuple[int, ...], ...]


def recipe_arguments(values: "Sequence[str | WrappedFunction]", checkpoint: Path | None) -> Chosen:
    """``["a=1.pt,2.pt", "b"]`` -> models, of which the first two are one recipe.

    A comma in the name of a file that is there separates nothing. Functions stay as they are.

    Raises:
        UsageError: A recipe has a checkpoint twice, or an empty one.
    """
    flat: list[str | WrappedFunction] = []
    recipes: list[tuple[int, ...]] = []
    for value in values:
        if not isinstance(value, str):
            flat.append(value)
            continue
        name, _, files = value.partition("=")
        seeds = [files] if not files or Path(files).exists() else files.split(",")
        if len(seeds) > 1:
            _refuse_doubled(value, seeds)
            recipes.append(tuple(range(len(flat), len(flat) + len(seeds))))
        flat += [f"{name}={seed}" if seed else name for seed in seeds]
    names = [one for one in flat if isinstance(one, str)]
    cards = iter(model_arguments(names, checkpoint))
    models = [next(cards) if isinstance(one, str) else (one, None) for one in flat]
    return Chosen(models, tuple(recipes))


def _refuse_doubled(value: str, seeds: Sequence[str]) -> None:
    from harness.errors import UsageError

    if not all(seeds) or len({*seeds}) < len(seeds):
        what = "an empty checkpoint" if not all(seeds) else "one checkpoint twice"
        raise UsageError(
            f"--model {value}: found {what}. A recipe is several checkpoints of one model, each "
            "another training seed. Write --model CARD=SEED1.ckpt,SEED2.ckpt with different files."
        )


def model_arguments(
    values: Sequence[str], checkpoint: Path | None
) -> list[tuple[str, Path | None]]:
    """``["a", "b=c.pt"]`` -> names with their checkpoints; `checkpoint` goes with a single name."""
    from harness.errors import UsageError

    models: list[tuple[str, Path | None]] = []
    for value in values:
        name, _, file = value.partition("=")
        if "," in file and not Path(file).exists():
            raise UsageError(
                f"--model {value}: found several checkpoints. One is taken here; `run` takes the "
                f"seeds of a recipe. Name one: --model {name}={file.partition(',')[0]}."
            )
        models.append((name, Path(file) if file else None))
    if checkpoint is not None:
        if len(models) != 1 or models[0][1] is not None:
            raise UsageError(
                f"--checkpoint: given with {len(models)} models. It goes with exactly one --model "
                "without its own. Write --model CARD=CHECKPOINT for each instead."
            )
        models = [(models[0][0], checkpoint)]
    return models


def select_suite(
    name: str,
    *,
    datasets: Sequence[str] | None = None,
    split: str | None = None,
    prompt_type: str | None = None,
    prompts: str | None = None,
    seed: int | None = None,
) -> "Suite":
    """Load a suite and put the command line's choices in place of its own.

    A dataset that the suite does not list is added with the suite's defaults.
    """
    from harness.suite.schema import load_suite

    return with_choices(
        load_suite(name),
        datasets=datasets,
        split=split,
        prompt_type=prompt_type,
        prompts=prompts,
        seed=seed,
    )


def with_choices(
    suite: "Suite",
    *,
    datasets: Sequence[str] | None = None,
    split: str | None = None,
    prompt_type: str | None = None,
    prompts: str | None = None,
    seed: int | None = None,
) -> "Suite":
    """A suite with the command line's choices in place of its own."""
    from harness.errors import UsageError
    from harness.suite.schema import Suite

    entries = list(suite.datasets)
    chosen = split_names(datasets)
    if chosen:
        listed = {entry.name: entry for entry in reversed(suite.datasets)}
        entries = [_entry(wanted, listed) for wanted in chosen]
    asked = {"split": split, "prompt_type": prompt_type, "prompts": prompts}
    overrides = {key: value for key, value in asked.items() if value}
    content = suite.model_dump() | {
        "datasets": [entry.model_dump() | overrides for entry in entries],
        **({} if seed is None else {"seed": seed}),
    }
    try:
        return Suite.model_validate(content).placed(suite.folder)
    except ValueError as problem:
        raise UsageError(
            f"suite {suite.name!r} with these options: {problem}. Correct the options."
        ) from None


def _entry(wanted: str, listed: "dict[str, DatasetEntry]") -> "DatasetEntry":
    """``name``, ``name/split`` or the path of a card; what the suite says of it is kept."""
    from harness.suite.schema import DatasetEntry

    is_file = wanted.endswith((".yaml", ".yml"))
    name, _, split = (wanted, "", "") if is_file else wanted.partition("/")
    entry = listed.get(name, DatasetEntry(name=name))
    return entry.model_copy(update={"split": split}) if split else entry


def with_rules(suite: "Suite", rules: Mapping[str, Mapping[str, Any]]) -> "Suite":
    """The suite with other settings in place of its own; None leaves one as it is."""
    from pydantic import ValidationError

    from harness.errors import UsageError
    from harness.suite.schema import Suite

    content = suite.model_dump()
    for part, values in rules.items():
        content[part] |= {key: value for key, value in values.items() if value is not None}
    try:
        return Suite.model_validate(content)
    except ValidationError as problems:
        first = problems.errors(include_url=False)[0]
        option = {"dice_floor": "floor"}.get(str(first["loc"][-1]), str(first["loc"][-1]))
        raise UsageError(
            f"--{option}: found {first['input']!r}. {first['msg']}. Correct the option."
        ) from None
