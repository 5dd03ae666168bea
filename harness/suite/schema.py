"""What a suite file may say, and how it is read.

Conventions: a suite is pure data. Seeds are non-negative integers. Names of
built-in suites are the stems of ``suites/*.yaml``.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import (
    Field,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from harness.cards import DatasetCard, PromptType, Strict
from harness.data.table_variants import TableTexts, table_variants
from harness.data.tables import TableEntry
from harness.errors import SuiteError, choose
from harness.files import Document, read_yaml, shipped, validate
from harness.prompts.perturbations import (
    PERTURBATIONS,
    Context,
    Form,
    Outcome,
    Perturbation,
    Rule,
    Scope,
    load_outside,
)
from harness.records import ExpectedMask, Meaning, Prompt
from harness.suite.expectations import LEAST_REFUSAL, Correction, Expectation, Margins
from harness.suite.gate_rules import Gate

Lexicon = Literal["curated", "curated+wordnet@3.0"]
EmptyRule = Literal["one", "zero", "nan"]
Column = Literal["iou", "hausdorff", "hd95", "nsd"]

_YAML = (".yaml", ".yml")
TABLE = "table"
"""The perturbation of probes whose variants stand in the suite's tables."""
COMPOSED = "property_based_"
"""Probes that `property_based` adds are called so, with the kind of meaning."""


class DatasetEntry(Strict):
    """One dataset of a suite: which split, and from which prompt type its prompts come."""

    name: str
    split: str = "test"
    prompt_type: PromptType | None = Field(
        default=None, description="Rung of the ladder; the dataset card's own when left out."
    )
    prompts: Literal["released", "corrected", "table"] = Field(
        default="released",
        description="'corrected' writes number, size and location anew from the masks; 'table' "
        "takes the originals of the suite's tables.",
    )
    attributes: Literal["all"] | list[str] = Field(
        default="all", description="Change only these attributes on this dataset."
    )

    @property
    def key(self) -> tuple[str, ...]:
        """What tells entries apart: the same set may stand in a suite in several forms."""
        return self.name, self.split, self.prompt_type or "", self.prompts


# Rules of the harness say which mask is right themselves; of a table the meaning decides.
_RIGHT_AFTER = {Meaning.PRESERVED: ExpectedMask.OWN, Meaning.CHANGED: ExpectedMask.NAMED}


class Probe(Strict):
    """One perturbation, applied to some attributes, some number of times.

    The perturbation ``table`` takes its variants, as many as there are, from the rows of
    the suite's tables that bear the probe's name; `meaning` says what they do.
    """

    name: str = Field(pattern=r"^[a-z0-9_]+$")
    perturbation: str
    meaning: Literal["preserved", "removed", "destroyed", "changed"] | None = None
    attributes: Literal["all"] | list[str] = "all"
    repeats: Annotated[int, Field(ge=1, le=1000)] = 1
    rungs: list[PromptType] = Field(
        default=[], description="For prompt_type: which rungs of the ladder; all when empty."
    )
    expect: list[Expectation] | None = Field(
        default=None, description="What must hold; by the perturbation's meaning when left out."
    )

    @model_validator(mode="after")
    def _meaning_of_tables(self) -> "Probe":
        if (self.perturbation == TABLE) == (self.meaning is None):
            raise ValueError(
                f"'meaning' is given with the perturbation {TABLE!r}, and only there: other "
                "perturbations know what they do"
            )
        return self


