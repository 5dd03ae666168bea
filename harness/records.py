"""The nouns of the harness: frozen records without behaviour of their own.

Conventions: character offsets count Unicode code points from 0, ends are
exclusive; prompt types are ``p0`` (empty) to ``p9``; a sample's paths begin with the
data root they were read from.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Meaning(StrEnum):
    """What a perturbation does to the meaning of a prompt."""

    PRESERVED = "preserved"
    REMOVED = "removed"
    DESTROYED = "destroyed"
    CHANGED = "changed"
    ORIGINAL = "original"


class ExpectedMask(StrEnum):
    """Which mask is right after a perturbation."""

    OWN = "own"
    NAMED = "named"
    EMPTY = "empty"
    UNDEFINED = "undefined"


@dataclass(frozen=True, slots=True)
class Span:
    """The place of one attribute's value in a prompt: ``text[start:end] == value``."""

    attribute: str
    start: int
    end: int
    value: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt and what its grammar recovered from it.

    `template` is the index of the grammar's template that matched, so that
    rendering the values gives back the same text byte for byte. `index` counts
    the prompts of a list (P7-P9 and others) from 0.
    """

    text: str
    prompt_type: str
    index: int = 0
    template: int = 0
    spans: tuple[Span, ...] = ()

    @property
    def values(self) -> dict[str, str]:
        """Attribute values in order of their place."""
        return {span.attribute: span.value for span in self.spans}

    def span(self, attribute: str) -> Span | None:
        """The span of one attribute, or None where the prompt does not name it."""
        return next((s for s in self.spans if s.attribute == attribute), None)


@dataclass(frozen=True, slots=True)
class Edit:
    """One replacement, removal or insertion: ``text[start:end]`` becomes `new`.

    Offsets are those of the original prompt, so several edits can be applied
    in any order as long as they do not overlap.
    """

    start: int
    end: int
    old: str
    new: str
    attribute: str | None = None


@dataclass(frozen=True, slots=True)
class Variant:
    """A perturbed prompt of one sample.

    `prompt_type` is the rung the variant stands on (``p0`` after `empty`);
    `word` is the inserted random word, where words are a factor of the probe;
    `meaning` is its own, where it is not what its perturbation declares.
    """

    text: str
    edits: tuple[Edit, ...]
    prompt_type: str
    attribute: str | None = None
    word: str | None = None
    meaning: Meaning | None = None


@dataclass(frozen=True, slots=True)
class NotApplicable:
    """Why a perturbation makes no variant of a prompt: counted, never dropped unseen."""

    reason: str
    attribute: str | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """One annotation row: an image, its target mask and its prompts.

    `image_id` is a hash of the decoded pixels, so that one picture is known
    again under another name or in another dataset. `cluster_id` names the unit
    that is independent of the others.
    """

    dataset: str
    split: str
    sample_id: str
    image: Path
    mask: Path
    image_id: str
    cluster_id: str
    prompts: Mapping[str, tuple[Prompt, ...]]
