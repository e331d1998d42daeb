import copy
import json
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from solution.compress.prune_layers import LayerPlan, PruneLayers, block_influence
from solution.compress.residual import PassThrough, blocks_of, stages_of, without
from solution.contracts import InputError, StepContext
from solution.evaluate.classify import mean_loss
from solution.evaluate.cost import macs, params
from solution.models.classifiers import Classifier
from solution.models.shufflenet import ShuffleNet


def blocks_by_stage(net, example):
    return {stage.path: tuple(block.path for block in stage.blocks) for stage in stages_of(net, example)}


def small_resnet(num_classes=3):
    torch.manual_seed(0)
    return Classifier(name="torchvision:resnet18").build(num_classes=num_classes).eval()


def small_vit():
    from torchvision.models import VisionTransformer

    torch.manual_seed(0)
    settings = {"image_size": 32, "patch_size": 8, "num_layers": 4, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 32}
    return VisionTransformer(**settings, num_classes=3).eval()


def test_the_units_of_a_shufflenet_stage_but_its_first_may_go(small_net, toy):
    assert blocks_by_stage(small_net, toy.example) == {
        "features.stage1": ("features.stage1.unit2", "features.stage1.unit3"),
        "features.stage2": ("features.stage2.unit2", "features.stage2.unit3"),
        "features.stage3": ("features.stage3.unit2",),
    }


def test_a_stage_without_a_block_that_may_go_is_still_a_stage(small_net, toy):
    cut = PruneLayers(units=(2, 1, 1), ranking="last")(small_net, toy)
    assert blocks_by_stage(cut, toy.example) == {
        "features.stage1": ("features.stage1.unit2",),
        "features.stage2": (),
        "features.stage3": (),
    }
    assert PruneLayers(units=(1, 1, 1))(cut, toy)(toy.example).shape == (2, 3)


@pytest.mark.parametrize("units", [(2, 5, 2), (1, 1, 1), (4, 7, 4), (3, 5, 3)])
def test_what_is_left_is_as_asked_and_costs_what_a_net_built_so_costs(units):
    torch.manual_seed(0)
    net, x = ShuffleNet().build(num_classes=9).eval(), torch.randn(1, 3, 80, 80)
    cut = PruneLayers(units=units, ranking="last")(net, StepContext(example=x))
    built = ShuffleNet(units=units).build(num_classes=9).eval()
    assert (macs(cut, x), params(cut)) == (macs(built, x), params(built))
    built.load_state_dict(cut.state_dict())
    assert torch.equal(cut(x), built(x))


def test_the_blocks_that_hurt_least_go(small_net, toy):
    hurt = {
        block: mean_loss(without(copy.deepcopy(small_net), [block]), toy.dev)
        for blocks in blocks_by_stage(small_net, toy.example).values()
        for block in blocks
    }
    plan = PruneLayers(count=1).plan(small_net, toy)
    assert plan.removed == (min(hurt, key=hurt.get),)


def test_influence_is_one_minus_the_cosine_of_input_and_output(small_net, toy):
    blocks = blocks_of(small_net, toy.example)
    images = torch.cat([images for images, _ in toy.calibration])
    seen = {}
    unit = small_net.get_submodule(blocks[0].path)
    handle = unit.register_forward_hook(lambda _, inputs, output: seen.update(x=inputs[0], y=output))
    with torch.no_grad():
        small_net(images)
    handle.remove()
    alike = F.cosine_similarity(seen["x"].flatten(1), seen["y"].flatten(1)).mean()
    found = block_influence(small_net, blocks, toy.calibration)
    assert found[blocks[0]] == pytest.approx(1 - float(alike), abs=1e-5)


def test_a_block_that_changes_nothing_goes_first_without_any_data(small_net, toy):
    unit = small_net.features.stage2.unit3
    torch.nn.init.zeros_(unit.expand_bn3.weight)
    torch.nn.init.zeros_(unit.expand_bn3.bias)
    plan = PruneLayers(count=1, ranking="influence").plan(small_net, StepContext(example=toy.example, log=toy.log))
    assert plan.removed == ("features.stage2.unit3",)
    assert torch.equal(plan.apply(small_net)(toy.example), small_net(toy.example))


@pytest.mark.parametrize("ranking", ["dev", "influence", "last"])
def test_a_budget_is_never_exceeded_and_no_block_goes_in_vain(small_net, toy, ranking):
    full = macs(small_net, toy.example)
    for asked in ("80%", int(0.8 * full)):
        plan = PruneLayers(macs=asked, ranking=ranking).plan(small_net, toy)
        left = plan.saves["macs"][1]
        assert left == macs(plan.apply(small_net), toy.example) <= 0.8 * full
        assert all(left + saved > 0.8 * full for saved, _ in plan.blocks.values())


def test_an_unreachable_budget_names_the_least(small_net, toy):
    least = macs(PruneLayers(count=5, ranking="last")(small_net, toy), toy.example)
    with pytest.raises(InputError, match=rf"the least is {least:,} \(.*without all 5 that can go"):
        PruneLayers(macs="10%").plan(small_net, toy)
    assert PruneLayers(macs=least, ranking="last").plan(small_net, toy).saves["macs"][1] == least


def test_residual_blocks_of_other_nets_go_too(toy):
    plan = PruneLayers(units=(1, 1, 1, 1), ranking="last").plan(small_resnet(), toy)
    assert plan.removed == ("layer1.1", "layer2.1", "layer3.1", "layer4.1")
    assert plan.apply(small_resnet())(toy.example).shape == (2, 3)


def test_layers_of_a_vision_transformer_go_by_influence(toy):
    net = small_vit()
    plan = PruneLayers(count=2, ranking="influence").plan(net, toy)
    assert plan.units == {"encoder.layers": (4, 2)}
    assert plan.apply(net)(toy.example).shape == (2, 3)


