import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from solution import checkpoint
from solution.contracts import InputError
from solution.models.shufflenet import ShuffleNet
from solution.report.diagnostics import look, see

CLASSES = ("blue", "green", "red")


class Bright(nn.Module):
    """Says the brightest channel, as surely as it is bright."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 3, bias=False)
        nn.init.eye_(self.head.weight)

    def forward(self, x):
        return self.head(x.mean((2, 3)))


def colors(*values):
    return torch.tensor(values, dtype=torch.float32)[:, :, None, None].expand(-1, -1, 4, 4)


def test_worst_are_the_surest_mistakes():
    images = colors((9, 0, 0), (1, 0, 0), (5, 0, 0), (0, 3, 0))
    seen = see(Bright(), [(images[:3], torch.tensor([1, 1, 0])), (images[3:], torch.tensor([2]))])
    assert seen.worst(10).tolist() == [0, 3, 1]
    assert seen.worst(1).tolist() == [0]
    assert seen.judged.accuracy == 0.25
    np.testing.assert_allclose(seen.features[3], (0, 3, 0))
    np.testing.assert_allclose(seen.probabilities.sum(axis=1), 1, rtol=1e-6)


def test_looking_leaves_no_hook_behind():
    model = Bright()
    with pytest.raises(InputError, match="no images"):
        see(model, [])
    assert not model.head._forward_pre_hooks


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    paths = {}
    for role, units in (("before", (2, 2, 1)), ("after", (1, 1, 1))):
        net = ShuffleNet(units=units, width=0.1).build(num_classes=3).eval()
        paths[role] = tmp_path / f"{role}.safetensors"
        header = checkpoint.header_of(net, classes=CLASSES, mean=(0.5,) * 3, std=(0.25,) * 3, size=32)
        checkpoint.save(paths[role], net, header)
    return paths


def test_checkpoints_are_judged_on_the_val_split(saved, photos):
    looked = look(saved, str(photos), {"data.val_share": 0.15})
    assert looked.classes == CLASSES
    assert looked.pictures.images.shape == (18, 32, 32, 3)
    assert list(looked.seen) == ["before", "after"]
    assert len(look(saved, str(photos), {"data.folds": 3, "data.fold": 1}).pictures.labels) == 24
    assert looked.seen["after"].features.shape == (18, ShuffleNet(units=(1, 1, 1), width=0.1).channels()[-1])
    np.testing.assert_array_equal(looked.seen["before"].judged.labels, looked.pictures.labels)


def test_photos_of_other_classes_are_refused(saved, photos):
    net, header = checkpoint.load(saved["after"])
    checkpoint.save(saved["after"], net, dataclasses.replace(header, classes=("a", "b", "c")))
    with pytest.raises(
        InputError, match=r"after\.safetensors knows the classes a, b, c; .*colors has blue, green, red"
    ):
        look(saved, str(photos), {})
