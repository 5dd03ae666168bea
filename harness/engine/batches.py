"""How many pairs a decoder call takes when nobody says so.

On a CPU a batch pays as long as what it touches stays in the cache: measured on one core,
full-size models decode a pair 1.1 to 1.7 times slower in batches of 32 than in their best
one, which was about `CACHE_BYTES` of features and logits for each of them. Small models
gain from large batches instead, up to `MOST`. The rule is arithmetic and not a measurement,
so that a model has the same batches, and so the same counts, on every machine. A larger batch
that somebody asks for is decoded in pieces of that size (`decoded`), so that it costs no more.

Conventions: bytes per pair are those of one image's features, one text's features and one
mask of logits.
"""

import math
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from harness.model.contract import AnySize, Features, Staged
from harness.model.features import bytes_per_row
from harness.model.loading import LoadedModel

CACHE_BYTES = 4 << 20
MOST = 32
OF_PICTURES = 8
"""Pairs of one whole picture that a function is given at once; what it needs is not known."""
ON_CUDA = 64
"""A device wants to be filled; where this is too much, out of memory halves it."""


def decoded(model: LoadedModel, images: Features, texts: Features) -> Tensor:
    """Logits of paired rows; a CPU decodes no more at once than the model's usual batch.

    A device, compiled stages and functions take all rows at once.
    """
    decode, n = model.adapter.decode, len(texts[0])
    # Most models' logits are as large as their input; none that is known has larger ones.
    most = bytes_per_row(images) + bytes_per_row(texts) + 4 * math.prod(model.adapter.input_size)
    if n <= fitting(most) or not _has_a_best(model) or n <= (rows := usual_batch_size(model)):
        return decode(images, texts)
    pieces = [slice(start, start + rows) for start in range(0, n, rows)]
    return torch.cat([decode(_cut(images, piece), _cut(texts, piece)) for piece in pieces])


def _has_a_best(model: LoadedModel) -> bool:
    is_compiled = model.stages.get("decode") == "openvino"
    return model.device.type == "cpu" and isinstance(model.raw, Staged) and not is_compiled


def _cut(features: Features, rows: slice) -> Features:
    return type(features)(*(leaf[rows] for leaf in features))


def usual_batch_size(model: LoadedModel) -> int:
    """A power of two, the same for a model on every machine with its type of device."""
    if isinstance(model.raw, AnySize):
        return OF_PICTURES
    return ON_CUDA if model.device.type == "cuda" else fitting(bytes_per_pair(model))


def fitting(n_bytes: int) -> int:
    """The largest power of two, 1 to `MOST`, of which so many bytes each fit the cache.

    Example:
        >>> [fitting(n) for n in (1, 900_000, 5_000_000)]
        [32, 4, 1]
    """
    size = MOST
    while size > 1 and size * n_bytes > CACHE_BYTES:
        size //= 2
    return size


def bytes_per_pair(model: LoadedModel) -> int:
    """What one (image, text) pair brings to the decoder and takes from it."""
    adapter = model.adapter
    if (known := _MEASURED.get(adapter.module)) is not None:
        return known
    with torch.inference_mode(), model.autocast():
        image = adapter.encode_images(torch.zeros(1, 3, *adapter.input_size, device=model.device))
        text = adapter.encode_texts(["a"])
        logits = adapter.decode(image, text)
    taken = logits[0].numel() * logits.element_size()
    _MEASURED[adapter.module] = bytes_per_row(image) + bytes_per_row(text) + taken
    return _MEASURED[adapter.module]


# It takes a whole forward to know. By module: an adapter need not be hashable, a dataclass is not.
_MEASURED: WeakKeyDictionary[torch.nn.Module, int] = WeakKeyDictionary()
