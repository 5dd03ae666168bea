"""The lexicon's spans against those of the grammars."""

import json
import math
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT / "reports"))

import spans  # noqa: E402

ROWS = json.loads((ROOT / "tests" / "prompts" / "rows.json").read_text(encoding="utf-8"))
ASKED = ("size", "number", "location", "color")


def own_prompts():
    """The sentences that the tests have of each set."""
    return {
        dataset: {
            (rung, text)
            for row in rows
            for rung, texts in row.items()
            for text in (texts if isinstance(texts, list) else [texts])
        }
        for dataset, rows in ROWS.items()
    }


@pytest.mark.parametrize("attribute", ASKED)
def test_spans_agree_on_a_few_sentences_of_every_set(attribute):
    found = spans.compare(own_prompts())[attribute]

    assert found.n_grammar >= 15
    assert found.precision >= 0.95
    assert found.recall >= 0.80


def test_spans_agree_on_the_released_annotations(shared_data):
    found = spans.compare(spans.released(shared_data))

    assert sum(one.n_grammar for one in found.values()) > 70_000
    assert {name: one.precision >= 0.95 and one.recall >= 0.80 for name, one in found.items()} == {
        **dict.fromkeys(found, True),
        **dict.fromkeys(("shape", "tumor_type", "pathology"), False),
    }
    readme = (ROOT / "suites" / "datasets" / "README.md").read_text(encoding="utf-8")
    assert spans.table(found) in readme


def test_a_missed_and_an_invented_span_are_told_apart():
    found = spans.compare({"kvasir_polyp": [("p2", "kidney polyp"), ("p2", "round polyp")]})

    assert found["shape"] == spans.Agreement(n_grammar=2, n_lexicon=1, n_both=1)
    assert (found["shape"].precision, found["shape"].recall) == (1.0, 0.5)
    assert math.isnan(spans.Agreement(0, 0, 0).precision)
    assert math.isnan(spans.Agreement(0, 0, 0).recall)
