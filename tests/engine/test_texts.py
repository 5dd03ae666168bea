"""Whether an edit reaches a model: by its token ids where it has them, else by lengths alone."""

from dataclasses import replace

import polars as pl
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from harness.engine.texts import TEXT_SCHEMA, shared_words, text_table, token_limit
from harness.model.contract import TokenCounts
from harness.model.loading import load_model

LONG = "one small pink round polyp, located in top left of the image of the colon"
TINY = {
    "input_size": 32, "position_size": 32, "patch_size": 16, "vision_hidden_size": 16,
    "vision_intermediate_size": 16, "vision_layers": 1, "vision_heads": 2,
    "text_hidden_size": 8, "text_intermediate_size": 8, "text_layers": 1, "text_heads": 2,
    "context_length": 12, "projection_dim": 4, "reduce_dim": 4, "extract_layers": [0],
    "decoder_heads": 2, "decoder_intermediate_size": 8,
}  # fmt: skip


@pytest.fixture
def toy(toy_card):
    """Twelve words, no token ids."""
    return load_model(str(toy_card()), device="cpu", random_weights=True)


@pytest.fixture(scope="module")
def tokenizing(tmp_path_factory):
    """A model with a tokenizer whose context holds ten tokens of text."""
    settings = "".join(f"  {key}: {value}\n" for key, value in TINY.items())
    card = tmp_path_factory.mktemp("tiny") / "tiny.yaml"
    card.write_text(f"extends: clipseg\nname: tiny\nsettings:\n{settings}", encoding="utf-8")
    return load_model(str(card), device="cpu", random_weights=True)


def cases(*pairs):
    return pl.DataFrame(pairs, schema=["original_prompt", "prompt"], orient="row")


def survives(model, original, variant):
    return text_table(model, cases((original, variant)))["edit_survives"].item()


def both(toy, tokenizing):
    return {"lengths": toy, "ids": tokenizing}.items()


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        (LONG.replace("small", "large"), True),
        (LONG.replace("colon", "skin"), False),
        (LONG + " and more", False),
        (LONG.replace(" of the colon", ""), False),
        ("", True),
    ],
)
def test_an_edit_behind_the_cut_does_not_survive(toy, tokenizing, variant, expected):
    for way, model in both(toy, tokenizing):
        assert survives(model, LONG, variant) is expected, way


def test_an_early_edit_survives_though_the_end_is_cut(toy, tokenizing):
    longer = LONG.replace("one small", "one very very small")
    for way, model in both(toy, tokenizing):
        row = text_table(model, cases((LONG, longer))).row(0, named=True)
        assert (row["truncated"], row["edit_survives"]) == (True, True), way


def test_a_table_has_a_row_per_pair_and_originals_have_no_edit(toy):
    table = text_table(toy, cases((LONG, LONG), (LONG, ""), ("polyp", ""), (LONG, "")))
    assert table.schema == TEXT_SCHEMA
    assert table.select("original_text", "text", "edit_survives").rows() == [
        (LONG, LONG, None),
        (LONG, "", True),
        ("polyp", "", True),
    ]
    assert table["n_tokens"].to_list() == [15, 0, 0]
    assert table["truncated"].to_list() == [True, False, False]
    assert table["same_tokens"].is_null().all()


def test_what_the_tokenizer_cannot_tell_apart_is_no_truncation(tokenizing):
    """CLIP's vocabulary is lower case: another case is the same input, cut or not."""
    row = text_table(tokenizing, cases(("Round polyp", "round POLYP"))).row(0, named=True)
    assert (row["same_tokens"], row["edit_survives"]) == (True, True)
    row = text_table(tokenizing, cases(("round polyp", "oval polyp"))).row(0, named=True)
    assert (row["same_tokens"], row["edit_survives"]) == (False, True)


def test_a_model_that_reads_no_text_has_neither_cut_nor_kept_edits(toy):
    class Deaf:
        def count_tokens(self, texts):
            return TokenCounts((0,) * len(texts), (False,) * len(texts))

    deaf = replace(toy, adapter=Deaf(), raw=Deaf())
    row = text_table(deaf, cases((LONG, "polyp"))).row(0, named=True)
    assert row == {
        "text": "polyp",
        "original_text": LONG,
        "n_tokens": 0,
        "truncated": False,
        "edit_survives": None,
        "same_tokens": None,
    }


def counter(limit, *, per_word=1, special=2):
    def count(texts):
        n = tuple(per_word * len(text.split()) + special for text in texts)
        return TokenCounts(n, tuple(limit is not None and k > limit for k in n))

    return count


@given(st.integers(3, 300), st.integers(0, 2))
def test_the_limit_is_found_by_counting(limit, special):
    assert token_limit(counter(limit, special=special)) == limit


@given(st.integers(10, 300))
def test_a_limit_is_never_put_too_low(limit):
    assert limit <= token_limit(counter(limit, per_word=3)) < limit + 3


def test_no_limit_is_none():
    assert token_limit(counter(None)) is None


words = st.lists(st.sampled_from(["a", "polyp", "polyps", "round,", "x"]), max_size=8)
sentences = words.map(" ".join)


@given(sentences, sentences)
def test_shared_words_begin_both_texts_and_end_at_a_word(text, original):
    shared = shared_words(text, original)
    mine, theirs, both_have = text.split(), original.split(), shared.split()
    assert mine[: len(both_have)] == theirs[: len(both_have)] == both_have
    rest = (mine[len(both_have) :], theirs[len(both_have) :])
    assert not (rest[0] and rest[1] and rest[0][0] == rest[1][0])


@given(
    st.lists(
        st.sampled_from(["one", "small", "polyps", "medium,", "xebec"]), min_size=1, max_size=16
    ),
    st.lists(
        st.sampled_from(["one", "small", "polyps", "medium,", "xebec"]), min_size=1, max_size=16
    ),
)
def test_lengths_call_cut_what_ids_call_cut(tokenizing, text, original):
    """The way without ids, on a model that has them."""
    text, original = " ".join(text), " ".join(original)
    assume(text != original)
    blind = replace(tokenizing, raw=object())
    assert survives(blind, original, text) == survives(tokenizing, original, text)
