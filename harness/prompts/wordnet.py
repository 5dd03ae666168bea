"""Antonyms from WordNet 3.0, through NLTK.

Conventions: words are lower case. The choice is deterministic: adjective senses
before noun, adverb and verb senses, senses in WordNet's order (most frequent
first), and the first antonym of the word's own lemma.

NLTK reads its own data folders only. Online, ``python -m nltk.downloader wordnet``
fills one. Offline, copy the files of Debian's packages ``wordnet-base`` and
``wordnet-sense-index`` to ``corpora/wordnet`` in one of them, with the file
``lexnames``, which Debian leaves out: `LEXNAMES` is its text.

References:
    C. Fellbaum (ed.), WordNet: An Electronic Lexical Database, MIT Press, 1998.
"""

from collections.abc import Callable
from typing import Any

from harness.errors import LexiconError

VERSION = "3.0"
_PARTS_OF_SPEECH = ("a", "n", "r", "v")

# Lexicographer files in the order of their numbers; see lexnames(5WN).
_FILES = {
    "adj": ("all", "pert"),
    "adv": ("all",),
    "noun": (
        *("Tops", "act", "animal", "artifact", "attribute", "body", "cognition"),
        *("communication", "event", "feeling", "food", "group", "location", "motive"),
        *("object", "person", "phenomenon", "plant", "possession", "process", "quantity"),
        *("relation", "shape", "state", "substance", "time"),
    ),
    "verb": (
        *("body", "change", "cognition", "communication", "competition", "consumption"),
        *("contact", "creation", "emotion", "motion", "perception", "possession", "social"),
        *("stative", "weather"),
    ),
}
_CATEGORIES = {"noun": 1, "verb": 2, "adj": 3, "adv": 4}


def _lexnames() -> str:
    named = [(part, name) for part, names in _FILES.items() for name in names]
    named.append(("adj", "ppl"))
    return "".join(
        f"{number:02d}\t{part}.{name}\t{_CATEGORIES[part]}\n"
        for number, (part, name) in enumerate(named)
    )


LEXNAMES = _lexnames()


def load_antonyms() -> Callable[[str], str | None]:
    """A function from a word to its antonym, or None.

    Raises:
        LexiconError: NLTK has no WordNet, or another version than 3.0.
    """
    reader = _reader()
    version = reader.get_version()
    if version != VERSION:
        raise LexiconError(
            f"wordnet: found version {version}. Version {VERSION} is needed, so that the same "
            "suite gives the same words everywhere. Install it with "
            "`python -m nltk.downloader wordnet` and remove the other copy."
        )
    return lambda word: _antonym(reader, word)


def _reader() -> Any:
    from nltk.corpus.reader.wordnet import WordNetCorpusReader
    from nltk.corpus.util import LazyCorpusLoader

    # A reader of our own: NLTK's shared one remembers the folder of its first use. The second
    # corpus, of other languages, is never loaded but must be named.
    other = LazyCorpusLoader("omw-1.4", WordNetCorpusReader)
    reader = LazyCorpusLoader("wordnet", WordNetCorpusReader, other)
    try:
        reader.ensure_loaded()
    except (LookupError, OSError) as problem:
        lines = [line.strip(" *.") for line in str(problem).splitlines()]
        found = next(filter(None, lines), "no data")
        raise LexiconError(
            f"wordnet: NLTK cannot read its data ({found}). The lexicon "
            f"'curated+wordnet@{VERSION}' needs WordNet. Install it with `python -m "
            "nltk.downloader wordnet`; offline, copy the files of Debian's wordnet-base and "
            "wordnet-sense-index to nltk_data/corpora/wordnet and write "
            "harness.prompts.wordnet.LEXNAMES to 'lexnames' beside them."
        ) from None
    return reader


def _antonym(reader: Any, word: str) -> str | None:
    for part in _PARTS_OF_SPEECH:
        for synset in reader.synsets(word, pos=part):
            for lemma in synset.lemmas():
                if lemma.name().lower() == word and lemma.antonyms():
                    return str(lemma.antonyms()[0].name()).replace("_", " ").lower()
    return None
