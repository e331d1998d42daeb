"""What every export format has: how its files are called, how a net is written, and how a file is opened and listed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

from torch import Tensor, nn

from solution.contracts import CLASSIFICATION, InputError
from solution.formats.exported import Exported, Metadata
from solution.text import printable

PRECISIONS = ("fp32", "fp16", "int8", "int8_full", "int8_dynamic")
"""int8 has inputs and outputs in float, int8_full in integers, too; int8_dynamic has weights in int8, and rounds what
flows at run time.
"""
CALIBRATED = ("int8", "int8_full")
"""Those whose ranges are measured on pictures."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One tensor of a file, or all tensors of one layer, with the shape of the largest."""

    name: str
    shape: tuple[int, ...]
    count: int
    num_bytes: float

    def __post_init__(self) -> None:
        name = self.name.decode(errors="replace") if isinstance(self.name, bytes) else self.name  # broken UTF-8
        object.__setattr__(self, "name", printable(name))

    @classmethod
    def of(cls, name: str, shape: Iterable[int], num_bytes: float) -> Line:
        """The line of one tensor."""
        shape = tuple(shape)
        return cls(name=name, shape=shape, count=prod(shape), num_bytes=num_bytes)

    @property
    def bits(self) -> float:
        """Bits that each number takes in the file."""
        return 8 * self.num_bytes / self.count if self.count else 0.0


@dataclass(frozen=True, kw_only=True)
class Listing:
    """A file's kind, its tensors, and all of its bytes; what the tensors do not take is description.

    notes       what else is worth a line
    flash, ram  bytes that the net takes on a microcontroller, and the layer at which most memory is used: `peak`
    """

    kind: str
    lines: tuple[Line, ...]
    num_bytes: int
    notes: tuple[str, ...] = ()
    flash: int | None = None
    ram: int | None = None
    peak: str = ""

    def layers(self) -> tuple[Line, ...]:
        """One line per layer: tensors whose names differ in their last word alone."""
        found: dict[str, list[Line]] = {}
        for line in self.lines:
            whole, parametrization, _ = line.name.partition(".parametrizations.")
            found.setdefault(whole if parametrization else whole.rpartition(".")[0] or whole, []).append(line)
        return tuple(
            Line(
                name=name,
                shape=max(lines, key=lambda line: line.count).shape,
                count=sum(line.count for line in lines),
                num_bytes=sum(line.num_bytes for line in lines),
            )
            for name, lines in found.items()
        )

    def largest(self) -> str:
        """The layer that takes most bytes."""
        return max(self.layers(), key=lambda line: line.num_bytes).name if self.lines else "nothing"

    @property
    def description_bytes(self) -> float:
        """Bytes of everything but the tensors: names, graph, header."""
        return self.num_bytes - sum(line.num_bytes for line in self.lines)


class Format(ABC):
    """One format, as a value. A graph is whatever the format's own library calls a net.

    name        as ``--format`` takes it
    suffix      how the name of its main file ends; `partners`: suffixes of further files of the same name
    runtime     what runs the files
    libraries   packages behind the runtime, whose versions are printed beside times
    precisions  those that it has, the default first
    on_chips    whether its files are for microcontrollers, whose flash and memory are limits
    """

    name: ClassVar[str]
    suffix: ClassVar[str]
    runtime: ClassVar[str]
    libraries: ClassVar[tuple[str, ...]]
    partners: ClassVar[tuple[str, ...]] = ()
    precisions: ClassVar[tuple[str, ...]] = PRECISIONS[:3]
    on_chips: ClassVar[bool] = False

    def files(self, path: Path) -> tuple[Path, ...]:
        """All files of the export whose main file is `path`."""
        return (path, *(path.with_suffix(suffix) for suffix in self.partners))

    def check_precision(self, precision: str) -> None:
        """`InputError` for a precision that does not exist, or that this format lacks."""
        if precision not in PRECISIONS:
            raise InputError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
        if precision not in self.precisions:
            raise InputError(f"there is no {precision} in the {self.name} format; it has {', '.join(self.precisions)}")

    @abstractmethod
    def check_runtime(self) -> None:
        """`InputError` that names the extra to install when the library behind the runtime is missing."""

    @abstractmethod
    def floating(self, net: nn.Module, example: Tensor, precision: str) -> Any:
        """`net` as a graph with a dynamic batch, in fp32, or with its weights stored in fp16. example: (B, 3, H, W)."""

    @abstractmethod
    def base(self, net: nn.Module, example: Tensor) -> Any:
        """What `quantized` starts from."""

    @abstractmethod
    def quantized(self, base: Any, images: list[Tensor], float_layers: Sequence[str], fine_outputs: bool) -> Any:
        """The graph in int8: weights per channel, activations calibrated on `images`, each (1, 3, H, W), normalized.

        base          what the method of this name made; it may be changed
        float_layers  layers that stay in float, as the graph names them
        fine_outputs  outputs need finer steps than int8 has, such as corners in pixels
        """

    @abstractmethod
    def depthwise(self, base: Any) -> list[str]:
        """Names of the convolutions in which every output comes from one input channel: int8 makes them slower."""

    @abstractmethod
    def first_and_last_layers(self, base: Any) -> list[str]:
        """Names of the first and the last layer that multiplies by weights."""

    @abstractmethod
    def write(self, graph: Any, metadata: Metadata, path: Path) -> None:
        """Write all files of a graph, with `metadata` among its own."""

    def check(self, path: Path) -> None:  # noqa: B027 - formats may do it where they open
        """`InputError` for a file that is read in C and would take this process down: a child process tries it."""

    @abstractmethod
    def open(
        self,
        path: Path,
        threads: int = 1,
        task: str | None = CLASSIFICATION,
        feed: Mapping[str, Any] = MappingProxyType({}),
    ) -> Exported:
        """The file, ready to run. `InputError` when it is damaged, not ours, or for another task; None takes any.

        feed  fields of `InputSpec` that take the place of what the file holds
        """

    @abstractmethod
    def listing(self, path: Path) -> Listing:
        """What lies in a file, also in one of others. `InputError` when it cannot be read."""


def check_description(text: str | None, path: Path) -> None:
    """`InputError` for metadata of ours that are unsound, or newer than this project; files of others have none."""
    if text:
        Metadata.from_text(text, path, task=None)


def depthwise_layers(net: nn.Module) -> list[str]:
    """Paths of the convolutions of `net` in which every output comes from one input channel."""
    convolutions = [(path, module) for path, module in net.named_modules() if isinstance(module, nn.Conv2d)]
    return [path for path, module in convolutions if module.groups == module.in_channels > 1]


def first_and_last_layers(net: nn.Module) -> list[str]:
    """Paths of the first and the last layer of `net`."""
    paths = [path for path, module in net.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    return [paths[0], paths[-1]] if paths else []
