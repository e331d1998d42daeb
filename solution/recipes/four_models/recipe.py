"""Three techniques on four models and two data sets: pruning, 16 to 1 bit, distillation. A family of cells.

    python -m solution run four_models
    python -m solution run four_models_small --data ../shared/data/cifar10_jpeg.tar.gz --workers 2
    python -m solution run four_models_small --data ../shared/data/mnist.npz --workers 2

The first takes CIFAR-10 and SVHN and wants a GPU; `--data` puts one other set in their place. `_small` takes 5,000
training pictures and 8 epochs: with `--set every.precision=bf16` 75 minutes a data set on one core of a processor that
computes in bfloat16, VGG16 the half of it.

Expected of `_small`, seed 0: on CIFAR-10 (JPEG) 45.6 % (DenseNet-121), 44.4 (ResNet-34), 26.2 (ResNet-50), 43.4
(VGG16), on MNIST 98.4, 98.1, 67.5, 98.7 %; 1 bit is worth most per byte, the student alone per MAC and millisecond.

Nets made for 224 px take 32 px as they are, but for VGG16's head, which would see one pixel 49 times: it sees it once
(`Classifier.pooled`), so that 34 M parameters are left of 134 M, with the same outputs. VGG16 has batch norms, without
which it does not leave chance in a few epochs. A student is its teacher's net with half of the channels and new
weights, once alone and once distilled. No mirror images and turns: half of the data are digits.
"""

from __future__ import annotations

from pathlib import Path

from solution.compress.channels.step import PruneChannels
from solution.compress.quantize import Convert, Quantize
from solution.contracts import Recipe, Stage
from solution.data.loaders import Data
from solution.data.views import Augment
from solution.models.classifiers import Classifier
from solution.recipes.four_models.report import report
from solution.train.distillation import Distill
from solution.train.step import Train

DATA = ("cifar10", "svhn")
MODELS = {
    "densenet121": Classifier(name="torchvision:densenet121"),
    "resnet50": Classifier(name="torchvision:resnet50"),
    "resnet34": Classifier(name="torchvision:resnet34"),
    "vgg16": Classifier(name="torchvision:vgg16_bn", pooled=1),
}


def cells(data: str | None = None) -> dict[str, Recipe]:
    """{"<data set>/<model>": its recipe}: all pictures, 60 epochs and 20 more."""
    return _cells("four_models", data, epochs=60, more=20)


def small(data: str | None = None) -> dict[str, Recipe]:
    """The same with few pictures and epochs."""
    return _cells("four_models_small", data, epochs=8, more=4, most_images=5000)


def _cells(name: str, data: str | None, epochs: int, more: int, most_images: int = 0) -> dict[str, Recipe]:
    stages = _stages(epochs, more)
    return {
        f"{Path(path).name.split('.')[0]}/{model}": Recipe(
            name=name,
            data=Data(
                path=path,
                size=32,
                cache_size=32,
                most_images=most_images,
                augment=Augment(crop_scale=(0.6, 1.0), flip=0.0, quarter_turn=0.0, color=0.2),
            ),
            model=settings,
            stages=stages,
            before="train",
            after="pruned",
            thorough=True,
            report=report,
        )
        for path in ((data,) if data else DATA)
        for model, settings in MODELS.items()
    }


def _stages(epochs: int, more: int) -> tuple[Stage, ...]:
    """`epochs` for what starts afresh, `more` for what goes on from it."""
    train, tune = Train(epochs=epochs, lr=0.05, weight_decay=5e-4), Train(epochs=more, lr=0.02, warmup_epochs=1)
    distilled = Distill(epochs=epochs, lr=0.05, weight_decay=5e-4, teachers=("train",), live=True)
    return (
        Stage(name="train", step=train),
        Stage(name="prune", step=PruneChannels(ratio=0.2)),
        Stage(name="pruned", step=tune),
        Stage(name="bits16", step=Quantize(scheme="float16", other_dtype="float16"), after="train"),
        Stage(name="bits8", step=Quantize(scheme="int8"), after="train"),
        Stage(name="bits4", step=Quantize(scheme="int4"), after="train"),
        Stage(name="signs", step=Quantize(scheme="binary", qat=True, spare=("first", "last")), after="train"),
        Stage(name="signs_train", step=tune),
        Stage(name="bits1", step=Convert()),
        Stage(name="halve", step=PruneChannels(ratio=0.5), after="train"),
        Stage(name="student", step=train, after="halve", fresh=True),
        Stage(name="distilled", step=distilled, after="halve", fresh=True),
    )
