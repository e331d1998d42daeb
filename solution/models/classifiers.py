"""Any classifier of timm, torchvision or pytorchcv, by name: ``Classifier(name="timm:lcnet_050")``; and how a net of
elsewhere wants its pictures: what timm, torchvision and Hugging Face say of their weights, as fields of `InputSpec`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from solution.contracts import InputError, ModelSpec, Plan, remember
from solution.input_spec import IMAGENET_MEAN, IMAGENET_STD
from solution.models.outputs import classifier_path, replace
from solution.models.weights import OWN, fill, read_state
from solution.text import closest

_CIFAR = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2023, 0.1994, 0.2010), "size": 32}
_PIL = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
"""Hugging Face numbers Pillow's filters."""


def fed_as_timm(config: Mapping[str, Any]) -> dict[str, Any]:
    """Of a ``pretrained_cfg``, resolved by timm's own rules."""
    from timm.data import resolve_data_config

    found = resolve_data_config(pretrained_cfg=dict(config), verbose=False)
    way = found["interpolation"] if found["interpolation"] in _PIL.values() else "bicubic"
    whole = found["crop_mode"] == "squash"
    return {"mean": tuple(found["mean"]), "std": tuple(found["std"]), "size": found["input_size"][-1],
            "interpolation": way, "crop": 0.0 if whole else float(found["crop_pct"])}  # fmt: skip


def fed_as_torchvision(name: str) -> dict[str, Any]:
    """Of the newest weights' own transforms."""
    from torchvision.models import get_model_weights

    weights = list(get_model_weights(name))
    if not weights:
        return {}
    preset = weights[-1].transforms()
    size, before = preset.crop_size[0], preset.resize_size[0]
    return {"mean": tuple(preset.mean), "std": tuple(preset.std), "size": size, "crop": size / before,
            "interpolation": preset.interpolation.value}  # fmt: skip


def fed_as_pytorchcv(name: str) -> dict[str, Any]:
    """By the library's two kinds of nets: for CIFAR and SVHN, and for ImageNet."""
    if "cifar" in name or "svhn" in name:
        return dict(_CIFAR)
    return {"mean": IMAGENET_MEAN, "std": IMAGENET_STD, "size": 224, "crop": 0.875, "interpolation": "bilinear"}


def fed_as_preprocessor(path: Path) -> tuple[dict[str, Any], bool]:
    """Of Hugging Face's preprocessor_config.json, and whether the net wants BGR."""
    config = read_json(path)
    scale = float(config.get("rescale_factor", 1 / 255)) * 255 if config.get("do_rescale", True) else 255.0
    plain = not config.get("do_normalize", True)
    mean = [0.0] * 3 if plain else config.get("image_mean", IMAGENET_MEAN)
    std = [1.0] * 3 if plain else config.get("image_std", IMAGENET_STD)
    size, crop = _sides(config)
    return {"mean": tuple(value / scale for value in mean), "std": tuple(value / scale for value in std),
            "size": size, "crop": crop, "interpolation": _PIL.get(config.get("resample", 2), "bilinear")}, bool(
        config.get("do_flip_channel_order")
    )  # fmt: skip


def _sides(config: Mapping[str, Any]) -> tuple[int, float]:
    """Side of the input, and the share of the shorter side that the crop keeps; 0 where the whole is stretched."""
    size = config.get("size", 224)
    size = size if isinstance(size, Mapping) else {"shortest_edge": size}
    short = size.get("shortest_edge") or size.get("height", 224)
    stretched = "height" in size
    if config.get("do_center_crop"):
        crop = config.get("crop_size", short)
        side = crop.get("height", short) if isinstance(crop, Mapping) else crop
        return int(side), side / short
    if "crop_pct" in config and config["crop_pct"] and short < 384:  # ConvNeXT's processor
        return int(short), float(config["crop_pct"])
    return int(short), 0.0 if stretched else 1.0


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. `InputError` when it holds none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as JSON ({error}): copy the folder again") from error
    if not isinstance(found, dict):
        raise InputError(f"{path} holds no JSON object: copy the folder again")
    return found


