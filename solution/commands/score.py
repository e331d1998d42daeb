"""`python -m solution score --macs N --f1 X`: the competition's score of two figures."""

from __future__ import annotations

import argparse

from solution.evaluate.score import Scorer

HELP = "the competition's score of MACs and macro F1, lower is better"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """--macs and --f1."""
    parser.add_argument("--macs", type=float, required=True, help="multiply-accumulates of one image")
    parser.add_argument("--f1", type=float, required=True, help="macro F1, a fraction of 1")


def run(arguments: argparse.Namespace) -> None:
    """Print the score, then its terms with more digits, and a warning near the cliff."""
    scorer = Scorer()
    macs, f1 = arguments.macs, arguments.f1
    score = scorer(macs, f1)
    print(f"{score:.4f}")
    print(f"  {score:.5f} = MACs term {scorer.macs_term(macs):.5f} + F1 term {scorer.f1_term(f1):.5f}")
    if warning := scorer.warning(f1):
        print(f"  warning: {warning}")
