"""Honest nets pass; every planted cheat is refused, a big one and one of 1 % of the net's MACs."""

import copy
import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrize, prune
from torch.utils._python_dispatch import _disable_current_modes

from solution.evaluate.audit import CLASSIFIER_TOLERANCE, TOLERANCE, audit
from solution.models.shufflenet import ShuffleNet

IMAGE = torch.zeros(1, 3, 80, 80)
SIZES = {"one percent": (8, 4), "big": (1, 4)}
"""Stride with which a cheat samples the image, filters it applies: 10,800 and 691,200 MACs, beside 1,083,210."""


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return ShuffleNet(units=(2, 5, 2)).build(num_classes=9)


class Cheating(nn.Module):
    """A net whose answers also use a block that should cost nothing."""

    def __init__(self, net, block, stride):
        super().__init__()
        self.net, self.block, self.stride = net, block, stride

    def forward(self, x):
        return self.net(x) + self.block(x[:, :, :: self.stride, :: self.stride].contiguous()).mean((1, 2, 3))[:, None]


class Block(nn.Module):
    """Holds the weights (filters, 3, 3, 3) of a 3 x 3 convolution."""

    def __init__(self, filters):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(filters, 3, 3, 3))

    def columns(self, x):
        return F.unfold(x, 3, padding=1)  # (B, 27, H*W)

    def shifted(self, x):
        """Each weight's place in the kernel with the (B, H, W) plane that it multiplies."""
        padded, (height, width) = F.pad(x, (1, 1, 1, 1)), x.shape[2:]
        for channel in range(3):
            for row in range(3):
                for column in range(3):
                    plane = padded[:, channel, row : row + height, column : column + width]
                    yield (channel, row, column), plane


class Functional(Block):
    def forward(self, x):
        return F.conv2d(x, self.weight, padding=1)


class Einsum(Block):
    def forward(self, x):
        return torch.einsum("fk,bkp->bfp", self.weight.flatten(1), self.columns(x))[:, :, None]


class Matmul(Block):
    def forward(self, x):
        return (self.weight.flatten(1) @ self.columns(x))[:, :, None]


class FunctionalLinear(Block):
    def forward(self, x):
        return F.linear(self.columns(x).transpose(1, 2), self.weight.flatten(1))[:, None]


def scripted(filters):
    return torch.jit.script(Functional(filters))


def traced(filters):
    return torch.jit.trace(Functional(filters), torch.ones(1, 3, 8, 8))


def frozen(filters):
    return torch.jit.optimize_for_inference(torch.jit.freeze(scripted(filters).eval()))


class ScriptedFunction(Block):
    def __init__(self, filters):
        super().__init__(filters)
        example = torch.ones(1, 3, 8, 8), self.weight.detach()
        self.convolve = torch.jit.trace(lambda x, weight: torch.conv2d(x, weight, padding=(1, 1)), example)

    def forward(self, x):
        return self.convolve(x, self.weight)


class OwnFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight):
        return F.conv2d(x, weight, padding=1)


class Autograd(Block):
    def forward(self, x):
        return OwnFunction.apply(x, self.weight)


class MultiplyAdd(Block):
    def forward(self, x):
        out = torch.zeros(len(x), len(self.weight), *x.shape[2:])
        for (channel, row, column), plane in self.shifted(x):
            out += plane[:, None] * self.weight[:, channel, row, column, None, None]
        return out


class MultiplyAddInPlace(Block):
    def forward(self, x):
        out = torch.zeros(len(x), len(self.weight), *x.shape[2:])
        for (channel, row, column), plane in self.shifted(x):
            out.addcmul_(plane[:, None], self.weight[:, channel, row, column, None, None])
        return out


