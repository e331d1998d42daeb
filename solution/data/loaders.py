"""A named data set -> train, dev, val and calibration loaders: `Data(path="../photos.tar").open(seed=0)`.

Train learns, dev decides, val judges: no step, search or early stopping may look at val.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence, Sized
from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from solution.contracts import InputError, StepContext
from solution.data.decode import checksum, decode_once
from solution.data.pairs import PairSource, PairViews, decoded, plain_pairs
from solution.data.readers import Item, Source, open_source
from solution.data.source import DatasetInfo, digest
from solution.data.splits import fold, stratified
from solution.data.views import (
    SAMPLING,
    Augment,
    EpochSampler,
    Normalization,
    Plain,
    PlainLoader,
    TrainLoader,
    Viewer,
    Views,
    plain_loader,
    train_loader,
)
from solution.input_spec import IMAGENET_MEAN, IMAGENET_STD, InputSpec
from solution.runtime import input_folder, limit

if TYPE_CHECKING:
    from torch import Tensor, nn

MEAN, STD = IMAGENET_MEAN, IMAGENET_STD

ALL = ("train", "dev", "val", "calibration")
_JUDGE_BATCH = 256
MAX_SIDE = 4096


@dataclass(frozen=True, kw_only=True)
class Loaders:
    """The batches of a data set: (images (B, 3, H, W) normalized float32, labels (B,) int64); None when not opened.

    train        learns: random views; ``train.set_epoch(e)`` before each epoch, also after Accelerate has prepared it
    dev          decides: a stratified part of train, not augmented
    val          judges, and does nothing else
    calibration  some training pictures, not augmented
    seen         all training pictures, not augmented; of sets with boxes alone
    """

    info: DatasetInfo
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: float = 0.0
    interpolation: str = "area"
    train: TrainLoader | None = None
    dev: PlainLoader | None = None
    val: PlainLoader | None = None
    calibration: PlainLoader | None = None
    seen: PlainLoader | None = None

    def num_images(self, split: str) -> int:
        """How many readable pictures the loader called `split` has."""
        return len(cast("Sized", self.opened(split).dataset))

    def opened(self, split: str) -> PlainLoader:
        """The loader called `split`, or an `InputError` with the way to open it."""
        loader = getattr(self, split)
        if loader is None:
            raise InputError(f"there are no {split} images: open the data with splits=({split!r}, ...)")
        return loader

    def example(self) -> Tensor:
        """Two calibration images, (2, 3, S, S)."""
        return next(iter(self.opened("calibration")))[0][:2].contiguous()

    def fingerprint(self) -> dict[str, str]:
        """{"labels", "pixels"}: keys of what train, dev and val hold, in order."""
        loaders = [loader for loader in (self.train, self.dev, self.val) if loader is not None]
        shown = [cast("Plain | Views", loader.dataset) for loader in loaders]
        return {
            "labels": digest([self.info.classes, *(own.labels.tolist() for own in shown)]),
            "pixels": digest(checksum(Path(own.images.filename)) for own in shown),
        }

    def context(
        self,
        *,
        device: str = "cpu",
        seed: int = 0,
        folder: Path | None = None,
        resume: bool = False,
        load: Callable[[Path], tuple[nn.Module, Any]] | None = None,
        log: Callable[[str], None] = print,
    ) -> StepContext:
        """What a step may use of these loaders: all but val, and two calibration images as its example, (2, 3, S, S).

        The other fields are those of `StepContext`. `InputError` without calibration images.
        """
        return StepContext(
            example=self.example(),
            train=self.train,
            dev=self.dev,
            calibration=self.calibration,
            classes=self.info.classes,
            counts=tuple(self.info.counts.get("train", {}).values()),
            load=load,
            device=device,
            seed=seed,
            folder=folder,
            resume=resume,
            log=log,
        )


@dataclass(frozen=True, kw_only=True)
class Data:
    """Which data set, and how it is split, resized, varied and batched.

    path                folder, archive, .npz or a name of torchvision's; None takes input/data, else the demo data
    size                side of the pictures that a net sees, in pixels
    mean, std           per channel, of values from 0 to 1, that pictures are normalized with; a net with published
                        weights wants its own
    crop, interpolation how pictures become square, as in `InputSpec`; training views are cut at random from the
                        middle square where there is a crop
    cache_size          side of the cached training pictures that crops are taken from; None takes 1.25 x `size`
    batch_size          pictures in a training batch
    sampling            "shuffle", or "balanced": every class as often as any other, drawn with replacement
    views               different views of each training picture, shown in turn; 0 makes a new one every epoch.
                        Stored teachers' logits need a number: one set for each view
    most_images         training pictures at most, dev's among them, as large a share of every class; 0 takes all
    dev_share           part of train that becomes dev, which decides in place of val
    val_share           part of the whole that becomes val when the data set has no val or test split
    split_seed          seeds all splits
    folds, fold         with folds above 1, one of that many stratified parts of train is val, counted from 0, and the
                        set's own val is left alone: K-fold validation
    use_all_train       the dev split stays in train, for a last run whose settings are settled: nothing can be
                        chosen any more, so the last epoch is kept
    workers             processes that make training batches; 0 makes them in this one
    calibration_images  how many training pictures calibrate
    zip_encoding        of names in a .zip that are not in UTF-8, such as "gbk" or "shift_jis"; None recognizes it
    classes             names in the order of a net's outputs, for a set of these very classes; () takes their own order
    """

    path: str | None = None
    size: int = 80
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD
    crop: float = 0.0
    interpolation: str = "area"
    cache_size: int | None = None
    batch_size: int = 64
    augment: Augment = field(default_factory=Augment)
    sampling: str = "shuffle"
    views: int = 0
    most_images: int = 0
    dev_share: float = 0.1
    val_share: float = 0.15
    split_seed: int = 0
    folds: int = 0
    fold: int = 0
    use_all_train: bool = False
    workers: int = 1
    calibration_images: int = 256
    zip_encoding: str | None = None
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        least = {"size": 8, "batch_size": 1, "workers": 0, "calibration_images": 1, "split_seed": 0, "views": 0}
        for name, low in (least | {"folds": 0, "fold": 0, "most_images": 0}).items():
            if getattr(self, name) < low:
                raise InputError(f"data.{name} must be at least {low}, got {getattr(self, name)}")
        most = {"workers": limit("WORKERS", 256), "views": limit("VIEWS", 1000), "batch_size": limit("BATCH", 65_536)}
        for name, high in {**most, "size": MAX_SIDE, "cache_size": 2 * MAX_SIDE}.items():
            if (getattr(self, name) or 0) > high:
                raise InputError(f"data.{name} must be at most {high}, got {getattr(self, name)}")
        for name in ("dev_share", "val_share"):
            if not 0 < getattr(self, name) < 1:
                raise InputError(f"data.{name} must lie between 0 and 1, got {getattr(self, name)}")
        if self.fold >= max(self.folds, 1):
            raise InputError(f"data.fold must be below data.folds ({self.folds}), got {self.fold}")
        if self.sampling not in SAMPLING:
            raise InputError(f"data.sampling must be one of {', '.join(SAMPLING)}, got {self.sampling!r}")
        if not len(self.mean) == len(self.std) in (1, 3) or min(self.std) <= 0:
            raise InputError(
                f"data.mean and data.std must be three numbers each (one of gray pictures), std above 0, got "
                f"{self.mean} and {self.std}"
            )
        self.spec()  # refuses what InputSpec does
        if self.cache_size is not None and self.cache_size < self.size:
            raise InputError(f"data.cache_size must be at least data.size ({self.size}), got {self.cache_size}")

    def spec(self) -> InputSpec:
        """How a net that learns from these data is fed."""
        return InputSpec(mean=self.mean, std=self.std, size=self.size, crop=self.crop, interpolation=self.interpolation)

    def fed_as(self, spec: InputSpec) -> Data:
        """The same data as a net of this description sees them, labels as its outputs are ordered."""
        cache = None if self.size != spec.size else self.cache_size
        fed = {name: getattr(spec, name) for name in ("mean", "std", "size", "crop", "interpolation", "classes")}
        return replace(self, cache_size=cache, **fed)

    def source(self) -> Source:
        """The data set itself. The rendered demo data are made when they are not there yet."""
        if self.path is not None:
            return open_source(self.path, self.zip_encoding)
        if (input_folder() / "data").exists():
            return open_source(input_folder() / "data")
        from solution.data.rendered import ensure_rendered

        return open_source(ensure_rendered(input_folder() / "rendered"))

    def open(
        self,
        seed: int = 0,
        splits: Sequence[str] = ALL,
        normalization: Normalization | None = None,
    ) -> Loaders:
        """Loaders of the named `splits`; only these are decoded. `seed` sets the order and the views of train.

        Raises `InputError` when the data set cannot serve.
        """
        source, parts, made = self._read()
        normalization = normalization or (self.mean, self.std)
        splits = [split for split in splits if split != "dev" or not self.use_all_train]
        for split in splits:
            _require(source, split, parts.get(split, ()))
        loaders: dict[str, Any] = {
            split: self._loader(source, split, parts[split], seed, normalization) for split in splits
        }
        mean, std = normalization
        way: dict[str, Any] = {"crop": self.crop, "interpolation": self.interpolation}
        return Loaders(info=_info(source, parts, made), mean=mean, std=std, **way, **loaders)

    def info(self) -> DatasetInfo:
        """What the data set is; no picture is decoded."""
        return _info(*self._read())

    def _read(self) -> tuple[Source, dict[str, tuple[Item, ...]], str]:
        """The data set, its `parts` and how val came about. Parts do not depend on the order of classes."""
        source = self.source()
        parts, made = self.parts(source)
        names = in_order_of(self.classes, source.classes)
        if self.classes and [name.casefold() for name in names] != [name.casefold() for name in self.classes]:
            raise InputError(
                f"{source.path} has the classes {', '.join(source.classes)}, and the net {', '.join(self.classes)}: "
                "name data of its own classes"
            )
        if names != source.classes:
            if source.of_pixels:
                raise InputError(
                    f"{source.path} numbers its classes {', '.join(source.classes)}, and the net {', '.join(names)}: "
                    "number the masks as the net does"
                )
            label = [names.index(name) for name in source.classes]
            parts = {
                split: tuple(replace(item, label=label[item.label]) for item in items) for split, items in parts.items()
            }
            source = copy(source)
            source.classes = names
        return source, parts, made

    def parts(self, source: Source) -> tuple[dict[str, tuple[Item, ...]], str]:
        """{split: its items} for train, dev, val and calibration, and how val came about.

        A data set without a val split is judged on its test split; one with neither gives up a stratified share.
        """
        by_split = {split: tuple(item for item in source.items if item.split == split) for split in source.splits}
        train = by_split.get("train") or by_split.get("") or ()
        val, made = by_split.get("val") or by_split.get("test") or (), "as given"
        if "val" in by_split and "test" in by_split:
            made = "as given; val judges, test is not used"
        if self.folds > 1 and train:
            train, val = _at(train, *fold(_labels(train), self.folds, self.fold, self.split_seed, source.classes))
            made = f"val is part {self.fold} of {self.folds} of train, seed {self.split_seed}"
        elif not val:
            train, val = _split_off(train, self.val_share, self.split_seed)
            made = f"val is a stratified {self.val_share:.0%} of all, seed {self.split_seed}"
        parts = {"val": val}
        if 0 < self.most_images < len(train):
            _, train = _split_off(train, self.most_images / len(train), self.split_seed)
        if train:
            if not self.use_all_train:
                train, parts["dev"] = _split_off(train, self.dev_share, self.split_seed)
            order = np.random.default_rng(self.split_seed).permutation(len(train))
            calibration = tuple(train[index] for index in order[: self.calibration_images])
            parts.update(train=train, calibration=calibration)
        return parts, made

    def _loader(
        self, source: Source, split: str, items: tuple[Item, ...], seed: int, normalization: Normalization
    ) -> PlainLoader | TrainLoader:
        if isinstance(source, PairSource):
            return self._pair_loader(source, split, items, seed, normalization)
        if split != "train":
            pictures = decode_once(source, items, self.size, self.crop, self.interpolation)
            return plain_loader(pictures, _JUDGE_BATCH, normalization)
        whole = 1.0 if self.crop else 0.0
        cached = decode_once(source, items, self.cache_size or round(1.25 * self.size), whole, self.interpolation)
        views = Views(cached, Viewer(self.augment, self.size, seed), normalization)
        sampler = EpochSampler(cached.labels, self.batch_size, seed, self.sampling, self.views)
        return train_loader(views, sampler, self.workers)

    def _pair_loader(
        self, source: PairSource, split: str, items: tuple[Item, ...], seed: int, normalization: Normalization
    ) -> PlainLoader | TrainLoader:
        if split != "train":
            shown = decoded(source, items, self.size, self.crop, self.interpolation)
            return plain_pairs(*shown, normalization, _JUDGE_BATCH // 8)
        cached = decoded(source, items, self.cache_size or round(1.25 * self.size), 0.0, self.interpolation)
        views = PairViews(*cached, Viewer(self.augment, self.size, seed), normalization)
        sampler = EpochSampler(cached[0].labels, self.batch_size, seed, "shuffle", self.views)
        return train_loader(views, sampler, self.workers)


def in_order_of(known: tuple[str, ...], found: tuple[str, ...]) -> tuple[str, ...]:
    """The classes `found` in the order in which a net knows them, whatever their capitals; as they are when it knows
    others.
    """
    spelled = {name.casefold(): name for name in found}
    names = [name.casefold() for name in known]
    return tuple(spelled[name] for name in names) if sorted(names) == sorted(spelled) else found


def _split_off(items: tuple[Item, ...], share: float, seed: int) -> tuple[tuple[Item, ...], tuple[Item, ...]]:
    return _at(items, *stratified(_labels(items), share, seed))


def _labels(items: tuple[Item, ...]) -> np.ndarray:
    return np.array([item.label for item in items], dtype=np.int64)


def _at(
    items: tuple[Item, ...], rest: tuple[int, ...], part: tuple[int, ...]
) -> tuple[tuple[Item, ...], tuple[Item, ...]]:
    return tuple(items[index] for index in rest), tuple(items[index] for index in part)


def _require(source: Source, split: str, items: tuple[Item, ...]) -> None:
    """Refuse to learn from what cannot teach; only warn about what judges."""
    if split not in ALL:
        raise InputError(f"there is no split {split!r}; there are {', '.join(ALL)}")
    if not items:
        raise InputError(f"{source.path}: no pictures to {split} with; the data set has {_found(source)}")
    if split == "train" and len(source.classes) < 2:
        raise InputError(f"{source.path}: one class only ({source.classes[0]}); there is nothing to tell apart")
    if source.of_pixels:
        return
    seen = {item.label for item in items}
    empty = [name for label, name in enumerate(source.classes) if label not in seen]
    message = f"{source.path}: no {split} pictures of {', '.join(empty)}"
    if empty and split == "train":
        raise InputError(f"{message}; add some, or remove the class")
    if empty and split == "val":
        warnings.warn(f"{message}; these classes are not judged", stacklevel=3)


def _found(source: Source) -> str:
    return ", ".join(f"a {split} split" if split else "no splits" for split in source.splits) or "no pictures"


def _info(source: Source, parts: dict[str, tuple[Item, ...]], made: str) -> DatasetInfo:
    counts = {}
    for split in ("train", "dev", "val"):
        found = Counter(source.classes[item.label] for item in parts.get(split, ()))
        if found and source.of_pixels:
            counts[split] = {"pictures": found.total()}
        elif found:
            counts[split] = {name: found[name] for name in source.classes}
    where = str(source.path)
    return DatasetInfo(
        name=source.name, classes=source.classes, counts=counts, source=where, rendered=source.rendered, split=made
    )
