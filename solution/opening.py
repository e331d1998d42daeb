"""The front door: any trained net by the word that names it, with its weights and how it is fed.

    opened = open_model("timm:resnet18.a1_in1k", pretrained=True)
    opened = open_model("my_model.py:Net(width=32)", weights=Path("best.pth"), feed={"mean": (0.5,) * 3, ...})
    opened.net, opened.header

MODEL is a file of ours; "timm:NAME[.tag]", "torchvision:NAME", "pytorchcv:NAME"; "my_model.py:Net" or
"package.module:make_net", with literals as arguments; a folder of timm or Hugging Face. Code is run only when MODEL
names it: no file of weights, no header and no folder can.
"""

from __future__ import annotations

import dataclasses
import socket
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from solution import checkpoint
from solution.checkpoint import Header
from solution.contracts import SEGMENTATION, InputError, name_code, plans_of
from solution.data.loaders import Data
from solution.export import files
from solution.export.packed import packed
from solution.input_spec import IMAGENET_MEAN, IMAGENET_STD, InputSpec
from solution.models.classifiers import (
    LIBRARIES,
    Classifier,
    HeadPlan,
    fed_as_published,
    published_outputs,
    replace_classifier,
)
from solution.models.folders import opened_folder
from solution.models.outputs import SIZE, answer_of, as_logits, classifier_path, count_outputs, with_red_first
from solution.models.own_code import OwnNet, suggested
from solution.models.weights import fill, fitted, misfits, read_weights, within_limits
from solution.registry import FORMATS
from solution.run_folder import RunFolder

_OURS = (".safetensors", ".packed")
_WEIGHTS = (".pt", ".pth", ".th", ".bin", ".ckpt", ".safetensors")