class PythonNumbers(Block):
    def __init__(self, filters):
        super().__init__(filters)
        self.numbers = self.weight.tolist()

    def forward(self, x):
        out = [torch.zeros(len(x), *x.shape[2:]) for _ in self.numbers]
        for (channel, row, column), plane in self.shifted(x):
            for index, kernel in enumerate(self.numbers):
                out[index] = out[index] + plane * kernel[channel][row][column]
        return torch.stack(out, 1)


class Alpha(PythonNumbers):
    def forward(self, x):
        out = [torch.zeros(len(x), *x.shape[2:]) for _ in self.numbers]
        for (channel, row, column), plane in self.shifted(x):
            for index, kernel in enumerate(self.numbers):
                out[index] = torch.add(out[index], plane, alpha=kernel[channel][row][column])
        return torch.stack(out, 1)


class OuterProduct(Block):
    def forward(self, x):
        return (self.columns(x)[:, None] * self.weight.flatten(1)[None, :, :, None]).sum(2)[:, :, None]


class WeightsInDisguise(Block):
    def forward(self, x):
        weight = self.weight.flatten(1)[None, :, :, None] + 0 * x.mean((1, 2, 3))[:, None, None, None]
        return (self.columns(x)[:, None] * weight).sum(2)[:, :, None]


class Adding(Block):
    def forward(self, x):
        return (self.columns(x)[:, None] - self.weight.flatten(1)[None, :, :, None]).abs().sum(2)[:, :, None]


class Numpy(Block):
    def forward(self, x):
        columns = self.columns(x).numpy()
        return torch.from_numpy(self.weight.detach().flatten(1).numpy() @ columns)[:, :, None]


class Thread(Functional):
    def forward(self, x):
        out = []
        with torch.no_grad():
            thread = threading.Thread(target=lambda: out.append(F.conv2d(x, self.weight.detach(), padding=1)))
            thread.start()
            thread.join()
        return out[0]


class OutOfSight(Functional):
    def forward(self, x):
        with _disable_current_modes():
            return super().forward(x)


class InferenceMode(Functional):
    def forward(self, x):
        with torch.inference_mode():
            return super().forward(x).clone()


class Fourier(Block):
    def forward(self, x):
        kernel = torch.fft.rfft2(self.weight, s=x.shape[2:])
        return torch.fft.irfft2((torch.fft.rfft2(x)[:, None] * kernel).sum(2), s=x.shape[2:])


class Solved(Block):
    def forward(self, x):
        return torch.linalg.solve(self.weight[:3, 0], x[:, :, :3, :1])


class Unregistered(Block):
    def __init__(self, filters):
        super().__init__(filters)
        self.hidden = [nn.Conv2d(3, filters, 3, padding=1, bias=False)]

    def forward(self, x):
        return self.hidden[0](x)


class ForwardOfConv(Block):
    def __init__(self, filters):
        super().__init__(filters)
        self.conv = nn.Conv2d(3, filters, 3, padding=1, bias=False)

    def forward(self, x):
        return self.conv.forward(x)


class SubclassedConv(nn.Conv2d):
    def __init__(self, filters):
        super().__init__(3, filters, 3, padding=1, bias=False)


class OwnArithmetic(SubclassedConv):
    def forward(self, x):
        return (self.weight.flatten(1) @ F.unfold(x, 3, padding=1))[:, :, None]


class OwnCall(SubclassedConv):
    def __call__(self, x):
        return self.forward(x)


class NameOfConv(SubclassedConv):
    pass


NameOfConv.__name__ = NameOfConv.__qualname__ = "Conv2d"


def patched(filters):
    block, work = nn.ReLU(), Functional(filters)
    block.forward = work.forward
    return block


def lying(filters):
    conv = nn.Conv2d(3, filters, 3, padding=1, bias=False)
    conv.in_channels = 0
    return conv


def nested(filters):
    outer = nn.Flatten(0, 0)
    outer.__class__ = type("Nested", (nn.Flatten,), {"forward": lambda self, x: self.relu(x)})
    outer.relu = nn.ReLU()
    outer.relu.conv = nn.Conv2d(3, filters, 3, padding=1, bias=False)
    outer.relu.forward = outer.relu.conv.__call__
    return outer


