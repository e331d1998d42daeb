import pytest
import torch

from solution.contracts import InputError, origin_of
from solution.models.classifiers import Classifier


@pytest.mark.parametrize(
    "name", ["timm:lcnet_035", "torchvision:shufflenet_v2_x0_5", "torchvision:googlenet", "pytorchcv:shufflenet_g3_wd4"]
)
def test_a_classifier_of_each_library_has_the_asked_number_of_outputs(name):
    net = Classifier(name=name).build(num_classes=7).eval()
    assert net(torch.zeros(2, 3, 224, 224)).shape == (2, 7)
    assert origin_of(net).settings == Classifier(name=name)


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
