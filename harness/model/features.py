"""What is done with a model's features and logits without knowing what they mean.

Conventions: features are a NamedTuple of tensors, every leaf with the leading
axis N; only axis 0 is ever selected or concatenated. Logits are ``(N, H, W)``.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from harness.model.contract import Features


def select(features: Features, rows: Tensor) -> Features:
    """The given rows of every leaf; `rows` is ``(M,)`` int64."""
    return type(features)(*(leaf.index_select(0, rows) for leaf in features))


def concatenate(parts: Sequence[Features]) -> Features:
    """Features of several batches as one."""
    if len(parts) == 1:
        return parts[0]
    return type(parts[0])(*(torch.cat(leaves) for leaves in zip(*parts, strict=True)))


def bytes_per_row(features: Features) -> int:
    """Memory one image or text takes, in bytes."""
    return sum(leaf[0].numel() * leaf.element_size() for leaf in features)


def binarise(logits: Tensor, threshold: float) -> Tensor:
    """Pixels whose probability is strictly above `threshold`.

    The comparison is made on the logit, where it is exact.
    """
    return logits > cut_at(threshold)


def cut_at(threshold: float) -> float:
    """The logit of a probability: ``sigmoid(x) > t`` is ``x > log(t / (1 - t))``."""
    return math.log(threshold / (1 - threshold))
