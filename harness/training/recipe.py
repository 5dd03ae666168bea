"""What can be set about a training, and the loss it minimises.

Conventions: probabilities and targets are ``(N, H, W)``, in [0, 1]; losses are
scalars, lower is better. Defaults are the reference's settings.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

# MONAI's smoothing of numerator and denominator; it decides the loss of an empty mask.
_SMOOTH = 1e-5


@dataclass(frozen=True)
class Recipe:
    """Settings of one training.

    The reference's loss is named DiceCE, but it feeds sigmoid outputs to a
    cross-entropy over one channel, which is exactly 0: it trained with soft Dice
    alone. `cross_entropy` adds a real binary cross-entropy with that weight.
    `flip` mirrors images left to right, which contradicts every prompt that
    names a side: it is for controls that read no text. `max_epochs` and
    `max_minutes` may be raised when a training is continued.

    `negatives` is the share of examples, in [0, 1), that ask for what is not in the picture and
    have an empty mask; `negative_kinds` says what for, every kind that the data allow when empty.
    `prompt_dropout` is the share of the others whose prompt is left empty. `freeze` names the
    stages that are not trained: ``text``, ``image``, both with a comma, or none. A frozen stage
    encodes each text or, where pictures are not varied, each picture once for all epochs.
    `text_learning_rate` is that of what lies behind the text's features; None: `learning_rate`.
    `model_name` is the new model's; None: its folder's.
    """

    learning_rate: float = 2e-3
    batch_size: int = 32
    max_epochs: int = 200
    max_minutes: float | None = None
    weight_decay: float = 1e-3
    cross_entropy: float = 0.0
    plateau_factor: float = 0.1
    plateau_patience: int = 5
    stop_patience: int = 20
    clip_norm: float = 0.5
    photometric: bool = False
    flip: bool = False
    seed: int = 42
    negatives: float = 0.0
    negative_kinds: tuple[str, ...] = ()
    prompt_dropout: float = 0.0
    freeze: str = ""
    text_learning_rate: float | None = None
    model_name: str | None = None


STAGES = ("image", "text")


def stages(freeze: str) -> list[str]:
    """The stages that ``image,text`` names."""
    return [name.strip() for name in freeze.split(",") if name.strip()]


def soft_dice_loss(probabilities: Tensor, targets: Tensor) -> Tensor:
    """One minus the soft Dice overlap of each image, averaged over the batch.

    Shapes are ``(N, H, W)``: probabilities after the sigmoid, targets 0 or 1. As F. Milletari et
    al., 3DV 2016, arXiv 1606.04797, with plain sums below.
    """
    return _soft_dice_losses(probabilities, targets).mean()


def _soft_dice_losses(probabilities: Tensor, targets: Tensor) -> Tensor:
    shared = (probabilities * targets).sum(dim=(1, 2))
    size = probabilities.sum(dim=(1, 2)) + targets.sum(dim=(1, 2))
    return 1 - (2 * shared + _SMOOTH) / (size + _SMOOTH)


def segmentation_loss(
    logits: Tensor, targets: Tensor, *, cross_entropy: float, learn_empty: bool = False
) -> Tensor:
    """Soft Dice plus `cross_entropy` times the mean binary cross-entropy, in float32.

    Logits and targets (0 or 1) are ``(N, H, W)``. Of an empty target soft Dice is 1 whatever is
    painted, and has next to no gradient: from soft Dice alone no model learns to paint nothing.
    With `learn_empty` the loss of an empty target is the binary cross-entropy alone, mean over
    pixels: it is 0 for an empty mask and falls with every pixel that is not painted.
    """
    logits, targets = logits.float(), targets.float()
    losses = _soft_dice_losses(torch.sigmoid(logits), targets)
    if cross_entropy or learn_empty:
        pixels = binary_cross_entropy_with_logits(logits, targets, reduction="none")
        pixels = pixels.mean(dim=(1, 2))
        whole = losses + cross_entropy * pixels
        is_empty = targets.sum(dim=(1, 2)) == 0
        losses = torch.where(is_empty, pixels, whole) if learn_empty else whole
    return losses.mean()
