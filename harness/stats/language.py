"""The language verdict: whether a model uses the words of its prompt, and the sentences for it.

Conventions: one verdict a (model, dataset, prompts, prompt type); splits of a dataset
are read together. Where the data know the sample that a changed prompt describes (*named
targets*) a model can be *listening* or *deaf*; where they do not, words are only *moved here*
or *unmoved here*. Evidence is one record a (split, probe, attribute) of changed meaning. Two
confounds are named wherever they apply: a random word tests language use and the shock of an
unknown word at once, and an effect shrinks with the redundancy of the prompt.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from harness.stats.flips import Flip, flip_from
from harness.stats.refusal import NOTHING, Asked, Limits, Refusal, asked_from, limits_from
from harness.stats.verdicts import Verdict, amount, with_limits

Language = Literal["listening", "deaf", "moved here", "unmoved here", "cannot tell"]
Steadiness = Literal["steady", "brittle", "cannot tell"]
State = Literal["heard", "unheard", "unclear"]
Stage = Literal["text tower", "fusion", "unknown"]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one probe that changes an attribute to another valid value shows.

    Attributes:
        split: Annotation file.
        probe: Name in the suite.
        attribute: That is changed.
        state: *heard* when the mask is shown to move, with named targets: from the own
            onto the named one; *unheard* when Dice is shown equivalent and the mask to stay;
            else *unclear*.
        reason: One sentence in plain English.
        change: Relative change of Dice in percent, with 95 % limits.
        agreement: Between the masks before and after, with 95 % limits.
        named_gain: Dice on the new target minus Dice on the old one after the change, in
            points, with 95 % limits; NaN without named targets.
        decisive_change: Relative change where the attribute alone tells two targets apart.
        random_word_change: Relative change under a random word in the same place, which tests
            language use and the shock of an unknown word at once.
        text_shift: How far the text embedding moves, in units of the distance between two
            prompts of the set; NaN where the model shows no embedding.
        blocked: Why nothing may be concluded, a sentence; empty where it may.
        p_heard: p-value of being heard, Holm-adjusted over the verdict's evidence.
        p_unheard: p-value of being unheard; a conjunction, so that it needs no adjustment.
        n_clusters: Behind the change.
        n_named: Samples with a named target.
        n_clusters_named: Clusters with one.
    """

    split: str
    probe: str
    attribute: str | None
    state: State
    reason: str
    change: tuple[float, float, float]
    agreement: tuple[float, float, float]
    named_gain: tuple[float, float, float] = (math.nan, math.nan, math.nan)
    decisive_change: tuple[float, float, float] = (math.nan, math.nan, math.nan)
    random_word_change: float = math.nan
    text_shift: float = math.nan
    blocked: str = ""
    p_heard: float = math.nan
    p_unheard: float = math.nan
    n_clusters: int = 0
    n_named: int = 0
    n_clusters_named: int = 0


@dataclass(frozen=True, slots=True)
class LanguageVerdict:
    """Whether a model uses its prompt on one data set, and refuses what is not there.

    Attributes:
        model_id: Key of the model.
        model: What tables call it.
        dataset: Its name.
        prompts: Source of the prompts.
        prompt_type: Rung of the originals.
        language: The first half of the verdict.
        steadiness: The second half: whether what keeps the meaning keeps the Dice.
        reason: One sentence for both.
        named_targets: Whether a changed prompt's own target is known.
        heard: Attributes that the mask follows.
        unheard: Attributes that change nothing.
        unclear: Attributes of which neither is shown.
        blocking: What prevents a verdict, a sentence each.
        confounds: What must be read beside the verdict, a sentence each.
        place: Which stage ignores the word, where the model shows its text embedding.
        evidence: What it rests on.
        refusal: The third part: what is painted for what is not in the picture.
        refusal_reason: Half a sentence for it.
        refusal_rate: Over all probes for absent things, with 95 % limits.
        miss_rate: Of the original prompts whose target is there.
        refusals: What `refusal` rests on.
        flips: Of language, each attribute, steadiness and refusal: where it would be another.
    """

    model_id: str
    model: str
    dataset: str
    prompts: str
    prompt_type: str
    language: Language
    steadiness: Steadiness
    reason: str
    named_targets: bool
    heard: tuple[str, ...] = ()
    unheard: tuple[str, ...] = ()
    unclear: tuple[str, ...] = ()
    blocking: tuple[str, ...] = ()
    confounds: tuple[str, ...] = ()
    place: Stage = "unknown"
    evidence: tuple[Evidence, ...] = ()
    refusal: Refusal = "not asked"
    refusal_reason: str = ""
    refusal_rate: Limits = NOTHING
    miss_rate: Limits = NOTHING
    refusals: tuple[Asked, ...] = ()
    flips: tuple[Flip, ...] = ()

    @property
    def is_asked(self) -> bool:
        """Whether a probe of the run bears on it at all."""
        return bool(self.evidence) or self.refusal != "not asked"

    @property
    def n_clusters(self) -> int:
        """The fewest behind a piece of evidence that may be concluded from; 0 without one."""
        tested = [e.n_clusters for e in self.evidence if not e.blocked]
        asked = [] if self.refusal in ("not asked", "cannot tell") else self.refusals
        return min(tested) if tested else max((one.n_clusters for one in asked), default=0)

    def record(self) -> dict[str, Any]:
        """Plain values for JSON: what is not finite becomes None."""
        found: dict[str, Any] = _plain(asdict(self))
        return found


