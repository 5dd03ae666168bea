"""Schemas of the two kinds of card: what a dataset is, what a model is.

Conventions: sizes are pixels, thresholds are probabilities in (0, 1), hashes
are lower-case hexadecimal SHA-256. Unknown keys are errors.
"""

import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    field_validator,
    model_validator,
)

from harness.errors import CardError, choose, nearest
from harness.files import (
    Document,
    name_problem,
    parse_yaml,
    path_problem,
    read_yaml,
    shipped,
    validate,
)
from harness.records import Reading

PROMPT_TYPES = tuple(f"p{rung}" for rung in range(10))
PromptType = Literal["p0", "p1", "p2", "p3", "p4", "p5", "p6", "p7", "p8", "p9"]
StateKey = Annotated[str, Field(pattern=r"^\w+(\.\w+)+$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Strict(BaseModel):
    """Base of every schema: frozen, unknown keys and numbers that are not finite refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def plain_name(name: str) -> str:
    """Names become parts of paths, of files and of folders."""
    if not name or not all(c.isalnum() or c in "-_." for c in name) or name.startswith("."):
        raise ValueError("a name holds letters, digits, '-', '_' and '.' only")
    if len(name.encode()) > _LONGEST_NAME:
        raise ValueError(f"a name has at most {_LONGEST_NAME} bytes")
    return name


_LONGEST_NAME = 120


def _stays(path: str) -> str:
    climbs = "is absolute or climbs" if ".." in Path(path).parts else None
    if problem := climbs or path_problem(path):
        raise ValueError(f"the path {problem}; name a folder below the dataset's own")
    return path


def _holdable(path: str) -> str:
    if problem := name_problem(path):
        raise ValueError(f"the path {problem}; name a file that a disk can hold")
    return path


PlainName = Annotated[str, AfterValidator(plain_name)]
Below = Annotated[str, AfterValidator(_stays)]
Holdable = Annotated[str, AfterValidator(_holdable)]


class AttributeRule(Strict):
    """How one attribute's value is written.

    Exactly one of `values` (a closed list, matched literally, case-sensitive)
    and `free` (any text) is given. `separator` joins several values into one
    span (``small, medium``); the whole list is one value.
    """

    values: list[str] = []
    free: bool = False
    separator: str | None = None

    @model_validator(mode="after")
    def _one_form(self) -> "AttributeRule":
        if bool(self.values) == self.free:
            raise ValueError("give either 'values' or 'free: true'")
        return self


class Grammar(Strict):
    """The prompt grammar of a dataset: attributes, and templates per prompt type.

    A template is literal text with ``{attribute}`` slots; ``{attribute=text}`` is
    a slot that holds this one text (which need not be among the attribute's
    values). The first template that matches wins. The other keys say how the same
    sentences may be changed; what they leave out does not apply to the dataset.
    """

    attributes: dict[str, AttributeRule]
    prompts: dict[PromptType, list[str]]
    paraphrases: dict[PromptType, list[str]] = Field(
        default={}, description="Other sentences that say the same, per prompt type."
    )
    movable: list[list[str]] = Field(
        default=[], description="Phrases that may change places where they follow each other."
    )
    drops: dict[str, dict[str, str]] = Field(
        default={},
        description="Per attribute: the phrase that goes with it, and what then stands there.",
    )
    negations: dict[str, dict[str, str]] = Field(
        default={},
        description="Per attribute: the phrase around it, and the phrase that denies it.",
    )
    spellings: dict[str, list[str]] = Field(
        default={}, description="Per text of the templates: how else it is written in the prompts."
    )
    otherwise: Literal["lexicon"] | None = Field(
        default=None, description="'lexicon' reads what fits no template as free text."
    )


class Layout(Strict):
    """Folders below the dataset's own, one per split where they differ."""

    folder: Below | None = None
    images: Below | dict[str, Below] = "images"
    masks: Below | dict[str, Below] = "masks"


class ClusterRule(Strict):
    """What is independent of what.

    ``annotated`` takes each row's own ``cluster``, of which `source` says where it came from.
    ``patient`` takes the first group of `pattern` in the image's name (a regular
    expression without look-around and back-references, which is searched in linear time);
    ``sequence`` looks the number in the image's name up in `ranges` (first and
    last frame of each video, inclusive) or, without them, groups near
    duplicates; ``image`` assumes that images are independent.
    """

    rule: Literal["patient", "sequence", "image", "annotated"] = "image"
    pattern: str | None = None
    ranges: list[tuple[int, int]] = []
    source: str | None = None

    @model_validator(mode="after")
    def _complete(self) -> "ClusterRule":
        if self.rule == "patient" and not self.pattern:
            raise ValueError("the rule 'patient' needs 'pattern', a regular expression")
        if self.pattern is not None:
            _check_pattern(self.pattern)
        return self


def _check_pattern(pattern: str) -> None:
    """Refuse what cannot be searched in linear time, which is a back-reference or look-around."""
    import polars as pl

    try:
        groups = pl.select(pl.lit("").str.extract_groups(pattern)).to_series().dtype
    except pl.exceptions.PolarsError as problem:
        reason = " ".join(str(problem).split())[:200]
        raise ValueError(
            f"no regular expression of the kind that is read here ({reason}): without "
            "look-around, without back-references, and small"
        ) from None
    if not (isinstance(groups, pl.Struct) and groups.fields):
        raise ValueError(
            "the pattern has no group: put the part of the name that tells patients apart in "
            "parentheses, such as '(patient\\d+)'"
        )


class SurfaceRule(Strict):
    """How contours of this dataset are compared, in pixels of the masks that are compared."""

    tolerance_px: float = Field(
        ge=0, allow_inf_nan=False, description="Contours this near are one, to the measure nsd."
    )


class MaskRule(Strict):
    """What of a mask is foreground; without a rule what each file holds decides.

    At most one of `foreground: nonzero`, `above` and `values` is given. `channel` reads one
    channel alone, by that rule or by what it holds; `foreground: alpha` is `channel: a`.
    """

    foreground: Literal["nonzero", "alpha"] | None = None
    above: float | None = Field(default=None, description="Foreground is what is greater.")
    values: list[int] = Field(default=[], description="Foreground are these values or indexes.")
    channel: Literal["r", "g", "b", "a"] | None = Field(default=None, description="Read it alone.")

    @model_validator(mode="before")
    @classmethod
    def _nested(cls, given: Any) -> Any:
        """``foreground: {above: 127}`` says the same as ``above: 127``."""
        if isinstance(given, dict) and isinstance(given.get("foreground"), dict):
            return {k: v for k, v in given.items() if k != "foreground"} | given["foreground"]
        return given

    @model_validator(mode="after")
    def _one_rule(self) -> "MaskRule":
        rules = [self.foreground is not None, self.above is not None, bool(self.values)]
        is_twice = sum(rules) > 1 or (self.foreground == "alpha" and self.channel)
        if is_twice or not (any(rules) or self.channel):
            raise ValueError("give one of 'foreground', 'above' and 'values', or 'channel'")
        return self


def read_mask_rule(text: str, *, where: str) -> Reading:
    """A rule for masks, written as on a dataset's card: ``{above: 127}``.

    Raises:
        CardError: It is no such rule.
    """
    rule = validate(parse_yaml(text.encode(), Path(where)), MaskRule)
    return _reading(rule, intensity=None, orientation=None)


class Percentiles(Strict):
    """Intensities between two percentiles of each picture."""

    percentiles: tuple[float, float]

    @field_validator("percentiles")
    @classmethod
    def _rising(cls, pair: tuple[float, float]) -> tuple[float, float]:
        if not 0 <= pair[0] < pair[1] <= 100:
            raise ValueError("two rising numbers from 0 to 100 are needed")
        return pair


_NOT_STATED = "not stated"


def _named_grammar(given: Any) -> Any:
    """``grammar: qata_cov19`` takes the grammar of a card that ships."""
    if not isinstance(given, str):
        return given
    known = dataset_names()
    if given not in known:
        names = ", ".join(map(repr, known))
        raise ValueError(
            f"no shipped data set is called that.{nearest(given, known)} Known: {names}"
        )
    return load_dataset_card(given).grammar


class DatasetCard(Strict):
    """One segmentation dataset with text prompts."""

    name: PlainName = Field(examples=["name: mine"])
    title: str = ""
    modality: str = _NOT_STATED
    source: str = _NOT_STATED
    licence: str = _NOT_STATED
    private: bool = True
    generator: str | None = Field(
        default=None,
        pattern=r"^[\w./-]+\.py:\w+$",
        description="'generator.py:Class' beside the card: makes the files where there are none.",
    )
    splits: list[Below] = ["test"]
    prompt_type: PromptType = Field(examples=["prompt_type: p6"])
    layout: Layout = Layout()
    masks: MaskRule | None = Field(default=None, description="What of a mask is foreground.")
    intensity: Literal["full", "minmax"] | tuple[float, float] | Percentiles | None = Field(
        default=None, description="How pictures of more than 8 bits become 8; others stay."
    )
    orientation: Literal["stored", "displayed"] | None = Field(
        default=None, description="Whether an orientation tag turns pictures and masks."
    )
    clusters: ClusterRule = ClusterRule()
    named_targets: bool = False
    inter_annotator_dice: float | None = Field(
        default=None,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="Mean Dice between two annotators of its masks: margins are told in units of "
        "what they differ by.",
    )
    surface: SurfaceRule | None = None
    grammar: Annotated[
        Grammar | None, BeforeValidator(_named_grammar, json_schema_input_type=Grammar | str | None)
    ] = Field(
        default=None,
        description="How its sentences are built, or the shipped set whose are built alike; "
        "without one they are free text.",
    )
    classes: list[str] = Field(
        default=[], description="Its targets as free text calls them, in the singular."
    )
    from_mask: list[Literal["number", "size", "location"]] = Field(
        default=[], description="Attributes that the released prompts took from the mask."
    )
    plural: dict[str, str] = Field(
        default={}, description="Class word of one -> of several, where prompts agree in number."
    )
    defects: list[str] = []
    _path: Path | None = PrivateAttr(default=None)

    @property
    def path(self) -> Path | None:
        """The card's file, if it came from one: no part of what the card says."""
        return self._path

    @field_validator("intensity")
    @classmethod
    def _rising(cls, given: Any) -> Any:
        if isinstance(given, tuple) and not -math.inf < given[0] < given[1] < math.inf:
            raise ValueError("two rising, finite numbers are needed")
        return given

    @property
    def attributes(self) -> dict[str, AttributeRule]:
        """The attributes that its grammar knows."""
        return {} if self.grammar is None else self.grammar.attributes

    @property
    def reading(self) -> Reading:
        """How its pictures and masks are read."""
        given = self.intensity
        return _reading(
            self.masks or MaskRule.model_construct(),
            intensity=("percentiles", *given.percentiles)
            if isinstance(given, Percentiles)
            else given,
            orientation=self.orientation,
        )


def _reading(masks: MaskRule, *, intensity: Any, orientation: str | None) -> Reading:
    is_alpha = masks.foreground == "alpha"
    return Reading(
        foreground=None if is_alpha else masks.foreground,
        above=masks.above,
        values=tuple(masks.values),
        channel="a" if is_alpha else masks.channel,
        intensity=intensity,
        orientation=orientation,
    )


class Weights(Strict):
    """Where files of a pretrained model lie: a hub id, a path beside the card, or a package."""

    hub: Holdable | None = None
    revision: Holdable | None = None
    path: Holdable | None = None
    package: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$",
        max_length=_LONGEST_NAME,
        description="An installed Python package whose `file` is read; nothing in it is imported.",
    )
    file: str | None = Field(
        default=None, description="Which file in it is meant, where it holds several models."
    )
    sha256: Sha256 | None = None
    optional: bool = Field(
        default=False,
        description="Of a tokenizer: go on without it where its hub cannot be reached; the adapter "
        "then says which checkpoints need it.",
    )

    @field_validator("file")
    @classmethod
    def _inside(cls, name: str | None) -> str | None:
        if name is not None and (path_problem(name) or ".." in Path(name).parts):
            raise ValueError("a file's name stays inside the repository or folder")
        return name

    @model_validator(mode="after")
    def _one_place(self) -> "Weights":
        if sum(one is not None for one in (self.hub, self.path, self.package)) != 1:
            raise ValueError("give one of 'hub', 'path' and 'package'")
        if self.package is not None and self.file is None:
            raise ValueError("of a package 'file' says which of its files is meant")
        return self


class Checkpoint(Strict):
    """A finetuned file beside the card."""

    path: Holdable
    sha256: Sha256 | None = None


class Lora(Strict):
    """Low-rank additions to the weights, merged into them on loading.

    `path` is PEFT's folder, which says its own alpha, or a file of another trainer, which does
    not: then `alpha` is that of the training's settings.
    """

    path: Holdable
    alpha: float | None = Field(default=None, gt=0)
    sha256: Sha256 | None = None


class ModelCard(Strict):
    """One model: its adapter, its weights and what it was trained on."""

    name: PlainName
    title: str
    paper: str | None = None
    licence: str | None = None
    adapter: str = Field(pattern=r"^[\w./-]+(\.py)?:\w+$")
    group: Literal["paper", "finetuned families", "promptable", "controls", "small"] | None = Field(
        default=None, description="Where a shipped model stands in `ls models`."
    )
    kind: Literal["adapter", "callable"] = Field(
        default="adapter",
        description="'callable': `adapter` names a function f(image, prompt) that returns masks.",
    )
    settings: dict[str, Any] = {}
    weights: Weights | None = None
    further_weights: dict[str, Weights] = Field(
        default={}, description="More pretrained files, by the adapter's names for them."
    )
    tokenizer: Weights | None = Field(
        default=None, description="The vocabulary's file, where none lies beside the weights."
    )
    checkpoint: Checkpoint | None = None
    lora: Lora | None = Field(
        default=None, description="Additions to the weights above, such as PEFT's LoRA."
    )
    obtain: str | None = Field(
        default=None,
        description="Where a user gets weights that lie on no hub, and how to give them.",
    )
    threshold: float = Field(gt=0, lt=1)
    noise_floor: float = Field(default=1e-4, gt=0)
    samples: int = Field(
        default=1,
        ge=1,
        le=10_000,
        description="Of a model that draws random numbers in evaluation: samples whose mean is its "
        "answer.",
    )
    aspect: Literal["stretched"] | None = Field(
        default=None, description="'stretched': trained on pictures whose shape was not kept."
    )
    trainable: Literal["all", "decoder"] = "all"
    trained_on: list[str] = []
    prompt_type: PromptType | None = None
    control: bool = False
    recognised_by: list[StateKey] = Field(
        default=[],
        description="Keys of a state dict that only this architecture has, without a wrapper's "
        "prefix: by them a checkpoint given to another card is told.",
    )
    recognised_kinds: dict[str, list[StateKey]] = Field(
        default={}, description="Of a family: such a list for each of its kinds."
    )
    uses: list[str] | None = Field(
        default=None, description="Attributes the model is known to use, measured."
    )
    training: dict[str, Any] | None = Field(default=None, description="How it was trained.")
    figures: dict[str, Any] | None = Field(default=None, description="What was measured of it.")
    notes: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_function(cls, given: Any) -> Any:
        """A function needs no title, and what it returns is cut where it is as likely as not."""
        if isinstance(given, dict) and given.get("kind") == "callable":
            return {"title": str(given.get("name", "")), "threshold": 0.5} | given
        return given

    @model_validator(mode="after")
    def _no_weights(self) -> "ModelCard":
        if self.kind == "callable":
            for key in ("weights", "further_weights", "tokenizer", "checkpoint", "lora"):
                if getattr(self, key):
                    raise ValueError(f"a function brings its own weights; take {key!r} off")
        return self


def dataset_names() -> list[str]:
    """Names of the dataset cards that ship with the harness."""
    return sorted(path.stem for path in (shipped("suites") / "datasets").glob("*.yaml"))


def load_dataset_card(name_or_path: str | Path) -> DatasetCard:
    """Read a dataset card by its name or by the path of its file.

    Raises:
        CardError: No such card, or the card breaks the schema.
    """
    path = Path(name_or_path)
    if path.suffix not in {".yaml", ".yml"}:
        choose(
            str(name_or_path), dataset_names(), kind="dataset", where="datasets", error=CardError
        )
        path = shipped("suites") / "datasets" / f"{name_or_path}.yaml"
    card = validate(read_yaml(path), DatasetCard)
    card._path = path
    return card


def model_names() -> dict[str, Path]:
    """Card files that ship with the harness, by the model's name.

    A folder's ``card.yaml`` answers to the folder's name with dashes; every other
    YAML file in it answers to its own stem.
    """
    cards: dict[str, Path] = {}
    for path in sorted(shipped("models").glob("*/*.yaml")):
        stem = path.parent.name if path.stem == "card" else path.stem
        cards[stem.replace("_", "-")] = path
    return cards


class ResolvedCard(BaseModel):
    """A model card with everything it extends filled in, and where it came from.

    `folder` is where relative `weights` and `checkpoint` paths start;
    `adapter_folder` is where a relative `adapter` starts (the folder of the card
    that named it).
    """

    model_config = ConfigDict(frozen=True)

    card: ModelCard
    path: Path
    folder: Path
    adapter_folder: Path


def load_model_card(name_or_path: str | Path) -> ResolvedCard:
    """Read a model card by its name or path, and fill in what it extends.

    ``extends: clipseg`` takes every key from that card; keys given here replace
    them (`settings` key by key). What is true of one file of weights alone
    (`_OWN_FACTS`) is never inherited.

    Raises:
        CardError: No such card, a circle of `extends`, or a broken schema.
    """
    path = _model_card_path(name_or_path)
    document = read_yaml(path)
    data, adapter_folder = _extended(document, seen=(path.resolve(),))
    card = validate(Document(path, data, document.lines), ModelCard)
    return ResolvedCard(
        card=card, path=path, folder=path.resolve().parent, adapter_folder=adapter_folder
    )


_WEIGHTS = {".ckpt", ".pt", ".pth", ".bin", ".safetensors"}


def _model_card_path(name_or_path: str | Path) -> Path:
    path = Path(name_or_path)
    if path.suffix in {".yaml", ".yml"}:
        return path
    if len(path.name) <= _LONGEST_NAME and (path / "card.yaml").is_file():
        return path / "card.yaml"
    known = model_names()
    if path.suffix in _WEIGHTS and len(path.name) <= _LONGEST_NAME and path.is_file():
        raise CardError(
            f"{path}: a file of weights. A model is a card, which says how they are computed. Give "
            f"--model CARD={path}: the card that they were trained from (`vlsm-harness ls models`)."
        )
    name = choose(str(name_or_path), known, kind="model", where="models", error=CardError)
    return known[name]


_OWN_FACTS = (
    # A card that extends another has its keys: naming the one that lists them is enough.
    "recognised_by",
    "recognised_kinds",
    "obtain",
    "weights",
    "further_weights",
    "checkpoint",
    "group",
    "lora",
    "trained_on",
    "prompt_type",
    "uses",
    "training",
    "figures",
)


def _extended(document: Document, *, seen: tuple[Path, ...]) -> tuple[dict[str, Any], Path]:
    data = dict(document.data)
    base_name = data.pop("extends", None)
    folder = document.path.resolve().parent
    if base_name is None:
        return data, folder
    where = document.where(("extends",))
    if not isinstance(base_name, str):
        raise CardError(f"{where}: found {base_name!r}. Give the name or path of one model card.")
    base_path = _model_card_path(
        folder / base_name if base_name.endswith((".yaml", ".yml")) else base_name
    )
    if base_path.resolve() in seen:
        raise CardError(f"{where}: the card extends itself through {base_name!r}. Cut the circle.")
    base, adapter_folder = _extended(read_yaml(base_path), seen=(*seen, base_path.resolve()))
    merged = {key: value for key, value in base.items() if key not in _OWN_FACTS}
    place = merged.get("tokenizer")
    if isinstance(place, dict) and isinstance(place.get("path"), str):
        # It is inherited, and a relative path starts at the card that wrote it.
        merged["tokenizer"] = {**place, "path": str(base_path.resolve().parent / place["path"])}
    both = [merged.get("settings") or {}, data.get("settings") or {}]
    merged |= data
    strange = [settings for settings in both if not isinstance(settings, dict)]
    if any(both):  # anything but a mapping is left for the schema to refuse
        merged["settings"] = strange[0] if strange else {**both[0], **both[1]}
    return merged, folder if "adapter" in data else adapter_folder
