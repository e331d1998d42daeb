"""Detection nets of the ultralytics library, by name (extra `detection`; AGPL-3.0, not part of this project)."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from solution.contracts import InputError

KINDS = {"-seg": "SegmentationModel", "-pose": "PoseModel", "-obb": "OBBModel", "-cls": "ClassificationModel"}
"""Ending of a name -> class of ultralytics; names without one are detectors."""


def ultralytics_net(name: str, num_classes: int = 80) -> nn.Module:
    """A net of ultralytics with random weights: "yolov8n", "yolov5n", "yolo11n", "yolov8n-seg" and so on.

    It maps images (B, 3, H, W) in [0, 1] to what ultralytics makes of them; H and W are multiples of 32. Nothing is
    downloaded, and nothing is written but a temporary folder. Raises `InputError` when the library is not installed or
    does not know the name.
    """
    with _left_alone():
        try:
            from ultralytics.nn import tasks
        except ImportError as error:
            raise InputError(
                f'{name} needs ultralytics (AGPL-3.0), which does not import ({error}): pip install -e ".[detection]"'
            ) from error
        kind = next((kind for ending, kind in KINDS.items() if name.endswith(ending)), "DetectionModel")
        return getattr(tasks, kind)(_described(name), nc=num_classes, verbose=False)


def _described(name: str) -> dict[str, Any]:
    """The library's own description of one of its nets. `InputError` for any other name.

    Given a path or a URL, the library would evaluate the description there; given a name, it would look in
    the folder that the process is in first.
    """
    import ultralytics
    import yaml

    known = {path.stem: path for path in Path(ultralytics.__file__).parent.glob("cfg/models/*/*.yaml")}
    parts = re.fullmatch(r"(\D+\d+)([nslmx]?)(.*)", name)
    family, scale, ending = parts.groups() if parts else (name, "", "")
    path = known.get(name) or known.get(family + ending)
    if path is None:
        raise InputError(f"ultralytics knows no net {name!r}: take one of its names, such as yolov8n")
    return yaml.safe_load(path.read_text(encoding="utf-8")) | {"scale": scale, "yaml_file": f"{name}.yaml"}


@contextmanager
def _left_alone() -> Iterator[None]:
    """While open, ultralytics uses no network, keeps its settings in a temporary folder and prints nothing.

    What it sets in the environment is undone, and so is what its import puts in the place of other libraries' own
    functions: with its `Image.open` a file that is no image needs another package.
    """
    import cv2
    from PIL import Image

    before = dict(os.environ)
    replaced = ((Image, "open"), (torch, "load"), (torch, "save"), (cv2, "imread"), (cv2, "imwrite"), (cv2, "imshow"))
    own = [(library, name, getattr(library, name)) for library, name in replaced]
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update({"YOLO_OFFLINE": "1", "YOLO_CONFIG_DIR": folder, "YOLO_VERBOSE": "False"})
        try:
            yield
        finally:
            for added in os.environ.keys() - before.keys():
                del os.environ[added]
            os.environ.update(before)
            for library, name, function in own:
                setattr(library, name, function)
