"""Each check of the contract sees its fault, says where it is, and lets a sound model pass."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.cards import load_model_card, model_names
from harness.errors import ModelError
from harness.model.checks import CHECKS, Outcome, check_model
from harness.model.checks.subject import default_pictures, fingerprint, gap
from harness.model.loading import load_model

H, F, X, S = Outcome.HOLDS, Outcome.FINDING, Outcome.FAILS, Outcome.SKIPPED
TOYS = Path(__file__).resolve().parents[2] / "toys"


@pytest.fixture
def load(tmp_path):
    """A function that loads the faulty toy with one fault and keys of the card."""

    def build(fault="", *, kind="Faulty", dtype="float32", **keys):
        lines = {"name": "faulty", "title": "A toy", "adapter": f"{TOYS}/faulty.py:{kind}"}
        lines |= {"threshold": 0.5, "aspect": "stretched", "settings": f"{{fault: {fault!r}}}"}
        lines |= keys
        card = tmp_path / "card.yaml"
        card.write_text("".join(f"{key}: {value}\n" for key, value in lines.items()))
        return load_model(card, device="cpu", random_weights=True, dtype=dtype)

    return build


def outcomes(model, **keys):
    return {result.name: result for result in check_model(model, **keys)}


def test_a_sound_model_passes_every_check(load):
    found = outcomes(load(kind="WithPredict"))

    assert list(found) == list(CHECKS)
    assert {r.outcome for r in found.values()} == {H}
    assert "the context is 10 tokens" in found["tokens"].sentence
    assert "is said to be cut, and its last two words change no logits" in (
        found["long prompt"].sentence
    )


def test_a_black_box_has_nothing_to_show_for_some_checks(load):
    found = outcomes(load(kind="Undivided"))

    absent = {"tokenizer", "text embedding", "staged = plain", "features", "decoder"}
    assert {name for name, r in found.items() if r.outcome is S} == absent
    assert {r.outcome for name, r in found.items() if name not in absent} == {H}
    assert found["logits"].sentence.startswith("predict: logits (2, 24, 32)")


FAULTS = [
    ("axes swapped", "preprocess", X, "preprocess: for an RGB array of 1 x 1: found the shape"),
    ("double pixels", "preprocess", X, "found torch.float64 on cpu. A float32 tensor (3, 24, 32)"),
    ("endless pixels", "preprocess", X, "found numbers that are not finite. A float32 tensor"),
    ("numpy pixels", "preprocess", X, "found ndarray. A float32 tensor (3, 24, 32), the adapter's"),
    (
        "picture changed",
        "preprocess",
        X,
        "the picture itself was changed. It belongs to the caller",
    ),
    (
        "array is not image",
        "preprocess",
        X,
        "the same picture as array and as PIL image differs by",
    ),
    ("grey pictures raise", "preprocess", X, "in preprocess: ValueError: not RGB. No call of the"),
    ("list of counts", "tokens", X, "count_tokens: for 3 texts: found list. TokenCounts with one"),
    ("one count", "tokens", X, "found 1 counts and 1 truth values. TokenCounts with one whole"),
    ("broken counts", "tokens", X, "found the counts (0.0, 2.0, 1000.0). TokenCounts"),
    ("broken truths", "tokens", X, "found the truth values ('False', 'False', 'True')."),
    ("counts after cutting", "tokens", H, "2 tokens for 'a a'; the context is 10 tokens"),
    (
        "no tokens",
        "tokens",
        F,
        "no text has a token, yet the card is no control. A model that reads",
    ),
    ("cut unsaid", "tokens", H, "no text up to 1000 tokens is said to be cut."),
    (
        "cut unsaid",
        "long prompt",
        F,
        "is not said to be cut, and its last two words change no logits",
    ),
    ("never cut", "long prompt", F, "is said to be cut, and its last two words change logits."),
    ("long texts raise", "long prompt", X, "in tokenize: IndexError: index out of range in self."),
    ("mask too short", "tokenizer", X, "tokenize: found ids (3, 10) and mask (3, 9) for 3 texts."),
    ("mask off by one", "tokenizer", F, "the mask has (9, 9, 0) tokens, count_tokens (10, 10, 0)."),
    ("tokens differ from texts", "tokenizer", X, "differs from encode_texts(texts) by 1. They are"),
    ("embedding without rows", "text embedding", X, "found the shape (8,) for 2 texts. (N, D) is"),
    ("embedding not finite", "text embedding", X, "found numbers that are not finite."),
    ("embedding stuck", "text embedding", F, "2 prompts differ by 0, one prompt alone and among"),
    ("channel kept", "logits", X, "found logits of shape (2, 1, 24, 32) for 2 pictures. (N, h, w)"),
    ("size follows the text", "logits", X, "(h, w) must be fixed per model. Resize in `decode`."),
    ("numpy logits", "logits", X, "ModelError: found logits of type ndarray; a tensor is needed."),
    ("not finite", "finite", X, "of 1536 logits for the prompts are not finite. Every logit must"),
    (
        "probabilities",
        "scale",
        F,
        "as probabilities do. Logits are numbers before the sigmoid; the",
    ),
    (
        "constant",
        "scale",
        F,
        "decode: every logit of 2 pictures is -20. A mask is expected to have",
    ),
    (
        "constant",
        "prompt",
        F,
        "Different prompts should differ by more. The text embedding moves by",
    ),
    ("dropout", "determinism", X, "Equal calls must give equal masks. Look for dropout that stays"),
    ("noise", "determinism", H, "decode: three equal calls differ by "),
    (
        "noise",
        "noise floor",
        F,
        "The floor is the largest gap between logits that should be equal.",
    ),
    (
        "neighbours matter",
        "batch = one by one",
        X,
        "decode: logits of one batch and single pictures",
    ),
    (
        "neighbours matter a little",
        "batch = one by one",
        F,
        "the card's noise_floor is 0.0001. Counts",
    ),
    ("neighbours matter a little", "noise floor", F, "Write `noise_floor: 1e-03` on the card, or"),
    (
        "list of features",
        "features",
        X,
        "encode_images: found list. A NamedTuple of tensors is needed",
    ),
    (
        "ragged texts",
        "features",
        X,
        "encode_texts: trailing shapes [(1, 8)] and [(10, 8)]. A Named",
    ),
    ("rows mixed up", "rows", X, "decode: logits of selected rows and the batch differ by "),
    (
        "prompt dropped",
        "prompt",
        F,
        "prompt: logits for 2 prompts differ by up to 0 (0 times their",
    ),
    (
        "text drowned",
        "prompt",
        F,
        "The text embedding moves by 0, so look at the tokenizer and the",
    ),
    ("foreign decoder", "decoder", X, "decoder_modules: 2 parameters, 2 of them not in 'module'."),
    (
        "running statistics",
        "state",
        X,
        "module: 1 parameters or buffers changed while the model only",
    ),
    (
        "training mode",
        "state",
        X,
        "parts are in training mode, first 'module'. A loaded model is in",
    ),
    (
        "later calls differ",
        "state",
        X,
        "decode: the first call, made again after all others, differs",
    ),
    ("texts raise", "text embedding", X, "faulty.py:"),
]


@pytest.mark.parametrize(("fault", "check", "outcome", "text"), FAULTS)
def test_each_fault_is_seen_where_it_is(load, fault, check, outcome, text):
    result = outcomes(load(fault))[check]

    assert result.outcome is outcome, result.sentence
    assert text in result.sentence


def test_an_adapter_that_raises_is_quoted_with_file_and_line(load):
    """Only the first line of the message, and the line of the adapter, not of the library."""
    result = outcomes(load("predict raises", kind="Undivided"))["logits"]

    assert result.outcome is X
    assert re.fullmatch(
        r"faulty\.py:\d+ in predict: RuntimeError: mat1 and mat2 shapes cannot be multiplied\. No "
        r"call of the check 'logits' may raise, whatever the picture or text\. Repair it there\.",
        result.sentence,
    )


def test_what_builds_on_a_failed_check_waits_for_it(load):
    found = outcomes(load("axes swapped"))

    assert found["logits"] == ("logits", S, "waits for 'preprocess'.")
    assert found["tokens"].outcome is H
    for name, check in CHECKS.items():
        # A chain of waiting checks is seen because every check names all it builds on.
        earlier = list(CHECKS)[: list(CHECKS).index(name)]
        assert set(check.needs) <= set(earlier)
        assert {n for need in check.needs for n in CHECKS[need].needs} <= set(check.needs)


@pytest.mark.parametrize(
    ("fault", "size", "text"),
    [
        (
            "another size",
            X,
            "predict: found logits of shape (2, 23, 32), the stages give (2, 24, 32).",
        ),
        ("another sum", X, "decode: logits of predict and the stages differ by "),
    ],
)
def test_a_forward_that_is_not_the_stages_is_seen(load, fault, size, text):
    result = outcomes(load(fault, kind="WithPredict"))["staged = plain"]

    assert result.outcome is size
    assert text in result.sentence


def test_a_control_is_expected_to_ignore_its_prompt(load):
    listening = outcomes(load(control="true"))["prompt"]
    deaf = outcomes(load("prompt dropped", control="true"))["prompt"]
    silent = outcomes(load("no tokens", control="true"))["tokens"]

    assert listening.outcome is X
    assert "A control cannot read its prompt. Leave the text out of the model" in listening.sentence
    assert deaf.outcome is H
    assert deaf.sentence.endswith("A control ignores its prompt.")
    assert silent == ("tokens", H, "count_tokens: no text has a token, as becomes a control.")


@pytest.mark.parametrize(
    ("keys", "outcome", "text"),
    [
        ({"threshold": 0.999}, F, "card.threshold: 0.999; "),
        ({"threshold": 0.35}, H, "card.threshold: 0.35; "),
    ],
)
def test_a_threshold_at_the_edge_is_a_finding(load, keys, outcome, text):
    result = outcomes(load(**keys))["threshold"]

    assert result.outcome is outcome
    assert result.sentence.startswith(text)


def test_a_trained_model_with_one_sided_masks_is_a_finding(load, tmp_path):
    state = load("constant").adapter.module.state_dict()
    torch.save(state, tmp_path / "a.pt")
    model = load_model(tmp_path / "card.yaml", checkpoint=tmp_path / "a.pt", device="cpu")

    result = outcomes(model)["threshold"]

    assert result.outcome is F
    assert (
        "0.0 % of the test pictures' pixels lie above it. A mask with one side tells nothing"
        in (result.sentence)
    )


def test_the_decoder_of_a_card_must_be_named_by_the_adapter(load):
    result = outcomes(load(kind="Undivided", trainable="decoder"))["decoder"]

    assert result.outcome is X
    assert result.sentence.startswith(
        "card.trainable: 'decoder', and the adapter has no 'decoder_modules'. They say what is"
    )


def test_the_noise_floor_of_float32_is_not_asked_of_bfloat16(load):
    result = outcomes(load(dtype="bfloat16"))["noise floor"]

    assert result.outcome is S
    assert "is the card's figure for float32; in bfloat16 " in result.sentence


def test_own_pictures_and_prompts_are_tried(load):
    model = load()
    picture = np.full((30, 20, 3), 90, dtype=np.uint8)
    found = outcomes(model, pictures=[picture], prompts=["polyp", "melanoma", "polyp"])

    # One picture is tried twice, so that a batch has two rows.
    assert found["logits"].sentence == "decode: logits (2, 24, 32) for 2 pictures."
    assert "prompt: logits for 2 prompts differ" in found["prompt"].sentence
    ticks = []
    check_model(model, tick=lambda: ticks.append(1))
    assert len(ticks) == len(CHECKS)


@pytest.mark.parametrize("keys", [{"prompts": ["polyp", "polyp"]}, {"pictures": []}])
def test_too_little_to_try_is_said(load, keys):
    text = (
        "At least one picture and two prompts are needed, to see whether the prompt matters. Give"
    )
    with pytest.raises(ModelError, match=re.escape(text)):
        check_model(load(), **keys)


def test_the_global_generator_is_left_alone(load):
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    check_model(load())
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_fingerprint_sees_one_changed_bit():
    module = torch.nn.Linear(3, 2)
    before = fingerprint(module)
    with torch.no_grad():
        module.weight[1, 2] = torch.nextafter(module.weight[1, 2], torch.tensor(9.0))
    after = fingerprint(module)
    assert before["bias"] == after["bias"]
    assert before["weight"] != after["weight"]


def test_numbers_that_are_not_finite_are_infinitely_far():
    nan, one = torch.tensor([torch.nan]), torch.tensor([1.0])
    assert gap(nan, one) == gap(nan, nan) == float("inf")
    assert gap(one, 3 * one) == 2


def test_default_pictures_are_unequal_and_fixed():
    first, second = default_pictures()
    assert first.shape != second.shape
    assert first.dtype == second.dtype == np.uint8
    assert first.std() > 20
    assert np.array_equal(first, default_pictures()[0])


def is_small(name):
    """Quick enough for every run of the tests; the others are of the published sizes."""
    return name.startswith(("phantom-", "template")) or name.endswith("-small")


def check_built_in(name):
    """A built-in card breaks nothing; one with weights has no finding either.

    But for those that refuse: the check's own pictures show nothing that they know.
    """
    has_weights = load_model_card(name).card.checkpoint is not None
    found = check_model(load_model(name, device="cpu", random_weights=not has_weights))
    expected = {"threshold"} if name.endswith("-refusing") else set()
    found = [r for r in found if r.name not in expected or r.outcome is X]
    broken = [r.sentence for r in found if r.outcome is X or (has_weights and r.outcome is F)]
    assert broken == []


@pytest.mark.parametrize("name", [name for name in sorted(model_names()) if is_small(name)])
def test_every_small_built_in_model_keeps_the_contract(name):
    check_built_in(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in sorted(model_names()) if not is_small(name)])
def test_every_full_size_built_in_model_keeps_the_contract(name):
    check_built_in(name)
