"""The audit's books: what was counted and what ran, module by module."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field

from torch import nn


@dataclass(kw_only=True)
class Entry:
    """All calls of one module. The work of the modules inside it is in their own entries.

    hidden     MACs by which calls ran more than was counted for them; calls do not make up for one another
    ran        operation -> MACs
    attention  MACs of products of two tensors that both come from the image
    refused    reasons to refuse the net whatever its figures
    """

    path: str
    module: nn.Module | None
    counted: int = 0
    hidden: int = 0
    ran: Counter[str] = field(default_factory=Counter)
    attention: int = 0
    refused: dict[str, None] = field(default_factory=dict)


@dataclass(kw_only=True)
class _Call:
    entry: Entry
    ran: int = 0


class OperationLog:
    """Takes notes while a net runs. What happens in no module is noted under the path ""."""

    def __init__(self, model: nn.Module) -> None:
        self._paths = {module: path for path, module in model.named_modules()}
        self.entries: dict[nn.Module, Entry] = {model: Entry(path="", module=model)}
        self._calls = [_Call(entry=self.entries[model])]

    def enter(self, module: nn.Module) -> None:
        """From now on work is done inside `module`."""
        entry = self.entries.setdefault(module, Entry(path=self._paths[module], module=module))
        self._calls.append(_Call(entry=entry))

    def leave(self, module: nn.Module, counted: int) -> None:
        """`module` is done; its hook counted `counted` MACs for the call."""
        if len(self._calls) > 1 and self._calls[-1].entry.module is module:
            self._close(self._calls.pop(), counted)

    def close(self) -> None:
        """The net is done. A call that was never left counts for nothing."""
        while self._calls:
            self._close(self._calls.pop(), 0)

    def _close(self, call: _Call, counted: int) -> None:
        call.entry.counted += counted
        call.entry.hidden += max(0, call.ran - counted)

    def charge(self, operation: str, macs: int, *, attention: bool = False) -> None:
        """`operation` did `macs` of work on behalf of the module that runs now."""
        call = self._calls[-1]
        call.ran += macs
        call.entry.ran[operation] += macs
        call.entry.attention += macs if attention else 0

    def refuse(self, reason: str) -> None:
        """Whatever its figures, the net cannot be trusted, because of the module that runs now."""
        self._calls[-1].entry.refused[reason] = None

    @property
    def ran(self) -> int:
        """MACs of all entries."""
        return sum(entry.ran.total() for entry in self.entries.values())

    def forgive(self, kind: type[nn.Module], operations: Collection[str], at_most: float) -> None:
        """Take what `operations` did inside modules of exactly this `kind` out of the hidden work, up to `at_most`."""
        known = [entry for entry in self.entries.values() if type(entry.module) is kind]
        work = {id(entry): min(entry.hidden, sum(entry.ran[name] for name in operations)) for entry in known}
        if sum(work.values()) <= at_most:
            for entry in known:
                entry.hidden -= work[id(entry)]
