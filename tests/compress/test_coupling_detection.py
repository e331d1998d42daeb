"""Channel pruning of detectors and segmenters of other libraries: masked equals sliced, and everything still runs."""

import copy
import json
from importlib.util import find_spec

import pytest
import torch
from torch import nn

from solution.compress.channels.step import PruneChannels
from solution.compress.coupling.analysis import TraceRequest, analyze
from solution.compress.coupling.equality import compare, mask, randomize
from solution.compress.coupling.plan import ChannelPlan
from solution.compress.coupling.sizes import classes_of
from solution.compress.coupling.stored import in_proportion, linked_atoms
from solution.contracts import InputError, StepContext
from solution.models.yolo import ultralytics_net

needs_ultralytics = pytest.mark.skipif(find_spec("ultralytics") is None, reason="extra detection is not installed")


def images(height, width, count=1):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(height))


def torchvision_net(name, **settings):
    import torchvision.models

    nothing = {"weights": None, "weights_backbone": None}
    torch.manual_seed(0)
    kind = torchvision.models.segmentation if hasattr(torchvision.models.segmentation, name) else None
    return getattr(kind or torchvision.models.detection, name)(**nothing, **settings)


def yolo(name):
    torch.manual_seed(0)
    return ultralytics_net(name)


def fraction(plan):
    before, after = plan.saves["macs"]
    return after / before


def assert_equal_at_two_sizes(net, ratio, size=64, error=1e-10):
    """The plan at `ratio`, after comparing its cut with the masked net at the size it was made for and another one."""
    net, example = randomize(net.eval()), images(size, size)
    plan = PruneChannels(ratio=ratio, importance="random").plan(net, StepContext(example=example))
    full = analyze(TraceRequest(model=net, example=example))
    for picture in (example, images(size + 32, size)):
        found = compare(net, plan, full, picture)
        assert found.error < error
        assert found.moved > 1e-3
    assert fraction(plan) <= 1 - ratio / 2
    return plan


def shapes(output):
    return [tuple(leaf.shape) for leaf in torch.utils._pytree.tree_leaves(output) if isinstance(leaf, torch.Tensor)]


def assert_trains_alike(net, plan, size=64):
    """In training mode the cut net returns maps of the full net's shapes, and learns."""
    batch = images(size, size, count=2)
    cut = plan.apply(net).train()
    output = cut(batch)
    assert shapes(output) == shapes(copy.deepcopy(net).train()(batch))
    sum(leaf.float().square().mean() for leaf in torch.utils._pytree.tree_leaves(output)).backward()
    assert all(weight.grad is not None for name, weight in cut.named_parameters() if weight.requires_grad)


@needs_ultralytics
def test_yolov8n():
    net = yolo("yolov8n")
    before, modules = copy.deepcopy(randomize(net.eval()).state_dict()), str(net)
    plan = assert_equal_at_two_sizes(net, 0.5)
    assert 0.25 < fraction(plan) < 0.42
    assert str(net) == modules
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert_trains_alike(net, plan)
    assert [type(module) for module in plan.apply(net).modules()] == [type(module) for module in net.modules()]
    fresh = ChannelPlan.from_fields(json.loads(json.dumps(plan.to_fields()))).apply(yolo("yolov8n")).eval()
    cut = plan.apply(net)
    fresh.load_state_dict(cut.state_dict())
    assert torch.equal(fresh(images(64, 96))[0], cut(images(64, 96))[0])


@needs_ultralytics
def test_attention_of_yolo11n_loses_a_head_and_as_much_of_the_stream():
    net = yolo("yolo11n")
    plan = assert_equal_at_two_sizes(net, 0.5)
    block = plan.apply(net).model[10]
    assert (block.c, block.m[0].attn.num_heads, block.m[0].attn.head_dim) == (64, 1, 64)
    assert_trains_alike(net, plan)


