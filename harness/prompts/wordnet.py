"""WordNet 3.0 through NLTK: antonyms, synonyms, and what is an English word.

Conventions: words are lower case. The choice is deterministic: adjective senses before noun, adverb
and verb senses, the most frequent first. The antonym is the first one of the word's own lemma;
synonyms are the other lemmas of the word's first sense (C. Fellbaum, ed., WordNet, 1998).

NLTK reads its own data folders only. ``python -m harness.prompts.wordnet`` fills one by NLTK's
downloader; offline, with a folder behind it, from Debian's ``wordnet-base`` and
``wordnet-sense-index``, which leave out the file ``lexnames``: it lies in ``data/``.
"""

import hashlib
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.errors import LexiconError
from harness.files.writing import replace_together

VERSION = "3.0"
_PARTS_OF_SPEECH = ("a", "n", "r", "v")

# Names of the lexicographer files, lexnames(5WN), which Debian leaves out.
LEXNAMES = Path(__file__).parent / "data" / "lexnames"
# What NLTK's reader opens; Debian has these under the same names.
DATA_FILES = tuple(f"data.{part}" for part in ("adj", "adv", "noun", "verb"))
OTHER_FILES = (
    *(f"index.{part}" for part in ("adj", "adv", "noun", "verb", "sense")),
    *(f"{part}.exc" for part in ("adj", "adv", "noun", "verb")),
    "cntlist.rev",
)
_HINT = (
    "Install it with `python -m harness.prompts.wordnet`; offline, with `python -m "
    "harness.prompts.wordnet FOLDER`, where FOLDER holds the files of Debian's wordnet-base and "
    "wordnet-sense-index."
)


@dataclass(frozen=True)
class WordNet:
    """A copy of WordNet that NLTK has opened."""

    reader: Any

    @cached_property
    def sha256(self) -> str:
        """Hash of the files that hold the senses."""
        digest = hashlib.sha256()
        for name in DATA_FILES:
            with self.reader.open(name) as file:
                digest.update(file.read().encode())
        return digest.hexdigest()

    def antonym(self, word: str) -> str | None:
        """The first antonym of a word, or None."""
        for part in _PARTS_OF_SPEECH:
            for synset in self.reader.synsets(word, pos=part):
                for lemma in synset.lemmas():
                    if lemma.name().lower() == word and lemma.antonyms():
                        return _spelled(lemma.antonyms()[0])
        return None

    def synonyms(self, word: str) -> tuple[str, ...]:
        """The other lemmas of a word's first sense."""
        for part in _PARTS_OF_SPEECH:
            senses = self.reader.synsets(word, pos=part)
            if senses:
                found = dict.fromkeys(_spelled(lemma) for lemma in senses[0].lemmas())
                return tuple(name for name in found if name != word)
        return ()

    def is_word(self, word: str) -> bool:
        """Whether this is an English noun, verb, adjective or adverb, inflected or not."""
        return any(self.reader.morphy(word, part) is not None for part in _PARTS_OF_SPEECH)


def _spelled(lemma: Any) -> str:
    return str(lemma.name()).replace("_", " ").lower()


def load_wordnet() -> WordNet:
    """NLTK's copy of WordNet; refuses none, and another version than 3.0."""
    reader = _reader()
    version = reader.get_version()
    if version != VERSION:
        raise LexiconError(
            f"wordnet: found version {version}. Version {VERSION} is needed, so that the same "
            f"suite gives the same words everywhere. Remove this copy. {_HINT}"
        )
    return WordNet(reader)


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
            f"'curated+wordnet@{VERSION}' needs WordNet. {_HINT}"
        ) from None
    return reader


def install(source: Path | None, target: Path) -> Path:
    """Put WordNet into a folder of NLTK's data path, from Debian's files or by its downloader."""
    folder = target / "corpora" / "wordnet"
    if source is None:
        import nltk

        if not nltk.download("wordnet", download_dir=str(target), quiet=True):
            raise LexiconError(
                f"wordnet: NLTK's downloader could not fill {str(target)!r}. A network is needed "
                f"for it. {_HINT}"
            )
        return folder
    for name in DATA_FILES + OTHER_FILES:
        if not (source / name).is_file():
            raise LexiconError(
                f"wordnet: {str(source)!r} has no file {name!r}. The files of Debian's packages "
                "wordnet-base and wordnet-sense-index are expected there. Name the folder that "
                "holds them, such as /usr/share/wordnet."
            )
    files = {folder / name: (source / name).read_bytes() for name in DATA_FILES + OTHER_FILES}
    replace_together(files | {folder / "lexnames": LEXNAMES.read_bytes()})
    return folder


def main(arguments: list[str]) -> int:
    """Install WordNet into the first folder of NLTK's data path."""
    import nltk

    try:
        folder = install(Path(arguments[0]) if arguments else None, Path(nltk.data.path[0]))
    except LexiconError as problem:
        sys.stderr.write(f"{problem}\n")
        return 2
    sys.stdout.write(f"WordNet {VERSION} is in {folder}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
