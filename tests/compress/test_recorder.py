"""Shapes of frequent calls are those that PyTorch works out, and what is not sound is left to PyTorch."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from solution.compress.coupling.recorder import SHAPES, blank

ATEN = torch.ops.aten
IMAGE, ROW = torch.zeros(2, 6, 9, 8), torch.zeros(6)
CALLS = [
    *[(op.default, (IMAGE,)) for op in (ATEN.relu, ATEN.silu, ATEN.gelu, ATEN.hardswish, ATEN.sigmoid, ATEN.relu6)],
    (ATEN.hardtanh.default, (IMAGE, 0.0, 6.0)),
    *[(op.Tensor, (IMAGE, IMAGE)) for op in (ATEN.add, ATEN.mul, ATEN.sub)],
    (ATEN.mul.Tensor, (IMAGE, torch.zeros(2, 6, 1, 1))),
    (ATEN.add.Tensor, (torch.zeros(5, 1), torch.zeros(2, 1, 7))),
    (ATEN.batch_norm.default, (IMAGE, ROW, ROW, ROW, ROW, False, 0.1, 1e-5, False)),
    (ATEN.linear.default, (IMAGE, torch.zeros(3, 8), torch.zeros(3))),
    (ATEN.linear.default, (torch.zeros(8), torch.zeros(3, 8))),
    (ATEN.conv2d.default, (IMAGE, torch.zeros(4, 6, 3, 3), torch.zeros(4), [2, 1], [1, 0], [1, 2])),
    (ATEN.conv2d.default, (IMAGE, torch.zeros(12, 1, 5, 3), None, [2], [2], [1], 6)),
    (ATEN.conv1d.default, (torch.zeros(1, 4, 30), torch.zeros(2, 4, 5), None, [3], [1])),
    (ATEN.conv3d.default, (torch.zeros(1, 2, 5, 6, 7), torch.zeros(3, 2, 2, 2, 2))),
]  # fmt: skip
LEFT_TO_PYTORCH = [
    (ATEN.conv2d.default, (IMAGE, torch.zeros(4, 5, 3, 3))),  # other channels than arrive
    (ATEN.conv2d.default, (IMAGE, torch.zeros(4, 6, 30, 3))),  # a kernel larger than the image
    (ATEN.conv2d.default, (IMAGE.double(), torch.zeros(4, 6, 3, 3))),
    (ATEN.conv2d.default, (IMAGE.to(memory_format=torch.channels_last), torch.zeros(4, 6, 3, 3))),
    (ATEN.linear.default, (IMAGE, torch.zeros(3, 7))),
    (ATEN.linear.default, (IMAGE, torch.zeros(3, 8), torch.zeros(4))),
    (ATEN.batch_norm.default, (IMAGE, torch.zeros(5), ROW, ROW, ROW, False, 0.1, 1e-5, False)),
    (ATEN.add.Tensor, (IMAGE, 1.0)),
    (ATEN.add_.Tensor, (ROW, IMAGE)),
    (ATEN.relu.default, (IMAGE.mT,)),
]


def faked(mode, arguments):
    return [mode.from_tensor(one) if isinstance(one, torch.Tensor) else one for one in arguments]


@pytest.mark.parametrize(("op", "arguments"), CALLS, ids=lambda value: str(value)[:16])
def test_shapes_are_pytorchs_own(op, arguments):
    with FakeTensorMode() as mode:
        fake = faked(mode, arguments)
        theirs = op(*fake)
        ours = blank(SHAPES[op](*fake), fake[0], mode)
    assert (ours.shape, ours.stride(), ours.dtype) == (theirs.shape, theirs.stride(), theirs.dtype)


@pytest.mark.parametrize(("op", "arguments"), LEFT_TO_PYTORCH, ids=lambda value: str(value)[:16])
def test_what_is_not_sound_is_left_to_pytorch(op, arguments):
    with FakeTensorMode() as mode:
        assert SHAPES[op](*faked(mode, arguments)) is None