@needs_ultralytics
def test_halves_and_heads_keep_one_proportion():
    net = yolo("yolo11n").eval()
    coupling = analyze(TraceRequest(model=net, example=images(64, 64))).coupling
    sizes = classes_of(coupling).atom_sizes()
    attended = next(atoms for atoms in linked_atoms(net, coupling) if 2 in {sizes[atom] for atom in atoms})
    assert sorted(sizes[atom] for atom in attended) == [2, 128, 128]
    stay = dict.fromkeys(sizes, 0)
    wanted = in_proportion({atom: round(0.3 * sizes[atom]) for atom in attended}, sizes, stay, [attended])
    assert sorted(wanted.values()) == [1, 64, 64]


@needs_ultralytics
def test_outputs_that_do_not_matter_free_their_channels():
    net, example = yolo("yolov8n").eval(), StepContext(example=images(64, 64))
    every = PruneChannels(ratio=0.5).plan(net, example)
    decoded = PruneChannels(ratio=0.5, outputs=(0,)).plan(net, example)
    assert fraction(decoded) < fraction(every) - 0.03
    assert decoded.apply(net).eval()(images(64, 64))[0].shape == (1, 84, 84)


@needs_ultralytics
@pytest.mark.slow
@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.75])
@pytest.mark.parametrize(
    "name", ["yolov8n", "yolov5n", "yolo11n", "yolov8s", "yolov10n", "yolov8n-seg", "yolov8n-pose"]
)
def test_more_of_ultralytics(name, ratio):
    net = yolo(name)
    plan = assert_equal_at_two_sizes(net, ratio)
    assert_trains_alike(net, plan)


@pytest.mark.parametrize("name", ["lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large"])
def test_segmentation(name):
    net = torchvision_net(name)
    plan = assert_equal_at_two_sizes(net, 0.5)
    assert plan.apply(net).eval()(images(96, 64))["out"].shape == (1, 21, 96, 64)
    assert_trains_alike(net, plan)


SEGMENTERS = ["lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large", "deeplabv3_resnet50", "fcn_resnet50"]


@pytest.mark.slow
@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.75])
@pytest.mark.parametrize("name", SEGMENTERS)
def test_more_segmentation(name, ratio):
    net = torchvision_net(name, **({} if name.startswith("lraspp") else {"aux_loss": True}))
    plan = assert_equal_at_two_sizes(net, ratio)
    assert_trains_alike(net, plan)


BACKBONES = ["ssdlite320_mobilenet_v3_large", "fasterrcnn_mobilenet_v3_large_320_fpn"]


def assert_detector_runs_on_a_cut_backbone(name, ratio):
    detector = torchvision_net(name)
    plan = assert_equal_at_two_sizes(detector.backbone, ratio)
    full = shapes(detector.backbone(images(64, 64)))
    detector.backbone = plan.apply(detector.backbone)
    assert shapes(detector.backbone(images(64, 64))) == full
    with torch.no_grad():
        (found,) = detector.eval()(images(64, 64))
    assert set(found) == {"boxes", "labels", "scores"}


@pytest.mark.parametrize("name", BACKBONES)
def test_backbone(name):
    assert_detector_runs_on_a_cut_backbone(name, 0.5)


@pytest.mark.slow
@pytest.mark.parametrize("ratio", [0.25, 0.75])
@pytest.mark.parametrize("name", BACKBONES)
def test_backbone_at_other_ratios(name, ratio):
    assert_detector_runs_on_a_cut_backbone(name, ratio)


def heard(detector, part, picture):
    """What the module `part` returns while the whole detector runs."""
    outputs = []
    handle = detector.get_submodule(part).register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    with torch.no_grad():
        detector(picture)
    handle.remove()
    return torch.utils._pytree.tree_leaves(outputs)


