"""Pictures per second of one training on one process and on several, in turns.

    python -m benchmarks.processes ../shared/data/recycle9.tar
    python -m benchmarks.processes ../shared/data/recycle9.tar --net torchvision:resnet18 --side 64 --batch 128

Each process makes its own views and has one thread, so that N processes keep N cores busy. Besides the wall clock,
which is worth something on free cores alone, it shows the processor time that all processes together spend on a
picture: N processes can be at most N times the ratio of these as fast as one.
"""

from __future__ import annotations

import argparse
import os
import resource
import socket
import statistics
import subprocess
import sys
import time

import torch

from solution.contracts import StepContext
from solution.data.loaders import Data
from solution.models.classifiers import Classifier
from solution.models.shufflenet import ShuffleNet
from solution.runtime import hardware, seed_everything, set_threads
from solution.train.step import Train
from solution.train.trainer import Trainer


def worker(arguments: argparse.Namespace) -> None:
    """Be one of the processes: train `steps` batches and print pictures a second and processor seconds a picture."""
    side, batch, steps = arguments.side, arguments.batch, arguments.steps
    set_threads()
    seed_everything(0)
    data = Data(path=arguments.data, size=side, batch_size=batch, workers=0).open(splits=("train",))
    settings = Classifier(name=arguments.net) if arguments.net else ShuffleNet()
    net, example = settings.build(len(data.info.classes)), torch.zeros(1, 3, side, side)
    step = Train(epochs=100, lr=0.01)
    run = Trainer(net, step, StepContext(example=example, train=data.train), step.objective)
    run.objective.train()
    done, start, used = 0, 0.0, 0.0
    for epoch in range(100):
        run.batches.set_epoch(epoch)
        for seen in run.batches:
            if done == _WARM:
                start, used = time.perf_counter(), _processor_s()
            if done == _WARM + steps:
                seconds, spent = time.perf_counter() - start, _processor_s() - used
                print(batch * steps / seconds, spent / (batch * steps), flush=True)
                return
            run.update(done, *seen)
            done += 1


_WARM = 3


def _processor_s() -> float:
    own = resource.getrusage(resource.RUSAGE_SELF)
    return own.ru_utime + own.ru_stime


def measured(count: int, words: list[str]) -> tuple[float, float]:
    """Pictures a second of `count` processes, and the processor milliseconds that they spend on one together."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    started = []
    for rank in range(count):
        places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
        own = {name: str(value) for name, value in places.items()} if count > 1 else {}
        about = os.environ | own | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "benchmarks.processes", "--worker", *words]
        started.append(subprocess.Popen(command, env=about, stdout=subprocess.PIPE, text=True))
    figures = [[float(word) for word in one.communicate()[0].split()[-2:]] for one in started]
    return min(speed for speed, _ in figures), 1e3 * sum(spent for _, spent in figures)


def main() -> None:
    """Measure both in turns and print a table."""
    parser = argparse.ArgumentParser(description="One training on one process and on several.")
    parser.add_argument("data", help="photos, as `run` takes them")
    parser.add_argument("--net", default="", help="a classifier by name (default: the ShuffleNet of the recipes)")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--side", type=int, default=80)
    parser.add_argument("--batch", type=int, default=64, help="pictures in a batch that all processes share")
    parser.add_argument("--steps", type=int, default=40, help="batches that are timed")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each, in turns")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        worker(arguments)
        return
    words = [arguments.data, *(f"--{name}={getattr(arguments, name)}" for name in ("net", "side", "batch", "steps"))]
    counts, found = (1, arguments.processes), {}
    for _ in range(arguments.rounds):
        for count in counts:
            found.setdefault(count, []).append(measured(count, words))
            print(
                f"{count} process(es): {found[count][-1][0]:.0f} pictures/s, load {os.getloadavg()[0]:.1f}", flush=True
            )
    speed = {count: statistics.median(each for each, _ in found[count]) for count in counts}
    spent = {count: statistics.median(each for _, each in found[count]) for count in counts}
    about = f"{arguments.net or 'ShuffleNet'}, {arguments.side} px, batch {arguments.batch}, seed 0"
    print(f"\n{hardware()}, load {os.getloadavg()[0]:.1f}, {about}")
    print("| processes | pictures/s | ratio | processor ms a picture | at most |\n|---|---|---|---|---|")
    for count in counts:
        most = count * spent[1] / spent[count]
        print(f"| {count} | {speed[count]:.0f} | {speed[count] / speed[1]:.2f} | {spent[count]:.3f} | {most:.2f} |")


if __name__ == "__main__":
    main()
