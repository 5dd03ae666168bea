"""Makes ``harness/prompts/data/uncommon_words.txt``: run by hand, never by the harness.

    python reports/make_uncommon_words.py

Needs the packages wordfreq and nltk and NLTK's data set ``wordnet`` (3.0); the
versions used stand in the list's header. The list is frozen: plans hash it, so it
changes with a new release only.

Conventions: a word is *uncommon* when its Zipf frequency in English (log10 of its
occurrences per billion words, wordfreq's scale) lies in [1.5, 2.7): an adult reader
may know it, a text encoder has rarely met it. Beside that a word must be the base form
of a noun for a thing, plant, animal, food or natural phenomenon, and no sense of it may
be about people, their bodies, medicine, what prompts speak of, or what offends.
"""

import hashlib
import re
from importlib.metadata import version
from typing import Any

from harness.cards import dataset_names, load_dataset_card
from harness.prompts.entries import DATA
from harness.prompts.lexicon import load_lexicon

LIST = DATA / "uncommon_words.txt"
REMOVED = DATA / "uncommon_words_removed.txt"
SIZE = 1000
ZIPF = (1.5, 2.7)

# Lexicographer files to which every noun sense must belong: things one can point at.
NOUN_FILES = {
    *("noun.artifact", "noun.food", "noun.plant", "noun.animal", "noun.object"),
    "noun.phenomenon",
}
HYPERNYMS = {
    *("color.n.01", "chromatic_color.n.01", "dye.n.01", "pigment.n.01", "drug.n.01"),
    *("medicine.n.02", "medicine.n.01", "microorganism.n.01", "weapon.n.01", "ammunition.n.01"),
    *("medical_instrument.n.01", "surgical_instrument.n.01", "poison.n.01", "protein.n.01"),
    *("hormone.n.01", "enzyme.n.01", "organic_compound.n.01", "undergarment.n.01", "parasite.n.01"),
    *("medical_science.n.01", "biology.n.01", "symptom.n.01", "worm.n.01", "fungus.n.01"),
    *("message.n.02", "religion.n.01", "prison.n.01", "obscenity.n.02", "cell.n.02"),
}
GLOSS = re.compile(
    r"\b(?:sex\w*|obscen\w*|vulgar\w*|slang|derog\w*|offens\w*|disparag\w*|contempt\w*|genital\w*|"
    r"penis|vagina\w*|breasts?|buttocks|anus|excre\w*|urin\w*|fec\w+|semen|prostitut\w*|naked|"
    r"nud\w+|kill\w*|murder\w*|death|dead|die|dying|corpse\w*|tortur\w*|execut\w*|suicid\w*|"
    r"weapons?|slave\w*|rac(?:e|ial|ist)|ethnic\w*|nazi\w*|jew\w*|muslim\w*|islam\w*|christ\w*|"
    r"negro\w*|black|white|drugs?|narcotic\w*|alcohol\w*|drunk\w*|intoxic\w*|"
    r"medic\w*|disease\w*|diagnos\w*|surg\w*|patholog\w*|anatom\w*|patients?|clinic\w*|"
    r"organs?|tissues?|tumou?rs?|cancer\w*|cells?|blood|nerv\w+|muscle\w*|bones?|skin|skull|"
    r"lungs?|heart|liver|kidney\w*|bowel\w*|intestin\w*|stomach|colon|rectum|uter\w*|womb|fetus|"
    r"pregnan\w*|infect\w*|inflam\w*|bacteri\w*|virus\w*|wound\w*|ulcer\w*|fever|symptom\w*|"
    r"body|bodily|limbs?|foot|feet|toes?|hands?|fingers?|arms?|legs?|teeth|tooth|mouth|head|"
    r"colou?r\w*|shap\w*|round\w*|circular|square\w*|triang\w*|oval|spher\w*|"
    r"large|small|tiny|huge|number\w*|left|right|top|bottom|gender|male|female|masculin\w*|"
    r"woman|women|man|men|girl|boy|mental\w*|insan\w*|stupid\w*|ugl\w*|fat|disgust\w*)\b",
    re.IGNORECASE,
)
DOMAINS = re.compile(
    r"^(?:medicine|anatomy|pathology|surgery|biology|physiology|biochemistry|psychiatry|"
    r"psychology|obscenity|ethnic_slur|disparagement|vulgarism|colloquialism|sexual\w*|"
    r"mathematics|geometry|military|weaponry|genetics|immunology|embryology)\.",
)


