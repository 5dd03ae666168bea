"""Matches the keys of a file of weights to those of a model.

A file may hold several *states* (dictionaries of tensors), each with the model's keys
behind a wrapper's prefix, with a wrapper between two of their steps, and with more
beside them. No tensor is looked at here but those that are compared in shape.
A file of a larger model may hold all of a smaller one: it is refused, because without
the rest (adapters, learned context) the smaller one gives other masks.

Conventions: a state has a dotted place in its file, empty at the top; a *path* is the
place and the prefix together, such as ``ema_state_dict.net``. A card may list keys that
only its architecture has (`recognised_by`); a share is the part of such a list that a
file has, in [0, 1].
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache
from itertools import islice
from types import MappingProxyType
from typing import NamedTuple

import torch

from harness.cards import load_model_card, model_names
from harness.errors import CheckpointError

# Below it a resemblance is chance: encoders and heads of the same library share names.
ENOUGH = 0.75
# What libraries put between a module and its owner, wherever a module was wrapped.
_WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
# Real keys have about a hundred letters, and matching takes the square of them.
LONGEST_KEY = 500
# States that belong to the training, not to the model.
_OF_THE_TRAINER = {"optimizer", "optimizers", "optimizer_states", "scheduler", "lr_schedulers"}
_OF_THE_TRAINER |= {"callbacks", "loops", "scaler", "rng_state", "hyper_parameters"}
_PARTS_OF_LORA = (".lora_A", ".lora_B", ".lora_down", ".lora_up")

States = Mapping[str, Collection[str]]


class Match(NamedTuple):
    """Where in a file the keys of a model stand: the model's key -> the state's key."""

    state: str
    prefix: str
    keys: Mapping[str, str]

    @property
    def path(self) -> str:
        """Place and prefix together."""
        return f"{self.state}.{self.prefix}".strip(".")


class Found(NamedTuple):
    """Every complete match of a file, or the best of the others.

    `was_chosen` says that there were several and one was asked for.
    """

    matches: Sequence[Match]
    was_chosen: bool


def is_counter(key: str) -> bool:
    """Whether no result depends on the key: batch norm's number of training steps."""
    return key.endswith("num_batches_tracked")


def search(wanted: Iterable[str], states: States, *, choice: str | None, where: str) -> Found:
    """Find a model's keys in a file, behind whatever prefix.

    `states` are keys by place, the most usual place first; `choice` is a path, or some steps of it,
    that the match must have.
    """
    wanted = list(wanted)
    needed = {key for key in wanted if not is_counter(key)}
    if not needed:
        return Found([Match(next(iter(states)), "", {})], was_chosen=False)
    names = {_bare(key.split(".")): key for key in wanted}
    every = [match for place, keys in states.items() for match in _matches(place, keys, names)]
    complete = [match for match in every if needed <= set(match.keys)]
    if choice is None:
        return Found(complete or [_best(every, states)], was_chosen=False)
    chosen = _under(choice, every)
    if not chosen:
        paths = [match.path for match in complete] or list(states)
        raise CheckpointError(
            f"{where}: there are no weights of this model under {choice!r}. The file has "
            f"{_quoted(paths)}. Correct what follows the '#'."
        )
    asked = [match for match in complete if match in chosen]
    return Found(asked or [_best(chosen, states)], was_chosen=len(complete) > 1)


def _matches(place: str, keys: Iterable[str], names: Mapping[str, str]) -> Iterable[Match]:
    """The model's keys behind each prefix of one state."""
    behind: dict[str, dict[str, str]] = {}
    for key in keys:
        steps = key[:LONGEST_KEY].split(".")
        for depth in range(len(steps)):
            name = names.get(_bare(steps[depth:]))
            # A wrapper in front belongs to the prefix, unless the model itself has it.
            is_prefix = steps[depth] in _WRAPPERS and name != ".".join(steps[depth:])
            if name is not None and not is_prefix and len(key) <= LONGEST_KEY:
                behind.setdefault(".".join(steps[:depth]), {}).setdefault(name, key)
    return (Match(place, prefix, found) for prefix, found in behind.items())


def _bare(steps: Sequence[str]) -> str:
    """A key without the wrappers between its steps."""
    return ".".join(step for step in steps if step not in _WRAPPERS) or ".".join(steps)


def _best(matches: Iterable[Match], states: States) -> Match:
    """The match with most keys; nothing, in the first state, where there is none."""
    nothing = Match(next(iter(states)), "", {})
    return max([nothing, *matches], key=lambda m: (len(m.keys), -len(m.prefix)))


def _under(choice: str, matches: Sequence[Match]) -> list[Match]:
    """Matches whose path is or begins with `choice`; else those that have it inside."""
    first = [m for m in matches if m.path == choice or m.path.startswith(f"{choice}.")]
    return first or [m for m in matches if f".{choice}." in f".{m.path}."]


