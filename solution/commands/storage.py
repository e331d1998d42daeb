"""`python -m solution storage URL`: one process that shares a search's database with many workers, over gRPC.

A database bears some hundred connections; a proxy holds few of them open for as many workers as one likes.
"""

from __future__ import annotations

import argparse
import os
import warnings

HELP = "share the database of a search with many workers: they take --storage grpc://HOST:PORT"
_THREADS = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """URL, and where the proxy listens."""
    from solution.commands.search import STORAGE

    parser.add_argument("url", metavar="URL", nargs="?", help=f"of the database (default: ${STORAGE})")
    parser.add_argument("--host", default="localhost",
                        help="address to listen at; whoever reaches it can write (default: localhost)")  # fmt: skip
    parser.add_argument("--port", type=int, default=13000, help="port to listen at (default: 13000)")


def run(arguments: argparse.Namespace) -> None:
    """Serve until Ctrl-C."""
    from concurrent.futures import ThreadPoolExecutor

    from solution.commands.search import STORAGE
    from solution.contracts import InputError
    from solution.runtime import needed
    from solution.search.study import open_storage
    from solution.shell import without_password

    url = arguments.url or os.environ.get(STORAGE)
    if not url or "://" not in url or url.startswith("grpc://"):
        raise InputError(f"name the database that is shared, such as postgresql://user@host/trials, or set ${STORAGE}")
    if not 0 < arguments.port < 1 << 16:
        raise InputError(f"--port must be 1 to 65535, got {arguments.port}")
    with needed("the proxy", "grpc"):
        import grpc  # noqa: F401 - Optuna imports it late, and says less
    from optuna.exceptions import ExperimentalWarning
    from optuna.storages import run_grpc_proxy_server

    storage, place = open_storage(url), f"{arguments.host}:{arguments.port}"
    print(f"{without_password(url)} is shared at grpc://{place}; Ctrl-C ends it", flush=True)
    try:
        with warnings.catch_warnings(action="ignore", category=ExperimentalWarning):
            run_grpc_proxy_server(
                storage, host=arguments.host, port=arguments.port, thread_pool=ThreadPoolExecutor(_THREADS)
            )
    except RuntimeError as error:
        raise InputError(f"nothing can listen at {place} ({error}): name another --port") from error
