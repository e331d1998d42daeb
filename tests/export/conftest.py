"""A net that tells colors apart, trained in a second, beside the photos that it was trained on."""

import pytest
import torch
import torch.nn.functional as F

from solution import checkpoint
from solution.data.loaders import Data
from solution.models.shufflenet import ShuffleNet


@pytest.fixture(scope="session")
def color_net(photos, tmp_path_factory):
    """The checkpoint of a small ShuffleNet of three classes, for `photos` at 32 pixels."""
    loaders = Data(path=str(photos), size=32).open(splits=("calibration",))
    torch.manual_seed(0)
    net = ShuffleNet(units=(2, 2, 1), width=0.1).build(num_classes=3)
    images, labels = next(iter(loaders.calibration))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    for _ in range(25):
        optimizer.zero_grad()
        F.cross_entropy(net(images), labels).backward()
        optimizer.step()
    for _ in range(20):
        net(images)  # the norms' running figures catch up with the weights
    path = tmp_path_factory.mktemp("nets") / "colors.safetensors"
    metadata = {"classes": loaders.info.classes, "mean": loaders.mean, "std": loaders.std, "size": 32}
    checkpoint.save(path, net.eval(), checkpoint.header_of(net, **metadata))
    return path