def several(where: str, matches: Sequence[Match]) -> str:
    """What is to be said of a file in which several sets of weights fit."""
    places = [match.state for match in matches]
    unique = len(set(places)) == len(places) and all(places)
    labels = places if unique else [match.path for match in matches]
    return (
        f"{where}: {len(labels)} sets of weights in this file fill the model, with different "
        f"numbers: {_quoted(labels)}. Averaged weights often lie beside the trained ones; one of "
        f"them must be meant. Say which behind a '#', such as {where}#{labels[-1]} (after "
        "--model CARD=, --checkpoint, or 'path' on the card)."
    )


def describe_misfit(
    given: Mapping[str, torch.Tensor],
    match: Match,
    wanted: Mapping[str, torch.Tensor],
    *,
    unsaved: Collection[str],
    states: States,
) -> str:
    """Why a match does not fill the model, and what to do; empty where it does.

    `given` are the tensors of the match by the model's keys. `unsaved` are buffers that the model
    does not save, but a file may have.
    """
    missing = [repr(key) for key in wanted if key not in given and not is_counter(key)]
    unused = _unused(match, states, unsaved)
    tops = {key.partition(".")[0] for key in wanted}
    surplus = [name for name, is_own in unused if missing or (is_own and _top(name) in tops)]
    shapes = [
        f"{key!r} {tuple(value.shape)} instead of {tuple(wanted[key].shape)}"
        for key, value in given.items()
        if value.shape != wanted[key].shape
    ]
    kinds = {
        "missing": missing,
        "unexpected": [repr(name[:120]) for name in surplus],
        "mis-shaped": shapes,
    }
    parts = [f"{len(found)} {kind}, first {found[0]}" for kind, found in kinds.items() if found]
    if not parts:
        return _part_of_another(match, states) if unused else ""
    if missing and surplus and 2 * len(shapes) > len(given):
        seen = "It is a model of another size, of this family or one like it."
        repair = _TRAINED_WITH
    else:
        whole = not missing
        seen, repair = _advice(match, states, n_wanted=len(wanted), is_whole=whole, more=surplus)
    return (
        f"{'; '.join(parts)}. {seen} All {len(wanted)} keys must be there in the model's shapes. "
        f"{repair}"
    )


def _unused(match: Match, states: States, unsaved: Collection[str]) -> list[tuple[str, bool]]:
    """Keys of the state that the match leaves out, without the prefix, which tells its own."""
    used, start = set(match.keys.values()), f"{match.prefix}." if match.prefix else ""
    names = (
        (key.removeprefix(start), key.startswith(start))
        for key in states[match.state]
        if key not in used
    )
    return [(name, own) for name, own in names if _bare(name.split(".")) not in unsaved]


def _top(name: str) -> str:
    return _bare(name[:LONGEST_KEY].split(".")).partition(".")[0]


_TRAINED_WITH = "Give the card whose settings the checkpoint was trained with."


def _advice(
    match: Match, states: States, *, n_wanted: int, is_whole: bool, more: Collection[str]
) -> tuple[str, str]:
    """What the file seems to be, and how to repair it."""
    keys = list(states[match.state])
    # A model of few keys with usual names finds them somewhere in every file.
    is_whole = is_whole and len(match.keys) * 2 >= len(keys)
    if is_whole and not more:
        return "Every key is there: it is the same architecture in another size.", _TRAINED_WITH
    if is_whole and (known := _with_any(more)):
        return f"Every key is there, and more. {_looks_like(known)}", f"{_as_model(known)}."
    if is_whole:
        return "Every key is there, and its parts have more of them: it is larger.", _TRAINED_WITH
    seen = f"The file has {_quoted([key[:120] for key in islice(keys, 3)])}"
    seen += f" and {len(keys) - 3} more." if len(keys) > 3 else "."
    if any(part in key for key in keys for part in _PARTS_OF_LORA):
        return f"{seen} They are low-rank additions (LoRA) to a model's weights.", (
            "Name the file on a card of your own, with its base: `extends: MODEL`, `weights: "
            "{path: BASE}` or `checkpoint`, and `lora: {path: FILE, alpha: N}`; or merge them "
            "into the model and save its state_dict()."
        )
    known = _most_alike(keys)
    if match.keys and not more:
        part = f"{seen} All of them are this model's: the file holds a part of it"
        whole = "the whole state_dict(), with the parts that were not trained"
        if known:
            return f"{part}, or is whole as another. {_looks_like(known)}", (
                f"{_as_model(known)}, or save {whole}."
            )
        return f"{part}.", f"Save {whole}, or give the card whose settings it was trained with."
    if known:
        return f"{seen} {_looks_like(known)}", f"{_as_model(known)}, or give a file of this model."
    if len(match.keys) * 2 < n_wanted:
        return f"{seen} It is another model's.", "Give the card of the model that was trained."
    return f"{seen} It is a part of this model, or another version of it.", (
        "Give the whole model, or the card whose settings the checkpoint was trained with."
    )


