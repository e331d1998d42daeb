"""Teachers' answers, computed once for every view of every training picture and memory-mapped.

A student's epoch then costs no teacher's forward. The file's name is a hash of the teacher, the pictures, the
augmentation and its seed, so answers of another set or another seed are never taken up.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from solution.data.augment import Viewer
from solution.data.views import Normalisation, Views
from solution.runtime import cache_folder, written_whole

BATCH = 64


def answers(teacher: nn.Module, views: Views, num_views: int, say: Callable[[str], None] = print) -> np.ndarray:
    """Logits (num_views, N, C) float16, memory-mapped: what `teacher` says to each of `views` of each picture."""
    path = cache_folder() / f"answers-{_key(teacher, views, num_views)}.npy"
    if not path.exists():
        say(f"the teacher answers {num_views} views of {len(views):,} pictures, once")
        with written_whole(path) as temporary:
            np.save(temporary, _ask(teacher, views, num_views))
    return np.load(path, mmap_mode="r", allow_pickle=False)


def as_teacher_sees(views: Views, size: int, normalisation: Normalisation) -> Views:
    """The same crops, flips and colours at a teacher's own size in pixels, normalised as it wants them."""
    own = copy.copy(views)
    own.view, own.normalisation = Viewer(views.view.augment, size, views.view.seed), normalisation
    return own


def _ask(teacher: nn.Module, views: Views, num_views: int) -> np.ndarray:
    teacher.eval()
    said = []
    with torch.inference_mode():
        for view in range(num_views):
            starts = range(0, len(views), BATCH)
            pairs = [[(view, index) for index in range(start, min(start + BATCH, len(views)))] for start in starts]
            said.append(torch.cat([teacher(views.__getitems__(some)[0]) for some in pairs]))
    return torch.stack(said).to(torch.float16).numpy()  # (num_views, N, C)


def _key(teacher: nn.Module, views: Views, num_views: int) -> str:
    content = hashlib.sha256()
    for name, tensor in teacher.state_dict().items():
        content.update(name.encode())
        content.update(tensor.cpu().contiguous().numpy().tobytes())
    about = (num_views, views.view.size, views.view.augment, views.view.seed, views.normalisation)
    content.update(repr(about).encode())
    content.update(views.labels.numpy().tobytes())
    content.update(np.ascontiguousarray(views.images))
    return content.hexdigest()[:32]


def checkpoint_path(name: str) -> Path:
    """The path of a teacher: a checkpoint, or a folder of a run, whose After it is."""
    path = Path(name)
    return path / "after.safetensors" if path.is_dir() else path
