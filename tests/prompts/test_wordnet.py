"""WordNet through NLTK, where a copy of its files is installed; what happens without one."""

import re
import shutil
from pathlib import Path

import nltk
import pytest

from harness.errors import LexiconError
from harness.prompts.lexicon import load_lexicon
from harness.prompts.wordnet import LEXNAMES

DEBIAN = Path("/usr/share/wordnet")
FILES = ("data.adj", "data.adv", "data.noun", "data.verb", "index.adj", "index.adv", "index.noun")
FILES += ("index.verb", "index.sense", "adj.exc", "adv.exc", "noun.exc", "verb.exc", "cntlist.rev")


@pytest.fixture(scope="module")
def wordnet_folder(tmp_path_factory):
    """An NLTK data folder made of Debian's files, as the error message advises."""
    if not all((DEBIAN / name).is_file() for name in FILES):
        pytest.skip("no WordNet: install Debian's wordnet-base and wordnet-sense-index to test it")
    folder = tmp_path_factory.mktemp("nltk_data")
    target = folder / "corpora" / "wordnet"
    target.mkdir(parents=True)
    for name in FILES:
        shutil.copyfile(DEBIAN / name, target / name)
    (target / "lexnames").write_text(LEXNAMES)
    return folder


@pytest.fixture
def wordnet(wordnet_folder, monkeypatch):
    monkeypatch.setattr(nltk.data, "path", [str(wordnet_folder)])


def test_lexnames_has_the_45_files_in_the_order_of_the_manual():
    rows = [line.split("\t") for line in LEXNAMES.splitlines()]

    assert [int(number) for number, _, _ in rows] == list(range(45))
    assert [rows[n][1] for n in (0, 1, 2, 3, 18, 28, 29, 43, 44)] == [
        *("adj.all", "adj.pert", "adv.all", "noun.Tops", "noun.person", "noun.time"),
        *("verb.body", "verb.weather", "adj.ppl"),
    ]
    kinds = {"noun": "1", "verb": "2", "adj": "3", "adv": "4"}
    assert all(kind == kinds[name.split(".")[0]] for _, name, kind in rows)


def test_lexicon_with_wordnet(wordnet):
    """One test, since reading WordNet takes seconds."""
    curated, lexicon = load_lexicon("curated"), load_lexicon("curated+wordnet@3.0")

    assert lexicon.source == "curated+wordnet@3.0"
    assert lexicon.sha256 != curated.sha256
    # Adjective senses first, then the first antonym of the word's own lemma.
    found = {w: lexicon.opposite("texture", w) for w in ("wet", "Hard", "fat", "day", "zyzzyva")}
    assert found == {"wet": "dry", "Hard": "Soft", "fat": "thin", "day": "night", "zyzzyva": None}
    # Curated entries win, and what is said to have no opposite keeps none.
    assert lexicon.opposite("shape", "flat") == "round"
    assert lexicon.opposite("location", "center") is None
    assert lexicon.opposite("shape", "hot dog") is None
    # Two antonyms of one sense: the first one.
    assert lexicon.antonyms("vertical") == "inclined"


def refused(message):
    return pytest.raises(LexiconError, match="^" + re.escape(message) + "$")


def test_missing_data_is_answered_with_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])

    with refused(
        "wordnet: NLTK cannot read its data (Resource 'wordnet' not found). The lexicon "
        "'curated+wordnet@3.0' needs WordNet. Install it with `python -m nltk.downloader wordnet`; "
        "offline, copy the files of Debian's wordnet-base and wordnet-sense-index to "
        "nltk_data/corpora/wordnet and write harness.prompts.wordnet.LEXNAMES to 'lexnames' beside "
        "them."
    ):
        load_lexicon("curated+wordnet@3.0")


def test_another_version_is_refused(wordnet_folder, tmp_path, monkeypatch):
    folder = tmp_path / "corpora" / "wordnet"
    shutil.copytree(wordnet_folder / "corpora" / "wordnet", folder)
    for index in folder.glob("index.*"):  # without words: the version stands in the data
        index.write_text("")
    text = (folder / "data.adj").read_text(encoding="utf-8")
    (folder / "data.adj").write_text(text.replace("WordNet 3.0", "WordNet 3.1"), encoding="utf-8")
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])

    with refused(
        "wordnet: found version 3.1. Version 3.0 is needed, so that the same suite gives the same "
        "words everywhere. Install it with `python -m nltk.downloader wordnet` and remove the "
        "other copy."
    ):
        load_lexicon("curated+wordnet@3.0")
