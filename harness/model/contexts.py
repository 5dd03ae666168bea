"""Learned context vectors of prompt tuning: their names, shapes, and what they become.

Conventions: D is the prompt depth (how many layers get a context), M the number of
context tokens, N pictures or pairs. A learner's state dict has TuneVLSeg's keys below
``context_learner``; shapes alone decide which method a checkpoint has and how it projects.

| method | vectors | what the towers get |
|---|---|---|
| coop | width of the text | the vectors, in the text |
| cocoop | width of the text | the vectors and a projection of the picture, in the text |
| vpt | width of the picture | the vectors, in the picture |
| maple | width of the text | the vectors in the text, their projection in the picture |
| shared-separate | any | two projections |
| shared-attention | both widths | the two parts of an encoder layer's output |

Sources: K. Zhou et al., arXiv 2109.01134 (CoOp) and 2203.05557 (CoCoOp); M. Jia et al.,
2203.12119 (VPT); M. Khattak et al., 2210.03117 (MaPLe); R. Adhikari et al., 2410.05239.
"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from harness.errors import CheckpointError

Method = Literal["coop", "cocoop", "vpt", "maple", "shared-separate", "shared-attention"]
Shapes = Mapping[str, tuple[int, ...]]
VECTORS = "context_vectors"
_PROJECTION, _TEXTUAL = "projection_layers", "textual_projection_layers"
_VISUAL = "visual_projection_layers"
_SPREAD = 0.02  # standard deviation of untrained vectors
_PLACES = 8  # more layers than any projection has


class Widths(NamedTuple):
    """Widths of text tokens, of picture tokens, and of the picture's vector (CoCoOp)."""

    text: int
    vision: int
    picture: int


def planned(method: Method, *, depth: int, tokens: int, inside: int, widths: Widths) -> Shapes:
    """Shapes of a learner without a checkpoint, in the form that is usual for the method.

    `inside` is the width inside a projection; of the vectors for ``shared-separate``; of the
    feed-forward part for ``shared-attention``.
    """
    text, vision, picture = widths
    both = text + vision
    own = {"vpt": vision, "shared-separate": inside, "shared-attention": both}.get(method, text)
    entry = picture if method == "cocoop" else text
    bottleneck = {"0.weight": (inside, entry), "0.bias": (inside,)}
    known: dict[str, dict[str, dict[str, tuple[int, ...]]]] = {
        "cocoop": {
            _PROJECTION: {**bottleneck, "2.weight": (text, inside), "3.weight": (text,)},
        },
        "maple": {
            _PROJECTION: {
                **bottleneck,
                **{"2.weight": (vision, inside), "3.weight": (vision,), "3.bias": (vision,)},
            },
        },
        "shared-separate": {
            _TEXTUAL: {"weight": (text, inside), "bias": (text,)},
            _VISUAL: {"weight": (vision, inside), "bias": (vision,)},
        },
        "shared-attention": {
            _PROJECTION: {
                "self_attn.in_proj_weight": (3 * both, both),
                "linear1.weight": (inside, both),
            },
        },
    }
    layers = known.get(method, {})
    return {VECTORS: (depth, tokens, own)} | {
        f"{name}.{place}.{key}": shape
        for name, keys in layers.items()
        for place in range(depth)
        for key, shape in keys.items()
    }


def recognise(shapes: Shapes, widths: Widths, *, otherwise: Method) -> Method:
    """Tell the method of a learner; `otherwise` decides where text and picture are equally wide.

    Raises:
        CheckpointError: The shapes are no method's.
    """
    if _below(shapes, f"{_TEXTUAL}.0."):
        return "shared-separate"
    projection = _below(shapes, f"{_PROJECTION}.0.")
    if "self_attn.in_proj_weight" in projection:
        return "shared-attention"
    width = _output(projection) if projection else shapes[VECTORS][-1]
    alike = widths.text == widths.vision
    if alike and width == widths.text:
        return _of_equal_widths(projection, otherwise)
    if width == widths.vision:
        return "maple" if projection else "vpt"
    if width == widths.text:
        return "cocoop" if projection else "coop"
    raise CheckpointError(
        f"the checkpoint's context has the width {width}, the model's texts have {widths.text} and "
        f"its pictures {widths.vision}. One of them is needed. Give the card whose settings it was "
        "trained with."
    )


def _of_equal_widths(projection: Shapes, otherwise: Method) -> Method:
    if not projection:
        return otherwise if otherwise in ("coop", "vpt") else "coop"
    has_bias = any(key.endswith(".bias") and key != "0.bias" for key in projection)
    return "maple" if has_bias else "cocoop"


def _below(shapes: Shapes, prefix: str) -> dict[str, tuple[int, ...]]:
    return {k.removeprefix(prefix): v for k, v in shapes.items() if k.startswith(prefix)}


def _output(shapes: Shapes) -> int:
    """Width of what a projection returns: of its last weight, in the order of the keys."""
    return shapes[max(key for key in shapes if key.endswith("weight"))][0]


def _projection(shapes: Shapes) -> nn.Module:
    """Linear layers and norms as the shapes say; a place without tensors is a ReLU."""
    if "weight" in shapes:
        return _layer("", shapes)
    places = 1 + max(
        (int(key.partition(".")[0]) for key in shapes if key.partition(".")[0].isdecimal()),
        default=_PLACES,
    )
    if places > _PLACES:
        raise CheckpointError(
            f"the checkpoint's projection has the keys {', '.join(map(repr, sorted(shapes)[:3]))}. "
            f"Numbered layers, at most {_PLACES}, are needed. Give a checkpoint of TuneVLSeg."
        )
    return nn.Sequential(*(_layer(f"{place}.", shapes) for place in range(places)))


