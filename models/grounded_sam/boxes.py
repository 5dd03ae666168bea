"""SAM as the second half of a detector: boxes become one mask.

Conventions: S is the longer side of SAM's picture, G the side of its mask decoder (256),
C and g those of its embedding. Boxes are ``(left, top, right, bottom)``, shares of the
picture's width and height. Logits are ``(G, G)`` and cover the whole picture, stretched:
SAM's padding is cut away.

Every box is a prompt of SAM, which answers with one mask (without `multimask_output`). The
masks' union is their greatest logit; without a box every logit is `NOTHING`. A card's
threshold of 0.5 is SAM's mask threshold of 0.

Source: A. Kirillov et al., Segment Anything, 2023, arXiv 2304.02643.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

# The logit of a pixel that no mask covers: a probability of 2e-9.
NOTHING = -20.0
# Boxes that SAM decodes at once: 32 masks of 1024 x 1024 take 134 MB.
BOXES_PER_CALL = 32


class BoxSegmenter:
    """Turns boxes into masks with `model`, transformers' ``SamModel``."""

    def __init__(self, model: Any) -> None:
        vision = model.config.vision_config
        self.model, self.side = model, int(vision.image_size)
        self.mask_side = 4 * (vision.image_size // vision.patch_size)

    def embed(self, pixels: Tensor) -> Tensor:
        """SAM's pictures ``(N, 3, S, S)`` -> ``(N, C, g, g)``."""
        embedding: Tensor = self.model.get_image_embeddings(pixels)
        return embedding

    def union(self, embedding: Tensor, size: Sequence[int], boxes: Tensor) -> Tensor:
        """Logits ``(G, G)`` of the union of the boxes' masks.

        Args:
            embedding: ``(C, g, g)``.
            size: Height and width of SAM's picture without padding.
            boxes: ``(n, 4)``.
        """
        height, width = size
        union = boxes.new_full((self.mask_side, self.mask_side), NOTHING)
        scaled = boxes * boxes.new_tensor([width, height, width, height])
        for some in torch.split(scaled, BOXES_PER_CALL):
            if len(some) == 0:
                continue
            low = self.model(
                image_embeddings=embedding[None], input_boxes=some[None], multimask_output=False
            ).pred_masks[0]  # (n, 1, G, G)
            # As SAM's processor does: up to the padded size, cut, and back to what is wanted.
            padded = interpolate(
                low.float(), (self.side, self.side), mode="bilinear", align_corners=False
            )
            masks = interpolate(
                padded[..., :height, :width], union.shape, mode="bilinear", align_corners=False
            )
            union = torch.maximum(union, masks.amax(dim=(0, 1)))
        return union

    def unions(self, embedding: Tensor, sizes: Tensor, boxes: Sequence[Tensor]) -> Tensor:
        """The same for N pictures, ``(N, G, G)``."""
        rows = zip(embedding, sizes.tolist(), boxes, strict=True)
        return torch.stack([self.union(one, size, found) for one, size, found in rows])


def corners(boxes: Tensor) -> Tensor:
    """(centre x, centre y, width, height) -> (left, top, right, bottom), on the last axis."""
    centre, extent = boxes[..., :2], boxes[..., 2:]
    return torch.cat([centre - extent / 2, centre + extent / 2], dim=-1)
