"""How well any callable on a batch classifies, an exported runtime too: macro F1, accuracy, confusion."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from solution.contracts import Batches, Example, InputError
from solution.data.decode import decode, resize
from solution.data.source import FolderFiles, UnreadableImage
from solution.data.splits import is_picture
from solution.data.views import Normalization, as_batch
from solution.evaluate.cost import macs, params
from solution.evaluate.ram import memory
from solution.graph import images_for
from solution.input_spec import InputSpec
from solution.models.outputs import logits_of

Predict = Callable[[Tensor], Tensor]
"""Images (B, C, H, W) to logits (B, num_classes)."""

MANY_CLASSES = 20
"""From so many classes on, the share of images whose class is among the five likeliest is reported too."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Classified:
    """Every prediction of one pass, and the figures that follow from it.

    labels, predictions   (N,) int64
    top5                  share of images whose class is among the five likeliest
    num_classes           outputs of the model
    """

    labels: np.ndarray
    predictions: np.ndarray
    top5: float
    num_classes: int

    @property
    def num_images(self) -> int:
        """How many images were judged."""
        return len(self.labels)

    @property
    def accuracy(self) -> float:
        """Share of images whose class was predicted."""
        return float((self.labels == self.predictions).mean())

    @property
    def f1(self) -> float:
        """Macro F1: the mean over the classes that occur among labels or predictions."""
        from sklearn.metrics import f1_score

        return float(f1_score(self.labels, self.predictions, average="macro", zero_division=0))

    @property
    def per_class_f1(self) -> np.ndarray:
        """(num_classes,) F1 of each class; 0 for one that never occurs."""
        from sklearn.metrics import f1_score

        classes = range(self.num_classes)
        return f1_score(self.labels, self.predictions, labels=classes, average=None, zero_division=0)

    @property
    def confusion(self) -> np.ndarray:
        """(num_classes, num_classes) counts: row the label, column the prediction."""
        from sklearn.metrics import confusion_matrix

        return confusion_matrix(self.labels, self.predictions, labels=range(self.num_classes))

    def quality(self) -> dict[str, float]:
        """The figures of a `Row`: macro F1, accuracy, and for many classes the top-5 share."""
        figures = {"f1": self.f1, "accuracy": self.accuracy}
        return figures | {"top5": self.top5} if self.num_classes >= MANY_CLASSES else figures


def classify(predict: Predict, batches: Batches) -> Classified:
    """Run `predict` over all batches.

    Raises `InputError` when there are no images, when a logit is not a finite number, or when the answers do not fit
    the labels.
    """
    labels: list[np.ndarray] = []
    predictions: list[np.ndarray] = []
    among_five, num_classes = 0, 0
    with torch.inference_mode():
        for images, batch_labels in batches:
            logits, wanted = predict(images).cpu(), batch_labels.cpu()  # (B, num_classes), (B,)
            _check(logits, wanted, len(labels))
            num_classes = logits.shape[1]
            likeliest = logits.topk(min(5, num_classes), dim=1).indices  # (B, 5)
            among_five += int((likeliest == wanted[:, None]).any(1).sum())
            predictions.append(likeliest[:, 0].numpy())
            labels.append(wanted.numpy())
    if not labels:
        raise InputError("there are no images to judge on")
    true, predicted = np.concatenate(labels), np.concatenate(predictions)
    return Classified(labels=true, predictions=predicted, top5=among_five / len(true), num_classes=num_classes)


class NoNumbersError(InputError):
    """A net answers with NaN or infinity."""


def _check(logits: Tensor, labels: Tensor, batch: int) -> None:
    if logits.dim() != 2 or len(logits) != len(labels):
        raise InputError(f"{len(labels)} images need logits (B, classes), the model gave {tuple(logits.shape)}")
    damaged = int((~torch.isfinite(logits)).any(1).sum())
    if damaged:
        raise NoNumbersError(
            f"the model answers with NaN or infinity for {damaged} of {len(logits)} images of batch {batch}: "
            "its weights are damaged, or half precision overflowed"
        )
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < logits.shape[1]:
        raise InputError(
            f"labels run from {int(labels.min())} to {int(labels.max())}, but the model knows {logits.shape[1]} "
            "classes: it was trained for other data"
        )


def mean_loss(model: nn.Module, batches: Batches) -> float:
    """Mean cross-entropy over all images: smoother than a count of hits, so better for ranking."""
    total, images = 0.0, 0
    with torch.inference_mode():
        for x, labels in batches:
            logits = logits_of(model(images_for(model, x)))
            total += float(F.cross_entropy(logits, labels.to(logits.device), reduction="sum"))
            images += len(labels)
    return total / images


