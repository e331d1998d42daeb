"""`python -m solution serve`: a page where a photo is dropped and nets classify it side by side."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from solution.commands.model import FORMS, RUNTIME_NAMES, add_model_flags, models_of
from solution.contracts import InputError

HELP = "open a page where a photo is dropped and Before and After classify it side by side"
_MB, _MOST_MB = 1_000_000, 1000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """FILE... and where to serve."""
    parser.add_argument("models", metavar="MODEL", nargs="*",
                        help=f"an exported file, or {FORMS}; two are called Before and After "
                        "(default: the pretrained Before and the packed After)")  # fmt: skip
    parser.add_argument("--runtime", help=f"{RUNTIME_NAMES} (default: each file's own)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine)")
    parser.add_argument("--port", type=int, default=8000, help="0 takes any that is free (default: 8000)")
    parser.add_argument("--limit-mb", metavar="MB", type=float, default=10.0, help="largest photo taken (default: 10)")
    add_model_flags(parser)


def run(arguments: argparse.Namespace) -> None:
    """Open the files, print where the page is, serve until it is stopped."""
    from solution.runtime import set_threads
    from solution.serve.view import Panel, open_nets
    from solution.serve.web import application, server

    if not 0 < arguments.limit_mb <= _MOST_MB:
        raise InputError(f"--limit-mb must be a number above 0, {_MOST_MB:,} at most, got {arguments.limit_mb:g}")
    if not 0 <= arguments.port < 1 << 16:
        raise InputError(f"--port must be 0 to 65535, got {arguments.port}")
    set_threads()
    limit_bytes = round(arguments.limit_mb * _MB)
    with tempfile.TemporaryDirectory() as folder:
        models = models_of(arguments, arguments.models) or _pretrained()
        panel = Panel(nets=open_nets(models, arguments.runtime, Path(folder)))
        made = server(application(panel, limit_bytes, arguments.host), arguments.host, arguments.port, limit_bytes)
        if arguments.host not in ("127.0.0.1", "localhost", "::1"):
            print(f"anyone who reaches {arguments.host} can open this page; there is no password", flush=True)
        host, port = getattr(made, "effective_listen", [(made.effective_host, made.effective_port)])[0]
        print(f"http://{host}:{port}  (Ctrl-C stops)", flush=True)
        made.run()


def _pretrained() -> list[Path]:
    """Before as it was trained, and After as it is shipped."""
    from solution.demo import MAIN_SET, PRETRAINED

    return [PRETRAINED / MAIN_SET / name for name in ("before.safetensors", "after.packed")]
