"""The steps `Quantize` and `Convert`: what they decide, what they make, and what they refuse."""

import copy
import dataclasses
import json

import pytest
import torch
from conftest import toy_batches
from torch import nn
from torch.nn.utils import parametrize

from solution import checkpoint
from solution.compress.quantization.forms import Codes, DynamicGrid, Half, grid_of, stored_bytes
from solution.compress.quantization.plan import ConvertPlan, QuantizePlan
from solution.compress.quantize import Convert, Quantize
from solution.contracts import InputError, StepContext, plans_of
from solution.evaluate.audit import audit
from solution.evaluate.classify import mean_loss
from solution.evaluate.cost import macs, macs_dispatched
from solution.export.packed import packed
from solution.models.shufflenet import ShuffleNet
from solution.train.step import Train

STEPS = {
    "int8": Quantize(),
    "int8, inputs too": Quantize(activations=8, fold_norms=True, cross_layer_equalize=True),
    "int8, inputs by the image": Quantize(
        activations=8, observer="dynamic", fold_norms=True, cross_layer_equalize=True
    ),
    "int4, folded, rest in half": Quantize(scheme="int4", fold_norms=True, other_dtype="float16"),
    "int2 to learn": Quantize(scheme="int2", activations=4, qat=True),
    "binary": Quantize(scheme="binary"),
    "float16": Quantize(scheme="float16", other_dtype="float16"),
    "bfloat16": Quantize(scheme="bfloat16", other_dtype="bfloat16"),
    "mixed by bytes": Quantize(lower=("int4", "int2"), bytes="25%", fold_norms=True, other_dtype="float16"),
}


@pytest.fixture
def small_net():
    """Fewer layers than the one that all tests share: this file quantizes it many times."""
    torch.manual_seed(0)
    return ShuffleNet(units=(3, 1), width=0.1).build(num_classes=3).eval()


@pytest.fixture(params=STEPS)
def step(request):
    return STEPS[request.param]


def state_bytes(model):
    return {
        name: tensor.contiguous().flatten().view(torch.uint8).tolist() for name, tensor in model.state_dict().items()
    }


def answers(model, toy):
    with torch.no_grad():
        return model.eval()(toy.dev[0][0])


def forms(model):
    return {
        path: module.parametrizations["weight"][-1]
        for path, module in model.named_modules()
        if parametrize.is_parametrized(module, "weight") and isinstance(module, nn.Conv2d)
    }


def test_the_input_stays_and_plan_and_state_of_a_file_rebuild_the_net(step, small_net, toy):
    before, text = state_bytes(small_net), str(small_net)
    model = step(small_net, toy)
    assert (state_bytes(small_net), str(small_net)) == (before, text)
    (plan,) = plans_of(model)
    again = QuantizePlan.from_fields(json.loads(json.dumps(plan.to_fields())))
    assert (again, str(again)) == (plan, str(plan))
    torch.manual_seed(9)
    fresh = again.apply(ShuffleNet(units=(3, 1), width=0.1).build(num_classes=3))
    assert {n: (t.dtype, t.shape) for n, t in fresh.state_dict().items()} == {
        n: (t.dtype, t.shape) for n, t in model.state_dict().items()
    }
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(answers(fresh, toy), answers(model, toy))


def test_bytes_fall_as_the_plan_says_and_cost_and_audit_still_see_every_layer(step, small_net, toy):
    plan = step.plan(small_net, toy)
    before, after = plan.saves["bytes"]
    assert before == stored_bytes(small_net)
    assert after < before
    assert f"bytes: {before:,} -> {after:,}" in str(plan)
    model = plan.apply(small_net)
    assert macs_dispatched(model, toy.example) >= macs_dispatched(small_net, toy.example)
    assert macs(model, toy.example) <= macs(small_net, toy.example)
    assert audit(model, toy.example).ok
    if not step.qat:
        assert stored_bytes(model) == after
        assert step.currency == "bytes"


def test_the_same_seed_gives_the_same_model(small_net, toy):
    step = STEPS["int8, inputs too"]
    assert state_bytes(step(small_net, toy)) == state_bytes(step(small_net, toy))


