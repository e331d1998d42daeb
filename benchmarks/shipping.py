"""What the exported After gains: latency against Before, bytes, quality, and how fast packed files unpack.

    python -m benchmarks.shipping pretrained/recycle9/before.safetensors pretrained/recycle9/after.safetensors \\
        ../shared/data/recycle9.tar --packed pretrained/recycle9/after.packed

All nets are asked in turns, one thread each, one image at a time: Before and After in PyTorch eager, and in ONNX
Runtime and OpenVINO in fp32 and in int8 (calibrated and proven on the data; a form that fails its proof is left out).

    python -m benchmarks.shipping ... --large runs/googlenet_small/before.safetensors ../shared/data/tiny100.tar.gz

also asks what int8 gains a net that is large enough to gain: against fp32 in the same runtime, one image and 64 at a
time.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from solution.compress.parametrized import materialized
from solution.compress.quantize import Quantize
from solution.contracts import InputError, StepContext
from solution.data.loaders import Data
from solution.evaluate.classify import classify
from solution.evaluate.cost import file_bytes, params
from solution.evaluate.speed import BenchmarkCase, Speed, Turns, measure
from solution.export import files
from solution.export.packed import packed
from solution.export.runtimes import EAGER, EXPORTING, case, form_for
from solution.models.classifiers import Classifier
from solution.report.plots import speed_table
from solution.report.tables import Table
from solution.runtime import hardware, seed_everything, set_threads

MUST_LATENCY, AIM_LATENCY = 15.0, 1.5
MUST_BYTES, AIM_BYTES, MUST_F1_LOSS = 1.15, 0.6, 0.005
MUST_UNPACK_MB_PER_S = 100.0
MUST_INT8, AIM_INT8, MANY = 2.8, 3.5, 64
_UNPACKINGS = 5


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description="Latency, bytes and quality of what is shipped.")
    parser.add_argument("before", type=Path, help="checkpoint of Before")
    parser.add_argument("after", type=Path, help="checkpoint of After")
    parser.add_argument("data", help="photos: judge the packed file, calibrate and prove int8")
    parser.add_argument("--packed", type=Path, help="the packed After (default: AFTER with .packed)")
    parser.add_argument("--precisions", nargs="+", default=["fp32", "int8"], help="of the exported forms")
    parser.add_argument("--rounds", type=int, default=20, help="after one of warm-up")
    parser.add_argument("--large", nargs=2, metavar=("FILE", "DATA"), help="another net: its int8 against its fp32")
    arguments = parser.parse_args()
    set_threads()
    print(hardware(), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        cases = list(cases_of(arguments, Path(folder)))
        speeds = measure(cases, Turns(rounds=arguments.rounds, batches=(1,)), log=lambda _: None)
    print(f"\n{speed_table(speeds).markdown()}\n\n{latencies(speeds).markdown()}")
    small = arguments.packed or arguments.after.with_suffix(packed.SUFFIX)
    print(f"\n{packed_file(arguments.after, small, arguments.data).markdown()}")
    print(f"\n{unpacking().markdown()}")
    if arguments.large is not None:
        print(f"\n{int8_gain(Path(arguments.large[0]), arguments.large[1], arguments.rounds).markdown()}")


def cases_of(arguments: argparse.Namespace, folder: Path) -> Iterator[BenchmarkCase]:
    """Before and After in PyTorch eager, and in every other form that can be made."""
    for role, path in (("before", arguments.before), ("after", arguments.after)):
        yield case(path, EAGER, 1, role)
        yield from (made for _, made in forms(path, role, arguments.precisions, arguments.data, folder / role))


def forms(
    path: Path, name: str, precisions: Sequence[str], data: str, folder: Path
) -> Iterator[tuple[Path, BenchmarkCase]]:
    """The net at `path`, timed under `name`, as a file for each runtime and precision; why one is left out is said."""
    for runtime, precision in itertools.product(EXPORTING, precisions):
        print(f"making {name}, {runtime} {precision}", flush=True)
        try:
            form = form_for(path, runtime, folder, precision, data)
            made = case(form, runtime, 1, name)
        except InputError as error:
            print(f"left out: {error}", flush=True)
        else:
            yield form, made


def latencies(speeds: list[Speed]) -> Table:
    """After's best form, which is eager when no other could be made, against Before in eager and in the same form."""
    found = {(speed.model, speed.runtime, speed.precision): speed for speed in speeds}
    best = min((speed for speed in speeds if speed.model == "after"), key=_median_ms)
    form, twin = f"{best.runtime} {best.precision}", found.get(("before", best.runtime, best.precision))
    eager = found["before", EAGER, "fp32"]
    rows = [_ratio(f"PyTorch eager's Before / After in {form}", eager, best, f"must be {MUST_LATENCY:.0f}x")]
    if twin is not None:
        rows.append(_ratio(f"Before / After, both in {form}", twin, best, f"aim {AIM_LATENCY}x"))
    headings = ("latency of one image, one thread", "medians", "quickest calls", "wanted")
    note = "Quickest calls are those that no other work on the machine disturbed."
    return Table(headings=headings, rows=tuple(rows), note=note)


