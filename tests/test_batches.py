"""Batches of any loader become (images, labels), or what is wrong with them is named."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from solution.batches import tidied
from solution.compress.channels.step import PruneChannels
from solution.contracts import InputError, StepContext
from solution.train.step import Train

X, Y = torch.randn(33, 3, 12, 12, generator=torch.Generator().manual_seed(0)), torch.arange(33) % 3
STEPS = {"train": Train(epochs=1, lr=0.01), "taylor": PruneChannels(ratio=0.5, importance="taylor"),
         "activation": PruneChannels(ratio=0.5, importance="activation")}  # fmt: skip


class Answers(nn.Module):
    def __init__(self, wrap):
        super().__init__()
        self.net, self.wrap = net(), wrap

    def forward(self, x):
        return self.wrap(self.net(x))


class Stream(IterableDataset):
    def __iter__(self):
        return iter(zip(X, Y, strict=True))


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.ReLU(),
        nn.Linear(8, 3),
    ).eval()  # fmt: skip


def loader(labels=Y, **options):
    return DataLoader(TensorDataset(X, labels), **{"batch_size": 8, **options})


def context(batches, log=lambda _: None):
    return StepContext(
        example=X[:2], train=batches, dev=loader(), calibration=loader(), classes=("a", "b", "c"), counts=(11, 11, 11),
        log=log,
    )  # fmt: skip


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(
    "batches",
    [
        loader(),  # the last batch has one picture
        loader(Y.int()),
        loader(Y.float()[:, None]),
        loader(nn.functional.one_hot(Y)),
        loader(nn.functional.one_hot(Y).float()),
        [{"pixel_values": X[:8], "labels": Y[:8]}, {"pixel_values": X[8:], "labels": Y[8:]}],
        [[X[:8], Y[:8]]],
        [(X[:8], Y[:8].tolist())],
        DataLoader(Stream(), batch_size=8),
    ],
    ids=["odd", "int32", "column", "one_hot", "one_hot_float", "dictionary", "lists", "numbers", "stream"],
)
def test_batches_of_all_kinds_are_learned_from(step, batches):
    made = STEPS[step](net(), context(batches))
    assert made(X).shape == (33, 3)


def test_a_generator_is_kept_for_several_epochs():
    lines = []
    made = Train(epochs=3, lr=0.01)(net(), context(((X, Y) for _ in range(2)), lines.append))
    assert made(X).shape == (33, 3)
    assert any("2 batches are kept in memory" in line for line in lines)


@pytest.mark.parametrize("unknown", [-1, -100])
def test_pictures_of_unknown_class_are_left_out_and_counted(unknown):
    lines = []
    found = tidied(loader(torch.where(Y == 2, unknown, Y)), 3, lines.append)
    for _ in range(2):
        labels = torch.cat([labels for _, labels, *_ in found])
        assert labels.tolist() == [label for label in Y.tolist() if label != 2]
    assert lines == ["11 pictures of unknown class (label -1 or -100) are left out"]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (Y + 1, "counted from 1, so give labels - 1"),
        (Y + 7, "run up to 9, and 3 classes are counted from 0 to 2"),
        (Y - 2, "begin at -2"),
        (Y + 0.5, r"no whole numbers, such as 0\.5"),
        (torch.full((33, 3), 1 / 3), r"shares of classes"),
    ],
)
def test_labels_that_cannot_be_meant_are_named(labels, message):
    with pytest.raises(InputError, match=message):
        Train(epochs=1, lr=0.01)(net(), context([(X, labels)]))


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        (["batch"], "it is a str"),
        ([{"pictures": X, "labels": Y}], "a dictionary of pictures, labels"),
        (3, "must be a loader or a list, got a int"),
    ],
)
def test_batches_that_hold_no_pictures_are_named(batches, message):
    with pytest.raises(InputError, match=message):
        list(context(batches).train)


@pytest.mark.parametrize("wrap", [lambda z: {"logits": z, "aux": z[:1]}, lambda z: (z, z), lambda z: {"out": z}])
@pytest.mark.parametrize("step", STEPS)
def test_nets_that_return_more_than_logits_are_trained_and_cut(step, wrap):
    made = STEPS[step](Answers(wrap), context(loader()))
    assert isinstance(made(X), dict | tuple)


def test_what_cannot_learn_is_named():
    with pytest.raises(InputError, match="all weights are frozen"):
        Train(epochs=1, lr=0.01)(net().requires_grad_(False), context(loader()))
    with pytest.raises(InputError, match="no logits are found"):
        Train(epochs=1, lr=0.01)(Answers(lambda z: {"a": z, "b": z}), context(loader()))
    with pytest.raises(InputError, match="batch of one picture"):
        Train(epochs=1, lr=0.01)(net(), context(loader(batch_size=1)))