@pytest.fixture(scope="module")
def trained():
    """A small net that knows the toy task."""
    torch.manual_seed(0)
    train = toy_batches(12, seed=0)
    context = StepContext(example=train[0][0][:2], train=train, dev=toy_batches(2, seed=1), log=lambda _: None)
    net = ShuffleNet(units=(1, 1), width=0.1).build(num_classes=3)
    return Train(epochs=6, lr=0.1)(net, context)


def distance(model, other, toy):
    return float((answers(model, toy) - answers(other, toy)).norm() / answers(other, toy).norm())


def test_more_bits_stay_closer_and_correction_helps(trained, toy):
    far = {
        name: distance(Quantize(scheme=name)(trained, toy), trained, toy)
        for name in ("float16", "int8", "int5", "int3")
    }
    assert list(far.values()) == sorted(far.values())
    assert far["int8"] < 0.05
    blind = distance(Quantize(scheme="int3", correct_bias=False)(trained, toy), trained, toy)
    assert far["int3"] < blind


@pytest.mark.parametrize("scheme", ["int4", "int2", "binary"])
def test_training_with_grids_mends_what_rounding_broke(scheme, trained, toy):
    rounded = Quantize(scheme=scheme, qat=True)(trained, toy)
    learned = Train(epochs=3, lr=0.02, keep="last", warmup_epochs=0)(rounded, toy)
    frozen = Convert(fold_norms=False, other_dtype="float32")(learned, toy)
    assert torch.equal(answers(frozen, toy), answers(learned, toy))
    assert all(isinstance(form, Codes) for form in forms(frozen).values())
    labels = toy.dev[0][1]
    loss = {
        name: float(nn.functional.cross_entropy(answers(net, toy), labels))
        for name, net in (("r", rounded), ("l", learned))
    }
    assert loss["l"] < loss["r"]


def test_a_frozen_net_with_folded_norms_answers_as_before_and_rebuilds(trained, toy):
    learned = Quantize(scheme="int4", qat=True)(trained, toy)
    frozen = Convert(fold_norms=True, other_dtype="float16")(learned, toy)
    assert distance(frozen, learned, toy) < 0.02
    assert not any(isinstance(module, nn.BatchNorm2d) for module in frozen.modules())
    fresh = ShuffleNet(units=(1, 1), width=0.1).build(num_classes=3)
    for plan in plans_of(frozen):
        kind = ConvertPlan if plan.kind == "convert" else QuantizePlan
        fresh = kind.from_fields(json.loads(json.dumps(plan.to_fields()))).apply(fresh)
    fresh.load_state_dict(frozen.state_dict())
    assert torch.equal(answers(fresh, toy), answers(frozen, toy))


def test_learned_steps_are_parameters_that_weight_decay_spares(small_net, toy):
    model = Quantize(scheme="int4", qat=True)(small_net, toy)
    scales = {name: p for name, p in model.named_parameters() if name.endswith("scale")}
    assert len(scales) == len(forms(model))
    assert all(p.requires_grad and p.dim() == 1 for p in scales.values())


def test_a_mask_stays_before_a_grid_that_trains(small_net, toy):
    class Masked(nn.Module):
        def forward(self, weight):
            return weight * (torch.arange(weight.numel()).view(weight.shape) % 2)

    parametrize.register_parametrization(small_net.output, "weight", Masked())
    learned = Quantize(scheme="int4", qat=True)(small_net, toy)
    assert len(learned.output.parametrizations["weight"]) == 2
    finished = Convert()(learned, toy)
    assert not finished.output.weight.flatten()[::2].any()
    assert finished.output.weight.flatten()[1::2].any()
    assert isinstance(forms(Quantize()(small_net, toy))["output"], Codes)


def test_quantizing_again_replaces_the_form(small_net, toy):
    model = Quantize(scheme="int4")(Quantize(scheme="int8")(small_net, toy), toy)
    assert {form.scheme.name for form in forms(model).values()} == {"int4"}
    again = Quantize(scheme="int8", qat=True)(model, toy)
    assert all(grid_of(again.get_submodule(path)) for path in forms(again))