@dataclass(frozen=True, kw_only=True, eq=False)
class OpenedModel:
    """A net in evaluation mode, on the requested device.

    header  how it is fed, its classes' names as far as they are known, how it was built, plans
    source  how to open it again
    notes   what was found out and decided on the way, a line each
    """

    net: nn.Module
    header: Header
    source: ModelSource
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """What names a net: MODEL, and the flags besides. It can be sent to another process and opened there.

    name         MODEL; "MODEL@FILE" names its weights, too
    weights      a file of weights, or of ours, for a net that MODEL names without
    num_classes  outputs wanted; None takes those of the weights, else the library's or the code's own
    feed         fields of `InputSpec` that override what is known: classes, mean, std, size, crop, interpolation
    new_head     a fresh classifier where the weights' one is for other classes
    pretrained   the library's published weights, which are downloaded
    bgr          the net wants blue first; its first layers are turned, so that it takes RGB from then on
    side_flag    what messages call the flag that sets the side of the input
    """

    name: str
    weights: Path | None = None
    num_classes: int | None = None
    feed: Mapping[str, Any] = field(default_factory=dict)
    new_head: bool = False
    pretrained: bool = False
    bgr: bool = False
    side_flag: str = "--size"

    def __post_init__(self) -> None:
        name, at, weights = self.name.rpartition("@")
        if at and name and self.weights is None and not Path(self.name).exists():
            object.__setattr__(self, "name", name)
            object.__setattr__(self, "weights", Path(weights))

    def __str__(self) -> str:
        return self.name + (f" with {self.weights}" if self.weights else "")

    @property
    def own(self) -> Path | None:
        """The file of ours, or the exported net, that MODEL is; None where it names something else."""
        path = Path(self.name)
        after = RunFolder(path=path).compared("after")
        if after.is_file():
            return after
        return path if path.suffix in _OURS or files.format_of(path) is not None else None

    @property
    def place(self) -> Path:
        """Where what is made of this net goes by default: beside its file or its weights, else here."""
        if (path := self.own or self.weights) is not None:
            return path
        return Path(Path(self.name.partition("(")[0].rpartition(":")[2]).name or "net")

    def open(self, device: str = "cpu") -> OpenedModel:
        """The net. `InputError` with what is wrong and how to name it right."""
        with within_limits(self):
            opened = self._opened()
        net, header, notes = opened.net.eval(), opened.header, list(opened.notes)
        if self.bgr:
            with_red_first(net, len(header.mean), header.size)
            notes.append("its first layers are turned from BGR to RGB")
        return dataclasses.replace(opened, net=net.to(device), header=header, notes=tuple(notes))

    def load(self) -> tuple[nn.Module, Header]:
        """Net and header, as `export.files.load` gives them."""
        opened = self.open()
        return opened.net, opened.header

    def _opened(self) -> OpenedModel:
        if self.pretrained and self.weights is not None:
            raise InputError("--pretrained stands for the library's weights: give it or --weights, not both")
        library, colon, _ = self.name.partition(":")
        if colon and library in LIBRARIES:
            return self._of_library()
        if self.pretrained:
            raise InputError(
                f"--pretrained is for nets of {', '.join(LIBRARIES)}: name {self.name}'s with --weights FILE"
            )
        own = None if self.own else OwnNet.of(self.name)
        if own is not None:
            return self._of_own_code(own)
        if Path(self.name).is_dir() and self.own is None:
            return self._of_folder(Path(self.name))
        return self._of_file()

    def _of_file(self) -> OpenedModel:
        path = self.own or Path(self.name)
        if not path.is_file():
            stem, ending, _ = self.name.partition(".py")
            if ending and (code := Path(stem + ending)).is_file():
                raise InputError(f"{self.name} names no net of {code}: write {suggested(code)}")
            forms = ", ".join(f"{library}:NAME" for library in LIBRARIES)
            raise InputError(
                f"there is no file {path}; MODEL is a file of ours or one of {forms}, FILE.py:Net or a folder of timm "
                "or Hugging Face"
            )
        if self.weights is not None:
            raise InputError(f"{path} has weights of its own: leave --weights {self.weights} away")
        if path.suffix == ".py":
            raise InputError(f"{path} is a file of code: name the net in it, such as {suggested(path)}")
        if files.format_of(path) is None and not _is_ours(path):
            if path.suffix not in _WEIGHTS:
                known = ", ".join((*_OURS, *(format.suffix for format in FORMATS.values())))
                raise InputError(f"{path} is no file of ours, which end in {known}, and none of weights")
            raise InputError(
                f"{path} holds weights, but not how to build their net: name the net, and the file with --weights, "
                f"such as my_model.py:Net --weights {path}"
            )
        return self._made(*self._with_wanted_head(*files.load(path)), ())

    def _with_wanted_head(self, net: nn.Module, header: Header) -> tuple[nn.Module, Header]:
        """A net of ours as its file has it; with --new-head, and a fresh classifier, for another number of classes."""
        wanted = self.num_classes
        known = header.outputs or answer_of(net, len(header.mean), header.size).shape[1]
        if not self.new_head or not wanted or wanted == known:
            return net, header
        net = HeadPlan(num_classes=wanted, before=known).apply(net).eval()
        return net, dataclasses.replace(header, plans=plans_of(net), classes=(), figures={})

    def _of_library(self) -> OpenedModel:
        def build(num_classes: int | None) -> nn.Module:
            settings = Classifier(name=self.name, pretrained=self.pretrained)
            outputs = num_classes or published_outputs(self.name)
            return _downloaded(settings, outputs) if self.pretrained else settings.build(outputs)

        known = fed_as_published(self.name)
        if self.weights is None and not self.pretrained:  # fresh: nothing was trained with the library's crops
            known = {name: value for name, value in known.items() if name not in ("crop", "interpolation")}
        return self._with_weights(build, known)

    def _of_own_code(self, own: OwnNet) -> OpenedModel:
        if self.weights is not None and _is_ours(self.weights):
            header = files.read_header(self.weights)
            own = own.with_classes(header.built_for)
            fresh = _resized_head(own.build(), header.built_for or 0)
            fresh = as_logits(fresh, len(header.mean) or 3, header.size or SIZE)
            net, header = self._with_wanted_head(*files.load(self.weights, fresh))
            return self._made(name_code(net, str(own)), dataclasses.replace(header, code=str(own)), ())

        def build(num_classes: int | None) -> nn.Module:
            return own.with_classes(num_classes).build()

        return self._with_weights(build, {}, own)

    def _of_folder(self, folder: Path) -> OpenedModel:
        if self.weights is not None and not _is_ours(self.weights):
            raise InputError(f"{folder} has weights of its own: leave --weights {self.weights} away")
        found = opened_folder(folder)
        if self.weights is not None:
            net, header = files.load(self.weights, found.build(None))
            return self._made(net, dataclasses.replace(header, code=self.name), ())
        source = dataclasses.replace(self, weights=found.weights, feed={**found.feed, **self.feed})
        opened = source._with_weights(found.build, {})
        if found.bgr:
            with_red_first(opened.net, 3, opened.header.size)
        return dataclasses.replace(opened, source=self)

    def _with_weights(
        self, build: Callable[[int | None], nn.Module], known: Mapping[str, Any], own: OwnNet | None = None
    ) -> OpenedModel:
        """The net that `build` makes for a number of classes, with the file of weights in it."""
        notes: list[str] = []
        net = build(self.num_classes)
        names: tuple[str, ...] = ()
        if self.weights is not None:
            state, names = read_weights(self.weights)
            net, fresh = self._filled(net, build, state)
            names = () if fresh else names
            notes.append(f"weights: {self.weights}{', but a fresh classifier' if fresh else ''}")
        elif not self.pretrained:
            download = " or --pretrained" if not own else ""
            notes.append(f"weights: fresh, drawn at random; name trained ones with --weights FILE{download}")
        fields: dict[str, Any] = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD, "size": SIZE, **known, **self.feed}
        InputSpec(**fields)  # before a picture of that size is made
        net = as_logits(net, len(fields["mean"]), fields["size"])
        name_code(net, str(own.with_classes(self.num_classes)) if own else self.name)
        return self._made(net, checkpoint.header_of(net, **fields), notes, names)

    def _filled(
        self, net: nn.Module, build: Callable[[int | None], nn.Module], state: Mapping[str, Tensor]
    ) -> tuple[nn.Module, bool]:
        """The net with the weights of the file, which are `state`, and whether its classifier is fresh."""
        fit, wanted = fitted(net, state), self.num_classes
        if not _all_but_head(net, fit):
            fill(net, fit, str(self.weights))
            return net, False
        theirs = _outputs_in(net, fit)
        if wanted is None and theirs:  # weights decide
            built = build(theirs)
            net = built if not _all_but_head(built, fitted(built, state)) else replace_classifier(net, theirs)
            fill(net, fitted(net, state), str(self.weights))
            return net, False
        if not self.new_head and not theirs:
            raise InputError(
                f"{self.weights} holds no weights of {classifier_path(net)}, the classifier of {self.name}: add "
                "--new-head for a fresh one, and train it: compress MODEL --weights FILE --new-head --step train "
                "--data PHOTOS --out FILE"
            )
        if not self.new_head:
            raise InputError(
                f"{self.weights} has {theirs} outputs, and the data have {wanted} classes: add "
                "--new-head for a fresh classifier, which must be trained, or name data of the weights' own classes"
            )
        head = f"{classifier_path(net)}."
        own = {name: tensor for name, tensor in net.state_dict().items() if name.startswith(head)}
        fill(net, {name: tensor for name, tensor in fit.items() if not name.startswith(head)} | own, str(self.weights))
        return net, True

    def _made(self, net: nn.Module, header: Header, notes: Sequence[str], names: tuple[str, ...] = ()) -> OpenedModel:
        """The net with the header that the flags ask for, tried on one batch. `names` of classes lay by its weights."""
        trained, header = header.size, dataclasses.replace(header, **self.feed)
        outputs = count_outputs(net, header, self.name, f"{self.side_flag} {{}}", trained)
        if not header.classes and outputs == len(names):
            header = dataclasses.replace(header, classes=names)
        if header.spec is None and answer_of(net, len(header.mean), header.size).dim() == 4:
            header = dataclasses.replace(header, kind=SEGMENTATION)
        if header.classes and outputs != len(header.classes):
            raise InputError(
                f"{self} has {outputs} outputs, and {len(header.classes)} classes are named: {_shown(header)}"
            )
        way = f"crop {header.crop:.3g}" if header.crop else "stretched"
        fed = f"fed: {header.size} px, {way}, {header.interpolation}, mean {header.mean}, std {header.std}"
        if trained not in (0, header.size):
            warnings.warn(other_size(header.size, trained, self.side_flag), stacklevel=2)
        return OpenedModel(net=net, header=header, source=self, notes=(*notes, fed))


