"""Steps per second of a student: the teacher's answers stored, against the teacher in the loop.

    python -m benchmarks.distillation ../shared/data/recycle9.tar

Three pairs: the student and the teacher of `waste_distilled`, each at its own side, and ShuffleNet 2,5,2 with two
teachers at 80 px. Both loops are ours and differ in where the teacher's logits come from. They run in turns, one thread
each, and one process makes the views for both. The weights are random: they cost the same. Storing an answer costs one
forward of the teacher, once, and is not counted. Beside wall time stands the CPU time of the training process alone,
which other work on the machine hardly moves.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from solution import checkpoint
from solution.contracts import StepContext
from solution.data.loaders import MEAN, STD, Data
from solution.data.views import EpochSampler, TrainLoader, train_loader, with_teacher_logits
from solution.models.classifiers import Classifier
from solution.models.shufflenet import ShuffleNet
from solution.recipes.waste import distilled as waste_distilled, teacher as waste_teacher
from solution.runtime import hardware, seed_everything, set_threads
from solution.train.distillation import Distill, as_teacher_sees, find_net, store_teacher_logits
from solution.train.trainer import Training

BATCH = 64


@dataclasses.dataclass(frozen=True)
class Pair:
    """A student and its teacher, each with the side of the pictures that it sees, in px."""

    student: ShuffleNet
    student_side: int
    teacher: str
    teacher_side: int

    def __str__(self) -> str:
        net = self.student
        student = f"ShuffleNet {','.join(map(str, net.units))} x {net.width:g}"
        return f"{student} at {self.student_side} px, {self.teacher} at {self.teacher_side} px"


def pairs() -> tuple[Pair, ...]:
    """The pair of our own recipe, and two that differ in the teacher alone."""
    own, teacher = waste_distilled.recipe(), waste_teacher.recipe()
    whole = ShuffleNet(units=(2, 5, 2))
    return (
        Pair(own.model, own.data.size, teacher.model.name, teacher.data.size),
        Pair(whole, 80, "torchvision:resnet18", 80),
        Pair(whole, 80, "torchvision:resnet34", 80),
    )


Round = Callable[[int], tuple[float, float]]
"""Number of a round -> (seconds, CPU seconds) a step."""


def few(loader: TrainLoader, steps: int) -> TrainLoader:
    """The first pictures of `loader`, as many as `steps` batches take, in one view each."""
    views = copy.copy(loader.dataset)
    views.images, views.labels = views.images[: steps * BATCH], views.labels[: steps * BATCH]
    return train_loader(views, EpochSampler(views.labels.numpy(), BATCH, 0, num_views=1), 1)


def rounds_of(student: ShuffleNet, settings: Distill, context: StepContext) -> Round:
    """A function that trains one epoch of a fresh student."""
    seed_everything(0)
    run = Training(student.build(len(context.classes)), settings, context)

    def epoch(number: int) -> tuple[float, float]:
        run.batches.set_epoch(number)
        wall, cpu = time.perf_counter(), time.process_time()
        run.epoch(number, run.batches)
        return (time.perf_counter() - wall) / run.steps, (time.process_time() - cpu) / run.steps

    return epoch


def with_stored_answers(path: str, context: StepContext) -> StepContext:
    """`given` with batches that carry the teacher's logits."""
    teacher, header = find_net(path, context)
    views = as_teacher_sees(context.train.dataset, header.size, (header.mean, header.std))
    return dataclasses.replace(
        context, train=with_teacher_logits(context.train, store_teacher_logits(teacher, views, 1))
    )


def teacher_file(folder: Path, pair: Pair, classes: tuple[str, ...]) -> str:
    """A checkpoint of the untrained teacher."""
    seed_everything(0)
    net = Classifier(name=pair.teacher).build(len(classes))
    path = folder / "teacher.safetensors"
    header = checkpoint.header_of(net, classes=classes, mean=MEAN, std=STD, size=pair.teacher_side)
    checkpoint.save(path, net, header)
    return str(path)


def arguments() -> argparse.Namespace:
    """What the shell asks for."""
    parser = argparse.ArgumentParser(description="A student with stored answers against a teacher in the loop.")
    parser.add_argument("data", type=Path, help="photos: folder or archive")
    parser.add_argument("--steps", type=int, default=24, help="of a round")
    parser.add_argument("--rounds", type=int, default=8, help="of each, in turns; the first is warm-up")
    return parser.parse_args()


def main() -> None:
    """Run both in turns for each teacher and print the ratio table."""
    asked = arguments()
    set_threads()
    taken = {str(pair): in_turns(pair, asked) for pair in pairs()}
    print(f"\n{asked.data.name}, batch {BATCH}, seed 0")
    print(f"median of {asked.rounds - 1} rounds of {asked.steps} steps; {hardware()}, load {os.getloadavg()[0]:.1f}")
    print(table(taken))


def in_turns(pair: Pair, asked: argparse.Namespace) -> dict[str, list[tuple[float, float]]]:
    """{loop: what each round but the first took}."""
    side = pair.student_side
    loaders = Data(path=str(asked.data), size=side, batch_size=BATCH).open(splits=("train",))
    train, classes = few(loaders.train, asked.steps), loaders.info.classes
    context = StepContext(example=torch.zeros(1, 3, side, side), train=train, classes=classes, load=checkpoint.load)
    with tempfile.TemporaryDirectory() as folder:
        path = teacher_file(Path(folder), pair, context.classes)
        settings = {"teachers": (path,), "epochs": asked.rounds}
        loops = {
            "in the loop": rounds_of(pair.student, Distill(live=True, **settings), context),
            "stored": rounds_of(pair.student, Distill(**settings), with_stored_answers(path, context)),
        }
        taken = {name: [] for name in loops}
        for number in range(asked.rounds):
            for name, loop in loops.items():
                taken[name].append(loop(number))
    return {name: times[1:] for name, times in taken.items()}


def table(taken: dict[str, dict[str, list[tuple[float, float]]]]) -> str:
    """One line per pair and loop; ratios against the teacher in the loop."""
    lines = ["| pair | answers | steps/s | ratio | CPU ms a step | ratio |", "|---|---|---|---|---|---|"]
    for pair, loops in taken.items():
        medians = {
            name: [statistics.median(column) for column in zip(*times, strict=True)] for name, times in loops.items()
        }
        slow_wall, slow_cpu = medians["in the loop"]
        for name, (wall, cpu) in medians.items():
            figures = f"{1 / wall:.2f} | {slow_wall / wall:.1f} | {1e3 * cpu:.0f} | {slow_cpu / cpu:.1f}"
            lines.append(f"| {pair} | {name} | {figures} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
