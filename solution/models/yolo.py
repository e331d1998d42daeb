"""YOLO of ultralytics as a net like any other: one tensor in, one tensor out, and a loss (extra `detection`; AGPL-3.0).

    net = Yolo(name="yolov8n", weights="yolov8n.safetensors").build(num_classes=80).eval()
    candidates = net(images)  # (B, 4 + num_classes, N)

What a detector is here: in eval mode it maps images (B, 3, H, W), from 0 to 1, to candidates: the corners x1, y1, x2,
y2 in pixels, then a score from 0 to 1 for every class. ``net.loss(images, targets)`` is a scalar; the targets (M, 6) of
a batch are rows of image, class, x1, y1, x2, y2. Overlapping candidates are sorted out by `solution.evaluate.detect`.
"""

from __future__ import annotations

import dataclasses
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils._pytree import tree_leaves, tree_map

from solution.contracts import InputError, ModelSpec, remember
from solution.models.weights import OWN, fill, read_state
from solution.runtime import cache_folder

_GAINS = SimpleNamespace(box=7.5, cls=0.5, dfl=1.5)
"""What ultralytics weighs the parts of its loss with by default."""


class YoloNet(nn.Module):
    """A detector made of ultralytics' modules. Its head answers with raw maps in eval mode too, which `_corners` reads.

    Without the library's own decoding the net has one output and no layer that only counts from 0 to 15: such a layer
    could be pruned or quantized like any other, and must not be.
    """

    net: Any
    """Ultralytics' own module."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        head = self.net.model[-1]
        head.dfl = nn.Identity()
        self.net.args = _GAINS
        self.strides = tuple(int(stride) for stride in head.stride)
        self.bins = head.reg_max
        self.train()

    def train(self, mode: bool = True) -> YoloNet:
        """The mode of all modules but the head, which has nothing that differs in training except what it returns."""
        super().train(mode)
        self.net.model[-1].training = True
        return self

    def forward(self, images: Tensor) -> Tensor | dict[str, Tensor]:
        """Candidates (B, 4 + C, N); in training mode the head's raw maps."""
        raw = self.net(images)
        if self.training:
            return raw
        sizes = [tuple(features.shape[2:]) for features in raw["feats"]]
        return torch.cat([self._corners(raw["boxes"], sizes), raw["scores"].sigmoid()], 1)

    def _corners(self, logits: Tensor, sizes: Sequence[tuple[int, int]]) -> Tensor:
        """(B, 4 * bins, N) to corners (B, 4, N): each side's distance from its cell is the mean over its bins.

        Li et al., 2020, "Generalized Focal Loss" (arXiv:2006.04388).
        """
        centers, strides = cells(sizes, self.strides, logits)  # (2, N), (N,)
        shares = logits.unflatten(1, (4, self.bins)).softmax(2)  # (B, 4, bins, N)
        steps = torch.arange(self.bins, dtype=logits.dtype, device=logits.device)[:, None]
        first, second = (shares * steps).sum(2).chunk(2, 1)  # (B, 2, N) each
        return torch.cat([centers - first, centers + second], 1) * strides

    def loss(self, images: Tensor, targets: Tensor, whole: Callable[[Tensor], Tensor] = lambda rows: rows) -> Tensor:
        """Mean loss of an image, a scalar: ultralytics' own.

        whole  of several processes: makes of the rows of a tensor those of all, which `targets` are of
        """
        from ultralytics.utils.loss import v8DetectionLoss

        sides = targets.new_tensor(images.shape[2:]).flip(0)  # width, height
        first, second = targets[:, 2:4] / sides, targets[:, 4:6] / sides
        boxes = torch.cat([(first + second) / 2, second - first], 1)
        batch = {"batch_idx": targets[:, 0], "cls": targets[:, 1], "bboxes": boxes}
        outputs = tree_map(whole, self.net(images))
        parts, _ = v8DetectionLoss(self.net)(outputs, batch)
        return parts.sum() / len(tree_leaves(outputs)[0])


def cells(sizes: Sequence[tuple[int, int]], strides: Sequence[int], like: Tensor) -> tuple[Tensor, Tensor]:
    """Centers (2, N) of the cells of maps of these (height, width), x before y, in cells; each one's stride (N,)."""
    centers, each = [], []
    for (height, width), stride in zip(sizes, strides, strict=True):
        across = torch.arange(width, dtype=like.dtype, device=like.device) + 0.5
        down = torch.arange(height, dtype=like.dtype, device=like.device) + 0.5
        y, x = torch.meshgrid(down, across, indexing="ij")
        centers.append(torch.stack([x.flatten(), y.flatten()]))
        each.append(torch.full_like(centers[-1][0], stride))
    return torch.cat(centers, 1), torch.cat(each)


