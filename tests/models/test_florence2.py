"""Florence-2: written polygons read and drawn as transformers does; no answer is counted."""

import json
import re
import sys

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import CardError, ModelError
from harness.model.checks import Outcome, check_model
from harness.model.contract import Predicts, Staged
from harness.model.loading import load_model
from harness.model.offers import MayNotAnswer

TINY = {
    "vision_config": {
        "depths": [1, 1, 1, 1],
        "embed_dim": [16, 16, 32, 32],
        "num_heads": [2, 2, 2, 2],
        "num_groups": [2, 2, 2, 2],
        "window_size": 4,
        "projection_dim": 32,
    },
    "text_config": {
        "model_type": "bart",
        "vocab_size": 1280,
        "d_model": 32,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64,
        "max_position_embeddings": 128,
    },
    "image_token_id": 1279,
}
SMALL = {"config": TINY, "input_size": 64, "max_new_tokens": 24}


def write_card(folder, **changed):
    folder.mkdir(parents=True, exist_ok=True)
    card = {"extends": "florence2", "name": "florence-tiny", "settings": SMALL | changed}
    (folder / "card.yaml").write_text(yaml.safe_dump(card))
    return folder / "card.yaml"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    card = write_card(tmp_path_factory.mktemp("florence"))
    return load_model(card, random_weights=True, seed=1, device="cpu")


def part(model, name):
    """A module of the adapter's folder, which has a private name."""
    return sys.modules[f"{type(model.raw).__module__.rpartition('.')[0]}.{name}"]


NAMES = {-1: "<sep>", -2: "<poly>", -3: "</poly>", -4: "word"}


def official(symbols, size):
    """What transformers reads of the same text: polygons in pixels."""
    from transformers.models.florence2.processing_florence2 import Florence2PostProcessor

    class NoTokenizer:
        all_special_tokens = ()

    text = "".join(NAMES.get(symbol, f"<loc_{symbol}>") for symbol in symbols)
    reader = Florence2PostProcessor({"polygons": {}}, NoTokenizer())
    found = reader(text=f"<s>{text}</s>", image_size=size, parse_tasks="polygons")["polygons"]
    return [polygon for instance in found for polygon in instance["polygons"]]


@settings(max_examples=100)
@given(
    st.lists(
        st.one_of(st.integers(0, 999), st.sampled_from([-1, -2, -3, -4])), min_size=0, max_size=24
    )
)
def test_polygons_are_read_as_transformers_reads_them(tiny, symbols):
    read = part(tiny, "polygons").read_polygons(symbols)
    expected = official(symbols, (64, 48))
    pixels = [[int(v) for x, y in one for v in (x * 64, y * 48)] for one in read or []]
    assert pixels == expected
    assert (read is None) == (expected == [])


def test_polygons_become_masks(tiny):
    fill = part(tiny, "polygons").fill
    square = [(0.25, 0.5), (0.75, 0.5), (0.75, 1.0), (0.25, 1.0)]
    mask = fill([square], (8, 8))
    assert mask[4:, 2:7].all()
    assert mask.sum() == 4 * 5
    assert not fill([square[:2]], (8, 8)).any()
    assert fill([square, [(0, 0), (0.2, 0), (0, 0.2)]], (8, 8)).sum() > mask.sum()


def written(tiny, monkeypatch, *rows):
    """Let the model write these symbols."""
    ids = {symbol: number for number, symbol in tiny.raw._vocabulary.symbols.items()}
    texts = [[2, 0, *(ids.get(symbol, 10) for symbol in row), 2, 1] for row in rows]
    monkeypatch.setattr(tiny.raw, "_written", lambda pixels, texts_: texts[: len(texts_)])


def test_no_answer_is_told_from_an_empty_mask(tiny, monkeypatch):
    square, point = [100, 100, 900, 100, 900, 900], [100, 100, 900, 100]
    written(tiny, monkeypatch, square, point, [-4, -4, 5], [])
    logits, answered = tiny.raw.predict_with_answers(torch.zeros(4, 3, 64, 64), ["a"] * 4)
    assert answered == [True, True, False, False]
    assert [bool((row > 0).any()) for row in logits] == [True, False, False, False]
    assert logits.abs().unique().tolist() == [20.0]


def test_the_question_is_the_processor_s_and_cut_where_it_must(tiny):
    assert bytes(n - 4 for n in tiny.raw._ids(" polyp ")[1:-1]).decode() == (
        "Locate polyp in the image with mask"
    )
    # 128 positions, of which the picture takes 2 x 2 and one more.
    counts = tiny.adapter.count_tokens(["", "a" * 91, "a" * 92])
    assert counts == ((32, 123, 124), (False, False, True))
    with torch.inference_mode():
        assert tiny.raw.predict(torch.zeros(1, 3, 64, 64), ["a" * 300]).shape == (1, 64, 64)


