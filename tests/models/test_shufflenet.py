import pytest
import torch
from hypothesis import given, settings, strategies as st

from solution.contracts import InputError, spec_of
from solution.models.cifar_resnet import CifarResNet
from solution.models.shufflenet import STAGE_CHANNELS, ShuffleNet, load_pytorchcv
from solution.models.weights import built


def randomize(net):
    for name, tensor in net.state_dict().items():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5) if "running_var" in name else tensor.normal_(0, 0.3)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("shufflenet_g3_wd4", {}),
        ("shufflenet_g1_wd4", {"groups": 1}),
        ("shufflenet_g2_w1", {"groups": 2, "width": 1.0}),
        ("shufflenet_g8_w1", {"groups": 8, "width": 1.0}),
    ],
)
def test_pytorchcv_weights_load_by_key_and_give_equal_outputs(name, arguments):
    from pytorchcv.model_provider import get_model

    peer = get_model(name).eval()
    randomize(peer)
    net = ShuffleNet(head="linear", **arguments).build(num_classes=1000).eval()
    load_pytorchcv(net, peer.state_dict())
    x = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(net(x), peer(x))


def test_pytorchcv_trunk_loads_under_a_classifier_of_other_classes():
    from pytorchcv.model_provider import get_model

    peer = get_model("shufflenet_g3_wd4")
    net = ShuffleNet().build(num_classes=9)
    head = net.output.weight.clone()
    load_pytorchcv(net, peer.state_dict())
    assert torch.equal(net.output.weight, head)
    assert torch.equal(
        net.features.stage2.unit3.dw_conv2.weight, peer.state_dict()["features.stage2.unit3.dw_conv2.weight"]
    )


def test_weights_of_another_net_are_refused_by_name():
    from pytorchcv.model_provider import get_model

    with pytest.raises(InputError, match=r"stage1.unit1.compress_conv1.weight"):
        load_pytorchcv(ShuffleNet(groups=1).build(num_classes=9), get_model("shufflenet_g3_wd4").state_dict())


def test_a_biased_classifier_does_not_fit_a_bias_free_one():
    from pytorchcv.model_provider import get_model

    with pytest.raises(InputError, match="linear"):
        load_pytorchcv(ShuffleNet().build(num_classes=1000), get_model("shufflenet_g3_wd4").state_dict())


@settings(max_examples=25, deadline=None)
@given(
    units=st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple),
    groups=st.sampled_from(sorted(STAGE_CHANNELS)),
    width=st.floats(0.05, 0.6),
    head=st.sampled_from(["conv", "linear"]),
)
def test_every_setting_builds_a_net_that_runs(units, groups, width, head):
    net = ShuffleNet(units=units, groups=groups, width=width, head=head).build(num_classes=5).eval()
    assert net(torch.zeros(2, 3, 32, 32)).shape == (2, 5)
    assert spec_of(net).settings.units == units


def test_widths_are_taken_as_given():
    net = ShuffleNet(units=(1, 1, 1), widths=(9, 24, 60, 96)).build(num_classes=4).eval()
    assert net.features.stage3.unit1(torch.zeros(1, 60, 8, 8)).shape == (1, 96, 4, 4)


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        ({"groups": 5}, "5"),
        ({"units": (4, 0, 4)}, r"\(4, 0, 4\)"),
        ({"width": 0}, "0"),
        ({"head": "mlp"}, "mlp"),
        ({"widths": (6, 61, 120, 240)}, "61"),
        ({"widths": (6, 60, 120)}, "3 stages"),
        ({"widths": (6, 60, 60, 120)}, "grow"),
        ({"dropout": 1.0}, "1.0"),
    ],
)
def test_bad_settings_name_the_value(arguments, value):
    with pytest.raises(InputError, match=value):
        ShuffleNet(**arguments)


HUGE = 10**9


@pytest.mark.parametrize(
    "settings",
    [
        ShuffleNet(width=1e9),
        ShuffleNet(width=1e5),
        ShuffleNet(width=1e300),
        ShuffleNet(units=(HUGE,)),
        ShuffleNet(widths=(3 * HUGE, 12 * HUGE, 24 * HUGE, 48 * HUGE)),
        CifarResNet(width=1e9),
        CifarResNet(depth=6 * HUGE + 2),
    ],
    ids=lambda settings: str(settings)[:60],
)
def test_impossible_sizes_are_refused_before_memory_is_asked_for(settings):
    with pytest.raises(InputError, match=r"more than 16 GB of weights, .* or set SOLUTION_MAX_NET_BYTES"):
        built(settings, 9)


def test_the_limit_of_sizes_can_be_raised_and_changes_no_weight(monkeypatch):
    torch.manual_seed(0)
    wanted = ShuffleNet().build(9).state_dict()
    torch.manual_seed(0)
    assert all(map(torch.equal, built(ShuffleNet(), 9).state_dict().values(), wanted.values()))
    monkeypatch.setenv("SOLUTION_MAX_NET_BYTES", "1000000")
    with pytest.raises(InputError, match=r"more than 0\.001 GB"):
        built(ShuffleNet(), 9)
    monkeypatch.setenv("SOLUTION_MAX_NET_BYTES", "1000000000")
    built(ShuffleNet(), 9)


@pytest.mark.parametrize("width", [float("nan"), float("inf"), 0.0, -1.0])
@pytest.mark.parametrize("kind", [ShuffleNet, CifarResNet])
def test_a_width_is_a_number_above_0(kind, width):
    with pytest.raises(InputError, match="width must be a number above 0"):
        kind(width=width)