@dataclass(frozen=True, kw_only=True)
class Yolo:
    """Settings of a YOLO.

    name     one of ultralytics' detectors whose head answers once for each cell: yolov8n, yolov5n, yolo11n
    weights  a .safetensors file of the net's own `state_dict`; "own": the library's, which it downloads and unpickles;
             "": random ones
    fused    batch norms go into the convolutions before them; a file of weights must have been made so too
    """

    task: ClassVar[str] = "detection"
    name: str = "yolov8n"
    weights: str = ""
    fused: bool = True

    def build(self, num_classes: int) -> nn.Module:
        """The net for `num_classes`. `InputError` when the library is missing, or the weights are another net's."""
        net = ultralytics_net(self.name, num_classes)
        head = cast(Any, net).model[-1]
        if getattr(head, "one2one_cv2", None) is not None or getattr(head, "reg_max", 1) == 1:
            raise InputError(f"{self.name} has a head of another kind than yolov8's: take yolov8n, yolov5n or yolo11n")
        if self.weights == OWN:
            _fill(net, _downloaded(self.name), f"{self.name}.pt")
        if self.fused:
            _fuse(net)
        yolo = YoloNet(net)
        if self.weights not in ("", OWN):
            _fill(yolo.net, read_state(Path(self.weights)), self.weights)
        # A rebuilt net gets its weights from the checkpoint.
        settings = dataclasses.replace(self, weights="")
        return remember(yolo, ModelSpec(settings=settings, num_classes=num_classes))


def _fuse(net: nn.Module) -> None:
    """Every batch norm into the convolution before it, in place."""
    mode = net.training
    net.eval()
    for module in net.modules():
        conv, norm = getattr(module, "conv", None), getattr(module, "bn", None)
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            module.conv, module.bn = fuse_conv_bn_eval(conv, norm), nn.Identity()
    net.train(mode)


def _downloaded(name: str) -> dict[str, Tensor]:
    """The library's own weights; it keeps them with our other caches."""
    from ultralytics import YOLO

    path = cache_folder() / f"{name}.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return cast(Any, YOLO(path).model).state_dict()
    except Exception as error:  # the library's, its network's
        raise InputError(
            f"ultralytics' own weights of {name} could not be had ({error}): put {path.name} into {path.parent}, or "
            "name a .safetensors file with --weights"
        ) from error


def _fill(net: nn.Module, state: dict[str, Tensor], origin: str) -> None:
    """Load `state` as float32; the layer that counts bins may be there or not."""
    bins = {name: tensor for name, tensor in net.state_dict().items() if ".dfl." in name}
    fill(net, {name: tensor.float() for name, tensor in state.items() if ".dfl." not in name} | bins, origin)


KINDS = {"-seg": "SegmentationModel", "-pose": "PoseModel", "-obb": "OBBModel", "-cls": "ClassificationModel"}
"""Ending of a name -> class of ultralytics; names without one are detectors."""


def ultralytics_net(name: str, num_classes: int = 80) -> nn.Module:
    """A net of ultralytics with random weights: "yolov8n", "yolov5n", "yolo11n", "yolov8n-seg" and so on.

    It maps images (B, 3, H, W) in [0, 1] to what ultralytics makes of them; H and W are multiples of 32. Nothing is
    downloaded, and nothing is written but a temporary folder. Raises `InputError` when the library is not installed or
    does not know the name.
    """
    with _left_alone():
        try:
            from ultralytics.nn import tasks
        except ImportError as error:
            raise InputError(
                f'{name} needs ultralytics (AGPL-3.0), which does not import ({error}): pip install -e ".[detection]"'
            ) from error
        kind = next((kind for ending, kind in KINDS.items() if name.endswith(ending)), "DetectionModel")
        return getattr(tasks, kind)(_described(name), nc=num_classes, verbose=False)


def _described(name: str) -> dict[str, Any]:
    """The library's own description of one of its nets. `InputError` for any other name.

    Given a path or a URL, the library would evaluate the description there; given a name, it would look in
    the folder that the process is in first.
    """
    import ultralytics
    import yaml

    known = {path.stem: path for path in Path(ultralytics.__file__).parent.glob("cfg/models/*/*.yaml")}
    parts = re.fullmatch(r"(\D+\d+)([nslmx]?)(.*)", name)
    family, scale, ending = parts.groups() if parts else (name, "", "")
    path = known.get(name) or known.get(family + ending)
    if path is None:
        raise InputError(f"ultralytics knows no net {name!r}: take one of its names, such as yolov8n")
    return yaml.safe_load(path.read_text(encoding="utf-8")) | {"scale": scale, "yaml_file": f"{name}.yaml"}


@contextmanager
def _left_alone() -> Iterator[None]:
    """While open, ultralytics uses no network, keeps its settings in a temporary folder and prints nothing.

    What it sets in the environment is undone, and so is what its import puts in the place of other libraries' own
    functions: with its `Image.open` a file that is no image needs another package.
    """
    import cv2
    from PIL import Image

    before = dict(os.environ)
    replaced = ((Image, "open"), (torch, "load"), (torch, "save"), (cv2, "imread"), (cv2, "imwrite"), (cv2, "imshow"))
    own = [(library, name, getattr(library, name)) for library, name in replaced]
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update({"YOLO_OFFLINE": "1", "YOLO_CONFIG_DIR": folder, "YOLO_VERBOSE": "False"})
        try:
            yield
        finally:
            for added in os.environ.keys() - before.keys():
                del os.environ[added]
            os.environ.update(before)
            for library, name, function in own:
                setattr(library, name, function)
