"""One switch at a time: what each adds to the same base at the same small budget.

    python -m benchmarks.ablation ../shared/data/recycle9.tar --switches base kd mixup --seeds 0 1 2
    python -m solution report --docs

The base is ShuffleNet 2,5,2 from scratch, 24 epochs at 64 px, mildly varied. Nets that are cut train half of the epochs
before and half after; head starts come on top, and the minutes of a row tell. Expected: about 2 minutes a row on a free
core, 4 with a head start. Rows that are there are not run again, and a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from solution import pipeline
from solution.compress.channels.step import PruneChannels
from solution.compress.decompose import Decompose
from solution.compress.prune_layers import PruneLayers
from solution.contracts import InputError, Recipe, Stage, Step
from solution.data.loaders import Data
from solution.data.views import Augment
from solution.losses.distillation import DistillLoss
from solution.models.shufflenet import ShuffleNet
from solution.report.tables import BASE, ablation_table, growing, read_ablation
from solution.runtime import ROOT, written_whole
from solution.settings import with_setting, with_settings
from solution.train.distillation import Assist, Distill
from solution.train.pretraining import Autoencode, Pretrain
from solution.train.step import Train

EPOCHS, SIZE = 24, 64

Change = Callable[[Recipe], Recipe]
"""What a switch makes of the base."""


def base(data: str, epochs: int = EPOCHS) -> Recipe:
    """What every switch changes in one respect."""
    return Recipe(
        name="ablation",
        data=Data(path=data, size=SIZE, augment=Augment(crop_scale=(0.4, 1.0), quarter_turn=0.1, color=0.2)),
        model=ShuffleNet(units=(2, 5, 2)),
        stages=(Stage(name="train", step=Train(epochs=epochs, lr=0.2)),),
        before="train",
        after="train",
    )


def switches(teacher: str, pictures: str) -> dict[str, Change]:
    """{name: its change}. teacher: a checkpoint that knows the classes; pictures: another set, to learn from first."""
    return {
        BASE: settings({}),
        "kd": distilled(teacher, DistillLoss()),
        "dkd": distilled(teacher, DistillLoss(method="dkd", beta=4.0)),
        "standardized_kd": distilled(teacher, DistillLoss(method="standardized")),
        "residual_kd": assisted(teacher),
        "arcface": settings({"train.margin.kind": "arcface"}),
        "focal": settings({"train.loss.focal": 1.0, "train.loss.cross_entropy": 0.0}),
        "macro_f1_loss": settings({"train.loss.macro_f1": 0.5}),
        "auxiliary_heads": settings({"train.auxiliary": 0.3}),
        "oversampling": settings({"data.sampling": "balanced"}),
        "mixup": settings({"train.mixing.mixup": 0.2}),
        "cutmix": settings({"train.mixing.cutmix": 1.0, "train.mixing.share": 0.5}),
        "dropout": settings({"model.dropout": 0.1}),
        "drop_path": settings({"train.drop_path": 0.1}),
        "weight_decay": settings({"train.weight_decay": 5e-4}),
        "pretraining": head_start(Pretrain(path=pictures, lr=0.2), share=1 / 6),
        "autoencoder": head_start(Autoencode(), share=1 / 3),
        "ema": settings({"train.ema_decay": 0.998}),
        "layer_pruning": cut(PruneLayers(units=(2, 5, 2)), {"model.units": (4, 8, 4)}),
        "channel_pruning": cut(PruneChannels(macs="60%"), {"model.width": 0.35}),
        "decomposition": cut(Decompose(macs="85%"), {}),
        "input_48": settings({"data.size": 48}),
        "input_80": settings({"data.size": 80}),
        "progressive_resizing": settings({"train.first_size": 32}),
    }


def settings(values: Mapping[str, Any]) -> Change:
    """Other values at these addresses."""

    return functools.partial(with_settings, changes=values)


def distilled(teacher: str, distill_loss: DistillLoss) -> Change:
    """The same training with a teacher, whose answers are stored for every epoch's views."""

    def change(recipe: Recipe) -> Recipe:
        (stage,) = recipe.stages
        step = Distill(**vars(stage.step), teachers=(teacher,), distill_loss=distill_loss)
        recipe = with_setting(recipe, "data.views", step.epochs)
        return dataclasses.replace(recipe, stages=(dataclasses.replace(stage, step=step),))

    return change


