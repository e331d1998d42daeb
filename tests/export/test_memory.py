"""Nets in memory and nets whose classes nobody named: exported, compared, asked."""

import pytest
import torch
from torch import nn

import solution as fw
from solution.__main__ import main
from solution.contracts import InputError
from solution.export import files
from solution.formats.base import Format
from solution.registry import FORMATS

IMAGES = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class Own(nn.Module):
    """A user's own net: no builder of this project knows it."""

    def __init__(self, outputs=4):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, outputs, 3))

    def forward(self, images):
        return self.layers(images).mean((2, 3))


@pytest.fixture(scope="module")
def own():
    torch.manual_seed(0)
    net = Own()
    net(torch.randn(8, 3, 16, 16))
    return net


@pytest.mark.parametrize("suffix", [".pt2", ".onnx", pytest.param(".xml", marks=pytest.mark.slow)])
def test_a_net_in_memory_is_exported_with_an_example_alone(own, tmp_path, suffix):
    format_ = next(name for name, kind in FORMATS.items() if kind.suffix == suffix)
    said = []
    path = fw.export(own, format_, tmp_path / f"own{suffix}", example=IMAGES, log=said.append)
    assert "on 3 images" in said[0]
    assert said[0].endswith("quality is not judged: no data are named")
    exported = files.open_file(path)
    assert exported.metadata.classes == ()
    assert exported.metadata.labels == ("class 0", "class 1", "class 2", "class 3")
    assert own.training  # it was left as it was
    own.eval()
    assert torch.allclose(exported(IMAGES), own(IMAGES), atol=1e-4)
    own.train()


def test_its_classes_and_normalization_are_kept(own, tmp_path):
    about = {"classes": tuple("abcd"), "mean": (0.4,) * 3, "std": (0.2,) * 3}
    path = fw.export(own, "pt2", tmp_path / "own.pt2", example=IMAGES, log=lambda _: None, **about)
    metadata = files.open_file(path).metadata
    assert {name: getattr(metadata, name) for name in about} == about


def test_a_net_in_memory_is_packed_bit_by_bit(own, tmp_path):
    path = fw.export(own, "packed", tmp_path / "own.packed", example=IMAGES, log=lambda _: None)
    again = fw.load(path, into=Own())
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in own.state_dict().items())


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({}, r"needs square images: example=torch\.zeros"),
        ({"example": torch.zeros(1, 3, 16, 20)}, "needs square images"),
        ({"example": IMAGES, "classes": ("a", "b")}, "2 classes are named, and the net has 4"),
        ({"example": torch.zeros(1, 1, 16, 16)}, r"does not take images \(2, 1, 16, 16\)"),
        ({"example": IMAGES, "precision": "int8"}, "int8 is calibrated on photos"),
        ({"example": IMAGES, "out": None}, "needs a place"),
    ],
)
def test_what_a_net_in_memory_lacks_is_named(own, tmp_path, options, match):
    options = {"out": tmp_path / "own.pt2"} | options
    with pytest.raises(InputError, match=match):
        fw.export(own, "pt2", log=lambda _: None, **options)
    assert list(tmp_path.iterdir()) == []


def test_a_file_says_how_to_feed_it(tmp_path):
    with pytest.raises(InputError, match="leave out example"):
        fw.export(tmp_path / "net.safetensors", "pt2", example=IMAGES)


@pytest.fixture(scope="module")
def nameless(tmp_path_factory):
    """A library's net that was cut without data: 1000 outputs, no class names."""
    path = tmp_path_factory.mktemp("nameless") / "net.safetensors"
    step = "prune_channels ratio=0.3"
    assert main(["compress", "timm:lcnet_035", "--step", step, "--size", "32", "--out", str(path)]) == 0
    return path


def test_a_file_without_class_names_is_exported_and_asked(nameless, photos, tmp_path, capsys):
    photo = str(next((photos / "val").rglob("*.png")))
    out = tmp_path / "net.pt2"
    assert main(["export", str(nameless), "--format", "pt2", "--data", str(photos), "--out", str(out)]) == 0
    assert "quality is not judged: the net's classes have no names" in capsys.readouterr().out
    answers = set()
    for path in (nameless, out):
        assert main(["predict", str(path), photo, "--top", "1"]) == 0
        answers.add(capsys.readouterr().out.split(photo)[1])
    (answer,) = answers
    assert "class " in answer


@pytest.mark.long
def test_a_file_without_class_names_is_timed(nameless, capsys):
    words = ["--runtimes", "eager", "onnxruntime", "--rounds", "1", "--batch", "1", "--threads", "1"]
    assert main(["bench", str(nameless), *words]) == 0
    assert "onnxruntime" in capsys.readouterr().out


def test_every_format_fulfills_the_protocol():
    assert all(isinstance(kind, Format) and kind.name == name for name, kind in FORMATS.items())
    assert len({kind.suffix for kind in FORMATS.values()}) == len(FORMATS)
    listed = {type(kind) for kind in FORMATS.values()}
    assert set(Format.__subclasses__()) == listed
