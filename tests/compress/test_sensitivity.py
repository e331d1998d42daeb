"""Quality against pruning ratio, one layer at a time."""

from dataclasses import replace

import pytest
import torch
from conftest import toy_batches
from PIL import Image
from torch import nn

from solution.compress.channels.sensitivity import as_text, by_ratio, channels_alone, save_plot, sensitivity
from solution.contracts import InputError, StepContext
from solution.evaluate.cost import macs
from solution.models.shufflenet import ShuffleNet


class Chooser(nn.Module):
    """Tells which channel is brightest by its first layer; the second adds next to nothing."""

    def __init__(self):
        super().__init__()
        self.first, self.side, self.second = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)
        self.head = nn.Linear(12, 3, bias=False)
        for tensor in self.parameters():
            nn.init.zeros_(tensor)
        with torch.no_grad():
            for channel in range(3):
                self.first.weight[channel, channel] = 1.0
                self.head.weight[channel, channel] = 1.0
            self.second.weight.normal_(0, 1e-3)
            self.first.weight[3:].normal_(0, 1e-3)

    def forward(self, x):
        x = self.first(x) + self.side(x)
        return self.head(torch.cat([x, self.second(x)], 1).mean((2, 3)))


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return Chooser().eval()


@pytest.fixture(scope="module")
def table(net):
    dev = toy_batches(2, seed=1)
    return sensitivity(net, StepContext(example=dev[0][0][:2], dev=dev, log=str), ratios=(0.5, 0.9))


def test_layers_that_share_channels_are_one_entry(net, toy):
    assert list(channels_alone(net, toy)) == ["first +1", "second"]


def test_layers_of_one_stream_are_one_entry_however_it_grows():
    net, example = ShuffleNet(units=(2, 2), groups=2).build(3).eval(), torch.randn(1, 3, 32, 32)
    entries = channels_alone(net, StepContext(example=example))
    assert len(entries) == 1 + 4  # the stream, and what is narrow inside each of the four units
    for step in entries.values():
        step(0.5)(net, StepContext(example=example))


def test_the_layer_that_knows_is_the_sensitive_one(table, net, toy):
    channels = table[table.method == "prune_channels"]
    assert list(channels.layer.unique()) == ["first +1", "second"]
    f1 = by_ratio(channels)
    assert f1.loc["second", 0.5] == channels.f1[channels.ratio == 0].iloc[0] > 0.9
    assert f1.loc["first +1", 0.9] < 0.7
    cost = channels.set_index(["layer", "ratio"]).macs
    assert cost["second", 0.0] == macs(net, toy.example) > cost["second", 0.5]


def test_weights_are_measured_too_and_cost_the_same(table, net, toy):
    weights = table[table.method == "prune_weights"]
    assert list(weights.layer.unique()) == ["first", "side", "second", "head"]
    assert set(weights.macs) == {macs(net, toy.example)}
    assert by_ratio(weights).loc["second"].min() > 0.9


def test_what_cannot_be_pruned_is_told_and_left_out(net, toy):
    said = []
    table = sensitivity(net, replace(toy, log=said.append), methods=("prune_weights",), ratios=(0.5,))
    assert any(line.startswith("side at 50%: left out, nothing would become zero") for line in said)
    assert "side" not in by_ratio(table).index


def test_the_table_reads_well(table):
    text = as_text(table)
    assert text.startswith("prune_channels: F1 ")
    assert "prune_weights: F1 " in text
    assert "50%" in text
    assert "first +1" in text


def test_the_picture_is_a_png(table, tmp_path):
    save_plot(table, tmp_path / "new" / "plot.png")
    with Image.open(tmp_path / "new" / "plot.png") as image:
        assert image.format == "PNG"
        assert image.width > 1000


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ratios": (0.5, 1.0)}, r"between 0 and 1, got \[1.0\]"),
        ({"ratios": ()}, "got none"),
        ({"methods": ("prune_luck",)}, "some of prune_channels, prune_weights, got prune_luck"),
    ],
)
def test_wrong_settings_are_named(net, toy, settings, message):
    with pytest.raises(InputError, match=message):
        sensitivity(net, toy, **settings)


def test_it_needs_choose_batches(net, toy):
    with pytest.raises(InputError, match="sensitivity needs dev batches"):
        sensitivity(net, replace(toy, dev=None))