def test_a_pass_through_is_replayed_from_json(toy):
    class Looped(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = torch.nn.ModuleList(small_vit().encoder.layers)
            self.stem, self.head = torch.nn.Conv2d(3, 16, 8, 8), torch.nn.Linear(16, 3)

        def forward(self, x):
            x = self.stem(x).flatten(2).transpose(1, 2)
            for block in self.blocks:
                x = block(x)
            return self.head(x.mean(1))

    plan = PruneLayers(count=1, ranking="last").plan(Looped(), toy)
    again = LayerPlan.from_fields(json.loads(json.dumps(plan.to_fields())))
    assert again == plan
    assert plan.listed == ("blocks.3",)
    assert isinstance(again.apply(Looped()).blocks[3], PassThrough)


def test_the_plan_reads_as_a_table(small_net, toy):
    plan = PruneLayers(units=(2, 3, 1), ranking="last").plan(small_net, toy)
    text = str(plan)
    assert "features.stage1  3 -> 2  unit3" in text
    assert "features.stage2  3 -> 3  -" in text
    saved, params_saved = plan.blocks["features.stage1.unit3"]
    assert f"features.stage1.unit3 saves {saved:,} MACs, {params_saved:,} parameters" in text
    assert "macs:" in text
    assert math.isclose(sum(m for m, _ in plan.blocks.values()), plan.saves["macs"][0] - plan.saves["macs"][1])


def test_a_plan_for_another_net_names_the_block(toy):
    plan = PruneLayers(units=(1, 1, 1, 1), ranking="last").plan(small_resnet(), toy)
    with pytest.raises(InputError, match=r"another net: there is no block 'layer1\.1'"):
        plan.apply(small_vit())
    other = Classifier(name="torchvision:resnet50").build(num_classes=3)
    with pytest.raises(InputError, match=r"block 'layer1\.1' has 70,400 parameters here, 73,984 in the plan"):
        plan.apply(other)


def test_a_plan_of_an_older_checkpoint_still_applies(small_net, toy):
    fields = {"kind": "prune_layers", "removed": ["features.stage1.unit2"], "units": {"features.stage1": [3, 2]}}
    plan = LayerPlan.from_fields({**fields, "saves": {"macs": [2, 1], "params": [2, 1]}})
    assert plan.apply(small_net)(toy.example).shape == (2, 3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "either units or count"),
        ({"units": (1,), "count": 1}, "either units or count"),
        ({"count": 1, "macs": "50%"}, "got units=None, count=1, macs=50%"),
        ({"count": 0}, "at least 1, got 0"),
        ({"macs": 0}, "macs must be .*, got 0"),
        ({"macs": 0.7}, r"macs=0.7 could mean .*macs=\"70%\".*macs=\"30%\""),
        ({"macs": 10**12}, "macs must come below .* nothing would go"),
        ({"count": 1, "ranking": "best"}, "best"),
        ({"units": (1, 1)}, "names 2 stages, the net has 3"),
        ({"units": (4, 1, 1)}, "stage1 has 3 blocks and can keep 1 to 3, not 4"),
        ({"units": (0, 1, 1)}, "at least 1, got \\(0, 1, 1\\)"),
        ({"units": (3, 3, 2)}, "nothing"),
        ({"count": 99}, "only 5 keep"),
    ],
)
def test_what_cannot_be_done_is_explained(small_net, toy, settings, message):
    with pytest.raises(InputError, match=message):
        PruneLayers(**settings).plan(small_net, toy)


def test_a_net_without_blocks_is_refused(toy):
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 3, padding=1), torch.nn.ReLU(), torch.nn.Flatten())
    with pytest.raises(InputError, match=r"Sequential has no block .* nothing would be taken out"):
        PruneLayers(count=1).plan(net, toy)


def test_ranking_by_measurement_needs_choose_batches(small_net, toy):
    with pytest.raises(InputError, match="needs dev batches"):
        PruneLayers(count=1)(small_net, replace(toy, dev=None))


@pytest.mark.parametrize("ranking", ["dev", "influence"])
def test_nan_weights_are_refused(small_net, toy, ranking):
    torch.nn.init.constant_(small_net.features.stage3.unit2.expand_bn3.weight, float("nan"))
    with pytest.raises(InputError, match=r"blocks cannot be ranked: .* has the score nan"):
        PruneLayers(count=1, ranking=ranking).plan(small_net, toy)


class Averaged(torch.nn.Module):
    """Residual blocks whose sum is divided by their number, which no block that goes leaves as it was."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = torch.nn.Conv2d(3, 8, 3), torch.nn.Linear(8, 4)
        self.blocks = torch.nn.Sequential(*(Doubling() for _ in range(3)))

    def forward(self, x):
        return self.head((self.blocks(self.stem(x)) / len(self.blocks)).mean((2, 3)))


class Doubling(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x):
        return F.relu_(x) + self.conv(x)


def test_a_cut_is_proven_on_the_example():
    x = torch.randn(2, 3, 12, 12)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Sequential(*(Doubling() for _ in range(3)))).eval()
    plan = PruneLayers(count=1, ranking="last").plan(net, x)
    assert plan.verified < 1e-10
    assert "verified: " in str(plan)
    assert PruneLayers(count=1, ranking="last", verify=False).plan(net, x).verified is None


def test_a_forward_that_computes_with_the_number_of_blocks_is_refused():
    net, x = Averaged().eval(), torch.randn(2, 3, 12, 12)
    with pytest.raises(InputError, match=r"compute something else.*verify=False"):
        PruneLayers(count=1, ranking="last").plan(net, x)
    PruneLayers(count=1, ranking="last", verify=False).plan(net, x)
