"""How the texts of a plan reach a model: their length in tokens, and whether their edits do.

Conventions: one row for each distinct (text, original text) of a plan. An edit is *cut
away* when truncation leaves the model the same input as for the original prompt, so that
the pair says nothing of robustness. An edit of which a part reaches the model survives.
Null stands for what does not apply: an original has no edit, and a model that reads no
text has no tokens.

A *shift* is the distance between the embeddings of a changed and of its original prompt, in units
of the typical (root mean square) distance between two of the texts that were embedded: 0 says
"the same", 1 "as far apart as any two prompts".
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice

import polars as pl
import torch

from harness.model.contract import EmbedsText, TokenCounts, Tokenizes
from harness.model.loading import LoadedModel

TEXT_SCHEMA = pl.Schema(
    {
        "text": pl.String,
        "original_text": pl.String,
        "n_tokens": pl.Int32,
        "truncated": pl.Boolean,
        "edit_survives": pl.Boolean,
        "same_tokens": pl.Boolean,
    }
)
"""`same_tokens`: the tokenizer gives both texts the same ids, cut or not; null without ids."""

EDITS_PER_CELL = 40
"""Edits of one probe and attribute that are embedded: enough for their mean, and no more, since
every text costs a pass through the text tower."""

SHIFT_SCHEMA = pl.Schema({"text": pl.String, "original_text": pl.String, "shift": pl.Float64})
STORED_SCHEMA = pl.Schema([*TEXT_SCHEMA.items(), ("shift", pl.Float64)])
"""Of ``texts/<model_id>.parquet``: the table of texts with the shifts that were computed."""

_TEXTS_EMBEDDED = 64
CELL = ("dataset", "split", "prompts", "prompt_type", "probe", "attribute")
"""Columns of a plan within which edits are counted."""

CountTokens = Callable[[Sequence[str]], TokenCounts]

# A tokenizer that takes this many words is taken to have no limit.
_LONGEST_WORDS = 1 << 14
_TEXTS_PER_CALL = 1024


def text_table(
    model: LoadedModel, cases: pl.DataFrame, *, advance: Callable[[int], None] = lambda _: None
) -> pl.DataFrame:
    """Tokens of every text of a plan, and whether its edits survive truncation.

    Args:
        model: The model; its tokenizer's ids are compared where it offers them, else the
            lengths of what the two texts have in common.
        cases: Of a plan, with ``prompt`` and ``original_prompt``.
        advance: Called with the number of texts that were counted, for a progress bar.

    Returns:
        A frame with `TEXT_SCHEMA`.
    """
    pairs = cases.select(text="prompt", original_text="original_prompt").unique(maintain_order=True)
    texts = pl.concat([pairs["text"], pairs["original_text"]]).unique(maintain_order=True).to_list()
    n_tokens: dict[str, int] = {}
    truncated: dict[str, bool] = {}
    for part in _parts(texts):
        counts = model.adapter.count_tokens(part)
        n_tokens |= zip(part, counts.n_tokens, strict=True)
        truncated |= zip(part, counts.truncated, strict=True)
        advance(len(part))
    rows = list(pairs.iter_rows())
    if any(n_tokens[text] for text in texts):
        same: list[bool | None] = list(_same_ids(model.raw, rows, texts))
        cut = _cut_away(model, rows, same, truncated)
    else:  # it reads no text
        same = cut = [None] * len(rows)
    return pairs.with_columns(
        n_tokens=pl.Series([n_tokens[text] for text, _ in rows], dtype=pl.Int32),
        truncated=pl.Series([truncated[text] for text, _ in rows], dtype=pl.Boolean),
        edit_survives=pl.Series([None if c is None else not c for c in cut], dtype=pl.Boolean),
        same_tokens=pl.Series(same, dtype=pl.Boolean),
    ).cast(TEXT_SCHEMA)


Pair = tuple[str, str]


def _same_ids(raw: object, rows: Sequence[Pair], texts: Sequence[str]) -> Iterator[bool | None]:
    """Whether the tokenizer's ids for text and original are equal, as the model gets them."""
    if not isinstance(raw, Tokenizes):
        yield from [None] * len(rows)
        return
    ids: dict[str, bytes] = {}
    for part in _parts(texts):
        tokens, mask = raw.tokenize(part)
        for text, row, used in zip(part, tokens.numpy(), mask.numpy(), strict=True):
            ids[text] = row.tobytes() + used.tobytes()
    for text, original in rows:
        yield None if text == original else ids[text] == ids[original]


def _parts(texts: Sequence[str]) -> Iterator[list[str]]:
    waiting = iter(texts)
    while part := list(islice(waiting, _TEXTS_PER_CALL)):
        yield part


