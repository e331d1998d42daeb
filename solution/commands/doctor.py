"""`python -m solution doctor`: what is installed, what this machine can do, what lies in caches, and what is wrong.

It starts without any library, so that it can name one that is missing.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from solution.contracts import InputError
from solution.runtime import (
    ROOT,
    cache_folder,
    check_writable,
    commit,
    imitates_bf16,
    input_folder,
    instructions,
    processor,
    threads_wanted,
)

HELP = "what is installed, what this machine can do, what the caches take, what is wrong and what to type"

_OWN = re.compile(r"(?P<what>views|answers|.+-\d+)-[0-9a-f]{24,32}\.(npy|json)")
"""Files of the cache, which are made again when they are needed."""
_MODULES = {"opencv-python-headless": "cv2", "pillow": "PIL", "pyyaml": "yaml", "scikit-learn": "sklearn"}
_ROOM_BYTES = 1 << 30
"""Less room on a disk than this is reported."""
_IMPORTS = """
import sys
for name in sys.argv[1:]:
    print(f"?{name}", flush=True)
    try:
        __import__(name)
        print("fine", flush=True)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}".replace("\\n", " "), flush=True)
"""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line: what was looked at and what was found.

    advice   what is wrong, and what to type; "" when all is well
    broken   commands fail because of it
    """

    name: str
    found: str
    wanted: str = ""
    advice: str = ""
    broken: bool = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """--clean."""
    parser.add_argument("--clean", action="store_true", help="delete what this project has cached, and nothing else")


def run(arguments: argparse.Namespace) -> None:
    """Print four tables and what is wrong. `InputError` when something is broken."""
    if arguments.clean:
        print(clean())
    core, extras = requirements()
    sections = {
        "versions": versions(core),
        "machine": machine(),
        "extras": [finding for extra, texts in extras.items() for finding in in_extra(extra, texts)],
        "caches and folders": [*caches(), *folders()],
    }
    for title, findings in sections.items():
        _show(title, findings)
    wrong = [finding for findings in sections.values() for finding in findings if finding.advice]
    for finding in wrong:
        print(f"{'broken' if finding.broken else 'note'}: {finding.name}: {finding.advice}")
    broken = [finding.name for finding in wrong if finding.broken]
    if broken:
        raise InputError(f"{len(broken)} broken: {', '.join(broken)}; what to type stands above")
    print("nothing is broken")


def requirements() -> tuple[list[str], dict[str, list[str]]]:
    """What the project needs, and {extra: what it needs}, as `name>=1,<2`."""
    if (ROOT / "pyproject.toml").is_file():
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        return (ROOT / "requirements.txt").read_text(encoding="utf-8").split(), project["optional-dependencies"]
    core, extras = list[str](), dict[str, list[str]]()
    for line in requires("featherweight") or ():
        text, _, marker = line.partition(";")
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", marker)
        (extras.setdefault(extra[1], []) if extra else core).append(text.strip())
    return core, extras


def versions(core: Sequence[str]) -> list[Finding]:
    """This project, Python, and each library that it needs: its version, and whether it can be imported."""
    here = _version("featherweight") or "from its folder"
    own = Finding(name="featherweight", found=" ".join(filter(None, (here, commit()))))
    python = Finding(name="python", found=platform.python_version(), wanted=">=3.11")
    names = {text: _name(text) for text in core}
    failed = _failed([_module(name) for name in names.values() if _version(name)])
    return [own, python, *(_library(text, name, failed) for text, name in names.items())]


def _library(text: str, name: str, failed: dict[str, str]) -> Finding:
    have, wanted = _version(name), text[len(name) :]
    install = f'pip install "{text}"'
    if have is None:
        advice = f"it is not installed: {install}"
    elif reason := failed.get(_module(name)):
        advice = f'it cannot be imported ({reason}): pip install --force-reinstall "{text}"'
    else:
        inside = is_inside(have, wanted)
        advice = "" if inside else f"this version was not tried: {install}"
        return Finding(name=name, found=have, wanted=wanted, advice=advice)
    return Finding(name=name, found=have or "missing", wanted=wanted, advice=advice, broken=True)


def is_inside(have: str, wanted: str) -> bool:
    """Whether a version lies in a range such as ">=1,<2"; True where the range cannot be read."""
    try:
        from packaging.specifiers import SpecifierSet
    except ImportError:
        return True
    return SpecifierSet(wanted).contains(have, prereleases=True)


def _failed(modules: Sequence[str]) -> dict[str, str]:
    """{module: why it cannot be imported}, found in processes of their own: a bad library may end its process."""
    failed: dict[str, str] = {}
    left = list(modules)
    while left:
        done = subprocess.run([sys.executable, "-c", _IMPORTS, *left], capture_output=True, text=True, check=False)
        found = re.findall(r"^\?(\S+)\n(?:(?!\?)(.+))?$", done.stdout, flags=re.MULTILINE)
        failed |= {name: reason or "it ends the process" for name, reason in found if reason != "fine"}
        left = left[len(found) :] if found else []
    return failed


