"""What lies inside a pt2 file, and what does not."""

import io
import zipfile

import pytest
import torch
from torch import nn

from solution.contracts import InputError
from solution.export import files
from solution.export.files import listing
from solution.formats.exported import Metadata
from solution.formats.pt2 import PT2
from solution.runtime import ROOT

CLASSES = tuple("abcd")


def metadata(precision, **fields):
    fields = {"classes": CLASSES, "mean": (0.5,) * 3, "std": (0.2,) * 3, "size": 16} | fields
    return Metadata(precision=precision, **fields)


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 128, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 4)
    ).eval()


@pytest.fixture(scope="module")
def graphs(net):
    images = [torch.randn(1, 3, 16, 16) for _ in range(4)]
    return {
        "fp32": PT2.floating(net, torch.zeros(2, 3, 16, 16), "fp32"),
        "int8": PT2.quantized(net, images, [], fine_outputs=False),
    }


@pytest.fixture(scope="module")
def paths(graphs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pt2")
    for precision, graph in graphs.items():
        PT2.write(graph, metadata(precision), folder / f"{precision}.pt2")
    return {precision: folder / f"{precision}.pt2" for precision in graphs}


def test_int8_takes_a_byte_a_weight_and_leaves_no_float_weight_beside_it(net, paths):
    weights = sum(layer.weight.numel() for layer in net if hasattr(layer, "weight"))
    channels = 64 + 128 + 4
    held = sum(line.num_bytes for line in listing(paths["int8"]).lines)
    assert held == weights + channels * (4 + 4 + 8)  # bias, scale and zero point of each
    assert paths["int8"].stat().st_size < 0.5 * paths["fp32"].stat().st_size


def test_no_place_of_the_machine_that_wrote_it_is_told(graphs, paths, tmp_path):
    for precision, path in paths.items():
        PT2.write(graphs[precision], metadata(precision), tmp_path / ".temporary.x.pt2")
        assert (tmp_path / ".temporary.x.pt2").read_bytes() == path.read_bytes()
        content = path.read_bytes()
        for place in (ROOT, torch.__path__[0], tmp_path.anchor + "tmp", __file__):
            assert str(place).encode() not in content
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            assert {name.partition("/")[0] for name in archive.namelist()} == {"archive"}


def test_what_is_left_out_changes_no_answer(graphs, paths):
    images = torch.randn(3, 3, 16, 16)
    for precision, path in paths.items():
        assert torch.equal(files.open_file(path)(images), graphs[precision].module()(images))


@pytest.mark.parametrize(
    ("said", "match"),
    [
        ({"size": 32}, r"takes images \(B, 3, 32, 32\) .* its net maps .*16, 16\)"),
        ({"classes": ("a", "b")}, r"gives 2 numbers each, but its net maps"),
        ({"task": "detection"}, "another task"),
    ],
)
def test_what_it_says_must_be_what_it_is(graphs, tmp_path, said, match):
    PT2.write(graphs["fp32"], metadata("fp32", **said), tmp_path / "net.pt2")
    with pytest.raises(InputError, match=match):
        files.open_file(tmp_path / "net.pt2", task=None)