def _timm(name: str, pretrained: bool, num_classes: int) -> nn.Module:
    import timm

    return timm.create_model(name, pretrained=pretrained, num_classes=num_classes)


def _torchvision(name: str, pretrained: bool, num_classes: int) -> nn.Module:
    import torchvision

    # Its GoogLeNet and Inception otherwise warn of a slow initialization and train auxiliary heads.
    extra = {"aux_logits": False, "init_weights": True} if name in ("googlenet", "inception_v3") else {}
    if not pretrained:
        return torchvision.models.get_model(name, num_classes=num_classes, **extra)
    net = torchvision.models.get_model(name, weights="DEFAULT")
    return replace_classifier(net, num_classes)


def _pytorchcv(name: str, pretrained: bool, num_classes: int) -> nn.Module:
    from pytorchcv.model_provider import get_model

    try:
        if not pretrained:
            return _for_any_side(get_model(name, num_classes=num_classes))
        return _for_any_side(replace_classifier(get_model(name, pretrained=True), num_classes))
    except ValueError as error:
        raise InputError(f"pytorchcv has no model called {name!r}: {error}") from error
    except AssertionError as error:  # its CIFAR and SVHN nets insist on their own number of classes
        raise InputError(f"pytorchcv's {name} cannot be built for {num_classes} classes") from error


def _for_any_side(net: nn.Module) -> nn.Module:
    """Let the last pooling of a net made for one side of input take the whole map at any; returns the net."""
    path = "features.final_pool"
    if isinstance(dict(net.named_modules()).get(path), nn.AvgPool2d):
        replace(net, path, nn.AdaptiveAvgPool2d(1))
    return net


def check_listed(name: str) -> None:
    """`InputError` with close names unless the library itself lists "library:model". Nothing is built."""
    library, _, model = name.partition(":")
    if library == "timm":
        import timm

        bare, _, tag = model.partition(".")
        _check(bare, timm.list_models(), library)
        if tag:
            _check(model, timm.list_models(f"{bare}*", pretrained=True), library)
    elif library == "torchvision":
        import torchvision

        _check(model, torchvision.models.list_models(module=torchvision.models), library)


def _check(name: str, known: list[str], library: str) -> None:
    if name not in known:
        close = ", ".join(closest(name, known, 5, 0.4)) or "nothing"
        raise InputError(f"{library} has no classifier called {name!r}; close to it: {close}")


def replace_classifier(net: nn.Module, num_classes: int) -> nn.Module:
    """Put a fresh classifier for `num_classes` in place of that of `net`, and return the net."""
    path = classifier_path(net)
    last: Any = net.get_submodule(path)
    has_bias = last.bias is not None
    if isinstance(last, nn.Linear):
        replace(net, path, nn.Linear(last.in_features, num_classes, bias=has_bias))
    else:
        replace(net, path, nn.Conv2d(last.in_channels, num_classes, 1, bias=has_bias))
    return net


@dataclass(frozen=True, kw_only=True)
class HeadPlan(Plan):
    """A fresh classifier for `num_classes` in place of one for `before`."""

    kind: ClassVar[str] = "head"
    num_classes: int
    before: int

    def cut(self, model: nn.Module) -> nn.Module:
        """Replace it in place."""
        return replace_classifier(model, self.num_classes)

    def __str__(self) -> str:
        return f"a fresh classifier for {self.num_classes} classes in place of one for {self.before}"


def fill_trunk(net: nn.Module, path: Path, num_classes: int) -> nn.Module:
    """Put the weights of the file at `path` into all of `net` but a fresh classifier, and return the net.

    `InputError` when they are another net's.
    """
    replace_classifier(net, num_classes)  # a library's own may begin with large weights
    head = f"{classifier_path(net)}."
    own = {name: tensor for name, tensor in net.state_dict().items() if name.startswith(head)}
    trunk = {name: tensor for name, tensor in read_state(path).items() if not name.startswith(head)}
    fill(net, trunk | own, str(path))
    return net


