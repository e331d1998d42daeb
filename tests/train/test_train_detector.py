"""A detector learns boxes."""

import pytest
import torch
from scenes import write_scenes
from torch import nn

from solution.contracts import InputError, StepContext
from solution.data.detection import DetectionData
from solution.models.ssdlite import SsdLite
from solution.train.step import TrainDetector


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    path = write_scenes(tmp_path_factory.mktemp("scenes") / "shapes.tar")
    loaders = DetectionData(path=str(path), size=64, batch_size=4).open()
    example = next(iter(loaders.val))[0][:2].contiguous()
    return StepContext(example=example, train=loaders.train, calibration=loaders.calibration, log=lambda _: None)


def test_learns_in_a_copy_and_the_same_seed_gives_the_same_net(context):
    torch.manual_seed(0)
    net = SsdLite().build(2)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    step = TrainDetector(epochs=1, lr=0.001)
    first, second = step(net, context).state_dict(), step(net, context).state_dict()
    assert all(torch.equal(net.state_dict()[name], value) for name, value in before.items())
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], before[name]) for name in first)


def test_what_is_for_classes_is_refused(context):
    with pytest.raises(InputError, match="a detector is trained without auxiliary"):
        TrainDetector(auxiliary=0.3)
    with pytest.raises(InputError, match="without keep"):
        TrainDetector(keep="best")
    with pytest.raises(InputError, match="Linear is no detector"):
        TrainDetector(epochs=1)(nn.Linear(1, 1), context)