def from_record(record: Mapping[str, Any]) -> LanguageVerdict:
    """The verdict of a record that was read from a run directory."""
    known = {k: v for k, v in record.items() if k in LanguageVerdict.__slots__}
    known |= {k: tuple(known.get(k, ())) for k in _LISTS}
    known["evidence"] = tuple(_evidence(one) for one in record.get("evidence", ()))
    known["refusals"] = tuple(asked_from(one) for one in record.get("refusals", ()))
    known["flips"] = tuple(flip_from(one) for one in record.get("flips", ()))
    known |= {k: limits_from(known[k]) for k in ("refusal_rate", "miss_rate") if k in known}
    return LanguageVerdict(**known)


_LISTS = ("heard", "unheard", "unclear", "blocking", "confounds")
_TRIPLES = ("change", "agreement", "named_gain", "decisive_change")
_FIGURES = ("random_word_change", "text_shift", "p_heard", "p_unheard")


def _evidence(record: Mapping[str, Any]) -> Evidence:
    known = {k: v for k, v in record.items() if k in Evidence.__slots__}
    known |= {k: limits_from(known[k]) for k in _TRIPLES}
    known |= {k: _number(known.get(k)) for k in _FIGURES}
    return Evidence(**known)


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


BLIND = 0.02
"""Shift of a text embedding, in distances between two prompts, below which a text tower does not
tell two prompts apart. A reading, not a test."""

STAYS = 0.95
"""Mean agreement from which on a mask counts as staying where it was."""


def listed(names: Sequence[str]) -> str:
    """``a, b and c``."""
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


MOST_LISTED = 4


def shortened(labels: Iterable[str]) -> str:
    """A list that a reader takes in: of each first word the others in brackets, of many the first.

    Example:
        >>> shortened(["antonym color", "antonym size", "empty"])
        'antonym (color, size), empty'
        >>> shortened("abcdefg")
        'a, b, c, d and 3 others'
    """
    grouped: dict[str, list[str]] = {}
    for label in labels:
        head, _, rest = label.partition(" ")
        grouped.setdefault(head, []).append(rest)
    texts = [
        f"{head} {own[0]}".strip() if len(own) == 1 else f"{head} ({', '.join(map(_bare, own))})"
        for head, own in grouped.items()
    ]
    *most, last = _first(texts)
    return f"{', '.join(most)} and {last}" if last.endswith(" others") else ", ".join(texts)


def _bare(text: str) -> str:
    return text[1:-1] if text.startswith("(") else text or "alone"


def evidence_sentence(evidence: Evidence, *, named: bool, needed: int) -> str:
    """Why an attribute is heard, unheard or neither."""
    if evidence.blocked:
        return evidence.blocked
    change = with_limits(*evidence.change, "relative_change")
    agree = amount(evidence.agreement[0], "agreement")
    moved = f"Dice changes by {change}, mask agreement {agree}"
    if evidence.state == "unheard":
        return f"{moved}: another word changes nothing."
    if not named:
        heard = "the word moves the mask"
        none = "neither movement nor its absence is shown"
        return f"{moved}: {heard if evidence.state == 'heard' else none}."
    if evidence.n_clusters_named < needed:
        short = f"{evidence.n_clusters_named} clusters with a named target, and {needed} are needed"
        return f"{moved}; whether it follows the word is not tested: {short}."
    gain = with_limits(*evidence.named_gain, "named_gain")
    figures = f"{moved}; Dice on the new target minus Dice on the old one: {gain}"
    if evidence.state == "heard":
        return f"{figures}; the mask goes where the word points."
    if evidence.agreement[2] < STAYS:
        return f"{figures}; the mask moves, but is not shown to go where the word points."
    return f"{figures}; not shown either way."


