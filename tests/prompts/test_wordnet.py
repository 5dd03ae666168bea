"""WordNet through NLTK, where a copy of its files is installed; what happens without one."""

import hashlib
import os
import re
import runpy
import shutil
from pathlib import Path

import nltk
import pytest

from harness.errors import LexiconError
from harness.prompts import wordnet as module
from harness.prompts.entries import read_lines
from harness.prompts.lexicon import load_lexicon
from harness.prompts.wordnet import DATA_FILES, LEXNAMES, OTHER_FILES, install, main

REPORTS = Path(__file__).resolve().parents[2] / "reports"
# Where Debian's packages put WordNet; another copy of the same files will do.
DEBIAN = Path(os.environ.get("VLSM_WORDNET", "/usr/share/wordnet"))


@pytest.fixture(scope="module")
def wordnet_folder(tmp_path_factory):
    """An NLTK data folder made of Debian's files, as the error message advises."""
    if not all((DEBIAN / name).is_file() for name in DATA_FILES + OTHER_FILES):
        pytest.skip(
            f"no WordNet at {DEBIAN}: install Debian's wordnet-base and wordnet-sense-index, or "
            "set VLSM_WORDNET, to test it"
        )
    folder = tmp_path_factory.mktemp("nltk_data")
    install(DEBIAN, folder)
    return folder


@pytest.fixture(scope="module")
def lexicon(wordnet_folder):
    """Reading WordNet takes seconds: once for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nltk.data, "path", [str(wordnet_folder)])
        yield load_lexicon("curated+wordnet@3.0")


def test_lexnames_has_the_45_files_in_the_order_of_the_manual():
    rows = [line.split("\t") for line in LEXNAMES.read_text().splitlines()]

    assert [int(number) for number, _, _ in rows] == list(range(45))
    assert [rows[n][1] for n in (0, 1, 2, 3, 18, 28, 29, 43, 44)] == [
        *("adj.all", "adj.pert", "adv.all", "noun.Tops", "noun.person", "noun.time"),
        *("verb.body", "verb.weather", "adj.ppl"),
    ]
    kinds = {"noun": "1", "verb": "2", "adj": "3", "adv": "4"}
    assert all(kind == kinds[name.split(".")[0]] for _, name, kind in rows)


def test_lexicon_with_wordnet(lexicon):
    curated = load_lexicon("curated")

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
    assert lexicon.thesaurus.antonym("vertical") == "inclined"
    # Synonyms are the other lemmas of the first sense; curated ones win.
    assert lexicon.synonyms("shape", "Flat") == ("Level", "Plane")
    assert lexicon.synonyms("shape", "round") == ("circular",)
    assert lexicon.synonyms("shape", "diagonal") == ()
    assert lexicon.synonyms("texture", "zyzzyva") == ()


def test_the_hash_is_that_of_the_senses(lexicon, wordnet_folder):
    """The same files give the same plan, wherever they lie."""
    digest = hashlib.sha256()
    for name in DATA_FILES:
        digest.update((wordnet_folder / "corpora" / "wordnet" / name).read_bytes())

    assert lexicon.thesaurus.sha256 == digest.hexdigest()


def test_the_table_of_real_words_is_what_its_script_makes(lexicon):
    script = runpy.run_path(str(REPORTS / "make_real_words.py"))

    words = script["real_words"](script["prompt_words"](), lexicon.thesaurus.is_word)

    assert tuple(words) == read_lines("real_words.txt")
    assert {"pin", "cell", "for"} & {*words} == {"pin", "for"}


def test_words_are_known_inflected_or_not(lexicon):
    known = lexicon.thesaurus.is_word

    assert [word for word in ("pin", "pins", "rounded", "polpy", "xzq") if known(word)] == [
        *("pin", "pins", "rounded"),
    ]


def refused(message):
    return pytest.raises(LexiconError, match="^" + re.escape(message) + "$")


HINT = (
    "Install it with `python -m harness.prompts.wordnet`; offline, with `python -m "
    "harness.prompts.wordnet FOLDER`, where FOLDER holds the files of Debian's wordnet-base and "
    "wordnet-sense-index."
)


def test_missing_data_is_answered_with_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])

    with refused(
        "wordnet: NLTK cannot read its data (Resource 'wordnet' not found). The lexicon "
        f"'curated+wordnet@3.0' needs WordNet. {HINT}"
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
        f"words everywhere. Remove this copy. {HINT}"
    ):
        load_lexicon("curated+wordnet@3.0")


def test_debians_files_are_copied_with_lexnames(tmp_path, monkeypatch, capsys):
    """Stand-ins of the files will do: nothing is read yet."""
    source, target = tmp_path / "debian", tmp_path / "nltk_data"
    source.mkdir()
    for name in DATA_FILES + OTHER_FILES:
        (source / name).write_text(name)
    monkeypatch.setattr(nltk.data, "path", [str(target)])

    assert main([str(source)]) == 0

    folder = target / "corpora" / "wordnet"
    assert capsys.readouterr().out == f"WordNet 3.0 is in {folder}\n"
    assert (folder / "lexnames").read_text() == LEXNAMES.read_text()
    assert {path.name for path in folder.iterdir()} == {*DATA_FILES, *OTHER_FILES, "lexnames"}


def test_a_folder_without_a_file_is_named(tmp_path, capsys):
    message = (
        f"wordnet: {str(tmp_path)!r} has no file 'data.adj'. The files of Debian's packages "
        "wordnet-base and wordnet-sense-index are expected there. Name the folder that holds them, "
        "such as /usr/share/wordnet."
    )
    with refused(message):
        install(tmp_path, tmp_path / "nltk_data")
    assert main([str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"{message}\n"


@pytest.mark.parametrize("works", [True, False])
def test_without_a_folder_nltks_downloader_is_asked(tmp_path, monkeypatch, works):
    asked = []

    def download(name, *, download_dir, quiet):
        asked.append((name, download_dir, quiet))
        return works

    monkeypatch.setattr(nltk, "download", download)

    if works:
        assert install(None, tmp_path) == tmp_path / "corpora" / "wordnet"
    else:
        with refused(
            f"wordnet: NLTK's downloader could not fill {str(tmp_path)!r}. A network is needed for "
            f"it. {HINT}"
        ):
            install(None, tmp_path)
    assert asked == [("wordnet", str(tmp_path), True)]
    assert module.VERSION == "3.0"
