"""What the committed After gains on small machines: LiteRT beside the other runtimes, and what chips need.

    python -m benchmarks.edge pretrained/recycle9/before.safetensors pretrained/recycle9/after.safetensors \\
        ../shared/data/recycle9.tar

Latency: one image, one thread, all in turns: Before in PyTorch eager, After in every runtime that is here. Chips: After
in int8, in LiteRT and in TensorFlow Lite Micro's interpreter, on all pictures of val.

    python -m benchmarks.edge ... --chips runs/micro/after.safetensors runs/mobilenet/after.safetensors

also writes each of these nets for microcontrollers, and prints flash, memory, MACs and macro F1 side by side: those of
`run waste_micro`, and of `run waste_micro_peer`, with `--set model.name=timm:mobilenetv3_small_075` for another peer.
Everything needs the extras litert and micro.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from solution.contracts import InputError
from solution.data.loaders import Data
from solution.evaluate.classify import Classified, classify
from solution.evaluate.cost import macs
from solution.evaluate.speed import BenchmarkCase, Turns, measure
from solution.export import files
from solution.export.config import ExportConfig
from solution.export.exporter import make
from solution.export.runtimes import EAGER, EXPORTING, case, form_for, import_runtime
from solution.formats.exported import Exported
from solution.report.plots import speed_table
from solution.report.tables import Table
from solution.runtime import hardware, seed_everything, set_threads

MUST_LITERT, MUST_LATENCY = 1.2, 30.0
MUST_F1_LOSS, MUST_BYTES, AIM_BYTES, MUST_ARENA, AIM_ARENA, MUST_SAME = 0.005, 96_000, 72_000, 36_000, 24_000, 0.99
_ON_CHIPS = "tflite-micro"


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description="Nets on small machines: latency, bytes, memory, quality.")
    parser.add_argument("before", type=Path, help="checkpoint of Before")
    parser.add_argument("after", type=Path, help="checkpoint of After")
    parser.add_argument("data", help="photos: calibrate and judge int8")
    parser.add_argument("--rounds", type=int, default=20, help="after one of warm-up")
    parser.add_argument("--chips", nargs="*", type=Path, default=[], help="more checkpoints, written for chips")
    arguments = parser.parse_args()
    set_threads()
    seed_everything(0)
    with tempfile.TemporaryDirectory() as folder:
        for line in (
            *latencies(arguments.before, arguments.after, Path(folder), arguments.rounds),
            *in_integers(arguments.after, arguments.data, Path(folder, "int8")),
            *side_by_side([arguments.after, *arguments.chips], arguments.data, Path(folder, "chips")),
        ):
            print(line, flush=True)


def latencies(before: Path, after: Path, folder: Path, rounds: int) -> Iterator[str]:
    """The table, and the two ratios that must hold."""
    cases: list[BenchmarkCase] = [case(before, EAGER, 1, "Before"), case(after, EAGER, 1, "After")]
    for runtime in EXPORTING:
        try:
            import_runtime(runtime)
        except InputError as error:
            yield f"{runtime} is left out: {error}"
        else:
            if runtime != _ON_CHIPS:  # its speed here is of no other machine
                cases.append(case(form_for(after, runtime, folder), runtime, 1, "After"))
    speeds = measure(cases, Turns(rounds=rounds, batches=(1,)), log=lambda _: None)
    yield speed_table(speeds, f"{hardware()}, {rounds} round(s) in turns").markdown()
    took = {(speed.model, speed.runtime): speed.percentile_ms(50) for speed in speeds}
    least = {(speed.model, speed.runtime): min(speed.times_ms[1]) for speed in speeds}
    best = min((runtime for model, runtime in took if model == "After"), key=lambda runtime: took["After", runtime])
    for name, of in (("median", took), ("quickest", least)):
        whole = of["Before", EAGER] / of["After", best]
        yield _judged(f"Before in {EAGER} against After in {best}, times by the {name} call", whole,
                      whole >= MUST_LATENCY, MUST_LATENCY)  # fmt: skip
    if ("After", "litert") in took:
        ratio = took["After", "litert"] / took["After", "onnxruntime"]
        yield _judged("LiteRT against ONNX Runtime, After in fp32, times as long", ratio, ratio <= MUST_LITERT,
                      MUST_LITERT)  # fmt: skip


def in_integers(after: Path, data: str, folder: Path) -> Iterator[str]:
    """After in int8: what it loses, its bytes, its memory, and whether both interpreters agree."""
    val = Data(path=data).fed_as(files.read_header(after)).open(splits=("val",)).val
    whole = classify(files.open_file(after), val).f1
    phone, chip = (files.open_file(_written(after, name, data, folder)) for name in ("litert", "micro"))
    found = {name: classify(net, val) for name, net in (("LiteRT", phone), ("tflite-micro", chip))}
    for name, judged in found.items():
        loss = whole - judged.f1
        yield _judged(f"{name}, int8: macro F1 {judged.f1:.4f} of {whole:.4f}, loses", loss, loss <= MUST_F1_LOSS,
                      MUST_F1_LOSS)  # fmt: skip
    size, memory = phone.num_bytes, files.listing(chip.path).ram or 0
    yield _judged("LiteRT, int8: bytes", size, size <= MUST_BYTES, MUST_BYTES, AIM_BYTES)
    yield _judged("tflite-micro, int8: bytes of memory", memory, memory <= MUST_ARENA, MUST_ARENA, AIM_ARENA)
    same = _same(phone, chip, val)
    yield _judged("the same class in both, share of val", same, same >= MUST_SAME, MUST_SAME)


def side_by_side(nets: Sequence[Path], data: str, folder: Path) -> Iterator[str]:
    """A table of nets for microcontrollers, all in int8, judged by the interpreter."""
    rows = []
    for number, path in enumerate(nets):
        net, header = files.load(path)
        cost = macs(net, torch.zeros(1, len(header.mean), header.size, header.size))
        try:
            made = _written(path, "micro", data, folder / str(number))
        except InputError as error:  # such as a net that integers change too much
            rows.append((str(path), f"{header.size}", "", "", f"{cost:,}", str(error)))
            continue
        val = Data(path=data).fed_as(header).open(splits=("val",)).val
        judged: Classified = classify(files.open_file(made), val)
        listing = files.listing(made)
        rows.append((str(path), f"{header.size}", f"{listing.flash:,}", f"{listing.ram:,}", f"{cost:,}",
                     f"{judged.f1:.4f}"))  # fmt: skip
    headings = ("net", "side", "flash, bytes", "memory, bytes", "MACs", "macro F1, int8")
    yield Table(headings=headings, rows=tuple(rows), caption="Nets for microcontrollers, by tflite-micro.").markdown()


def _written(path: Path, name: str, data: str, folder: Path) -> Path:
    """The int8 file in the format `name`, whatever it loses: what it loses is the figure."""
    config = ExportConfig(file=path, format=name, precision="int8", data=data, max_loss=1.0)
    out = folder / f"{path.stem}{config.suffix}"
    return out if out.exists() else make(replace(config, out=out), lambda _: None)


@torch.inference_mode()
def _same(one: Exported, other: Exported, batches: Sequence) -> float:
    agreed = torch.cat([one(images).argmax(1) == other(images).argmax(1) for images, _ in batches])
    return float(agreed.float().mean())


def _judged(what: str, value: float, fine: bool, must: float, aim: float | None = None) -> str:
    shown = f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
    wanted = f"must {must:,g}" + ("" if aim is None else f", aim {aim:,g}")
    return f"{'PASS' if fine else 'FAIL'}: {what}: {shown} ({wanted})"


if __name__ == "__main__":
    main()
