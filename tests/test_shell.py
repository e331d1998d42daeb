"""How commands end, what they leave, and who may write where: as processes see it."""

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest

from solution import temporaries
from solution.contracts import InputError
from solution.locks import claimed
from solution.runtime import ROOT, write_text, written_whole
from solution.shell import guarded

WRITING = """
import hashlib, signal, sys
from pathlib import Path
from solution.runtime import written_whole
from solution.shell import guarded

def command():
    with written_whole(Path(sys.argv[1])) as temporary:
        temporary.write_text("half")
        print(temporary, flush=True)
        {work}

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background processes ignore it
sys.exit(guarded(command, "type it again"))
"""
COMPUTING = "hashlib.pbkdf2_hmac('sha512', b'a', b'b', 200_000_000)"  # minutes in which no Python line runs


def start(code, *words):
    process = subprocess.Popen([sys.executable, "-c", code, *map(str, words)], cwd=ROOT, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
    return process, process.stdout.readline().strip()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("work", [COMPUTING, "__import__('time').sleep(600)"])
def test_a_signal_ends_a_command_wherever_it_is(tmp_path, number, code, work):
    process, temporary = start(WRITING.format(work=work), tmp_path / "net.bin")
    assert Path(temporary).exists()
    process.send_signal(number)
    _, error = process.communicate(timeout=20)
    assert process.returncode == code
    assert error.strip() == "stopped; type it again"
    assert list(tmp_path.iterdir()) == []


def test_a_signal_to_the_whole_group_may_reach_a_worker_first(tmp_path):
    work = """
        from multiprocessing import active_children
        from torch.utils.data import DataLoader
        batches = iter(DataLoader([1.0] * 10**6, num_workers=1))
        next(batches)
        active_children()[0].terminate()
        import os, threading
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM)).start()
        all(batch is not None for batch in batches)
        """
    process, _ = start(WRITING.format(work=work), tmp_path / "net.bin")
    _, error = process.communicate(timeout=60)
    assert (process.returncode, error.strip()) == (143, "stopped; type it again")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("make", [temporaries.file_beside, temporaries.folder_beside])
def test_a_signal_leaves_nothing_whichever_line_it_interrupts(tmp_path, make):
    for line in range(1000):
        left = line

        def interrupt(frame, event, _):
            nonlocal left
            if frame.f_code.co_filename != temporaries.__file__ or frame.f_code.co_name == "remove_all":
                return None
            if event == "line":
                left -= 1
                if left == -1:
                    sys.settrace(None)
                    raise KeyboardInterrupt
            return interrupt

        def command(interrupt=interrupt):
            sys.settrace(interrupt)
            with make(tmp_path / "history.csv"):
                pass
            sys.settrace(None)

        code = guarded(command)
        assert list(tmp_path.iterdir()) == [], line
        if code == 0:
            break
        assert code == 130
    assert 10 < line < 1000


def test_a_stop_leaves_what_processes_of_an_earlier_command_still_use():
    used = []
    assert guarded(lambda: used.append(Path(tempfile.mkdtemp(prefix="pymp-")))) == 0

    def stopped():
        raise KeyboardInterrupt

    assert guarded(stopped) == 130
    assert used[0].is_dir()


def test_what_a_killed_process_left_is_swept_and_nothing_else_is(tmp_path):
    killed, left = start(WRITING.format(work="__import__('time').sleep(600)"), tmp_path / "net.bin")
    alive, kept = start(WRITING.format(work="__import__('time').sleep(600)"), tmp_path / "net.bin")
    (tmp_path / ".mine.bin").write_text("a user's own hidden file")
    killed.kill()
    killed.communicate()
    write_text(tmp_path / "another.txt", "whole")
    assert not Path(left).exists()
    assert {path.name for path in tmp_path.iterdir()} == {".mine.bin", "another.txt", Path(kept).name}
    alive.terminate()
    alive.communicate(timeout=20)


FULL = """
import resource, sys
from pathlib import Path
import torch
from solution.shell import guarded
from solution.runtime import write_text, written_whole
from safetensors.torch import save_file

def text(path): write_text(path, "x" * 10**6)
def tensors(path):
    with written_whole(path) as temporary: save_file({{"a": torch.zeros(10**6)}}, temporary)
def log(path): path.open("w").write("x" * 10**6)

resource.setrlimit(resource.RLIMIT_FSIZE, (10**5, 10**5))
sys.exit(guarded(lambda: {writer}(Path(sys.argv[1]))))
"""


@pytest.mark.parametrize("writer", ["text", "tensors", "log"])
def test_a_disk_without_room_ends_with_one_line_and_code_2(tmp_path, writer):
    out = tmp_path / "out"
    done = subprocess.run([sys.executable, "-c", FULL.format(writer=writer), str(out)], cwd=ROOT, capture_output=True,
                          text=True)  # fmt: skip
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "larger than is allowed" in done.stderr
    assert writer == "log" or list(tmp_path.iterdir()) == []


CLAIMING = """
import sys, time
from pathlib import Path
from solution.locks import claimed
with claimed(Path(sys.argv[1])):
    print("claimed", flush=True)
    time.sleep(600)
"""


def test_a_second_writer_is_refused_and_told_who_the_first_is(tmp_path):
    out = tmp_path / "runs" / "mine"
    process, _ = start(CLAIMING, out)
    with (
        pytest.raises(InputError, match=f"is being written by process {process.pid}, started 20..-..-.. "),
        claimed(out),
    ):
        pass
    process.kill()
    process.communicate()
    with claimed(out), pytest.raises(InputError, match="already being written by this process"), claimed(out):
        pass
    assert not out.parent.joinpath(".mine.lock").exists()


def test_a_claim_that_wrote_nothing_leaves_nothing(tmp_path):
    with claimed(tmp_path / "a" / "b" / "c.bin"):
        assert (tmp_path / "a" / "b").is_dir()
    assert not (tmp_path / "a").exists()


def test_warnings_are_one_plain_line(tmp_path):
    code = "import warnings; from solution.shell import guarded; guarded(lambda: warnings.warn('a\\nb'))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr == "warning: a b\n"


@pytest.mark.parametrize("letters", [20, 40, 60])
def test_sockets_of_processes_fit_into_a_temporary_folder_of_a_long_name(letters):
    code = (
        "import multiprocessing.connection, sys\n"
        "from solution.shell import guarded\n"
        "sys.exit(guarded(lambda: multiprocessing.connection.Listener().close()))\n"
    )
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="k" * (letters - 13)) as folder:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT,
                              env=os.environ | {"TMPDIR": folder})  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_an_error_inside_leaves_the_old_file(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(ZeroDivisionError), written_whole(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
        raise ZeroDivisionError
    assert (tmp_path / "a.txt").read_text() == "old"
    assert len(os.listdir(tmp_path)) == 1  # noqa: PTH208


def test_a_command_that_started_processes_ends_without_a_word_and_leaves_nothing(tmp_path):
    code = (
        "import multiprocessing, pathlib, sys, tempfile\n"
        "from multiprocessing.util import get_temp_dir\n"
        "from solution.shell import guarded\n"
        "sys.exit(guarded(lambda: print(get_temp_dir())))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_a_process_ends_with_the_number_of_its_command_and_all_that_is_registered_for_its_end(tmp_path):
    """What modules hold is not taken down, which would take a second with PyTorch."""
    code = f"""
    import atexit
    from pathlib import Path

    from solution.shell import exit_with

    class Held:
        def __del__(self):
            print("taken down", flush=True)

    held = Held()

    def command():
        from multiprocessing.util import Finalize

        atexit.register(print, "registered")
        Finalize(None, Path({str(tmp_path / "finalized")!r}).touch, exitpriority=-200)
        print("computed")
        return 3

    exit_with(command)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout.split(), done.stderr) == (3, ["computed", "registered"], "")
    assert (tmp_path / "finalized").exists()
