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
    Outcome,
    Perturbation,
    Rule,
    Sampled,
    SampledPerturbation,
    is_sampled,
    variants_of,
)

__all__ = [
    "ENTRY_POINTS",
    "PERTURBATIONS",
    "Context",
    "Enumerated",
    "Form",
    "Outcome",
    "Perturbation",
    "Rule",
    "Sampled",
    "SampledPerturbation",
    "Scope",
    "apply_edits",
    "invert_edits",
    "is_sampled",
    "load_outside",
    "variants_of",
]

ENTRY_POINTS = "vlsm_harness.perturbations"

_BUILT_IN: tuple[Perturbation, ...] = (
    removal.empty,
    removal.drop_attribute,
    removal.prompt_type,
    removal.class_only,
    removal.truncate,
    destruction.random_word,
    destruction.random_words,
    destruction.random_prompt,
    destruction.irrelevant,
    destruction.shuffle_words,
    change.antonym,
    change.swap_value,
    change.other_sample,
    change.wrong_class,
    denial.contradiction,
    denial.negation,
    denial.negation_named,
    absence.absent,
    absence.absent_near,
    absence.absent_far,
    absence.absent_modality,
    absence.absent_target,
    absence.absent_nonsense,
    wording.synonym,
    wording.paraphrase,
    wording.reorder_attributes,
    slips.typo,
    slips.spelling,
    slips.article_number,
    surface.case,
    surface.punctuation,
    surface.whitespace,
)
PERTURBATIONS: dict[str, Perturbation] = {rule.name: rule for rule in _BUILT_IN}


def load_outside() -> list[str]:
    """Add the perturbations of installed outside packages to the registry.

    An entry point names an object, or a class without arguments, that keeps the
    contract of `Enumerated` or `Sampled`. This imports code of those packages.

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
