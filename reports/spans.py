"""How well the lexicon finds attribute spans that a grammar knows.

Conventions: the distinct prompts of the released annotations, every rung. A span counts
where attribute, beginning and end are those of the grammar. Precision is the share of the
lexicon's spans that the grammar has, recall the share of the grammar's that the lexicon finds.

    python reports/spans.py ../shared/data
"""

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from harness.cards import dataset_names, load_dataset_card
from harness.prompts.freetext.finding import SpanFinder
from harness.prompts.freetext.terms import vocabulary
from harness.prompts.grammar import load_grammar


class Agreement(NamedTuple):
    """How the spans of one attribute agree."""

    n_grammar: int
    n_lexicon: int
    n_both: int

    @property
    def precision(self) -> float:
        """Share of the lexicon's spans that the grammar has; NaN where it found none."""
        return self.n_both / self.n_lexicon if self.n_lexicon else float("nan")

    @property
    def recall(self) -> float:
        """Share of the grammar's spans that the lexicon found; NaN where there is none."""
        return self.n_both / self.n_grammar if self.n_grammar else float("nan")


def compare(prompts: Mapping[str, Iterable[tuple[str, str]]]) -> dict[str, Agreement]:
    """Compare by attribute, over all datasets.

    Args:
        prompts: Per dataset its prompts, as (prompt type, text).
    """
    finder, counts = SpanFinder(vocabulary({})), Counter[tuple[str, str]]()
    for dataset, texts in prompts.items():
        grammar = load_grammar(dataset)
        for rung, text in texts:
            true = {*grammar.parse(text, prompt_type=rung).spans}
            found = {*finder.find(text).spans}
            for kind, spans in (("true", true), ("found", found), ("both", true & found)):
                counts.update((span.attribute, kind) for span in spans)
    return {
        name: Agreement(*(counts[name, kind] for kind in ("true", "found", "both")))
        for name in sorted({name for name, _ in counts})
    }


def released(root: Path) -> dict[str, set[tuple[str, str]]]:
    """The distinct prompts of the annotations below a data root."""
    cards = [load_dataset_card(name) for name in dataset_names()]
    return {
        card.name: set(_prompts(root / card.name / "anns"))
        for card in cards
        if not card.generator and (root / card.name / "anns").is_dir()
    }


def _prompts(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.glob("*.json")):
        for row in json.loads(path.read_text(encoding="utf-8")):
            for rung, texts in row["prompts"].items():
                yield from ((rung, t) for t in (texts if isinstance(texts, list) else [texts]))


def table(found: Mapping[str, Agreement]) -> str:
    """The comparison as Markdown."""
    lines = ["| attribute | grammars | lexicon | precision | recall |", "|---|--:|--:|--:|--:|"]
    for name, one in found.items():
        rates = f"{one.precision:.3f} | {one.recall:.3f}"
        lines.append(f"| {name} | {one.n_grammar:,} | {one.n_lexicon:,} | {rates} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(table(compare(released(Path(sys.argv[1])))) + "\n")
