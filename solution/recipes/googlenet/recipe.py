"""GoogLeNet on 100 classes: structured against unstructured pruning, static int8, and both.

    python -m solution run googlenet_cifar100
    python -m solution run googlenet_cifar100_small --data ../shared/data/tiny100.tar.gz

The first is the published setting: CIFAR-100, 200 epochs and 100 more, batches of 128, one epoch of warm-up, the best
epoch kept; fine-tuning goes up to 0.02 (published: 0.001), for the cut nets and for the base that they are compared
with, `longer`, which gets as many epochs in all. It wants a GPU. The second is for a processor: 8 and 3 epochs of
batches of 64, pictures that grow from 32 px over the first half of a training from scratch: three hours of one core of
an AMD EPYC with AVX2 whose other core is busy, too.

Expected on tiny100, seed 0, with 40 epochs and 15 more in batches of 256, on a GPU: top-1 error 55.80 % as trained,
55.42 % trained on, 55.16 % pruned, 55.40 % and 55.26 % in int8; exported in int8 at most 0.2 points are lost. A GPU
trains with `--measure-later`; `--resume` where the nets will run exports and times them. Of the small one, far from
trained out: 84.90 % as trained, 80.32 % trained on, 80.92 % pruned, 78.96 % the pruned shape from scratch. With 15
epochs and 5 more in bf16, 94 minutes of one core that has the instructions: 73.88, 70.70, 71.32 and 70.42 %; int8 costs
at most 0.04 points.

Pictures are seen at 64 px: torchvision's GoogLeNet halves them five times, so CIFAR's 32 px would leave maps of one
pixel, where eight of nine weights of a 3 x 3 convolution multiply padding. Tiny-ImageNet's pictures have 64.
"""

from __future__ import annotations

from dataclasses import replace

from solution.compress.channels.step import PruneChannels
from solution.compress.prune_weights import PruneWeights
from solution.compress.quantize import Quantize
from solution.contracts import Recipe, Stage
from solution.data.loaders import Data
from solution.data.views import Augment
from solution.models.classifiers import Classifier
from solution.recipes.googlenet.report import report
from solution.train.step import Train

AS_MANY = 0.36
"""The share of weights that becomes zero: as many as go with a fifth of all channels."""


def recipe() -> Recipe:
    """The published setting."""
    return _recipe("googlenet_cifar100", epochs=200, more=100, batch_size=128)


def small() -> Recipe:
    """The same in a time that a processor has: few epochs of many steps, the first of them on small pictures."""
    return _recipe("googlenet_cifar100_small", epochs=8, more=3, batch_size=64, first_size=32)


def _recipe(name: str, *, epochs: int, more: int, batch_size: int, first_size: int = 0) -> Recipe:
    """`epochs` for the base, `more` for whatever goes on from it, both for the net that starts afresh."""
    base = Train(epochs=epochs, lr=0.1, warmup_epochs=1, weight_decay=5e-4, first_size=first_size)
    whole = replace(base, epochs=epochs + more)
    int8 = _int8()
    tune = Train(epochs=more, lr=0.02, warmup_epochs=1, weight_decay=5e-4)
    return Recipe(
        name=name,
        data=Data(
            path="cifar100",
            size=64,
            cache_size=64,
            batch_size=batch_size,
            augment=Augment(crop_scale=(0.5, 1.0), quarter_turn=0.0, color=0.2),
        ),
        model=Classifier(name="torchvision:googlenet"),
        stages=(
            Stage(name="base", step=base),
            Stage(name="longer", step=tune),
            Stage(name="prune_channels", step=PruneChannels(ratio=0.2), after="base"),
            Stage(name="pruned", step=tune),
            Stage(name="scratch", step=whole, after="prune_channels", fresh=True),
            Stage(name="prune_weights", step=PruneWeights(sparsity=AS_MANY), after="base"),
            Stage(name="sparse", step=tune),
            Stage(name="int8", step=int8, after="longer"),
            Stage(name="pruned_int8", step=int8, after="pruned"),
        ),
        before="longer",
        after="pruned",
        thorough=True,
        exports=("onnxruntime", "onnxruntime int8", "openvino", "openvino int8"),
        report=report,
    )


def _int8() -> Quantize:
    """Static: weights and inputs of all layers, ranges from calibration images."""
    return Quantize(scheme="int8", activations=8, fold_norms=True)
