"""Defects that an edit must not bring into a sentence, over every grammar's own sentences."""

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from harness.prompts.coherence import contradiction
from harness.prompts.dressing import article_of
from harness.prompts.grammar import load_grammar
from harness.prompts.lexicon import load_lexicon
from harness.prompts.perturbations import PERTURBATIONS
from harness.records import Meaning, Variant

LEXICON = load_lexicon("curated")
# Their texts are no sentences of the grammar by design.
SENSELESS = {"random_word", "random_words", "random_prompt", "shuffle_words", "truncate", "typo"}
DATASETS = sorted(json.loads((Path(__file__).parent / "rows.json").read_text(encoding="utf-8")))
GRAMMARS = {name: load_grammar(name) for name in DATASETS}
NOUNS = r"(?:polyp|ulcer|melanoma|tumor|lesion|neoplasm)s"


def wrong_articles(text):
    found = re.finditer(r"(?<![\w'-])(an?) (?=(\w\S*))", text)
    return Counter(m.group() + m[2] for m in found if article_of(m[2]) != m[1] + " ")


def bare_nouns(text, prompt):
    """A shape that is a noun stands before its class word, wherever it moved."""
    shape, noun = prompt.values.get("shape"), prompt.values.get("class")
    if shape is None or noun is None or LEXICON.is_adjective("shape", shape):
        return []
    words = text.replace(noun, "NOUN")
    return re.findall(rf"{re.escape(shape)} (?!NOUN|shape|and )\w+", words)


def disagreements(text):
    """Verbs and articles that do not go with the noun."""
    return re.findall(rf"{NOUNS} which is|{NOUNS} is|(?:small|medium|large|white|red) an? ", text)


@pytest.fixture(scope="module")
def edits(contexts, made):
    """Per family, its variants of the longest sentences of each grammar, with their prompts."""
    known = {}

    def find(name):
        if name not in known:
            known[name] = list(variants(name, contexts, made))
        return known[name]

    return find


def variants(name, contexts, made):
    per_attribute = PERTURBATIONS[name].per_attribute
    for dataset in DATASETS:
        official = contexts(dataset).population.prompt_type
        for rung in dict.fromkeys([official, max(contexts(dataset).grammar.card.prompts)]):
            context = contexts(dataset, rung)
            for sample in context.population.samples:
                own = replace(context, sample=sample)
                for prompt in sample.prompts.get(rung, ())[:1]:
                    for attribute in prompt.values if per_attribute else [None]:
                        for found in made(name, prompt, own, attribute, repeats=3):
                            if isinstance(found, Variant):
                                yield dataset, prompt, found, attribute


@pytest.mark.parametrize("name", [n for n in PERTURBATIONS if n not in SENSELESS])
def test_no_edit_brings_a_wrong_article(edits, name):
    for _, prompt, variant, _ in edits(name):
        if name not in {"other_sample", "absent_target", "prompt_type"}:  # they lend sentences
            assert not wrong_articles(variant.text) - wrong_articles(prompt.text), variant.text


@pytest.mark.parametrize("name", ["reorder_attributes", "paraphrase", "article_number"])
def test_no_bare_noun_leaves_its_noun(edits, name):
    for dataset, prompt, variant, _ in edits(name):
        if dataset not in {"chexlocalize", "camus"} and name == "reorder_attributes":
            assert not bare_nouns(variant.text, prompt), variant.text


def test_repaired_sentences_have_no_slip_left(edits):
    found = [variant.text for _, _, variant, _ in edits("article_number")]

    assert found
    for text in found:
        assert not wrong_articles(text), text
        assert not disagreements(text), text


CHANGED = [
    n for n, r in PERTURBATIONS.items() if r.meaning is Meaning.CHANGED and r.form == "parsed"
]


@pytest.mark.parametrize("name", CHANGED)
def test_changed_prompts_exclude_the_old_ones_and_hold_together(edits, name):
    found = edits(name)

    assert len(found) > 50
    for dataset, prompt, variant, attribute in found:
        now = GRAMMARS[dataset].parse(variant.text, prompt_type=prompt.prompt_type).values
        changed = [a for a in prompt.values if a in now and prompt.values[a] != now[a]]
        excluded = [a for a in changed if LEXICON.excludes(a, prompt.values[a], now[a])]
        assert excluded, variant.text
        assert attribute is None or attribute in excluded
        if contradiction(prompt.values, LEXICON) is None and attribute is not None:
            assert contradiction(now, LEXICON) is None, variant.text


def test_no_sentence_affirms_what_another_denies(edits):
    for dataset, prompt, variant, attribute in edits("negation"):
        if dataset != "chexlocalize" or attribute not in {"class", "pathology"}:
            continue
        noun = prompt.values["class"]
        _, _, findings = variant.text.partition("ray. ")
        listed = re.split(", | is | are ", findings)[:-1]
        for item in listed:
            one, other = (item, noun) if attribute == "class" else (noun, item)
            assert not LEXICON.implies("class", one, other), variant.text
