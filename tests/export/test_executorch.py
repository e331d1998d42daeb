"""Exports to ExecuTorch: parity and quality by its own runtime, files that are damaged."""

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

pytest.importorskip("executorch.exir", reason="needs the extra executorch")
pytestmark = pytest.mark.edge


@pytest.mark.parametrize("precision", ["fp32", pytest.param("int8", marks=pytest.mark.slow)])
def test_an_export_says_what_the_net_says(color_net, photos, tmp_path, capsys, precision):
    said, out = [], tmp_path / "net.pte"
    make(ExportConfig(file=color_net, format="executorch", precision=precision, out=out, data=str(photos)), said.append)
    assert "top-1 agrees on" in "\n".join(said)
    header, exported = checkpoint.read_header(color_net), files.open_file(out)
    assert exported.metadata.classes == header.classes
    assert exported(torch.zeros(3, 3, 32, 32)).shape == (3, 3)
    assert classify(exported, Data(path=str(photos), size=32).open(splits=("val",)).val).f1 > 0.9
    assert "forward" in listing(out).notes[0]

    assert main(["predict", str(out), str(photos / "val" / "red" / "0.png"), "--format", "json"]) == 0
    assert main(["validate", str(out), "--data", str(photos)]) == 0
    printed = capsys.readouterr().out
    assert '"red"' in printed
    assert "f1 1.0000" in printed or "f1 0.9" in printed

    whole, broken = out.read_bytes(), tmp_path / "broken.pte"
    for content in (b"", whole[:200], whole[: len(whole) // 2], b"\0" * len(whole)):
        broken.write_bytes(content)
        for read in (files.open_file, listing):
            with pytest.raises(InputError, match=r"broken\.pte") as caught:
                read(broken)
            assert "\n" not in str(caught.value)


def test_a_missing_package_names_its_extra(color_net, photos, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "executorch.exir", None)
    with pytest.raises(InputError, match=r'pip install -e "\.\[executorch\]"'):
        config = ExportConfig(file=color_net, format="executorch", out=tmp_path / "n.pte", data=str(photos))
        make(config, lambda _: None)
    assert list(tmp_path.iterdir()) == []


def test_files_of_others_run_on_any_number_of_images_or_say_what_they_map(tmp_path):
    from executorch.exir import to_edge_transform_and_lower

    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)).eval()
    words = nn.Sequential(nn.Embedding(50, 8), nn.Flatten(), nn.Linear(80, 3)).eval()
    path, images = tmp_path / "net.pte", torch.randn(7, 3, 32, 32)
    for module, example in ((net, images[:4]), (words, torch.zeros(1, 10, dtype=torch.long))):
        path.write_bytes(to_edge_transform_and_lower(torch.export.export(module, (example,))).to_executorch().buffer)
        if module is net:
            assert torch.allclose(files.open_file(path)(images), net(images), atol=1e-5)
        else:
            with pytest.raises(InputError, match=r"maps \[1, 10\] to \[1, 3\]: only classifiers of square images"):
                files.open_file(path)


class Odd(nn.Module):
    """A layer that the format lacks."""

    def forward(self, x):
        return torch.linalg.svdvals(x.flatten(2))


def test_an_operation_that_the_format_lacks_is_named_with_its_layer(tmp_path):
    net = nn.Sequential()
    net.add_module("plain", nn.Conv2d(3, 4, 3, padding=1))
    net.add_module("odd", Odd())
    with pytest.raises(InputError, match=r"the format has no aten\.\w*svd\S* in odd; write that layer with .* as ONNX"):
        export(net.eval(), "executorch", tmp_path / "net.pte", example=torch.randn(2, 3, 8, 8), log=lambda _: None)
    assert list(tmp_path.iterdir()) == []