def assisted(teacher: str) -> Change:
    """Half of the epochs for the net, half for an assistant that learns what is missing."""

    def change(recipe: Recipe) -> Recipe:
        half = _half(recipe)
        recipe = with_setting(recipe, "data.views", half.epochs)
        gentle = dataclasses.replace(half, lr=half.lr / 10)  # squared errors of logits have long gradients
        step = Assist(**vars(gentle), teachers=(teacher,), share=0.5)
        return dataclasses.replace(recipe, stages=(Stage(name="start", step=half), Stage(name="train", step=step)))

    return change


def head_start(step: Train, share: float) -> Change:
    """`step` first, for this share of the base's epochs."""

    def change(recipe: Recipe) -> Recipe:
        (stage,) = recipe.stages
        first = dataclasses.replace(step, epochs=max(1, round(share * stage.step.epochs)))
        return dataclasses.replace(recipe, stages=(Stage(name="head_start", step=first), stage))

    return change


def cut(step: Step, larger: Mapping[str, Any]) -> Change:
    """Half of the epochs for a larger net, `step`, half for what is left."""

    def change(recipe: Recipe) -> Recipe:
        half = _half(recipe)
        stages = (Stage(name="start", step=half), Stage(name="cut", step=step), Stage(name="train", step=half))
        return dataclasses.replace(settings(larger)(recipe), stages=stages)

    return change


def _half(recipe: Recipe) -> Train:
    (stage,) = recipe.stages
    return dataclasses.replace(stage.step, epochs=max(1, stage.step.epochs // 2))


def run(recipe: Recipe, work: Path, out: Path) -> None:
    """Run `recipe` in `work` and leave its settings and rows in `out`; nothing when they are there."""
    if (out / "rows.json").exists():
        print(f"{out}: there")
        return
    rows = list(pipeline.run(recipe, work, resume=(work / "recipe.json").exists(), log=lambda _: None))
    for name in ("recipe.json", "rows.csv", "rows.json"):  # the rows last: they say that all is there
        with written_whole(out / name) as path:
            shutil.copyfile(work / name, path)
    seconds = sum(row.seconds for row in rows)
    shown = dataclasses.replace(rows[-1], step=f"{out.parent.name} {out.name}", seconds=seconds)
    print(growing([shown]), flush=True)


def arguments() -> argparse.Namespace:
    """What the shell asks for."""
    parser = argparse.ArgumentParser(description="One switch at a time against the same base.")
    parser.add_argument("data", help="photos: folder or archive")
    parser.add_argument("--switches", nargs="+", metavar="NAME", help="which (default: all)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of the base")
    parser.add_argument("--teacher", default="pretrained/recycle9/before.safetensors")
    parser.add_argument("--pictures", default="../shared/data/tiny100.tar.gz", help="another set, to learn from first")
    parser.add_argument("--out", type=Path, help="where rows go (default: docs/rows/DATA/ablation)")
    parser.add_argument("--work", type=Path, help="where runs keep their files (default: runs/ablation/DATA)")
    return parser.parse_args()


def main() -> None:
    """Run what is not there yet, then print the table."""
    asked = arguments()
    name = Path(asked.data).name.split(".")[0]
    out = asked.out or ROOT / "docs" / "rows" / name / "ablation"
    work = asked.work or Path("runs") / "ablation" / name
    known = switches(asked.teacher, asked.pictures)
    chosen = asked.switches or list(known)
    if unknown := [switch for switch in chosen if switch not in known]:
        raise InputError(f"there is no switch {', '.join(unknown)}; there are: {', '.join(known)}")
    for seed in asked.seeds:
        for switch in chosen:
            recipe = dataclasses.replace(known[switch](base(asked.data, asked.epochs)), seed=seed)
            run(recipe, work / switch / f"seed{seed}", out / switch / f"seed{seed}")
    if (out / BASE).exists():
        print("\n" + ablation_table(read_ablation(out)).markdown())


if __name__ == "__main__":
    main()
