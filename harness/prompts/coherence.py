"""Whether what a prompt says of its attributes goes together.

Conventions: a list of places names one per lesion, repeats included, so that a number
and several places must agree; one place may hold any number. "Several" and "many" agree
with any list. What a prompt names as its class is in the picture, and so is what that
class is a kind of.
"""

from collections.abc import Mapping

from harness.prompts.entries import SEPARATOR, number_words
from harness.prompts.lexicon import Lexicon, is_denial


def contradiction(values: Mapping[str, str], lexicon: Lexicon) -> str | None:
    """What does not go together in a prompt's attribute values, in words; None where all does.

    Example:
        >>> from harness.prompts.lexicon import load_lexicon
        >>> contradiction({"number": "one", "location": "top, left"}, load_lexicon())
        "'one' contradicts the 2 places of 'top, left'"
    """
    return _miscount(values, lexicon) or _denied_class(values, lexicon)


def _miscount(values: Mapping[str, str], lexicon: Lexicon) -> str | None:
    number, location = values.get("number"), values.get("location")
    if number is None or location is None:
        return None
    n_places = len(location.split(SEPARATOR))
    same = lexicon.canonical("number", number)
    counts = [n for n, word in number_words().items() if lexicon.canonical("number", word) == same]
    if n_places == 1 or not counts or n_places in counts:
        return None
    return f"{number!r} contradicts the {n_places} places of {location!r}"


def _denied_class(values: Mapping[str, str], lexicon: Lexicon) -> str | None:
    named = values.get("class")
    for attribute, value in values.items() if named is not None else ():
        for item in value.split(SEPARATOR) if attribute != "class" else ():
            # What denies every finding denies those of the class, too.
            if named and is_denial(item) and lexicon.excludes(attribute, item, named):
                return f"{item!r} contradicts {named!r}"
    return None
