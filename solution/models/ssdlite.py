"""SSDLite of torchvision, on MobileNetV3: a detector of the core install. What a detector is: see `yolo`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from solution.contracts import InputError, ModelSpec, remember
from solution.models.weights import OWN, fill, read_state


class SsdNet(nn.Module):
    """torchvision's SSD without what it does before (resizing) and after (sorting out): one tensor in, one out."""

    ssd: Any
    """Torchvision's SSD, whose parts are called one by one."""

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
        """The heads' outputs, and the default boxes (N, 4) that they refer to."""
        from torchvision.models.detection.image_list import ImageList

        maps = list(self.ssd.backbone(2 * images - 1).values())
        one = ImageList(images[:1], [tuple(images.shape[2:])])
        return self.ssd.head(maps), self.ssd.anchor_generator(one, maps)[0]

    def loss(self, images: Tensor, targets: Tensor, whole: Callable[[Tensor], Tensor] = lambda rows: rows) -> Tensor:
        """Torchvision's own, a scalar: corners of matched boxes and classes, with the hardest negatives.

        whole  of several processes: makes of the rows of a tensor those of all, which `targets` are of
        """
        from torchvision.ops import box_iou

        raw, anchors = self._answers(images)
        raw = {name: whole(rows) for name, rows in raw.items()}
        num_images = len(raw["cls_logits"])
        wanted, matched = [], []
        for index in range(num_images):
            own = targets[targets[:, 0] == index]
            boxes, labels = own[:, 2:6], own[:, 1].long() + 1
            none = torch.full((len(anchors),), -1, dtype=torch.int64, device=anchors.device)
            matched.append(self.ssd.proposal_matcher(box_iou(boxes, anchors)) if len(boxes) else none)
            wanted.append({"boxes": boxes, "labels": labels})
        parts = self.ssd.compute_loss(wanted, raw, [anchors] * num_images, matched)
        return parts["bbox_regression"] + parts["classification"]


@dataclass(frozen=True, kw_only=True)
class SsdLite:
    """SSDLite320 on MobileNetV3-Large, made for 320 px. Sandler et al., 2018 (arXiv:1801.04381).

    weights  "": random ones; "own": torchvision's for COCO, which it downloads; a .safetensors file of that net's
             `state_dict`, with its 91 classes: the 80 that have pictures stay, in COCO's order
    """

    task: ClassVar[str] = "detection"
    weights: str = ""

    def build(self, num_classes: int) -> nn.Module:
        """The net for `num_classes`. `InputError` when there are weights, and they know others."""
        from torchvision.models.detection import ssdlite320_mobilenet_v3_large

        classes = known() if self.weights else range(num_classes + 1)
        if len(classes) != num_classes + 1:
            raise InputError(
                f"weights={self.weights} knows COCO's {len(classes) - 1} classes, the data have {num_classes}: leave "
                "weights empty and train"
            )
        columns = max(classes) + 1
        ssd = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=columns)
        if self.weights:
            fill(ssd, _downloaded() if self.weights == OWN else read_state(Path(self.weights)), self.weights)
            _keep(ssd.head.classification_head, classes)
        # A rebuilt net gets its weights from the checkpoint.
        return remember(SsdNet(ssd), ModelSpec(settings=SsdLite(), num_classes=num_classes))


def known() -> list[int]:
    """Numbers of the classes of torchvision's weights that stand for something: "nothing here", then COCO's 80."""
    from torchvision.models.detection import SSDLite320_MobileNet_V3_Large_Weights

    names = SSDLite320_MobileNet_V3_Large_Weights.COCO_V1.meta["categories"]
    return [number for number, name in enumerate(names) if name != "N/A"]


def _downloaded() -> dict[str, Tensor]:
    """Torchvision's own weights; it keeps them in its cache."""
    from torchvision.models.detection import SSDLite320_MobileNet_V3_Large_Weights

    try:
        return dict(SSDLite320_MobileNet_V3_Large_Weights.COCO_V1.get_state_dict(progress=False, check_hash=True))
    except OSError as error:  # the network's, or the disk's
        raise InputError(
            f"torchvision's own weights of SSDLite could not be had ({error}): name a .safetensors file with --weights"
        ) from error


def _keep(head: Any, classes: Sequence[int]) -> None:
    """Leave the scores of `classes` alone in torchvision's `head`, in place; they lie class by class for each box."""
    for block in head.module_list:
        conv = block[1]
        boxes = torch.arange(conv.out_channels // head.num_columns)[:, None] * head.num_columns
        rows = (boxes + torch.tensor(classes)).flatten()
        kept = nn.Conv2d(conv.in_channels, len(rows), 1)
        kept.load_state_dict({name: value[rows] for name, value in conv.state_dict().items()})
        block[1] = kept
    head.num_columns = len(classes)
