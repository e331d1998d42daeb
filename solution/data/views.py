"""Random views of cached pictures and batches of them, in an order that depends on seed and epoch alone.

Where a student learns from stored logits, it meets the same views again and again: they are made once, too.
"""

from __future__ import annotations

import copy
import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias, cast

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from solution.contracts import InputError
from solution.data.decode import Cached, let_go, mapped
from solution.locks import made_by_one
from solution.runtime import cache_folder, written_whole

_HUE_SHARE = 0.1
_COLOR_CHANCE = 0.8
_ERASED_SIDE = (0.1, 0.35)


@dataclass(frozen=True, kw_only=True)
class Augment:
    """How training pictures are varied.

    crop_scale    share of the picture's area that a random crop keeps; (1, 1) keeps all of it
    crop_ratio    width : height of a crop
    flip          chance of a mirror image
    quarter_turn  chance of a turn by a random multiple of 90 degrees
    color         how far brightness, contrast and saturation move (hue a tenth of that); 0 leaves them
    erase         chance that a random rectangle is filled with noise
    """

    crop_scale: tuple[float, float] = (0.5, 1.0)
    crop_ratio: tuple[float, float] = (0.75, 1.333)
    flip: float = 0.5
    quarter_turn: float = 0.3
    color: float = 0.3
    erase: float = 0.0

    def __post_init__(self) -> None:
        for name in ("flip", "quarter_turn", "color", "erase"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"augment.{name} must lie between 0 and 1, got {getattr(self, name)}")
        low, high = self.crop_scale
        if not 0 < low <= high <= 1:
            raise InputError(f"augment.crop_scale must be (low, high) with 0 < low <= high <= 1, got {self.crop_scale}")
        narrow, wide = self.crop_ratio
        if not 0.1 <= narrow <= wide <= 10:
            raise InputError(
                f"augment.crop_ratio must be (low, high) with 0.1 <= low <= high <= 10, got {self.crop_ratio}"
            )

    def pipeline(self, size: int) -> Any:
        """An `albumentations.Compose` that turns (H, W, 3) uint8 into (size, size, 3) uint8."""
        import albumentations as A

        whole = self.crop_scale == (1, 1)
        crop = A.RandomResizedCrop((size, size), scale=self.crop_scale, ratio=self.crop_ratio)
        steps = [A.Resize(size, size) if whole else crop]
        steps += [A.HorizontalFlip(p=self.flip)] if self.flip else []
        steps += [A.RandomRotate90(p=self.quarter_turn)] if self.quarter_turn else []
        if self.color:
            by = self.color
            steps.append(A.ColorJitter(by, by, by, hue=by * _HUE_SHARE, p=_COLOR_CHANCE))
        if self.erase:
            hole = {"hole_height_range": _ERASED_SIDE, "hole_width_range": _ERASED_SIDE}
            steps.append(A.CoarseDropout(num_holes_range=(1, 1), fill="random", p=self.erase, **hole))
        return A.Compose(steps)


class Viewer:
    """Views of pictures that depend on nothing but the picture, the seed, the epoch and the index.

    Albumentations seeds every transform alike, which ties the chance of a turn to that of a flip, and costs as much as
    the views themselves. Here all transforms share two generators, which are set anew for each view.
    """

    def __init__(self, augment: Augment, size: int, seed: int) -> None:
        self.augment, self.size, self.seed = augment, size, seed
        self._pipeline = augment.pipeline(size)
        self._random = random.Random()
        self._numbers = np.random.PCG64()
        self._pipeline.set_random_state(np.random.Generator(self._numbers), self._random)

    def __call__(self, image: np.ndarray, epoch: int, index: int) -> np.ndarray:
        """(H, W, 3) uint8 -> (size, size, 3) uint8."""
        self._seed(epoch, index)
        return self._pipeline(image=image)["image"]

    def _seed(self, epoch: int, index: int) -> None:
        # The leading bit gives all keys one length: Python seeds index 2 of epochs 0 and 1 alike otherwise.
        self._random.seed((1 << 128) | (self.seed << 64) | (epoch << 32) | index)
        position: Any = {"state": self._random.getrandbits(128), "inc": 1}
        self._numbers.state = {"bit_generator": "PCG64", "state": position, "has_uint32": 0, "uinteger": 0}

    def with_mask(self, image: np.ndarray, mask: np.ndarray, epoch: int, index: int) -> tuple[np.ndarray, np.ndarray]:
        """The same of an image and its mask (H, W, C), which is cut and turned alike, and keeps its values."""
        self._seed(epoch, index)
        made = self._pipeline(image=image, mask=mask)
        return made["image"], made["mask"]


