"""A break as a file: the edit, the model's scores, and all that is needed to replay it.

Conventions: one JSON object a file, UTF-8, checked against `Break` on the way in; `sha256`
is the hash of everything else in it, by `harness.files.canonical`. A file may come from a
stranger: it names a dataset and a sample, never a path, and nothing in it is executed.
"""

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from harness.cards import PromptType, Strict
from harness.errors import DataError, PromptError
from harness.files import Document, validate
from harness.files.canonical import canonical, parse_json, read_bytes
from harness.files.writing import write_json
from harness.hunt.search import Minimality
from harness.hunt.space import Kind
from harness.prompts.edits import apply_edits
from harness.prompts.strategies import size_of
from harness.records import Edit

MAX_BYTES = 1 << 20

Share = Annotated[float, Field(ge=0, le=1)]
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Size(Strict):
    """How large the edit is, by `harness.prompts.strategies.size_of`."""

    edits: int
    characters: int


class Limits(Strict):
    """What was called a break."""

    relative_change_percent: float
    agreement: float


class Scores(Strict):
    """What the model did with both prompts; `edit_survives`: truncation lets the edit through."""

    dice_original: Share
    dice: Share
    relative_change_percent: float | None
    agreement: Share
    edit_survives: bool | None


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


class Break(Strict):
    """A break that can be replayed."""

    form: Literal["vlsm-harness break 1"] = "vlsm-harness break 1"
    kind: Kind
    dataset: str
    split: str
    sample_id: str
    image_id: str
    prompts: Literal["released", "corrected"]
    prompt_type: PromptType
    prompt_index: int
    original_prompt: str
    edits: list[Edit] = Field(min_length=1)
    made_by: list[str]
    variant: str
    named_sample_id: str | None
    size: Size
    limits: Limits
    figures: Scores
    model_id: str
    signature: str
    search: Search
    sha256: Hash = ""

    def content_sha256(self) -> str:
        """Hash of everything but the hash."""
        content = self.model_dump(mode="json", exclude={"sha256"})
        return hashlib.sha256(canonical(content)).hexdigest()

    def seal(self) -> "Break":
        """The same break with its hash."""
        return self.model_copy(update={"sha256": self.content_sha256()})

    @property
    def file_name(self) -> str:
        """Of its file; two models never share one."""
        return f"{self.kind}-{self.dataset}-{self.split}-{self.sha256[:12]}.json"


def write_break(saved: Break, folder: Path) -> Path:
    """Write a sealed break into a folder; the same break gives the same file."""
    path = folder / saved.file_name
    write_json(path, saved.model_dump(mode="json"))
    return path


_AS_WRITTEN = "Take the file as `vlsm-harness hunt` wrote it."


def read_break(path: Path) -> Break:
    """Read one break; refuses what breaks the schema, contradicts itself, or was changed."""
    saved = validate(Document(path, _content(path)), Break, error=DataError)
    try:
        made = apply_edits(saved.original_prompt, saved.edits)
    except PromptError as problem:
        raise DataError(f"{path}: {problem}") from None
    if made != saved.variant:
        raise DataError(
            f"{path}: the edits make {made!r}, 'variant' says {saved.variant!r}. Both must be one "
            f"text. {_AS_WRITTEN}"
        )
    size = size_of(saved.original_prompt, saved.edits)
    if (saved.size.edits, saved.size.characters) != size:
        raise DataError(
            f"{path}: 'size' says {saved.size.edits} edits and {saved.size.characters} characters, "
            f"the edits are {size}. Both must agree. {_AS_WRITTEN}"
        )
    if saved.sha256 != saved.content_sha256():
        raise DataError(
            f"{path}: the hash {saved.sha256[:12]!r} is not that of the content. A break must be "
            f"what was found. {_AS_WRITTEN}"
        )
    return saved


def _content(path: Path) -> dict[str, Any]:
    repair = "Give a file that `vlsm-harness hunt` wrote."
    content = read_bytes(path, most=MAX_BYTES, error=DataError, missing=repair)
    parsed = parse_json(content, path, error=DataError, repair=repair)
    if not isinstance(parsed, dict):
        raise DataError(
            f"{path}: found {type(parsed).__name__}. A break is one JSON object. {repair}"
        )
    return parsed


def read_breaks(path: Path) -> dict[Path, Break]:
    """The break of a file, or those of every ``*.json`` of a folder, by path."""
    paths = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not paths:
        raise DataError(
            f"{path}: no *.json here. A folder of breaks is needed. Give the --out of "
            "`vlsm-harness hunt`."
        )
    return {one: read_break(one) for one in paths}
