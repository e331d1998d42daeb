"""Which blocks a net can do without, found by running it."""

import pytest
import torch
from torch import nn

from solution.compress.residual import PassThrough, blocks_of, stages_of, taken_out, without
from solution.contracts import InputError
from solution.evaluate.cost import macs, params
from solution.models.classifiers import Classifier


def conv(inputs=8, outputs=8):
    return nn.Conv2d(inputs, outputs, 3, padding=1)


class Sum(nn.Module):
    """A residual block; `scale` is an input beside the features."""

    def __init__(self, activation=None):
        super().__init__()
        self.body = nn.Sequential(conv(), nn.BatchNorm2d(8), nn.ReLU(), conv())
        self.activation = activation or nn.Identity()

    def forward(self, x, scale=1.0):
        return self.activation(x + scale * self.body(x))


class Gate(nn.Module):
    def __init__(self):
        super().__init__()
        self.squeeze, self.excite = conv(), conv()

    def forward(self, x):
        return x * torch.sigmoid(self.excite(torch.relu(self.squeeze(x))))


class Net(nn.Module):
    """A stem, a body that `run` runs, a classifier."""

    def __init__(self, body, run=lambda body, x: body(x)):
        super().__init__()
        self.stem, self.body, self.head, self.run = conv(3), body, nn.Linear(8, 5), run

    def forward(self, x):
        return self.head(self.run(self.body, self.stem(x)).mean((2, 3)))


EXAMPLE = torch.zeros(2, 3, 16, 16)


def looped(body, x):
    for block in body:
        x = block(x, scale=0.5)
    return x


def paths(net):
    return [block.path for block in blocks_of(net, EXAMPLE)]


def trained(net):
    """Norms with the statistics of some training, as if it had happened."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.normal_(module.bias)
    return net.eval()


@pytest.mark.parametrize("activation", [None, nn.ReLU(), nn.SiLU(), nn.GELU(), nn.PReLU(8), nn.Hardswish()])
def test_sums_are_found_whatever_follows_the_sum(activation):
    net = trained(Net(nn.Sequential(Sum(activation), Sum(activation))))
    assert paths(net) == ["body.0", "body.1"]


@pytest.mark.parametrize(
    "layer", [conv(), nn.Sequential(conv(), nn.BatchNorm2d(8), nn.ReLU()), Gate(), nn.PReLU(8), nn.BatchNorm2d(8)]
)
def test_what_only_keeps_the_shape_is_not_a_block(layer):
    assert paths(trained(Net(nn.Sequential(layer, Sum())))) == ["body.1"]


def test_a_stage_of_blocks_is_not_a_block_itself():
    net = Net(nn.Sequential(nn.Sequential(Sum(), Sum()), nn.Sequential(Sum(), conv())))
    assert paths(net) == ["body.0.0", "body.0.1", "body.1.0"]
    assert [(stage.path, stage.size) for stage in stages_of(net, EXAMPLE)] == [("body.0", 2), ("body.1", 1)]


def test_what_a_block_saves_is_what_the_net_loses():
    net = Net(nn.Sequential(Sum(), Sum()))
    block = blocks_of(net, EXAMPLE)[0]
    cut = taken_out(net, [block])
    assert block.macs == macs(net, EXAMPLE) - macs(cut, EXAMPLE) > 0
    assert block.params == params(net) - params(cut)


def test_blocks_of_a_sequence_are_deleted_and_their_neighbors_keep_their_names():
    net = Net(nn.Sequential(Sum(), Sum(), Sum()))
    cut = taken_out(net, blocks_of(net, EXAMPLE)[:2])
    assert list(dict(cut.body.named_children())) == ["2"]
    assert len(net.body) == 3


@pytest.mark.parametrize(
    ("body", "run"),
    [
        (nn.ModuleList([Sum(), Sum()]), looped),
        (nn.Sequential(Sum(), Sum()), looped),
        (nn.Sequential(Sum(), conv()), lambda body, x: body[1](body[0](x))),
    ],
)
def test_blocks_of_a_list_leave_a_pass_through(body, run):
    net = Net(body, run).eval()
    block = blocks_of(net, EXAMPLE)[0]
    assert block.listed
    cut = taken_out(net, [block])
    assert isinstance(cut.body[0], PassThrough)
    images = torch.randn(2, 3, 16, 16)
    body[0] = nn.Identity() if run is not looped else PassThrough()
    assert torch.equal(cut(images), net(images))


def test_a_block_that_the_forward_asks_for_stays():
    net = Net(nn.ModuleList([Sum(), Sum()]), lambda body, x: body[1](body[0](x) + body[0].body[0].bias.sum()))
    assert paths(net) == ["body.1"]


def test_looking_leaves_the_net_as_it_was():
    net = Net(nn.Sequential(Sum(), Sum())).train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    stages_of(net, EXAMPLE)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert all(module.training and not module._forward_hooks for module in net.modules())


def test_an_example_that_does_not_fit_is_refused():
    with pytest.raises(InputError, match="does not run on images of 1 x 4 x 16 x 16"):
        stages_of(Net(nn.Sequential(Sum())), torch.zeros(1, 4, 16, 16))


def test_a_block_that_is_not_there_is_named():
    with pytest.raises(InputError, match=r"another net: there is no block 'body\.7'"):
        without(Net(nn.Sequential(Sum())), ["body.7"])


FAST = [
    ("torchvision:mobilenet_v2", 32, 10),
    ("torchvision:shufflenet_v2_x0_5", 32, 13),
    ("torchvision:squeezenet1_1", 64, 0),
    ("timm:test_convnext", 64, 9),
    ("pytorchcv:resnet20_cifar10", 32, 7),
]
SLOW = [
    ("torchvision:resnet50", 64, 12),
    ("torchvision:convnext_tiny", 64, 18),
    ("torchvision:swin_t", 64, 12),
    ("torchvision:vit_b_16", 224, 12),
    ("torchvision:efficientnet_b0", 64, 9),
    ("torchvision:regnet_y_400mf", 64, 12),
    ("torchvision:mobilenet_v3_small", 64, 6),
    ("torchvision:mnasnet0_5", 64, 10),
    ("torchvision:vgg11_bn", 64, 0),
    ("torchvision:densenet121", 64, 0),
    ("timm:test_vit", 160, 6),
    ("pytorchcv:shufflenet_g3_wd4", 224, 13),
    ("pytorchcv:preresnet10", 224, 1),
]


def check_blocks(name, size, count):
    torch.manual_seed(0)
    net, example = Classifier(name=name).build(num_classes=10).eval(), torch.randn(2, 3, size, size)
    blocks = blocks_of(net, example)
    assert len(blocks) == count
    cut = taken_out(net, blocks)
    assert cut(example).shape == (2, 10)
    assert sum(block.macs for block in blocks) == macs(net, example) - macs(cut, example)


@pytest.mark.parametrize(("name", "size", "count"), FAST)
def test_blocks_of_library_nets(name, size, count):
    check_blocks(name, size, count)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size", "count"), SLOW)
def test_blocks_of_more_library_nets(name, size, count):
    check_blocks(name, size, count)
