"""A break as a file: what was found, how, and all that is needed to ask again.

Conventions: one JSON object a file, UTF-8, checked against `Case` on the way in; `sha256`
is the hash of everything else in it, by `harness.canonical`. A file may come from a
stranger: it names a dataset and a sample, never a path, and nothing in it is executed.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from harness.canonical import canonical, parse_json, read_bytes
from harness.cards import PromptType, Strict
from harness.errors import DataError, PromptError
from harness.files import Document, validate
from harness.hunt.search import Minimality
from harness.hunt.space import Kind
from harness.prompts.edits import apply_edits
from harness.prompts.strategies import size_of
from harness.records import Edit
from harness.writing import write_json

FORM: Literal["vlsm-harness break 1"] = "vlsm-harness break 1"
MOST_BYTES = 1 << 20

Share = Annotated[float, Field(ge=0, le=1)]
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class CaseEdit(Strict):
    """One edit of the original prompt."""

    start: Annotated[int, Field(ge=0)]
    end: Annotated[int, Field(ge=0)]
    old: str
    new: str
    attribute: str | None = None


class Size(Strict):
    """How large the edit is."""

    edits: int
    characters: int


class Limits(Strict):
    """What was called a break."""

    relative_change_percent: float
    agreement: float


class Figures(Strict):
    """What the model did when the break was found."""

    dice_original: Share
    dice: Share
    relative_change_percent: float | None
    agreement: Share
    edit_survives: bool | None = Field(description="Whether truncation lets the edit through.")


class Search(Strict):
    """How it was found, and how sure it is that nothing smaller breaks the model."""

    minimality: Minimality
    tried: int
    calls: int
    budget: int
    families: list[str]
    seed: int
    hypothesis: str
    lexicon: str
    lexicon_sha256: str


class Case(Strict):
    """A break that can be replayed."""

    form: Literal["vlsm-harness break 1"]
    kind: Kind
    dataset: str
    split: str
    sample_id: str
    image_id: str
    prompts: Literal["released", "corrected"]
    prompt_type: PromptType
    prompt_index: int
    original_prompt: str
    edits: list[CaseEdit] = Field(min_length=1)
    made_by: list[str]
    variant: str
    named_sample_id: str | None
    size: Size
    limits: Limits
    figures: Figures
    model_id: str
    signature: str
    search: Search
    sha256: Hash = ""

    def sealed(self) -> "Case":
        """The same case with its hash."""
        return self.model_copy(update={"sha256": _hash(self.model_dump(mode="json"))})

    @property
    def file_name(self) -> str:
        """Of its file; two models never share one."""
        return f"{self.kind}-{self.dataset}-{self.split}-{self.sha256[:12]}.json"


def _hash(content: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in content.items() if key != "sha256"}
    return hashlib.sha256(canonical(rest)).hexdigest()


def write_case(case: Case, folder: Path) -> Path:
    """Write a sealed case into a folder; the same break gives the same file."""
    path = folder / case.file_name
    write_json(path, case.model_dump(mode="json"))
    return path


def read_case(path: Path) -> Case:
    """Read one case.

    Raises:
        DataError: The file cannot be read, breaks the schema, contradicts itself, or was
            changed after it was written.
    """
    case = validate(Document(path, _content(path)), Case, error=DataError)
    edits = [Edit(e.start, e.end, e.old, e.new, e.attribute) for e in case.edits]
    try:
        made = apply_edits(case.original_prompt, edits)
    except PromptError as problem:
        raise DataError(f"{path}: {problem}") from None
    if made != case.variant:
        raise DataError(
            f"{path}: the edits make {made!r}, 'variant' says {case.variant!r}. Both must be one "
            "text. Take the file as `vlsm-harness hunt` wrote it."
        )
    if (case.size.edits, case.size.characters) != size_of(case.original_prompt, edits):
        raise DataError(
            f"{path}: 'size' says {case.size.edits} edits and {case.size.characters} characters, "
            f"the edits are {size_of(case.original_prompt, edits)}. Both must agree. Take the file "
            "as `vlsm-harness hunt` wrote it."
        )
    if case.sha256 != _hash(case.model_dump(mode="json")):
        raise DataError(
            f"{path}: the hash {case.sha256[:12]!r} is not that of the content. A case must be "
            "what was found. Take the file as `vlsm-harness hunt` wrote it."
        )
    return case


def _content(path: Path) -> dict[str, Any]:
    repair = "Give a file that `vlsm-harness hunt` wrote."
    content = read_bytes(path, most=MOST_BYTES, error=DataError, missing=repair)
    found = parse_json(content, path, error=DataError, repair=repair)
    if not isinstance(found, dict):
        raise DataError(
            f"{path}: found {type(found).__name__}. A break is one JSON object. {repair}"
        )
    return found


def read_cases(place: Path) -> dict[Path, Case]:
    """The case of a file, or those of every ``*.json`` of a folder, by path.

    Raises:
        DataError: There is none, or one is wrong.
    """
    paths = sorted(place.glob("*.json")) if place.is_dir() else [place]
    if not paths:
        raise DataError(
            f"{place}: no *.json here. A folder of breaks is needed. Give the --out of "
            "`vlsm-harness hunt`."
        )
    return {path: read_case(path) for path in paths}
