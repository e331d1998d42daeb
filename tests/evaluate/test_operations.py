"""Products at the dispatcher, against numbers worked out by hand; what has no count is named."""

import warnings

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, register_flop_formula

from solution.evaluate.audit import audit
from solution.evaluate.cost import macs_dispatched

TOKENS = torch.zeros(1, 7, 5)  # (B, T, C)
SPARSE = torch.tensor([[1.0, 0, 2, 0, 3], [0, 0, 0, 4, 0], [0, 5, 0, 0, 6]])  # (3, 5), six stored
DENSE = torch.zeros(1, 5, 4)


class Calls(nn.Module):
    """A net that is one function of its input, and of weights that it may be given."""

    def __init__(self, function, *weights):
        super().__init__()
        self.function, self.weights = function, nn.ParameterList(weights)

    def forward(self, x):
        return self.function(x, *self.weights)


def counted(function, example, *weights):
    """MACs of one call, which must name nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", "no count is known")
        net = function if isinstance(function, nn.Module) else Calls(function, *weights)
        return macs_dispatched(net, example)


LSTM = 4 * 6 * (5 + 6 + 2)  # four gates of six units; input, hidden state and two biases
UPPER = 4 * 6 * (12 + 6 + 2)  # of a second layer, which reads both directions of the first


@pytest.mark.parametrize(
    ("layer", "macs"),
    [
        (nn.LSTM(5, 6, batch_first=True), 7 * LSTM),
        (nn.LSTM(5, 6, bias=False), 7 * 4 * 6 * 11),
        (nn.LSTM(5, 6, num_layers=2, bidirectional=True), 7 * 2 * (LSTM + UPPER)),
        (nn.LSTM(5, 6, proj_size=2), 7 * (4 * 6 * (5 + 2 + 2) + 2 * 6)),
        (nn.GRU(5, 6, batch_first=True), 7 * 3 * 6 * 13),
        (nn.RNN(5, 6), 7 * 6 * 13),
        (nn.LSTMCell(5, 6), 7 * LSTM),
        (nn.GRUCell(5, 6), 7 * 3 * 6 * 13),
    ],
    ids=str,
)
def test_recurrent_layers(layer, macs):
    of_cell = isinstance(layer, nn.RNNCellBase)
    assert counted(Calls(lambda x: layer(x[0] if of_cell else x.mT.mT)), TOKENS) == macs


def test_a_recurrent_layer_counts_the_same_in_one_call_and_in_many():
    layer = nn.LSTM(5, 6, num_layers=2, bidirectional=True, batch_first=True)
    in_one = counted(layer, TOKENS)
    with warnings.catch_warnings(), torch.backends.mkldnn.flags(enabled=False):
        warnings.simplefilter("ignore")
        assert macs_dispatched(layer, TOKENS) == in_one


@pytest.mark.parametrize(
    ("equation", "macs"),
    [("bti,oi->bto", 7 * 5 * 5), ("bti,bsi->bts", 7 * 7 * 5), ("bti,oi->bo", 5 * 5), ("bti,bti->b", 35)],
)
def test_einsum(equation, macs):
    both = equation.split("->")[0].count("b") == 2
    function = (lambda x: torch.einsum(equation, x, x)) if both else lambda x, w: torch.einsum(equation, x, w)
    assert counted(function, TOKENS, *([] if both else [torch.zeros(5, 5)])) == macs


def test_layers_of_other_kinds():
    assert counted(nn.Sequential(nn.Flatten(1), nn.Linear(35, 4)), TOKENS) == 35 * 4 + 4
    bilinear = nn.Bilinear(5, 5, 3)
    assert counted(Calls(lambda x: bilinear(x, x)), TOKENS) == 7 * 3 * 5 * (5 + 1)
    image, offset = torch.zeros(1, 4, 8, 8), torch.zeros(1, 18, 6, 6)
    deformed = torchvision.ops.DeformConv2d(4, 6, 3, groups=2)
    assert counted(Calls(lambda x: deformed(x, offset)), image) == 6 * 36 * (2 * 9 + 1)
    distances = Calls(lambda x: torch.cdist(x.mT.expand(1, 5, 7).repeat(1, 8, 1), x.mT.repeat(1, 9, 1)))
    assert counted(distances, TOKENS) == 40 * 45 * 7
    table = nn.EmbeddingBag(9, 4, mode="sum")
    rows = torch.tensor([[1, 2, 3]])
    assert counted(Calls(lambda x: table(rows)), TOKENS) == 0
    assert counted(Calls(lambda x: table(rows, per_sample_weights=torch.ones(1, 3))), TOKENS) == 3 * 4


@pytest.mark.parametrize("form", ["to_sparse", "to_sparse_csr"])
def test_sparse_products_count_what_is_stored(form):
    weight = getattr(SPARSE, form)()
    assert counted(Calls(lambda x: torch.sparse.mm(weight, x[0])), DENSE) == 6 * 4 + 3 * 4  # adds to zeros
    assert counted(Calls(lambda x: weight @ x[0]), DENSE) == 6 * 4
    assert counted(Calls(lambda x: weight @ x[0, :, 0]), DENSE) == 6
    assert counted(Calls(lambda x: F.linear(x.mT[0], weight)), DENSE) == 4 * 6


def test_sparse_factors_on_both_sides_and_sampled_products():
    left = SPARSE.to_sparse()
    # the stored elements of columns 0 to 4 of the left are 1, 1, 1, 1, 2; the rows of its transpose hold as many
    assert counted(Calls(lambda x: torch.sparse.mm(left, left.t())), DENSE) == 1 + 1 + 1 + 1 + 4
    where = torch.eye(5).to_sparse_csr()
    assert counted(Calls(lambda x: torch.sparse.sampled_addmm(where, x[0], x[0].mT)), DENSE) == 5 * 4


def test_fourier_transforms():
    image = torch.zeros(1, 2, 8, 8)
    assert counted(Calls(torch.fft.rfft2), image) == 1.25 * 128 * 6
    assert counted(Calls(lambda x: torch.fft.fft2(torch.complex(x, x))), image) == 2.5 * 128 * 6
    assert counted(Calls(lambda x: torch.fft.irfft(torch.fft.rfft(x), n=8)), image) == 2 * 1.25 * 128 * 3


@pytest.mark.parametrize("heads", [1, 2])
def test_attention_kernels_count_like_the_products_in_them(heads):
    tokens = torch.zeros(1, heads, 8, 4)
    assert counted(Calls(lambda x: F.scaled_dot_product_attention(x, x, x)), tokens) == heads * 8 * 8 * (4 + 4)
    masked = Calls(lambda x: F.scaled_dot_product_attention(x, x, x, attn_mask=torch.zeros(8, 8)))
    assert counted(masked, tokens) == heads * 8 * 8 * (4 + 4)
    layer = nn.MultiheadAttention(4, heads, bias=False, batch_first=True)
    inputs = torch.zeros(1, 8, 4)
    assert counted(Calls(lambda x: layer(x, x, x)[0]), inputs) == 4 * 8 * 4 * 4 + 2 * 8 * 8 * 4


def test_it_is_half_of_what_pytorchs_own_counter_says_where_that_knows_all():
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, bias=False), nn.ConvTranspose2d(8, 4, 3, bias=False), nn.Flatten(2),
        nn.Linear(289, 10, bias=False), nn.TransformerEncoderLayer(10, 2, 16, bias=False),
    )  # fmt: skip
    image = torch.zeros(1, 3, 32, 32)
    with FlopCounterMode(display=False) as counter:
        net(image)
    assert 2 * counted(net, image) == counter.get_total_flops()


def test_integer_products_of_quantized_nets():
    net = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3, bias=False))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantized = torch.ao.quantization.quantize_dynamic(net, {nn.Linear})
    assert counted(quantized, TOKENS) == 7 * (5 * 6 + 6 + 6 * 3)


@pytest.mark.parametrize(
    ("function", "name"),
    [(torch.linalg.inv, "linalg_inv_ex"), (torch.linalg.svd, "_linalg_svd"), (torch.matrix_exp, "linalg_matrix_exp")],
)
def test_an_operation_without_a_count_is_named_once_and_refused_by_the_audit(function, name):
    net = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), Calls(function))
    image = torch.eye(4)[None, None]
    with pytest.warns(UserWarning, match=f"no count is known for {name}") as caught:
        assert macs_dispatched(net, image) == 16
    assert len(caught) == 1
    assert name in str(audit(net, image))


def test_a_users_own_operation_counts_by_the_formula_that_it_registers():
    @torch.library.custom_op("featherweight_test::twice", mutates_args=())
    def twice(x: torch.Tensor) -> torch.Tensor:
        return 2 * x

    net, image = Calls(twice), torch.zeros(1, 1, 4, 4)
    with pytest.warns(UserWarning, match="no count is known for featherweight_test::twice"):
        assert macs_dispatched(net, image) == 0

    @register_flop_formula(torch.ops.featherweight_test.twice)
    def formula(shape, *args, out_shape=None, **named):
        return 2 * 16

    assert counted(net, image) == 16


def test_everyday_nets_name_nothing():
    for name, side in (("shufflenet_v2_x0_5", 64), ("convnext_tiny", 64), ("swin_v2_t", 64)):
        assert counted(torchvision.models.get_model(name, weights=None), torch.zeros(1, 3, side, side)) > 0
