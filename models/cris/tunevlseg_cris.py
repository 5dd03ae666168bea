"""TuneVLSeg's prompt tuning of a frozen CRIS: CoOp and CoCoOp.

Conventions: as in `adapter`; D, M as in `harness.model.contexts`.

Quirks that change results, kept on purpose:

- The padding mask is that of the tokens, so that nothing attends to padding: unlike CRIS
  of the other reference (card ``cris``), which attends to end-of-text padding.
- The context stands behind the start token, before positions are added, and is not padding;
  words beyond the context length less M are cut. Behind text layer i (counted from 0) it is
  overwritten by the i-th context, if there is one: with D = 1 the same context enters twice.
- CoCoOp adds a projection of the mean of the attention pool's map (1024 wide) to the context:
  texts are encoded a pair at a time (`encode_pairs`). Its `text_embedding` is that under a
  grey picture.
- The extra last layer is mixed in by `residual_ratio`, for both methods.
- A full stop is appended to prompts without one (the empty prompt stays empty).
- Pictures are resized as OpenCV does (bicubic, no antialiasing). The threshold is 0.5.

Source: R. Adhikari et al., ACCV 2024, arXiv 2410.05239.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from harness.errors import CheckpointError
from harness.model.contexts import (
    ContextLearner,
    Widths,
    cut,
    planned,
    recognise,
    renewed,
    with_context,
    with_stop,
)
from harness.model.opencv import standardise_as_opencv
from harness.model.tokenizers import ClipTokenizer
from harness.models import Picture, TokenCounts, device_of, read_settings, without_prefix

from .adapter import MEAN, STD, Cris, ImageFeatures, Settings, TextFeatures, enlarge
from .backbone import image_maps
from .neck import VisualTerms

_LEARNER = "context_learner."
_STRIDE = 16  # pixels of the input per place of the decoder's map


class TuneSettings(Settings):
    """CRIS's settings, and the context of a model without a checkpoint.

    `normalise_picture` is a choice that no key of a checkpoint says.
    """

    method: Literal["coop", "cocoop", "none"]
    depth: int = Field(ge=1)
    context_tokens: int = Field(ge=1)
    inside: int = Field(ge=1)
    extra_layer: bool
    extra_width: int = Field(ge=1)
    initial_text: str | None
    full_stop: bool
    normalise_picture: bool


class SeenFeatures(NamedTuple):
    """`ImageFeatures`, and the text's context under this picture, ``(N, D, M, C)``."""

    deep: Tensor
    middle: Tensor
    shallow: Tensor
    context: Tensor


class WordFeatures(NamedTuple):
    """A text before its picture is known.

    `ids` ``(N, L - M)``, `ignored` ``(N, L)`` with the context's places, `ends` ``(N,)``.
    """

    ids: Tensor
    ignored: Tensor
    ends: Tensor


class Network(nn.Module):
    """CRIS and what is tuned; the state dict has the original's keys."""

    def __init__(self, cris: Any, learner: ContextLearner | None, *, extra: int) -> None:
        """Take CRIS's parts over; `extra` is the extra layer's width, 0 for none."""
        super().__init__()
        self.backbone, self.neck = cris.backbone, cris.neck
        self.decoder, self.proj = cris.decoder, cris.proj
        self.context_learner = learner
        if extra:
            width = cris.proj.vis[1][0].in_channels
            self.additive_decoder_layer = nn.Sequential(
                nn.Conv2d(width, extra, 1, bias=False),
                nn.Upsample(scale_factor=_STRIDE, mode="bilinear"),
                nn.Conv2d(extra, 1, 5, padding=2, padding_mode="replicate"),
            )
            self.residual_ratio = nn.Parameter(torch.tensor(0.5))

    def finish(self, logits: Tensor, maps: Tensor) -> Tensor:
        """Logits ``(N, S, S)`` mixed with the extra layer's on the decoder's map."""
        if not hasattr(self, "residual_ratio"):
            return logits
        extra = self.additive_decoder_layer(maps).squeeze(1)
        mixed: Tensor = (1 - self.residual_ratio) * logits + self.residual_ratio * extra
        return mixed


