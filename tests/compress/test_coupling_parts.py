"""Parts of channels that are treated differently, numbers made from the width, and the proof of every cut."""

import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import solution as fw
from solution.compress.coupling.analysis import TraceRequest, analyze
from solution.compress.coupling.equality import compare, randomize
from solution.contracts import StepContext, plans_of

EXAMPLE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Between(nn.Module):
    """Two convolutions with a function between them, then more."""

    def __init__(self, function, width=32):
        super().__init__()
        self.function, self.first, self.second = function, nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, 24, 3)
        self.head = nn.Linear(24, 5)

    def forward(self, x):
        return self.head(F.relu(self.second(self.function(self.first(x)))).mean((2, 3)))


def halves(x):
    left, right = x.chunk(2, 1)
    return torch.cat([left.relu(), right], 1)


def pooled_halves(x):
    left, right = x[:, : x.shape[1] // 2], x[:, x.shape[1] // 2 :]
    return torch.cat([F.max_pool2d(left, 2), F.avg_pool2d(right, 2)], 1)


def quarter_in_place(x):
    x = x.clone()
    x[:, : x.shape[1] // 4].tanh_()
    return x


def every_other_in_place(x):
    x = x.clone()
    x[:, ::2] *= -1
    return x


def unbound(x):
    first, second = x.unflatten(1, (2, -1)).unbind(1)
    return torch.cat([first.sin(), second.sigmoid()], 1)


def rolled_half(x):
    left, right = x.chunk(2, 1)
    return torch.cat([left.roll(1, 2), right], 1)


def from_the_image_before(x):
    c = x.shape[1] // 4
    return torch.cat([torch.cat([torch.zeros_like(x[:1, :c]), x[:-1, :c]]), x[:, c:]], 1)


def gate_of_each_group(x):
    gate = torch.linspace(0.5, 2.0, 4, dtype=x.dtype).view(1, 4, 1, 1, 1)
    return (x.unflatten(1, (4, -1)) * gate).flatten(1, 2)


PARTS = {
    halves: 2,
    pooled_halves: 2,
    quarter_in_place: 4,
    unbound: 2,
    rolled_half: 2,
    from_the_image_before: 4,
    gate_of_each_group: 4,
}


def cut_and_compared(net, ratio, importance="random"):
    step = fw.PruneChannels(ratio=ratio, importance=importance, verify=False)
    plan = step.plan(net, EXAMPLE)
    return plan, compare(net, plan, analyze(TraceRequest(model=net, example=EXAMPLE)), EXAMPLE)


@pytest.mark.parametrize("function", [*PARTS, every_other_in_place], ids=lambda function: function.__name__)
@pytest.mark.parametrize("ratio", [0.3, 0.5])
def test_no_channel_changes_parts(function, ratio):
    plan, found = cut_and_compared(randomize(Between(function).eval()), ratio)
    assert found.equal
    assert plan.tensors


@pytest.mark.parametrize("function", PARTS, ids=lambda function: function.__name__)
def test_half_of_a_part_stays(function):
    plan, _ = cut_and_compared(Between(function).eval(), 0.5)
    part = 32 // PARTS[function]
    assert sum(channel < part for channel in plan.rows()["first"]) == part // 2
    assert len(plan.rows()["first"]) == 16


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.tanh() / x.shape[1] ** 0.5 + x,
        lambda x: F.leaky_relu(x, 1 / x.size(1)),
        lambda x: F.relu(x) if x.shape[1] > 20 else x,
        lambda x: x.roll(x.shape[1] // 4, 2),
        lambda x: x + torch.tensor(x.shape[1] ** -0.5),
    ],
)
def test_numbers_and_branches_of_the_width_keep_a_layer_whole_and_are_named(function):
    net = randomize(Between(function).eval())
    plan, found = cut_and_compared(net, 0.5)
    assert found.equal
    assert "first" not in plan.rows()
    assert "number" in plan.kept["first"]
    assert len(plan.rows()["second"]) == 12


@pytest.mark.parametrize(
    ("function", "scaled"),
    [
        (lambda x: x / x.shape[1] ** 0.5, ["first.weight", "first.bias"]),
        (lambda x: x * (100 / x[0].numel()), ["first.weight", "first.bias"]),
        (lambda x: x.relu() * x.shape[1] ** -0.5, ["second.weight"]),
    ],
)
def test_a_layer_makes_up_for_a_number_of_the_width(function, scaled):
    net = randomize(Between(function).eval())
    plan, found = cut_and_compared(net, 0.5)
    assert found.equal
    assert list(plan.scales) == scaled
    assert "scaled" in str(plan)
    again = type(plan).from_fields(json.loads(json.dumps(plan.to_fields())))
    image = torch.randn(2, 3, 12, 12)
    assert torch.equal(again.apply(net)(image), plan.apply(net)(image))


class Keeps(nn.Module):
    """Keeps what it computed until it is trained, as attention biases are kept; a stored width must be found."""

    def __init__(self):
        super().__init__()
        self.width, self.kept = 32, {}
        self.first, self.second, self.head = nn.Conv2d(3, 32, 3), nn.Conv2d(32, 24, 3), nn.Linear(24, 5)
        self.bias = nn.Parameter(torch.randn(32))

    def train(self, mode=True):
        self.kept = {} if mode else self.kept
        return super().train(mode)

    def forward(self, x):
        if "bias" not in self.kept:
            self.kept["bias"] = self.bias.tanh()
        x = self.first(x) + self.kept["bias"].view(self.width, 1, 1)
        return self.head(F.relu(self.second(F.relu(x))).mean((2, 3)))


@pytest.mark.parametrize("ran", [False, True])
def test_what_a_net_keeps_of_an_earlier_forward_does_not_stand_in_the_way(ran):
    net = Keeps().eval()
    if ran:
        with torch.no_grad():
            net(EXAMPLE)
    plan, found = cut_and_compared(net, 0.5)
    assert found.equal
    assert len(plan.rows()["first"]) == 16
    assert not plan.apply(net).training


class PlaceGate(nn.Module):
    """A gate of one channel, flattened, with a bias and a scale of one number."""

    def __init__(self):
        super().__init__()
        self.first, self.gate = nn.Conv2d(3, 32, 3), nn.Conv2d(2, 1, 3, padding=1)
        self.second, self.head = nn.Conv2d(32, 24, 1), nn.Linear(24, 5)

    def forward(self, x):
        x = self.first(x)
        gate = self.gate(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1))
        x = (x.flatten(2) * gate.flatten(2).sigmoid() * self.gate.bias.view(1, 1, 1)).view_as(x)
        return self.head(F.relu(self.second(F.relu(x))).mean((2, 3)))


