"""Which grammar that ships a stranger's sentences are built by.

Conventions: only grammars that leave the rest to the lexicon are tried: under another one a single
odd sentence would stop every reading. Of sets that share a grammar the last one stands for all.
"""

from collections.abc import Mapping
from functools import cache

from harness.cards import dataset_names, load_dataset_card
from harness.prompts.grammar import PromptGrammar, load_grammar
from harness.prompts.templates import Mismatch

LEAST_SHARE = 0.9
_MOST_LOOKED_AT = 2000


def find_grammar(prompt_type: str, counts: Mapping[str, int]) -> tuple[str | None, str | None]:
    """The shipped set whose grammar reads sentences, and a sentence that says how many.

    The set is None where no grammar reads `LEAST_SHARE` of the rows, the sentence where none reads
    any. `counts` says how many rows have each sentence; of very many, some are looked at.
    """
    counts = dict(list(counts.items())[:: 1 + len(counts) // _MOST_LOOKED_AT])
    fits = {g.dataset: _n_parsed(g, prompt_type, counts) for g in _open_grammars()}
    name = max(fits, key=lambda name: fits[name])
    if not fits[name]:
        return None, None
    said = f"sentences: {fits[name]} of {sum(counts.values())} are built as those of {name}"
    if fits[name] >= LEAST_SHARE * sum(counts.values()):
        return name, f"{said}: its grammar is on the card, with the lexicon for the rest."
    return None, (
        f"{said}, fewer than {LEAST_SHARE:.0%}: all are read as free text. `grammar: {name}` on "
        "the card would read those."
    )


@cache
def _open_grammars() -> tuple[PromptGrammar, ...]:
    cards = [load_dataset_card(name) for name in dataset_names()]
    found = {
        card.grammar.model_dump_json(): card
        for card in cards
        if card.grammar is not None and card.grammar.otherwise is not None
    }
    return tuple(load_grammar(card) for card in found.values())


def _n_parsed(grammar: PromptGrammar, prompt_type: str, counts: Mapping[str, int]) -> int:
    templates = grammar.templates.get(prompt_type, ())
    return sum(
        count
        for text, count in counts.items()
        if any(not isinstance(template.match(text), Mismatch) for template in templates)
    )