def int8_gain(path: Path, data: str, rounds: int) -> Table:
    """int8 against fp32 of the net at `path` in each runtime that has both: ratios of time, and accuracy on val."""
    with tempfile.TemporaryDirectory() as folder:
        made = list(forms(path, path.name, ("fp32", "int8"), data, Path(folder)))
        speeds = measure([one for _, one in made], Turns(rounds=rounds, batches=(1, MANY)), log=lambda _: None)
        val = _val(path, data)
        accuracies = [100 * classify(files.open_file(form), val).accuracy for form, _ in made]
    found = {(one.runtime, one.precision): (one, share) for one, share in zip(speeds, accuracies, strict=True)}
    both = [runtime for runtime in EXPORTING if {(runtime, "fp32"), (runtime, "int8")} <= found.keys()]
    rows = [(runtime, *_gain(found[runtime, "fp32"], found[runtime, "int8"])) for runtime in both]
    rows.append(("wanted", "", "", f"must {MUST_INT8}x", f"aim {AIM_INT8}x", "", "at most 0.5 lower"))
    headings = (path.stem, "fp32, ms", "int8, ms", "batch 1", f"batch {MANY}", "top-1 of fp32", "top-1 of int8")
    return Table(headings=headings, rows=tuple(rows), note="Medians of calls in turns, one thread; accuracy on val.")


def _gain(whole: tuple[Speed, float], rounded: tuple[Speed, float]) -> Iterator[str]:
    """Times, ratios and accuracies of one runtime; each form as its speed and its accuracy in percent."""
    (fp32, _), (int8, _) = whole, rounded
    yield from (f"{_median_ms(speed):.2f}" for speed in (fp32, int8))
    yield from (f"{int8.images_per_s()[batch] / fp32.images_per_s()[batch]:.2f}x" for batch in (1, MANY))
    yield from (f"{share:.2f} %" for _, share in (whole, rounded))


def _val(path: Path, data: str) -> DataLoader:
    """The val split as the net at `path` wants its pictures."""
    header = files.read_header(path)
    return Data(path=data).fed_as(header).open(splits=("val",)).val


def _median_ms(speed: Speed) -> float:
    return speed.percentile_ms(50)


def _ratio(name: str, slow: Speed, fast: Speed, wanted: str) -> tuple[str, str, str, str]:
    medians, quickest = (slow.percentile_ms(percent) / fast.percentile_ms(percent) for percent in (50, 0))
    return name, f"{medians:.2f}x", f"{quickest:.2f}x", wanted


def packed_file(after: Path, small: Path, data: str) -> Table:
    """Bytes a parameter, and the macro F1 that packing costs on val."""
    net, val = files.load(small)[0], _val(small, data)
    f1 = {path: classify(files.open_file(path), val).f1 for path in (after, small)}
    size, whole = file_bytes(small), params(files.load(after)[0])
    rows = (
        ("bytes", f"{size:,} (checkpoint: {file_bytes(after):,})", ""),
        ("bytes a parameter of After", f"{size / whole:.3f} ({whole:,})", f"must be {MUST_BYTES}, aim {AIM_BYTES}"),
        ("bytes a parameter that is left", f"{size / params(net):.3f} ({params(net):,})", ""),
        ("macro F1 on val", f"{f1[small]:.4f} (checkpoint: {f1[after]:.4f})", f"may lose {MUST_F1_LOSS}"),
    )
    return Table(headings=("packed After", "measured", "wanted"), rows=rows)


def unpacking() -> Table:
    """MB/s of float32 weights that come out of packed files of a ResNet-50 with random weights, on one core."""
    seed_everything(0)
    net = Classifier(name="torchvision:resnet50").build(1000).eval()
    context = StepContext(example=torch.zeros(1, 3, 64, 64))
    wanted = f"must be {MUST_UNPACK_MB_PER_S:.0f}"
    rows = [_unpacked("float32", net, wanted)]
    rows += [_unpacked(scheme, Quantize(scheme=scheme)(net, context), wanted) for scheme in ("int8", "int4")]
    note = f"Median of {_UNPACKINGS} from the file to float32 tensors, hash and checks included."
    headings = ("packed ResNet-50", "bytes", "s", "MB/s of float32", "MB/s of processor time", "wanted")
    return Table(headings=headings, rows=tuple(rows), note=note)


def _unpacked(name: str, net: nn.Module, wanted: str) -> tuple[str, ...]:
    """Unpack and widen; the processor's time counts what this process did, whatever else ran on the core."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "net.packed")
        path.write_bytes(packed.pack(net.state_dict(), {}))
        times = sorted(_once(path) for _ in range(_UNPACKINGS))
        seconds, busy = times[_UNPACKINGS // 2]
        num_bytes = sum(tensor.nbytes for tensor in materialized(net).state_dict().values())
        rates = (f"{num_bytes / 1e6 / spent:.0f}" for spent in (seconds, busy))
        return name, f"{file_bytes(path):,}", f"{seconds:.2f}", *rates, wanted


def _once(path: Path) -> tuple[float, float]:
    wall, busy = time.perf_counter(), time.process_time()
    _widened(packed.unpacked(packed.contents(path)))
    return time.perf_counter() - wall, time.process_time() - busy


def _widened(state: Mapping[str, Tensor]) -> list[Tensor]:
    """float32 weights of codes and scales, as a net makes them when it first runs; other tensors are so already."""
    pairs = [(codes, state[f"{name[:-1]}1"]) for name, codes in state.items() if name.endswith(".original0")]
    return [codes.float() * scale.float().view(-1, *[1] * (codes.dim() - 1)) for codes, scale in pairs]


if __name__ == "__main__":
    main()
