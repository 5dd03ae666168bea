"""Samples of every kind of dataset, without any real data, and how to perturb them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.cards import load_dataset_card
from harness.prompts.context import Context
from harness.prompts.grammar import load_grammar
from harness.prompts.lexicon import load_lexicon
from harness.prompts.perturbations import PERTURBATIONS, variants_of
from harness.prompts.population import Population
from harness.prompts.words import draw_words
from harness.records import Sample

ROWS = json.loads((Path(__file__).parent / "rows.json").read_text(encoding="utf-8"))
LEXICON = load_lexicon("curated")


def samples_of(dataset):
    grammar = load_grammar(dataset)
    return [
        Sample(
            dataset,
            "test",
            f"s{number}",
            Path(f"i{number}"),
            Path(f"m{number}"),
            f"i{number}",
            f"c{number}",
            {
                kind: tuple(
                    grammar.parse(text, prompt_type=kind, index=index)
                    for index, text in enumerate(texts if isinstance(texts, list) else [texts])
                )
                for kind, texts in row.items()
            },
        )
        for number, row in enumerate(ROWS[dataset])
    ]


def context_of(dataset, prompt_type):
    card, samples = load_dataset_card(dataset), samples_of(dataset)
    values = {}
    for sample in samples:
        for prompt in sample.prompts.get(prompt_type, ()):
            for attribute, value in prompt.values.items():
                values.setdefault(attribute, set()).add(value)
    return Context(
        load_grammar(dataset),
        LEXICON,
        {attribute: tuple(sorted(found)) for attribute, found in values.items()},
        draw_words(10, 0),
        samples[0],
        Population(samples, prompt_type, card.named_targets),
    )


@pytest.fixture(scope="session")
def contexts():
    """The context of a dataset's first sample, by dataset and rung, with changes."""
    known = {}

    def find(dataset, prompt_type=None, **changes):
        rung = prompt_type or load_dataset_card(dataset).prompt_type
        if (dataset, rung) not in known:
            known[dataset, rung] = context_of(dataset, rung)
        # Without a memory of its own, a changed context would remember what the first one found.
        return (
            replace(known[dataset, rung], _memory={}, **changes)
            if changes
            else known[dataset, rung]
        )

    return find


@pytest.fixture(scope="session")
def made():
    """What a perturbation makes of a prompt: a function of its name."""

    def make(name, prompt, context, attribute=None, *, seed=0, repeats=3):
        return list(
            variants_of(
                PERTURBATIONS[name],
                prompt,
                attribute=attribute,
                context=context,
                rng=np.random.default_rng(seed),
                repeats=repeats,
            )
        )

    return make


@pytest.fixture(scope="session")
def texts(contexts, made):
    """The texts a perturbation makes of a text of a dataset; reasons where it does not apply."""

    def find(name, dataset, text, attribute=None, *, prompt_type=None, repeats=3, **changes):
        grammar = load_grammar(dataset)
        prompt = grammar.parse(text, prompt_type=prompt_type)
        context = contexts(dataset, prompt.prompt_type, **changes)
        found = made(name, prompt, context, attribute, repeats=repeats)
        return [getattr(o, "text", None) if hasattr(o, "text") else o.reason for o in found]

    return find
