"""The command line: ``python -m solution COMMAND``. Each command is a file of `solution/commands`."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

from solution.commands import (
    bench,
    compress,
    data,
    doctor,
    export,
    inspect,
    predict,
    prepare,
    report,
    run,
    score,
    search,
    serve,
    shrink,
    storage,
    validate,
)
from solution.contracts import InputError
from solution.runtime import num_processes
from solution.shell import exit_with, guarded, refuse_empty
from solution.text import did_you_mean

COMMANDS = {
    "data": data,
    "prepare": prepare,
    "run": run,
    "shrink": shrink,
    "compress": compress,
    "search": search,
    "storage": storage,
    "export": export,
    "inspect": inspect,
    "predict": predict,
    "validate": validate,
    "bench": bench,
    "serve": serve,
    "report": report,
    "score": score,
    "doctor": doctor,
}


def main(words: Sequence[str] | None = None) -> int:
    """Run one command. Returns 0, 1 after a verdict of FAIL, or 2 after bad input, explained on standard error."""
    parser = argparse.ArgumentParser(prog="featherweight", description="Featherweight: image models made small.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        command.add_arguments(commands.add_parser(name, help=command.HELP, description=command.HELP))
    words = sys.argv[1:] if words is None else list(words)
    if unknown := _unknown(words, commands.choices):
        parser.error(unknown)
    arguments = parser.parse_args(words)
    command = COMMANDS[arguments.command]

    def start() -> int | None:
        refuse_empty(words)
        if num_processes() > 1 and command is not run:
            raise InputError(f"{arguments.command} is not shared by processes: start it without a launcher")
        return command.run(arguments)

    return guarded(start, getattr(command, "GO_ON", ""))


def _unknown(words: Sequence[str], parsers: Mapping[str, argparse.ArgumentParser]) -> str:
    """What is wrong with a command or a flag that does not exist; "" when all do."""
    if not words or words[0].startswith("-"):
        return ""
    name, *rest = words
    if name not in parsers:
        return f"there is no command {name!r}{did_you_mean(name, parsers)}; there are: {', '.join(parsers)}"
    flags = [*re.findall(r"--[\w-]+", parsers[name].format_usage()), "--help"]
    for word in rest[: rest.index("--") if "--" in rest else None]:
        flag = word.partition("=")[0]
        if re.fullmatch(r"--[\w-]+", flag) and not any(own.startswith(flag) for own in flags):
            hint = did_you_mean(flag, flags)
            return f"{name} has no {flag}{hint}; `python -m solution {name} --help` lists its flags"
    return ""


def start() -> NoReturn:
    """`main` as a process of its own."""
    exit_with(main)


if __name__ == "__main__":
    start()
