import dataclasses
from dataclasses import dataclass, field

import pytest

from solution.compress.quantize import Quantize
from solution.contracts import InputError, Recipe, Stage
from solution.models.shufflenet import ShuffleNet
from solution.settings import gathered, settings_of, with_setting, with_settings
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
    ("key", "text", "value"),
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
def test_a_setting_is_changed_by_its_address_and_nothing_else(key, text, value):
    changed = settings_of(with_setting(RECIPE, key, text))
    assert changed.pop(key) == value
    before = settings_of(RECIPE)
    before.pop(key)
    assert changed == before


@pytest.mark.parametrize(
    ("key", "value", "message"),
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
def test_wrong_addresses_and_values_are_explained(key, value, message):
    with pytest.raises(InputError, match=message):
        with_setting(RECIPE, key, value)


def test_every_changes_a_setting_of_all_stages_that_have_it():
    before, changed = settings_of(RECIPE), settings_of(with_setting(RECIPE, "every.epochs", "7"))
    assert {key for key in before if before[key] != changed[key]} == {
        "train.epochs",
        "again.epochs",
        "teacher.epochs",
    }
    assert {changed[f"{stage}.epochs"] for stage in ("train", "again", "teacher")} == {7}
    assert settings_of(with_setting(RECIPE, "every.model.units", "1,1,1"))["model.units"] == (4, 8, 4)


def test_settings_that_go_together_only_are_changed_together():
    stage = Stage(name="grids", step=Quantize())
    recipe = dataclasses.replace(RECIPE, stages=(*RECIPE.stages, stage))
    with pytest.raises(InputError, match="go together"):
        with_setting(recipe, "grids.lower", "int4")
    changed = with_settings(recipe, {"grids.lower": "int4", "grids.bytes": "20%", "data.size": 64})
    assert changed.stage("grids").step == Quantize(lower=("int4",), bytes="20%")
    assert changed.data.size == 64


def test_of_two_values_for_a_setting_the_last_counts():
    changed = settings_of(with_settings(RECIPE, {"every.epochs": 9, "train.epochs": 5}))
    assert (changed["train.epochs"], changed["again.epochs"]) == (5, 9)
    assert settings_of(with_settings(RECIPE, {"train.epochs": 5, "every.epochs": 9}))["train.epochs"] == 9


def test_a_value_that_not_every_stage_takes_is_explained():
    with pytest.raises(InputError, match=r"train\.epochs takes int"):
        with_setting(RECIPE, "every.epochs", "many")
    with pytest.raises(InputError, match=r"no setting 'every\.sise'"):
        with_setting(RECIPE, "every.sise", "1")


def test_changes_of_all_stages_are_told_as_one_and_make_the_same_recipe():
    changed = with_setting(with_setting(with_setting(RECIPE, "every.epochs", 9), "again.lr", 0.3), "teacher.size", 64)
    before = settings_of(RECIPE)
    changes = {key: value for key, value in settings_of(changed).items() if value != before[key]}
    told = gathered(changes, before)
    assert told == {"every.epochs": 9, "again.lr": 0.3, "teacher.size": 64}
    rebuilt = RECIPE
    for key, value in told.items():
        rebuilt = with_setting(rebuilt, key, value)
    assert rebuilt == changed
