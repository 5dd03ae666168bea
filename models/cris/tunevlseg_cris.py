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
from harness.model.contexts import ContextLearner, Widths, cut, recognise, renewed, with_context
from harness.model.prompt_tuning import ContextSettings, PromptTuned, of_the_learner, untuned
from harness.models import device_of, read_settings, without_prefix

from .adapter import MEAN, STD, Cris, ImageFeatures, Settings, TextFeatures, enlarge
from .backbone import image_maps
from .neck import VisualTerms

_STRIDE = 16  # pixels of the input per place of the decoder's map


class TuneSettings(ContextSettings, Settings):
    """CRIS's settings, and the context of a model without a checkpoint."""

    method: Literal["coop", "cocoop", "none"]
    extra_width: int = Field(ge=1)


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


class TuneVlsegCris(PromptTuned):
    """TuneVLSeg on CRIS; `module` is a `Network`."""

    mean_std = MEAN, STD

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
        learner = untuned(
            self.settings,
            self._widths,
            tokenize=self._cris.tokenize,
            embedding=self._cris.module.backbone.token_embedding,
        )
        extra = self.settings.extra_width if self.settings.extra_layer else 0
        self._assemble(learner, extra=extra)

    def fit_to(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Take the context and extra layer that a checkpoint has."""
        own = without_prefix(shapes, "backbone.visual.attnpool.connect.0.weight")
        if not own:
            return
        inside, learner = of_the_learner(own), None
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
        self._take(Network(self._cris.module, learner, extra=extra), learner)

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
        return self._read(words, self._context())

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

    def text_embedding(self, texts: Sequence[str]) -> Tensor:
        """The sentence vector, ``(N, D)``; of CoCoOp under a grey picture."""
        context = self._under_grey(len(texts)) if self.text_depends_on_image else self._context()
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
        return SeenFeatures(*features, self._conditioned(maps[2].mean(dim=(2, 3))))

    def decode(self, image_features: Any, text_features: Any) -> Tensor:
        """N images with N texts -> logits ``(N, S, S)``."""
        text = self.encode_pairs(image_features, text_features)
        fused = self.module.neck.fuse(VisualTerms(*image_features[:3]), text.factor)
        seen = self.module.decoder(fused, text.words, text.ignored)
        scores = enlarge(self.module.proj(seen, text.kernels))
        logits: Tensor = self.module.finish(scores, seen)
        return logits
