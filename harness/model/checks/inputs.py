"""Checks of what goes into a model: pictures, texts and their tokens.

Conventions: a *word* is one repetition of `_WORD`; counts of tokens include
special ones and are those before anything is cut.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from harness.model.checks.record import Found, fails, finding, holds, skipped
from harness.model.checks.subject import Subject, gap
from harness.model.contract import EmbedsText, Picture, TokenCounts, Tokenizes

_WORD = "a"  # one token in every tokenizer of note
# Height and width of pictures that trip resizing up.
_ODD_SIZES = ((1, 1), (3, 200), (200, 3), (37, 53))
# The context is sought up to so many words; a text without end has as many.
_MANY_WORDS = 1000


def preprocess(subject: Subject) -> Found:
    """Shape, type and numbers of a preprocessed picture, whatever picture it was."""
    if subject.is_any_size:
        return skipped("preprocess: a function gets each picture as it is.")
    size = subject.model.adapter.input_size
    cases = _odd_pictures()
    for name, picture in cases.items():
        before = np.array(picture)
        pixels = subject.model.adapter.preprocess(picture)
        wrong = _wrong_pixels(pixels, size)
        if wrong:
            return fails(
                f"preprocess: for {name}: {wrong}. A float32 tensor (3, {size[0]}, {size[1]}), the "
                "adapter's input_size, of finite numbers on the CPU is needed for any picture. Use "
                "`harness.models.standardise`, which takes any size and mode."
            )
        if not np.array_equal(before, np.array(picture)):
            return fails(
                f"preprocess: for {name}: the picture itself was changed. It belongs to the "
                "caller, who needs it again. Work on a copy."
            )
    array, image = (subject.model.adapter.preprocess(p) for p in _same_picture())
    if gap(array, image) > 0:
        return fails(
            f"preprocess: the same picture as array and as PIL image differs by "
            f"{gap(array, image):.2g}. Both are RGB in 0 to 255. Convert one to the other first."
        )
    return holds(f"preprocess: (3, {size[0]}, {size[1]}) float32 from {len(cases)} odd pictures.")


def _odd_pictures() -> dict[str, Picture]:
    rng = np.random.default_rng(0)
    pictures: dict[str, Picture] = {}
    for height, width in _ODD_SIZES:
        array = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        pictures[f"an RGB array of {height} x {width}"] = array
    for mode, name in (("L", "grey"), ("RGBA", "RGBA"), ("P", "palette")):
        picture = Image.fromarray(rng.integers(0, 256, (24, 31, 3), dtype=np.uint8))
        pictures[f"a {name} PIL image of 24 x 31"] = picture.convert(mode)
    pictures["a black RGB array of 20 x 20"] = np.zeros((20, 20, 3), dtype=np.uint8)
    return pictures


def _same_picture() -> tuple[Picture, Picture]:
    array = np.random.default_rng(1).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    return array, Image.fromarray(array)


def _wrong_pixels(pixels: object, size: tuple[int, int]) -> str:
    """What is wrong with one preprocessed picture; empty if nothing is."""
    if not isinstance(pixels, Tensor):
        return f"found {type(pixels).__name__}"
    if tuple(pixels.shape) != (3, *size):
        return f"found the shape {tuple(pixels.shape)}"
    if pixels.dtype != torch.float32 or pixels.device.type != "cpu":
        return f"found {pixels.dtype} on {pixels.device}"
    if not torch.isfinite(pixels).all():
        return "found numbers that are not finite"
    return ""


def tokens(subject: Subject) -> Found:
    """Counts, the context length, and whether longer texts are said to be cut."""
    short, long = _words(2), _words(_MANY_WORDS)
    texts = ["", short, long]
    counts = subject.model.adapter.count_tokens(texts)
    wrong = _wrong_counts(counts, len(texts))
    if wrong:
        return fails(
            f"count_tokens: for {len(texts)} texts: {wrong}. TokenCounts with one whole number and "
            "one truth value a text is needed. Correct what it returns."
        )
    if not any(counts.n_tokens):
        return _no_tokens(subject)
    if not counts.n_tokens[0] <= counts.n_tokens[1] < counts.n_tokens[2]:
        return fails(
            f"count_tokens: {counts.n_tokens} tokens for texts of 0, 2 and {_MANY_WORDS} words. "
            "The counts are those before truncation, so they must grow. Count the whole text."
        )
    context = context_length(subject)
    if context is None:
        return holds(
            f"count_tokens: {counts.n_tokens[1]} tokens for {short!r}; no text up to "
            f"{counts.n_tokens[2]} tokens is said to be cut."
        )
    return holds(
        f"count_tokens: {counts.n_tokens[1]} tokens for {short!r}; the context is {context} "
        "tokens, special ones included; longer texts are said to be cut."
    )


def _words(n: int) -> str:
    return " ".join([_WORD] * n)


def _wrong_counts(counts: Any, n_texts: int) -> str:
    if not isinstance(counts, TokenCounts):
        return f"found {type(counts).__name__}"
    if len(counts.n_tokens) != n_texts or len(counts.truncated) != n_texts:
        return f"found {len(counts.n_tokens)} counts and {len(counts.truncated)} truth values"
    found: tuple[Any, ...] = counts.n_tokens
    if not all(isinstance(n, int | np.integer) and n >= 0 for n in found):
        return f"found the counts {found}"
    found = counts.truncated
    if not all(isinstance(cut, bool | np.bool_) for cut in found):
        return f"found the truth values {found}"
    return ""


def _no_tokens(subject: Subject) -> Found:
    if subject.model.card.control:
        return holds("count_tokens: no text has a token, as becomes a control.")
    return finding(
        "count_tokens: no text has a token, yet the card is no control. A model that reads text "
        "has tokens, and a report says which prompts are cut. Count them with the tokenizer."
    )


def context_length(subject: Subject) -> int | None:
    """Tokens of the longest repetition of a word that is not cut; None where none is cut."""

    def count(n: int) -> tuple[int, bool]:
        counts = subject.model.adapter.count_tokens([_words(n)])
        return counts.n_tokens[0], counts.truncated[0]

    fits, cut = 0, _MANY_WORDS
    if not count(cut)[1]:
        return None
    while cut - fits > 1:
        middle = (fits + cut) // 2
        fits, cut = (fits, middle) if count(middle)[1] else (middle, cut)
    return count(fits)[0]


def long_prompt(subject: Subject) -> Found:
    """A text longer than the context runs, and loses its end exactly if it is said to."""
    context = context_length(subject)
    n_words = _MANY_WORDS if context is None else context + 20
    body = _words(n_words)
    ends = [f"{body} left pink", f"{body} right brown"]
    is_cut = all(subject.model.adapter.count_tokens(ends).truncated)
    first, second = (subject.with_text(text) for text in ends)
    moved = gap(first, second) > 10 * subject.noise
    said = "said to be cut" if is_cut else "not said to be cut"
    what = f"long prompt: a text of {n_words + 2} words runs, is {said}, and its last two words"
    if not moved and subject.is_any_size:
        return holds(f"{what} change no logits; a function does not say whether it cuts texts.")
    if not subject.model.card.control and is_cut == moved:
        return finding(
            f"{what} {'change' if moved else 'change no'} logits. A text is cut exactly if its end "
            "does not reach the model. Correct 'truncated' in count_tokens, or the truncation."
        )
    return holds(f"{what} {'change' if moved else 'change no'} logits.")


def tokenizer(subject: Subject) -> Found:
    """``encode_texts(t) == encode_tokens(*tokenize(t))``, and the mask has the counts."""
    raw = subject.model.raw
    if not isinstance(raw, Tokenizes):
        return skipped("tokenize: not offered.")
    texts = [*subject.prompts, ""]
    ids, mask = raw.tokenize(texts)
    if ids.shape != mask.shape or ids.dim() != 2 or len(ids) != len(texts):
        return fails(
            f"tokenize: found ids {tuple(ids.shape)} and mask {tuple(mask.shape)} for {len(texts)} "
            "texts. Both are (N, L). Pad the texts to one length."
        )
    counts = subject.model.adapter.count_tokens(texts).n_tokens
    masked = tuple(min(int(row.sum()), n) for row, n in zip(mask, counts, strict=True))
    expected = tuple(min(n, ids.shape[1]) for n in counts)
    if masked != expected:
        return finding(
            f"tokenize: the mask has {masked} tokens, count_tokens {expected}. They are the same "
            "tokens. Let count_tokens use the tokenizer."
        )
    pairs = zip(
        raw.encode_tokens(ids, mask), subject.model.adapter.encode_texts(texts), strict=True
    )
    apart = max(gap(a.float(), b.float()) for a, b in pairs)
    if apart > subject.model.card.noise_floor:
        return fails(
            f"encode_tokens: of tokenize(texts) differs from encode_texts(texts) by {apart:.2g}. "
            "They are one computation. Let encode_texts call encode_tokens."
        )
    return holds(f"tokenize: ids (N, {ids.shape[1]}); encode_tokens(*tokenize) is encode_texts.")


def text_embedding(subject: Subject) -> Found:
    """Shape of the text embedding, and whether it moves with the text."""
    raw = subject.model.raw
    if not isinstance(raw, EmbedsText):
        return skipped("text_embedding: not offered.")
    vectors = raw.text_embedding(list(subject.prompts))
    if vectors.dim() != 2 or len(vectors) != len(subject.prompts):
        return fails(
            f"text_embedding: found the shape {tuple(vectors.shape)} for {len(subject.prompts)} "
            "texts. (N, D) is needed. Return one vector a text."
        )
    if not torch.isfinite(vectors).all():
        return fails(
            "text_embedding: found numbers that are not finite. Every number must be finite. "
            "Check the weights of the text tower, or use --dtype float32."
        )
    return _embedding_moves(subject, vectors)


def _embedding_moves(subject: Subject, vectors: Tensor) -> Found:
    apart = subject.embedding_gap() or 0.0
    alone = raw_embedding(subject, subject.prompts[:1])
    noise = max(gap(alone[0], vectors[0]), 1e-6 * float(vectors.abs().max()))
    if apart <= 10 * noise:
        return finding(
            f"text_embedding: {len(subject.prompts)} prompts differ by {apart:.2g}, one prompt "
            f"alone and among others by {noise:.2g}. Different prompts should differ by more than "
            "ten times that. Look for a tower that lost its weights or its input."
        )
    shown = tuple(vectors.shape[1:])
    return holds(f"text_embedding: (N, {shown[0]}); different prompts differ by up to {apart:.2g}.")


def raw_embedding(subject: Subject, texts: Sequence[str]) -> Tensor:
    """The text embedding of some texts, as float32."""
    assert isinstance(subject.model.raw, EmbedsText)
    return subject.model.raw.text_embedding(list(texts)).float()