def other_size(size: int, trained: int, flag: str = "--size") -> str:
    """The warning that pictures have another side than the net's own."""
    return f"{flag} {size} is not the {trained} px that the net was trained with, which may cost quality: judge it"


@dataclass(frozen=True, kw_only=True)
class NamedModel:
    """MODEL as the settings of a recipe's net: ``run waste_teacher --model my_model.py:Net@best.pth``.

    name      MODEL, or MODEL@FILE with weights to start from; their classifier stays where the classes are as many
    """

    name: str

    def build(self, num_classes: int) -> nn.Module:
        """The net with `num_classes` outputs."""
        return ModelSource(name=self.name, num_classes=num_classes, new_head=True).open().net


def fed_at(data: Data, name: str) -> Data:
    """`data` with the mean and std that the library of MODEL gives for its weights, at their own side."""
    source = ModelSource(name=name)
    library, _, _ = source.name.partition(":")
    known = fed_as_published(source.name) if library in LIBRARIES else {}
    wanted = ("mean", "std", "crop", "interpolation") if source.weights is not None else ("mean", "std")
    return dataclasses.replace(data, **{field: known[field] for field in wanted if field in known})


def load(path: Path) -> tuple[nn.Module, Header]:
    """Net and header of a file, or of any MODEL in place of its path: what `StepContext.load` takes."""
    source = ModelSource(name=str(path))
    return files.load(path) if Path(path).is_file() or source.own is not None else source.load()


