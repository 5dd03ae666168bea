"""TuneVLSeg's prompt tuning of a frozen CLIPSeg: learned context in text and picture.

Conventions: as in `adapter`; D, M as in `harness.model.contexts`, which tells the method.

Quirks that change results, kept on purpose:

- The base is CLIPSeg as first published (rd64, *not* refined): its upsampling is one
  transposed convolution. A checkpoint's keys decide.
- In the text the context stands behind the start token, before positions are added, so that
  the words' positions move by M; words beyond the context length less M are cut. Behind text
  layer l (counted from 1) it is overwritten by the l-th context, if there is one.
- In the picture it stands behind the last patch and has no position; it is overwritten in
  the same way, goes through the decoder with the patches and is dropped before the mask.
- The extra last layer: CoOp and CoCoOp never use theirs, VPT adds its output in full, the
  others mix it in by `residual_ratio`.
- A full stop is appended to prompts without one (the empty prompt, which the original
  cannot read, stays empty). Padding has no effect.
- CoCoOp's context, and with it the text, depends on the picture: texts are encoded a pair
  at a time (`encode_pairs`), from what was computed once a picture and once a text. Its
  `text_embedding` is that under a grey picture.
- Pictures are resized as OpenCV does (bicubic, no antialiasing).

What finetuning trains is the context and the extra layer. The mixing ratio stays as it is.

Source: R. Adhikari et al., ACCV 2024, arXiv 2410.05239.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from harness.model.contexts import (
    ContextLearner,
    Method,
    Widths,
    cut,
    recognise,
    renewed,
    with_context,
)
from harness.model.prompt_tuning import ContextSettings, PromptTuned, of_the_learner, untuned
from harness.models import device_of, read_settings, without_prefix

from .adapter import MEAN, STD, ClipSeg, ImageFeatures, Settings, TextFeatures
from .towers import at, plainly, text_states, vision_states

_HEAD = "model.decoder.transposed_convolution"


class TuneSettings(ContextSettings, Settings):
    """CLIPSeg's settings, and the context of a model without a checkpoint.

    `norm_first` is a choice that no key of a checkpoint says.
    """

    method: Method | Literal["none"]
    norm_first: bool


class SeenFeatures(NamedTuple):
    """`ImageFeatures`, and the text's context under this picture, ``(N, D, M, C)``."""

    state: Tensor
    skips: Tensor
    context: Tensor


class WordFeatures(NamedTuple):
    """A text before its picture is known: ids ``(N, L)`` and the place of its end ``(N,)``."""

    ids: Tensor
    ends: Tensor


class Network(nn.Module):
    """CLIPSeg and what is tuned; the state dict has the original's keys."""

    def __init__(self, model: Any, learner: ContextLearner | None, *, extra: bool) -> None:
        """Wrap `model`, transformers' CLIPSeg."""
        super().__init__()
        self.model = model
        self.context_learner = learner
        if extra:
            config = model.config
            self.additive_decoder_layer = nn.Sequential(
                nn.Upsample(scale_factor=config.vision_config.patch_size, mode="bilinear"),
                nn.Conv2d(config.reduce_dim, 1, 5, padding=2, padding_mode="replicate"),
            )
            self.residual_ratio = nn.Parameter(torch.tensor(0.5))

    def finish(self, logits: Tensor, grid: Tensor) -> Tensor:
        """Logits ``(N, S, S)`` with the extra layer's on the decoder's map, where it acts."""
        learner = self.context_learner
        if learner is None or not learner.in_picture or not hasattr(self, "residual_ratio"):
            return logits
        extra: Tensor = self.additive_decoder_layer(grid).squeeze(1)
        if learner.method == "vpt":
            return logits + extra
        return (1 - self.residual_ratio) * logits + self.residual_ratio * extra