_GRAY = (0.299, 0.587, 0.114)
Normalization = tuple[tuple[float, ...], tuple[float, ...]]
SAMPLING = ("shuffle", "balanced")
VERSION = 1
"""Of how views are made: with another one, stored views and logits are made again."""
MOST_STORED_BYTES = 4 << 30
"""Views that would take more are made anew each time."""


def as_batch(images: np.ndarray, normalization: Normalization) -> Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float32 in channels-last memory: (x / 255 - mean) / std.

    With one mean and std, (B, 1, H, W): gray as television weighs red, green and blue.
    """
    mean, std = (torch.tensor(values, dtype=torch.float32) for values in normalization)
    if len(mean) == 1 and images.shape[3] == 3:
        images = (images @ np.array(_GRAY, dtype=np.float32))[..., None]
    batch = torch.from_numpy(np.require(images, requirements="W")).to(torch.float32)
    return batch.mul_(1 / (255 * std)).sub_(mean / std).permute(0, 3, 1, 2)


class Plain(Dataset[tuple[Tensor, Tensor]]):
    """Cached pictures as they are; fetched a batch at a time."""

    def __init__(self, cached: Cached, normalization: Normalization) -> None:
        self.images: Any = cached.images
        self.labels = torch.from_numpy(cached.labels)
        self.normalization = normalization

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, positions: Sequence[int]) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) normalized float32 and (B,) int64."""
        images = self.images[list(positions)]
        let_go(self.images)
        return as_batch(images, self.normalization), self.labels[list(positions)]


class Views(Dataset[tuple[Tensor, ...]]):
    """Random views of cached pictures; fetched a batch of (view, index) pairs at a time.

    teacher_logits  (num_views, N, K), which go with each view of each picture; a batch then is images, labels, logits
    pixels          (num_views, N, size, size, 3) uint8, the views made before; None makes each when it is needed
    """

    def __init__(self, cached: Cached, viewer: Viewer, normalization: Normalization) -> None:
        self.view, self.normalization = viewer, normalization
        self.teacher_logits: np.ndarray | None = None
        self.pixels: np.memmap | None = None
        self.images: Any = cached.images
        self.labels = torch.from_numpy(cached.labels)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, pairs: Sequence[tuple[int, int]]) -> tuple[Tensor, ...]:
        """(B, 3, size, size) normalized float32, (B,) int64, and (B, K) float32 teacher's logits, if any."""
        shown, positions = zip(*pairs, strict=True)
        if self.pixels is None:
            pixels = self._made(pairs)
        else:
            pixels = self.pixels[list(shown), list(positions)]
            let_go(self.pixels)
        batch = as_batch(pixels, self.normalization), self.labels[list(positions)]
        if self.teacher_logits is None:
            return batch
        return *batch, torch.from_numpy(self.teacher_logits[list(shown), list(positions)].astype(np.float32))

    def _made(self, pairs: Sequence[tuple[int, int]]) -> np.ndarray:
        views = np.stack([self.view(self.images[index], view, index) for view, index in pairs])
        let_go(self.images)
        return views

    def fingerprint(self, num_views: int) -> str:
        """32 hex digits of all that decides what `num_views` views of each picture show."""
        made_by = VERSION, version("albumentations"), cv2.__version__
        about = made_by, num_views, self.view.size, self.view.augment, self.view.seed
        content = hashlib.sha256(repr(about).encode())
        for start in range(0, len(self), 1024):
            content.update(np.ascontiguousarray(self.images[start : start + 1024]).data)
            let_go(self.images)
        return content.hexdigest()[:32]

    def stored(self, num_views: int, log: Callable[[str], None] = print) -> Views:
        """A copy with the same views from a file, which is made when it is not there.

        Without a file, so that views are made anew each time, when it would be too large or cannot be written.
        """
        shape, richer = (num_views, len(self), self.view.size, self.view.size, 3), copy.copy(self)
        if np.prod(shape) > MOST_STORED_BYTES:
            return richer
        path = cache_folder() / f"views-{self.fingerprint(num_views)}.npy"
        with made_by_one(path):
            richer.pixels = mapped(path, shape)
            if richer.pixels is None:
                self._try_to_store(path, shape, log)
                richer.pixels = mapped(path, shape)
        return richer

    def _try_to_store(self, path: Path, shape: tuple[int, ...], log: Callable[[str], None]) -> None:
        log(f"{shape[0]} views of {len(self):,} pictures are made, once: {np.prod(shape) / 1e9:.1f} GB in {path}")
        try:
            self._store(path, shape)
        except (OSError, InputError) as error:
            log(f"they cannot be kept ({error}), so each is made whenever it is shown")

    def _store(self, path: Path, shape: tuple[int, ...]) -> None:
        """Write one view after another: a memory map would end the process where a disk is full."""
        with written_whole(path) as temporary, temporary.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
            for view in range(shape[0]):
                for index in range(shape[1]):
                    file.write(self.view(self.images[index], view, index).tobytes())

    def __getstate__(self) -> dict[str, Any]:
        """A worker that is not forked opens the files itself, instead of being sent all pictures."""
        pixels = None if self.pixels is None else Path(str(self.pixels.filename))
        return {**self.__dict__, "images": Path(self.images.filename), "pixels": pixels}

    def __setstate__(self, state: dict[str, Any]) -> None:
        pixels = None if state["pixels"] is None else mapped(state["pixels"])
        self.__dict__ = {**state, "images": _opened(state["images"]), "pixels": pixels}