def open_model(name: str, *, device: str = "cpu", **about: Any) -> OpenedModel:
    """The net that MODEL names, ready to be judged, changed and exported. `about`: the fields of `ModelSource`.

    ``open_model("my_model.py:Net", weights=Path("best.pth"), num_classes=9, new_head=True)``. `InputError` in one line
    for whatever does not fit; nothing is written.
    """
    if about.get("weights") is not None:
        about["weights"] = Path(about["weights"])
    return ModelSource(name=name, **about).open(device)


def _shown(header: Header) -> str:
    names = ", ".join(header.classes[:6])
    return names + (", ..." if len(header.classes) > 6 else "")


def _is_ours(path: Path) -> bool:
    """Whether a file was written by this project; `InputError` when it was, and is damaged."""
    if path.is_file() and packed.is_packed(path):
        return True
    if path.suffix != ".safetensors" or not path.is_file():
        return False
    with path.open("rb") as file:
        return b'"featherweight"' in file.read(1 << 16)


def _all_but_head(net: nn.Module, state: Mapping[str, Tensor]) -> bool:
    """Whether the classifier's tensors are all that does not fit, and something does not."""
    missing, unexpected, shapes = misfits(net, state)
    try:
        head = f"{classifier_path(net)}."
    except InputError:
        return False
    wrong = [*missing, *unexpected, *shapes]
    return bool(wrong) and all(name.startswith(head) for name in wrong)


def _outputs_in(net: nn.Module, state: Mapping[str, Tensor]) -> int:
    """Outputs of the classifier in `state`; 0 when it has none."""
    weight = state.get(f"{classifier_path(net)}.weight")
    return 0 if weight is None else len(weight)


def _resized_head(net: nn.Module, num_classes: int) -> nn.Module:
    """`net` with a classifier for `num_classes`, when it has one for another number."""
    last: Any = net.get_submodule(classifier_path(net))
    own = getattr(last, "out_features", None) or getattr(last, "out_channels", 0)
    return replace_classifier(net, num_classes) if num_classes and own != num_classes else net


def _downloaded(settings: Classifier, num_classes: int) -> nn.Module:
    """The net with published weights. `InputError` when they cannot be fetched; those that are here need no network."""
    from huggingface_hub import constants

    host = constants.ENDPOINT.partition("://")[2].partition("/")[0].partition(":")[0]
    try:
        socket.getaddrinfo(host, 443)
    except OSError:
        constants.HF_HUB_OFFLINE = True  # or it would try for a minute
    try:
        return settings.build(num_classes)
    except InputError:
        raise
    except (OSError, RuntimeError, ValueError) as error:
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        raise InputError(
            f"the published weights of {settings.name} cannot be had ({reason[:120]}): is there a network? Else fetch "
            "the file elsewhere and name it with --weights FILE"
        ) from error