def hooked(filters):
    block, work = nn.Flatten(0, 0), Functional(filters)
    block.register_forward_hook(lambda module, inputs, output: work(inputs[0]))
    return block


class Erased(nn.Module):
    """Counts its convolution, and takes the count away from ptflops again."""

    def __init__(self, filters):
        super().__init__()
        self.conv = nn.Conv2d(3, filters, 3, padding=1, bias=False)

    def forward(self, x):
        out = self.conv(x)
        for module in self.modules():
            module._forward_hooks.clear()
        return out + F.conv2d(x, self.conv.weight, padding=1)


BLOCKS = [
    Functional, Einsum, Matmul, FunctionalLinear, scripted, traced, frozen, ScriptedFunction, Autograd, MultiplyAdd,
    MultiplyAddInPlace, PythonNumbers, Alpha, OuterProduct, WeightsInDisguise, Adding, Numpy, Thread, OutOfSight,
    InferenceMode, Fourier, Unregistered, ForwardOfConv, SubclassedConv, OwnArithmetic, OwnCall, NameOfConv, patched,
    lying, nested, hooked, Erased,
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.__name__)
def test_planted_cheats_are_refused(net, block, size):
    stride, filters = SIZES[size]
    verdict = audit(Cheating(net, block(filters), stride), IMAGE)
    assert not verdict.ok
    assert verdict.findings


def test_hidden_work_is_told_exactly(net):
    verdict = audit(Cheating(net, Einsum(4), 8), IMAGE)
    assert (verdict.counted, verdict.hidden) == (1_083_210, 10_800)
    (finding,) = verdict.findings
    assert (finding.path, finding.kind, finding.counted, finding.ran) == ("block", "Einsum", 0, 10_800)
    assert "refused: 10,800 hidden MACs, 1.00 % of 1,083,210 counted" in str(verdict)
    assert "block (Einsum): counted 0, ran 10,800: work that no module's hook sees: bmm 10,800" in str(verdict)


