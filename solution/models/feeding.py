"""How a net of elsewhere wants its pictures: what timm, torchvision and Hugging Face say of their weights.

Each function returns fields of `InputSpec`, as far as they are known.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from solution.input_spec import IMAGENET_MEAN, IMAGENET_STD
from solution.text import InputError

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