class Metric(Strict):
    """How a case is scored. A run has one metric; every number carries its signature."""

    resolution: Literal["model", "native"] = "model"
    empty: EmptyRule = Field(default="one", description="Dice where both masks are empty.")
    columns: list[Column] = Field(default=[], description="Further figures per case.")
    tolerance_px: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = Field(
        default={},
        description="Of nsd, for each dataset: how far apart contours may be, in pixels of the "
        "compared masks. A dataset that is left out has the tolerance of its card.",
    )

    @model_serializer(mode="wrap")
    def _without_nothing(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Runs that were begun before there were tolerances have no such key.
        found: dict[str, Any] = plain(self)
        return {k: v for k, v in found.items() if k != "tolerance_px" or v}


class Statistics(Strict):
    """Settings of the intervals and verdicts."""

    draws: Annotated[int, Field(ge=100, le=1_000_000)] = 10_000
    seed: Annotated[int, Field(ge=0)] = 0
    minimum_clusters: int = Field(default=20, ge=2)
    dice_floor: float = Field(default=0.10, ge=0, lt=1)
    margins: Margins = Field(default=Margins(), description="Of invariance, percent of Dice.")
    refusal_area: float = Field(
        default=0.001,
        gt=0,
        lt=1,
        description="A mask of at most this share of the picture, or of 10 pixels, is a refusal.",
    )
    least_refusal: float = Field(
        default=LEAST_REFUSAL,
        gt=0,
        lt=1,
        description="A model whose refusal rate is shown to be above this refuses what is absent.",
    )
    correction: Correction = Field(
        default="holm", description="For many tests of one kind on one model and dataset."
    )


class Suite(Strict):
    """A declarative suite: datasets, probes, metric and statistics.

    `includes` names other suites by name; their probes come first. Their datasets are
    taken where this suite lists none. An included suite may not include another one.
    """

    name: str = Field(pattern=r"^[a-z0-9_]+$")
    title: str
    includes: list[str] = []
    datasets: list[DatasetEntry] = []
    probes: list[Probe] = []
    tables: list[TableEntry] = Field(
        default=[], description="Prompts that others perturbed, for probes of the kind 'table'."
    )
    words: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=10, description="How many random words every sample sees."
    )
    lexicon: Lexicon = "curated"
    property_based: Annotated[int, Field(ge=0, le=1000)] = Field(
        default=0,
        description="How many composed edits Hypothesis draws per prompt and kind of meaning.",
    )
    out_of_distribution: bool = Field(
        default=False, description="Report Dice away from the sets a model was trained on."
    )
    seed: Annotated[int, Field(ge=0)] = 0
    metric: Metric = Metric()
    statistics: Statistics = Statistics()
    gate: Gate = Field(
        default=Gate(), description="Rules of `vlsm-harness gate`; an included suite's are not."
    )
    _folder: Path | None = PrivateAttr(default=None)

    def __eq__(self, other: object) -> bool:
        # Where a suite's file lies is no part of what it says.
        return isinstance(other, Suite) and self.model_dump() == other.model_dump()

    __hash__ = None  # type: ignore[assignment]  # it holds lists

    @property
    def folder(self) -> Path | None:
        """Where the suite's file lies, if it came from one: no part of what the suite says."""
        return self._folder

    def placed(self, folder: Path | None) -> "Suite":
        """The same suite, lying in a folder."""
        found = self.model_copy()
        found._folder = folder
        return found

    @model_validator(mode="after")
    def _names_once(self) -> "Suite":
        for kind, names in (
            ("probe", [p.name for p in self.probes]),
            ("dataset", ["/".join(map(str, d.key)) for d in self.datasets]),
        ):
            doubled = sorted({n for n in names if names.count(n) > 1})
            if doubled:
                raise ValueError(f"the {kind} {doubled[0]!r} stands twice; give each its own name")
        reserved = [
            p.name
            for p in self.probes
            if p.name in ("original", "out_of_distribution") or p.name.startswith(COMPOSED)
        ]
        if reserved:
            raise ValueError(f"the probe name {reserved[0]!r} is reserved; choose another one")
        return self


def with_tolerances(suite: Suite, cards: Sequence[DatasetCard]) -> Suite:
    """The suite with the tolerance of `nsd` for each of its datasets; the suite's own comes first.

    Raises:
        SuiteError: `nsd` is asked for, and neither the suite nor the card says how near is near.
    """
    metric = suite.metric
    if "nsd" not in metric.columns:
        return suite
    tolerances = dict(metric.tolerance_px)
    for card in cards:
        if card.name in tolerances:
            continue
        if card.surface is None:
            raise SuiteError(
                f"{suite.name}: metric.columns: 'nsd' on {card.name} has no tolerance. How far "
                "apart two contours may be is part of the figure. Give it on the data set's card "
                "(`surface: {tolerance_px: 2}`) or in the suite (`metric: {tolerance_px: "
                f"{{{card.name}: 2}}}}`)."
            )
        tolerances[card.name] = card.surface.tolerance_px
    metric = metric.model_copy(update={"tolerance_px": tolerances})
    return suite.model_copy(update={"metric": metric})


class Ruled(NamedTuple):
    """A probe and the perturbation it names."""

    probe: Probe
    rule: Perturbation


def rules_of(suite: Suite, tables: TableTexts | None = None) -> list[Ruled]:
    """The probes of a suite, then what Hypothesis composes of them, per kind of meaning.

    Args:
        suite: The suite.
        tables: The texts of the dataset's tables, for probes that take them.
    """
    rules = [
        Ruled(
            p,
            _table_rule(p.name, Meaning(p.meaning), tables)
            if p.meaning
            else PERTURBATIONS[p.perturbation],
        )
        for p in suite.probes
    ]
    if not suite.property_based:
        return rules
    from harness.prompts.strategies import Family, composed

    families = [
        Family(rule, None if probe.attributes == "all" else tuple(probe.attributes))
        for probe, rule in rules
    ]
    for meaning in dict.fromkeys(family.rule.meaning for family in families):
        name = f"{COMPOSED}{meaning.value}"
        probe = Probe(name=name, perturbation="composed", repeats=suite.property_based)
        rules.append(Ruled(probe, composed(meaning, families)))
    return rules