def verdict_sentence(verdict: LanguageVerdict) -> str:
    """All parts of a verdict with their reasons."""
    undecided = _undecided(verdict)
    says = {
        "listening": f"listens to {_or(verdict.heard, 'nothing')}: its mask follows the word",
        "deaf": f"is deaf: {_whatever(verdict)}, its mask stays",
        "moved here": f"is moved by {_or(verdict.heard, 'nothing')} here",
        "unmoved here": f"is unmoved here: {_whatever(verdict)}, its mask stays",
        "cannot tell": f"cannot be judged on "
        f"{_or(undecided or verdict.unclear, 'its use of words')}",
    }
    text = f"{verdict.model} on {verdict.dataset} {says[verdict.language]}"
    if verdict.language == "cannot tell" and verdict.blocking:
        text += f" ({_inner(verdict.blocking[0])})"
    if verdict.unheard and verdict.language not in ("deaf", "unmoved here"):
        text += _not_heard(verdict)
    if undecided and verdict.language != "cannot tell":
        text += f"; {listed(undecided)} undecided"
    parts = [text, _steadiness(verdict), verdict.refusal_reason]
    return "; ".join(filter(None, parts)) + "."


def _whatever(verdict: LanguageVerdict) -> str:
    """What was changed: words one by one, or nothing less than the prompt."""
    words = any(evidence.attribute for evidence in verdict.evidence)
    return "whichever word changes" if words else "when the prompt as a whole changes"


def _undecided(verdict: LanguageVerdict) -> Sequence[str]:
    """What is unclear though the data could have shown it."""
    tested = {name_of(e) for e in verdict.evidence if math.isfinite(e.p_heard)}
    return [name for name in verdict.unclear if name in tested]


def _not_heard(verdict: LanguageVerdict) -> str:
    """What changes nothing: where its target is known the model does not listen to it."""
    named = {name_of(e) for e in verdict.evidence if e.n_named}
    deaf = [name for name in verdict.unheard if name in named]
    unmoved = [name for name in verdict.unheard if name not in named]
    text = f"; it does not listen to {listed(deaf)}" if deaf else ""
    return text + (f"; it is not moved by {listed(unmoved)} here" if unmoved else "")


def name_of(evidence: Evidence) -> str:
    """The attribute, or that the prompt is changed as a whole."""
    return evidence.attribute or WHOLE


WHOLE = "the whole prompt"
UNTESTED = "Steadiness: no probe keeps the meaning."


def _steadiness(verdict: LanguageVerdict) -> str:
    if UNTESTED in verdict.blocking:
        return "its steadiness was not tested"
    return {
        "steady": "it is steady under changes that keep the meaning",
        "brittle": "it is brittle under changes that keep the meaning",
        "cannot tell": "whether it is steady is undecided",
    }[verdict.steadiness]


def _inner(sentence: str) -> str:
    return re.sub(r"^No verdict: ", "", sentence).rstrip(".")


def _or(names: Sequence[str], otherwise: str) -> str:
    return listed(names) if names else otherwise


def blocking_sentences(
    evidence: Sequence[Evidence], preserved: Sequence[Verdict], *, unclear: Sequence[str]
) -> Iterator[str]:
    """What prevents a verdict: of language use first, then of steadiness."""
    if not evidence:
        yield "No verdict: no probe replaces a word with another valid value."
    by_reason: dict[str, list[str]] = {}
    for one in evidence:
        if one.state == "unclear" and name_of(one) in unclear:
            by_reason.setdefault(one.reason, []).append(_label(one))
    for reason, labels in by_reason.items():
        yield f"{shortened(labels)}: {_inner(reason)}."
    if not preserved:
        yield UNTESTED
    for verdict in preserved:
        if verdict.verdict == "inconclusive":
            label = " ".join(filter(None, (verdict.probe, verdict.attribute)))
            yield f"Steadiness: {label}: {verdict.reason}"


