"""Batches of anyone's loader as (images, labels): tuples, dictionaries, generators, labels of all kinds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from solution.text import InputError

if TYPE_CHECKING:  # a message about bad input must not wait seconds for PyTorch
    from torch import Tensor

_IMAGES = ("pixel_values", "images", "image", "inputs", "input", "img", "x", "data")
_LABELS = ("labels", "label", "targets", "target", "y", "class", "classes")
_UNKNOWN = (-1, -100)
"""Labels of pictures whose class is not known: they are left out."""


def tidied(loader: Any, num_classes: int, log: Callable[[str], None]) -> Any:
    """`loader` itself when this project made it, else in `TidyBatches`; None stays None."""
    ours = getattr(getattr(loader, "collate_fn", None), "__name__", "") == "as_is"
    if loader is None or ours or isinstance(loader, TidyBatches):
        return loader
    return TidyBatches(loader, num_classes, log)


class TidyBatches:
    """A loader whose batches are (images, labels (B,) int64, ...), whatever the loader's own look like.

    num_classes  labels must be below it; 0 when it is not known
    log          takes, once, what was left out
    """

    def __init__(self, loader: Iterable[Any], num_classes: int, log: Callable[[str], None]) -> None:
        if not isinstance(loader, Iterable):
            raise InputError(f"batches must be a loader or a list, got a {type(loader).__name__}")
        self.loader, self.num_classes, self.log = loader, num_classes, log
        self._left_out = 0
        if iter(loader) is loader:  # it can be gone through once
            self.loader = list(loader)
            log(f"a generator can be gone through once: its {len(self.loader)} batches are kept in memory")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "loader":
            raise AttributeError(name)
        return getattr(self.loader, name)

    def __getitem__(self, place: Any) -> Any:
        return self.loader[place]  # type: ignore[index]

    def __len__(self) -> int:
        try:
            return len(self.loader)  # type: ignore[arg-type]
        except TypeError:
            return sum(1 for _ in self.loader)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        left_out = 0
        for number, batch in enumerate(self.loader):
            try:
                images, labels, *rest = _parts(batch)
                labels = _numbers(labels, self.num_classes)
            except InputError as error:
                raise InputError(f"batch {number}: {error}") from error
            known = (labels != _UNKNOWN[0]) & (labels != _UNKNOWN[1])
            if labels.ndim == 1 and not bool(known.all()) and rest != [None]:
                left_out += int((~known).sum())
                images, labels, rest = images[known], labels[known], [part[known] for part in rest]
            if len(images):
                yield images, labels, *(part for part in rest if part is not None)
        if left_out and not self._left_out:
            self._left_out = left_out
            self.log(f"{left_out} pictures of unknown class (label -1 or -100) are left out")


def _parts(batch: Any) -> tuple[Any, ...]:
    """Images, labels and what comes behind; of pictures alone (images, unknown labels, None)."""
    import torch

    if isinstance(batch, torch.Tensor):
        return batch, torch.full((len(batch),), _UNKNOWN[0]), None
    if isinstance(batch, Mapping):
        images = next((batch[name] for name in _IMAGES if name in batch), None)
        labels = next((batch[name] for name in _LABELS if name in batch), None)
        if images is None:
            raise InputError(
                f"it is a dictionary of {', '.join(map(str, batch))}: none is called like any of ({', '.join(_IMAGES)})"
            )
        return (images, labels) if labels is not None else (images, torch.full((len(images),), _UNKNOWN[0]), None)
    if isinstance(batch, tuple | list) and batch:
        labeled = len(batch) > 1 and batch[1] is not None
        return tuple(batch) if labeled else (batch[0], torch.full((len(batch[0]),), _UNKNOWN[0]), None)
    raise InputError(f"it is a {type(batch).__name__}: give (images, labels), or a dictionary with both")


def _numbers(labels: Any, num_classes: int) -> Tensor:
    """Labels (B,) int64 of numbers of any type, in a column, or one-hot; (B, H, W) and others of several dimensions
    stay."""
    import torch

    labels = torch.as_tensor(labels)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 2 and labels.shape[1] == (num_classes or labels.shape[1]):
        one_hot = ((labels == 0) | (labels == 1)).all() and (labels.sum(1) == 1).all()
        if not bool(one_hot):
            raise InputError(
                "its labels are shares of classes, and a step wants one class for each picture: give labels.argmax(1)"
            )
        labels = labels.argmax(1)
    if labels.ndim != 1:
        return labels
    if labels.is_floating_point() and not bool((labels == labels.round()).all()):
        raise InputError(f"its labels are no whole numbers, such as {float(labels[labels != labels.round()][0]):g}")
    labels = labels.long()
    low, high = (int(labels.min()), int(labels.max())) if len(labels) else (0, 0)
    if num_classes and high >= num_classes:
        counted = ": they are counted from 1, so give labels - 1" if high == num_classes and low > 0 else ""
        raise InputError(
            f"its labels run up to {high}, and {num_classes} classes are counted from 0 to {num_classes - 1}{counted}"
        )
    if low < 0 and not bool(((labels >= 0) | (labels == _UNKNOWN[0]) | (labels == _UNKNOWN[1])).all()):
        raise InputError(f"its labels begin at {low}: classes are counted from 0, and -1 stands for an unknown one")
    return labels
