"""The two towers and the decoder, with the reference's names for every weight.

Conventions: pixels are ``(N, 3, S, S)``; T is the number of tokens of an image,
class token first; D is `projection_dim`. The image tower is timm's, the text tower
transformers' BERT, the decoder CLIPSeg's.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .settings import Settings


class Visual(nn.Module):
    """BiomedCLIP's image tower. Its projection is loaded; no mask depends on it."""

    def __init__(self, settings: Settings) -> None:
        """Random numbers as timm draws them."""
        super().__init__()
        from timm.models.vision_transformer import VisionTransformer

        width = settings.vision_hidden_size
        self.layers = list(settings.extract_layers)
        self.trunk: Any = VisionTransformer(
            img_size=settings.input_size,
            patch_size=settings.patch_size,
            embed_dim=width,
            depth=settings.vision_layers,
            num_heads=settings.vision_heads,
            mlp_ratio=settings.vision_intermediate_size / width,
            num_classes=0,
        )
        self.head = nn.ModuleDict({"proj": nn.Linear(width, settings.projection_dim, bias=False)})

    def activations(self, pixels: Tensor, *, all_layers: bool = False) -> list[Tensor]:
        """Outputs ``(N, T, hidden)`` of the blocks that the decoder reads, without final norm.

        Args:
            pixels: ``(N, 3, S, S)``.
            all_layers: Also compute the blocks behind the last one that is read,
                as the unmodified forward does.
        """
        pairs = self.trunk.forward_intermediates(
            pixels,
            indices=self.layers,
            return_prefix_tokens=True,
            norm=False,
            stop_early=not all_layers,
            output_fmt="NLC",
            intermediates_only=True,
        )
        return [torch.cat([class_token, patches], dim=1) for patches, class_token in pairs]


class Text(nn.Module):
    """PubMedBERT and BiomedCLIP's projection of its first token."""

    def __init__(self, settings: Settings) -> None:
        """Random numbers as transformers draws them."""
        super().__init__()
        from transformers import BertConfig, BertModel

        width, joint = settings.text_hidden_size, settings.projection_dim
        self.transformer: Any = BertModel(
            BertConfig(
                vocab_size=settings.vocabulary_size,
                hidden_size=width,
                intermediate_size=settings.text_intermediate_size,
                num_hidden_layers=settings.text_layers,
                num_attention_heads=settings.text_heads,
                max_position_embeddings=settings.text_positions,
                hidden_dropout_prob=settings.text_dropout,
                attention_probs_dropout_prob=settings.text_dropout,
            ),
            add_pooling_layer=False,
        )
        between = (width + joint) // 2
        self.proj = nn.Sequential(
            nn.Linear(width, between, bias=False), nn.GELU(), nn.Linear(between, joint, bias=False)
        )

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Ids and mask ``(N, L)`` -> projected vectors ``(N, D)``, not normalised."""
        output = self.transformer(input_ids=input_ids, attention_mask=attention_mask)
        projected: Tensor = self.proj(output.last_hidden_state[:, 0])
        return projected


class Towers(nn.Module):
    """BiomedCLIP, with the keys of an open_clip file."""

    def __init__(self, settings: Settings) -> None:
        """Both towers; the temperature is loaded and never used."""
        super().__init__()
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.visual = Visual(settings)
        self.text = Text(settings)


class Network(nn.Module):
    """BiomedCLIP's towers and CLIPSeg's decoder."""

    def __init__(self, settings: Settings) -> None:
        """Random numbers, as the three libraries draw them or as `_initialise` does."""
        super().__init__()
        self.biomedclip = Towers(settings)
        self.decoder: Any = _decoder(settings)
        if settings.initialisation == "fan_in":
            _initialise(self, settings)

    def forward(self, pixels: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Every layer at full text length -> logits ``(N, S, S)``."""
        activations = self.biomedclip.visual.activations(pixels, all_layers=True)
        text = self.biomedclip.text(input_ids, attention_mask)
        logits: Tensor = self.decoder(activations, text).logits
        return logits


def _decoder(settings: Settings) -> Any:
    from transformers import CLIPSegConfig
    from transformers.models.clipseg.modeling_clipseg import CLIPSegDecoder

    return CLIPSegDecoder(
        CLIPSegConfig(
            vision_config={
                "hidden_size": settings.vision_hidden_size,
                "num_hidden_layers": settings.vision_layers,
                "num_attention_heads": settings.vision_heads,
                "image_size": settings.input_size,
                "patch_size": settings.patch_size,
            },
            projection_dim=settings.projection_dim,
            extract_layers=list(settings.extract_layers),
            reduce_dim=settings.reduce_dim,
            decoder_num_attention_heads=settings.decoder_heads,
            decoder_intermediate_size=settings.decoder_intermediate_size,
            conditional_layer=settings.conditional_layer,
            use_complex_transposed_convolution=settings.use_complex_transposed_convolution,
            # The vision model would choose it for its part of the configuration.
            attn_implementation="sdpa",
        )
    )


@torch.no_grad()
def _initialise(network: Network, settings: Settings) -> None:
    """Start every layer of a model from scratch with an output of about unit size.

    The output layer starts small and biased to background, the modulation as
    the identity, the positions as sines and cosines of row and column. BERT's own
    N(0, 0.02) in a narrow tower would leave the vector of ``[CLS]`` deaf to the words.
    """
    decoder, trunk = network.decoder, network.biomedclip.visual.trunk
    linear = [m for m in network.biomedclip.modules() if isinstance(m, nn.Linear)]
    for layer in [*linear, *decoder.reduces, decoder.film_mul, decoder.film_add]:
        nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    nn.init.ones_(decoder.film_mul.bias)
    _initialise_output(decoder.transposed_convolution.modules())
    patches = trunk.patch_embed.proj
    nn.init.normal_(patches.weight, std=patches.weight[0].numel() ** -0.5)
    nn.init.zeros_(patches.bias)
    side = settings.input_size // settings.patch_size
    trunk.pos_embed[0, 1:] = _positions(side, settings.vision_hidden_size)


def _initialise_output(modules: Any) -> None:
    convolutions: Sequence[Any] = [
        m for m in modules if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)
    ]
    for convolution in convolutions:
        area = 9 if isinstance(convolution, nn.Conv2d) else 1  # strides equal the kernel
        nn.init.normal_(convolution.weight, std=(2 / (convolution.in_channels * area)) ** 0.5)
        nn.init.zeros_(convolution.bias)
    nn.init.normal_(convolutions[-1].weight, std=0.03)
    nn.init.constant_(convolutions[-1].bias, -2.0)


def _positions(side: int, width: int) -> Tensor:
    """Sines and cosines of row and column, ``(side * side, width)``, values in [-1, 1]."""
    rates = 100.0 ** -(torch.arange(width // 4) / (width // 4))
    angles = torch.arange(side)[:, None] * rates  # (side, width / 4)
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)
    rows = waves[:, None].expand(-1, side, -1)
    columns = waves[None].expand(side, -1, -1)
    return torch.cat([rows, columns], dim=2).flatten(0, 1)
