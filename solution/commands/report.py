"""`python -m solution report DIR...`: the rows of finished runs, and their spread over seeds."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "mean and spread of one recipe's runs with several seeds"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """DIR..."""
    parser.add_argument("folders", metavar="DIR", nargs="+", type=Path, help="folders that `run` wrote")


def run(arguments: argparse.Namespace) -> None:
    """Print the table."""
    from solution.contracts import InputError
    from solution.report.rows import read_rows
    from solution.report.spread import spread_table

    runs = [read_rows(folder) for folder in arguments.folders]
    for folder, rows in zip(arguments.folders, runs, strict=True):
        if not rows:
            raise InputError(
                f"{folder} holds no rows.json with rows: name a folder that `python -m solution run` wrote"
            )
    print(spread_table(runs))
