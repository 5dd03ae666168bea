"""CLIPSeg through transformers' own classes, in stages.

Conventions: pixels are ``(N, 3, S, S)`` with S the card's `input_size`,
standardised with ImageNet's mean and deviation (the reference's choice, not
CLIP's); T is the number of tokens of an image, class token first; R is
`reduce_dim`, D is `projection_dim`. Logits are ``(N, S, S)`` (``(N, S/2, S/2)``
for patches of 8 with the complex transposed convolution).

Quirks that change results, kept on purpose:

- The published positions are those of a 224-pixel image; another size uses
  them interpolated (bicubic, ``align_corners=False``): 22 x 22 for 352.
- Texts are padded with end-of-text (49407), as the published tokenizer does,
  to 77 ids; longer ones lose their end, and the last id is end-of-text. The text
  vector is taken at the first end-of-text under a causal mask, so that nothing
  behind it counts: texts are encoded at the length of the longest in the batch.
- The text vector is projected and not normalised. The empty prompt is
  ``[start, end, end ...]``: a constant vector, not zero.
- Of L vision layers only ``max(extract_layers) + 1`` reach the decoder; the
  others are loaded and not computed. The activations carry no final norm.
- transformers pools with ``argmax(ids)`` when ``eos_token_id == 2`` (older
  configurations); with CLIP's vocabulary both rules give the same place.
- ``CLIPSegForImageSegmentation.forward`` runs both encoders under ``no_grad``.
  The stages here do not: gradients flow unless the card's `trainable` is
  ``decoder``.
- The decoder's activation is ReLU whatever the configuration says.
- Built from scratch, transformers draws the decoder's linear layers and the
  transposed convolution from N(0, 1), which drowns the text: ``initialisation:
  fan_in`` repairs it.
- The tokenizer is CLIP's, built without a hub; a smaller `vocabulary_size` folds its
  ids (`harness.model.tokenizers`).

Sources: T. Lüddecke, A. Ecker, CVPR 2022, arXiv 2112.10003; transformers'
``models/clipseg``.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from harness.cards import Strict
from harness.model.tokenizers import CLIP_VOCABULARY, ClipTokenizer
from harness.models import Picture, TokenCounts, device_of, read_settings, standardise
from harness.weights.loading import load_into

from .towers import vision_states

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Settings(Strict):
    """The architecture. `position_size` is the image size the positions were learnt at."""

    input_size: int = Field(ge=16)
    position_size: int = Field(ge=16)
    patch_size: int = Field(ge=4, multiple_of=4)
    vision_hidden_size: int = Field(ge=8)
    vision_intermediate_size: int = Field(ge=8)
    vision_layers: int = Field(ge=1)
    vision_heads: int = Field(ge=1)
    text_hidden_size: int = Field(ge=8)
    text_intermediate_size: int = Field(ge=8)
    text_layers: int = Field(ge=1)
    text_heads: int = Field(ge=1)
    context_length: int = Field(ge=2)
    projection_dim: int = Field(ge=1)
    vocabulary_size: int = Field(default=CLIP_VOCABULARY, ge=64, le=CLIP_VOCABULARY)
    reduce_dim: int = Field(ge=2)
    extract_layers: tuple[int, ...] = Field(min_length=1)
    conditional_layer: int = Field(ge=0)
    decoder_heads: int = Field(ge=1)
    decoder_intermediate_size: int = Field(ge=1)
    use_complex_transposed_convolution: bool
    initialisation: Literal["published", "fan_in"]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name in ("input_size", "position_size"):
            if getattr(self, name) % self.patch_size:
                raise ValueError(f"'{name}' must be a multiple of 'patch_size' {self.patch_size}")
        if not 0 <= min(self.extract_layers) <= max(self.extract_layers) < self.vision_layers:
            raise ValueError(f"'extract_layers' must lie in 0 to {self.vision_layers - 1}")
        if self.conditional_layer >= len(self.extract_layers):
            raise ValueError("'conditional_layer' must be a place in 'extract_layers'")
        for width, heads in (
            ("vision_hidden_size", self.vision_heads),
            ("text_hidden_size", self.text_heads),
            ("reduce_dim", self.decoder_heads),
        ):
            if getattr(self, width) % heads:
                raise ValueError(f"'{width}' must be a multiple of its heads, {heads}")
        if self.initialisation == "fan_in" and self.vision_hidden_size % 4:
            raise ValueError("'vision_hidden_size' must be a multiple of 4 for 'fan_in'")
        return self


class ImageFeatures(NamedTuple):
    """All that the decoder needs of an image.

    `state` ``(N, T, R)`` is the decoder's signal just before the text enters;
    `skips` ``(N, K, T, R)`` are the reduced activations that are added after it.
    """

    state: Tensor
    skips: Tensor


class TextFeatures(NamedTuple):
    """`embedding` ``(N, D)`` is the projected text vector that modulates the decoder."""

    embedding: Tensor


class ClipSeg:
    """CLIPSeg; `module` is transformers' ``CLIPSegForImageSegmentation``."""

    def __init__(self, settings: Mapping[str, Any], *, weights: Path | None) -> None:
        """Build the model.

        Args:
            settings: The card's settings, all of `Settings`.
            weights: A folder in hub format or a file of weights, or None.
        """
        from transformers import CLIPSegForImageSegmentation

        self.settings = read_settings(Settings, settings)
        self.input_size = (self.settings.input_size, self.settings.input_size)
        self._tokenizer = ClipTokenizer(
            context_length=self.settings.context_length,
            vocabulary_size=self.settings.vocabulary_size,
        )
        self.module: Any = CLIPSegForImageSegmentation(_configuration(self.settings))
        if self.settings.initialisation == "fan_in":
            _initialise(self.module, self.settings)
        if weights is not None:
            load_into(self.module, weights)

    def preprocess(self, image: Picture) -> Tensor:
        """``(H, W, 3)`` uint8 -> ``(3, S, S)``, standardised."""
        return standardise(image, self.input_size, mean=MEAN, std=STD)

    def count_tokens(self, texts: Sequence[str]) -> TokenCounts:
        """Tokens with start and end; more than `context_length` are cut."""
        return self._tokenizer.count(texts)

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """N texts -> ids padded with end-of-text, and mask; ``(N, context_length)`` int64."""
        return self._tokenizer(texts)

    def encode_tokens(self, input_ids: Tensor, attention_mask: Tensor) -> TextFeatures:
        """Ids and mask ``(N, L)`` -> the text vectors, at the length that matters.

        Behind the last text's first end-of-text nothing is computed: the mask is
        causal, so it cannot reach the vector.
        """
        device = device_of(self.module)
        ends = (input_ids == self._tokenizer.end).int().argmax(dim=1)
        needed = int(ends.max()) + 1 if len(ends) else 1
        output = self.module.clip.get_text_features(
            input_ids=input_ids[:, :needed].to(device),
            attention_mask=attention_mask[:, :needed].to(device),
        )
        return TextFeatures(output.pooler_output)

    def encode_texts(self, texts: Sequence[str]) -> TextFeatures:
        """N texts -> their projected vectors, not normalised."""
        return self.encode_tokens(*self.tokenize(texts))

    def text_embedding(self, texts: Sequence[str]) -> Tensor:
        """The vector that modulates the decoder, ``(N, D)``."""
        return self.encode_texts(texts).embedding

    def encode_images(self, pixels: Tensor) -> ImageFeatures:
        """``(N, 3, S, S)`` -> everything up to the point where the text enters."""
        return self.enter(self._activations(pixels))

    def enter(self, activations: Sequence[Tensor]) -> ImageFeatures:
        """Outputs ``(N, T, hidden)`` of `extract_layers` -> the decoder's part without text."""
        decoder, entry = self.module.decoder, self.settings.conditional_layer
        # The deepest activation enters the decoder first.
        reduced = [
            reduce(activation)  # (N, T, R)
            for reduce, activation in zip(decoder.reduces, activations[::-1], strict=True)
        ]
        state = reduced[0]
        for layer, following in zip(decoder.layers[:entry], reduced[1 : entry + 1], strict=True):
            state = following + layer(state, attention_mask=None)
        skips = reduced[entry + 1 :]
        return ImageFeatures(
            state, torch.stack(skips, dim=1) if skips else state.new_zeros(len(state), 0, 1, 1)
        )

    def _activations(self, pixels: Tensor) -> list[Tensor]:
        """Outputs ``(N, T, hidden)`` of the vision layers in `extract_layers`, in their order."""
        depth = max(self.settings.extract_layers) + 1
        outputs = vision_states(self.module.clip.vision_model, pixels, depth=depth)
        return [outputs[index] for index in self.settings.extract_layers]

    def decode(self, image_features: ImageFeatures, text_features: TextFeatures) -> Tensor:
        """N images with N texts -> logits ``(N, S, S)``."""
        return self.score(self.modulate(image_features, text_features))

    def modulate(self, image_features: ImageFeatures, text_features: TextFeatures) -> Tensor:
        """The decoder's tokens after the text, ``(N, T, R)``."""
        decoder = self.module.decoder
        text = text_features.embedding[:, None]  # (N, 1, D)
        state: Tensor = decoder.film_mul(text) * image_features.state + decoder.film_add(text)
        first, *others = decoder.layers[self.settings.conditional_layer :]
        state = first(state, attention_mask=None)
        for layer, skip in zip(others, image_features.skips.unbind(1), strict=True):
            state = layer(skip + state, attention_mask=None)
        return state

    def grid(self, tokens: Any) -> Tensor:
        """The decoder's tokens without the class token, ``(N, R, side, side)``."""
        side = self.settings.input_size // self.settings.patch_size
        maps: Tensor = tokens[:, 1:].transpose(1, 2).unflatten(2, (side, side))
        return maps

    def score(self, tokens: Tensor) -> Tensor:
        """The decoder's tokens -> logits ``(N, S, S)``."""
        logits: Tensor = self.module.decoder.transposed_convolution(self.grid(tokens)).squeeze(1)
        return logits

    def predict(self, pixels: Tensor, texts: Sequence[str]) -> Tensor:
        """The unmodified forward at full text length: what the stages are held to."""
        ids, mask = (tensor.to(pixels.device) for tensor in self.tokenize(texts))
        logits: Tensor = self.module(
            input_ids=ids, attention_mask=mask, pixel_values=pixels, interpolate_pos_encoding=True
        ).logits
        return logits

    def decoder_modules(self) -> Sequence[nn.Module]:
        """What the reference's finetuning trained."""
        return [self.module.decoder]


