"""Folders in which timm and Hugging Face keep a trained classifier: config.json beside its weights."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from solution.contracts import InputError
from solution.models.classifiers import Classifier, fed_as_preprocessor, fed_as_published, fed_as_timm, read_json

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True, kw_only=True)
class FolderModel:
    """A net in a folder.

    build    makes the net, with fresh weights, for a number of classes; None means its own
    weights  its file of weights
    feed     fields of `InputSpec` that the folder names
    bgr      it was trained with blue first
    """

    build: Callable[[int | None], nn.Module]
    weights: Path
    feed: Mapping[str, Any]
    bgr: bool = False


def opened_folder(folder: Path) -> FolderModel:
    """The net in `folder`: timm's ``save_for_hf``, or an image classifier of Hugging Face's transformers."""
    if not (folder / "config.json").is_file():
        raise InputError(
            f"{folder} is a folder without config.json: name one of timm or Hugging Face, a run's folder, or a file"
        )
    weights = next((folder / name for name in _WEIGHTS if (folder / name).is_file()), None)
    if weights is None:
        raise InputError(f"{folder} has neither {' nor '.join(_WEIGHTS)}: download the folder whole")
    config = read_json(folder / "config.json")
    with _explained(folder):
        found = _timm(folder, config, weights) if "architecture" in config else _transformers(folder, config, weights)

    def build(num_classes: int | None) -> nn.Module:
        with _explained(folder):
            return found.build(num_classes)

    return dataclasses.replace(found, build=build)


@contextlib.contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Inside: whatever a broken description makes of its readers is an `InputError`."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0][:120]}"
        raise InputError(f"{folder}/config.json cannot be used ({reason}): download the folder again") from error


def _timm(folder: Path, config: Mapping[str, Any], weights: Path) -> FolderModel:
    name = f"timm:{config['architecture']}"
    feed = fed_as_published(name)  # refuses what timm does not list
    trained = config.get("pretrained_cfg") or {}
    own = int(config.get("num_classes") or trained.get("num_classes") or 1000)
    names = config.get("label_names") or trained.get("label_names") or ()
    feed |= fed_as_timm(trained) if trained else {}
    if len(names) == own:
        feed["classes"] = tuple(map(str, names))
    given = {key: value for key, value in (config.get("model_args") or {}).items() if key != "num_classes"}

    def build(num_classes: int | None) -> nn.Module:
        plain = Classifier(name=name).build(num_classes or own)
        if not given:
            return plain
        changed = _built_with(name, num_classes or own, given)
        return plain if repr(changed) == repr(plain) else changed

    return FolderModel(build=build, weights=weights, feed=feed)


def _built_with(name: str, num_classes: int, arguments: Mapping[str, Any]) -> nn.Module:
    """The net of timm with arguments of its own: plain values, none of which names a file or an address."""
    import timm

    for key, value in arguments.items():
        plain = isinstance(value, int | float | bool | str | None) or (
            isinstance(value, list | tuple) and all(isinstance(one, int | float | bool | str) for one in value)
        )
        if not plain or any(word in key for word in ("path", "pretrained", "cfg", "dir", "features_only")):
            raise InputError(f"{name} cannot be built with {key}={value!r}, which its config.json names")
    try:
        return timm.create_model(name.partition(":")[2], num_classes=num_classes, **arguments)
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise InputError(f"{name} cannot be built as its config.json describes: {error}") from error


def _transformers(folder: Path, config: Mapping[str, Any], weights: Path) -> FolderModel:
    kinds = [name for name in config.get("architectures") or [] if name.endswith("ForImageClassification")]
    if not kinds:
        raise InputError(
            f"{folder} holds {', '.join(config.get('architectures') or ['no architecture that it names'])}: only image "
            "classifiers of timm and transformers are read"
        )
    try:
        from transformers import AutoConfig, AutoModelForImageClassification
    except ImportError as error:
        raise InputError(f'{folder} is of transformers, which is not installed: pip install -e ".[huggingface]"') \
            from error  # fmt: skip

    def build(num_classes: int | None) -> nn.Module:
        changed = {} if num_classes is None else {"num_labels": num_classes}
        settings = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False, **changed)
        return AutoModelForImageClassification.from_config(settings, trust_remote_code=False)

    named = config.get("id2label") or {}
    feed, bgr = (
        fed_as_preprocessor(folder / "preprocessor_config.json")
        if (folder / "preprocessor_config.json").is_file()
        else ({}, False)
    )
    names = tuple(str(named[key]) for key in sorted(named, key=int))
    if names and names != tuple(f"LABEL_{index}" for index in range(len(names))):
        feed["classes"] = names
    return FolderModel(build=build, weights=weights, feed=feed, bgr=bgr)
