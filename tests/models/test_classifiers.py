import copy

import pytest
import torch

from solution.contracts import InputError, spec_of
from solution.models.classifiers import Classifier, pool


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
