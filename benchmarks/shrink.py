"""`shrink` against its peers, one net at a time: same photos, same training time, same int8, same runtime.

    python -m benchmarks.shrink pretrained/recycle9/before.safetensors --data ../shared/data/recycle9.tar --hours 0.5
    python -m benchmarks.shrink my_resnet.py:Net --weights best.pth --data ../shared/data/recycle9.tar --hours 2

Ours is the command with `--hours`. Peers: int8 alone (the runtime's own quantizer, NNCF's for OpenVINO), and
Torch-Pruning (group norm, one ranking of all layers) at each of `--levels`, each trained by the very loop, logits and
rate of ours for an equal part of the time that ours trained in all, then quantized alike. A peer's best is the cheapest
file that keeps its quality on dev; the table's figures are of val. Rows go to `--out`/rows.json.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import math
import os
from pathlib import Path
from typing import Any

from torch import nn

from solution.commands.model import add_model_flags, opened_model
from solution.data.loaders import Data
from solution.evaluate.cost import macs, params
from solution.models.outputs import classifier_path
from solution.report.tables import Table
from solution.runtime import hardware, set_threads, write_text
from solution.shrink.effort import Effort, Journal
from solution.shrink.goal import Goal
from solution.shrink.judging import judged
from solution.shrink.rounds import Cut, Round, Teaching
from solution.shrink.run import run as shrink
from solution.shrink.ship import answering, shipped, times_ms
from solution.shrink.subject import Subject, of_data


def by_torch_pruning(subject: Subject, level: float) -> nn.Module:
    """Group norm, one ranking of all layers, in small steps until the budget is met."""
    import torch_pruning

    net, limit = copy.deepcopy(subject.net), level * macs(subject.net, subject.example)
    pruner = torch_pruning.pruner.GroupNormPruner(
        net,
        subject.example,
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        global_pruning=True,
        iterative_steps=100,
        pruning_ratio=0.95,
        max_pruning_ratio=0.9,
        ignored_layers=[net.get_submodule(classifier_path(net))],
        round_to=4,
    )
    for _ in range(100):
        if macs(net, subject.example) <= limit:
            break
        pruner.step()
    return net


def peers(subject: Subject, goal: Goal, out: Path, seconds: float, levels: tuple[float, ...]) -> list[dict[str, Any]]:
    """One line a level: Torch-Pruning's net after its part of `seconds` of training, as an int8 file."""
    journal = Journal(out / "peers.json")
    effort = Effort(journal, 1e6, 0)
    teaching, found = Teaching(subject, 4, print), []
    for level in levels:
        cut = Cut(net=by_torch_pruning(subject, level), size=subject.header.size)

        def trained(cut: Cut = cut, level: float = level) -> dict[str, Any]:
            each = teaching.seconds_per_step(cut, effort)
            steps = max(int(seconds / len(levels) / each), 8)
            print(f"Torch-Pruning at {level:.0%}: {steps} steps")
            done = teaching.run(cut, Round(steps=steps), out / f"peer_{level:.2f}", effort)
            file = shipped(done, subject, goal.runtime, out / f"peer_{level:.2f}" / "int8", "int8", print)
            assert file is not None, "Torch-Pruning's net cannot be exported in int8"
            answers = answering(file.path, subject)
            dev, val = (judged(answers, subject, done.size, split) for split in ("dev", "val"))
            counted = {"macs": macs(done.net, subject.example), "params": params(done.net)}
            ms = times_ms({"peer": (file.path, done.size)}, goal.runtime, subject)["peer"]
            return {"name": f"Torch-Pruning {level:.0%}, int8", **counted, "bytes": file.bytes, "ms": ms,
                    "dev": dev.figure, "quality": val.quality}  # fmt: skip

        found.append(journal.once(f"{level:.2f}", trained))
    return found


def main() -> None:
    """Run ours, then the peers; print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("--data", metavar="PATH", required=True)
    parser.add_argument("--out", metavar="DIR", type=Path, default=Path("runs/shrink_benchmark"))
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--max-drop", type=float, default=1.0)
    parser.add_argument("--for", dest="runtime", default="onnxruntime")
    parser.add_argument("--levels", type=float, nargs="+", default=[0.7, 0.5, 0.35])
    parser.add_argument("--no-peers", action="store_true", help="ours alone")
    add_model_flags(parser, side="--pixels")
    arguments = parser.parse_args()
    set_threads()
    data = Data(path=arguments.data, workers=0)
    opened = opened_model(arguments, data)
    subject = of_data(opened.net, opened.header, data.fed_as(opened.header))
    goal = Goal(max_drop=arguments.max_drop, hours=arguments.hours, runtime=arguments.runtime)
    result = shrink(subject, goal, arguments.out / "ours", resume=(arguments.out / "ours").exists())
    lines = [dataclasses.asdict(line) for line in result.lines]
    journal = json.loads((arguments.out / "ours" / "work" / "journal.json").read_text(encoding="utf-8"))
    if not arguments.no_peers:
        seconds = journal["seconds in trainings"]
        lines += peers(subject, goal, arguments.out, seconds, tuple(arguments.levels))
    load = os.getloadavg()
    facts = {"lines": lines, "verdict": result.verdict, "load": load, "hardware": hardware()}
    write_text(arguments.out / "rows.json", json.dumps(facts, indent=1) + "\n")
    print(_table(lines, subject.task.figure).markdown())
    seconds = f"seconds of all of ours: {journal['seconds so far']:.0f} of {3600 * arguments.hours:.0f}"
    print(f"\n{result.verdict}\n{seconds}, load {load[2]:.1f}")


def _table(lines: list[dict[str, Any]], figure: str) -> Table:
    whole = lines[0]["quality"].get(figure, math.nan)
    rows = []
    for line in lines:
        value = line["quality"].get(figure, math.nan)
        mark = "ours: " if line.get("role") == "chosen" else ""
        rows.append((mark + line["name"], f"{line['macs']:,}", f"{line['params']:,}", f"{line['bytes']:,}",
                     f"{line['ms']:.3f}", f"{value:.4f}", f"{100 * (whole - value):+.2f}"))  # fmt: skip
    return Table(headings=("net", "MACs", "parameters", "bytes", "ms", "quality on val", "drop"), rows=tuple(rows))


if __name__ == "__main__":
    main()
