"""A net that tells pixels apart goes through the door and the verb: validate, compress, shrink, export."""

import json

import numpy as np
import pytest
import torch
from torch import nn

import solution as fw
from solution.__main__ import main
from solution.data.loaders import Data
from solution.data.rendered.pairs import SHAPES, write_pairs
from solution.evaluate.segment import pixel_loss, segment
from solution.export import files

pytestmark = pytest.mark.long

CODE = """
import torch
from torch import nn


def block(inside, outside):
    return nn.Sequential(nn.Conv2d(inside, outside, 3, padding=1, bias=False), nn.BatchNorm2d(outside), nn.ReLU())


class UNet(nn.Module):
    def __init__(self, num_classes=4, width=16):
        super().__init__()
        self.first, self.second, self.third = block(3, width), block(width, 2 * width), block(2 * width, 2 * width)
        self.pool, self.up = nn.MaxPool2d(2), nn.Upsample(scale_factor=2)
        self.back, self.again = block(4 * width, 2 * width), block(3 * width, width)
        self.last = nn.Conv2d(width, num_classes, 1)

    def forward(self, x):
        first = self.first(x)
        second = self.second(self.pool(first))
        third = self.third(self.pool(second))
        back = self.back(torch.cat([self.up(third), second], 1))
        return self.last(self.again(torch.cat([self.up(back), first], 1)))
"""
FED = ["--size", "32", "--mean", "0.5,0.5,0.5", "--std", "0.5,0.5,0.5"]


def fresh():
    names = {}
    exec(CODE, names)
    torch.manual_seed(0)
    return names["UNet"]()


@pytest.fixture(scope="module")
def user(tmp_path_factory):
    """my_unet.py, best.pth and pairs/, a net trained on them."""
    folder = tmp_path_factory.mktemp("user")
    write_pairs(folder / "pairs", {"train": 96, "val": 24}, size=40)
    (folder / "my_unet.py").write_text(CODE)
    data = Data(path=str(folder / "pairs"), size=32, batch_size=16, workers=0, mean=(0.5,) * 3, std=(0.5,) * 3)
    net, train = fresh(), data.open(splits=("train",)).train
    optimizer = torch.optim.AdamW(net.parameters(), 5e-3)
    for epoch in range(16):
        train.set_epoch(epoch)
        for images, masks in train:
            optimizer.zero_grad()
            pixel_loss(net(images), masks).backward()
            optimizer.step()
    torch.save(net.eval().state_dict(), folder / "best.pth")
    return folder


def named(user, *fed):
    return [f"{user / 'my_unet.py'}:UNet", "--weights", str(user / "best.pth"), "--data", str(user / "pairs"), *fed]


def test_the_figure_is_that_of_its_definition():
    masks = torch.tensor([[[0, 0, 1, 1], [2, 2, 2, -100]]])
    given = torch.tensor([[[0, 1, 1, 1], [2, 2, 0, 0]]])
    logits = nn.functional.one_hot(given, 4).permute(0, 3, 1, 2).float()
    found = segment(lambda images: logits, [(torch.zeros(1, 3, 2, 4), masks)])
    assert found.quality() == pytest.approx({"miou": (1 / 3 + 2 / 3 + 2 / 3) / 3, "accuracy": 5 / 7})
    assert np.isnan(found.per_class[3])


def test_it_is_judged_at_the_door(user, tmp_path, capsys):
    assert main(["validate", *named(user, *FED), "--json", str(tmp_path / "found.json")]) == 0
    said = capsys.readouterr().out
    assert "miou" in said
    assert all(shape in said for shape in SHAPES)
    assert json.loads((tmp_path / "found.json").read_text())["miou"] > 0.22  # all ground would have 0.18


@pytest.mark.slow
def test_shrink_halves_it_and_the_file_is_as_good(user, tmp_path, capsys):
    out = tmp_path / "out"
    fed = ["--pixels", *FED[1:], "--set", "data.batch_size=16", "--set", "data.workers=0"]
    goal = ["--macs", "50%", "--max-drop", "4", "--passes", "8", "--out", str(out)]
    assert main(["shrink", *named(user, *fed), *goal]) == 0
    said = capsys.readouterr().out
    assert "PASS at most 4 points, macs 50%" in said
    assert "mIoU" in said
    lines = json.loads((out / "shrink.json").read_text())["lines"]
    assert lines[1]["macs"] <= 0.5 * lines[0]["macs"]
    low, high = lines[1]["interval"]
    assert low <= lines[1]["figure"] <= high
    exported = files.open_file(out / "smaller.onnx", task=None)
    assert (exported.metadata.task, exported.metadata.classes) == ("segmentation", SHAPES)
    assert exported(torch.zeros(1, 3, 32, 32)).shape == (1, 4, 32, 32)
    again = fw.load(out / "smaller.safetensors", into=fresh())
    assert again(torch.zeros(1, 3, 32, 32)).shape == (1, 4, 32, 32)
    assert main(["validate", str(out / "smaller.onnx"), "--data", str(user / "pairs")]) == 0
    assert f"{lines[1]['figure']:.4f}" in capsys.readouterr().out


def test_it_is_cut_recovered_and_exported_with_its_quality(user, tmp_path, capsys):
    small, file = tmp_path / "small.safetensors", tmp_path / "small.onnx"
    steps = ["--step", "prune_channels macs=80%", "--step", "recover steps=20", "--set", "data.workers=0"]
    assert main(["compress", *named(user, *FED), *steps, "--out", str(small)]) == 0
    assert "miou" in capsys.readouterr().out
    code = [f"{user / 'my_unet.py'}:UNet", "--weights", str(small), "--data", str(user / "pairs")]
    assert main(["export", *code, "--format", "onnx", "--precision", "int8", "--out", str(file)]) == 0
    assert "mIoU on val" in capsys.readouterr().out
    assert main(["report", str(tmp_path / "small.safetensors.run")]) == 0


def test_masks_in_python_batches_make_it_segmentation(user, tmp_path):
    data = Data(path=str(user / "pairs"), size=32, batch_size=16, workers=0, mean=(0.5,) * 3, std=(0.5,) * 3).open()
    net = fresh()
    net.load_state_dict(torch.load(user / "best.pth"))
    splits = {name: list(getattr(data, name)) for name in ("train", "dev", "val")}
    options = {"macs": "70%", "max_drop": 30.0, "passes": 2, "for_": "eager", "log": lambda _: None}
    result = fw.shrink(net.eval(), splits["val"][0][0][:2], **splits, out=tmp_path / "out", **options)
    assert "mIoU" in result.table().headings
    assert result.lines[0].figure == pytest.approx(segment(net, splits["val"]).quality()["miou"])
