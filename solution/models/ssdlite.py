"""SSDLite of torchvision, on MobileNetV3: a detector of the core install. What a detector is: see `yolo`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from solution.contracts import Origin, remember


class SsdNet(nn.Module):
    """torchvision's SSD without what it does before (resizing) and after (sorting out): one tensor in, one out."""

    def __init__(self, ssd: nn.Module) -> None:
        super().__init__()
        self.ssd = ssd

    def forward(self, images: Tensor) -> Tensor | dict[str, Tensor]:
        """Candidates (B, 4 + C, N); in training mode the heads' raw answers. Images (B, 3, H, W), from 0 to 1."""
        raw, anchors = self._answers(images)
        if self.training:
            return raw
        codes = raw["bbox_regression"]  # (B, N, 4)
        flat = anchors.expand(codes.shape[0], -1, -1).reshape(-1, 4)  # len() would fix the batch of an exported file
        corners = self.ssd.box_coder.decode_single(codes.reshape(-1, 4), flat).view(codes.shape)
        scores = raw["cls_logits"].softmax(2)[..., 1:]  # the first class is "nothing here"
        return torch.cat([corners, scores], 2).transpose(1, 2)

    def _answers(self, images: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """What the heads say, and the default boxes (N, 4) that they speak of."""
        from torchvision.models.detection.image_list import ImageList

        maps = list(self.ssd.backbone(2 * images - 1).values())
        one = ImageList(images[:1], [tuple(images.shape[2:])])
        return self.ssd.head(maps), self.ssd.anchor_generator(one, maps)[0]

    def loss(self, images: Tensor, targets: Tensor) -> Tensor:
        """Torchvision's own, a scalar: corners of matched boxes and classes, with the hardest negatives."""
        from torchvision.ops import box_iou

        raw, anchors = self._answers(images)
        wanted, matched = [], []
        for index in range(len(images)):
            own = targets[targets[:, 0] == index]
            boxes, labels = own[:, 2:6], own[:, 1].long() + 1
            none = torch.full((len(anchors),), -1, dtype=torch.int64, device=anchors.device)
            matched.append(self.ssd.proposal_matcher(box_iou(boxes, anchors)) if len(boxes) else none)
            wanted.append({"boxes": boxes, "labels": labels})
        parts = self.ssd.compute_loss(wanted, raw, [anchors] * len(images), matched)
        return parts["bbox_regression"] + parts["classification"]


@dataclass(frozen=True, kw_only=True)
class SsdLite:
    """SSDLite320 on MobileNetV3-Large with random weights, made for 320 px. Sandler et al., 2018 (arXiv:1801.04381).

    It has no settings. Torchvision's weights are for 91 classes, ten of which no picture has: train it instead.
    """

    task: ClassVar[str] = "detection"

    def build(self, num_classes: int) -> nn.Module:
        """The net for `num_classes`."""
        from torchvision.models.detection import ssdlite320_mobilenet_v3_large

        ssd = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=num_classes + 1)
        return remember(SsdNet(ssd), Origin(settings=self, num_classes=num_classes))
