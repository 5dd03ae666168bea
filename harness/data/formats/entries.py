"""What every reader of a format gives: rows that say which picture, which mask, which sentences.

Conventions: a file is a path below the folder that was read, or a `Made` one, whose content is
written once. Where nothing in the picture is meant the mask is None, and becomes an empty one.
Questions that a format cannot answer are asked through `Choices.ask`, one sentence with a default.
"""

import io
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

CLASS_ONLY, SENTENCE = "p1", "p9"
"""Prompt types of what names the class alone, and of sentences that nobody ranked."""


@dataclass(frozen=True)
class Made:
    """A file that is written: its name, with its ending, and what gives its content.

    Files of one `key` are the same one.
    """

    name: str
    content: Callable[[], bytes] = field(repr=False)
    key: Hashable = None


File = Path | Made


@dataclass(frozen=True)
class Entry:
    """One target of one picture."""

    where: str  # its place in the source, for messages
    image: File  # the picture
    mask: File | None  # the target; None where nothing in the picture is meant
    prompts: Mapping[str, tuple[str, ...]]  # its sentences, by prompt type
    split: str | None = None  # None where nothing says it
    cluster: str | None = None  # what is independent of the others; None where nothing says it


@dataclass(frozen=True)
class Found:
    """What a folder holds."""

    format: str
    source: str  # the files that say so, for the card
    entries: tuple[Entry, ...]
    notes: tuple[str, ...] = ()  # what else was understood: a sentence each
    # What was left out or filled in: a sentence each, which the card keeps.
    gaps: tuple[str, ...] = ()
    clusters: str | None = None  # where the clusters of the entries come from
    # Of annotations that stay as they are: by split, the folders in which their names of pictures
    # and of masks begin.
    folders: Mapping[str, tuple[PurePosixPath, PurePosixPath]] = field(default_factory=dict)


def _default(question: str, default: str) -> str:
    return default


@dataclass(frozen=True)
class Choices:
    """What a user says beforehand, and who answers the rest."""

    ask: Callable[[str, str], str] = _default  # takes a question and its default, gives the answer
    # Role -> column of the table, such as ``{"image": "picture"}``.
    columns: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[int, str] = field(default_factory=dict)  # value of a label map -> what it shows
    prompt: str | None = None  # the sentence of sets without any
    split: str | None = None  # of rows that do not say it
    window: tuple[float, float] | None = None  # intensities of a volume that become black and white
    format: str | None = None  # read the folder as this one
    table: str | None = None  # the table, below the folder


def png(values: NDArray[np.bool_] | NDArray[np.uint8]) -> bytes:
    """A mask ``(H, W)`` bool as a 1-bit PNG, a grey picture ``(H, W)`` uint8 as an 8-bit one."""
    held = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(values)).save(held, format="PNG")
    return held.getvalue()


def said_of_all(text: str) -> dict[str, tuple[str, ...]]:
    """A text that stands for every target: the name of their class, or a sentence.

    Example:
        >>> said_of_all("optic disc")
        {'p1': ('optic disc',)}
        >>> said_of_all("a small pink polyp in the middle")
        {'p9': ('a small pink polyp in the middle',)}
    """
    return {SENTENCE if _is_sentence(text) else CLASS_ONLY: (text,)}


def _is_sentence(text: str) -> bool:
    """Whether a text says more than what a thing is called."""
    from harness.prompts.freetext.finding import SpanFinder
    from harness.prompts.freetext.terms import vocabulary

    spans = SpanFinder(vocabulary({})).find(text).spans
    says_more = any(span.attribute != "class" for span in spans)
    return says_more or len(text.split()) > _LONGEST_CLASS


_LONGEST_CLASS = 4


def words_of(name: str) -> str:
    """A name as words.

    Example:
        >>> words_of("left_lung-upper")
        'left lung upper'
    """
    return " ".join(name.replace("_", " ").replace("-", " ").split())
