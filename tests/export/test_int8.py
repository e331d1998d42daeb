"""What int8 graphs lose, on nets and images that rounding is hard on."""

from collections import Counter

import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from solution.export import files
from solution.export.parity import relative_error
from solution.formats.exported import Metadata
from solution.formats.onnx import ONNX
from solution.formats.openvino import OPENVINO

KINDS = pytest.mark.parametrize("kind", [ONNX, OPENVINO], ids=["onnx", "openvino"])
ABOUT = Metadata(classes=tuple("abcd"), mean=(0.5,) * 3, std=(0.25,) * 3, size=16, precision="int8")


def net_of(seed=0):
    torch.manual_seed(seed)
    layers = [nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 4)).eval().requires_grad_(False)


def photos(count, seed=1):
    """Smooth in space, from -2 to 2."""
    coarse = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return 4 * nn.functional.interpolate(coarse, size=16, mode="bilinear") - 2


class Joined(nn.Module):
    """Two branches and their pooled input, joined: a small Inception block."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 32, 3), nn.Conv2d(64, 32, 3)
        self.branch, self.pooled = nn.Conv2d(32, 32, 1), nn.Conv2d(32, 32, 1)
        self.pool, self.head = nn.MaxPool2d(3, stride=1, padding=1), nn.Linear(32, 4)

    def forward(self, images):
        found = self.first(images).relu()
        joined = torch.cat([self.branch(found).relu(), self.pooled(self.pool(found)).relu()], dim=1)
        return self.head(self.last(joined).relu().mean((2, 3)))


def written(kind, net, images, path):
    """The net's int8 file, all layers in integers."""
    path = path.with_suffix(kind.suffix)
    graph = kind.quantized(kind.base(net, images[:2]), list(images.split(1)), [], fine_outputs=False)
    kind.write(graph, ABOUT, path)
    return path


def loss_of(kind, net, images, path):
    """How far the file's answers lie from the net's, as a share of their spread."""
    return relative_error(files.open_file(written(kind, net, images, path))(images), net(images))


@KINDS
def test_a_plain_net_loses_little_and_no_library_says_a_word(kind, tmp_path, capsys):
    assert loss_of(kind, net_of(), photos(64), tmp_path / "net") < 0.05
    assert capsys.readouterr().out == ""


def test_onnxruntime_computes_nothing_in_float_between_convolutions(tmp_path):
    torch.manual_seed(0)
    path = written(ONNX, Joined().eval().requires_grad_(False), photos(64), tmp_path / "net")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(tmp_path / "run.onnx"), 3
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    kinds = Counter(node.op_type for node in onnx.load(tmp_path / "run.onnx").graph.node)
    wanted = {"QLinearConv": 4, "QLinearConcat": 1, "Conv": 0, "Relu": 0, "Concat": 0}
    assert {kind: kinds[kind] for kind in wanted} == wanted
    assert max(kinds["QuantizeLinear"], kinds["DequantizeLinear"]) <= 2  # at both ends, and around the mean


@KINDS
def test_no_level_is_spent_on_what_relu_cuts_off(kind, tmp_path):
    net = net_of()
    net[0].weight[::2], net[0].bias[::2] = 0.0, -200.0  # every other channel is far below 0, and so silent
    assert loss_of(kind, net, photos(64), tmp_path / "net") < 0.05


@KINDS
def test_sums_of_bright_images_do_not_overflow_on_any_processor(kind, tmp_path):
    net = net_of()
    net[0].weight.abs_()
    assert loss_of(kind, net, photos(64).abs(), tmp_path / "net") < 0.05


@KINDS
def test_images_of_more_contrast_are_not_cut_off(kind, tmp_path):
    images = photos(64)
    images[::8] *= 4.0
    assert loss_of(kind, net_of(), images, tmp_path / "net") < 0.05