def known_words() -> set[str]:
    """Words of any lexicon or grammar entry: they would not be random in a prompt."""
    texts: set[str] = set(load_lexicon("curated").words())
    for name in dataset_names():
        grammar = load_dataset_card(name).grammar
        texts |= {value for rule in grammar.attributes.values() for value in rule.values}
        texts |= {template for several in grammar.prompts.values() for template in several}
    return {word for text in texts for word in re.findall(r"[a-z]+", text.lower())}


def is_banned(synset: Any) -> bool:
    """Whether one sense of a word rules it out."""
    if synset.instance_hypernyms() or (synset.pos() == "n" and synset.lexname() not in NOUN_FILES):
        return True
    if GLOSS.search(synset.definition()):
        return True
    topics = [*synset.topic_domains(), *synset.usage_domains(), *synset.region_domains()]
    if any(DOMAINS.match(topic.name()) for topic in topics) or synset.region_domains():
        return True
    above = {parent.name() for path in synset.hypernym_paths() for parent in path}
    return bool(above & HYPERNYMS)


def is_admissible(word: str, wordnet: Any) -> bool:
    """Whether WordNet knows the word as a plain noun, none of whose senses is banned."""
    senses = wordnet.synsets(word)
    if not any(synset.pos() == "n" for synset in senses):
        return False
    if any(wordnet.morphy(word, part) not in (None, word) for part in "navr"):
        return False
    names = {lemma.name() for s in senses for lemma in s.lemmas() if lemma.name().lower() == word}
    return names == {word} and not any(is_banned(synset) for synset in senses)


def candidates() -> list[str]:
    """Every word that keeps the definition, in an order that hashing makes arbitrary."""
    import wordfreq
    from nltk.corpus import wordnet

    known = known_words()
    found = [
        word
        for word in wordfreq.iter_wordlist("en")
        if re.fullmatch(r"[a-z]{4,10}", word)
        and ZIPF[0] <= wordfreq.zipf_frequency(word, "en") < ZIPF[1]
        and word not in known
        and is_admissible(word, wordnet)
    ]
    return sorted(found, key=lambda word: hashlib.sha256(word.encode()).hexdigest())


def header(n_candidates: int) -> str:
    """What the list is, as comments."""
    tools = f"wordfreq {version('wordfreq')}, nltk {version('nltk')} and WordNet 3.0"
    return f"""\
# {SIZE} uncommon English words, one a line, alphabetical; made by make_uncommon_words.py
# with {tools}.
# Definition: Zipf frequency in [{ZIPF[0]}, {ZIPF[1]}) (wordfreq, English); in WordNet the base
# form of a noun, 4 to 10 lower-case ASCII letters, whose noun senses are all things, plants,
# animals, food or natural phenomena; no sense about medicine, the body, people, places,
# colors, shapes, sizes or numbers, none that offends; no word of a dataset grammar or of the
# lexicon of opposites. Read through by eye: what was taken out then stands in
# uncommon_words_removed.txt. Drawn by hash from the {n_candidates} words that fit.
"""


def main() -> None:
    """Write the list."""
    removed = {line for line in REMOVED.read_text().splitlines() if not line.startswith("#")}
    found = candidates()
    words = sorted([word for word in found if word not in removed][:SIZE])
    LIST.write_text(header(len(found)) + "".join(f"{word}\n" for word in words))


if __name__ == "__main__":
    main()
