"""The models of stored runs that a comparison is about."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.auditing.choices import with_rules
from harness.errors import UsageError, nearest
from harness.runs.store import RunStore
from harness.stats.comparison.common import Subject
from harness.stats.pairs import assessed, models_of


def subjects_of(
    runs: Sequence[str], models: Sequence[str], *, rules: Mapping[str, Mapping[str, Any]]
) -> list[Subject]:
    """The models that are compared, in the order of the command line.

    Raises:
        UsageError: A folder is no run, a name is unknown, or fewer than two models are left.
    """
    found = []
    for argument in runs:
        store, name = _opened(argument)
        wanted = [name] if name else list(models)
        _refuse_recipes(argument, store, wanted)
        suite = with_rules(store.suite(), rules)
        facts = [f for f in models_of(store.manifest) if _is_wanted(f, wanted)]
        if name and not facts:
            known = ", ".join(repr(f.name) for f in models_of(store.manifest))
            raise UsageError(
                f"{argument}: no model {name!r} in this run. It holds {known}. Give one of them, "
                "by name or id."
            )
        found += [Subject(f.name, str(store.folder), store, suite, f) for f in facts]
    _refuse_strangers(models, found)
    if len(found) < 2:
        raise UsageError(
            f"compare: found {len(found)} models in {', '.join(runs)}. At least two are needed. "
            "Name another run, or fewer models in --model."
        )
    return _labelled(found)


def _refuse_recipes(argument: str, store: RunStore, wanted: Sequence[str]) -> None:
    """Differences are of models case by case: what a recipe's seeds vary is in none of them."""
    for recipe in assessed(store.manifest):
        if recipe.seeds and not set(recipe.known_as).isdisjoint(wanted):
            listed = ", ".join(recipe.seeds)
            raise UsageError(
                f"{argument}: {recipe.name!r} is a recipe. Single models are compared: what "
                f"training seeds vary would be in no difference. Compare its seeds ({listed}); the "
                "recipe's own figures, with that variance, stand in its run's summary."
            )


def _is_wanted(facts: Any, wanted: Sequence[str]) -> bool:
    return not wanted or not set(facts.known_as).isdisjoint(wanted)


def _refuse_strangers(models: Sequence[str], found: Sequence[Subject]) -> None:
    known = {name for s in found for name in s.facts.known_as}
    for name in models:
        if name not in known:
            raise UsageError(
                f"--model: no run holds a model {name!r}.{nearest(name, known)} Give names or ids "
                "that stand in a run.json."
            )


def _opened(argument: str) -> tuple[RunStore, str]:
    """A run and the model asked for, if any."""
    folder, name = argument, ""
    if not Path(argument).exists() and "#" in argument:
        folder, _, name = argument.rpartition("#")
    store = RunStore(Path(folder))
    if not store.manifest:
        raise UsageError(
            f"{folder}: no run.json here. A run directory, or RUN#MODEL, is needed. Give the "
            "folder that `vlsm-harness run` printed."
        )
    return store, name


def _labelled(subjects: list[Subject]) -> list[Subject]:
    """Each with the shortest kind of name that tells all apart."""
    kinds: list[Callable[[Subject], str]] = [
        lambda s: s.facts.name,
        lambda s: f"{s.facts.name} ({Path(s.run).name})",
        lambda s: s.facts.model_id,
        lambda s: f"{s.facts.model_id} ({s.run})",
    ]
    for kind in kinds:
        labels = [kind(s) for s in subjects]
        if len(set(labels)) == len(labels):
            break
    else:
        labels = [f"{s.facts.name} ({place})" for place, s in enumerate(subjects, 1)]
    return [replace(s, label=label) for s, label in zip(subjects, labels, strict=True)]
