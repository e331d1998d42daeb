"""Spaces, and a recipe as a file."""

import dataclasses

import optuna
import pytest

from solution.compress.prune_layers import PruneLayers
from solution.contracts import InputError, Recipe, Stage
from solution.data.loaders import Data
from solution.data.views import Augment
from solution.losses.classification import Loss, Mixing
from solution.models.shufflenet import ShuffleNet
from solution.recipes.catalogue import RECIPES, SPACES, named, space_named
from solution.search.outcome import write_recipe
from solution.search.space import Choices, Range, applied, space_of
from solution.train.step import Train


@pytest.fixture
def recipe():
    return Recipe(
        name="small",
        data=Data(path='a "quoted" path', augment=Augment(flip=0.25)),
        model=ShuffleNet(units=(2, 2, 1)),
        stages=(
            Stage(name="train", step=Train(epochs=3, loss=Loss(macro_f1=0.123456789), mixing=Mixing(cutmix=1.0))),
            Stage(name="cut", step=PruneLayers(units=(1, 1, 1), ranking="last")),
        ),
        before="train",
        after="cut",
    )


def test_a_trial_sets_any_field_of_any_step_and_one_value_may_set_two(recipe):
    recipe = dataclasses.replace(recipe, stages=(*recipe.stages, Stage(name="tune", step=Train())), after="tune")
    plain = {"train.lr=tune.lr": (0.01, 0.9, "log"), "cut.units": [(1, 1, 1), (2, 1, 1)], "data.augment.flip": [0.0]}
    space = space_of(plain, recipe)
    trial = optuna.trial.FixedTrial(
        {"train.lr = tune.lr": 0.123456, "cut.units": "(2, 1, 1)", "data.augment.flip": "0.0"}
    )
    made = applied(recipe, space.draw(trial))
    assert (made.stages[0].step.lr, made.stages[2].step.lr) == (0.1235, 0.1235)
    assert made.stages[1].step.units == (2, 1, 1)
    assert made.data.augment.flip == 0.0


def test_a_recipe_s_own_settings_are_known_as_far_as_the_space_offers_them(recipe):
    recipe = dataclasses.replace(recipe, stages=(*recipe.stages, Stage(name="tune", step=Train(lr=0.5))), after="tune")
    plain = {
        "data.augment.flip": (0.0, 0.5),
        "train.epochs": (1, 3),
        "cut.units": [(2, 1, 1), (1, 1, 1)],
        "model.units": [(1, 1, 1)],  # the recipe's is not offered
        "train.loss.macro_f1": (0.2, 1.0),  # outside
        "train.lr = tune.lr": (0.01, 1.0),  # the two are not equal
    }
    own = {"data.augment.flip": 0.25, "train.epochs": 3, "cut.units": "(1, 1, 1)"}
    assert space_of(plain, recipe).own(recipe) == own


def test_settings_that_fit_together_only_are_set_in_either_order(recipe):
    for names in (("model.groups", "model.widths"), ("model.widths", "model.groups")):
        drawn = {"model.groups": 2, "model.widths": (8, 64, 128, 256)}
        assert applied(recipe, {name: drawn[name] for name in names}).model.groups == 2
    with pytest.raises(InputError, match="do not divide"):
        applied(recipe, {"model.groups": 8, "model.widths": (6, 60, 120, 240)})


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        ({}, "the search space is empty"),
        ({"train.lrr": (0.1, 0.2)}, "did you mean train.lr.*train.momentum"),
        ({"trainn.lr": (0.1, 0.2)}, "there are: data.path"),
        ({"train.lr = cut.lr": (0.1, 0.2)}, "no setting 'cut.lr'"),
        ({"train.lr": (0.2, 0.1)}, "train.lr: give a list of choices"),
        ({"train.lr": (0.0, 0.1, "log")}, "0 < low < high"),
        ({"train.lr": 0.1}, "got 0.1"),
        ({"train.epochs": (0.5, 2.5)}, "train.epochs takes int"),
        ({"train.optimizer": ["adam", "lamb"]}, "must be one of sgd, adamw"),
    ],
)
def test_a_space_that_does_not_fit_the_recipe_is_refused(recipe, plain, message):
    with pytest.raises(InputError, match=message):
        space_of(plain, recipe)


def test_whole_ranges_stay_whole_and_choices_keep_their_type():
    assert isinstance(Range(low=1, high=9).distribution(), optuna.distributions.IntDistribution)
    assert Range(low=0.1, high=0.5).read(0.1234499) == 0.1234
    assert Range(low=0.12342, high=0.98765).read(0.12342) == 0.12342  # rounding must not leave the range
    assert Range(low=0.12342, high=0.98765).read(0.98765) == 0.98765
    assert Choices(values=((1, 2), None, True)).read("None") is None


@pytest.mark.parametrize("name", SPACES)
def test_every_space_fits_its_recipe(name):
    assert space_of(SPACES[name](), named(name)).described()


def test_a_written_recipe_is_read_back_and_says_only_what_is_not_the_default(recipe, tmp_path):
    path = tmp_path / "found.py"
    write_recipe(path, recipe, "Found.\n")
    assert named(str(path)) == recipe
    text = path.read_text()
    assert text.startswith('"""Found.\n"""')
    assert "from solution.losses.classification import Mixing\n" in text
    assert "momentum" not in text
    assert max(map(len, text.splitlines())) <= 120
    assert space_named(str(path)) == {}


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_can_be_written(name, tmp_path):
    write_recipe(tmp_path / "again.py", named(name), "Again.")
    assert named(str(tmp_path / "again.py")) == named(name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "there is no recipe file"),
        ("x = 1", "has no function recipe"),
        ("def recipe():\n    return 3", "must return a Recipe, it returned int"),
        ("def recipe(:", "SyntaxError"),
        ("import nowhere_to_be_found", "nowhere_to_be_found"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused(tmp_path, text, message):
    path = tmp_path / "mine.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=message):
        named(str(path))