def _cut_away(
    model: LoadedModel,
    rows: Sequence[Pair],
    same: Sequence[bool | None],
    truncated: Mapping[str, bool],
) -> list[bool | None]:
    """Per pair, whether nothing of the edit reaches the model; None for originals."""
    if isinstance(model.raw, Tokenizes):
        return [
            None if text == original else bool(is_same) and (truncated[text] or truncated[original])
            for (text, original), is_same in zip(rows, same, strict=True)
        ]
    count = model.adapter.count_tokens
    limit = token_limit(count)
    kept = [shared_words(text, original) for text, original in rows]
    lengths = count(kept).n_tokens
    return [
        None if text == original else limit is not None and length >= limit
        for (text, original), length in zip(rows, lengths, strict=True)
    ]


def token_limit(count: CountTokens) -> int | None:
    """The most tokens that reach a model, special ones included; None without a limit.

    It is found by counting longer and longer texts of one short word. If that word took
    several tokens the result could be too high by as many less one, so that an edit is
    then rather taken to survive.
    """
    low, high = 0, 1
    while not count([_words(high)]).truncated[0]:
        low, high = high, 2 * high
        if high > _LONGEST_WORDS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        if count([_words(middle)]).truncated[0]:
            high = middle
        else:
            low = middle
    return count([_words(high)]).n_tokens[0] - 1


def _words(n: int) -> str:
    return " ".join(["a"] * n)


def shared_words(text: str, original: str) -> str:
    """The whole words with which both texts begin.

    Tokenizers split at blanks first, so that the tokens of these words begin both token
    lists; a word that goes on differently may be split differently.

    Example:
        >>> shared_words("one small round polyp", "one small red polyp")
        'one small'
    """
    n = next(
        (i for i, (a, b) in enumerate(zip(text, original, strict=False)) if a != b),
        min(len(text), len(original)),
    )
    ends = all(n == len(t) or t[n].isspace() for t in (text, original))
    kept = text[:n]
    if not ends:
        blanks = [i for i, character in enumerate(kept) if character.isspace()]
        kept = kept[: blanks[-1]] if blanks else ""
    return kept.rstrip()


def with_shifts(texts: pl.DataFrame, model: LoadedModel, cases: pl.DataFrame) -> pl.DataFrame:
    """A table of texts with a column ``shift``, null where an edit was not embedded.

    Args:
        texts: Of `text_table`.
        model: The same model.
        cases: Of the same plan.
    """
    shifts = embedding_shifts(model, cases)
    joined = texts.join(shifts, on=["text", "original_text"], how="left", maintain_order="left")
    return joined.cast(STORED_SCHEMA)


def embedding_shifts(model: LoadedModel, cases: pl.DataFrame) -> pl.DataFrame:
    """Shifts of the first `EDITS_PER_CELL` edits of each probe and attribute.

    Args:
        model: Asked for its text embedding; one without it gives no rows.
        cases: Of a plan.

    Returns:
        A frame with `SHIFT_SCHEMA`, one row a distinct edit.
    """
    raw = model.raw
    edits = (
        cases.select(*CELL, text="prompt", original_text="original_prompt")
        .filter(pl.col("text") != pl.col("original_text"))
        .unique(maintain_order=True)
        .filter(pl.int_range(pl.len()).over(CELL) < EDITS_PER_CELL)
        .select("text", "original_text")
        .unique(maintain_order=True)
    )
    if not isinstance(raw, EmbedsText) or edits.is_empty():
        return pl.DataFrame(schema=SHIFT_SCHEMA)
    texts = list(dict.fromkeys([*edits["text"], *edits["original_text"]]))
    place = {text: index for index, text in enumerate(texts)}
    vectors = _embedded(model, raw, texts)
    after, before = (vectors[[place[t] for t in edits[c]]] for c in edits.columns)
    moved = torch.linalg.vector_norm(after - before, dim=1)
    # The mean squared distance between two texts is twice their variance.
    typical = (2 * vectors.var(dim=0, correction=1).sum()).sqrt()
    shifts = moved / typical if typical > 0 else torch.zeros_like(moved)
    return edits.with_columns(shift=pl.Series(shifts.tolist(), dtype=pl.Float64))


def _embedded(model: LoadedModel, raw: EmbedsText, texts: Sequence[str]) -> torch.Tensor:
    parts = []
    with torch.inference_mode():
        for start in range(0, len(texts), _TEXTS_EMBEDDED):
            with model.autocast():
                parts.append(
                    raw.text_embedding(texts[start : start + _TEXTS_EMBEDDED]).double().cpu()
                )
    return torch.cat(parts)
