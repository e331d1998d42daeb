"""Forwards that mix, move, write and store channels in ways of their own: they are cut, and every cut is proven."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.ops import DeformConv2d, deform_conv2d

import solution as fw
from solution.compress.coupling.equality import randomize
from solution.contracts import InputError

EXAMPLE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Between(nn.Module):
    """A convolution, a function that may use further layers, and a convolution that reads what it makes."""

    def __init__(self, function, *layers, read=16):
        super().__init__()
        self.first, self.function, self.layers = nn.Conv2d(3, 16, 3, padding=1), function, nn.ModuleList(layers)
        self.second, self.head = nn.Conv2d(read, 8, 1), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(F.relu(self.second(self.function(self.first(x), *self.layers))).mean((2, 3)))


def halved(net, example=EXAMPLE):
    """The net at half its channels, chosen at random; every plan is proven, so what comes back is right."""
    torch.manual_seed(0)
    plan = fw.PruneChannels(ratio=0.5, importance="random").plan(randomize(net.eval()), example)
    assert plan.verified < 1e-10
    return plan.apply(net)


def written_in_turns(x, other):
    out = x.new_zeros(len(x), 2 * x.shape[1], *x.shape[2:])
    out[:, ::2], out[:, 1::2] = x, other(x)
    return out


def shifted_in_place(x):
    out, fold = torch.zeros_like(x), x.shape[1] // 4
    out[:-1, :fold] = x[1:, :fold]
    out[1:, fold : 2 * fold] = x[:-1, fold : 2 * fold]
    out[:, 2 * fold :] = x[:, 2 * fold :]
    return out


def overwritten(x, half):
    x, width = x.clone(), x.shape[1] // 2
    x[:, :width] = half(x[:, :width])
    return x


def added_in_place(x):
    out = x.new_zeros(x.shape)
    out[:, :, ::2] += x[:, :, ::2]
    return out


def one_headed(x):
    x = x.flatten(2).mT
    return F.scaled_dot_product_attention(x.sin(), x, x, scale=0.3).mT.reshape(len(x), -1, 8, 8)


def between_channels(x):
    flat = x.flatten(2)
    energy = flat @ flat.mT
    energy = energy.amax(-1, keepdim=True).expand_as(energy) - energy
    return x + (energy.softmax(-1) @ flat).view_as(x)


def linear_attention(x, keys, values):
    q, k, v = F.elu(x).flatten(2) + 1, F.elu(keys(x)).flatten(2) + 1, values(x).flatten(2)
    return ((k @ v.mT).mT @ q).unflatten(2, (8, 8))


def to_centers(x, centers):
    x, centers = x.flatten(2), centers.weight
    near = (-torch.cdist(x.mT, centers)).softmax(-1)  # (B, N, K)
    return ((x[:, None] - centers[None, :, :, None]) * near.mT[:, :, None]).sum(1).unflatten(2, (8, 8))


FUNCTIONS = {
    "written in turns": (written_in_turns, nn.Conv2d(16, 16, 1)),
    "shifted in place": (shifted_in_place,),
    "a half is written over": (overwritten, nn.Conv2d(8, 8, 1)),
    "added in place": (added_in_place,),
    "places mixed by a convolution": (
        lambda x, mix: mix(x.flatten(2).mT).mT.reshape(len(x), -1, 8, 8),
        nn.Conv1d(64, 64, 1),
    ),
    "one-headed attention": (one_headed,),
    "attention between channels": (between_channels,),
    "linear attention": (linear_attention, nn.Conv2d(16, 16, 1), nn.Conv2d(16, 16, 1)),
    "residuals to centers": (to_centers, nn.Linear(16, 5, bias=False)),
    "differences of places": (lambda x: x.diff(dim=2),),
    "distances": (lambda x: x * torch.cdist(x.flatten(2).mT, x.flatten(2).mT).mean(-1).view(-1, 1, 8, 8),),
    "complex numbers": (lambda x: torch.view_as_real(torch.view_as_complex(torch.stack([x, x.sin()], -1)))[..., 1],),
    "deformed": (
        lambda x, where, deform: deform(x, where(x)),
        nn.Conv2d(16, 18, 1),
        DeformConv2d(16, 16, 3, padding=1),
    ),
    "kernels of one channel each from another map": (
        lambda x, other: F.conv2d(
            x.reshape(1, -1, 8, 8), other(x).flatten(0, 1)[:, None, :3, :3], padding=1, groups=x.shape[0] * x.shape[1]
        ).view_as(x),
        nn.Conv2d(16, 16, 1),
    ),
    "scattered over places": (lambda x: torch.zeros_like(x).scatter(3, torch.zeros_like(x).long(), x),),
    "added up by index": (lambda x: torch.zeros_like(x).index_add(2, torch.arange(8) // 2, x),),
    "taken along places": (lambda x: torch.take_along_dim(x, x.argsort(3), 3),),
    "unpooled": (lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2),),
    "products added": (
        lambda x: torch.baddbmm(x.flatten(2), x.flatten(2), torch.eye(64).to(x).expand(len(x), 64, 64)).view_as(x),
    ),
    "rounded as if quantized": (lambda x: torch.fake_quantize_per_tensor_affine(x, 0.1, 0, -128, 127),),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_channels(name):
    function, *layers = FUNCTIONS[name]
    read = 32 if name == "written in turns" else 16
    assert halved(Between(function, *layers, read=read)).first.out_channels == 8


class Parts(nn.Module):
    """Two stored numbers that belong together, none of which alone lets the forward run."""

    def __init__(self):
        super().__init__()
        self.part, self.rest = 4, 12
        self.first, self.conv, self.second = nn.Conv2d(3, 16, 3), nn.Conv2d(4, 4, 1), nn.Conv2d(16, 3, 1)

    def forward(self, x):
        one, other = self.first(x).split([self.part, self.rest], 1)
        return self.second(torch.cat((self.conv(one), other), 1))


def test_stored_numbers_that_belong_together_follow_the_cut():
    cut = halved(Parts())
    assert (cut.part, cut.rest, cut.first.out_channels) == (2, 6, 8)


class Heads(nn.Module):
    """The size of a head is the width of the input, divided by a stored number of heads."""

    def __init__(self, dim=24, heads=3):
        super().__init__()
        self.heads, self.qkv, self.out = heads, nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x):
        b, n, c = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        x = (q @ k.mT * (c // self.heads) ** -0.5).softmax(-1) @ v
        return self.out(x.transpose(1, 2).reshape(b, n, c))


def test_heads_and_the_width_that_they_divide_shrink_together():
    cut = halved(nn.Sequential(nn.Linear(6, 24), Heads(), nn.Linear(24, 2)), torch.randn(2, 5, 6))
    assert (cut[1].heads, cut[1].qkv.in_features, cut[1].qkv.out_features) == (2, 16, 48)


class Crossed(nn.Module):
    """PyTorch's attention on two inputs, whose one matrix it takes apart."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.attend = nn.Linear(6, 16), nn.Linear(5, 16), nn.MultiheadAttention(16, 4, batch_first=True)
        self.out = nn.Linear(16, 2)

    def forward(self, x, y):
        y = self.b(y)
        return self.out(self.attend(self.a(x), y, y)[0])


