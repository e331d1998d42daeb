"""Exports to LiteRT: parity, no turning around of channels, files of others and damaged ones."""

import re
import sys

import pytest
import torch
from torch import nn

from solution import checkpoint
from solution.__main__ import main
from solution.contracts import InputError
from solution.data.loaders import Data
from solution.evaluate.classify import classify
from solution.export import files
from solution.export.exporter import ExportConfig, export, make
from solution.export.files import listing
from solution.models.cifar_resnet import CifarResNet
from solution.models.classifiers import Classifier

pytest.importorskip("litert_torch", reason="needs the extra litert")
pytest.importorskip("ai_edge_quantizer", reason="needs the extra litert")
pytestmark = pytest.mark.edge


def quiet(_):
    return None


@pytest.fixture(scope="module")
def integers(color_net, photos, tmp_path_factory):
    """The color net in int8 and what its export said."""
    said = []
    out = tmp_path_factory.mktemp("litert") / "net.tflite"
    config = ExportConfig(file=color_net, format="litert", precision="int8_full", out=out, data=str(photos))
    return make(config, said.append), "\n".join(said)


@pytest.mark.parametrize(
    ("precision", "bits"),
    [
        ("int8_full", 8),
        *(pytest.param(*case, marks=pytest.mark.slow)
          for case in (("fp32", 32), ("fp16", 16), ("int8", 8), ("int8_dynamic", 8))),
    ],
)  # fmt: skip
def test_an_export_says_what_the_net_says(color_net, photos, tmp_path, integers, precision, bits):
    if precision == "int8_full":
        path, said = integers
    else:
        lines = []
        config = ExportConfig(file=color_net, format="litert", precision=precision, out=tmp_path / "net.tflite",
                              data=str(photos))  # fmt: skip
        path, said = make(config, lines.append), "\n".join(lines)
    assert "top-1 agrees on" in said
    header, exported = checkpoint.read_header(color_net), files.open_file(path)
    assert exported.metadata.classes == header.classes
    assert exported.metadata.precision == precision
    assert exported(torch.zeros(3, 3, 32, 32)).shape == (3, 3)
    val = Data(path=str(photos), size=header.size).open(splits=("val",)).val
    assert classify(exported, val).f1 > 0.9
    found = listing(path)
    assert min(round(line.bits) for line in found.lines if len(line.shape) == 4) == bits
    if precision == "int8_dynamic":
        assert re.match("on a microcontroller: .* (does not run in tflite-micro|needs)", found.notes[-1])


def test_what_lies_inside_is_called_by_the_nets_own_layers_and_its_peak_is_told(integers):
    found = listing(integers[0])
    layers = {line.name: line for line in found.layers()}
    assert layers["features.init_block.conv"].shape == (3, 3, 3, 3)
    assert {"features.stage2.unit2.dw_conv2", "output"} <= set(layers)
    operations, activations, _ = found.notes
    assert re.match(r"\d+ operations: \d+ conv_2d", operations)
    peak = int(re.search(r"activations: ([\d,]+) bytes", activations)[1].replace(",", ""))
    assert 32 * 32 * 3 <= peak < 32 * 32 * 3 * 12


def test_what_a_chip_would_need_is_told_of_a_file_for_phones(integers):
    pytest.importorskip("tflite_micro.python.tflite_micro.runtime", reason="needs the extra micro")
    found, size = listing(integers[0]), integers[0].stat().st_size
    assert found.flash == size
    assert 32 * 32 * 3 < found.ram < 32 * 32 * 3 * 20
    assert found.notes[-1] == f"flash: {size:,} bytes of model; arena: {found.ram:,} bytes, measured by tflite-micro"


def test_nothing_stands_in_the_file_twice(integers):
    from solution.formats.tflite import graph_of, parsed
    from solution.formats.tflite_writing import packed

    whole, channels = integers[0].read_bytes(), [line.shape[0] for line in listing(integers[0]).layers() if line.shape]
    graph = graph_of(parsed(whole, "net"), "net")
    assert packed(parsed(whole, "net"), graph.metadata) == whole
    for count in {count for count in channels if channels.count(count) > 1 and count > 2}:
        assert whole.count(count.to_bytes(4, "little") + bytes(8 * count)) <= 1
    assert [item.name for item in graph.operations if item.kind == "PAD"][:2] == ["pad 1", "pad 2"]


