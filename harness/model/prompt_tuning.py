"""What models with a learned context share, whatever they are tuned on.

Conventions: D and M as in `contexts`; N pictures, texts or pairs. A model's `module` has the
learner as ``context_learner`` and, where it has an extra last layer, ``additive_decoder_layer``.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from harness.cards import Strict
from harness.model.contexts import ContextLearner, Widths, planned, with_stop
from harness.model.contract import Picture, TokenCounts, device_of
from harness.model.opencv import standardise_as_opencv
from harness.model.tokenizers import ClipTokenizer

_LEARNER = "context_learner."
_BEGIN_AS_WORDS = ("coop", "cocoop", "maple")


class ContextSettings(Strict):
    """The context of a model without a checkpoint.

    `initial_text` is what a context in the text starts as; `normalise_picture` is a choice that
    no key of a checkpoint says.
    """

    depth: int = Field(ge=1)
    context_tokens: int = Field(ge=1)
    inside: int = Field(ge=1)
    extra_layer: bool
    initial_text: str | None
    full_stop: bool
    normalise_picture: bool


def untuned(
    chosen: Any,
    widths: Widths,
    *,
    tokenize: Callable[[Sequence[str]], tuple[Tensor, Tensor]],
    embedding: nn.Module,
    norm_first: bool = True,
) -> ContextLearner | None:
    """The context that settings ask for; None where their `method` is ``none``."""
    if chosen.method == "none":
        return None
    start: Tensor | None = None
    if chosen.initial_text and chosen.method in _BEGIN_AS_WORDS:
        ids, mask = tokenize([chosen.initial_text])
        start = embedding(ids[0, 1 : int(mask.sum()) - 1]).detach()
    tokens = chosen.context_tokens if start is None else len(start)
    shapes = planned(
        chosen.method, depth=chosen.depth, tokens=tokens, inside=chosen.inside, widths=widths
    )
    learner = ContextLearner(shapes, chosen.method, widths, norm_first=norm_first)
    if start is not None:
        learner.context_vectors.data[0] = start
    return learner


def of_the_learner(
    shapes: Mapping[str, tuple[int, ...]],
) -> dict[str, tuple[int, ...]]:
    """Shapes of a checkpoint's context, without their prefix."""
    return {k.removeprefix(_LEARNER): v for k, v in shapes.items() if k.startswith(_LEARNER)}


class PromptTuned:
    """Texts with a stop and a context; a subclass has the towers.

    It calls `_take`, and has `settings` (`ContextSettings` among them), `input_size`,
    `encode_tokens`, `encode_images` and `_read`.
    """

    mean_std: ClassVar[tuple[tuple[float, ...], tuple[float, ...]]]
    settings: Any
    input_size: tuple[int, int]
    encode_tokens: Any
    encode_images: Any
    _read: Any

    def _take(self, module: Any, learner: ContextLearner | None) -> None:
        """Hold a module and the learner in it."""
        self.module = module
        self._in_text = learner is not None and learner.in_text
        self._in_picture = learner is not None and learner.in_picture
        self.text_depends_on_image = learner is not None and learner.method == "cocoop"
        self._taken = learner.tokens if learner is not None and learner.in_text else 0
        self._tokenizer = ClipTokenizer(
            context_length=self.settings.context_length - self._taken,
            vocabulary_size=self.settings.vocabulary_size,
        )

    def preprocess(self, image: Picture) -> Tensor:
        """``(H, W, 3)`` uint8 -> ``(3, S, S)``, standardised."""
        mean, std = self.mean_std
        return standardise_as_opencv(image, self.input_size, method="bicubic", mean=mean, std=std)

    def count_tokens(self, texts: Sequence[str]) -> TokenCounts:
        """Tokens with start, end and full stop; the context takes the place of some."""
        return self._tokenizer.count(self._stopped(texts))

    def _stopped(self, texts: Sequence[str]) -> list[str]:
        return [with_stop(text) for text in texts] if self.settings.full_stop else list(texts)

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """N texts -> ids padded with end-of-text, and mask; ``(N, L - M)``."""
        return self._tokenizer(self._stopped(texts))

    def encode_texts(self, texts: Sequence[str]) -> Any:
        """N texts -> their features, not normalised; of CoCoOp their words."""
        return self.encode_tokens(*self.tokenize(texts))

    def encode_pairs(self, image_features: Any, text_features: Any) -> Any:
        """CoCoOp's text features of N pairs; of the other methods what they are already."""
        if not self.text_depends_on_image:
            return text_features
        return self._read(text_features, image_features.context)

    def _context(self) -> Tensor | None:
        """The text's context where it does not depend on the picture, ``(1, D, M, C)``."""
        return self.module.context_learner.textual() if self._in_text else None

    def _conditioned(self, pictures: Tensor) -> Tensor:
        """CoCoOp's contexts under pictures with vectors ``(N, V)``, ``(N, D, M, C)``."""
        if self.settings.normalise_picture:
            pictures = nn.functional.normalize(pictures, dim=-1)
        contexts: Tensor = self.module.context_learner.conditioned(pictures)
        return contexts

    def _under_grey(self, n: int) -> Tensor:
        """CoCoOp's context under a grey picture, for `n` texts."""
        grey = torch.zeros(1, 3, *self.input_size, device=device_of(self.module))
        context: Tensor = self.encode_images(grey).context.expand(n, -1, -1, -1)
        return context

    def decoder_modules(self) -> Sequence[nn.Module]:
        """What the original trains; of an end-to-end model all of it."""
        if self.module.context_learner is None:
            return [self.module]
        extra = getattr(self.module, "additive_decoder_layer", None)
        return [self.module.context_learner, *([extra] if extra is not None else [])]
