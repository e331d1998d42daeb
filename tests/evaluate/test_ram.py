"""Memory on a microcontroller, estimated: by hand on small nets, beside the interpreter's where it is here."""

import pytest
import torch
from torch import nn

from solution.compress.channels.step import PruneChannels
from solution.contracts import InputError
from solution.evaluate.ram import memory
from solution.models.cifar_resnet import CifarResNet
from solution.models.classifiers import Classifier
from solution.models.shufflenet import ShuffleNet


def test_a_layer_needs_what_it_reads_and_what_it_makes():
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 2, 1))
    found = memory(net, torch.zeros(4, 3, 16, 16))
    assert found.int8 == 16 * 16 * (3 + 8)
    assert found.float == 4 * found.int8
    assert found.layer == "0"
    assert found.arena > found.int8 + 8 * (8 + 2)


def test_what_a_shortcut_reads_lives_on_and_padding_that_is_not_same_takes_room():
    class Shortcut(nn.Module):
        def __init__(self):
            super().__init__()
            self.wide, self.narrow = nn.Conv2d(4, 32, 1), nn.Conv2d(32, 4, 1)

        def forward(self, x):
            return x + self.narrow(self.wide(x).relu())

    images = torch.zeros(1, 4, 8, 8)
    assert memory(Shortcut(), images).int8 == 64 * (4 + 32 + 4)
    assert memory(Shortcut(), images).layer == "narrow"
    strided = nn.Conv2d(4, 4, 3, stride=2, padding=1)
    assert memory(strided, images).int8 == 64 * 4 + 10 * 10 * 4
    assert memory(nn.Conv2d(4, 4, 3, stride=2, padding=0), images).int8 == 64 * 4 + 3 * 3 * 4 + 12  # multiples of 16


class Padded(nn.Module):
    """A convolution behind zeros: those of the padding that TensorFlow calls "same", or others."""

    def __init__(self, added):
        super().__init__()
        self.added, self.conv = added, nn.Conv2d(4, 8, 3, stride=2)

    def forward(self, x):
        return self.conv(nn.functional.pad(x, self.added))


def test_zeros_that_a_net_adds_by_itself_are_part_of_the_convolution_where_they_are_same():
    images = torch.zeros(1, 4, 16, 16)
    own = memory(Padded((0, 1, 0, 1)), images)
    assert own.int8 == 16 * 16 * 4 + 8 * 8 * 8
    assert own.layer == "conv"
    assert memory(Padded((1, 1, 1, 1)), images).int8 == 16 * 16 * 4 + 18 * 18 * 4
    assert memory(Padded((1, 0, 1, 0)), images).int8 > own.int8


def test_a_budget_of_memory_is_met():
    torch.manual_seed(0)
    net, images = CifarResNet(depth=8).build(num_classes=3), torch.randn(2, 3, 16, 16)
    before = memory(net, images).arena
    smaller = PruneChannels(ram="70%")(net, images)
    assert 0.5 * before < memory(smaller, images).arena <= 0.7 * before
    with pytest.raises(InputError, match="ram"):
        PruneChannels(ram="1 KiB")(net, images)


@pytest.mark.edge
@pytest.mark.slow
@pytest.mark.parametrize("side", [32, 48])
@pytest.mark.parametrize(
    "settings",
    [ShuffleNet(units=(1, 2, 1), width=0.5), ShuffleNet(units=(2, 2, 2), groups=2), CifarResNet(depth=8),
     CifarResNet(depth=20), ShuffleNet(units=(2, 3, 1), groups=1),
     Classifier(name="timm:tf_efficientnet_lite0")],
    ids=str,
)  # fmt: skip
def test_the_estimate_lies_near_what_the_interpreter_takes(settings, side):
    pytest.importorskip("litert_torch", reason="needs the extra micro")
    runtime = pytest.importorskip("solution.formats.litert_runtime")
    pytest.importorskip("tflite_micro.python.tflite_micro.runtime", reason="needs the extra micro")
    from solution.formats.litert import LITERT
    from solution.formats.tflite import graph_of
    from solution.formats.tflite_writing import packed

    torch.manual_seed(0)
    net, image = settings.build(num_classes=5).eval().requires_grad_(False), torch.randn(1, 3, side, side)
    model = LITERT.quantized(LITERT.base(net, image), [image], [], False)
    measured = runtime.arena_of(packed(model, {}, lean=True), graph_of(model, "net"), "net")
    assert memory(net, image).arena == pytest.approx(measured, rel=0.15)