class Shuffled(nn.Module):
    """Two grouped convolutions, a channel shuffle written by hand or torch's own between them."""

    def __init__(self, own):
        super().__init__()
        self.own = own
        self.first, self.second = nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(12, 12, 3, padding=1, groups=3)
        self.head = nn.Sequential(nn.Linear(24, 3000), nn.Linear(3000, 4))  # large weights stand behind the graph

    def forward(self, x):
        x = start = self.first(x).relu()
        if self.own:
            batch, channels, height, width = x.shape
            x = x.view(batch, 3, channels // 3, height, width).transpose(1, 2).contiguous()
            x = x.view(batch, channels, height, width)
        else:
            x = nn.functional.channel_shuffle(x, 3)
        joined = torch.relu(torch.cat((self.second(x), start), 1))
        return self.head(nn.functional.adaptive_avg_pool2d(joined, 1).flatten(1))


@pytest.mark.parametrize("own", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_channel_shuffle_is_one_transposition_and_joined_layers_cut_off_themselves(tmp_path, own):
    torch.manual_seed(0)
    net, example = Shuffled(own).eval(), torch.randn(4, 3, 16, 16)
    path = export(net, "litert", tmp_path / "net.tflite", example=example, log=quiet)
    operations, *_ = listing(path).notes
    assert re.search(r"\b1 transpose\b", operations), operations
    assert "relu" not in operations


def test_a_bias_far_larger_than_what_is_summed_stays_in_integers(photos, tmp_path):
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
    net = nn.Sequential(*layers).eval()
    with torch.no_grad():
        net[0].weight.mul_(1e-10)
        net[0].bias.zero_()
    path = export(net, "litert", tmp_path / "net.tflite", example=torch.randn(4, 3, 32, 32), precision="int8",
                  data=str(photos), log=quiet)  # fmt: skip
    assert torch.allclose(files.open_file(path)(torch.zeros(2, 3, 32, 32)), net[-1].bias.expand(2, 3), atol=0.01)


def test_a_file_of_others_that_takes_four_images_at_once_runs_on_any_number(tmp_path):
    import litert_torch

    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)).eval()
    path, images = tmp_path / "four.tflite", torch.randn(7, 3, 32, 32)
    litert_torch.convert(net, (images[:4],)).export(str(path))
    exported = files.open_file(path)
    for count in (1, 4, 7):
        assert torch.allclose(exported(images[:count]), net(images[:count]), atol=1e-5)


class Odd(nn.Module):
    """A layer that the format lacks."""

    def forward(self, x):
        return torch.linalg.svdvals(x)


def test_an_operation_that_the_format_lacks_is_named_with_its_layer(tmp_path):
    net = nn.Sequential()
    net.add_module("plain", nn.Conv2d(3, 4, 3, padding=1))
    net.add_module("odd", Odd())
    net.add_module("flat", nn.Flatten())
    with pytest.raises(InputError, match=r"no aten\.\w*svd\S* in odd; write that layer with .* as ONNX"):
        export(net.eval(), "litert", tmp_path / "net.tflite", example=torch.randn(2, 3, 8, 8), log=quiet)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_names_its_extra(color_net, photos, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "litert_torch", None)
    with pytest.raises(InputError, match=r'the litert format needs litert_torch.*pip install -e "\.\[litert\]"'):
        make(ExportConfig(file=color_net, format="litert", out=tmp_path / "n.tflite", data=str(photos)), quiet)


def test_damaged_files_are_refused_by_a_line(integers, tmp_path):
    whole = integers[0].read_bytes()
    broken = tmp_path / "broken.tflite"
    chance = torch.Generator().manual_seed(0)
    damaged = {"short": whole[:1000], "half": whole[: len(whole) // 2], "other": b"GIF89a" + whole[6:], "empty": b"",
               "zeros": whole[:8] + bytes(len(whole) - 8)}  # fmt: skip
    for number in range(3):
        content = bytearray(whole)
        for place in torch.randint(8, 2000, (40,), generator=chance).tolist():
            content[-place] ^= 0xFF
        damaged[f"flipped {number}"] = bytes(content)
    said = []
    for content in damaged.values():
        broken.write_bytes(content)
        for read in (files.open_file, listing):
            try:
                read(broken)
            except InputError as error:  # a flipped weight is a weight
                said.append(str(error))
    assert len(said) >= 10
    assert all(str(broken) in line and "\n" not in line for line in said)


def test_commands_take_the_file(integers, photos, capsys):
    path = str(integers[0])
    assert main(["predict", path, str(photos / "val" / "red" / "0.png"), "--format", "json"]) == 0
    assert '"red"' in capsys.readouterr().out
    assert main(["validate", path, "--data", str(photos)]) == 0
    assert re.search(r"f1 (0\.9\d+|1\.0+)", capsys.readouterr().out)
    assert main(["bench", path, "--threads", "1", "--batch", "1", "--rounds", "1"]) == 0
    assert "litert" in capsys.readouterr().out
    assert main(["inspect", path]) == 0
    assert "features.init_block.conv" in capsys.readouterr().out


def test_a_file_of_others_is_listed_and_runs_by_what_it_is_told(integers, tmp_path):
    from solution.formats.tflite import parsed
    from solution.formats.tflite_writing import packed

    other = tmp_path / "other.tflite"
    other.write_bytes(packed(parsed(integers[0].read_bytes(), "net"), {}))
    assert listing(other).kind == "LiteRT"
    exported = files.open_file(other)
    assert exported.metadata.labels == ("class 0", "class 1", "class 2")
    assert exported(torch.zeros(2, 3, 32, 32)).shape == (2, 3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "side"),
    [
        (Classifier(name="torchvision:googlenet"), 64),
        (CifarResNet(depth=56), 32),
        (Classifier(name="timm:tf_efficientnet_lite0"), 64),
    ],
    ids=["GoogLeNet", "ResNet-56", "EfficientNet-Lite0"],
)
def test_large_nets_pass_parity(photos, tmp_path, settings, side):
    torch.manual_seed(0)
    net, loaders = settings.build(num_classes=3), Data(path=str(photos), size=side).open(splits=("calibration",))
    images = next(iter(loaders.calibration))[0]
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the mean of what follows
    for _ in range(3):
        net(images)
    said = []
    path = export(net.eval(), "litert", tmp_path / "net.tflite", example=images[:4],
                  data=str(photos), mean=loaders.mean, std=loaders.std, log=said.append)  # fmt: skip
    assert "logits differ by" in "\n".join(said)
    assert files.open_file(path)(images[:2]).shape == (2, 3)
