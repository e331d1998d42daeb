"""Every structural step works on the net inside a wrapper, and refuses in one line what has no values or no code."""

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

import solution as fw


def residual(width):
    block = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))
    return Residual(block)


class Residual(nn.Module):
    def __init__(self, block):
        super().__init__()
        self.block = block

    def forward(self, x):
        return x + self.block(x)


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.Sequential(residual(16), residual(16))),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5)),
    ).eval()


X = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(1))
STEPS = {
    "prune_layers": fw.PruneLayers(count=1, ranking="last"),
    "prune_weights": fw.PruneWeights(sparsity=0.5),
    "decompose": fw.Decompose(rank=2),
    "cluster": fw.Cluster(bits=2),
    "quantize": fw.Quantize(scheme="int8", fold_norms=True),
    "fold_norms": fw.FoldNorms(),
}
WRAPPERS = {
    "data parallel": nn.DataParallel,
    "average": AveragedModel,
    "compiled": lambda model: torch.compile(model, backend="eager"),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("step", STEPS)
def test_the_net_inside_a_wrapper(step, wrapper):
    made = STEPS[step](WRAPPERS[wrapper](net()), X).eval()
    assert isinstance(made, nn.Sequential)
    torch.testing.assert_close(made(X), STEPS[step](net(), X).eval()(X))
    assert fw.plans_of(made)[0] == STEPS[step].plan(WRAPPERS[wrapper](net()), X)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("step", STEPS)
def test_what_has_no_forward_or_no_values_is_refused(step):
    with pytest.raises(fw.InputError, match=r"was made by torch\.jit"):
        STEPS[step](torch.jit.trace(net(), X), X)
    with pytest.raises(fw.InputError, match="on the meta device, without values: load them first"):
        STEPS[step](net().to("meta"), X)
    with pytest.raises(fw.InputError, match="at least one"):
        STEPS[step](net(), X[:0])


def test_lazy_layers_are_initialized_in_the_copy_alone():
    lazy = nn.Sequential(nn.LazyConv2d(8, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(4)).eval()
    made = fw.Quantize()(lazy, X)
    assert made(X).shape == (2, 4)
    assert isinstance(lazy[0].weight, nn.parameter.UninitializedParameter)
