import dataclasses
from dataclasses import dataclass, field

import pytest

from solution.compress.quantize import Quantize
from solution.contracts import InputError, Recipe, Stage
from solution.knobs import gathered, knobs, with_knob, with_knobs
from solution.models.shufflenet import ShuffleNet
from solution.train.step import Train


@dataclass(frozen=True, kw_only=True)
class Inner:
    flip: float = 0.5
    scale: tuple[float, float] = (0.5, 1.0)


@dataclass(frozen=True, kw_only=True)
class Photos:
    path: str | None = None
    size: int = 80
    names: tuple[str, ...] = ()
    inner: Inner = field(default_factory=Inner)


RECIPE = Recipe(
    name="demo",
    data=Photos(),
    model=ShuffleNet(),
    stages=(
        Stage(name="train", step=Train()),
        Stage(name="again", step=Train(epochs=3)),
        Stage(name="teacher", step=Train(), model=ShuffleNet(width=0.5), size=96),
    ),
    before="train",
    after="again",
)


@pytest.mark.parametrize(
    ("address", "text", "value"),
    [
        ("data.size", "64", 64),
        ("data.path", "photos.tar", "photos.tar"),
        ("data.names", "fc", ("fc",)),
        ("data.names", "features.*, fc", ("features.*", "fc")),
        ("data.names", "('fc',)", ("fc",)),
        ("data.path", "None", "None"),
        ("data.inner.flip", "1", 1.0),
        ("data.inner.scale", "0.3,1", (0.3, 1.0)),
        ("model.units", "2,5,2", (2, 5, 2)),
        ("model.units", "3", (3,)),
        ("model.widths", "(9, 24, 48, 96)", (9, 24, 48, 96)),
        ("model.head", "linear", "linear"),
        ("again.lr", 0.2, 0.2),
        ("again.epochs", "7", 7),
        ("teacher.model.units", "2,5,2", (2, 5, 2)),
        ("teacher.size", "64", 64),
    ],
)
def test_a_setting_is_changed_by_its_address_and_nothing_else(address, text, value):
    changed = knobs(with_knob(RECIPE, address, text))
    assert changed.pop(address) == value
    before = knobs(RECIPE)
    before.pop(address)
    assert changed == before


@pytest.mark.parametrize(
    ("address", "value", "message"),
    [
        ("train.lrr", "1", "did you mean train.lr"),
        ("data.sise", "1", "data.size"),
        ("nothing", "1", "data.path.*again.lr"),
        ("train.epochs", "many", "train.epochs takes int, got 'many'"),
        ("train.epochs", "1.5", "takes int"),
        ("train.epochs", "True", "takes int"),
        ("train.epochs", "0", "at least 1, got 0"),
        ("model.units", "2,x", "model.units"),
        ("data.inner.scale", "1,2,3", "data.inner.scale"),
    ],
)
def test_wrong_addresses_and_values_are_explained(address, value, message):
    with pytest.raises(InputError, match=message):
        with_knob(RECIPE, address, value)


def test_every_changes_a_setting_of_all_stages_that_have_it():
    before, changed = knobs(RECIPE), knobs(with_knob(RECIPE, "every.epochs", "7"))
    assert {address for address in before if before[address] != changed[address]} == {
        "train.epochs",
        "again.epochs",
        "teacher.epochs",
    }
    assert {changed[f"{stage}.epochs"] for stage in ("train", "again", "teacher")} == {7}
    assert knobs(with_knob(RECIPE, "every.model.units", "1,1,1"))["model.units"] == (4, 8, 4)


def test_settings_that_go_together_only_are_changed_together():
    stage = Stage(name="grids", step=Quantize())
    recipe = dataclasses.replace(RECIPE, stages=(*RECIPE.stages, stage))
    with pytest.raises(InputError, match="go together"):
        with_knob(recipe, "grids.lower", "int4")
    changed = with_knobs(recipe, {"grids.lower": "int4", "grids.bytes": "0.2", "data.size": 64})
    assert changed.stage("grids").step == Quantize(lower=("int4",), bytes=0.2)
    assert changed.data.size == 64


def test_of_two_values_for_a_setting_the_last_counts():
    changed = knobs(with_knobs(RECIPE, {"every.epochs": 9, "train.epochs": 5}))
    assert (changed["train.epochs"], changed["again.epochs"]) == (5, 9)
    assert knobs(with_knobs(RECIPE, {"train.epochs": 5, "every.epochs": 9}))["train.epochs"] == 9


def test_a_value_that_not_every_stage_takes_is_explained():
    with pytest.raises(InputError, match=r"train\.epochs takes int"):
        with_knob(RECIPE, "every.epochs", "many")
    with pytest.raises(InputError, match=r"no setting 'every\.sise'"):
        with_knob(RECIPE, "every.sise", "1")


def test_changes_of_all_stages_are_told_as_one_and_make_the_same_recipe():
    changed = with_knob(with_knob(with_knob(RECIPE, "every.epochs", 9), "again.lr", 0.3), "teacher.size", 64)
    before = knobs(RECIPE)
    changes = {address: value for address, value in knobs(changed).items() if value != before[address]}
    told = gathered(changes, before)
    assert told == {"every.epochs": 9, "again.lr": 0.3, "teacher.size": 64}
    rebuilt = RECIPE
    for address, value in told.items():
        rebuilt = with_knob(rebuilt, address, value)
    assert rebuilt == changed