def test_tensors_of_one_number_are_no_channels():
    plan, found = cut_and_compared(randomize(PlaceGate().eval()), 0.5)
    assert found.equal
    assert {len(rows) for rows in plan.rows().values()} == {16, 12}


def test_groups_of_a_norm_stay_groups_when_each_has_one_channel_left():
    net = randomize(nn.Sequential(nn.Conv2d(3, 16, 3), nn.GroupNorm(4, 16), nn.ReLU(), nn.Conv2d(16, 4, 3)).eval())
    plan, found = cut_and_compared(net, 0.75)
    assert found.equal
    assert [channel // 4 for channel in plan.rows()["0"]] == [0, 1, 2, 3]


def test_a_layer_norm_of_whole_maps_is_cut_and_judged():
    layers = nn.Conv2d(3, 16, 3), nn.LayerNorm([16, 6, 6]), nn.ReLU(), nn.Conv2d(16, 4, 3)
    plan, found = cut_and_compared(randomize(nn.Sequential(*layers).eval()), 0.5)
    assert found.equal
    assert len(plan.rows()["0"]) == 8


def test_the_plan_prints_its_proof():
    net = Between(halves).eval()
    assert "verified: " in str(fw.PruneChannels(ratio=0.5).plan(net, EXAMPLE))
    assert "verified" not in str(fw.PruneChannels(ratio=0.5, verify=False).plan(net, EXAMPLE))
    assert plans_of(fw.PruneChannels(ratio=0.5)(net, EXAMPLE))[-1].verified < 1e-10


class Counting(nn.Module):
    """Scales by how many forwards there were, in a table too long to be compared between traces."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.out = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3), nn.Identity()

    def forward(self, x):
        TABLE.add_(1)
        return self.out(self.second(self.first(x)) * TABLE.to(x.dtype).mean())


TABLE = torch.zeros(1000)


def test_a_cut_that_computes_something_else_is_refused_and_the_layer_named():
    with pytest.raises(fw.InputError, match=r"would compute something else .*first at out\)"):
        fw.PruneChannels(ratio=0.5)(Counting().eval(), EXAMPLE)
    assert fw.PruneChannels(ratio=0.5, verify=False)(Counting().eval(), EXAMPLE).first.out_channels == 4


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(1, 8, 3), nn.Linear(16, 4)

    def forward(self, image, depth):
        return self.head(torch.cat([self.a(image).relu().mean((2, 3)), self.b(depth).relu().mean((2, 3))], 1))


@pytest.mark.parametrize("form", [lambda *inputs: inputs, lambda *inputs: {"image": inputs[0], "depth": inputs[1]}])
def test_examples_of_several_inputs(form):
    example = form(EXAMPLE, EXAMPLE[:, :1])
    cut = fw.PruneChannels(ratio=0.5)(Two().eval(), example)
    assert (cut.a.out_channels, cut.b.out_channels, cut.head.in_features) == (4, 4, 8)
    assert fw.PruneChannels(macs="50%")(Two().eval(), example).head.in_features < 16


def plain():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))


@pytest.mark.parametrize("wrapper", [nn.DataParallel, torch.compile, torch.optim.swa_utils.AveragedModel])
def test_the_net_inside_a_wrapper_is_cut(wrapper):
    cut = fw.PruneChannels(ratio=0.5)(wrapper(plain().eval()), EXAMPLE)
    assert type(cut) is nn.Sequential
    assert cut[0].out_channels == 4


def test_lazy_layers_are_initialized_by_the_example():
    net = nn.Sequential(nn.LazyConv2d(8, 3), nn.ReLU(), nn.LazyConv2d(4, 3)).eval()
    assert fw.PruneChannels(ratio=0.5)(net, EXAMPLE)[2].weight.shape == (4, 4, 3, 3)


@pytest.mark.parametrize(
    ("net", "example", "message"),
    [
        (lambda: torch.jit.trace(plain(), EXAMPLE), EXAMPLE, "was made by torch.jit"),
        (lambda: plain().to("meta"), EXAMPLE, "on the meta device"),
        (plain, EXAMPLE[:0], "at least one sample"),
        (plain, "image", "must be a tensor"),
        (plain, EXAMPLE.half(), r"\(float16\)"),
    ],
)
def test_what_cannot_be_cut_is_refused_by_a_true_message(net, example, message):
    with pytest.raises(fw.InputError, match=message):
        fw.PruneChannels(ratio=0.5)(net(), StepContext(example=example))


class Literal(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 3), nn.Linear(16 * 16, 32)
        self.d = nn.Linear(32, 4)

    def forward(self, x):
        return self.d(self.c(self.b(self.a(x).relu()).relu().view(-1, 16 * 4 * 4)).relu())


def test_one_literal_size_keeps_one_layer_whole():
    cut = fw.PruneChannels(ratio=0.5)(Literal().eval(), EXAMPLE)
    assert (cut.a.out_channels, cut.b.out_channels, cut.c.out_features) == (4, 16, 16)


class Stored(nn.Module):
    """Parts of a stored width, as in Res2Net, and heads of a stored number."""

    def __init__(self):
        super().__init__()
        self.width, self.heads, self.dim = 8, 4, 6
        self.stem, self.part = nn.Conv2d(3, 32, 3), nn.Conv2d(8, 8, 3, padding=1)
        self.qkv, self.out, self.head = nn.Linear(32, 72), nn.Linear(24, 16), nn.Linear(16, 3)

    def forward(self, x):
        a, b, c, d = self.stem(x).relu().split(self.width, 1)
        x = torch.cat([a, self.part(b), c.sin(), d], 1).flatten(2).mT  # (B, N, C)
        q, k, v = self.qkv(x).view(len(x), -1, 3, self.heads, self.dim).permute(2, 0, 3, 1, 4)
        x = (q @ k.mT).softmax(-1) @ v
        return self.head(self.out(x.transpose(1, 2).flatten(2)).relu().mean(1))


def test_stored_numbers_follow_the_cut():
    net = randomize(Stored().eval())
    cut = fw.PruneChannels(ratio=0.5)(net, EXAMPLE)
    assert (cut.width, cut.heads, cut.dim) == (4, 2, 6)
    assert (cut.stem.out_channels, cut.part.out_channels, cut.qkv.out_features) == (16, 4, 36)


def test_pytorchs_own_attention_loses_heads_and_as_much_of_the_stream():
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
    net = randomize(nn.Sequential(nn.Linear(6, 32), layer, nn.Linear(32, 3)).eval())
    cut = fw.PruneChannels(ratio=0.5)(net, torch.randn(2, 5, 6))
    assert (cut[1].self_attn.num_heads, cut[1].self_attn.embed_dim, cut[1].linear1.out_features) == (2, 16, 32)


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.forward = function


OPERATIONS = {
    "log sigmoid": F.logsigmoid,
    "median": lambda x: x.median(-1, keepdim=True)[0] * x,
    "largest": lambda x: x.topk(3, -1)[0],
    "sorted": lambda x: x.sort(-1)[0],
    "running extreme": lambda x: x.cummax(-1)[0],
    "logcumsumexp": lambda x: x.logcumsumexp(-1),
    "adaptive maximum": lambda x: F.adaptive_max_pool2d(x, 4),
    "Fourier transform": lambda x: torch.fft.rfft2(x).abs(),
    "einsum with a number of its own": lambda x: torch.einsum("bchw,wv->bchv", x, torch.eye(x.shape[-1])),
    "permuting einsum": lambda x: torch.einsum("bchw->bcwh", x),
    "summing einsum": lambda x: x * torch.einsum("bchw,bchw->bhw", x, x)[:, None],
    "softmax over channels": lambda x: x.softmax(1),
    "mean over channels": lambda x: x * x.mean(1, keepdim=True).sigmoid(),
    "maximum over channels": lambda x: x * x.max(1, keepdim=True)[0].sigmoid(),
    "deviation over channels": lambda x: x / (x.std(1, keepdim=True) + 1),
    "unit length": lambda x: F.normalize(x, dim=1),
    "cosine": lambda x: x * F.cosine_similarity(x, x.roll(1, 2), dim=1)[:, None],
    "places that attend to each other": lambda x: (
        x.flatten(2) @ (x.flatten(2).mT @ x.flatten(2)).mul(0.1).softmax(-1).mT
    ).view_as(x),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_between_layers(name):
    net = randomize(nn.Sequential(nn.Conv2d(3, 16, 3), Function(OPERATIONS[name]), nn.Conv2d(16, 4, 1)))
    cut = fw.PruneChannels(ratio=0.5, importance="random")(net.eval(), EXAMPLE)
    assert cut[0].out_channels == 8


def test_three_dimensional_upsampling():
    net = nn.Sequential(nn.Conv3d(1, 16, 3), nn.Upsample(scale_factor=2, mode="trilinear"), nn.Conv3d(16, 2, 1)).eval()
    assert fw.PruneChannels(ratio=0.5)(net, torch.randn(1, 1, 4, 4, 4))[0].out_channels == 8


class Reader(nn.Module):
    """Columns of a picture are read one after another."""

    def __init__(self, kind):
        super().__init__()
        self.conv, self.cell = nn.Conv2d(3, 16, 3), kind(16, 12, 2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(24, 4)

    def forward(self, x):
        return self.head(self.cell(self.conv(x).mean(2).mT)[0])


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_recurrent_layers_read_fewer_channels_and_keep_their_hidden_ones(kind):
    cut = fw.PruneChannels(ratio=0.5)(Reader(kind).eval(), EXAMPLE)
    assert (cut.conv.out_channels, cut.cell.input_size, cut.cell.hidden_size) == (8, 8, 12)
    cut.train()(EXAMPLE).sum().backward()
    assert cut.cell.weight_ih_l0_reverse.grad.shape == (cut.cell.weight_ih_l0.shape[0], 8)


def test_bilinear_layers_read_fewer_channels():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right, self.both = nn.Linear(6, 8), nn.Linear(6, 12), nn.Bilinear(8, 12, 3)

        def forward(self, x):
            return self.both(self.left(x), self.right(x))

    cut = fw.PruneChannels(ratio=0.5)(Pair().eval(), torch.randn(2, 6))
    assert (cut.both.in1_features, cut.both.in2_features, cut.both.out_features) == (4, 6, 3)


class Merged(nn.Linear):
    """A low-rank adapter and a mask, merged before use."""

    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs)
        self.a, self.b = nn.Parameter(torch.randn(2, inputs)), nn.Parameter(torch.randn(outputs, 2))
        self.register_buffer("mask", (torch.arange(inputs * outputs) % 3 > 0).view(outputs, inputs).float())

    def forward(self, x):
        return F.linear(x, self.weight * self.mask + self.b @ self.a, self.bias)


def test_weights_that_are_computed_from_masks_and_factors_are_cut_through_the_computation():
    net = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), Merged(16, 12), nn.ReLU(), Merged(12, 3)).eval()
    cut = fw.PruneChannels(ratio=0.5)(net, torch.randn(2, 6))
    assert (cut[2].weight.shape, cut[2].mask.shape, cut[2].a.shape, cut[2].b.shape) == ((6, 8), (6, 8), (2, 8), (6, 2))


class TiedDecoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.code, self.bias = nn.Linear(16, 12), nn.Parameter(torch.randn(16))

    def forward(self, x):
        return F.linear(self.code(x).relu(), self.code.weight.t(), self.bias)


def test_a_decoder_may_use_the_encoders_weights():
    assert fw.PruneChannels(ratio=0.5)(TiedDecoder().eval(), torch.randn(2, 16)).code.weight.shape == (6, 16)