def machine() -> list[Finding]:
    """Processor, cores, threads, memory, what its instructions make fast, and the device that "auto" takes."""
    known = instructions()
    cores = os.cpu_count() or 1
    try:
        threads = threads_wanted()
        many = (
            f"more than {cores} cores: small nets become slower; export SOLUTION_THREADS=1" if threads > cores else ""
        )
        counted = Finding(name="threads", found=str(threads), wanted="SOLUTION_THREADS", advice=many)
    except InputError as error:
        counted = Finding(name="threads", found="unknown", advice=str(error), broken=True)
    return [
        Finding(name="processor", found=processor(), wanted=", ".join(known)),
        Finding(name="int8", found=_int8(known)),
        Finding(name="bfloat16", found="imitated: fp32 is faster" if imitates_bf16() else "--set every.precision=bf16"),
        Finding(name="cores", found=str(cores)),
        counted,
        Finding(name="memory", found=_memory()),
        _device(),
    ]


def _int8(known: Sequence[str]) -> str:
    fast = [name for name in known if "VNNI" in name or name in ("AMX", "DOTPROD", "I8MM")]
    return f"fast, by {', '.join(fast)}" if fast else "no instructions for it: int8 files are small, hardly faster"


def _memory() -> str:
    names = ("SC_PAGE_SIZE", "SC_PHYS_PAGES")
    return f"{os.sysconf(names[0]) * os.sysconf(names[1]) / 1e9:.1f} GB" if set(names) <= set(os.sysconf_names) else "?"


def _device() -> Finding:
    try:
        import torch

        if torch.cuda.is_available():
            return Finding(name="device", found=f"cuda: {torch.cuda.get_device_name()}")
    except Exception as error:  # a broken driver, or no torch, which stands among the versions
        return Finding(name="device", found=f"unknown ({type(error).__name__})")
    return Finding(name="device", found="cpu", wanted="no GPU that PyTorch can use")


def in_extra(extra: str, texts: Sequence[str]) -> Iterator[Finding]:
    """Each library of an extra; what is missing is no fault: the extra that brings it is named."""
    for text in texts:
        name = _name(text)
        have, wanted = _version(name), text.partition(";")[0].strip()[len(name) :].strip()
        brings = f'pip install -e ".[{extra}]"'
        advice = "" if have is None or is_inside(have, wanted) else f"this version was not tried: {brings}"
        yield Finding(name=name, found=have or f"not here: {brings}", wanted=wanted, advice=advice)


def caches() -> list[Finding]:
    """What lies in the cache, by kind."""
    folder, sizes = cache_folder(), dict[str, list[int]]()
    for path in _files(folder):
        found = _OWN.fullmatch(path.name)
        kind = found["what"] if found and found["what"] in ("views", "answers") else "decoded pictures"
        sizes.setdefault(kind if found else "others' files and downloads", []).append(path.stat().st_size)
    names = {"views": "augmented views", "answers": "teachers' logits"}
    if not sizes:
        return [Finding(name="cache", found="empty", wanted=str(folder))]
    return [
        Finding(name=names.get(kind, kind), found=f"{sum(own) / 1e6:,.0f} MB in {len(own)} files", wanted=str(folder))
        for kind, own in sorted(sizes.items())
    ]


def clean() -> str:
    """Delete this project's own files of the cache; the line with how much that was."""
    count = num_bytes = 0
    for path in _files(cache_folder()):
        if _OWN.fullmatch(path.name):
            num_bytes += path.stat().st_size
            path.unlink()
            count += 1
    return f"{count} files, {num_bytes / 1e6:,.0f} MB deleted in {cache_folder()}"


def _files(folder: Path) -> list[Path]:
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    return [path for path in entries if path.is_file() and not path.is_symlink()]


def folders() -> Iterator[Finding]:
    """Where this project writes: whether it can, and the room that is left."""
    temporary = Path(tempfile.gettempdir())
    temporary = temporary.parent if temporary.name.startswith("fw-") else temporary  # this command's own lies in it
    places = {"cache": (cache_folder(), "SOLUTION_CACHE"), "temporary files": (temporary, "TMPDIR")}
    places |= {"results": (Path("runs"), "--out"), "data": (input_folder(), "--data")}
    for name, (folder, chosen) in places.items():
        try:
            check_writable(folder / "file")
            nearest = next(path for path in (folder / "file").absolute().parents if path.exists())
            free = shutil.disk_usage(nearest).free
        except (InputError, OSError) as error:
            yield Finding(name=name, found="cannot be written", wanted=str(folder), broken=True,
                          advice=f"{error}; choose another folder by {chosen}")  # fmt: skip
            continue
        little = f"{free / 1e6:,.0f} MB left: make room, or choose another folder by {chosen}"
        advice = little if free < _ROOM_BYTES else ""
        yield Finding(name=name, found=f"{free / 1e9:,.1f} GB free", wanted=str(folder), advice=advice)


def _name(text: str) -> str:
    found = re.match(r"[\w.-]+(\[[\w,-]+\])?", text)
    return found[0] if found else text


def _module(name: str) -> str:
    return _MODULES.get(name.lower(), name.lower().replace("-", "_"))


def _version(name: str) -> str | None:
    try:
        return version(name.partition("[")[0])
    except PackageNotFoundError:
        return None


def _show(title: str, findings: Sequence[Finding]) -> None:
    """A table; plain lines where its library is what is missing."""
    try:
        from rich import box
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        for finding in findings:
            print(f"{title}: {finding.name}: {finding.found} {finding.wanted}")
        return
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, show_header=False)
    for _ in range(3):
        table.add_column(overflow="fold")
    for finding in findings:
        style = "bold red" if finding.broken else "yellow" if finding.advice else ""
        table.add_row(finding.name, finding.found, finding.wanted, style=style)
    console = Console(markup=False, highlight=False, emoji=False)
    console.width = console.width if console.is_terminal else max(console.width, 120)
    console.print(table)
