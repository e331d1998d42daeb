import copy

import pytest
import torch
from safetensors.torch import save_file

from solution import checkpoint
from solution.contracts import InputError, spec_of
from solution.models.classifiers import Classifier, pool
from solution.models.weights import OWN


@pytest.mark.parametrize(
    "name", ["timm:lcnet_035", "torchvision:shufflenet_v2_x0_5", "torchvision:googlenet", "pytorchcv:shufflenet_g3_wd4"]
)
def test_a_classifier_of_each_library_has_the_asked_number_of_outputs(name):
    net = Classifier(name=name).build(num_classes=7).eval()
    for side in (224, 48, 256):
        assert net(torch.zeros(2, 3, side, side)).shape == (2, 7)
    assert spec_of(net).settings == Classifier(name=name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lcnet_050", "library:model"),
        ("keras:lcnet", "keras"),
        ("timm:lcnet_51", "lcnet_050"),
        ("torchvision:resnet19", "resnet18"),
        ("pytorchcv:shufflenet", "shufflenet"),
        ("torchvision:fcn_resnet50", "no classifier"),
    ],
)
def test_unknown_names_get_an_error_that_helps(name, message):
    with pytest.raises(InputError, match=message):
        Classifier(name=name).build(num_classes=2)


def test_a_head_that_sees_one_pixel_once_says_what_it_said_of_its_copies():
    torch.manual_seed(0)
    net = Classifier(name="torchvision:alexnet").build(num_classes=5).eval()
    pooled = pool(copy.deepcopy(net), 1).eval()
    images = torch.randn(2, 3, 64, 64)
    assert net.features(images).shape[2:] == (1, 1)
    with torch.no_grad():
        torch.testing.assert_close(pooled(images), net(images), rtol=1e-4, atol=1e-6)
    assert pooled.classifier[1].in_features * 36 == net.classifier[1].in_features
    assert pool(net, 2).classifier[1].in_features == 256 * 4


@pytest.mark.parametrize(
    ("name", "side", "message"),
    [
        ("torchvision:alexnet", 4, "pooled must divide 6, the side of the map"),
        ("torchvision:shufflenet_v2_x0_5", 1, "ShuffleNetV2 has no such classifier"),
        ("torchvision:alexnet", -1, "pooled must be 0 or the side of a map, got -1"),
    ],
)
def test_other_heads_are_refused(name, side, message):
    with pytest.raises(InputError, match=message):
        Classifier(name=name, pooled=side).build(num_classes=2)


@pytest.fixture
def published(tmp_path):
    """The file of an 11-class net, and its tensors."""
    torch.manual_seed(1)
    state = Classifier(name="timm:lcnet_035").build(num_classes=11).state_dict()
    save_file(state, tmp_path / "published.safetensors")
    return tmp_path / "published.safetensors", state


def test_weights_of_a_file_fill_all_but_the_classifier(published, tmp_path):
    path, state = published
    torch.manual_seed(2)
    net = Classifier(name="timm:lcnet_035", weights=str(path)).build(num_classes=3).eval()
    own = net.state_dict()
    assert own["classifier.weight"].shape == (3, 1280)
    trunk = [name for name in state if not name.startswith("classifier.")]
    assert len(trunk) == len(state) - 2
    assert all(torch.equal(own[name], state[name]) for name in trunk)

    header = {"classes": ("a", "b", "c"), "mean": (0.5,) * 3, "std": (0.5,) * 3, "size": 32}
    checkpoint.save(tmp_path / "net.safetensors", net, checkpoint.header_of(net, **header))
    path.unlink()  # a checkpoint has weights of its own
    again, _ = checkpoint.load(tmp_path / "net.safetensors")
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(again(images), net(images))


def test_weights_of_another_net_or_of_no_file_are_refused(published, tmp_path):
    path, _ = published
    with pytest.raises(InputError, match=r"published\.safetensors: its weights are of another net"):
        Classifier(name="timm:lcnet_050", weights=str(path)).build(num_classes=3)
    with pytest.raises(InputError, match=r"there are no weights at .*missing\.safetensors"):
        Classifier(name="timm:lcnet_035", weights=str(tmp_path / "missing.safetensors")).build(num_classes=3)
    with pytest.raises(InputError, match=r"weights=.* without it"):
        Classifier(name="timm:lcnet_035", weights=str(path), pretrained=True)


def test_own_weights_are_those_of_the_library(monkeypatch):
    asked = []

    def create(name, pretrained, num_classes):
        asked.append(pretrained)
        return torch.nn.Linear(2, num_classes)

    monkeypatch.setattr("timm.create_model", create)
    Classifier(name="timm:lcnet_035", weights=OWN).build(num_classes=3)
    Classifier(name="timm:lcnet_035").build(num_classes=3)
    assert asked == [True, False]