def _layer(start: str, shapes: Shapes) -> nn.Module:
    shape, has_bias = shapes.get(f"{start}weight"), f"{start}bias" in shapes
    if shape is None:
        return nn.ReLU()
    if len(shape) == 1:
        return nn.LayerNorm(shape[0], bias=has_bias)
    return nn.Linear(shape[1], shape[0], bias=has_bias)


class ContextLearner(nn.Module):
    """The vectors and their projections; `shapes` decide what there is."""

    def __init__(
        self, shapes: Shapes, method: Method, widths: Widths, *, norm_first: bool = True
    ) -> None:
        """Build a learner with random numbers.

        Args:
            shapes: Of its tensors, without a prefix.
            method: As `recognise` tells.
            widths: Of the model.
            norm_first: Of ``shared-attention``: where its encoder layers have their norms,
                which no key says.

        Raises:
            CheckpointError: The shapes do not belong together.
        """
        super().__init__()
        self.method, self._widths = method, widths
        if len(shapes[VECTORS]) != 3:
            raise CheckpointError(
                f"the checkpoint's context vectors have the shape {shapes[VECTORS]}. Depth, tokens "
                "and width are needed. Give a checkpoint of TuneVLSeg."
            )
        self.context_vectors = nn.Parameter(_SPREAD * torch.randn(shapes[VECTORS]))
        for name in (_PROJECTION, _TEXTUAL, _VISUAL):
            parts = [_below(shapes, f"{name}.{place}.") for place in range(self.depth)]
            if any(parts):
                build = _encoder(norm_first) if method == "shared-attention" else _projection
                self.add_module(name, nn.ModuleList(build(part) for part in parts))

    @property
    def depth(self) -> int:
        """How many layers get a context of their own."""
        return self.context_vectors.shape[0]

    @property
    def tokens(self) -> int:
        """Context tokens a layer."""
        return self.context_vectors.shape[1]

    @property
    def in_text(self) -> bool:
        """Whether the text gets a context."""
        return self.method != "vpt"

    @property
    def in_picture(self) -> bool:
        """Whether the picture gets a context."""
        return self.method not in ("coop", "cocoop")

    def textual(self) -> Tensor:
        """Contexts of the text, ``(1, D, M, text)``; of CoCoOp without the picture's share."""
        if self.method == "shared-separate":
            return self._projected(_TEXTUAL)[None]
        if self.method == "shared-attention":
            return self._projected(_PROJECTION)[None, ..., : self._widths.text]
        return self.context_vectors[None]

    def visual(self) -> Tensor:
        """Contexts of the picture, ``(1, D, M, vision)``."""
        if self.method == "vpt":
            return self.context_vectors[None]
        if self.method == "shared-attention":
            return self._projected(_PROJECTION)[None, ..., self._widths.text :]
        return self._projected(_VISUAL if self.method == "shared-separate" else _PROJECTION)[None]

    def conditioned(self, pictures: Tensor) -> Tensor:
        """CoCoOp's contexts for the pictures' vectors ``(N, picture)``, ``(N, D, M, text)``."""
        layers: Any = getattr(self, _PROJECTION)
        shares = torch.stack([layer(pictures) for layer in layers], dim=1)
        return self.context_vectors + shares[:, :, None]

    def _projected(self, name: str) -> Tensor:
        """Each depth's vectors through its own layer, ``(D, M, width)``.

        The encoder layer gets them as M sequences of one token, as in the original: its
        attention mixes nothing.
        """
        layers: Any = getattr(self, name)
        return torch.cat(
            [
                layer(vectors[:, None]).transpose(0, 1)
                for layer, vectors in zip(layers, self.context_vectors, strict=True)
            ]
        )


def _encoder(norm_first: bool) -> Any:
    def build(shapes: Shapes) -> nn.Module:
        width = shapes["self_attn.in_proj_weight"][-1]
        hidden = shapes.get("linear1.weight", (1,))[0]
        # One head: over a single token every number of heads gives the same.
        return nn.TransformerEncoderLayer(
            width, 1, hidden, dropout=0.0, batch_first=True, norm_first=norm_first
        )

    return build


def with_context(tokens: Tensor, context: Tensor) -> Tensor:
    """Put a context ``(N or 1, M, C)`` behind the first of the tokens ``(N, L, C)``."""
    own = context.expand(len(tokens), -1, -1)
    return torch.cat([tokens[:, :1], own, tokens[:, 1:]], dim=1)


def renewed(tokens: Tensor, context: Tensor) -> Tensor:
    """The same tokens with the context behind the first one overwritten."""
    return with_context(torch.cat([tokens[:, :1], tokens[:, 1 + context.shape[1] :]], 1), context)


def cut(ids: Tensor, mask: Tensor, *, length: int, end: int) -> tuple[Tensor, Tensor]:
    """Ids and mask ``(N, L)`` at exactly `length`: the last id is kept, padding is `end`."""
    n, found = ids.shape
    if found > length:
        return torch.cat([ids[:, : length - 1], ids[:, -1:]], dim=1), mask[:, :length]
    padding = ids.new_full((n, length - found), end)
    return torch.cat([ids, padding], 1), torch.cat([mask, torch.zeros_like(padding)], 1)


def with_stop(text: str) -> str:
    """A text that ends with a full stop; the empty one stays."""
    return text if not text or text.endswith(".") else f"{text}."
