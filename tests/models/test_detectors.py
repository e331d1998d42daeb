"""Nets of ultralytics by name, and what is said when there are none."""

import os
import sys
from importlib.util import find_spec

import pytest
import torch

from solution.contracts import InputError
from solution.models.yolo import ultralytics_net

needs_ultralytics = pytest.mark.skipif(find_spec("ultralytics") is None, reason="extra detection is not installed")


@needs_ultralytics
def test_builds_by_name_and_leaves_the_environment_alone():
    import cv2  # noqa: F401  (its import sets a variable of its own)
    from PIL import Image

    before, reader, saver = dict(os.environ), Image.open, torch.save
    net = ultralytics_net("yolov8n", num_classes=7).eval()
    decoded = net(torch.rand(1, 3, 64, 64))[0]
    assert decoded.shape == (1, 4 + 7, 64 + 16 + 4)
    assert dict(os.environ) == before
    assert (Image.open, torch.save) == (reader, saver)


@needs_ultralytics
def test_unknown_name():
    with pytest.raises(InputError, match="knows no net 'yolov8q0'"):
        ultralytics_net("yolov8q0")


def test_library_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "ultralytics", None)
    monkeypatch.setitem(sys.modules, "ultralytics.nn", None)
    with pytest.raises(InputError, match=r"AGPL-3\.0.*pip install -e \"\.\[detection\]\""):
        ultralytics_net("yolov8n")
