"""Detectors as nets like any other: one tensor in, one out, a loss, a checkpoint, channels that can go."""

import copy
from importlib.util import find_spec

import pytest
import torch

from solution import checkpoint
from solution.compress.channels.step import PruneChannels
from solution.compress.coupling.analysis import TraceRequest, analyze
from solution.compress.coupling.equality import compare, randomize
from solution.contracts import DETECTION, InputError, StepContext, task_of
from solution.models import ssdlite
from solution.models.ssdlite import SsdLite, SsdNet
from solution.models.weights import OWN
from solution.models.yolo import Yolo, cells

needs_ultralytics = pytest.mark.skipif(find_spec("ultralytics") is None, reason="extra detection is not installed")
EACH = [pytest.param(Yolo(), marks=needs_ultralytics, id="yolo"), pytest.param(SsdLite(), id="ssdlite")]
TARGETS = torch.tensor([[0.0, 1, 10, 10, 40, 50], [1, 0, 30, 20, 60, 60], [1, 2, 5, 5, 25, 30]])


@pytest.fixture(scope="module")
def made():
    """Settings -> the net, made once."""
    nets = {}

    def make(settings):
        if settings not in nets:
            torch.manual_seed(0)
            nets[settings] = settings.build(3).eval()
        return copy.deepcopy(nets[settings])

    return make


@pytest.mark.parametrize("settings", EACH)
def test_candidates_are_corners_and_scores(settings, made):
    with torch.no_grad():
        found = made(settings)(torch.rand(2, 3, 64, 64))
    assert found.shape[:2] == (2, 4 + 3)
    corners, scores = found[:, :4], found[:, 4:]
    assert (corners[:, 2:] > corners[:, :2]).all()
    assert (scores >= 0).all()
    assert (scores <= 1).all()
    assert task_of(settings) == DETECTION


@pytest.mark.parametrize("settings", EACH)
def test_a_few_steps_lower_the_loss(settings, made):
    net, images = made(settings).train(), torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.005, momentum=0.9)
    losses = []
    for _ in range(6):
        loss = net.loss(images, TARGETS)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert min(losses[3:]) < losses[0]


@pytest.mark.parametrize("settings", EACH)
def test_pictures_without_boxes_teach_too(settings, made):
    assert torch.isfinite(made(settings).train().loss(torch.rand(2, 3, 64, 64), TARGETS[:0]))


@needs_ultralytics
def test_channels_go_and_the_answer_is_that_of_the_masked_net(made):
    net, example = randomize(made(Yolo())), torch.rand(1, 3, 64, 64)
    plan = PruneChannels(ratio=0.5, importance="random").plan(net, StepContext(example=example))
    before, after = plan.saves["macs"]
    assert after < 0.5 * before
    found = compare(net, plan, analyze(TraceRequest(model=net, example=example)), example)
    assert found.error < 1e-9
    cut = plan.apply(net)
    assert cut.eval()(example).shape == net.eval()(example).shape
    assert torch.isfinite(cut.train().loss(torch.rand(2, 3, 64, 64), TARGETS))


@pytest.mark.parametrize("settings", EACH)
def test_a_checkpoint_gives_the_same_answers(settings, made, tmp_path):
    net, images = made(settings), torch.rand(1, 3, 64, 64)
    header = checkpoint.header_of(net, classes=("a", "b", "c"), mean=(0.0,) * 3, std=(1.0,) * 3, size=64)
    checkpoint.save(tmp_path / "net.safetensors", net, header)
    again, read = checkpoint.load(tmp_path / "net.safetensors")
    assert read.spec.settings == settings
    assert torch.equal(again(images), net(images))


@needs_ultralytics
def test_yolos_corners_are_those_of_ultralytics():
    from solution.models.yolo import ultralytics_net

    torch.manual_seed(0)
    theirs = ultralytics_net("yolov8n", num_classes=3).eval()
    state, images = theirs.state_dict(), torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        expected = theirs(images)[0]  # (1, 4 + 3, N), center and sides
        net = Yolo(fused=False).build(3).eval()
        net.net.load_state_dict({name: value for name, value in state.items() if ".dfl." not in name})
        found = net(images)
    centers, sides = (found[:, 2:4] + found[:, :2]) / 2, found[:, 2:4] - found[:, :2]
    assert torch.allclose(torch.cat([centers, sides, found[:, 4:]], 1), expected, atol=1e-3)


@needs_ultralytics
def test_folded_norms_change_nothing_and_weights_are_read_from_a_file(tmp_path):
    from safetensors.torch import save_file

    torch.manual_seed(0)
    net = Yolo().build(3).eval()
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in net.modules())
    torch.manual_seed(0)
    plain = Yolo(fused=False).build(3).eval()
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(net(images), plain(images), atol=1e-3)
    path = tmp_path / "own.safetensors"
    save_file({name: value.half().contiguous() for name, value in net.net.state_dict().items()}, path)
    again = Yolo(weights=str(path)).build(3).eval()
    with torch.no_grad():
        assert torch.allclose(again(images)[:, 4:], net(images)[:, 4:], atol=1e-2)
    with pytest.raises(InputError, match="its weights are of another net"):
        Yolo(weights=str(path)).build(4)
    with pytest.raises(InputError, match="there are no weights at nowhere"):
        Yolo(weights="nowhere.safetensors").build(3)
    with pytest.raises(InputError, match="has a head of another kind"):
        Yolo(name="yolov10n").build(3)


def test_ssdlite_keeps_the_classes_that_have_pictures(tmp_path, monkeypatch):
    from safetensors.torch import save_file
    from torchvision.models.detection import ssdlite320_mobilenet_v3_large

    torch.manual_seed(0)
    whole = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=91).eval()
    path, images = tmp_path / "theirs.safetensors", torch.rand(1, 3, 320, 320)
    save_file(whole.state_dict(), path)
    numbers = ssdlite.known()
    assert len(numbers) == 81
    assert not {0, 12, 26, 91} & set(numbers[1:])  # "nothing here", and holes in COCO's numbering
    with torch.no_grad():
        theirs = SsdNet(whole).eval()(images)[:, 4:]  # (1, 90, N), of which ten are of no class
        nothing = 1 - theirs.sum(1, keepdim=True)
        theirs = theirs[:, [number - 1 for number in numbers[1:]]]
        found = SsdLite(weights=str(path)).build(80).eval()(images)[:, 4:]
        assert torch.allclose(found, theirs / (theirs.sum(1, keepdim=True) + nothing), atol=1e-6)
        monkeypatch.setattr(ssdlite, "_downloaded", whole.state_dict)
        assert torch.equal(SsdLite(weights=OWN).build(80).eval()(images)[:, 4:], found)
    with pytest.raises(InputError, match="knows COCO's 80 classes, the data have 3: leave weights empty"):
        SsdLite(weights=str(path)).build(3)


def test_weights_that_cannot_be_downloaded_are_asked_for(monkeypatch):
    from torchvision.models.detection import SSDLite320_MobileNet_V3_Large_Weights

    def offline(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(SSDLite320_MobileNet_V3_Large_Weights, "get_state_dict", offline)
    with pytest.raises(InputError, match=r"could not be had \(no route to host\): name a .safetensors file"):
        SsdLite(weights=OWN).build(80)


def test_cells_lie_in_rows():
    centers, strides = cells([(1, 2), (1, 1)], (8, 16), torch.zeros(1))
    assert centers.tolist() == [[0.5, 1.5, 0.5], [0.5, 0.5, 0.5]]
    assert strides.tolist() == [8, 8, 16]