@pytest.mark.parametrize(
    ("block", "reason"),
    [
        (SubclassedConv, "ptflops counts Conv2d, not its subclasses"),
        (patched, "its forward was replaced"),
        (scripted, "convolution"),
        (Fourier, "work that no module's hook sees: _fft_c2r"),
        (Solved, "runs _linalg_solve_ex, whose work the audit does not know"),
        (Numpy, "takes values of the image out of PyTorch (numpy)"),
        (Thread, "PyTorch did not make on the way"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_the_reason_is_told(net, block, reason):
    assert reason in str(audit(Cheating(net, block(4), 8), IMAGE))


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_a_scripted_net_is_refused_as_a_whole():
    net = torch.jit.trace(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), torch.ones(1, 3, 8, 8))
    assert "no hook reaches into a scripted net" in str(audit(net, IMAGE))


class Branching(nn.Module):
    """Works less when `spares(x)` says that nobody looks."""

    def __init__(self, net, spares):
        super().__init__()
        self.net, self.spares = net, spares
        self.more = nn.Conv2d(3, 9, 3, 2)

    def forward(self, x):
        return self.net(x) if self.spares(self, x) else self.net(x) + self.more(x).mean((2, 3))


@pytest.mark.parametrize(
    ("spares", "reason"),
    [
        (lambda self, x: x.std() < 0.1, "reads values of the image (_local_scalar_dense)"),
        (lambda self, x: x[0, 0, 0, 0].item() == 0, "reads values of the image (_local_scalar_dense)"),
        (lambda self, x: x.flatten().tolist()[0] == 0, "takes values of the image out of PyTorch (tolist)"),
        (lambda self, x: np.asarray(x).std() < 0.1, "takes values of the image out of PyTorch"),
        (lambda self, x: len(x[x != 0]) == 0, "reads values of the image (index)"),
        (lambda self, x: not x.nonzero().numel(), "reads values of the image (nonzero)"),
        (lambda self, x: len(x) == 1, "its work depends on what it sees"),
        (lambda self, x: len(self._forward_hooks) > 0, "its work depends on what it sees"),
    ],
)
def test_a_net_that_works_less_when_it_is_watched_is_refused(net, spares, reason):
    verdict = audit(Branching(net, spares), IMAGE)
    assert not verdict.ok
    assert reason in str(verdict)


class Attention(nn.Module):
    def __init__(self, multiply):
        super().__init__()
        self.patches, self.multiply, self.head = nn.Conv2d(3, 96, 16, 16), multiply, nn.Linear(32, 9)

    def forward(self, x):
        query, key, value = self.patches(x).flatten(2).mT.chunk(3, -1)  # (B, 25, 32) each
        return self.head(self.multiply(query, key, value).mean(1))


def _by_hand(query, key, value):
    return (query @ key.mT).softmax(-1) @ value


@pytest.mark.parametrize("multiply", [F.scaled_dot_product_attention, _by_hand])
def test_an_attention_net_is_told_why_it_has_no_score(multiply):
    verdict = audit(Attention(multiply), IMAGE)
    assert not verdict.ok
    assert "attention: it multiplies two tensors that both come from the image" in str(verdict)
    assert "its other figures stand" in str(verdict)


class Wrapped(nn.Module):
    def __init__(self, net, function):
        super().__init__()
        self.net, self.function = net, function
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, x):
        return self.net(self.function(self, x))


@pytest.mark.parametrize(
    "function",
    [
        lambda self, x: F.batch_norm(x, torch.zeros(3), torch.ones(3), self.weight),
        lambda self, x: F.avg_pool2d(x, 3, 1, 1),
        lambda self, x: F.max_pool2d(x, 3, 1, 1),
        lambda self, x: F.interpolate(x, (80, 80), mode="bilinear"),
        lambda self, x: x * self.weight[:, None, None],
        lambda self, x: F.prelu(x, self.weight),
    ],
)
def test_functional_norms_pools_and_scales_are_work(net, function):
    verdict = audit(Wrapped(net, function), IMAGE)
    assert not verdict.ok
    assert verdict.hidden in (3 * 80 * 80, 2 * 3 * 80 * 80)


@pytest.mark.parametrize(
    "function",
    [
        lambda self, x: F.relu(x) + x,
        lambda self, x: x * torch.sigmoid(x),
        lambda self, x: x * F.relu6(x + 3) / 6,
        lambda self, x: x * x.mean((2, 3), keepdim=True).sigmoid(),
        lambda self, x: torch.cat((x[:, :1] * 0.458 - 0.03, x[:, 1:2] * 0.448 - 0.09, x[:, 2:]), 1),
        lambda self, x: F.interpolate(x, scale_factor=2)[:, :, ::2, ::2],
        lambda self, x: x - torch.tensor([0.5, 0.4, 0.3])[:, None, None],
        lambda self, x: torch.fake_quantize_per_tensor_affine(x, 0.1, 0, -128, 127),
    ],
)
def test_activations_gates_and_moving_data_are_free(net, function):
    assert audit(Wrapped(net, function), IMAGE).hidden == 0


class Rounded(nn.Module):
    def forward(self, weight):
        step = weight.abs().amax() / 127
        return (weight / step).round().clamp(-127, 127) * step


def test_work_on_weights_alone_is_free(net):
    quantized, masked = copy.deepcopy(net), copy.deepcopy(net)
    for module in list(quantized.modules()):
        if isinstance(module, nn.Conv2d):
            parametrize.register_parametrization(module, "weight", Rounded())
    for module in masked.modules():
        if isinstance(module, nn.Conv2d):
            prune.l1_unstructured(module, "weight", 0.5)
    for changed in (quantized, masked):
        assert audit(changed, IMAGE) == audit(net, IMAGE)


def test_a_weight_overwritten_with_the_image_is_no_weight(net):
    class Overwriting(Functional):
        def __init__(self, filters):
            super().__init__(filters)
            self.register_buffer("image", torch.zeros(1, 3, 10, 10))

        def forward(self, x):
            self.image.resize_(x.shape)
            self.image[:] = x
            return super().forward(self.image)

    assert audit(Cheating(net, Overwriting(4), 8), IMAGE).hidden == 10_800


def test_the_net_is_left_as_it_was(net):
    before = copy.deepcopy(net)
    before.train()
    before.features.stage1.eval()
    state = {name: value.clone() for name, value in before.state_dict().items()}
    modes = [module.training for module in before.modules()]
    attributes = [sorted(vars(module)) for module in before.modules()]
    audit(before, IMAGE)
    assert [module.training for module in before.modules()] == modes
    assert [sorted(vars(module)) for module in before.modules()] == attributes
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in before.modules())
    assert all(torch.equal(value, state[name]) for name, value in before.state_dict().items())


