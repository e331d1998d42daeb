"""Weights of 16, 8, 4, 2 and 1 bit: packed size and quality of each, for nets that have been trained.

    python -m benchmarks.bits pretrained/recycle9/after.safetensors ../shared/data/recycle9.tar
    python -m benchmarks.bits ../shared/data/weights/resnet20-12fca82f.th ../shared/data/cifar10_jpeg.tar.gz
    python -m benchmarks.bits ../shared/data/weights/resnet56-4bfd9763.th ../shared/data/cifar10_jpeg.tar.gz \\
        --bits 4 --sparsity 0.78 --epochs 30 --lr 0.04 --base-lr 0.02 --batch 256 --most-images 30000 --precision bf16

16 and 8 bits are given after training: norms folded, biases corrected. From 4 bits down the net trains on behind grids
that learn their steps (signs for 1 bit); zeros that were pruned first stay. Published weights (.th) are fine-tuned on
this copy of the pictures first.

Every net is a run of its own below `--out`: a second call goes on after the last one, mid-training too, and table and
plot (`bits.svg`) show all runs that are there.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from solution import pipeline
from solution.compress.layers import find_layers
from solution.compress.prune_weights import PruneWeights
from solution.compress.quantize import Convert, Quantize
from solution.contracts import ModelSettings, Recipe, Stage, Step, StepContext
from solution.data.loaders import Data
from solution.data.views import Augment
from solution.export import files
from solution.models.cifar_resnet import CifarResNet
from solution.recipes.bits import (
    BASE,
    PREFIX,
    RECIPE,
    SPARSE,
    START,
    Nets,
    bits_drawing,
    bits_table,
    nets_of,
    note_zipped,
)
from solution.report.tables import growing
from solution.run_folder import MODEL, read_run
from solution.runtime import pick_device, set_threads, write_text
from solution.train.pretraining import Start
from solution.train.step import Train

FOREIGN = ".th"
SIZE = 32
"""Side of the pictures that published weights were trained on."""
SCHEMES = {16: "float16", 8: "int8", 4: "int4", 2: "int2", 1: "binary"}
LEARNED = 4
"""From so many bits down a net trains on."""


@dataclass(frozen=True, kw_only=True)
class Published(Step):
    """A CIFAR-10 ResNet with the published weights at `path` in place of fresh ones."""

    path: str

    def run(self, model: nn.Module, context: StepContext) -> nn.Module:
        """The net."""
        model.load_state_dict(_published(Path(self.path)))
        return model

    def cost_only(self, model: nn.Module, context: StepContext) -> nn.Module:
        """The net as it is: weights cost nothing."""
        return model


@dataclass(frozen=True, kw_only=True)
class Bits(Step):
    """Weights of `bits` bits; all else becomes half precision.

    train      how a net goes on from `LEARNED` bits down
    ends_from  from so many bits down the first and the last layer keep 16: the usual exception for very few bits
    """

    bits: int
    train: Train
    ends_from: int = 2

    def run(self, model: nn.Module, context: StepContext) -> nn.Module:
        """The quantized net."""
        scheme, halves = SCHEMES[self.bits], "float16" if self.bits == 16 else "bfloat16"
        if self.bits > LEARNED:
            return Quantize(scheme=scheme, fold_norms=True, other_dtype=halves)(model, context)
        protect = _ends(model, context) if self.bits <= self.ends_from else ()
        learning = Quantize(scheme=scheme, qat=True, protect=protect)(model, context)
        return Convert(fold_norms=True, other_dtype=halves)(self.train(learning, context), context)

    def cost_only(self, model: nn.Module, context: StepContext) -> nn.Module:
        """The net quantized at once."""
        return Quantize(scheme=SCHEMES[self.bits], fold_norms=True)(model, context)


def _ends(model: nn.Module, context: StepContext) -> tuple[str, str]:
    paths = find_layers(model, context.example).paths
    return paths[0], paths[-1]


def _published(path: Path) -> dict[str, torch.Tensor]:
    state = torch.load(path, weights_only=True, map_location="cpu")["state_dict"]
    return {key.removeprefix("module."): value for key, value in state.items()}


def settings_of(path: Path) -> tuple[ModelSettings, int]:
    """How the net at `path` is built, and the side of its input."""
    if path.suffix != FOREIGN:
        header = files.read_header(path)
        return header.spec.settings, header.size
    blocks = sum(key.startswith("layer1.") and key.endswith("conv1.weight") for key in _published(path))
    return CifarResNet(depth=6 * blocks + 2), SIZE


def recipe_for(asked: argparse.Namespace) -> Recipe:
    """The float net, then one branch for each number of bits."""
    model, size = settings_of(asked.net)
    train = Train(
        epochs=asked.epochs,
        lr=asked.lr,
        weight_decay=asked.weight_decay,
        warmup_epochs=0.2,
        precision=asked.precision,
    )
    first = [Stage(name=BASE, step=Start(path=str(asked.net)))]
    if asked.net.suffix == FOREIGN:
        tuned = dataclasses.replace(train, epochs=asked.base_epochs, lr=asked.base_lr, keep="last")
        first = [Stage(name=START, step=Published(path=str(asked.net))), Stage(name=BASE, step=tuned)]
    whole = BASE
    if asked.sparsity:
        whole = SPARSE
        first += [
            Stage(name="prune_weights", step=PruneWeights(sparsity=asked.sparsity)), Stage(name=whole, step=train)
        ]  # fmt: skip
    branches = [
        Stage(name=f"{PREFIX}{bits}", step=Bits(bits=bits, train=train, ends_from=asked.ends_from), after=whole)
        for bits in asked.bits
    ]
    augment = Augment(crop_scale=(0.7, 1.0), quarter_turn=0.0, color=0.0)
    return Recipe(
        name=RECIPE,
        data=Data(
            path=asked.data,
            size=size,
            batch_size=asked.batch,
            augment=augment,
            most_images=asked.most_images,
            workers=asked.workers,
        ),
        model=model,
        stages=(*first, *branches),
        before=BASE,
        after=branches[-1].name,
        seed=asked.seed,
        thorough=True,
    )


def finished(out: Path) -> Nets:
    """The nets below `out` whose float form and at least one other are there."""
    folders = sorted(path.parent for path in out.glob("*/rows.json"))
    return nets_of({folder.name: read_run(folder) for folder in folders})


def zipped_bytes(path: Path) -> int:
    """The size of a zip archive, best compression, that holds the file at `path` alone."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.write(path, path.name)
    return len(target.getvalue())


