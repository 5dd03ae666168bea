"""Makes ``harness/prompts/data/real_words.txt``: run by hand, never by the harness.

    python reports/make_real_words.py

Needs NLTK's data set ``wordnet`` (3.0): see `harness.prompts.wordnet`. A test makes the
list again where WordNet is installed.

Conventions: the list holds every English word that one typo makes of a word of the
dataset cards or of the curated lexicon ("cell" of "well"). Such a typo would not be seen
as one, so the perturbation `typo` never makes it. English words are those that WordNet
knows, inflected or not, and the few words without a content that it leaves out.
"""

import re
from collections.abc import Callable, Iterable

from harness.cards import dataset_names, load_dataset_card
from harness.prompts.entries import DATA
from harness.prompts.lexicon import load_lexicon
from harness.prompts.typos import typos_of
from harness.prompts.wordnet import VERSION, load_wordnet

LIST = DATA / "real_words.txt"
# A list that grew would change the plans of the pinned tracks, which hold none of these sets.
_LATER = {"qata_cov19", "mosmeddata_plus"}
# Pronouns, articles, prepositions and conjunctions are no part of WordNet.
FUNCTION_WORDS = {
    *("about", "after", "among", "anybody", "both", "could", "during", "each", "either", "every"),
    *("everything", "from", "hers", "herself", "himself", "into", "itself", "mine", "myself"),
    *("neither", "nobody", "none", "nothing", "onto", "other", "others", "ours", "ourselves"),
    *("shall", "should", "since", "some", "somebody", "something", "such", "than", "that", "their"),
    *(
        "theirs",
        "them",
        "themselves",
        "then",
        "these",
        "they",
        "this",
        "those",
        "though",
        "through",
    ),
    *("toward", "towards", "under", "unless", "until", "upon", "what", "whatever", "when", "where"),
    *("whether", "which", "while", "whom", "whose", "with", "within", "without", "would", "your"),
    *("yours", "yourself", "thou", "thee", "thine", "amid", "anyone", "anything", "because"),
    *("for", "fro", "poo"),
}


def prompt_words() -> set[str]:
    """The words of all dataset cards and of the curated lexicon."""
    texts = set(load_lexicon("curated").words())
    for name in sorted(set(dataset_names()) - _LATER):
        grammar = load_dataset_card(name).grammar
        texts |= {value for rule in grammar.attributes.values() for value in rule.values}
        texts |= {template for several in grammar.prompts.values() for template in several}
    return {word for text in texts for word in re.findall(r"[a-z]+", text.lower())}


def real_words(words: Iterable[str], is_word: Callable[[str], bool]) -> list[str]:
    """Every English word that is one typo away from one of `words`."""
    typos = {typo for word in words for typo in typos_of(word)}
    return sorted(typo for typo in typos if typo in FUNCTION_WORDS or is_word(typo))


def main() -> None:
    """Write the list."""
    found = real_words(prompt_words(), load_wordnet().is_word)
    header = (
        f"# {len(found)} English words that are one typo away from a word of the prompts, one a\n"
        f"# line; made by make_real_words.py with WordNet {VERSION} (Princeton University, 2006).\n"
    )
    LIST.write_text(header + "".join(f"{word}\n" for word in found), encoding="utf-8")


if __name__ == "__main__":
    main()
