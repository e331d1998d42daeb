"""A search space: ``{address: choices or range}``, plain Python that a recipe file can hold.

{
    "model.units": [(2, 5, 2), (3, 5, 3)],          # a list: one of these
    "data.augment.color": (0.0, 0.4),              # a pair: anything from low to high; whole numbers stay whole
    "train.lr = after.lr": (0.05, 0.5, "log"),      # two settings that share one value, even on a log scale
}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from optuna import Trial
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from solution.contracts import InputError, Recipe
from solution.settings import settings_of, with_setting, with_settings

Plain = Mapping[str, list[Any] | tuple[Any, ...]]
"""A space as recipes write it."""

_DIGITS = 4
"""Of a number that is drawn: more would mean nothing and make the recipe that is found unreadable."""


@dataclass(frozen=True, kw_only=True)
class Choices:
    """One of `values`, of any type; a storage sees their spelling alone."""

    values: tuple[Any, ...]

    def distribution(self) -> BaseDistribution:
        """As Optuna knows it."""
        return CategoricalDistribution([repr(value) for value in self.values])

    def read(self, stored: str) -> Any:
        """The value of what a storage keeps."""
        return {repr(value): value for value in self.values}[stored]

    def write(self, value: Any) -> str | None:
        """What a storage keeps of `value`; None for one that is not offered."""
        return repr(value) if value in self.values else None

    def examples(self) -> tuple[Any, ...]:
        """Values to try out."""
        return self.values

    def __str__(self) -> str:
        return f"one of {', '.join(map(repr, self.values))}"


@dataclass(frozen=True, kw_only=True)
class Range:
    """Any number from `low` to `high`, both included; whole when both are."""

    low: float
    high: float
    log: bool = False

    def distribution(self) -> BaseDistribution:
        """As Optuna knows it."""
        if self._is_whole:
            return IntDistribution(int(self.low), int(self.high), log=self.log)
        return FloatDistribution(self.low, self.high, log=self.log)

    def read(self, stored: float) -> float:
        """The value of what a storage keeps."""
        if self._is_whole:
            return stored
        return min(max(float(f"{stored:.{_DIGITS}g}"), self.low), self.high)

    def write(self, value: Any) -> float | None:
        """What a storage keeps of `value`; None for one outside."""
        return value if _is_number(value) and self.low <= value <= self.high else None

    @property
    def _is_whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    def examples(self) -> tuple[float, ...]:
        """Values to try out."""
        return (self.low, self.high)

    def __str__(self) -> str:
        return f"{self.low} to {self.high}{' (log)' if self.log else ''}"


@dataclass(frozen=True, kw_only=True)
class Space:
    """What is varied. `fields` has one name for each value that is drawn; a name lists its addresses."""

    fields: tuple[tuple[str, Choices | Range], ...]

    def distributions(self) -> dict[str, BaseDistribution]:
        """{name: distribution}, as Optuna knows them."""
        return {name: field.distribution() for name, field in self.fields}

    def draw(self, trial: Trial) -> dict[str, Any]:
        """{name: value} of one trial. What the trial has drawn before stays as it is."""
        return self.read({name: _drawn(trial, name, kind) for name, kind in self.distributions().items()})

    def read(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        """{name: value} of what a storage keeps of a trial."""
        return {name: field.read(stored[name]) for name, field in self.fields}

    def own(self, recipe: Recipe) -> dict[str, Any]:
        """{name: what a storage keeps} of the recipe's own settings, as far as the space offers them."""
        known, own = settings_of(recipe), {}
        for name, field in self.fields:
            first, *others = (known[key] for key in keys(name))
            stored = field.write(first)
            if stored is not None and all(other == first for other in others):
                own[name] = stored
        return own

    def described(self) -> dict[str, str]:
        """{name: what is offered}, for eyes and for comparison."""
        return {name: str(field) for name, field in self.fields}


def _drawn(trial: Trial, name: str, kind: Any) -> Any:
    if isinstance(kind, CategoricalDistribution):
        return trial.suggest_categorical(name, kind.choices)
    draw = trial.suggest_int if isinstance(kind, IntDistribution) else trial.suggest_float
    return draw(name, kind.low, kind.high, log=kind.log)


def space_of(plain: Plain, recipe: Recipe) -> Space:
    """The space that `plain` describes, checked against `recipe`.

    `InputError` for an unknown address (lists the right ones), an empty range, or an address none of whose values
    fits.
    """
    if not plain:
        raise InputError("the search space is empty: give the recipe file a space(), or add --vary ADDRESS=VALUES")
    space = Space(fields=tuple((" = ".join(keys(name)), _field(name, values)) for name, values in plain.items()))
    for name, field in space.fields:
        _check(name, field, recipe)
    return space


def keys(name: str) -> list[str]:
    """The settings that share the value called `name`."""
    return [key.strip() for key in name.split("=")]


def _field(name: str, values: Any) -> Choices | Range:
    if isinstance(values, list) and values:
        return Choices(values=tuple(values))
    if isinstance(values, tuple) and len(values) in (2, 3) and all(_is_number(value) for value in values[:2]):
        low, high, *scale = values
        if low < high and scale in ([], ["log"]) and (not scale or low > 0):
            return Range(low=low, high=high, log=bool(scale))
    raise InputError(
        f'{name}: give a list of choices, (low, high), or (low, high, "log") with 0 < low < high; got {values!r}'
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check(name: str, field: Choices | Range, recipe: Recipe) -> None:
    for key in keys(name):
        errors = [error for value in field.examples() if (error := _refusal(recipe, key, value))]
        if len(errors) == len(field.examples()):  # one choice may need another one's company; none at all is wrong
            raise errors[0]


def _refusal(recipe: Recipe, key: str, value: Any) -> InputError | None:
    try:
        with_setting(recipe, key, value)
    except InputError as error:
        return error
    return None


def applied(recipe: Recipe, drawn: Mapping[str, Any]) -> Recipe:
    """`recipe` with the values of one trial. `InputError` when they do not go together."""
    return with_settings(recipe, {key: value for name, value in drawn.items() for key in keys(name)})
