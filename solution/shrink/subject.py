"""`Subject`: the net that is made smaller, its pictures at any side, and how its quality is judged."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from solution import tasks
from solution.batches import tidied
from solution.checkpoint import Header, header_of
from solution.contracts import Batches, InputError, StepContext
from solution.data.loaders import Data, Loaders
from solution.data.source import DatasetInfo, UnreadableImage
from solution.data.views import TrainLoader, Views, as_batch
from solution.evaluate.classify import Predict, predictor, prepared
from solution.evaluate.segment import pixel_loss
from solution.export import files
from solution.graph import as_judged
from solution.tasks import Task
from solution.train.recover import Crops, Recover
from solution.train.settings import resized

Evaluate = Callable[[Predict, Batches], float]
"""Anything that maps images to outputs, and batches -> quality, a fraction of 1, higher is better."""
OwnLoss = Callable[[Any, Any], Tensor]
"""Outputs and targets -> a scalar."""
_HELD_OUT = 5
"""Of pictures that come without a dev split, each such batch decides instead of teaching."""
_LEAST_PHOTOS, _BATCH = 20, 32


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is made smaller.

    header    how the net is fed, and what its outputs mean; size 0 where its input is no square image
    loaders   side in pixels -> batches; those that are None were not given
    views     number of views -> training batches with so many of each picture; None where batches come as they are
    task      how quality is judged
    loss      of outputs and targets; None is cross-entropy, and the logits of the net as it came besides
    labeled   whether train has labels to learn from
    agreement whether quality is how often a net agrees with the net as it came, for lack of labels
    device    of trainings
    """

    net: nn.Module
    header: Header
    example: Any
    loaders: Callable[[int], Loaders]
    task: Task = tasks.CLASSIFICATION
    views: Callable[[int], TrainLoader | None] | None = None
    loss: OwnLoss | None = None
    labeled: bool = True
    agreement: bool = False
    device: str = "cpu"
    seed: int = 0

    @property
    def given(self) -> Loaders:
        """The batches as the net sees them now."""
        return self.loaders(self.header.size)

    def example_at(self, size: int) -> Any:
        """The example at another side."""
        return resized(self.example, size) if size != self.header.size else self.example

    def context(self, size: int, log: Callable[[str], None], folder: Path | None = None) -> StepContext:
        """What steps may use: never val."""
        loaders = self.loaders(size)
        usable = self.loss is None and self.labeled and self.task is tasks.CLASSIFICATION
        return StepContext(
            example=self.example_at(size),
            train=loaders.train if usable else None,
            dev=loaders.dev if usable else None,
            calibration=loaders.calibration if usable else _images_alone(loaders.calibration),
            classes=self.header.classes,
            load=files.load,
            device=self.device,
            seed=self.seed,
            folder=folder,
            resume=True,
            log=log,
        )

    def quality(self, predict: Predict, size: int, split: str) -> dict[str, float]:
        """The figures of `predict` on a split at this side; {} without pictures."""
        batches = getattr(self.loaders(size), split)
        return {} if batches is None else dict(self.task.judge(predict, batches))

    def predict(self, net: nn.Module) -> Predict:
        """`net` as a callable on images; outputs of a task of one's own are left as they are."""
        if self.task is tasks.CLASSIFICATION:
            return predictor(net, self.device)

        def outputs(images: Tensor) -> Any:
            with as_judged(net.to(self.device)):
                return net(images.to(self.device))

        return outputs

    def figure(self, net: nn.Module, size: int, split: str = "dev") -> float:
        """The figure that sums up quality; NaN without pictures."""
        return self.quality(self.predict(net), size, split).get(self.task.figure, float("nan"))


