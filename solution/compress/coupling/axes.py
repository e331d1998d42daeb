"""What `ids` notes: axes along which channels lie, calls that channels go through, operands that meet."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One axis of a parameter or buffer along which channels can be cut.

    tensor, axis  which one; a name that starts with ":" stands for no tensor (an output, a norm without weight)
    role          "out": makes channels; "in": reads them; "with": carries them along (norms, biases, depthwise);
                  "joint": norms over channels; "output": of the net; "run": taken apart into runs of one length
    groups        the axis falls into so many runs that must keep equal sizes; an "in" axis counts the inputs of all
    ids           (length,) the id of each position
    """

    tensor: str
    axis: int
    role: str
    groups: int
    ids: Tensor


@dataclass(frozen=True, kw_only=True)
class Passage:
    """Channels that go through a call. Two channels can take each other's place only if they go through the same calls.

    call    the call, by its label
    slot    which argument they are; or which element of another operand they meet
    ids     (N,) distinct ids of the channels
    counts  (N,) of how many elements each
    """

    call: str
    slot: str
    ids: Tensor
    counts: Tensor


@dataclass(frozen=True)
class Meeting:
    """Operands that meet element by element, some `stretched` over the channels of others; `numbers` are their places
    among all operands of the call.
    """

    call: str
    views: list[Tensor]
    stretched: list[bool]
    numbers: list[int]
    shape: tuple[int, ...]
    reason: str
