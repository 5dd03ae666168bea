"""What stands in a submission: its files, their schemas and their limits.

``submission.yaml`` says what only its authors know; ``run.json`` how the numbers were made;
``scores.parquet`` the counts of every case, in any order; ``texts.parquet`` how the k-th distinct
(prompt, original prompt) of the plan reaches the model; ``truth.parquet`` the pixels of every
sample's mask; ``summary.parquet`` the figures that are claimed.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import polars as pl
from pydantic import AfterValidator, Field, StringConstraints

from harness.cards import PromptType, Sha256, Strict
from harness.leaderboard.tracks import SIZE, TRUTH_SCHEMA
from harness.plan.registration import sentence
from harness.report.escape import plain

FORMAT = 1
"""Raised whenever the files of a submission change their meaning."""

TO_GIVE = "FILL IN"
"""How a fact begins that `submit` could not find; `verify` refuses it."""

WITH_THE_HARNESS = "ships with vlsm-harness"
"""Stands for an address where code or weights are part of this project."""

LIMITS: Mapping[str, int] = {
    "submission.yaml": 64 << 10,
    "run.json": 64 << 10,
    "scores.parquet": 512 << 20,
    "texts.parquet": 64 << 20,
    "truth.parquet": 16 << 20,
    "summary.parquet": 16 << 20,
}
"""Every file of a submission, and how many bytes it may have."""

COUNTS = ("tp", "n_pred", "n_gt", "tp_original", "n_pred_original", "tp_named", "n_named")
SCORES = pl.Schema({"case_id": pl.UInt64, **dict.fromkeys(COUNTS, pl.Int64), **SIZE})
_FLAGS = ("truncated", "edit_survives", "same_tokens")
TEXTS = pl.Schema({"n_tokens": pl.Int32, **dict.fromkeys(_FLAGS, pl.Boolean), "shift": pl.Float64})
CLAIM_KEYS = ("dataset", "split", "prompts", "prompt_type", "probe", "attribute")
_FIGURES = (
    *("relative_change_percent", "relative_change_low_percent", "relative_change_high_percent"),
    *("change_points", "dice", "dice_low", "dice_high"),
    *("agreement", "dice_named", "named_gain_points"),
)
_TALLIES = ("n_samples", "n_clusters", "n_cases", "n_cut_away", "n_not_applicable")
CLAIMS = pl.Schema(
    {
        **dict.fromkeys(CLAIM_KEYS, pl.String),
        **dict.fromkeys(_FIGURES, pl.Float64),
        **dict.fromkeys(_TALLIES, pl.Int64),
        "verdict": pl.String,
        "signature": pl.String,
    }
)
"""The columns of the summary that a submission claims."""

TABLES: Mapping[str, pl.Schema] = {
    "scores.parquet": SCORES,
    "texts.parquet": TEXTS,
    "truth.parquet": TRUTH_SCHEMA,
    "summary.parquet": CLAIMS,
}


def _shown(text: str) -> str:
    if plain(text) != text:
        raise ValueError("it holds control or direction marks, or blanks around it; leave them out")
    return text


def _address(text: str) -> str:
    """http(s) with a host and nothing that hides where it leads."""
    if text == WITH_THE_HARNESS or text.startswith(TO_GIVE):
        return text
    try:
        parts = urlsplit(text)
        host = parts.hostname
    except ValueError:
        host = None
    is_plain = re.fullmatch(r"https?://[\x21-\x7e]+", text) is not None
    if not is_plain or not host or "@" in parts.netloc or set(text) & set("\"'<>\\`"):
        raise ValueError("an address begins with https:// or http:// and names a host")
    return text


_Length = StringConstraints
Name = Annotated[str, _Length(min_length=1, max_length=80), AfterValidator(_shown)]
Line = Annotated[str, _Length(min_length=1, max_length=200), AfterValidator(_shown)]
Paragraph = Annotated[str, _Length(max_length=2000), AfterValidator(_shown)]
Address = Annotated[str, _Length(min_length=1, max_length=300), AfterValidator(_address)]
Whole = Annotated[int, Field(ge=0, le=1 << 53)]


class WeightFile(Strict):
    """The weights that were run: where they lie, and which they are."""

    address: Address
    sha256: Sha256


class Submission(Strict):
    """The content of ``submission.yaml``."""

    format: Literal[1]
    track: Annotated[str, _Length(max_length=40)]
    name: Annotated[str, _Length(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,59}$")]
    title: Line
    authors: Annotated[list[Name], Field(min_length=1, max_length=50)]
    paper: Address | None
    code: Address
    weights: WeightFile
    licence: Name
    trained_on: Annotated[list[Line], Field(max_length=50)]
    prompt_type: PromptType | None = None
    control: bool = Field(default=False, description="Reads no prompt, by construction.")
    notes: Paragraph = ""


class Hardware(Strict):
    """Where the counts were made."""

    device_name: Line
    threads: Whole


class TrainingOverlap(Strict):
    """Pictures of one set of the track that are near copies of training pictures, as run."""

    audited: Line
    trained: Annotated[list[Line], Field(max_length=20)]
    n_audited: Whole
    n_trained: Whole
    n_copies: Whole
    n_patients: Whole


class Registered(Strict):
    """Whether what was run is what was registered before, and what differs."""

    registered: Line
    seal_sha256: Sha256
    differs: Annotated[list[Paragraph], Field(max_length=20)]

    @property
    def sentence(self) -> str:
        """The same in words."""
        return sentence(self.model_dump())


class RunFacts(Strict):
    """The content of ``run.json`` of a submission: how its numbers were made.

    It is a selection of the run's own: no folder of the machine it was made on is told.
    """

    model_id: Annotated[str, _Length(pattern=r"^[A-Za-z0-9_.-]{1,100}@[0-9a-f]{12}$")]
    threshold: float = Field(gt=0, lt=1)
    weights_sha256: Sha256 | None
    plan_sha256: Sha256
    data_sha256: Sha256
    signature: Line
    harness: Name
    git_commit: Annotated[str, _Length(pattern=r"^[0-9a-f]{40}$")] | None
    python: Name
    platform: Line
    libraries: Annotated[dict[Name, Name], Field(max_length=30)]
    at: Annotated[str, _Length(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00$")]
    device: Literal["cpu", "cuda", "mps"]
    precision: Name
    batch_size: Annotated[int, Field(ge=1, le=1 << 20)]
    halved_to: Annotated[int, Field(ge=1, le=1 << 20)] | None = None
    shard_size: Annotated[list[Whole], Field(min_length=2, max_length=2)]
    hardware: Hardware
    notes: Annotated[list[Paragraph], Field(max_length=20)] = []
    training_overlap: Annotated[list[TrainingOverlap], Field(max_length=200)] | None = Field(
        default=None, description="None where no training picture was at hand."
    )
    registration: Registered | None = None


def digest(files: Mapping[str, bytes]) -> str:
    """What names a submission: a hash of its files' names and content.

    Example:
        >>> digest({"b": b"2", "a": b"1"}) == digest({"a": b"1", "b": b"2"})
        True
    """
    total = hashlib.sha256()
    for name in sorted(files):
        total.update(f"{name} {hashlib.sha256(files[name]).hexdigest()}\n".encode())
    return total.hexdigest()


def still_to_give(content: Any, place: str = "") -> Iterator[str]:
    """The keys of a document whose value is still a placeholder, dotted.

    Example:
        >>> list(still_to_give({"code": "FILL IN: an address", "authors": ["FILL IN: names"]}))
        ['code', 'authors[0]']
    """
    if isinstance(content, str) and content.startswith(TO_GIVE):
        yield place
    elif isinstance(content, dict):
        for key, value in content.items():
            yield from still_to_give(value, f"{place}.{key}" if place else str(key))
    elif isinstance(content, list):
        for index, value in enumerate(content):
            yield from still_to_give(value, f"{place}[{index}]")


def distinct_pairs(cases: pl.DataFrame) -> pl.DataFrame:
    """The distinct (text, original text) of a plan, in the order that ``texts.parquet`` keeps."""
    return cases.select(text="prompt", original_text="original_prompt").unique(maintain_order=True)