def of_data(net: nn.Module, header: Header, data: Data, *, device: str = "cpu", seed: int = 0) -> Subject:
    """The subject that a file and a data set describe. `InputError` when they know other classes."""
    normalization = (header.mean, header.std)
    known: dict[int, Loaders] = {}

    def loaders(size: int) -> Loaders:
        if size not in known:
            splits = ("train", "dev", "val", "calibration") if size == header.size else ("dev", "val", "calibration")
            known[size] = dataclasses.replace(data, size=size).open(seed, splits, normalization)
        return known[size]

    first = loaders(header.size)
    if header.classes and header.classes != first.info.classes:
        raise InputError(
            f"the net knows the classes {', '.join(header.classes)}; the data have {', '.join(first.info.classes)}: "
            "name the data that it was trained on with --data"
        )
    header = header if header.classes else dataclasses.replace(header, classes=first.info.classes)

    def views(number: int) -> TrainLoader | None:
        more = dataclasses.replace(data, size=header.size, views=number)
        return more.open(seed, ("train",), normalization).train

    example, task = first.context().example, tasks.task_named(header.task)
    return Subject(
        net=net,
        header=dataclasses.replace(header, data=first.info.title),
        example=example,
        loaders=loaders,
        views=views if task is tasks.CLASSIFICATION else None,
        task=task,
        loss=pixel_loss if task is tasks.SEGMENTATION else None,
        device=device,
        seed=seed,
    )


def of_photos(net: nn.Module, header: Header, photos: Sequence[Path], *, device: str = "cpu", seed: int = 0) -> Subject:
    """The subject of photos that nobody has labeled: of five one decides, one judges, three teach."""
    pixels = []
    for path in photos:
        try:
            pixels.append(prepared(path.read_bytes(), str(path), header))
        except UnreadableImage as error:
            raise InputError(f"{error}; remove it") from error
    if len(pixels) < _LEAST_PHOTOS:
        raise InputError(f"{len(pixels)} photos are too few to decide and to judge with: give {_LEAST_PHOTOS} or more")
    images = as_batch(np.stack(pixels), (header.mean, header.std))
    own = {"dev": images[::5], "val": images[1::5], "train": torch.cat([images[at::5] for at in (2, 3, 4)])}
    splits: dict[str, Any] = {name: list(some.split(_BATCH)) for name, some in own.items()}
    subject = of_batches(net, images[:2].contiguous(), splits, device=device, seed=seed)
    return dataclasses.replace(subject, header=header)


def of_batches(
    net: nn.Module,
    example: Any,
    splits: dict[str, Batches | None],
    *,
    evaluate: Evaluate | None = None,
    loss: OwnLoss | None = None,
    **about: Any,
) -> Subject:
    """The subject of a net in memory and batches of one's own.

    splits    {"train", "dev", "val", "calibration": batches or None}: (images, targets), or images alone; without train
              calibration teaches, without labels; without dev every fifth training batch decides, and without val dev
              judges, too
    evaluate  None: classification, by macro F1; where targets are masks (B, H, W), segmentation, by mIoU
    about     classes, mean and std of the header, device and seed of the subject
    """
    square = isinstance(example, Tensor) and example.dim() == 4 and example.shape[2] == example.shape[3]
    channels = example.shape[1] if square else 3
    plain = {"mean": (0.0,) * channels, "std": (1.0,) * channels, "size": example.shape[2] if square else 0}
    fields = plain | {name: tuple(about.pop(name)) for name in ("classes", "mean", "std") if about.get(name)}
    shared = {name: value for name, value in about.items() if name in ("device", "seed")}
    header = header_of(net, **fields)
    first = next((next(iter(batches)) for batches in splits.values() if batches is not None), None)
    labeled = not isinstance(first, Tensor) and first is not None and len(first) > 1
    if not labeled:
        if evaluate is not None or loss is not None:
            raise InputError("evaluate and loss need targets, and the batches hold images alone")
        splits = {name: _answered(net, batches) for name, batches in splits.items()}
    if evaluate is None and loss is None and labeled:
        splits = {name: tidied(batches, len(header.classes), print) for name, batches in splits.items()}
    teaches = labeled and splits.get("train") is not None
    if splits.get("train") is None and splits.get("calibration") is not None:
        splits = splits | {"train": _answered(net, splits["calibration"])}
    parts = _split(splits)
    if square and parts["train"] is not None and not teaches:
        pictures = torch.cat([images for images, _ in parts["train"]])
        several = Recover(steps=len(parts["train"]), batch_size=len(parts["train"][0][0]))
        parts["train"] = Crops(several, pictures, about.get("seed", 0))
    task = tasks.CLASSIFICATION if evaluate is None else _own_task(evaluate)
    if labeled and evaluate is None and loss is None and getattr(first[1], "ndim", 1) == 3:  # type: ignore[index]
        task, loss, header = tasks.SEGMENTATION, pixel_loss, dataclasses.replace(header, kind=tasks.SEGMENTATION.name)
    info = DatasetInfo(name="yours", classes=header.classes, counts={}, source="", rendered=False, split="as given")

    def loaders(size: int) -> Loaders:
        shown = parts if size == header.size else {name: _resized(some, size) for name, some in parts.items()}
        return Loaders(info=info, mean=header.mean, std=header.std, **shown)

    train = parts["train"]
    stored = isinstance(train, TrainLoader) and isinstance(train.dataset, Views) and _num_views(train)
    return Subject(
        net=net,
        header=header,
        example=example,
        loaders=loaders,
        views=(lambda _number: train) if stored else None,
        task=task,
        loss=loss,
        labeled=teaches,
        agreement=not labeled,
        **shared,
    )