@pytest.mark.parametrize("groups", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("head", ["conv", "linear"])
def test_shufflenets_hide_nothing(groups, head):
    net = ShuffleNet(units=(2, 2, 2), groups=groups, head=head).build(num_classes=9)
    verdict = audit(net, IMAGE)
    assert verdict.ok
    assert verdict.hidden == 0
    assert not verdict.findings


TORCHVISION = (
    "mobilenet_v2", "mobilenet_v3_small", "shufflenet_v2_x0_5", "resnet18", "squeezenet1_1", "mnasnet0_5",
    "efficientnet_b0", "googlenet",
)  # fmt: skip
TIMM = ("lcnet_035", "lcnet_050", "tinynet_e", "mobilenetv3_small_050")


def published(name):
    import timm
    import torchvision

    if name in TIMM:
        return timm.create_model(name, num_classes=9)
    settings = {"init_weights": False} if name == "googlenet" else {}
    return torchvision.models.get_model(name, weights=None, num_classes=9, **settings)


@pytest.mark.parametrize("name", TORCHVISION + TIMM)
def test_honest_nets_pass(name):
    verdict = audit(published(name), torch.zeros(1, 3, 48, 48))
    assert verdict.ok, str(verdict)


@pytest.mark.slow
@pytest.mark.parametrize("side", [32, 64, 96, 224])
@pytest.mark.parametrize("name", TORCHVISION + TIMM)
def test_honest_nets_pass_at_other_sizes(name, side):
    verdict = audit(published(name), torch.zeros(1, 3, side, side))
    assert verdict.ok, str(verdict)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit_b_16", "swin_t"])
def test_published_attention_nets_are_refused(name):
    assert "attention" in str(audit(published(name), torch.zeros(1, 3, 224, 224)))


def test_timms_own_linear_is_forgiven_as_a_classifier_only():
    from timm.layers import Linear

    small = nn.Sequential(nn.Conv2d(3, 32, 3), nn.AdaptiveAvgPool2d(4), nn.Flatten(), Linear(512, 100))
    large = nn.Sequential(nn.Conv2d(3, 32, 3), nn.AdaptiveAvgPool2d(4), nn.Flatten(), Linear(512, 512))
    assert TOLERANCE < 512 * 100 / audit(small, IMAGE).counted < CLASSIFIER_TOLERANCE
    assert audit(small, IMAGE).ok
    assert not audit(large, IMAGE).ok


def test_a_net_that_cannot_be_followed_is_refused():
    class OnlyOne(nn.Conv2d):
        def forward(self, x):
            assert len(x) == 1, "one image at a time"
            return super().forward(x)

    assert "cannot be followed" in str(audit(OnlyOne(3, 4, 3), IMAGE))
