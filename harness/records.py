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
    `meaning` and `expected_mask` are its own, where they are not what its perturbation declares;
    `target` is the sample of the same image that it names, where the perturbation knows it.
    """

    text: str
    edits: tuple[Edit, ...]
    prompt_type: str
    attribute: str | None = None
    word: str | None = None
    meaning: Meaning | None = None
    expected_mask: ExpectedMask | None = None
    target: str | None = None


@dataclass(frozen=True, slots=True)
class NotApplicable:
    """Why a perturbation makes no variant of a prompt: counted, never dropped unseen."""

    reason: str
    attribute: str | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """How the files of a dataset are read, where its card says so.

    Attributes:
        foreground: ``nonzero`` or None: a mask's foreground is what is not 0.
        above: A mask's foreground is what is greater than this.
        values: A mask's foreground are these values.
        channel: A mask is read from this channel alone; ``a`` is alpha.
        intensity: How values of more than 8 bits become 8: ``full``, ``minmax``, two limits, or
            ``percentiles`` with two shares in percent. None: such pictures are refused.
        orientation: ``stored`` or ``displayed``: what an orientation tag does. None: files that
            have one are refused.

    Without a rule for masks the foreground is decided by what each file holds.
    """

    foreground: str | None = None
    above: float | None = None
    values: tuple[int, ...] = ()
    channel: str | None = None
    intensity: str | tuple[float, float] | tuple[str, float, float] | None = None
    orientation: str | None = None

    @property
    def rule(self) -> str:
        """The rule for masks as signatures spell it, such as ``>127``; ``auto`` without one."""
        rules = [f"{self.channel}:"] if self.channel else []
        rules += [self.foreground] if self.foreground else []
        rules += [f">{self.above:g}"] if self.above is not None else []
        rules += ["=" + ",".join(map(str, self.values))] if self.values else []
        return "".join(rules) + ("" if rules[bool(self.channel) :] else "auto")


BY_CONTENT = Reading()
"""The card says nothing: what a file holds decides, and what is ambiguous is refused."""

Readings = Mapping[str, Reading]
"""How each dataset's files are read, by its name; one that is missing has no rules."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One annotation row: an image, its target mask and its prompts.

    `image_id` is a hash of the stored pixels, so that one picture is known
    again under another name or in another dataset. `cluster_id` names the unit
    that is independent of the others. `encoding` says how the mask was read,
    `is_empty` whether nothing is in it; both are None where it was not looked at.
    """

    dataset: str
    split: str
    sample_id: str
    image: Path
    mask: Path
    image_id: str
    cluster_id: str
    prompts: Mapping[str, tuple[Prompt, ...]]
    reading: Reading = Reading()
    encoding: str | None = None
    is_empty: bool | None = None