def _num_views(train: Any) -> int:
    return train.batch_sampler.num_views


def _own_task(evaluate: Evaluate) -> Task:
    def judge(predict: Predict, batches: Batches) -> dict[str, float]:
        value = evaluate(predict, batches)
        if not isinstance(value, int | float) or not -1 <= value <= 1:
            raise InputError(f"evaluate returns quality as a fraction of 1, higher is better, got {value!r}")
        return {"quality": float(value)}

    return Task(name="own", judge=judge, figure="quality", title="quality", answers="outputs", rank=2)


def _answered(net: nn.Module, batches: Iterable[Any] | None) -> list[tuple[Tensor, Tensor]] | None:
    """Images with the likeliest class of the net as it came in place of labels."""
    if batches is None:
        return None
    predict = predictor(net)
    with torch.inference_mode():
        images = [batch if isinstance(batch, Tensor) else batch[0] for batch in batches]
        return [(some.clone(), predict(some).argmax(1).clone()) for some in images]


def _split(splits: dict[str, Any]) -> dict[str, Any]:
    """Batches of all four splits, as far as those that were given reach."""
    train, dev, val, calibration = (splits.get(name) for name in ("train", "dev", "val", "calibration"))
    if train is not None and dev is None:
        every = list(train)
        dev, train = every[::_HELD_OUT], [batch for at, batch in enumerate(every) if at % _HELD_OUT]
        if not train:
            raise InputError(f"{len(every)} training batch cannot teach and decide: give more, or dev= besides")
    if calibration is None and (source := train if train is not None else dev) is not None:
        calibration = [batch[:2] for batch in itertools.islice(source, 8)]
    return {"train": train, "dev": dev, "val": dev if val is None else val, "calibration": calibration}


def _images_alone(batches: Any) -> list[tuple[Tensor, Tensor]] | None:
    """Images with labels that mean nothing."""
    if batches is None:
        return None
    return [(images, torch.zeros(len(images), dtype=torch.long)) for images, *_ in batches]


class _Resized:
    """Batches whose images are brought to another side."""

    def __init__(self, batches: Sequence[Any], size: int) -> None:
        self.batches, self.size = batches, size

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[Tensor, Any]]:
        return ((resized(images, self.size), targets) for images, targets, *_ in self.batches)


def _resized(batches: Any, size: int) -> Any:
    return None if batches is None else _Resized(batches, size)
