"""How a command ends: by itself, by bad input, by a signal, by a full disk. Always in one line, never half-written."""

from __future__ import annotations

import atexit
import contextlib
import io
import os
import re
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from solution import temporaries
from solution.contracts import InputError
from solution.runtime import is_main_process, no_room

_GRACE_S = 1.5
"""How long a stopped command may take to end by itself: some libraries compute for minutes without looking up."""
_FIRST_S = 10.0
"""How long the launcher of several processes may take to end the others when the first has ended."""
_watching = threading.Event()
_RACE_S = 0.5
"""How much later than its workers a process may receive a signal to the whole group."""
_BY_NAME = "postgres|mysql|mariadb|mssql|oracle|ssh"
"""Before ://, where what stands alone before the @ is a name, and not a token."""
_OF_NONE = "--exports"
"""The flag whose list may hold nothing."""
_SECRET = "(?:passw|pwd|token|secret|api_?key|credential|signature)"
"""What settings behind the ? of a URL are called that nobody else should read."""


class Terminated(KeyboardInterrupt):
    """SIGTERM: it ends a command as Ctrl-C does."""


def guarded(command: Callable[[], Any], advice: str = "") -> int:
    """Run `command`. Returns the number that it returns, else 0; 2 after bad input or on a full disk; 130 or 143 when
    a signal stopped it.

    advice  how to go on after a stop, printed after "stopped"
    """
    code, stopped = 0, f"stopped{f'; {advice}' if advice else ''}"
    with _plain_warnings(), temporaries.own_temporary_folder(), _ended_in_time(stopped):
        try:
            done = _or_stopped(command)
            code = done if isinstance(done, int) else 0
            sys.stdout.flush()
        except InputError as error:
            return 2 if _ended_with_the_first() else _say(f"error: {error}", 2)
        except KeyboardInterrupt as stop:
            # Those too whose own removal was interrupted; libraries still clean up in the folder of the temporary ones.
            temporaries.remove_all(but=tempfile.gettempdir())
            number = signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT
            return _say(stopped if is_main_process() else "", 128 + number)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except OSError as error:
            if not (reason := no_room(error)):
                raise
            path = Path(str(error.filename or ""))
            where = f": {path.parent / temporaries.final_name(path)}" if error.filename else ""
            return _say(f"error: {reason}{where}; make room, or write elsewhere (--out, SOLUTION_CACHE, TMPDIR)", 2)
    return code


def _or_stopped(command: Callable[[], Any]) -> Any:
    """What `command` returns. Where a signal to the whole group ends a worker first, the error is a stop, too."""
    try:
        return command()
    except InputError:
        raise
    except Exception as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise error.__context__ from None
        time.sleep(_RACE_S)
        raise


def exit_with(command: Callable[[], int]) -> NoReturn:
    """Run `command`, and end the process with the number that it returns.

    The modules are not taken down: with PyTorch that takes a second, in which a stopped command would still be there.
    """
    code: int | None = None

    def leave() -> None:
        if code is not None:
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # a log shows each line as it comes
    atexit.register(leave)  # the first that is registered is the last that runs
    code = command()
    sys.exit(code)


def without_password(text: str) -> str:
    """`text` with *** in place of the passwords and tokens of its URLs."""
    text = re.sub(rf"\b((?!{_BY_NAME})[a-z][a-z\d+.-]*://)[^/\s:@'\"]+@", r"\1***@", text)
    text = re.sub(r"(host(?:name)? ['\"])[^\s@'\"]*@", r"\1***@", text)  # of a password that holds an "@"
    text = re.sub(r"(://[^/\s:@]*):[^\s'\"]*@", r"\1:***@", text)  # a password may hold "/" and "@"
    return re.sub(rf"([?&][\w.-]*{_SECRET}[\w.-]*=)[^&\s'\"]*[^&\s'\":,;.)]", r"\1***", text, flags=re.IGNORECASE)


def _ended_with_the_first() -> bool:
    """Whether this is a process besides the first, which prints what is wrong for all and is ended with it."""
    try:
        time.sleep(0 if is_main_process() else _FIRST_S)
    except KeyboardInterrupt:
        return True
    return False


def _say(line: str, code: int) -> int:
    if line:
        print(without_password(line), file=sys.stderr, flush=True)
    return code


def refuse_empty(words: Sequence[str]) -> None:
    """`InputError` when a word of the command line is empty: as a path it would name the folder that one is in."""
    for index, word in enumerate(words):
        flag = word.rstrip("=") or (words[index - 1] if index else "")
        if flag != _OF_NONE and (not word or re.fullmatch(r"--[\w-]+=", word)):
            where = f"the value of {flag}" if flag.startswith("--") else f"word {index + 1} of the command"
            raise InputError(f"{where} is empty: give one; is a variable of the shell not set?")


@contextlib.contextmanager
def _plain_warnings() -> Iterator[None]:
    """Inside: a warning is one line without a place in some file."""

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        if is_main_process():
            print(without_password(f"warning: {' '.join(str(message).split())}"), file=sys.stderr, flush=True)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


@contextlib.contextmanager
def _ended_in_time(stopped: str) -> Iterator[None]:
    """Inside: a signal stops the command, and ends the process when it does not stop within `_GRACE_S`."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    done = threading.Event()
    handler = signal.signal(signal.SIGTERM, _raise)
    descriptor = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    _watching.set()
    watch = threading.Thread(target=_watch, args=(reading, done, stopped), daemon=True)
    watch.start()
    try:
        yield
    finally:
        done.set()
        _watching.clear()
        signal.set_wakeup_fd(descriptor)
        signal.signal(signal.SIGTERM, handler)
        os.write(writing, b"\0")
        watch.join()
        os.close(writing)
        os.close(reading)


def _raise(*_: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough
    raise Terminated


def _watch(reading: int, done: threading.Event, stopped: str) -> None:
    """Wait for a signal. Only this thread is sure to run while a library computes."""
    while not done.is_set():
        number = os.read(reading, 1)[0]
        if number in (signal.SIGINT, signal.SIGTERM) and not done.wait(_GRACE_S):
            temporaries.remove_all()
            os.write(2, f"{stopped}\n".encode() if is_main_process() else b"")
            os._exit(128 + number)


def _forget() -> None:
    """A forked child, such as one that loads data, dies of a signal as processes do."""
    if _watching.is_set():
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


os.register_at_fork(after_in_child=_forget)
