"""Golden MACs, equality with ptflops itself, and what must not disturb a count."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrize, prune

from solution.compress.cluster import Cluster
from solution.compress.prune_weights import PruneWeights
from solution.compress.quantize import Convert, Quantize
from solution.contracts import InputError, StepContext
from solution.evaluate.cost import file_bytes, macs, macs_dispatched, params, processor_ms, sparsity
from solution.graph import images_for
from solution.models.shufflenet import ShuffleNet

IMAGE = torch.zeros(1, 3, 80, 80)
GOLDEN = [
    ((4, 8, 4), 1_688_940, 1_467_600, 67_062),
    ((4, 6, 3), 1_439_700, 1_242_840, 50_142),
    ((3, 5, 3), 1_272_450, 1_102_590, 46_197),
    ((2, 5, 2), 1_083_210, 937_830, 34_422),
    ((2, 4, 2), 1_007_460, 871_080, 31_392),
]


@pytest.mark.parametrize(("units", "counted", "dispatched", "parameters"), GOLDEN)
def test_golden_rows(units, counted, dispatched, parameters):
    net = ShuffleNet(units=units).build(num_classes=9)
    assert macs(net, IMAGE) == counted
    assert macs_dispatched(net, IMAGE) == dispatched
    assert params(net) == parameters


def ptflops(net, side, backend):
    from ptflops import get_model_complexity_info

    return get_model_complexity_info(
        copy.deepcopy(net),
        (3, side, side),
        as_strings=False,
        print_per_layer_stat=False,
        backend=backend,
        backend_specific_config={"count_functional": False},
    )[0]


class Odd(nn.Module):
    """Classes that ptflops knows besides convolutions, and a counted module inside a counted one."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2, groups=1)
        self.layers = nn.Sequential(
            nn.GroupNorm(2, 8), nn.GELU(), nn.ConvTranspose2d(8, 6, 3, 2), nn.Upsample(scale_factor=2)
        )
        self.norm, self.attention = nn.LayerNorm(6), nn.MultiheadAttention(6, 2, batch_first=True)
        self.memory, self.head = nn.GRU(6, 5, batch_first=True), nn.Linear(5, 9)
        self.norm.inner = nn.ReLU()

    def forward(self, x):
        x = self.layers(self.conv(x)).mean(3).mT  # (B, H, 6)
        x = self.norm.inner(self.norm(x))
        return self.head(self.memory(self.attention(x, x, x)[0])[0][:, -1])


def published(name):
    import timm
    import torchvision

    if name in ("lcnet_035", "vit_tiny_patch16_224"):
        return timm.create_model(name, num_classes=9, **({"img_size": 64} if "vit" in name else {}))
    return torchvision.models.get_model(name, weights=None, num_classes=9)


@pytest.mark.parametrize(
    "name", ["mobilenet_v2", "shufflenet_v2_x0_5", "resnet18", "lcnet_035", "vit_tiny_patch16_224"]
)
def test_the_count_is_ptflops_own(name):
    net = published(name).eval()
    assert macs(net, torch.zeros(4, 3, 64, 64)) == ptflops(net, 64, "pytorch")


def test_odd_modules_count_as_in_ptflops():
    assert macs(Odd(), IMAGE) == ptflops(Odd().eval(), 80, "pytorch")


@pytest.mark.parametrize("name", ["mobilenet_v2", "shufflenet_v2_x0_5", "resnet18", "squeezenet1_1"])
def test_the_dispatched_count_is_that_of_ptflops_aten(name):
    net = published(name).eval()
    assert macs_dispatched(net, torch.zeros(4, 3, 64, 64)) == ptflops(net, 64, "aten")


def test_only_one_image_is_counted():
    net = nn.Conv2d(3, 4, 1)
    assert macs(net, torch.zeros(7, 3, 5, 5)) == macs(net, torch.zeros(1, 3, 5, 5)) == 25 * 4 * 3 + 25 * 4


def test_functional_work_is_seen_by_the_dispatcher_alone():
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 3, 3, 3))

        def forward(self, x):
            return F.conv2d(x, self.weight, padding=1)

    assert macs(Functional(), IMAGE) == 0
    assert macs_dispatched(Functional(), IMAGE) == 27 * 4 * 6400


def test_attention_is_seen_by_the_dispatcher():
    class Attention(nn.Module):
        def __init__(self, multiply):
            super().__init__()
            self.multiply = multiply

        def forward(self, x):
            return self.multiply(x, x, x)

    fused, by_hand = Attention(F.scaled_dot_product_attention), Attention(lambda q, k, v: (q @ k.mT).softmax(-1) @ v)
    tokens = torch.zeros(1, 2, 10, 4)
    assert macs_dispatched(fused, tokens) == macs_dispatched(by_hand, tokens) == 2 * 2 * 10 * 10 * 4


def test_a_shared_module_counts_as_often_as_it_runs():
    shared = nn.Conv2d(3, 3, 1, bias=False)
    net = nn.Sequential(nn.Sequential(shared, nn.Flatten(0, -1), nn.Unflatten(0, (1, 3, 4, 4))), nn.Sequential(shared))
    assert macs(net, torch.zeros(1, 3, 4, 4)) == 2 * 9 * 16
    assert params(net) == 9


def test_a_module_called_with_named_arguments_counts():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1, bias=False)

        def forward(self, x):
            return self.conv(input=x)

    assert macs(Named(), IMAGE) == 12 * 6400


class Halved(nn.Module):
    def forward(self, weight):
        return weight * (weight > 0)