def _table_rule(probe: str, meaning: Meaning, tables: TableTexts | None) -> Rule:
    """The rows of the tables that bear the probe's name, as a perturbation."""

    def variants(prompt: Prompt, attribute: str | None, context: Context) -> Iterator[Outcome]:
        sample = context.sample
        yield from table_variants(tables, probe, sample.sample_id if sample else "", prompt)

    return Rule(
        name=TABLE,
        meaning=meaning,
        expected_mask=_RIGHT_AFTER.get(meaning, ExpectedMask.UNDEFINED),
        form=Form.FREE,
        variants=variants,
        scope=Scope.SAMPLE,
    )


def suite_names() -> list[str]:
    """Names of the suites that ship with the harness."""
    return sorted(path.stem for path in shipped("suites").glob("*.yaml"))


def load_suite(name_or_path: str | Path) -> Suite:
    """Read a suite by its name or by the path of its file, includes resolved.

    Raises:
        SuiteError: No such suite, a broken schema, an unknown perturbation, or
            includes that contradict each other.
    """
    path = Path(name_or_path)
    if path.suffix not in {".yaml", ".yml"}:
        choose(str(name_or_path), suite_names(), kind="suite", where="suites")
        path = shipped("suites") / f"{name_or_path}.yaml"
    document = read_yaml(path, error=SuiteError)
    suite = validate(document, Suite, error=SuiteError)
    if any(probe.perturbation not in {*PERTURBATIONS, TABLE} for probe in suite.probes):
        load_outside()  # imports other packages' code, so only where a name is asked for
    for index, probe in enumerate(suite.probes):
        choose(
            probe.perturbation,
            {*PERTURBATIONS, TABLE},
            kind="perturbation",
            where=document.where(("probes", index, "perturbation")),
        )
    whole = _with_includes(suite, document).placed(path.parent)
    _check_gate(whole, document)
    return whole


def _check_gate(suite: Suite, document: Document) -> None:
    """Rules of the gate name probes and datasets of the suite, includes resolved.

    Raises:
        SuiteError: A rule names another one. It would never apply, and the gate be open.
    """
    composed = {f"{COMPOSED}{m.value}" for m in Meaning if suite.property_based}
    known = {"probes": {probe.name for probe in suite.probes} | composed}
    if suite.datasets and not any(entry.name.endswith(_YAML) for entry in suite.datasets):
        known["datasets"] = {entry.name for entry in suite.datasets}  # a file has a name within
    gate = suite.gate
    rules: list[tuple[tuple[str | int, ...], Strict]] = [
        *((("max_drop", n), rule) for n, rule in enumerate(gate.max_drop)),
        *((("min_dice", n), rule) for n, rule in enumerate(gate.min_dice)),
        *((("must_listen", n), rule) for n, rule in enumerate(gate.must_listen)),
        *((("must_refuse", n), rule) for n, rule in enumerate(gate.must_refuse)),
        (("non_inferiority",), gate.non_inferiority),
    ]
    for place, rule in rules:
        for key, names in known.items():
            asked = getattr(rule, key, None)
            for index, name in enumerate(asked if isinstance(asked, list) else []):
                where = document.where(("gate", *place, key, index))
                choose(name, names, kind=key.removesuffix("s"), where=where)


def _with_includes(suite: Suite, document: Document) -> Suite:
    parts = []
    for index, name in enumerate(suite.includes):
        where = document.where(("includes", index))
        choose(name, suite_names(), kind="suite", where=where)
        part = validate(
            read_yaml(shipped("suites") / f"{name}.yaml", error=SuiteError), Suite, error=SuiteError
        )
        if part.includes:
            raise SuiteError(
                f"{where}: the suite {name!r} includes others itself. "
                "Includes go one level deep. Name its parts here instead."
            )
        parts.append(part)
    datasets: dict[tuple[str, ...], DatasetEntry] = {}
    probes: dict[str, Probe] = {}
    for part in [suite] if suite.datasets else parts:
        datasets |= {d.key: d for d in part.datasets}
    for part in [*parts, suite]:
        for probe in part.probes:
            if probes.setdefault(probe.name, probe) != probe:
                raise SuiteError(
                    f"{document.where(('includes',))}: the probe {probe.name!r} is defined "
                    "in two ways. A name means one probe. Rename one of the two."
                )
    return suite.model_copy(
        update={
            "includes": [],
            "datasets": list(datasets.values()),
            "probes": list(probes.values()),
            "tables": [table for p in [*parts, suite] for table in p.tables],
            "out_of_distribution": any(p.out_of_distribution for p in [*parts, suite]),
            "property_based": max(p.property_based for p in [*parts, suite]),
        }
    )
