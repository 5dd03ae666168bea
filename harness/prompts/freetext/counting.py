"""What the lexicon found in the prompts of a set, counted and in words.

Conventions: prompts are those of the type that is audited, each of a sample once. What is
named more than once in a prompt has its first mention changed.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from harness.cards import DatasetCard
from harness.prompts.freetext.terms import ATTRIBUTES, is_read_freely
from harness.prompts.grammar import LEXICON, load_grammar
from harness.records import Prompt


def spans_from(card: DatasetCard, *, freely: bool = False) -> str:
    """What the attribute spans of a dataset's prompts come from."""
    if card.grammar is None:
        return "lexicon"
    return "grammar, else lexicon" if freely or is_read_freely(card) else "grammar"


def count_spans(
    card: DatasetCard, prompts: Sequence[Prompt], *, freely: bool = False
) -> dict[str, Any] | None:
    """What was found in which of a set's prompts; None where its grammar reads all of them.

    ``from``, ``n_prompts``, ``n_by_lexicon``, ``n_without`` a span, and by attribute in how many
    prompts it was ``found`` and how many name it ``again``.
    """
    finder = load_grammar(card, freely=freely).finder
    if finder is None:
        return None
    free = [prompt for prompt in prompts if prompt.template == LEXICON and prompt.text]
    found = Counter(span.attribute for prompt in free for span in prompt.spans)
    further = Counter(
        attribute
        for prompt in free
        for attribute in {span.attribute for span in finder.find(prompt.text).further}
    )
    return {
        "from": spans_from(card, freely=freely),
        "n_prompts": len(prompts),
        "n_by_lexicon": len(free),
        "n_without": sum(not prompt.spans for prompt in free),
        "found": {name: found[name] for name in ATTRIBUTES if name in found},
        "again": {name: further[name] for name in ATTRIBUTES if name in further},
    }


def span_lines(spans: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """A sentence for each set whose spans, or some of them, the lexicon found.

    Example:
        >>> counts = {"from": "lexicon", "n_prompts": 3, "n_by_lexicon": 3, "n_without": 1}
        >>> counts |= {"found": {"size": 2}, "again": {"size": 1}}
        >>> print(next(span_lines([{"dataset": "mine", "split": "test", **counts}])))
        mine/test: spans: lexicon: size in 2 of 3 prompts; 1 names nothing. 1 names size again: \
the first mention is changed.
    """
    for one in spans:
        found = ", ".join(f"{name} in {count}" for name, count in one["found"].items())
        line = f"{one['dataset']}/{one['split']}: spans: {one['from']}: {found or 'nothing'} of "
        line += f"{one['n_by_lexicon']} prompts"
        if one["n_by_lexicon"] != one["n_prompts"]:
            line += f" that fit no template, of {one['n_prompts']}"
        line += f"; {_named(one['n_without'])} nothing."
        if one["again"]:
            again = ", ".join(f"{_named(n)} {name} again" for name, n in one["again"].items())
            line += f" {again}: the first mention is changed."
        yield line


def _named(count: int) -> str:
    return f"{count} name" + "s" * (count == 1)