def predictor(model: nn.Module, device: str = "cpu") -> Predict:
    """`model`, moved to `device`, as a callable in eval mode. Its modules' own modes are put back after every batch."""

    def predict(images: Tensor) -> Tensor:
        modes = [(module, module.training) for module in model.modules()]
        model.to(device).eval()
        try:
            return logits_of(model(images.to(device))).float()
        finally:
            for module, training in modes:
                module.training = training

    return predict


_BATCH = 64


def find_photos(words: Iterable[str]) -> list[Path]:
    """The files that `words` name: files, folders with all that is called like a picture in them, wildcards.

    Each comes once, in the order of the words. A word that names nothing stays as it is: reading it raises the error.
    """
    return list(dict.fromkeys(path for word in words for path in _named(word)))


def _named(word: str) -> Iterator[Path]:
    matching = [] if Path(word).exists() else sorted(glob.glob(word, recursive=True))  # noqa: PTH207 - may be absolute
    for path in map(Path, matching or [word]):
        files = FolderFiles(path) if path.is_dir() else None
        inside = sorted(filter(is_picture, files.stamps)) if files else []
        yield from (files.place(name) for name in inside) if files and inside else [path]


def probabilities(
    net: Predict, photos: Sequence[Path], spec: InputSpec
) -> Iterator[tuple[Path, np.ndarray | UnreadableImage]]:
    """Each photo with its probabilities (num_classes,) float64, or with what is wrong with it.

    spec  how `net` is fed. `InputError` when it answers with NaN or infinity.
    """
    for some in (photos[start : start + _BATCH] for start in range(0, len(photos), _BATCH)):
        seen = [_pixels(path, spec) for path in some]
        readable = [pixels for pixels in seen if isinstance(pixels, np.ndarray)]
        probabilities = iter(_probabilities(net, np.stack(readable), (spec.mean, spec.std)) if readable else ())
        for path, pixels in zip(some, seen, strict=True):
            yield path, pixels if isinstance(pixels, UnreadableImage) else next(probabilities)


def _pixels(path: Path, spec: InputSpec) -> np.ndarray | UnreadableImage:
    """(size, size, 3) uint8, or what is wrong."""
    if path.is_dir():
        return UnreadableImage(str(path), "a folder without pictures")
    try:
        return prepared(path.read_bytes(), str(path), spec)
    except FileNotFoundError:
        return UnreadableImage(str(path), "no such file, and nothing that it matches as a wildcard")
    except OSError as error:
        return UnreadableImage(str(path), f"cannot be read ({error.strerror})")
    except UnreadableImage as error:
        return error


def prepared(photo: bytes, name: str, spec: InputSpec, most_pixels: int | None = None) -> np.ndarray:
    """An encoded photo as a net that is fed like this sees it, (size, size, 3) uint8. Raises `UnreadableImage`.

    most_pixels  as in `decode`
    """
    return resize(decode(photo, name, 2 * spec.size, most_pixels), spec.size, spec.crop, spec.interpolation)


def _probabilities(net: Predict, images: np.ndarray, normalization: Normalization) -> np.ndarray:
    with torch.inference_mode():
        return softmax(net(as_batch(images, normalization)))


def softmax(logits: Tensor) -> np.ndarray:
    """(B, num_classes) float64. `InputError` for logits that are NaN or infinite."""
    if not torch.isfinite(logits).all():
        raise InputError("the net answers with NaN or infinity: its weights are damaged, or half precision overflowed")
    return logits.double().softmax(1).numpy()


def evaluate(net: nn.Module, batches: Batches | None = None, example: Example | None = None) -> dict[str, float]:
    """What a classifier costs and is worth: {"macs", "params", "ram"} of one image, {"f1", ...} on batches.

    ram      bytes on a microcontroller, see `solution.evaluate.ram`
    example  one input batch, for the cost; by default the first images of `batches`
    """
    quality: Mapping[str, float] = {}
    if batches is not None:
        example = next(iter(batches))[0][:2] if example is None else example
        quality = classify(predictor(net, str(next(net.parameters()).device)), batches).quality()
    if example is None:
        raise InputError("evaluate needs batches, for quality, or an example, for cost alone: evaluate(net, loader)")
    return {"macs": macs(net, example), "params": params(net), "ram": memory(net, example).arena, **quality}