def rows_of(total: int, rank: int, count: int) -> slice:
    """Which of the `total` rows of a batch process `rank` of `count` has: as many as any other, or one more."""
    return slice(total * rank // count, total * (rank + 1) // count)


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
        self.part = (0, 1)
        self._labels = labels
        self._seed = seed
        self._sampling = sampling

    def part_of(self, rank: int, count: int) -> EpochSampler:
        """The rows of each batch that process `rank` of `count` has, in place of all."""
        part = copy.copy(self)
        part.part = (rank, count)
        return part

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
            batch = order[start : start + self.batch_size]
            yield [(view, index) for index in batch[rows_of(len(batch), *self.part)]]

    def _order(self, epoch: int) -> list[int]:
        rng = np.random.default_rng([self._seed, epoch])
        count = len(self._labels)
        if self._sampling == "shuffle":
            return rng.permutation(count).tolist()
        weights = 1.0 / np.bincount(self._labels)[self._labels]
        return rng.choice(count, count, p=weights / weights.sum()).tolist()


class TrainLoader(DataLoader[tuple[Tensor, Tensor]]):
    """A `DataLoader` with the method that Accelerate gives to its own: ``loader.set_epoch(3)``."""

    def set_epoch(self, epoch: int) -> None:
        """Which epoch the next iteration is."""
        sampler: Any = self.batch_sampler
        sampler.set_epoch(epoch)


PlainLoader: TypeAlias = "DataLoader[tuple[Tensor, Tensor]]"


def train_loader(views: Dataset, sampler: EpochSampler, workers: int) -> TrainLoader:
    """Batches of random views, made by `workers` processes that stay alive, or in this process when that is 0."""
    alive: dict[str, Any] = (
        {"persistent_workers": True, "prefetch_factor": 4, "worker_init_fn": _alone} if workers else {}
    )
    # A generator of its own, because a loader otherwise draws from the global one whenever an epoch begins.
    own = torch.Generator()
    return TrainLoader(views, batch_sampler=sampler, num_workers=workers, collate_fn=as_is, generator=own, **alive)


def with_teacher_logits(
    loader: TrainLoader, teacher_logits: np.ndarray, log: Callable[[str], None] = print
) -> TrainLoader:
    """The same batches, stored, with a third part: the teacher's (num_views, N, K) logits of each view and picture."""
    views, sampler = cast("Views", loader.dataset), cast("EpochSampler", loader.batch_sampler)
    richer = views.stored(len(teacher_logits), log)
    richer.teacher_logits = teacher_logits
    return train_loader(richer, sampler, loader.num_workers)


def plain_loader(cached: Cached, batch_size: int, normalization: Normalization) -> PlainLoader:
    """Batches of the pictures as they are, in straight order, in this process."""
    own = torch.Generator()
    return DataLoader(Plain(cached, normalization), batch_size=batch_size, collate_fn=as_is, generator=own)


def _opened(path: Path) -> np.memmap:
    images = mapped(path)
    if images is None:
        raise InputError(f"the cache file {path} is gone or damaged: start again, it is made anew")
    return images


def as_is(batch: Any) -> Any:
    """What a data set made is a batch already: nothing is left to collate."""
    return batch


def _alone(worker: int) -> None:

    torch.set_num_threads(1)
    cv2.setNumThreads(0)
