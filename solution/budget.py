"""`Budget`: how much a net may cost, as a share of what it has now or as a number with a unit.

    Budget.of("50%", "macs")       half of what the net has now
    Budget.of("12M", "macs")       twelve million
    Budget.of("64 KiB", "bytes")   65,536 bytes
    Budget.of("0.5 ms", "ms")      half a millisecond

A bare float below 1 could mean a share that stays, a share that goes, or a number, so it is refused.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from solution.contracts import InputError

_COUNTS = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9}
UNITS: dict[str, dict[str, float]] = {
    "macs": _COUNTS,
    "params": _COUNTS,
    "bytes": {"": 1.0, "B": 1.0, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2.0**10, "MiB": 2.0**20,
              "GiB": 2.0**30},
    "ms": {"us": 1e-3, "ms": 1.0, "s": 1e3},
}  # fmt: skip
"""{what is limited: {how a number's unit is spelled: its worth in the base unit}}. Times have no default unit."""
_EXAMPLES = {"macs": '"12M"', "params": '"500k"', "bytes": '"64 KiB"', "ms": '"0.5 ms"'}
_NUMBER = re.compile(r"\s*([0-9][0-9_,]*(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?|\.[0-9]+)\s*([A-Za-z%]*)\s*")


@dataclass(frozen=True, kw_only=True)
class Budget:
    """A limit. Either `share` of what the net has now, in (0, 1), or `number` in the base unit of `kind`.

    kind  what is limited: "macs", "params", "bytes" or "ms"
    """

    kind: str
    share: float | None = None
    number: float | None = None

    def __post_init__(self) -> None:
        if (self.share is None) == (self.number is None):
            raise InputError(f"a budget is a share or a number, got share={self.share} and number={self.number}")

    @classmethod
    def of(cls, value: Budget | str | float, kind: str, name: str = "") -> Budget:
        """`value` as a budget of `kind`; `name` is what messages call it, by default the kind.

        `InputError` for what is no budget, with spellings that are.
        """
        name, example = name or kind, _EXAMPLES[kind]
        if isinstance(value, Budget):
            if value.kind != kind:
                raise InputError(f"{name} limits {kind}, got a budget of {value.kind}: {value}")
            return value
        if isinstance(value, str):
            return cls._parsed(value, kind, name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
            raise InputError(f'{name} must be a share such as "50%" or a number such as {example}, got {value!r}')
        if value <= 1 and isinstance(value, float):
            raise InputError(
                f'{name}={value} could mean two things: write {name}="{100 * value:g}%" to keep that share of what the '
                f'net has, or {name}="{100 * (1 - value):g}%" to take that share away'
            )
        if "" not in UNITS[kind]:
            raise InputError(f'{name}={value} has no unit: write {name}={example} or {name}="50%"')
        return cls(kind=kind, number=float(value))

    @classmethod
    def _parsed(cls, text: str, kind: str, name: str) -> Budget:
        example, units = _EXAMPLES[kind], UNITS[kind]
        found = _NUMBER.fullmatch(text)
        number, unit = (float(found[1].replace(",", "").replace("_", "")), found[2]) if found else (math.nan, "")
        if unit == "%":
            if not 0 < number < 100:
                raise InputError(f'{name} keeps a share of what the net has, above 0% and below 100%, got "{text}"')
            return cls(kind=kind, share=number / 100)
        if not found or unit not in units:
            spelled = ", ".join(filter(None, units))
            raise InputError(f'{name} takes "50%" or a number such as {example} (units: {spelled}), got "{text}"')
        if not unit and number <= 1 and "." in found[1]:
            return cls.of(number, kind, name)  # refused there, with the spellings that it might mean
        number *= units[unit]
        if not 0 < number < math.inf:
            raise InputError(f'{name} must be above 0, got "{text}"')
        return cls(kind=kind, number=number)

    def limit(self, before: float) -> float:
        """The number in the base unit that may not be exceeded by a net that costs `before` now."""
        return self.share * before if self.share is not None else self.number or 0.0

    def __str__(self) -> str:
        """As `of` reads it: ``Budget.of(str(budget), budget.kind) == budget``."""
        if self.share is not None:
            return f"{_digits(round(100 * self.share, 10))}%"
        return _digits(self.number or 0.0) + (" ms" if self.kind == "ms" else "")


def _digits(value: float) -> str:
    """The shortest decimal that reads back as `value`."""
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)