def test_float16_keeps_every_parameter_in_half(small_net, toy):
    model = Quantize(scheme="float16", other_dtype="float16")(small_net, toy)
    assert list(model.parameters()) == []
    kept = [form for form in model.modules() if isinstance(form, Half)]
    assert len(kept) == len(list(small_net.parameters()))


def test_numbers_beyond_float16_are_named(small_net, toy):
    with torch.no_grad():
        small_net.features.init_block.bn.weight[0] = 1e6
    with pytest.raises(InputError, match=r"features\.init_block\.bn\.weight .*beyond float16: use a wider type"):
        Quantize(other_dtype="float16")(small_net, toy)
    small_net.mix = nn.Parameter(torch.full((2, 2), 1e6))
    with pytest.raises(InputError, match=r"^mix holds NaN, or numbers beyond float16"):
        Quantize(other_dtype="float16")(small_net, toy)


FIRST = "features.init_block"


@pytest.mark.parametrize(
    ("step", "layer", "tensor", "size"),
    [
        (Quantize(scheme="float16"), "output", "output.weight", 7e4),
        (Quantize(scheme="bfloat16"), "output", "output.weight", 3.4e38),
        (Quantize(scheme="float16", fold_norms=True), f"{FIRST}.conv", f"{FIRST}.bn.weight", 1e7),
        (Quantize(scheme="float16", lower=("int8",), bytes="90%"), "output", "output.weight", 7e4),
    ],
)
def test_a_weight_that_its_scheme_cannot_hold_stays_in_float(step, layer, tensor, size, small_net, toy):
    sound = step.plan(small_net, toy)
    with torch.no_grad():
        small_net.get_parameter(tensor)[0] = size
    plan = step.plan(small_net, toy)
    assert plan.kept == {layer: f"its weight holds numbers beyond {step.scheme}"}
    assert f"{layer}: left as it is, its weight holds numbers beyond" in str(plan)
    convolutions = [module for module in plan.apply(small_net).modules() if isinstance(module, nn.Conv2d)]
    assert all(torch.isfinite(module.weight).all() for module in convolutions)
    with pytest.raises(InputError, match=rf"^{layer}\.weight holds NaN, or numbers beyond"):
        sound.apply(small_net)


def test_a_training_that_broke_is_not_frozen(small_net, toy):
    learned = Quantize(scheme="int8", qat=True)(small_net, toy)
    with torch.no_grad():
        learned.output.parametrizations["weight"].original[0] = float("nan")
    with pytest.raises(InputError, match=r"output\.weight holds NaN or infinite values"):
        Convert()(learned, toy)


def test_layers_that_cannot_be_quantized_are_named_and_kept(small_net, toy):
    with torch.no_grad():
        small_net.features.stage1.unit1.dw_conv2.weight[0] = float("nan")
    small_net.features.stage1.unit2.expand_conv3.weight = small_net.features.stage1.unit3.expand_conv3.weight
    small_net.spare = nn.Linear(2, 2)
    small_net.table = nn.Embedding(4, 4)
    small_net.mix = nn.Parameter(torch.eye(2))
    plan = Quantize(protect=("output",)).plan(small_net, toy)
    assert plan.kept == {
        "output": "protected",
        "features.stage1.unit1.dw_conv2": "its weight holds NaN or infinite values",
        "features.stage1.unit2.expand_conv3": "its weights are shared with another layer",
        "features.stage1.unit3.expand_conv3": "its weights are shared with another layer",
        "spare": "it is not called on the example, so its inputs cannot be seen",
        "mix": "a weight of ShuffleNetModule, which is neither a convolution nor a linear layer",
        "table.weight": "a weight of Embedding, which is neither a convolution nor a linear layer",
    }
    assert not plan.kept.keys() & plan.schemes.keys()
    assert "spare: left as it is, it is not called" in str(plan)
    assert plan.apply(small_net).table.weight.dtype is torch.float32


