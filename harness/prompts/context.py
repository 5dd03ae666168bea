"""What a perturbation may look at beside the prompt.

Conventions: a context is read-only. What a perturbation looks at is declared by its
`Scope`; from a context that lacks it the perturbation says that it does not apply.
"""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any, TypeVar

from harness.cards import PROMPT_TYPES
from harness.prompts.grammar import PromptGrammar
from harness.prompts.lexicon import Lexicon
from harness.prompts.population import Population
from harness.prompts.reading import Reader
from harness.records import Sample

Made = TypeVar("Made")


class Scope(StrEnum):
    """How far a perturbation looks.

    Rules that look at the `prompt` alone make the same variants wherever it occurs;
    `sample` adds the sample's other prompts and its image's other samples; rules that
    look at the whole `dataset` draw once for all of its samples together.
    """

    PROMPT = "prompt"
    SAMPLE = "sample"
    DATASET = "dataset"


class Form(StrEnum):
    """What can be read from the variants, by design.

    `parsed`: they parse under the dataset's own grammar. `read`: the tolerant reader
    finds every attribute with the same meaning. `free`: they left the grammar.
    """

    PARSED = "parsed"
    READ = "read"
    FREE = "free"


@dataclass(frozen=True)
class Context:
    """What a perturbation may look at beside the prompt.

    `value_sets` holds, per attribute, the values that occur in the dataset's split;
    `words` are the random words every sample sees; `sample` is the one that the prompt
    belongs to, `population` all of its split; `rungs` those of the ladder to climb.
    """

    grammar: PromptGrammar
    lexicon: Lexicon
    value_sets: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    words: tuple[str, ...] = ()
    sample: Sample | None = None
    population: Population = field(default_factory=Population)
    rungs: tuple[str, ...] = PROMPT_TYPES
    _memory: dict[Hashable, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def reader(self) -> Reader:
        """Reads variants of the dataset's prompts."""
        return self.remember("reader", lambda: Reader(self.grammar, self.lexicon))

    def remember(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """What `make` gives, made once for this context and all that `replace` derives from it.

        Only for what does not depend on the sample.
        """
        if key not in self._memory:
            self._memory[key] = make()
        found: Made = self._memory[key]
        return found
