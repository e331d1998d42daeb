"""A cut net learns from pictures without labels to give what the whole one gave."""

import dataclasses

import pytest
import torch
from torch import nn

import solution as fw
from solution.contracts import InputError, StepContext
from solution.train.recover import Crops, Recover

CHANCE = torch.Generator().manual_seed(0)
PICTURES = torch.randn(48, 3, 16, 16, generator=CHANCE) + 2 * torch.randn(48, 3, 1, 1, generator=CHANCE)
CONTEXT = StepContext(
    example=PICTURES[:1], calibration=[(PICTURES[:24], None), (PICTURES[24:], None)], log=lambda _: None
)
QUICK = Recover(steps=60, batch_size=16, lr=0.05)


class Pair(nn.Module):
    """Two outputs of different shapes in a dictionary."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        logits = self.net(x)
        return {"logits": logits, "boxes": 100 * logits[:, :, None].expand(-1, -1, 4)}


def a_net(outputs=5):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, outputs),
    ).eval()  # fmt: skip


def cut_and_context(net):
    return fw.PruneChannels(ratio=0.4)(net, CONTEXT), dataclasses.replace(CONTEXT, original=net)


def error(net, whole):
    with torch.no_grad():
        outputs = [one(PICTURES) for one in (net, whole)]
    one, other = (out["boxes"] if isinstance(out, dict) else out for out in outputs)
    return float((one - other).square().mean() / other.var())


@pytest.mark.parametrize("whole", [a_net(), a_net(1), Pair(a_net())], ids=["logits", "one number", "dictionary"])
def test_outputs_come_nearer_to_those_of_the_whole_net(whole):
    cut, context = cut_and_context(whole)
    before = {name: tensor.clone() for name, tensor in cut.state_dict().items()}
    recovered = QUICK(cut, context)
    assert error(recovered, whole) < 0.7 * error(cut, whole)
    assert all(torch.equal(before[name], tensor) for name, tensor in cut.state_dict().items())
    assert {n: t.shape for n, t in recovered.state_dict().items()} == {n: t.shape for n, t in before.items()}


def test_labels_and_the_dev_and_val_splits_are_not_looked_at():
    cut, context = cut_and_context(a_net())
    blind = dataclasses.replace(context, calibration=[PICTURES[:24], PICTURES[24:]], train=None, dev=None)
    one, other = QUICK(cut, context), QUICK(cut, blind)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


@pytest.mark.parametrize("lr", [100.0, 1e-12], ids=["it diverges", "nothing moves"])
def test_a_training_that_helps_nothing_leaves_the_net_as_it_came(lr):
    cut, context = cut_and_context(a_net())
    said = []
    settings = (
        Recover(steps=3, lr=lr) if lr > 1 else Recover(steps=1, lr=lr, crop_scale=(1.0, 1.0), flip=0.0, cutmix=0.0)
    )
    recovered = settings(cut, dataclasses.replace(context, log=said.append))
    assert error(recovered, context.original) <= error(cut, context.original) + 1e-9
    if lr > 1:
        assert any("learning rate" in line for line in said)


def test_crops_depend_on_seed_and_epoch_alone_and_keep_the_shape():
    settings = Recover(steps=3, batch_size=8)
    first, again, other = (Crops(settings, PICTURES, seed) for seed in (0, 0, 1))
    one, two, three = ([images for images, _ in crops] for crops in (first, again, other))
    assert len(one) == 3
    assert all(images.shape == (8, 3, 16, 16) for images in one)
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert not torch.equal(one[0], three[0])
    again.set_epoch(1)
    assert not torch.equal(next(iter(again))[0], one[0])


def test_without_crops_mirroring_and_mixing_pictures_are_shown_as_they_are():
    settings = Recover(steps=1, batch_size=48, crop_scale=(1.0, 1.0), flip=0.0, cutmix=0.0)
    ((shown, _),) = Crops(settings, PICTURES, 0)
    distances = torch.cdist(shown.flatten(1), PICTURES.flatten(1))
    assert sorted(distances.argmin(1).tolist()) == list(range(48))


def test_a_mixed_batch_holds_a_rectangle_of_another_picture():
    settings = Recover(steps=1, batch_size=48, crop_scale=(1.0, 1.0), flip=0.0, cutmix=1.0)
    ((shown, _),) = Crops(settings, PICTURES, 0)
    from_where = (shown[:, None] - PICTURES[None]).abs().amax(2).argmin(1)  # (B, H, W): whose pixel it is
    counts = [len(one.unique()) for one in from_where]
    assert max(counts) == 2
    assert len(set(counts)) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [({"original": None}, "needs the net before the cut"), ({"calibration": None}, "needs calibration batches")],
)
def test_what_is_missing_is_named(change, message):
    cut, context = cut_and_context(a_net())
    with pytest.raises(InputError, match=message):
        QUICK(cut, dataclasses.replace(context, **change))


@pytest.mark.parametrize(
    "settings", [{"steps": 0}, {"lr": 0}, {"crop_scale": (0.5, 0.2)}, {"flip": 2.0}, {"cutmix": -1.0}]
)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(InputError, match=next(iter(settings))):
        Recover(**settings)
