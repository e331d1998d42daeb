import pytest
import torch

from solution.compress.prune_layers import PruneLayers, mean_loss, stages_of, without
from solution.contracts import InputError
from solution.models.classifiers import Classifier
from solution.models.shufflenet import ShuffleNet


def test_the_units_of_a_shufflenet_stage_but_its_first_may_go(small_net, toy):
    stages = stages_of(small_net, toy.example)
    assert stages == {
        "features.stage1": ("features.stage1.unit2", "features.stage1.unit3"),
        "features.stage2": ("features.stage2.unit2", "features.stage2.unit3"),
        "features.stage3": ("features.stage3.unit2",),
    }


@pytest.mark.parametrize("units", [(2, 5, 2), (1, 1, 1), (4, 7, 4), (3, 5, 3)])
def test_what_is_left_is_as_asked_and_costs_what_a_net_built_so_costs(units):
    from solution.contracts import Given
    from solution.evaluate.cost import macs, params

    torch.manual_seed(0)
    net, x = ShuffleNet().build(num_classes=9).eval(), torch.randn(1, 3, 80, 80)
    cut = PruneLayers(units=units, ranking="last")(net, Given(example=x))
    built = ShuffleNet(units=units).build(num_classes=9).eval()
    assert (macs(cut, x), params(cut)) == (macs(built, x), params(built))
    built.load_state_dict(cut.state_dict())
    assert torch.equal(cut(x), built(x))


def test_the_blocks_that_hurt_least_go(small_net, toy):
    hurt = {
        block: mean_loss(without_copy(small_net, block), toy.choose)
        for blocks in stages_of(small_net, toy.example).values()
        for block in blocks
    }
    plan = PruneLayers(count=1).plan(small_net, toy)
    assert plan.removed == (min(hurt, key=hurt.get),)


def without_copy(net, block):
    import copy

    return without(copy.deepcopy(net), [block])


def test_residual_blocks_of_other_nets_go_too(toy):
    torch.manual_seed(0)
    net = Classifier(name="torchvision:resnet18").build(num_classes=3).eval()
    plan = PruneLayers(units=(1, 1, 1, 1), ranking="last").plan(net, toy)
    assert plan.removed == ("layer1.1", "layer2.1", "layer3.1", "layer4.1")
    assert plan.apply(net)(toy.example).shape == (2, 3)


def test_the_plan_reads_as_a_table(small_net, toy):
    text = str(PruneLayers(units=(2, 3, 1), ranking="last").plan(small_net, toy))
    assert "features.stage1  3 -> 2  unit3" in text
    assert "features.stage2  3 -> 3  -" in text
    assert "macs:" in text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "either units or count"),
        ({"units": (1,), "count": 1}, "either units or count"),
        ({"count": 0}, "at least 1, got 0"),
        ({"count": 1, "ranking": "best"}, "best"),
        ({"units": (1, 1)}, "names 2 stages, the net has 3"),
        ({"units": (4, 1, 1)}, "stage1 has 3 blocks and can keep 1 to 3, not 4"),
        ({"units": (0, 1, 1)}, "not 0"),
        ({"units": (3, 3, 2)}, "nothing"),
        ({"count": 99}, "only 5 keep"),
    ],
)
def test_what_cannot_be_done_is_explained(small_net, toy, settings, message):
    with pytest.raises(InputError, match=message):
        PruneLayers(**settings).plan(small_net, toy)


def test_ranking_by_measurement_needs_choose_batches(small_net, toy):
    from dataclasses import replace

    with pytest.raises(InputError, match="needs choose batches"):
        PruneLayers(count=1)(small_net, replace(toy, choose=None))
