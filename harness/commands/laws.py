"""Tries the laws of perturbations and shows what broke, for ``check --perturbation``."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.commands.output import say

if TYPE_CHECKING:
    from harness.prompts.perturbations import Perturbation


def rules_named(names: Sequence[str], *, where: str) -> "list[Perturbation]":
    """Perturbations by name; those of outside packages are loaded where a name is not built in."""
    from harness.errors import UsageError, choose
    from harness.prompts.perturbations import PERTURBATIONS, load_outside

    if any(name not in PERTURBATIONS for name in names):
        load_outside()  # imports other packages' code, so only where a name is asked for
    return [
        PERTURBATIONS[
            choose(name, PERTURBATIONS, kind="perturbation", where=where, error=UsageError)
        ]
        for name in names
    ]


def try_laws(
    names: Sequence[str], datasets: Sequence[str] | None, *, examples: int, quiet: bool
) -> list[dict[str, Any]]:
    """Per perturbation its name, the grammars tried, and one breach for each law that breaks."""
    from harness.auditing.choices import split_names
    from harness.cards import dataset_names
    from harness.commands.progress import Terminal
    from harness.prompts.laws import Breach, check_perturbation

    rules = rules_named(names, where="--perturbation")
    grammars = split_names(datasets) or dataset_names()
    found = []
    for rule in rules:
        broken: dict[str, Breach] = {}
        title = f"laws of {rule.name}"
        with Terminal(quiet=quiet).progress(title, len(grammars), unit="grammars") as advance:
            for grammar in grammars:
                for breach in check_perturbation(rule, datasets=[grammar], examples=examples):
                    broken.setdefault(breach.law, breach)
                advance(1)
        breaches = [breach._asdict() | {"text": str(breach)} for breach in broken.values()]
        found.append({"name": rule.name, "grammars": list(grammars), "breaches": breaches})
    return found


def show(tried: Sequence[dict[str, Any]], *, quiet: bool) -> None:
    """Print every breach, and what holds unless quiet."""
    from harness.prompts.laws import LAWS

    for one in tried:
        for breach in one["breaches"]:
            say(breach["text"])
        if one["breaches"] or not quiet:
            kept = len(LAWS) - len(one["breaches"])
            say(
                f"{one['name']}: {kept} of {len(LAWS)} laws hold on the grammars of "
                f"{len(one['grammars'])} datasets."
            )


def any_broken(tried: Sequence[dict[str, Any]]) -> bool:
    """Whether a perturbation breaks a law."""
    return any(one["breaches"] for one in tried)
