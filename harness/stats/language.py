"""The language verdict: whether a model uses the words of its prompt on a data set.

Conventions: one verdict a (model, dataset, prompts, prompt type); splits of a dataset
are read together. Where the data know the sample that a changed prompt describes (*named
targets*) a model can be *listening* or *deaf*; where they do not, words are only *moved here*
or *unmoved here*. Evidence is one record a (split, probe, attribute) of changed meaning.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

Language = Literal["listening", "deaf", "moved here", "unmoved here", "cannot tell"]
Steadiness = Literal["steady", "brittle", "cannot tell"]
State = Literal["heard", "unheard", "unclear"]
Place = Literal["text tower", "fusion", "unknown"]


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
        named_gain: Dice with the named mask less Dice with the own mask after the change, in
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
    """Whether a model uses its prompt on one data set.

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
        blocking: What stands in the way of a verdict, a sentence each.
        confounds: What must be read beside the verdict, a sentence each.
        place: Where deafness sits, where the model shows its text embedding.
        evidence: What it rests on.
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
    place: Place = "unknown"
    evidence: tuple[Evidence, ...] = ()

    def record(self) -> dict[str, Any]:
        """Plain values for JSON: what is not finite becomes None."""
        found: dict[str, Any] = _plain(asdict(self))
        return found


def from_record(record: Mapping[str, Any]) -> LanguageVerdict:
    """The verdict of a record that was read from a run directory."""
    known = {k: v for k, v in record.items() if k in LanguageVerdict.__slots__}
    known |= {k: tuple(known.get(k, ())) for k in _LISTS}
    known["evidence"] = tuple(_evidence(one) for one in record.get("evidence", ()))
    return LanguageVerdict(**known)


_LISTS = ("heard", "unheard", "unclear", "blocking", "confounds")
_TRIPLES = ("change", "agreement", "named_gain", "decisive_change")
_FIGURES = ("random_word_change", "text_shift", "p_heard", "p_unheard")


def _evidence(record: Mapping[str, Any]) -> Evidence:
    known = {k: v for k, v in record.items() if k in Evidence.__slots__}
    known |= {k: tuple(map(_number, known[k])) for k in _TRIPLES}
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
