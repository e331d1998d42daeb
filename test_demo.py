"""Before and After on one screen: python test_demo.py --customized_model True --eval True."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from solution.shell import exit_with, guarded, refuse_empty


def truth(text: str) -> bool:
    """True or False by their names; argparse's bool would take "False" for True."""
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"say True or False, not {text!r}")
    return text.lower() == "true"


def arguments() -> argparse.Namespace:
    """The flags, parsed."""
    parser = argparse.ArgumentParser(description="Judge the Before model, or the After model beside it.")
    parser.add_argument("--customized_model", type=truth, default=True, metavar="{True,False}",
                        help="True: After, with Before beside it; False: Before alone")  # fmt: skip
    parser.add_argument("--eval", type=truth, default=True, metavar="{True,False}",
                        help="False: cost and speed only, no data is touched")  # fmt: skip
    parser.add_argument("--data", metavar="PATH", help="photos: folder, archive, .npz or torchvision name")
    parser.add_argument(
        "--weights", metavar="DIR", type=Path, help="folder with before and after, .safetensors or .packed"
    )
    parser.add_argument("--json", metavar="FILE", help="also write the figures as JSON; - prints nothing else")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--score", action="store_true", help="the competition's score too")
    return parser.parse_args()


def main() -> int:
    """Judge and show. Returns 0, or 2 after bad input, which is explained on standard error."""
    flags = arguments()
    return guarded(lambda: demo(flags))


def demo(flags: argparse.Namespace) -> None:
    """What the flags ask for."""
    from solution.demo import DemoConfig, show

    refuse_empty(sys.argv[1:])
    config = DemoConfig(
        both=flags.customized_model,
        judge=flags.eval,
        data=flags.data,
        weights=flags.weights,
        json_to=flags.json,
        device=flags.device,
        score=flags.score,
    )
    show(config)


if __name__ == "__main__":
    exit_with(main)