def _configuration(settings: Settings) -> Any:
    from transformers import CLIPSegConfig

    return CLIPSegConfig(
        text_config={
            "hidden_size": settings.text_hidden_size,
            "intermediate_size": settings.text_intermediate_size,
            "num_hidden_layers": settings.text_layers,
            "num_attention_heads": settings.text_heads,
            "max_position_embeddings": settings.context_length,
            "vocab_size": settings.vocabulary_size,
            "bos_token_id": settings.vocabulary_size - 2,
            "eos_token_id": settings.vocabulary_size - 1,
            "pad_token_id": settings.vocabulary_size - 1,
        },
        vision_config={
            "hidden_size": settings.vision_hidden_size,
            "intermediate_size": settings.vision_intermediate_size,
            "num_hidden_layers": settings.vision_layers,
            "num_attention_heads": settings.vision_heads,
            "image_size": settings.position_size,
            "patch_size": settings.patch_size,
        },
        projection_dim=settings.projection_dim,
        extract_layers=list(settings.extract_layers),
        reduce_dim=settings.reduce_dim,
        decoder_num_attention_heads=settings.decoder_heads,
        decoder_intermediate_size=settings.decoder_intermediate_size,
        conditional_layer=settings.conditional_layer,
        use_complex_transposed_convolution=settings.use_complex_transposed_convolution,
    )