def test_fewer_calibration_images_than_asked_are_said(small_net, toy):
    said = []
    Quantize(activations=8, images=100).plan(small_net, dataclasses.replace(toy, log=said.append))
    assert said == ["images=100, but there are 32 calibration images: these are used"]
    said.clear()
    Quantize(activations=8, images=20).plan(small_net, dataclasses.replace(toy, log=said.append))
    assert said == []


@pytest.mark.parametrize(
    ("context", "message"),
    [
        ({"calibration": None}, r"quantizing activations needs calibration batches"),
        ({"calibration": []}, r"there are no calibration images"),
    ],
)
def test_activations_need_calibration_images(context, message, small_net, toy):
    with pytest.raises(InputError, match=message):
        Quantize(activations=8)(small_net, dataclasses.replace(toy, **context))


def test_without_data_weights_alone_are_quantized(small_net, toy):
    model = Quantize(scheme="int8")(small_net, StepContext(example=toy.example))
    assert len(forms(model)) == sum(isinstance(module, nn.Conv2d) for module in small_net.modules())


def test_dynamic_inputs_need_no_data_and_follow_the_image(trained, toy):
    alone = StepContext(example=toy.example)
    dynamic = Quantize(activations=8, observer="dynamic")(trained, alone)
    assert "output int8 dynamic" in " ".join(str(plans_of(dynamic)[-1]).split())
    static = Quantize(activations=8, observer="minmax")(trained, toy)
    bright = dataclasses.replace(toy, dev=[(images * 20, labels) for images, labels in toy.dev])
    assert distance(dynamic, trained, toy) < 0.05
    assert distance(dynamic, trained, bright) < 0.05
    assert distance(static, trained, bright) > 0.5


@pytest.mark.parametrize("bits", [-1, 0, 1, 9, 2**31])
def test_a_plan_with_inputs_of_absurd_bits_is_refused(bits):
    with pytest.raises(InputError, match=f"must have 2 to 8 bits, got activation_bits={bits}"):
        QuantizePlan(schemes={"output": "int8"}, ranges={"output": ()}, activation_bits=bits)
    QuantizePlan(schemes={"output": "int8"}, activation_bits=0)


def test_dynamic_inputs_survive_a_training_and_a_packed_file(trained, toy, tmp_path):
    learned = Quantize(scheme="int4", activations=4, observer="dynamic", qat=True)(trained, toy)
    frozen = Convert()(Train(epochs=1, lr=0.01, keep="last", warmup_epochs=0)(learned, toy), toy)
    header = checkpoint.header_of(frozen, classes=toy.classes, mean=(0.5,) * 3, std=(0.5,) * 3, size=32)
    packed.save(tmp_path / "net.packed", frozen, header)
    again, _ = packed.load(tmp_path / "net.packed")
    assert sum(isinstance(module, DynamicGrid) for module in again.modules()) == len(forms(frozen))
    assert torch.equal(answers(again, toy), answers(frozen, toy))


def test_groups_are_left_in_float_where_that_is_measured_to_be_better(trained, toy):
    torch.manual_seed(0)
    with torch.no_grad():  # a channel far above the others, which carries the answer: binary weights lose it
        trained.output.weight.copy_(
            torch.randn_like(trained.output.weight)
            * torch.logspace(-3, 1, trained.output.in_channels).view(1, -1, 1, 1)
        )
    labeled = [(images, answers_of(trained, images)) for images, _ in toy.dev]
    context = dataclasses.replace(toy, dev=labeled)
    plan = Quantize(scheme="binary", spare=("first", "last")).plan(trained, context)
    assert "output" not in plan.schemes
    assert plan.kept["output"] == "better so on the dev split (last)"
    assert Quantize(scheme="int8", spare=("first", "last", "depthwise")).plan(trained, context).kept == {}


def test_groups_are_judged_with_the_biases_that_will_ship(trained, toy):
    said = []
    Quantize(scheme="int3", spare=("first",)).plan(trained, dataclasses.replace(toy, log=said.append))
    shipped = mean_loss(Quantize(scheme="int3")(trained, toy), toy.dev)
    blind = mean_loss(Quantize(scheme="int3", correct_bias=False)(trained, toy), toy.dev)
    assert said[-1].endswith(f"quantized {shipped:.4f}")
    assert f"{shipped:.4f}" != f"{blind:.4f}"


