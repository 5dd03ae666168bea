"""Says which known model a file of weights looks like.

A card may list keys that only its architecture has (`recognised_by`). The keys of a
file are compared with every card's list; no model is built for it.

Conventions: a share is the part of a card's list that a file has, in [0, 1]. A key of
a file counts with or without a wrapper's prefix (``net.``, ``module.``).
"""

from collections.abc import Iterable, Mapping, Sequence

from harness.cards import load_model_card, model_names

# Below it a resemblance is chance: encoders and heads of the same library share names.
ENOUGH = 0.75


def fingerprints() -> dict[str, tuple[str, ...]]:
    """The characteristic keys of every model that ships with the harness and lists them."""
    cards = {name: load_model_card(path).card for name, path in model_names().items()}
    return {name: tuple(card.recognised_by) for name, card in cards.items() if card.recognised_by}


def shares(keys: Iterable[str], known: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """How much of each model's list the keys of a file cover."""
    endings = {ending for key in keys for ending in _endings(key)}
    return {
        name: sum(key in endings for key in listed) / len(listed) for name, listed in known.items()
    }


def _endings(key: str) -> Iterable[str]:
    steps = key.split(".")
    return (".".join(steps[depth:]) for depth in range(len(steps)))


def likeness(keys: Iterable[str]) -> str:
    """A sentence that names the model of the keys, or nothing.

    Of lists that are covered equally the longest tells most.
    """
    known = fingerprints()
    found = {name: share for name, share in shares(keys, known).items() if share >= ENOUGH}
    best = max(((share, len(known[name])) for name, share in found.items()), default=None)
    names = [repr(name) for name, share in found.items() if (share, len(known[name])) == best]
    return f"Its keys look like the model {' or '.join(sorted(names))}. " if names else ""