def _with_any(more: Collection[str]) -> list[str]:
    """Models that the keys which are too many belong to."""
    return [
        name
        for name, listed in fingerprints().items()
        if any(f".{key}".endswith(f".{own}") for own in listed for key in more)
    ]


def describe_rest(match: Match, states: States, *, unsaved: Collection[str]) -> str:
    """What a file holds besides what is loaded, without a full stop; empty for nothing."""
    start = f"{match.prefix}." if match.prefix else ""
    rest = [start * own + name for name, own in _unused(match, states, unsaved)]
    named = [repr(key[:120]) for key in rest[:3]]
    named += [f"{len(rest) - 3} more keys beside them"] * (len(rest) > 3)
    others = [
        f"{len(keys)} tensors under {place[:120]!r}" if place else f"{len(keys)} at its top"
        for place, keys in states.items()
        if place != match.state and place.partition(".")[0] not in _OF_THE_TRAINER
    ]
    named += others[:4] + [f"{len(others) - 4} more places"] * (len(others) > 4)
    what = f"the weights under {match.path[:120]!r}" if match.path else "the weights at its top"
    return f"{what} were loaded; not used: {', '.join(named)}" if named else ""


def _quoted(names: Iterable[str]) -> str:
    names = list(dict.fromkeys(names))
    shown = ", ".join(repr(name[:120]) for name in names[:6])
    return shown + (f" and {len(names) - 6} more" if len(names) > 6 else "")


@cache
def fingerprints() -> Mapping[str, tuple[str, ...]]:
    """The characteristic keys of every model that ships with the harness and lists them.

    A family has an entry a kind, such as ``vlsm-adapter: shallow VLC``. The cards are read once.
    """
    known: dict[str, tuple[str, ...]] = {}
    for name, path in model_names().items():
        card = load_model_card(path).card
        kinds = card.recognised_kinds.items()
        known |= {f"{name}: {kind}": tuple(keys) for kind, keys in kinds}
        if card.recognised_by:
            known[name] = tuple(card.recognised_by)
    return MappingProxyType(known)


def shares(keys: Iterable[str], known: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """How much of each model's list the keys of a file cover, behind whatever prefix."""
    endings = {ending for key in keys for ending in _endings(key)}
    return {
        name: sum(key in endings for key in listed) / len(listed) for name, listed in known.items()
    }


def _endings(key: str) -> Iterable[str]:
    steps = key[:LONGEST_KEY].split(".")
    return (_bare(steps[depth:]) for depth in range(len(steps)))


def likeness(keys: Iterable[str]) -> str:
    """A sentence that names the model of the keys, or nothing."""
    known = _most_alike(keys)
    return f"{_looks_like(known)} " if known else ""


def _most_alike(keys: Iterable[str]) -> list[str]:
    """The models whose lists the keys cover best; of equal ones the longest tells most."""
    known = fingerprints()
    found = {name: share for name, share in shares(keys, known).items() if share >= ENOUGH}
    best = max(((share, len(known[name])) for name, share in found.items()), default=None)
    return sorted(name for name, share in found.items() if (share, len(known[name])) == best)


def _looks_like(known: Sequence[str]) -> str:
    named = (name.partition(": ") for name in known)
    shown = (f"{name!r} ({kind})" if kind else repr(name) for name, _, kind in named)
    return f"Its keys look like the model {' or '.join(shown)}."


def _as_model(known: Sequence[str]) -> str:
    names = dict.fromkeys(name.partition(": ")[0] for name in known)
    return f"Give it as {' or '.join(f'--model {name}=FILE' for name in names)}"


def _part_of_another(match: Match, states: States) -> str:
    """What to say of a complete match inside a larger known model; empty where it is the whole.

    A model that merely stands beside the match, such as a teacher, has another prefix.
    """
    used, keys = set(match.keys.values()), states[match.state]
    listed = fingerprints()
    for name in _most_alike(keys):
        for prefix in _parents(match.prefix):
            own = {f"{prefix}.{key}" if prefix else key for key in listed[name]}
            if own <= set(keys) and not own <= used:
                rest = sorted(own - used)
                return (
                    f"every key is there, and it is a part of a larger model: {rest[0]!r} stands "
                    f"around it. {_looks_like([name])} Without the rest its masks would be others. "
                    f"{_as_model([name])}."
                )
    return ""


def _parents(prefix: str) -> Iterable[str]:
    """A prefix and those that it stands in: ``a.b`` -> ``a.b``, ``a`` and the empty one."""
    steps = prefix.split(".") if prefix else []
    return (".".join(steps[:depth]) for depth in range(len(steps), -1, -1))
