"""Teachers: their answers, computed once for every view of every training picture and memory-mapped, or live.

With stored answers a student's epoch costs no teacher's forward. The file's name is a hash of the teacher, the
pictures, the augmentation and its seed, so answers of another set or another seed are never taken up.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from solution.contracts import InputError, StepContext
from solution.data.decode import mapped
from solution.data.views import Normalization, Viewer, Views
from solution.losses.distillation import NetOutput
from solution.models.features import FeatureExtractor, scales
from solution.runtime import cache_folder, written_whole
from solution.train.sizes import resized

BATCH = 64


def store_teacher_logits(
    teacher: nn.Module,
    views: Views,
    num_views: int,
    log: Callable[[str], None] = print,
    *,
    bf16: bool = False,
) -> np.ndarray:
    """Logits (num_views, N, C) float16, memory-mapped: what `teacher` says to each of `views` of each picture.

    bf16: computed in it, which large nets do twice as fast on a processor that has it.
    """
    path = cache_folder() / f"answers-{_key(teacher, views, num_views, bf16)}.npy"
    said = mapped(path)
    if said is not None:
        return said
    log(f"the teacher answers {num_views} views of {len(views):,} pictures, once")
    with written_whole(path) as temporary:
        np.save(temporary, _ask(teacher, views, num_views, bf16))
    return np.load(path, mmap_mode="r", allow_pickle=False)


def as_teacher_sees(views: Views, size: int, normalization: Normalization) -> Views:
    """The same crops, flips and colors at a teacher's own size in pixels, normalized as it wants them."""
    own = copy.copy(views)
    own.pixels = None  # stored views have the student's size
    own.view, own.normalization = Viewer(views.view.augment, size, views.view.seed), normalization
    return own


def _ask(teacher: nn.Module, views: Views, num_views: int, bf16: bool) -> np.ndarray:
    teacher.eval()
    said = []
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        for view in range(num_views):
            starts = range(0, len(views), BATCH)
            pairs = [[(view, index) for index in range(start, min(start + BATCH, len(views)))] for start in starts]
            said.append(torch.cat([teacher(views.__getitems__(some)[0]).float() for some in pairs]))
    return torch.stack(said).to(torch.float16).numpy()  # (num_views, N, C)


def _key(teacher: nn.Module, views: Views, num_views: int, bf16: bool) -> str:
    content = hashlib.sha256(b"bf16" if bf16 else b"")
    for name, tensor in teacher.state_dict().items():
        content.update(name.encode())
        content.update(tensor.cpu().contiguous().numpy().tobytes())
    content.update(repr((views.fingerprint(num_views), views.normalization)).encode())
    content.update(views.labels.numpy().tobytes())
    return content.hexdigest()[:32]


def net_file(name: str) -> Path:
    """The After of a run's folder called `name`; else `name` itself, a checkpoint or an earlier stage."""
    after = Path(name) / "after.safetensors"
    return after if after.is_file() else Path(name)


def find_net(name: str, context: StepContext) -> tuple[nn.Module, Any]:
    """The net and the header of a checkpoint, or of the After of a run's folder.

    `InputError` when it knows other classes than the data.
    """
    path = net_file(name)
    net, header = context.load(path)
    if header.classes != context.classes:
        raise InputError(
            f"{path} knows the classes {', '.join(header.classes)}; the data have {', '.join(context.classes)}"
        )
    return net, header


class LiveTeacher:
    """A teacher that sees a student's batches, resized and normalized as it wants them."""

    def __init__(self, name: str, context: StepContext) -> None:
        self.net, header = find_net(name, context)
        self.net.requires_grad_(False).to(context.device)
        self.size, theirs = header.size, (header.mean, header.std)
        ours = getattr(getattr(context.train, "dataset", None), "normalization", theirs)
        as_column = [[torch.tensor(values).view(1, -1, 1, 1) for values in pair] for pair in (ours, theirs)]
        (mean, std), (their_mean, their_std) = as_column
        self.factor, self.shift = std / their_std, (mean - their_mean) / their_std
        self.map = ""

    def map_channels(self, example: Tensor) -> int:
        """Channels of the last feature map, which is kept from now on."""
        shapes = scales(self.net, self._wanted(example.to(next(self.net.parameters()).device)))
        self.map = list(shapes)[-1]
        return shapes[self.map][1]

    def __call__(self, images: Tensor, with_map: bool) -> NetOutput:
        """Logits (B, num_classes) and, if wanted, the last feature map (B, F, H, W), of images (B, C, H, W)."""
        with FeatureExtractor(self.net, (self.map,) if with_map else ()) as features:
            logits = self.net(self._wanted(images)).float()
        return NetOutput(logits, features.maps[self.map].float() if with_map else None)

    def _wanted(self, images: Tensor) -> Tensor:
        return resized(images, self.size) * self.factor.to(images) + self.shift.to(images)
