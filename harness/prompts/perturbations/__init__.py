"""The perturbations: named pure rules that turn a prompt into edited prompts.

Conventions: the registry is an explicit dictionary, keyed by name. Packages
outside add to it through entry points of the group ``vlsm_harness.perturbations``,
which are read only when `load_outside` is called.
"""

from importlib.metadata import entry_points

from harness.errors import SuiteError
from harness.prompts.context import Context, Form, Scope
from harness.prompts.edits import apply_edits, invert_edits
from harness.prompts.perturbations import (
    absence,
    change,
    denial,
    destruction,
    removal,
    slips,
    surface,
    wording,
)
from harness.prompts.perturbations.base import (
    Enumerated,
    Lottery,
    Outcome,
    Perturbation,
    Rule,
    Sampled,
    is_sampled,
    variants_of,
)

__all__ = [
    "ENTRY_POINTS",
    "PERTURBATIONS",
    "Context",
    "Enumerated",
    "Form",
    "Lottery",
    "Outcome",
    "Perturbation",
    "Rule",
    "Sampled",
    "Scope",
    "apply_edits",
    "invert_edits",
    "is_sampled",
    "load_outside",
    "variants_of",
]

ENTRY_POINTS = "vlsm_harness.perturbations"

_BUILT_IN: tuple[Perturbation, ...] = (
    removal.EMPTY,
    removal.DROP_ATTRIBUTE,
    removal.PROMPT_TYPE,
    removal.CLASS_ONLY,
    removal.TRUNCATE,
    destruction.RANDOM_WORD,
    destruction.RANDOM_WORDS,
    destruction.RANDOM_PROMPT,
    destruction.IRRELEVANT,
    destruction.SHUFFLE_WORDS,
    change.ANTONYM,
    change.SWAP_VALUE,
    change.OTHER_SAMPLE,
    change.WRONG_CLASS,
    denial.CONTRADICTION,
    denial.NEGATION,
    absence.ABSENT,
    absence.ABSENT_NEAR,
    absence.ABSENT_FAR,
    absence.ABSENT_MODALITY,
    absence.ABSENT_TARGET,
    absence.ABSENT_NONSENSE,
    wording.SYNONYM,
    wording.PARAPHRASE,
    wording.REORDER_ATTRIBUTES,
    slips.TYPO,
    slips.SPELLING,
    slips.ARTICLE_NUMBER,
    surface.CASE,
    surface.PUNCTUATION,
    surface.WHITESPACE,
)
PERTURBATIONS: dict[str, Perturbation] = {rule.name: rule for rule in _BUILT_IN}


def load_outside() -> list[str]:
    """Add the perturbations of installed outside packages to the registry.

    An entry point names an object, or a class without arguments, that keeps the
    contract of `Enumerated` or `Sampled`. This imports code of those packages.

    Returns:
        The names that were added, sorted.

    Raises:
        SuiteError: A name is taken, or an object does not keep the contract.
    """
    found: dict[str, Perturbation] = {}
    for entry in sorted(entry_points(group=ENTRY_POINTS), key=lambda e: (e.name, e.value)):
        where = f"entry point {entry.name!r} ({entry.value})"
        made = entry.load()
        made = made() if isinstance(made, type) else made
        if not isinstance(made, Enumerated | Sampled):
            raise SuiteError(
                f"{where}: found {type(made).__name__}. A perturbation has 'name', 'meaning', "
                "'expected_mask', 'per_attribute', 'crossed_words', 'scope', 'form' and either "
                "'enumerate' or 'sample'. Add what is missing."
            )
        if found.get(entry.name) is not None or _is_other(entry.name, made):
            raise SuiteError(
                f"{where}: the name {entry.name!r} is taken. Every perturbation needs its own. "
                "Rename it in the outside package."
            )
        found[entry.name] = made
    PERTURBATIONS.update(found)
    return sorted(found)


def _is_other(name: str, made: Perturbation) -> bool:
    """Whether the name belongs to something else; loading twice is harmless."""
    known = PERTURBATIONS.get(name)
    return known is not None and (known in _BUILT_IN or type(known) is not type(made))