def arguments() -> argparse.Namespace:
    """What the shell asks for."""
    parser = argparse.ArgumentParser(description="Packed size and quality of nets in ever fewer bits.")
    parser.add_argument("net", type=Path, help="a checkpoint of ours, or published CIFAR-10 ResNet weights (.th)")
    parser.add_argument("data", help="the pictures that it knows")
    parser.add_argument("--bits", type=int, nargs="+", choices=SCHEMES, default=list(SCHEMES))
    parser.add_argument("--epochs", type=int, default=15, help="of training on, from 4 bits down (default: 15)")
    parser.add_argument("--lr", type=float, default=0.02)
    parser.add_argument("--weight-decay", type=float, default=1e-4)
    parser.add_argument("--precision", default="auto", help="that nets are trained in: auto, fp32, bf16")
    parser.add_argument("--base-epochs", type=int, default=4, help="of published weights, first (default: 4)")
    parser.add_argument("--base-lr", type=float, default=0.01)
    parser.add_argument("--ends-from", type=int, default=2,
                        help="first and last layer keep 16 bits from so many bits down (default: 2; 0: never)"
                        )  # fmt: skip
    parser.add_argument("--sparsity", type=float, default=0.0,
                        help="share of weights that is pruned first, with --epochs to recover (default: none)"
                        )  # fmt: skip
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--most-images", type=int, default=0, help="training pictures at most; 0 takes all")
    parser.add_argument("--workers", type=int, default=1, help="processes that make training batches (default: 1)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda (default: auto)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--name", help="what the net is called (default: after its file)")
    parser.add_argument("--out", type=Path, default=Path("runs/bits"))
    return parser.parse_args()


def main() -> None:
    """Run what is not there yet, then print the table and draw the plot."""
    asked = arguments()
    set_threads()
    folder = asked.out / (asked.name or asked.net.name.split(".")[0].split("-")[0])
    going_on, device = (folder / "recipe.json").exists(), pick_device(asked.device)
    rows = []
    for row in pipeline.run(recipe_for(asked), folder, device=device, resume=going_on, log=lambda _: None):
        rows.append(row)
        print(growing(rows), flush=True)
    for path in asked.out.glob(f"*/{BASE}/{MODEL}"):
        note_zipped(path.parents[1], zipped_bytes(path))
    nets = finished(asked.out)
    print(f"\n{bits_table(nets).markdown()}")
    write_text(asked.out / "bits.svg", bits_drawing(nets).file_text())
    print(f"\nwritten: {asked.out / 'bits.svg'}")


if __name__ == "__main__":
    main()
