"""Any classifier of timm, torchvision or pytorchcv, by name: ``Classifier(name="timm:lcnet_050")``."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from solution.contracts import InputError, Origin, remember
from solution.models.taps import classifier_path, replace


def _timm(name: str, pretrained: bool, num_classes: int) -> nn.Module:
    import timm

    _check(name, timm.list_models(), "timm")
    return timm.create_model(name, pretrained=pretrained, num_classes=num_classes)


def _torchvision(name: str, pretrained: bool, num_classes: int) -> nn.Module:
    import torchvision

    _check(name, torchvision.models.list_models(module=torchvision.models), "torchvision")
    # Its GoogLeNet and Inception otherwise warn of a slow initialisation and train auxiliary heads.
    extra = {"aux_logits": False, "init_weights": True} if name in ("googlenet", "inception_v3") else {}
    if not pretrained:
        return torchvision.models.get_model(name, num_classes=num_classes, **extra)
    net = torchvision.models.get_model(name, weights="DEFAULT")
    return _replace_head(net, num_classes)


def _pytorchcv(name: str, pretrained: bool, num_classes: int) -> nn.Module:
    from pytorchcv.model_provider import get_model

    try:
        if not pretrained:
            return get_model(name, num_classes=num_classes)
        return _replace_head(get_model(name, pretrained=True), num_classes)
    except ValueError as error:
        raise InputError(f"pytorchcv has no model called {name!r}: {error}") from error
    except AssertionError as error:  # its CIFAR and SVHN nets insist on their own number of classes
        raise InputError(f"pytorchcv's {name} cannot be built for {num_classes} classes") from error


def _check(name: str, known: list[str], library: str) -> None:
    if name not in known:
        import difflib

        close = difflib.get_close_matches(name, known, n=5, cutoff=0.4)
        raise InputError(f"{library} has no classifier called {name!r}; close to it: {', '.join(close) or 'nothing'}")


def _replace_head(net: nn.Module, num_classes: int) -> nn.Module:
    path = classifier_path(net)
    last = net.get_submodule(path)
    has_bias = last.bias is not None
    if isinstance(last, nn.Linear):
        replace(net, path, nn.Linear(last.in_features, num_classes, bias=has_bias))
    else:
        replace(net, path, nn.Conv2d(last.in_channels, num_classes, 1, bias=has_bias))
    return net


LIBRARIES: dict[str, Callable[[str, bool, int], nn.Module]] = {
    "timm": _timm,
    "torchvision": _torchvision,
    "pytorchcv": _pytorchcv,
}


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """Settings of a classifier by name.

    name        "library:model", library being timm, torchvision or pytorchcv
    pretrained  start from the library's published weights (downloaded on the user's machine)
    """

    name: str
    pretrained: bool = False

    def __post_init__(self) -> None:
        library, _, model = self.name.partition(":")
        if library not in LIBRARIES or not model:
            raise InputError(f'name must be "library:model" with library one of {sorted(LIBRARIES)}, got {self.name!r}')

    def build(self, num_classes: int) -> nn.Module:
        """The net with `num_classes` outputs. `InputError` when the library does not know the name."""
        library, _, model = self.name.partition(":")
        net = LIBRARIES[library](model, self.pretrained, num_classes)
        # A rebuilt net gets its weights from the checkpoint: it must not download them again.
        settings = dataclasses.replace(self, pretrained=False)
        return remember(net, Origin(settings=settings, num_classes=num_classes))
