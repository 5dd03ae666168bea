"""What the lexicon found, counted."""

from harness.cards import load_dataset_card
from harness.prompts.freetext.counting import count_spans, span_lines, spans_from
from harness.prompts.grammar import load_grammar


def prompts(card, *texts):
    return [load_grammar(card).parse(text, prompt_type=card.prompt_type) for text in texts]


def test_prompts_of_a_grammar_are_not_counted():
    card = load_dataset_card("kvasir_polyp")
    assert spans_from(card) == "grammar"
    assert count_spans(card, prompts(card, "no polyp")) is None


def test_sentences_that_fit_no_template_are_counted_alone():
    card = load_dataset_card("qata_cov19")
    texts = ("Unilateral pulmonary infection, one infected area, lower right lung.", "lungs", "odd")
    counts = count_spans(card, prompts(card, *texts))

    assert counts == {
        "from": "grammar, else lexicon",
        "n_prompts": 3,
        "n_by_lexicon": 2,
        "n_without": 1,
        "found": {"class": 1},
        "again": {},
    }
    (line,) = span_lines([{"dataset": "qata_cov19", "split": "test", **counts}])
    assert line == (
        "qata_cov19/test: spans: grammar, else lexicon: class in 1 of 2 prompts that fit no "
        "template, of 3; 1 names nothing."
    )