class TuneVlsegCris:
    """TuneVLSeg on CRIS; `module` is a `Network`."""

    def __init__(self, settings: Mapping[str, Any], *, weights: Path | None) -> None:
        """Build the model.

        Args:
            settings: The card's settings, all of `TuneSettings`.
            weights: CRIS's own, where finetuning starts, or None.
        """
        self.settings = read_settings(TuneSettings, settings)
        own = TuneSettings.model_fields.keys() - Settings.model_fields.keys()
        base = {key: value for key, value in settings.items() if key not in own}
        self._cris = Cris(base, weights=weights)
        self.input_size = self._cris.input_size
        width = self.settings.neck_dims[1]
        # CRIS's pictures get no context: no vector has the width of their tokens.
        self._widths = Widths(width, -1, self.settings.embed_dim)
        extra = self.settings.extra_width if self.settings.extra_layer else 0
        self._assemble(self._learner(), extra=extra)

    def _learner(self) -> ContextLearner | None:
        """The context that the settings ask for."""
        chosen, method = self.settings, self.settings.method
        if method == "none":
            return None
        start: Tensor | None = None
        if chosen.initial_text:
            ids, mask = self._cris.tokenize([chosen.initial_text])
            start = self._cris.module.backbone.token_embedding(ids[0, 1 : int(mask.sum()) - 1])
        tokens = chosen.context_tokens if start is None else len(start)
        shapes = planned(
            method, depth=chosen.depth, tokens=tokens, inside=chosen.inside, widths=self._widths
        )
        learner = ContextLearner(shapes, method, self._widths)
        if start is not None:
            learner.context_vectors.data[0] = start.detach()
        return learner

    def fit_to(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Take the context and extra layer that a checkpoint has."""
        own = without_prefix(shapes, "backbone.visual.attnpool.connect.0.weight")
        if not own:
            return
        inside = {k.removeprefix(_LEARNER): v for k, v in own.items() if k.startswith(_LEARNER)}
        learner = None
        if "context_vectors" in inside:
            method = recognise(inside, self._widths, otherwise="coop")
            if method not in ("coop", "cocoop"):
                raise CheckpointError(
                    f"the checkpoint's context is that of {method!r}. On CRIS there are 'coop' and "
                    "'cocoop'. Give a checkpoint of one of them."
                )
            learner = ContextLearner(inside, method, self._widths)
        extra = own.get("additive_decoder_layer.0.weight", (0,))[0]
        self._assemble(learner, extra=extra)

    def _assemble(self, learner: ContextLearner | None, *, extra: int) -> None:
        self.module: Any = Network(self._cris.module, learner, extra=extra)
        self.text_depends_on_image = learner is not None and learner.method == "cocoop"
        self._taken = learner.tokens if learner is not None else 0
        self._tokenizer = ClipTokenizer(
            context_length=self.settings.context_length - self._taken,
            vocabulary_size=self.settings.vocabulary_size,
        )

    def preprocess(self, image: Picture) -> Tensor:
        """``(H, W, 3)`` uint8 -> ``(3, S, S)``, standardised."""
        return standardise_as_opencv(image, self.input_size, method="bicubic", mean=MEAN, std=STD)

    def count_tokens(self, texts: Sequence[str]) -> TokenCounts:
        """Tokens with start, end and full stop; the context takes the place of some."""
        return self._tokenizer.count(self._stopped(texts))

    def _stopped(self, texts: Sequence[str]) -> list[str]:
        return [with_stop(text) for text in texts] if self.settings.full_stop else list(texts)

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """N texts -> ids padded with end-of-text, and mask; ``(N, L - M)``."""
        return self._tokenizer(self._stopped(texts))

    def encode_tokens(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        """Ids and mask of any length -> features, of CoCoOp the words alone."""
        device = device_of(self.module)
        ids, mask = cut(
            input_ids.to(device),
            attention_mask.to(device),
            length=self._tokenizer.context_length,
            end=self._tokenizer.end,
        )
        context_is_no_padding = mask.new_zeros(len(mask), self._taken).bool()
        ignored = torch.cat([context_is_no_padding, mask == 0], dim=1)
        words = WordFeatures(ids, ignored, ids.argmax(dim=1))
        if self.text_depends_on_image:
            return words
        learner = self.module.context_learner
        return self._read(words, None if learner is None else learner.textual())

    def _read(self, words: WordFeatures, context: Tensor | None) -> TextFeatures:
        """The text tower with a context ``(N or 1, D, M, C)``."""
        states, state = self._states(words, context)
        return TextFeatures(
            words=states,
            ignored=words.ignored,
            factor=self.module.neck.project(state),
            kernels=self.module.proj.kernels(state),
        )

    def _states(self, words: WordFeatures, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Last states ``(N, L, C)`` and the sentence ``(N, D)``."""
        backbone = self.module.backbone
        states = backbone.token_embedding(words.ids)
        if context is not None:
            states = with_context(states, context[:, 0])
        states = states + backbone.positional_embedding
        for number, block in enumerate(backbone.transformer.resblocks):
            states = block(states, attn_mask=backbone.attn_mask)
            if context is not None and number < context.shape[1]:
                states = renewed(states, context[:, number].expand(len(states), -1, -1))
        states = backbone.ln_final(states)
        rows = torch.arange(len(states), device=states.device)
        return states, states[rows, words.ends + self._taken] @ backbone.text_projection

    def encode_texts(self, texts: Sequence[str]) -> Any:
        """N texts -> words, and what the sentence is for neck and projector."""
        return self.encode_tokens(*self.tokenize(texts))

    def encode_pairs(self, image_features: Any, text_features: Any) -> TextFeatures:
        """CoCoOp's text features of N pairs; of CoOp what they are already."""
        if not self.text_depends_on_image:
            return TextFeatures(*text_features)
        return self._read(text_features, image_features.context)

    def text_embedding(self, texts: Sequence[str]) -> Tensor:
        """The sentence vector, ``(N, D)``; of CoCoOp under a grey picture."""
        learner, context = self.module.context_learner, None
        if self.text_depends_on_image:
            grey = torch.zeros(1, 3, *self.input_size, device=device_of(self.module))
            context = self.encode_images(grey).context.expand(len(texts), -1, -1, -1)
        elif learner is not None:
            context = learner.textual()
        ids, mask = self.tokenize(texts)
        ids = ids.to(device_of(self.module))
        words = WordFeatures(ids, mask == 0, ids.argmax(dim=1))
        return self._states(words, context)[1]

    def encode_images(self, pixels: Tensor) -> Any:
        """``(N, 3, S, S)`` -> the terms of the neck that contain no text."""
        maps = image_maps(self.module.backbone, pixels)
        features = ImageFeatures(*self.module.neck.visual(maps))
        if not self.text_depends_on_image:
            return features
        picture = maps[2].mean(dim=(2, 3))
        if self.settings.normalise_picture:
            picture = nn.functional.normalize(picture, dim=-1)
        return SeenFeatures(*features, self.module.context_learner.conditioned(picture))

    def decode(self, image_features: Any, text_features: Any) -> Tensor:
        """N images with N texts -> logits ``(N, S, S)``."""
        text = self.encode_pairs(image_features, text_features)
        fused = self.module.neck.fuse(VisualTerms(*image_features[:3]), text.factor)
        seen = self.module.decoder(fused, text.words, text.ignored)
        scores = enlarge(self.module.proj(seen, text.kernels))
        logits: Tensor = self.module.finish(scores, seen)
        return logits

    def decoder_modules(self) -> Sequence[nn.Module]:
        """What the original trains; of an end-to-end model all of it."""
        if self.module.context_learner is None:
            return [self.module]
        extra = getattr(self.module, "additive_decoder_layer", None)
        return [self.module.context_learner, *([extra] if extra is not None else [])]
