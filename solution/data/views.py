"""Batches from cached pictures: normalised in one go, in an order that depends on seed and epoch alone."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from solution.data.augment import Viewer
from solution.data.cache import Cached

Normalisation = tuple[tuple[float, ...], tuple[float, ...]]
SAMPLING = ("shuffle", "balanced")


def as_batch(images: np.ndarray, normalisation: Normalisation) -> Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float32 in channels-last memory: (x / 255 - mean) / std."""
    mean, std = (torch.tensor(values, dtype=torch.float32) for values in normalisation)
    batch = torch.from_numpy(images).to(torch.float32)
    return batch.mul_(1 / (255 * std)).sub_(mean / std).permute(0, 3, 1, 2)


class Plain(Dataset):
    """Cached pictures as they are; fetched a batch at a time."""

    def __init__(self, cached: Cached, normalisation: Normalisation) -> None:
        self.images = cached.images
        self.labels = torch.from_numpy(cached.labels)
        self.normalisation = normalisation

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, positions: Sequence[int]) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) normalised float32 and (B,) int64."""
        return as_batch(self.images[list(positions)], self.normalisation), self.labels[list(positions)]


class Views(Dataset):
    """Random views of cached pictures; fetched a batch of (view, index) pairs at a time.

    beside: (num_views, N, K) values that go with each view of each picture, such as a teacher's logits; a batch then
    is images, labels and these.
    """

    def __init__(self, cached: Cached, viewer: Viewer, normalisation: Normalisation) -> None:
        self.view, self.normalisation = viewer, normalisation
        self.beside: np.ndarray | None = None
        self.images = cached.images
        self.labels = torch.from_numpy(cached.labels)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, pairs: Sequence[tuple[int, int]]) -> tuple[Tensor, ...]:
        """(B, 3, size, size) normalised float32, (B,) int64, and (B, K) float32 of what lies beside, if anything."""
        pixels = np.stack([self.view(self.images[index], view, index) for view, index in pairs])
        shown, positions = zip(*pairs, strict=True)
        batch = as_batch(pixels, self.normalisation), self.labels[list(positions)]
        if self.beside is None:
            return batch
        return *batch, torch.from_numpy(self.beside[list(shown), list(positions)].astype(np.float32))

    def __getstate__(self) -> dict[str, Any]:
        """A worker that is not forked opens the cache file itself, instead of being sent all pictures."""
        return {**self.__dict__, "images": Path(self.images.filename)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ = {**state, "images": np.load(state["images"], mmap_mode="r", allow_pickle=False)}


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


def with_beside(loader: TrainLoader, beside: np.ndarray) -> TrainLoader:
    """The same batches with a third part: (num_views, N, K) `beside`, looked up by view and picture."""
    richer = copy.copy(loader.dataset)
    richer.beside = beside
    return train_loader(richer, loader.batch_sampler, loader.num_workers)


def plain_loader(cached: Cached, batch_size: int, normalisation: Normalisation) -> DataLoader:
    """Batches of the pictures as they are, in straight order, in this process."""
    own = torch.Generator()
    return DataLoader(Plain(cached, normalisation), batch_size=batch_size, collate_fn=_as_is, generator=own)


def _as_is(batch: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return batch


def _alone(worker: int) -> None:
    import cv2

    torch.set_num_threads(1)
    cv2.setNumThreads(0)