def _label(evidence: Evidence) -> str:
    """Probe and attribute; the split where it says something else."""
    own = evidence.split in ("test", evidence.attribute)
    place = "" if own else f" ({evidence.split})"
    return " ".join(filter(None, (evidence.probe, evidence.attribute))) + place


def confound_sentences(
    evidence: Sequence[Evidence],
    by_type: Iterable[tuple[str, str, Mapping[str, float]]],
    *,
    margin: float,
    needed: int,
) -> Iterator[str]:
    """Random words, redundancy, and which stage ignores the word.

    `by_type` holds probe, attribute, and its change by prompt type; changes within `margin`
    (percent) count as none; `needed` clusters let a figure be compared with another.
    """
    yield from _random_words(evidence, margin)
    yield from _decisive(evidence, margin, needed)
    yield from _redundancy(evidence, by_type)
    yield from _places(evidence)


def _random_words(evidence: Sequence[Evidence], margin: float) -> Iterator[str]:
    figures: dict[str | None, tuple[str, bool]] = {}
    for one in evidence:
        if math.isfinite(one.random_word_change) and abs(one.random_word_change) > margin:
            text = f"{amount(one.random_word_change, 'relative_change')} ({one.attribute})"
            unheard = all(e.state == "unheard" for e in evidence if e.attribute == one.attribute)
            figures[one.attribute] = (text, unheard)
    shock = [text for text, unheard in figures.values() if unheard]
    mixed = [text for text, unheard in figures.values() if not unheard]
    if mixed := _first(mixed):
        yield (
            f"A random word changes Dice by {listed(mixed)}: language use and the shock of an "
            "unknown word at once, so that the verdict rests on valid words."
        )
    if shock := _first(shock):
        yield (
            f"A random word changes Dice by {listed(shock)} although another valid word changes "
            "nothing: that is the shock of an unknown word, not language use."
        )


def _first(texts: list[str]) -> list[str]:
    """The first of many, with how many others there are."""
    more = len(texts) - MOST_LISTED
    return [*texts[:MOST_LISTED], f"{more} others"] if more > 1 else texts


def _decisive(evidence: Sequence[Evidence], margin: float, needed: int) -> Iterator[str]:
    for one in evidence:
        enough = one.n_clusters_named >= needed
        if enough and abs(one.decisive_change[0] - one.change[0]) > margin:
            alone = amount(one.decisive_change[0], "relative_change")
            whole = amount(one.change[0], "relative_change")
            yield (
                f"{_label(one)} changes Dice by {alone} where the new word alone points to another "
                f"target ({one.n_named} samples), by {whole} over all: an effect shrinks where the "
                "rest of the prompt gives the answer away, or the new word names nothing."
            )


def _redundancy(
    evidence: Sequence[Evidence], by_type: Iterable[tuple[str, str, Mapping[str, float]]]
) -> Iterator[str]:
    for probe, attribute, changes in by_type:
        kinds = ", ".join(
            f"{kind} {amount(x, 'relative_change')}" for kind, x in sorted(changes.items())
        )
        yield f"{probe} {attribute} by prompt type: {kinds}; richer prompts are more redundant."
    if unheard := _named([e for e in evidence if e.state == "unheard" and not e.n_named]):
        names = listed(unheard)
        yield (
            f"{OF_THE_UNHEARD[0]}{names} changes nothing may be due to the data: the picture and "
            "the rest of the prompt may give the answer away."
        )


OF_THE_UNHEARD = ("That ", "Other words for ")
"""How the sentences begin that are said of whatever changes nothing."""


def _places(evidence: Sequence[Evidence]) -> Iterator[str]:
    shown = [e for e in evidence if e.state == "unheard" and math.isfinite(e.text_shift)]
    for blind in (True, False):
        found = [e for e in shown if blind == (e.text_shift < BLIND)]
        if not found:
            continue
        names = listed(_named(found))
        low, high = min(e.text_shift for e in found), max(e.text_shift for e in found)
        figures = f"{low:.2f}" if high - low < 0.005 else f"{low:.2f} to {high:.2f}"
        where = (
            "the text tower does not tell the words apart"
            if blind
            else "the text tower tells the words apart, and the fusion ignores it"
        )
        yield (
            f"{OF_THE_UNHEARD[1]}{names} move the text embedding by {figures} of the distance "
            f"between two prompts: {where}."
        )


def _named(evidence: Sequence[Evidence]) -> list[str]:
    return list(dict.fromkeys(map(name_of, evidence)))