class TuneVlseg(PromptTuned):
    """TuneVLSeg on CLIPSeg; `module` is a `Network`."""

    mean_std = MEAN, STD

    def __init__(self, settings: Mapping[str, Any], *, weights: Path | None) -> None:
        """Build the model.

        Args:
            settings: The card's settings, all of `TuneSettings`.
            weights: CLIPSeg's own, where finetuning starts, or None.
        """
        self.settings = read_settings(TuneSettings, settings)
        own = TuneSettings.model_fields.keys() - Settings.model_fields.keys()
        self._base = {key: value for key, value in settings.items() if key not in own}
        self._clipseg = ClipSeg(self._base, weights=weights)
        self.input_size = self._clipseg.input_size
        self._widths = Widths(
            self.settings.text_hidden_size,
            self.settings.vision_hidden_size,
            self.settings.projection_dim,
        )
        learner = untuned(
            self.settings,
            self._widths,
            tokenize=self._clipseg.tokenize,
            embedding=self._clipseg.module.clip.text_model.embeddings.token_embedding,
            norm_first=self.settings.norm_first,
        )
        self._assemble(learner, extra=self.settings.extra_layer)

    def fit_to(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Take the context, extra layer and upsampling that a checkpoint has."""
        own = without_prefix(shapes, f"{_HEAD}.weight", f"{_HEAD}.0.weight")
        if not own:
            return
        is_complex = f"{_HEAD}.0.weight" in own
        if is_complex != self.settings.use_complex_transposed_convolution:
            changed = {**self._base, "use_complex_transposed_convolution": is_complex}
            self._clipseg = ClipSeg(changed, weights=None)
        inside, learner = of_the_learner(own), None
        if "context_vectors" in inside:
            told: Any = self.settings.method
            method = recognise(inside, self._widths, otherwise=told)
            learner = ContextLearner(
                inside, method, self._widths, norm_first=self.settings.norm_first
            )
        self._assemble(learner, extra="residual_ratio" in own)

    def _assemble(self, learner: ContextLearner | None, *, extra: bool) -> None:
        self._take(Network(self._clipseg.module, learner, extra=extra), learner)

    def encode_tokens(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        """Ids and mask ``(N, L)`` of any length -> the text vectors, or CoCoOp's words."""
        ids, _ = cut(
            input_ids.to(device_of(self.module)),
            attention_mask.to(device_of(self.module)),
            length=self._tokenizer.context_length,
            end=self._tokenizer.end,
        )
        words = WordFeatures(ids, ids.argmax(dim=1))
        if self.text_depends_on_image:
            return words
        return self._read(words, self._context())

    def _read(self, words: WordFeatures, context: Tensor | None) -> TextFeatures:
        """The text tower with a context ``(N or 1, D, M, C)``, at the length that matters."""
        clip = self.module.model.clip
        ids = words.ids[:, : int(words.ends.max()) + 1 if len(words.ids) else 1]
        tokens = clip.text_model.embeddings.token_embedding(ids)
        n_taken = 0 if context is None else context.shape[2]

        def run(number: int, layer: Any, hidden: Tensor, mask: Tensor | None) -> Tensor:
            output = plainly(number, layer, hidden, mask)
            if context is None or number + 1 >= context.shape[1]:
                return output
            return renewed(output, context[:, number + 1].expand(len(output), -1, -1))

        if context is not None:
            tokens = with_context(tokens, context[:, 0])
        last = text_states(clip.text_model, tokens, run=run)[-1]
        pooled = at(clip.text_model.final_layer_norm(last), words.ends + n_taken)
        return TextFeatures(clip.text_projection(pooled))

    def text_embedding(self, texts: Sequence[str]) -> Tensor:
        """The vector that modulates the decoder, ``(N, D)``; of CoCoOp under a grey picture."""
        features = self.encode_texts(texts)
        if self.text_depends_on_image:
            features = self._read(features, self._under_grey(len(texts)))
        embedding: Tensor = features.embedding
        return embedding

    def encode_images(self, pixels: Tensor) -> Any:
        """``(N, 3, S, S)`` -> everything up to the point where the text enters."""
        clip, layers = self.module.model.clip, self.settings.extract_layers
        # CoCoOp looks at the tower's end, the decoder only at some layers.
        depth = self.settings.vision_layers if self.text_depends_on_image else max(layers) + 1
        context = self.module.context_learner.visual()[0] if self._in_picture else None
        states = vision_states(
            clip.vision_model,
            pixels,
            depth=depth,
            enter=lambda tokens: tokens if context is None else _followed(tokens, context[0]),
            run=plainly if context is None else _renewing(context),
        )
        features = self._clipseg.enter([states[layer] for layer in layers])
        if not self.text_depends_on_image:
            return features
        picture = clip.visual_projection(clip.vision_model.post_layernorm(states[-1][:, 0]))
        return SeenFeatures(*features, self._conditioned(picture))

    def decode(self, image_features: Any, text_features: Any) -> Tensor:
        """N images with N texts -> logits ``(N, S, S)``."""
        text = self.encode_pairs(image_features, text_features)
        seen = ImageFeatures(image_features.state, image_features.skips)
        tokens = self._clipseg.modulate(seen, text)
        if self._in_picture:
            tokens = tokens[:, : -self.module.context_learner.tokens]
        base = self._clipseg
        logits: Tensor = self.module.finish(base.score(tokens), base.grid(tokens))
        return logits


def _followed(tokens: Tensor, context: Tensor) -> Tensor:
    """The tokens ``(N, T, C)`` with a context ``(M, C)`` behind the last."""
    return torch.cat([tokens, context.expand(len(tokens), -1, -1)], dim=1)


def _renewing(context: Tensor) -> Any:
    """Runs a layer and overwrites its last tokens with the next context of ``(D, M, C)``."""

    def run(number: int, layer: Any, hidden: Tensor, mask: Tensor | None) -> Tensor:
        output = plainly(number, layer, hidden, mask)
        if number + 1 >= len(context):
            return output
        return _followed(output[:, : -context.shape[1]], context[number + 1])

    return run