def answers_of(net, images):
    with torch.no_grad():
        return net(images).argmax(1)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (lambda: Quantize(scheme="int9"), r"no scheme 'int9'"),
        (lambda: Quantize(scheme="int4", lower=("int8",), bytes="50%"), r"ever fewer bits than int4, got int8"),
        (lambda: Quantize(lower=("int4",)), r"go together, got lower=\('int4',\), bytes=None, f1_drop=None"),
        (lambda: Quantize(bytes="50%"), r"go together"),
        (lambda: Quantize(bytes="50%", f1_drop=0.1), r"go together"),
        (lambda: Quantize(lower=("int4",), bytes=-1), r"bytes must be a share .*, got -1"),
        (lambda: Quantize(activations=1), r"activations must be 2 to 8 bits, or 0 for float, got 1"),
        (lambda: Quantize(images=0), r"images must be at least 1, got 0"),
        (lambda: Quantize(observer="guess"), r"observer must be one of minmax, .*dynamic, got 'guess'"),
        (lambda: Quantize(observer="dynamic"), r"observer='dynamic' is for inputs.*give activations=8"),
        (lambda: Quantize(other_dtype="int8"), r"other_dtype must be one of float32, .*got 'int8'"),
        (lambda: Quantize(spare=("middle",)), r"spare may name first, last, depthwise, got 'middle'"),
        (lambda: Quantize(cross_layer_equalize=True), r"equalize needs fold_norms=True"),
        (lambda: Quantize(scheme="float16", qat=True), r"qat is for grids of 8 bits and fewer, got float16"),
        (lambda: Quantize(qat=True, other_dtype="float16"), r"give other_dtype='float16' to Convert"),
        (lambda: Convert(other_dtype="int8"), r"other_dtype must be one of"),
    ],
)
def test_settings_that_make_no_sense_are_refused(step, message):
    with pytest.raises(InputError, match=message):
        step()


def test_nothing_to_do_is_refused(small_net, toy):
    with pytest.raises(InputError, match="nothing can be quantized: protected"):
        Quantize(protect=("*",)).plan(small_net, toy)
    with pytest.raises(InputError, match=r"nothing to convert.*Quantize\(qat=True\) first"):
        Convert().plan(small_net, toy)


def test_a_plan_for_another_net_is_refused(small_net, toy):
    other = ShuffleNet(units=(1, 1, 1), width=0.1).build(num_classes=3)
    with pytest.raises(InputError, match="made for another net: there is no layer"):
        Quantize().plan(small_net, toy).apply(other)
    with pytest.raises(InputError, match="made for another net: features is a Sequential"):
        QuantizePlan(schemes={"features": "int8"}).apply(small_net)
    with pytest.raises(InputError, match="output has no grid that trains"):
        ConvertPlan(schemes={"output": "int8"}).apply(small_net)
    with pytest.raises(InputError, match="output is no batch norm"):
        QuantizePlan(schemes={}, folded={"output": "features.init_block.conv"}).apply(small_net)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize(
    ("step", "tolerance"),
    [
        (Quantize(scheme="int8"), 0.02),
        (Quantize(scheme="int8", activations=8), 0.03),
        (Quantize(scheme="int8", activations=8, observer="dynamic", fold_norms=True, cross_layer_equalize=True), 0.03),
        (Quantize(scheme="int4", qat=True), 0.3),
        (Quantize(scheme="bfloat16"), 0.02),
    ],
)
def test_nets_in_other_precisions_keep_theirs(small_net, toy, dtype, step, tolerance):
    net = copy.deepcopy(small_net).to(dtype)
    x = toy.example.to(dtype)
    made = step(net, toy).eval()
    assert made(x).dtype is dtype
    expected = small_net(toy.example)
    assert float((made(x).float() - expected).norm() / expected.norm()) < tolerance