@torch.no_grad()
def _initialise(module: Any, settings: Settings) -> None:
    """Start every layer of a model from scratch with an output of about unit size.

    The output layer starts small and biased to background, the modulation as
    the identity, the positions as sines and cosines of row and column.
    """
    decoder, vision = module.decoder, module.clip.vision_model
    for layer in [*decoder.reduces, decoder.film_mul, decoder.film_add]:
        nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
        nn.init.zeros_(layer.bias)
    nn.init.ones_(decoder.film_mul.bias)
    convolutions: list[Any] = [
        m
        for m in decoder.transposed_convolution.modules()
        if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)
    ]
    for convolution in convolutions:
        area = 9 if isinstance(convolution, nn.Conv2d) else 1  # strides equal the kernel
        nn.init.normal_(convolution.weight, std=(2 / (convolution.in_channels * area)) ** 0.5)
        nn.init.zeros_(convolution.bias)
    nn.init.normal_(convolutions[-1].weight, std=0.03)
    nn.init.constant_(convolutions[-1].bias, -2.0)
    patches = vision.embeddings.patch_embedding
    nn.init.normal_(patches.weight, std=patches.weight[0].numel() ** -0.5)
    side = settings.position_size // settings.patch_size
    vision.embeddings.position_embedding.weight[1:] = _positions(side, settings.vision_hidden_size)


def _positions(side: int, width: int) -> Tensor:
    """Sines and cosines of row and column, ``(side * side, width)``, values in [-1, 1]."""
    rates = 100.0 ** -(torch.arange(width // 4) / (width // 4))
    angles = torch.arange(side)[:, None] * rates  # (side, width / 4)
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)
    rows = waves[:, None].expand(-1, side, -1)
    columns = waves[None].expand(side, -1, -1)
    return torch.cat([rows, columns], dim=2).flatten(0, 1)
