"""Margin heads and auxiliary heads: trained along, gone at the end."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from solution.contracts import InputError
from solution.losses.margins import Margin, MarginHead
from solution.models.outputs import FeatureExtractor, classifier_path, scales
from solution.train.step import ClassificationObjective, Train


def hits(net, batches):
    with torch.inference_mode():
        return torch.cat([net(x).argmax(1) == y for x, y in batches]).float().mean()


@pytest.mark.parametrize(
    "extra",
    [
        {"margin": Margin(margin=0.2)},
        {"margin": Margin(kind="cosface", margin=0.1, centers=2)},
        {"auxiliary": 0.3},
        {"margin": Margin(margin=0.2), "auxiliary": 0.3, "ema_decay": 0.9},
    ],
)
def test_what_is_trained_along_is_gone_at_the_end_and_the_net_has_learnt(small_net, toy, extra):
    trained = Train(epochs=10, lr=0.05, **extra)(small_net, toy)
    assert str(trained) == str(small_net)
    assert [*trained.state_dict()] == [*small_net.state_dict()]
    assert hits(trained, toy.dev) > 0.85


def test_auxiliary_heads_change_what_the_trunk_learns(small_net, toy):
    with_heads, without = (Train(epochs=1, auxiliary=weight)(small_net, toy) for weight in (0.5, 0.0))
    assert not torch.equal(with_heads.features.init_block.conv.weight, without.features.init_block.conv.weight)


def test_the_margin_makes_the_loss_larger(small_net, toy):
    images, labels = toy.train[0]
    losses = []
    for margin in (0.0, 0.3):
        torch.manual_seed(0)
        losses.append(
            ClassificationObjective(small_net, Train(margin=Margin(margin=margin)), toy)(images, labels).item()
        )
        small_net.output = small_net.output.fold()
    assert losses[1] > losses[0]


def test_heads_are_made_without_touching_norm_statistics(small_net, toy):
    before = small_net.features.init_block.bn.running_mean.clone()
    ClassificationObjective(small_net.train(), Train(auxiliary=0.3), toy)
    assert torch.equal(before, small_net.features.init_block.bn.running_mean)


def test_a_stopped_training_with_heads_goes_on_to_the_same_weights(small_net, toy, tmp_path, monkeypatch):
    from solution.train.progress import Bar

    class Stopped(Exception):
        pass

    def stop(self, history):
        if len(history) == 2:
            raise Stopped

    step = Train(epochs=3, margin=Margin(), auxiliary=0.3, ema_decay=0.9)
    whole = step(small_net, toy)
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(Bar, "show", stop)
        step(small_net, replace(toy, folder=tmp_path))
    resumed = step(small_net, replace(toy, folder=tmp_path, resume=True))
    assert all(
        torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True)
    )


def test_scales_are_the_last_maps_of_each_size(small_net, toy):
    shapes = scales(small_net, torch.zeros(1, 3, 64, 64))
    assert [*shapes][-3:] == ["features.stage1", "features.stage2", "features.stage3"]
    assert [shape[2] for shape in shapes.values()] == sorted({s[2] for s in shapes.values()}, reverse=True)
    with pytest.raises(InputError, match="no feature maps"):
        scales(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), torch.zeros(1, 3, 2, 2))


def test_taps_leave_no_hook_behind(small_net, toy):
    with FeatureExtractor(small_net, ("features.stage1",)) as features:
        small_net(toy.example)
    assert features.maps["features.stage1"].ndim == 4
    assert not any(module._forward_hooks for module in small_net.modules())


def test_the_classifier_is_found():
    import torchvision

    assert classifier_path(torchvision.models.squeezenet1_1(num_classes=4)) == "classifier.1"
    assert classifier_path(torchvision.models.resnet18(num_classes=4)) == "fc"
    with pytest.raises(InputError, match="no classifier"):
        classifier_path(nn.ReLU())


def test_settings_out_of_range_are_named():
    with pytest.raises(InputError, match=r"auxiliary must lie in \[0, 100\], got -1"):
        Train(auxiliary=-1)
    assert MarginHead(nn.Linear(4, 3), Margin()).fold().weight.shape == (3, 4)