def assert_whole_detector(name, parts, ratio):
    """Raw outputs of the heads agree (what is picked from them may change order where scores tie); it still trains."""
    net, example = randomize(torchvision_net(name).eval()), images(96, 96)
    plan = PruneChannels(ratio=ratio, importance="random").plan(net, StepContext(example=example))
    cut, whole = plan.apply(net).double(), copy.deepcopy(net).double()
    masked = mask(copy.deepcopy(whole), cut, plan, analyze(TraceRequest(model=net, example=example)))
    for part in parts:
        sliced, full, hidden = (heard(one, part, example.double()) for one in (cut, whole, masked))
        assert all(torch.allclose(a, b, rtol=1e-10, atol=1e-12) for a, b in zip(sliced, hidden, strict=True))
        assert not any(torch.allclose(a, b, rtol=1e-3) for a, b in zip(sliced, full, strict=True) if a.shape == b.shape)
    assert fraction(plan) <= 1 - ratio / 2
    target = {"boxes": torch.tensor([[5.0, 5.0, 50.0, 50.0]]), "labels": torch.tensor([1])}
    losses = plan.apply(net).train()(list(images(96, 96, count=2)), [target, target])
    assert all(torch.isfinite(loss) for loss in losses.values())


@pytest.mark.long
def test_whole_ssdlite():
    assert_whole_detector("ssdlite320_mobilenet_v3_large", ["head"], 0.5)


DETECTORS = {
    "ssdlite320_mobilenet_v3_large": ["head"],
    "fasterrcnn_mobilenet_v3_large_320_fpn": ["rpn.head", "roi_heads.box_predictor"],
    "retinanet_resnet50_fpn": ["head"],
    "fcos_resnet50_fpn": ["head"],
}


@pytest.mark.slow
@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.75])
@pytest.mark.parametrize("name", DETECTORS)
def test_more_whole_detectors(name, ratio):
    assert_whole_detector(name, DETECTORS[name], ratio)


class Toy(nn.Module):
    """Two convolutions, and between them what a test is about."""

    def __init__(self, between, width=8):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, 4, 3, padding=1)
        self.between = between
        self.strides = torch.tensor([2.0, 4.0, 8.0])  # neither a parameter nor a buffer

    def forward(self, x):
        return self.last(self.between(self, self.first(x)))


def stride_as_a_number(net, x):
    return x / x.new_full((1,), net.strides[1])


def rows_written_by_index(net, x):
    blank = torch.zeros(2, *x.shape[1:], dtype=x.dtype)
    blank[torch.where(blank[:, 0, 0, 0] >= 0)[0]] = x.expand(2, -1, -1, -1)
    return blank[:1]


def chosen_by_a_mask(net, x):
    rows = x.flatten(2).transpose(1, 2)[0]  # (positions, C)
    return rows[rows[:, 0] > -1e9].t().reshape(1, rows.shape[1], -1, 1)


def one_attention_head(net, x):
    tokens = x.flatten(2).unsqueeze(1)  # (B, 1, C, positions)
    return (tokens @ (tokens.transpose(-2, -1) @ tokens).softmax(-1)).view(x.shape)


def counted(net, x):
    return x + torch.arange(x.shape[1]).view(1, -1, 1, 1)


@pytest.mark.parametrize("between", [stride_as_a_number, rows_written_by_index, chosen_by_a_mask, one_attention_head])
def test_forwards_that_look_at_values(between):
    net = randomize(Toy(between).eval())
    plan = PruneChannels(ratio=0.5).plan(net, StepContext(example=images(8, 8)))
    found = compare(net, plan, analyze(TraceRequest(model=net, example=images(8, 8))), images(8, 8))
    assert found.error < 1e-10
    assert found.moved > 1e-3
    assert plan.apply(net).first.out_channels == 4


@pytest.mark.parametrize("between", [counted])
def test_what_cannot_be_cut_stays(between):
    with pytest.raises(InputError, match="nothing would be cut"):
        PruneChannels(ratio=0.5).plan(Toy(between).eval(), StepContext(example=images(8, 8)))
