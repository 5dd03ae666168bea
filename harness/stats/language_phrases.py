"""The language verdict in plain English: evidence, what blocks it, and what confounds it.

Conventions: as in `harness.stats.phrases`. The two confounds are named wherever they bear: a
random word tests language use and the shock of an unknown word at once, and an effect shrinks
with the redundancy of the prompt.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from harness.stats.language import Evidence, LanguageVerdict, Place
from harness.stats.phrases import amount, with_limits
from harness.stats.verdicts import Verdict

BLIND = 0.02
"""Shift of a text embedding, in distances between two prompts, below which a text tower does not
tell two prompts apart. A reading, not a test."""

Row = Mapping[str, Any]


def listed(names: Sequence[str]) -> str:
    """``a, b and c``."""
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def evidence_sentence(evidence: Evidence, *, named: bool) -> str:
    """Why an attribute is heard, unheard or neither."""
    if evidence.blocked:
        return evidence.blocked
    change = with_limits(*evidence.change, "relative_change")
    moved = (
        f"Dice changes by {change}, the masks agree to {amount(evidence.agreement[0], 'agreement')}"
    )
    if evidence.state == "unheard":
        return f"{moved}: another word changes nothing."
    if named:
        gain = with_limits(*evidence.named_gain, "named_gain")
        tail = f"Dice with the named mask less Dice with the own mask is {gain}"
        if evidence.state == "heard":
            return f"{moved}; {tail}: the mask goes where the word points."
        wanders = evidence.agreement[2] < 0.95 and evidence.named_gain[1] <= 0
        end = (
            "the mask moves, but not onto what the word names"
            if wanders
            else "not shown either way"
        )
        return f"{moved}; {tail}: {end}."
    if evidence.state == "heard":
        return f"{moved}: the word moves the mask."
    return f"{moved}: neither movement nor its absence is shown."


def verdict_sentence(verdict: LanguageVerdict) -> str:
    """Both halves of a verdict with their reasons."""
    parts = {
        "listening": f"listens to {_or(verdict.heard, 'nothing')}: its mask follows the word",
        "deaf": "is deaf: whichever word changes, its mask stays",
        "moved here": f"is moved by {_or(verdict.heard, 'nothing')} here",
        "unmoved here": "is unmoved here: whichever word changes, its mask stays",
        "cannot tell": f"cannot be judged on {_or(verdict.unclear, 'its use of words')}",
    }
    text = f"{verdict.model} on {verdict.dataset} {parts[verdict.language]}"
    if verdict.heard and verdict.unheard:
        verb = "does not listen to" if verdict.named_targets else "is not moved by"
        text += f"; it {verb} {listed(verdict.unheard)}"
    if verdict.unclear and verdict.language != "cannot tell":
        text += f"; {listed(verdict.unclear)} cannot be told"
    steady = {
        "steady": "it is steady under changes that keep the meaning",
        "brittle": "it is brittle under changes that keep the meaning",
        "cannot tell": "whether it is steady cannot be told",
    }
    tail = f"; {steady[verdict.steadiness]}"
    why = f" ({_inner(verdict.blocking[0])})" if _explains(verdict) else ""
    return f"{text}{why}{tail}."


def _explains(verdict: LanguageVerdict) -> bool:
    return bool(verdict.blocking) and verdict.language == "cannot tell"


def _inner(sentence: str) -> str:
    return re.sub(r"^No verdict: ", "", sentence).rstrip(".")


def _or(names: Sequence[str], otherwise: str) -> str:
    return listed(names) if names else otherwise


def blocking_sentences(
    evidence: Sequence[Evidence], preserved: Sequence[Verdict], rows: Sequence[Row]
) -> Iterator[str]:
    """What stands in the way of a verdict: of language use first, then of steadiness."""
    if not evidence:
        yield "No verdict: no probe puts another valid word in a word's place."
    by_reason: dict[str, list[str]] = {}
    for one in evidence:
        if one.blocked:
            by_reason.setdefault(one.blocked, []).append(_label(one))
    for reason, labels in by_reason.items():
        yield f"{listed(list(dict.fromkeys(labels)))}: {_inner(reason)}."
    for one in evidence:
        if not one.blocked and one.state == "unclear":
            yield f"{_label(one)}: {one.reason}"
    if not preserved:
        yield "Steadiness: no probe keeps the meaning."
    for verdict in preserved:
        if verdict.verdict == "inconclusive":
            label = " ".join(filter(None, (verdict.probe, verdict.attribute)))
            yield f"Steadiness: {label}: {verdict.reason}"


def _label(evidence: Evidence) -> str:
    place = "" if evidence.split == "test" else f" ({evidence.split})"
    return " ".join(filter(None, (evidence.probe, evidence.attribute))) + place


def confound_sentences(
    evidence: Sequence[Evidence],
    by_type: Iterable[tuple[str, str, Mapping[str, float]]],
) -> Iterator[str]:
    """Random words, redundancy, and where deafness sits."""
    yield from _random_words(evidence)
    yield from _redundancy(evidence, by_type)
    yield from _places(evidence)


def _random_words(evidence: Sequence[Evidence]) -> Iterator[str]:
    seen: set[tuple[str, str | None]] = set()
    for one in evidence:
        if not math.isfinite(one.random_word_change) or (one.split, one.attribute) in seen:
            continue
        seen.add((one.split, one.attribute))
        figure = amount(one.random_word_change, "relative_change")
        start = f"A random word in place of {one.attribute} changes Dice by {figure}"
        if one.state == "unheard":
            yield (
                f"{start}; another valid word changes nothing, so that this is the shock of an "
                "unknown word, not language use."
            )
        else:
            yield (
                f"{start}: language use and the shock of an unknown word at once; the verdict "
                "rests on valid words."
            )


def _redundancy(
    evidence: Sequence[Evidence],
    by_type: Iterable[tuple[str, str, Mapping[str, float]]],
) -> Iterator[str]:
    for one in evidence:
        if math.isfinite(one.decisive_change[0]) and not _close(one.decisive_change, one.change):
            alone = amount(one.decisive_change[0], "relative_change")
            whole = amount(one.change[0], "relative_change")
            yield (
                f"Where {one.attribute} alone tells two targets apart ({one.n_named} samples) "
                f"{one.probe} changes Dice by {alone}, over all samples by {whole}: elsewhere the "
                "rest of the prompt gives the answer away."
            )
    for probe, attribute, changes in by_type:
        figures = [f"{kind} {amount(x, 'relative_change')}" for kind, x in sorted(changes.items())]
        kinds = ", ".join(figures)
        yield f"{probe} {attribute} by prompt type: {kinds}; richer prompts are more redundant."
    unheard = [e for e in evidence if e.state == "unheard" and not e.n_named]
    if unheard:
        names = listed(list(dict.fromkeys(e.attribute or "whole prompt" for e in unheard)))
        yield (
            f"That {names} changes nothing may be due to the data: the picture and the rest of the "
            "prompt give the answer away."
        )


def _close(first: tuple[float, ...], second: tuple[float, ...]) -> bool:
    return abs(first[0] - second[0]) < 0.05


def _places(evidence: Sequence[Evidence]) -> Iterator[str]:
    for one in evidence:
        if one.state == "unheard" and math.isfinite(one.text_shift):
            where = (
                "the text tower does not tell the words apart"
                if one.text_shift < BLIND
                else "the text tower tells the words apart and the fusion ignores it"
            )
            yield (
                f"{_label(one)} moves the text embedding by {one.text_shift:.2f} of the distance "
                f"between two prompts: {where}."
            )


def place_of(evidence: Sequence[Evidence]) -> Place:
    """Where deafness sits, by the typical shift of the embedding under what is unheard."""
    shifts = [
        e.text_shift for e in evidence if e.state == "unheard" and math.isfinite(e.text_shift)
    ]
    if not shifts:
        return "unknown"
    return "text tower" if float(np.median(shifts)) < BLIND else "fusion"