def test_attention_of_one_input_to_another():
    cut = halved(Crossed(), (torch.randn(2, 5, 6), torch.randn(2, 4, 5)))
    assert (cut.attend.num_heads, cut.attend.embed_dim, cut.b.out_features) == (2, 8, 8)


class Mixed(nn.Module):
    """One kernel for each sample, mixed of several."""

    def __init__(self, i=16, o=16):
        super().__init__()
        self.o, self.weight, self.route = o, nn.Parameter(torch.randn(3, o, i, 3, 3) * 0.1), nn.Linear(i, 3)

    def forward(self, x):
        b, i, h, w = x.shape
        weight = torch.einsum("be,eoikl->boikl", self.route(x.mean((2, 3))).sigmoid(), self.weight)
        return F.conv2d(x.reshape(1, -1, h, w), weight.reshape(-1, i, 3, 3), padding=1, groups=b).view(b, self.o, h, w)


class Styled(nn.Module):
    """One kernel for each sample, its inputs scaled by a style, its outputs divided by their length."""

    def __init__(self, i=16, o=16):
        super().__init__()
        self.weight, self.style = nn.Parameter(torch.randn(1, o, i, 3, 3) * 0.1), nn.Linear(i, i)

    def forward(self, x):
        b, i, h, w = x.shape
        weight = self.weight * self.style(x.mean((2, 3))).view(b, 1, i, 1, 1)
        weight = weight * (weight.square().sum((2, 3, 4), keepdim=True) + 1e-8).rsqrt()
        return F.conv2d(x.reshape(1, -1, h, w), weight.flatten(0, 1), padding=1, groups=b).view(b, -1, h, w)


