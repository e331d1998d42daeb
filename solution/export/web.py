"""A folder with one static page that classifies photos by onnxruntime-web: net, page, and what npm is to install.

Nothing is loaded from elsewhere: the page's own policy forbids all other origins, and the runtime comes from the npm
package that the user installs, at the version that was tried.
"""

from __future__ import annotations

import html
import json
from pathlib import Path

from solution.formats.exported import Metadata
from solution.formats.onnx import INPUT, OUTPUT
from solution.runtime import write_text

NET, ABOUT = "net.onnx", "net.json"
RUNTIME, RUNTIME_VERSION = "onnxruntime-web", "1.30.0"
_PAGE = Path(__file__).parent / "page"
_SERVE = "python3 -m http.server 8000 --bind 127.0.0.1"


def page_files(folder: Path) -> tuple[Path, ...]:
    """All files of the page in `folder`, the net first."""
    own = sorted(file.name for file in _PAGE.iterdir() if file.is_file())
    return tuple(folder / name for name in (NET, ABOUT, "package.json", *own))


def write_page(folder: Path, metadata: Metadata) -> None:
    """Write everything but the net, which lies in `folder` already and is described by `metadata`."""
    title = folder.name or "net"
    about = {
        "file": NET,
        "input": INPUT,
        "output": OUTPUT,
        "labels": metadata.labels,
        "size": metadata.size,
        "mean": metadata.mean,
        "std": metadata.std,
        "crop": metadata.crop,
        "interpolation": metadata.interpolation,
    }
    package = {"private": True, "scripts": {"start": _SERVE}, "dependencies": {RUNTIME: RUNTIME_VERSION}}
    texts = {ABOUT: json.dumps(about, indent=1) + "\n", "package.json": json.dumps(package, indent=2) + "\n"}
    for file in page_files(folder):
        if file.name != NET:
            text = texts.get(file.name) or (_PAGE / file.name).read_text(encoding="utf-8")
            write_text(file, text.replace("@title@", html.escape(title)) if file.suffix == ".html" else text)