def pool(net: nn.Module, side: int) -> nn.Module:
    """Let the first linear layer of torchvision's VGG or AlexNet see a map of `side` x `side`; returns the net.

    On a map of one pixel a `side` of 1 computes what the net computed before: the weights of all copies are summed.
    `InputError` for a net without such a head.
    """
    position, linear = _first_linear(net)
    parts: Any = net  # torchvision's, with `avgpool` and `classifier`
    before = parts.avgpool.output_size[0]
    if before % side:
        raise InputError(
            f"pooled must divide {before}, the side of the map that this net's classifier sees, got {side}"
        )
    channels, block = linear.in_features // before**2, before // side
    smaller = nn.Linear(channels * side**2, linear.out_features)
    weight = linear.weight.detach().view(-1, channels, side, block, side, block).sum((3, 5))  # (out, C, side, side)
    smaller.load_state_dict({"weight": weight.flatten(1), "bias": linear.bias.detach()})
    parts.classifier[position] = smaller
    parts.avgpool = nn.AdaptiveAvgPool2d(side)
    return net


def _first_linear(net: nn.Module) -> tuple[int, nn.Linear]:
    head, pooling = getattr(net, "classifier", None), getattr(net, "avgpool", None)
    if isinstance(head, nn.Sequential) and isinstance(pooling, nn.AdaptiveAvgPool2d):
        for position, module in enumerate(head):
            if isinstance(module, nn.Linear):
                return position, module
    raise InputError(f"pooled is for torchvision's VGG and AlexNet; {type(net).__name__} has no such classifier")


def fed_as_published(name: str) -> dict[str, Any]:
    """Fields of `InputSpec` as the library gives them for the published weights of "library:model", if it does."""
    check_listed(name)
    library, _, model = name.partition(":")
    if library == "torchvision":
        return fed_as_torchvision(model)
    if library == "pytorchcv":
        return fed_as_pytorchcv(model)
    from timm.models import get_pretrained_cfg

    config = get_pretrained_cfg(model)
    return {} if config is None else fed_as_timm(config.to_dict())


def published_outputs(name: str) -> int:
    """Outputs of the published weights of "library:model"."""
    library, _, model = name.partition(":")
    if library == "pytorchcv":
        return next((count for word, count in _CLASSES_OF.items() if word in model), 1000)
    if library == "timm":
        from timm.models import get_pretrained_cfg

        check_listed(name)
        return getattr(get_pretrained_cfg(model), "num_classes", 1000) or 1000
    return 1000


_CLASSES_OF = {"cifar100": 100, "cifar10": 10, "svhn": 10, "cub": 200}
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
    weights     a .safetensors file to start from, with the library's own names, all but the classifier; "own" means
                `pretrained`
    pooled      side of the map that the first linear layer of torchvision's VGG or AlexNet sees, instead of 7 or 6. At
                32 px their last map is one pixel, which 7 would copy 49 times, with weights for each copy; 1 says the
                same with 49 times fewer
    """

    name: str
    pretrained: bool = False
    weights: str = ""
    pooled: int = 0

    def __post_init__(self) -> None:
        library, _, model = self.name.partition(":")
        if library not in LIBRARIES or not model:
            raise InputError(f'name must be "library:model" with library one of {sorted(LIBRARIES)}, got {self.name!r}')
        if self.pretrained and self.weights:
            raise InputError(f"pretrained stands for the library's weights: set weights={self.weights} without it")
        if self.pooled < 0:
            raise InputError(f"pooled must be 0 or the side of a map, got {self.pooled}")

    def build(self, num_classes: int) -> nn.Module:
        """The net with `num_classes` outputs. `InputError` when the library does not know the name."""
        library, _, model = self.name.partition(":")
        check_listed(self.name)
        net = LIBRARIES[library](model, self.pretrained or self.weights == OWN, num_classes)
        if self.weights not in ("", OWN):
            fill_trunk(net, Path(self.weights), num_classes)
        if self.pooled:
            pool(net, self.pooled)
        # A rebuilt net gets its weights from the checkpoint: it must not download them again.
        settings = dataclasses.replace(self, pretrained=False, weights="")
        return remember(net, ModelSpec(settings=settings, num_classes=num_classes))