def test_parametrized_and_masked_modules_still_count():
    net = ShuffleNet(units=(2, 5, 2)).build(num_classes=9)
    masked = copy.deepcopy(net)
    for module in list(net.modules()):
        if isinstance(module, nn.Conv2d):
            parametrize.register_parametrization(module, "weight", Halved())
    for module in masked.modules():
        if isinstance(module, nn.Conv2d):
            prune.l1_unstructured(module, "weight", 0.25)
    for changed in (net, masked):
        assert (macs(changed, IMAGE), macs_dispatched(changed, IMAGE)) == (1_083_210, 937_830)
        assert params(changed) == 34_422
    assert sparsity(net) == pytest.approx(50, abs=2)
    assert sparsity(masked) == pytest.approx(25, abs=0.5)


STORED_OTHERWISE = {
    "codes": (Quantize(scheme="int4"),),
    "half precision throughout": (Quantize(scheme="float16", other_dtype="float16"),),
    "grids that train": (Quantize(scheme="int4", qat=True),),
    "codes that were trained": (Quantize(scheme="int4", qat=True), Convert()),
    "codebooks": (Cluster(bits=4),),
    "kept zeros": (PruneWeights(sparsity=0.5),),
    "codebooks of kept zeros": (PruneWeights(sparsity=0.5), Cluster(bits=4)),
}


@pytest.mark.parametrize("name", STORED_OTHERWISE)
def test_weights_count_whatever_they_are_stored_as(name, small_net):
    context = StepContext(example=torch.randn(2, 3, 32, 32))
    count, net = params(small_net), small_net
    for step in STORED_OTHERWISE[name]:
        net = step(net, context)
    assert params(net) == count
    assert params(net.requires_grad_(False)) == count


def test_a_folded_norm_leaves_a_bias(small_net):
    context = StepContext(example=torch.randn(2, 3, 32, 32))
    norms = [module for module in small_net.modules() if isinstance(module, nn.BatchNorm2d)]
    net = Quantize(scheme="int8", fold_norms=True)(small_net, context)
    left = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    folded = sum(norm.num_features for norm in norms) - sum(norm.num_features for norm in left)
    assert folded > 0
    assert params(net) == params(small_net) - folded  # a weight and a bias each before, a bias after


def test_a_traced_net_counts_nothing_but_runs():
    with pytest.warns(FutureWarning):
        net = torch.jit.trace(nn.Conv2d(3, 4, 1, bias=False), IMAGE)
    assert (macs(net, IMAGE), macs_dispatched(net, IMAGE)) == (0, 12 * 6400)


def test_the_net_and_the_console_are_left_alone(capfd):
    net = ShuffleNet(units=(1, 1, 1)).build(num_classes=9).train()
    net.features.stage1.eval()
    net.output.__dict__["__flops__"] = "mine"
    modes = [module.training for module in net.modules()]
    state, attributes = copy.deepcopy(net.state_dict()), [sorted(vars(module)) for module in net.modules()]
    macs(net, IMAGE)
    macs_dispatched(net, IMAGE)
    assert modes == [module.training for module in net.modules()]
    assert attributes == [sorted(vars(module)) for module in net.modules()]
    assert vars(net.output)["__flops__"] == "mine"
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
    assert capfd.readouterr() == ("", "")


def test_a_net_that_does_not_take_the_image_says_so():
    net = ShuffleNet(units=(1, 1, 1)).build(num_classes=9)
    with pytest.raises(InputError, match=r"does not run on images of 1 x 4 x 80 x 80 .*expected input"):
        macs(net, torch.zeros(1, 4, 80, 80))
    assert not any(module._forward_hooks for module in net.modules())
    with pytest.raises(InputError, match="at least one image"):
        macs(net, torch.zeros(0, 3, 80, 80))


def test_weights_in_double_precision_are_measured_too():
    assert macs(nn.Conv2d(3, 4, 1, bias=False).double(), IMAGE) == 12 * 6400


def test_sparsity_is_percent_of_weights_with_two_dimensions():
    net = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5))
    nn.init.ones_(net[0].weight)
    nn.init.zeros_(net[0].bias)
    assert sparsity(net) == 0
    with torch.no_grad():
        net[0].weight[0] = 0
    assert sparsity(net) == 20
    assert sparsity(nn.ReLU()) == 0


def test_file_bytes(tmp_path):
    (tmp_path / "net.xml").write_bytes(b"12345")
    (tmp_path / "net.bin").write_bytes(b"123")
    assert file_bytes(tmp_path / "net.xml") == 5
    assert file_bytes(tmp_path) == 8
    with pytest.raises(InputError, match="no file to measure"):
        file_bytes(tmp_path / "missing")


def test_processor_time_grows_with_the_work_and_leaves_the_net_as_it_was():
    net = ShuffleNet(units=(4, 8, 4)).build(num_classes=9).train()
    before = copy.deepcopy(net.state_dict())
    small, large = (processor_ms(net, torch.zeros(2, 3, side, side)) for side in (32, 256))
    assert 0 < small < large
    assert net.training
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


def test_images_follow_a_net_whose_weights_are_all_codes():
    net = Quantize(scheme="float16", other_dtype="float16")(
        nn.Sequential(nn.Conv2d(3, 4, 3)), StepContext(example=IMAGE)
    )
    assert not [parameter for parameter in net.parameters() if parameter.is_floating_point()]
    assert images_for(net.to("meta"), IMAGE).device.type == "meta"
