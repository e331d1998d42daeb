"""Batches from cached pictures: normalized in one go, in an order that depends on seed and epoch alone.

Where a student learns from stored answers, it sees the same views again and again: they are made once, too.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from solution.contracts import InputError
from solution.data.augment import Viewer
from solution.data.cache import Cached, mapped
from solution.runtime import cache_folder, written_whole

Normalization = tuple[tuple[float, ...], tuple[float, ...]]
SAMPLING = ("shuffle", "balanced")
VERSION = 1
"""Of how views are made: with another one, stored views and answers are made again."""
MOST_STORED_BYTES = 4 << 30
"""Views that would take more are made anew each time."""


def as_batch(images: np.ndarray, normalization: Normalization) -> Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float32 in channels-last memory: (x / 255 - mean) / std."""
    mean, std = (torch.tensor(values, dtype=torch.float32) for values in normalization)
    batch = torch.from_numpy(images).to(torch.float32)
    return batch.mul_(1 / (255 * std)).sub_(mean / std).permute(0, 3, 1, 2)


class Plain(Dataset):
    """Cached pictures as they are; fetched a batch at a time."""

    def __init__(self, cached: Cached, normalization: Normalization) -> None:
        self.images = cached.images
        self.labels = torch.from_numpy(cached.labels)
        self.normalization = normalization

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, positions: Sequence[int]) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) normalized float32 and (B,) int64."""
        return as_batch(self.images[list(positions)], self.normalization), self.labels[list(positions)]


class Views(Dataset):
    """Random views of cached pictures; fetched a batch of (view, index) pairs at a time.

    beside: (num_views, N, K) values that go with each view of each picture, such as a teacher's logits; a batch then
    is images, labels and these.
    pixels: (num_views, N, size, size, 3) uint8, the views made before; None makes each when it is asked for.
    """

    def __init__(self, cached: Cached, viewer: Viewer, normalization: Normalization) -> None:
        self.view, self.normalization = viewer, normalization
        self.teacher_logits: np.ndarray | None = None
        self.pixels: np.memmap | None = None
        self.images = cached.images
        self.labels = torch.from_numpy(cached.labels)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, pairs: Sequence[tuple[int, int]]) -> tuple[Tensor, ...]:
        """(B, 3, size, size) normalized float32, (B,) int64, and (B, K) float32 of what lies beside, if anything."""
        shown, positions = zip(*pairs, strict=True)
        pixels = self._made(pairs) if self.pixels is None else self.pixels[list(shown), list(positions)]
        batch = as_batch(pixels, self.normalization), self.labels[list(positions)]
        if self.teacher_logits is None:
            return batch
        return *batch, torch.from_numpy(self.teacher_logits[list(shown), list(positions)].astype(np.float32))

    def _made(self, pairs: Sequence[tuple[int, int]]) -> np.ndarray:
        return np.stack([self.view(self.images[index], view, index) for view, index in pairs])

    def fingerprint(self, num_views: int) -> str:
        """32 hex digits of all that decides what `num_views` views of each picture show."""
        made_by = VERSION, version("albumentations"), cv2.__version__
        about = made_by, num_views, self.view.size, self.view.augment, self.view.seed
        content = hashlib.sha256(repr(about).encode())
        content.update(np.ascontiguousarray(self.images))
        return content.hexdigest()[:32]

    def stored(self, num_views: int, log: Callable[[str], None] = print) -> Views:
        """A copy with the same views from a file, which is made when it is not there.

        Without a file, so that views are made anew each time, when it would be too large or cannot be written.
        """
        shape, richer = (num_views, len(self), self.view.size, self.view.size, 3), copy.copy(self)
        if np.prod(shape) > MOST_STORED_BYTES:
            return richer
        path = cache_folder() / f"views-{self.fingerprint(num_views)}.npy"
        richer.pixels = mapped(path, shape)
        if richer.pixels is None:
            log(f"{num_views} views of {len(self):,} pictures are made, once: {np.prod(shape) / 1e9:.1f} GB in {path}")
            try:
                self._store(path, shape)
            except (OSError, InputError) as error:
                log(f"they cannot be kept ({error}), so each is made whenever it is shown")
            richer.pixels = mapped(path, shape)
        return richer

    def _store(self, path: Path, shape: tuple[int, ...]) -> None:
        """Write one view after another: a memory map would end the process where a disk is full."""
        with written_whole(path) as temporary, temporary.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
            for view in range(shape[0]):
                for index in range(shape[1]):
                    file.write(self.view(self.images[index], view, index).tobytes())

    def __getstate__(self) -> dict[str, Any]:
        """A worker that is not forked opens the files itself, instead of being sent all pictures."""
        pixels = None if self.pixels is None else Path(self.pixels.filename)
        return {**self.__dict__, "images": Path(self.images.filename), "pixels": pixels}

    def __setstate__(self, state: dict[str, Any]) -> None:
        pixels = None if state["pixels"] is None else mapped(state["pixels"])
        self.__dict__ = {**state, "images": _opened(state["images"]), "pixels": pixels}


class EpochSampler(Sampler[list[tuple[int, int]]]):
    """Batches of (view, index) pairs whose order depends on seed and epoch alone.

    num_views   how many views there are of each picture: epoch e shows view e modulo this; 0 shows a new one each time
    sampling    "shuffle": every picture once an epoch; "balanced": as many draws, with replacement, every class as
                often as any other
    The last batch is left out when it is not full, unless it is the only one.
    """

    def __init__(
        self, labels: np.ndarray, batch_size: int, seed: int, sampling: str = "shuffle", num_views: int = 0
    ) -> None:
        self.batch_size, self.num_views = batch_size, num_views
        self.drop_last = len(labels) >= batch_size
        self.epoch = 0
        self._labels = labels
        self._seed = seed
        self._sampling = sampling

    @property
    def sampler(self) -> EpochSampler:
        """Itself: where Accelerate looks for `set_epoch` when it shares the batches out among processes."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Which epoch the next iteration is."""
        self.epoch = epoch

    def __len__(self) -> int:
        return max(len(self._labels) // self.batch_size, 1)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = self._order(self.epoch)
        view = self.epoch % self.num_views if self.num_views else self.epoch
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            yield [(view, index) for index in order[start : start + self.batch_size]]

    def _order(self, epoch: int) -> list[int]:
        chance = np.random.default_rng([self._seed, epoch])
        count = len(self._labels)
        if self._sampling == "shuffle":
            return chance.permutation(count).tolist()
        weights = 1.0 / np.bincount(self._labels)[self._labels]
        return chance.choice(count, count, p=weights / weights.sum()).tolist()


class TrainLoader(DataLoader):
    """A `DataLoader` that is told the epoch like the one that Accelerate makes of it: ``loader.set_epoch(3)``."""

    def set_epoch(self, epoch: int) -> None:
        """Which epoch the next iteration is."""
        self.batch_sampler.set_epoch(epoch)


def train_loader(views: Views, sampler: EpochSampler, workers: int) -> TrainLoader:
    """Batches of random views, made by `workers` processes that stay alive, or in this process when that is 0."""
    alive = {"persistent_workers": True, "prefetch_factor": 4, "worker_init_fn": _alone} if workers else {}
    # A generator of its own, because a loader otherwise draws from the global one whenever an epoch begins.
    own = torch.Generator()
    return TrainLoader(views, batch_sampler=sampler, num_workers=workers, collate_fn=_as_is, generator=own, **alive)


def with_teacher_logits(
    loader: TrainLoader, teacher_logits: np.ndarray, log: Callable[[str], None] = print
) -> TrainLoader:
    """The same batches, stored, with a third part: (num_views, N, K) `beside`, looked up by view and picture."""
    richer = loader.dataset.stored(len(teacher_logits), log)
    richer.teacher_logits = teacher_logits
    return train_loader(richer, loader.batch_sampler, loader.num_workers)


def plain_loader(cached: Cached, batch_size: int, normalization: Normalization) -> DataLoader:
    """Batches of the pictures as they are, in straight order, in this process."""
    own = torch.Generator()
    return DataLoader(Plain(cached, normalization), batch_size=batch_size, collate_fn=_as_is, generator=own)


def _opened(path: Path) -> np.memmap:
    images = mapped(path)
    if images is None:
        raise InputError(f"the cache file {path} is gone or damaged: start again, it is made anew")
    return images


def _as_is(batch: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return batch


def _alone(worker: int) -> None:
    import cv2

    torch.set_num_threads(1)
    cv2.setNumThreads(0)
