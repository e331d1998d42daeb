"""The structural methods in any order, with training between: one file holds the net, bit for bit."""

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings, strategies as st

from solution import checkpoint
from solution.compress.channels.step import PruneChannels
from solution.compress.cluster import Cluster
from solution.compress.decompose import Decompose
from solution.compress.fold_norms import FoldNorms
from solution.compress.prune_layers import PruneLayers
from solution.compress.prune_weights import PruneWeights
from solution.contracts import InputError, StepContext, plans_of, spec_of
from solution.evaluate.cost import sparsity
from solution.models.shufflenet import ShuffleNet
from solution.runtime import ROOT

STEPS = {
    "channels": PruneChannels(ratio=0.3),
    "channels, global": PruneChannels(ratio=0.2, ranking="global"),
    "layers": PruneLayers(count=1, ranking="last"),
    "weights": PruneWeights(sparsity=0.5),
    "weights, local": PruneWeights(sparsity=0.8, scope="local"),
    "decompose": Decompose(rank="energy", energy=0.6),
    "decompose, budget": Decompose(macs="90%"),
    "decompose, tucker": Decompose(method="tucker", rank=0.3),
    "cluster": Cluster(bits=4),
    "norms": FoldNorms(),
    "cluster, groups": Cluster(bits=2, groups=2, init="linear"),
}
NETS = (
    ShuffleNet(units=(2, 1, 1), width=0.2),
    ShuffleNet(units=(2, 2), width=0.2, groups=1, head="linear"),
    ShuffleNet(units=(1, 2), width=0.3, groups=4),
)
EXAMPLE = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
GIVEN = StepContext(example=EXAMPLE, log=lambda _: None)


def chained(net, names, train):
    """The net after the steps called so, each but the impossible ones, and a few updates of its weights after each."""
    for name in names:
        try:
            net = STEPS[name](net, GIVEN)
        except InputError as error:  # such as a second time the same: the chain goes on without
            if not any(word in str(error) for word in ("nothing", "cannot", "only")):
                raise
        if train:
            updated(net)
    return net.eval()


def updated(net):
    """Three steps of SGD in place, so that the weights come from the file and not from replaying plans."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-3)
    net.train()
    for _ in range(3):
        optimizer.zero_grad()
        F.cross_entropy(net(EXAMPLE), torch.tensor([0, 1])).backward()
        optimizer.step()
    net.zero_grad()


def saved(net, path):
    header = checkpoint.header_of(net, classes=("a", "b", "c"), mean=(0.5,) * 3, std=(0.5,) * 3, size=32)
    checkpoint.save(path, net, header)


@given(st.sampled_from(NETS), st.lists(st.sampled_from(sorted(STEPS)), min_size=2, max_size=4), st.booleans())
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
def test_any_chain_reloads_bit_for_bit(tmp_path_factory, settings, names, train):
    torch.manual_seed(0)
    net = chained(settings.build(3), names, train)
    path = tmp_path_factory.mktemp("chain") / "model.safetensors"
    saved(net, path)
    torch.manual_seed(1)
    again, _ = checkpoint.load(path)
    assert (spec_of(again), plans_of(again)) == (spec_of(net), plans_of(net))
    assert torch.equal(again(EXAMPLE), net(EXAMPLE))
    assert {name: t.numpy().tobytes() for name, t in again.state_dict().items()} == {
        name: t.numpy().tobytes() for name, t in net.state_dict().items()
    }


@pytest.mark.long
def test_a_long_chain_reloads_in_a_fresh_process(tmp_path):
    torch.manual_seed(0)
    names = ["weights", "decompose", "channels", "cluster", "layers", "weights, local", "cluster, groups"]
    net = chained(NETS[0].build(3), names, train=True)
    assert [plan.kind for plan in plans_of(net)] == [
        "prune_weights", "decompose", "prune_channels", "cluster", "prune_layers", "prune_weights", "cluster",
    ]  # fmt: skip
    saved(net, tmp_path / "model.safetensors")
    torch.save((EXAMPLE, net(EXAMPLE).detach()), tmp_path / "pair.pt")
    code = (
        "import sys, torch; from pathlib import Path; from solution import checkpoint;"
        "from solution.runtime import set_threads; set_threads(); folder = Path(sys.argv[1]);"
        "net, _ = checkpoint.load(folder / 'model.safetensors');"
        "x, y = torch.load(folder / 'pair.pt', weights_only=True); sys.exit(not torch.equal(net(x), y))"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT).returncode == 0


@pytest.mark.parametrize(
    "step", [STEPS["channels"], Decompose(rank="energy", energy=0.6, layers=("features.init_block.*", "output*"))]
)
def test_reshaping_folds_a_sparse_and_clustered_net_first(step):
    torch.manual_seed(0)
    net = chained(NETS[0].build(3), ["weights, local", "cluster"], train=True)
    before, answer = sparsity(net), net(EXAMPLE)
    smaller = step(net, GIVEN)
    assert sparsity(smaller) > 0.7 * before
    assert sparsity(net) == before
    assert torch.equal(net(EXAMPLE), answer)
