"""The same words with other capitals, marks and blanks."""

import pytest

PHOTO = "one small white round polyp, located in top, left of the image"


def test_cases(texts):
    assert texts("case", "kvasir_polyp", "white round polyp") == [
        "WHITE ROUND POLYP",
        "White Round Polyp",
        "White round polyp",
    ]
    assert texts("case", "camus", "Myocardium of the heart.") == [
        "MYOCARDIUM OF THE HEART.",
        "myocardium of the heart.",
        "Myocardium Of The Heart.",
    ]


def test_hyphenated_words_have_capitals_in_both_parts(texts):
    text = "Myocardium in two-chamber view of the heart."

    assert "Myocardium In Two-Chamber View Of The Heart." in texts("case", "camus", text)


def test_marks(texts):
    assert texts("punctuation", "kvasir_polyp", PHOTO) == [
        f"{PHOTO}.",
        f"{PHOTO}!",
        f"{PHOTO}...",
        PHOTO.replace("polyp,", "polyp"),
        PHOTO.replace("polyp,", "polyp;"),
        PHOTO.replace("polyp,", "polyp -"),
        f'"{PHOTO}"',
    ]


def test_a_full_stop_is_taken_away_also_before_a_blank(texts):
    text = "Edema in a Chest Xray. Edema, Fracture are present. "

    assert texts("punctuation", "chexlocalize", text)[0] == text.replace("present.", "present")


def test_commas_of_values_are_spared(texts):
    """Without its comma a list of two places is one place."""
    for text in texts("punctuation", "kvasir_polyp", PHOTO):
        assert "top, left" in text
    for text in texts("whitespace", "kvasir_polyp", PHOTO, repeats=99):
        assert "top ," not in text


def test_blanks(texts):
    found = texts("whitespace", "kvasir_polyp", PHOTO, repeats=999)

    gaps = PHOTO.count(" ")
    assert len(found) == len(set(found)) == 3 * gaps + 3
    assert f" {PHOTO}" in found
    assert f"{PHOTO} " in found
    assert PHOTO.replace("polyp,", "polyp ,") in found
    assert PHOTO.replace("one ", "one\t") in found
    assert all(text.split() == PHOTO.split() for text in found if " ," not in text)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("case", "no letter of the prompt has another case that is read the same"),
        ("punctuation", "no other marks of the prompt are read with the same meaning"),
        ("whitespace", "the prompt has no place for a blank"),
    ],
)
def test_what_cannot_be_read_any_more_is_counted(contexts, made, name, reason):
    """A prompt of marks alone: nothing of it is sure to be read again."""
    from harness.records import NotApplicable, Prompt, Span

    odd = Prompt('" polyp', "p2", 0, 1, (Span("shape", 0, 1, '"'), Span("class", 2, 7, "polyp")))

    assert made(name, odd, contexts("kvasir_polyp", "p2")) == [NotApplicable(reason)]
