"""Numbers that modules store and their forward reads: a width, a number of heads, sizes of a split.

No tensor shape implies them. Where the forward of a smaller net fails, the numbers of the modules that were running are
set in turn to what follows from a tensor of theirs that has become smaller; a number is kept if the forward then comes
further. What was found for a module holds for all modules of its class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from torch import nn

from solution.compress.coupling.attributes import Shape, Stored
from solution.compress.coupling.tracing import Trace, TraceError
from solution.contracts import InputError

MOST_TRIALS = 8
"""How many numbers are tried at one place."""


@dataclass(frozen=True, kw_only=True)
class Failed:
    """A forward that failed on tensors of shapes `after`; in the full net they have shapes `before`.

    trace  the full pass
    error  what happened, and after how many calls
    """

    trace: Trace
    error: TraceError
    before: Mapping[str, Shape]
    after: Mapping[str, Shape]


def learn(model: nn.Module, learned: Stored, failed: Failed, attempt: Callable[[], object]) -> bool:
    """Find a stored number of `model` with which the forward comes further, and add it to `learned`.

    attempt  runs the forward of the smaller net with what is learned; raises `TraceError` when that fails
    """
    for (kind, attribute), relation in list(_candidates(model, failed))[:MOST_TRIALS]:
        if (kind, attribute) in learned:
            continue
        learned[kind, attribute] = relation
        try:
            attempt()
        except TraceError as error:
            further = error.mode != failed.error.mode or error.position > failed.error.position
        except InputError:
            further = False
        else:
            further = True
        if further:
            return True
        del learned[kind, attribute]
    return False


def _candidates(model: nn.Module, failed: Failed) -> Iterator[tuple[tuple[type, str], tuple[str, int]]]:
    """(class, attribute) and (tensor of the module, axis) that it goes along with, the likeliest first."""
    near = failed.trace.calls[max(0, failed.error.position - 2) : failed.error.position + 2]
    literals = {number for call in near for number in _numbers(list(call.arguments.values()))}
    found: list[tuple[int, tuple[type, str], tuple[str, int]]] = []
    path: str | None = failed.error.where
    while path is not None:
        module, prefix = model.get_submodule(path), f"{path}." if path else ""
        if not type(module).__module__.startswith("torch.nn"):
            for name, value in vars(module).items():
                total = _total(value)
                places = _tensors_with(total, prefix, failed) if total else []
                if places:
                    is_whole = total == failed.before[prefix + places[0][0]][places[0][1]]
                    is_seen = bool(set(_numbers(value)) & literals)
                    found.append((2 * (not is_seen) + (not is_whole), (type(module), name), places[0]))
        path = None if not path else path.rpartition(".")[0]
    yield from (one[1:] for one in sorted(found, key=lambda one: one[0]))


def _tensors_with(total: int, prefix: str, failed: Failed) -> list[tuple[str, int]]:
    """Axes of a module's tensors that have become smaller, `total` with them; those of that very length first."""
    places = [
        (name.removeprefix(prefix), axis)
        for name, before in failed.before.items()
        if name.startswith(prefix)
        for axis, (old, new) in enumerate(zip(before, failed.after[name], strict=True))
        if new != old and old % total == 0 and new * total % old == 0
    ]
    return sorted(places, key=lambda place: failed.before[prefix + place[0]][place[1]] != total)


def _total(value: object) -> int:
    """What a stored number, or numbers together, come to; 0 for anything else."""
    if isinstance(value, bool):
        return 0
    if isinstance(value, int):
        return value if value > 1 else 0
    if isinstance(value, list | tuple) and value and all(type(one) is int and one > 0 for one in value):
        return sum(value)
    return 0


def _numbers(value: object) -> list[int]:
    if isinstance(value, list | tuple):
        return [number for one in value for number in _numbers(one)]
    return [value] if type(value) is int and value > 1 else []
