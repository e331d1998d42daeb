"""`python -m solution export FILE`: a net in the form in which it ships, proven to compute what it computed."""

from __future__ import annotations

import argparse
from pathlib import Path

from solution.commands.model import FORMS, add_model_flags, model_of

GO_ON = "nothing was written; run the same command again"
HELP = "write a checkpoint as a packed file, ONNX, LiteRT, a web page and others, and check it against the net"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """FILE and its options."""
    parser.add_argument("model", metavar="MODEL", help=FORMS)
    parser.add_argument("--format", required=True, help="packed, onnx, openvino, pt2, litert, micro, executorch or web")
    parser.add_argument(
        "--precision", default="", help="fp32 (default; micro: int8), fp16, int8, int8_full, int8_dynamic"
    )
    parser.add_argument("--data", metavar="PATH", help="photos that prove the file (default: input/data, or rendered)")
    parser.add_argument("--out", metavar="FILE", type=Path, help="where to (default: next to FILE)")
    parser.add_argument("--calibration-images", metavar="N", type=int, help="for int8 (default: up to 256)")
    parser.add_argument("--flash", metavar="BYTES", help='of a microcontroller, such as "512 KiB": more is refused')
    parser.add_argument("--ram", metavar="BYTES", help='of a microcontroller, such as "256 KiB": more is refused')
    parser.add_argument("--max-loss", metavar="F1", type=float, help="macro F1 on val that may be lost, as a fraction")
    add_model_flags(parser)


def run(arguments: argparse.Namespace) -> None:
    """Export, print the comparison and the size."""
    from solution.evaluate.cost import file_bytes
    from solution.export.exporter import ExportConfig, make, pace
    from solution.export.files import listing
    from solution.locks import claimed
    from solution.runtime import set_threads

    set_threads()
    model = model_of(arguments)
    config = ExportConfig(
        file=model,
        format=arguments.format,
        precision=arguments.precision,
        out=arguments.out,
        data=arguments.data,
        calibration_images=arguments.calibration_images,
        max_loss=arguments.max_loss,
        flash=arguments.flash,
        ram=arguments.ram,
    )
    with claimed(config.path):
        path = make(config)
    if line := pace(config):
        print(line)
    before = model if isinstance(model, Path) else model.own or model.weights
    num_bytes = file_bytes(path) if path.is_dir() else listing(path).num_bytes
    print(f"{path}: {num_bytes:,} bytes" + (f" ({before}: {file_bytes(before):,})" if before else ""))
