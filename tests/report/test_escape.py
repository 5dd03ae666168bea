"""Texts of strangers stay texts."""

import html
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.report.escape import code, escaped, plain, visible, visible_json

hostile = st.text(
    st.sampled_from(list("ab1 _*`|<>&[]()!#~$\\-+.:/@w\n\r\t\x00\x1b\u202e\u2028é")), max_size=30
)


def shown(markdown):
    """What a reader sees: backslash escapes and entities undone."""
    return html.unescape(re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", markdown))


@given(hostile)
def test_an_escaped_text_shows_the_same_characters_on_one_line(text):
    result = escaped(text)

    assert shown(result) == plain(text)
    assert len(result.splitlines()) <= 1
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u202e]", result)


@given(hostile)
def test_no_markup_is_left(text):
    bare = re.sub(r"\\[!-/:-@\[-`{-~]", "x", escaped(text))

    assert not re.search(r"[*`|<>~$]", bare)
    assert not re.search(r"&(?!amp;|lt;|gt;|#58;|#46;|#64;)", bare)
    assert "](" not in bare
    assert "![" not in bare
    assert "://" not in bare
    assert "www." not in bare
    assert not re.match(r"\s*([-+#\[]|\d+[.)]\s)", bare)


@given(hostile)
def test_a_code_span_is_one_span_in_one_table_cell(text):
    result = code(text, in_table=True)

    assert result.replace(r"\|", "|") == code(text)
    assert result.count("`") == 2
    assert not re.search(r"(?<!\\)\|", result)
    assert len(result.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("kvasir_polyp", "kvasir_polyp"),
        ("_emphasis_", r"\_emphasis\_"),
        ("0.816 [0.775, 0.848]", "0.816 [0.775, 0.848]"),
        ("<img src=x onerror=alert(1)>", "&lt;img src=x onerror=alert(1)&gt;"),
        ("[x](javascript:alert(1))", r"\[x\](javascript:alert(1))"),
        ("see [x](https://a.b)", r"see [x\](https&#58;//a.b)"),
        ("# title", r"\# title"),
        ("12. item", r"12\. item"),
        ("a\nb", "a b"),
        ("me@here", "me&#64;here"),
    ],
)
def test_known_texts(text, expected):
    assert escaped(text) == expected


anything = hostile | st.text(max_size=20)


@given(anything)
def test_a_visible_text_is_printable_and_obeyed_by_nobody(text):
    for line in visible(text).split("\n"):
        assert line.isprintable()
        assert not line.lstrip().startswith("::")
        assert "##[" not in line


@given(st.text(st.characters(categories=["L", "N", "P", "S"], exclude_characters=":#")))
def test_a_harmless_text_is_visible_as_it_is(text):
    assert visible(text) == text


@given(st.text(max_size=20), st.sampled_from([None, 1]))
def test_visible_json_is_the_same_json(text, indent):
    content = {text: [text, 1.5]}
    shown = visible_json(json.dumps(content, indent=indent, ensure_ascii=False))
    assert json.loads(shown) == content
    assert shown.replace("\n", "").isprintable()
    assert "##[" not in shown


@given(st.text())
def test_plain_text_can_be_written_to_any_file(text):
    assert plain(text).encode().decode() == plain(text)
