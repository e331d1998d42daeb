"""A PostgreSQL server of a test's own, on a free local port, in a folder of its own."""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

NAME, PASSWORD = "tester", "s3cret"


def programs():
    """The folder that holds `initdb` and `postgres`, or None. Debian keeps them out of the path."""
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    places = [path.parent for path in sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))]
    return places[-1] if places else None


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def answers(port):
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.1)


@contextlib.contextmanager
def postgres():
    """The URL of a running server's database, with a password. The server does not run as root, which it refuses."""
    own = {"user": "nobody"} if os.getuid() == 0 else {}
    folder, port = Path(tempfile.mkdtemp(prefix="postgres-")), free_port()
    data, secret = folder / "data", folder / "secret"
    secret.write_text(PASSWORD)
    if own:
        nobody = pwd.getpwnam("nobody")
        for path in (folder, secret):
            os.chown(path, nobody.pw_uid, nobody.pw_gid)
    about = ["-U", NAME, "-A", "scram-sha-256", f"--pwfile={secret}", "-E", "UTF8", "--no-locale", "-N"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder, **own}
    subprocess.run([programs() / "initdb", "-D", data, *about], check=True, **quiet)
    words = ["-D", data, "-p", str(port), "-k", folder, "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
    server = subprocess.Popen([programs() / "postgres", *words], **quiet)
    try:
        wait_for(lambda: answers(port))
        yield f"postgresql://{NAME}:{PASSWORD}@127.0.0.1:{port}/postgres"
    finally:
        server.send_signal(signal.SIGINT)  # SIGTERM would wait for clients that a failed test left behind
        server.wait(timeout=60)
        shutil.rmtree(folder)
