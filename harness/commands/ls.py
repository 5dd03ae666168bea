"""``ls``: the names of what ships with the harness."""

from typing import Annotated

import typer

from harness.commands.options import AsJson
from harness.commands.output import say, say_json

KINDS = ("models", "suites", "datasets", "perturbations", "tracks")


def ls(
    kind: Annotated[str, typer.Argument(help=f"One of {', '.join(KINDS)}.")],
    as_json: AsJson = False,
) -> None:
    """List built-in models, suites, datasets, perturbations or the leaderboard's tracks."""
    from harness.errors import UsageError, choose

    choose(kind, KINDS, kind="kind", where="ls", error=UsageError)
    rows = _rows(kind)
    if as_json:
        say_json(dict(rows))
        return
    width = max(len(name) for name, _ in rows)
    for name, title in rows:
        say(f"{name:<{width}}  {title}")


def _rows(kind: str) -> list[tuple[str, str]]:
    from harness import cards
    from harness.suite import schema as suites

    if kind == "models":
        return [(n, cards.load_model_card(n).card.title) for n in sorted(cards.model_names())]
    if kind == "suites":
        return [(n, suites.load_suite(n).title) for n in suites.suite_names()]
    if kind == "datasets":
        return [(n, cards.load_dataset_card(n).title) for n in cards.dataset_names()]
    if kind == "tracks":
        from harness.leaderboard.tracks import load_track, track_names

        return [(n, load_track(n).title) for n in track_names()]
    from harness.prompts.perturbations import PERTURBATIONS

    return [(n, f"meaning {p.meaning.value}") for n, p in sorted(PERTURBATIONS.items())]
