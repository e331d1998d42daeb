"""bf16 on the CPU: which convolutions stay in float32."""

import pytest
import torch
from torch import nn

from solution.train.trainer import Float32Depthwise


@pytest.mark.parametrize(
    ("conv", "stays"),
    [
        (nn.Conv2d(8, 8, 3, stride=2, groups=8), True),
        (nn.Conv2d(8, 16, 5, groups=8), True),
        (nn.Conv2d(8, 8, 3, groups=8), False),
        (nn.Conv2d(8, 8, 5), False),
        (nn.Conv2d(8, 8, 3, stride=2, groups=4), False),
        (nn.Conv2d(1, 8, 5), False),
    ],
)
def test_strided_and_large_depthwise_convolutions_compute_in_float32(conv, stays):
    torch.manual_seed(0)
    images = torch.randn(2, conv.in_channels, 9, 9)
    with torch.autocast("cpu", torch.bfloat16):
        half = conv(images)
        with Float32Depthwise():
            out = conv(images)
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, conv(images).bfloat16() if stays else half)
    assert torch.equal(out, half) != stays  # the two ways round differently
    out.sum().backward()
    assert conv.weight.grad.abs().sum() > 0


def test_without_autocast_nothing_changes():
    conv, images = nn.Conv2d(4, 4, 5, groups=4), torch.randn(2, 4, 8, 8)
    plain = conv(images)
    with Float32Depthwise():
        out = conv(images)
    assert out.dtype == torch.float32
    assert torch.equal(out, plain)