def test_what_is_written_is_the_library_s_greedy_answer(tiny, golden):
    pixels = torch.stack([tiny.adapter.preprocess(golden.picture(n)) for n in (90, 64)])
    with torch.inference_mode():
        both = tiny.raw._written(pixels, ["polyp", "two large dark tumours"])
        for row, text, one in zip(both, ["polyp", "two large dark tumours"], pixels, strict=True):
            ids = torch.tensor([[1279] * 5 + tiny.raw._ids(text)])
            alone = tiny.adapter.module.generate(
                input_ids=ids, pixel_values=one[None], max_new_tokens=24, num_beams=1
            )[0].tolist()
            assert row[: len(alone)] == alone


def test_it_keeps_the_contract_without_stages(tiny):
    found = {one.name: one for one in check_model(tiny)}
    assert isinstance(tiny.raw, Predicts)
    assert isinstance(tiny.raw, MayNotAnswer)
    assert not isinstance(tiny.raw, Staged)
    assert [n for n, one in found.items() if one.outcome is Outcome.FAILS] == []
    assert "a stand-in reads the prompts byte by byte" in found["notes"].sentence


def test_cases_without_an_answer_are_counted_beside_empty_masks(
    tiny, monkeypatch, tmp_path, photo_root, planned
):
    from harness.auditing.summarising import note_answers
    from harness.engine.local import execute
    from harness.report.sheets import failures
    from harness.runs.store import DONE, NO_ANSWER, RunStore

    answers = iter([[100, 100, 900, 100, 900, 900], [100, 100, 900, 100], [-4]] * 1000)
    ids = {symbol: number for number, symbol in tiny.raw._vocabulary.symbols.items()}

    def write(pixels, texts):
        return [[ids.get(symbol, 10) for symbol in next(answers)] for _ in texts]

    monkeypatch.setattr(tiny.raw, "_written", write)
    suite, _, plan = planned("empty_prompt", limit=2)
    store = RunStore(tmp_path / "run")
    store.open(plan, suite)
    execute(store, tiny, root=photo_root, metric=suite.metric, batch_size=4)
    scores = store.scores()

    assert (scores["status"] == DONE).all()
    silent = scores.filter(scores["error"] == NO_ANSWER)
    assert 0 < silent.height < scores.height
    assert (silent["n_pred"] == 0).all()
    entry = {"model_id": tiny.model_id, "notes": []}
    assert f"{silent.height} of {scores.height} cases have no answer" in note_answers(store, entry)
    assert entry["answers"]["no_answer"] == silent.height
    told = failures(scores.lazy())
    assert dict(told.select("error", "n").iter_rows()) == {
        NO_ANSWER: silent.height,
        "no error: an empty mask, as an answer": scores.filter(
            scores["error"].is_null(), scores["n_pred"] == 0
        ).height,
    }


def vocabulary(folder, *, without=(), extra=0):
    """A `tokenizer.json` of byte pairs with Florence-2's added tokens."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    base = {name: n for n, name in enumerate(["<s>", "<pad>", "</s>", "<unk>", *letters])}
    made = Tokenizer(models.BPE(vocab=base, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    names = ["<s>", "<pad>", "</s>", *(f"<loc_{n}>" for n in range(1000)), "<sep>", "<poly>"]
    names += ["</poly>", *(f"<more_{n}>" for n in range(extra))]
    made.add_special_tokens([AddedToken(n) for n in names if n not in without])
    made.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


def test_a_published_vocabulary_is_read_and_another_refused(tmp_path):
    def load(**settings):
        card = write_card(tmp_path / "card", **settings)
        text = f"tokenizer: {{path: {tmp_path / 'tokenizer.json'}}}\n"
        card.write_text(card.read_text() + text)
        return load_model(card, random_weights=True, device="cpu")

    vocabulary(tmp_path)
    model = load()
    assert model.notes == ()
    assert len(model.raw._vocabulary.encode("a b")) == 3
    assert sorted(model.raw._vocabulary.symbols.values()) == list(range(-3, 1000))
    vocabulary(tmp_path, without=("<loc_7>",))
    with pytest.raises(ModelError, match="1 of 1003 for places are missing, first '<loc_7>'"):
        load()
    vocabulary(tmp_path, extra=100)
    with pytest.raises(ModelError, match="At most 1280 tokens, all places and"):
        load()
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": 3}))
    with pytest.raises(ModelError, match="tokenizer.json: not a vocabulary"):
        load()


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"max_new_tokens": 2}, "settings.max_new_tokens: found 2. Input should be greater"),
        ({"input_size": 768}, "settings.input_size: a picture of 768 pixels takes 577 of 128"),
        (
            {"config": TINY | {"text_config": TINY["text_config"] | {"vocab_size": 1000}}},
            "settings.config.text_config.vocab_size: found 1000. Bytes and places need 1263",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused(tmp_path, changed, text):
    with pytest.raises(CardError, match=re.escape(text)):
        load_model(write_card(tmp_path, **changed), random_weights=True)


def test_pixels_are_stretched_and_standardised(tiny):
    white = tiny.adapter.preprocess(np.full((3, 50, 3), 255, np.uint8))
    assert white.shape == (3, 64, 64)
    expected = (1 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(white[:, 5, 5].numpy(), expected, atol=1e-5)