@pytest.mark.parametrize("layer", [Mixed, Styled])
def test_kernels_that_are_computed_for_each_sample(layer):
    cut = halved(Between(lambda x, one, two: two(one(x).relu()), layer(), layer()))
    assert cut.first.out_channels == 8
    assert [one.weight.shape[1:3] for one in cut.layers] == [(8, 8), (8, 8)]


def test_deformed_groups_of_channels_stay_groups():
    def deformed(x, where, conv):
        return deform_conv2d(x, where(x), conv.weight, padding=1)

    cut = halved(Between(deformed, nn.Conv2d(16, 4 * 18, 1), nn.Conv2d(16, 16, 3)))
    assert cut.first.out_channels == 8


def test_a_branch_on_values_and_a_transformed_call_are_refused_by_one_line():
    with pytest.raises(InputError, match="branches on tensor values"):
        fw.PruneChannels(ratio=0.5).plan(Between(lambda x: x if x.sum() > 0 else -x).eval(), EXAMPLE)
    with pytest.raises(InputError, match=r"torch\.func"):
        fw.PruneChannels(ratio=0.5).plan(Between(torch.vmap(torch.sin)).eval(), EXAMPLE)


class Neighbours(nn.Module):
    """A gate that looks at neighbouring channels."""

    def __init__(self):
        super().__init__()
        self.first, self.gate, self.second = nn.Conv2d(3, 16, 3), nn.Conv1d(1, 1, 3, padding=1), nn.Conv2d(16, 8, 1)
        self.head = nn.Conv2d(8, 3, 1)

    def forward(self, x):
        x = self.first(x)
        gate = self.gate(x.mean((2, 3))[:, None])[:, 0].sigmoid()
        return self.head(self.second(x * gate[:, :, None, None]).relu())


@pytest.mark.parametrize(
    ("net", "what"),
    [
        (Neighbours(), "conv1d"),
        (Between(lambda x: F.local_response_norm(x.relu(), 5, alpha=1.0)), "avg_pool3d"),
        (Between(lambda x: x.sort(dim=1)[0]), "sort"),
        (Between(lambda x: x - x.median(1, keepdim=True)[0]), "median"),
    ],
)
def test_what_mixes_neighbouring_channels_is_cut_only_on_demand_and_the_change_said(net, what):
    net = randomize(net.eval())
    exact = fw.PruneChannels(ratio=0.5).plan(net, EXAMPLE)
    assert exact.kept["first"] == f"{what} ties its channels together"
    assert exact.verified < 1e-10
    plan = fw.PruneChannels(ratio=0.5, approximate=True).plan(net, EXAMPLE)
    assert plan.apply(net).first.out_channels == 8
    assert plan.approximated == (what,)
    assert 1e-10 < plan.verified < 1
    assert f"approximate: {what} over other channels" in str(plan)
