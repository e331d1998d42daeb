"""Searches that train: small nets on three colors."""

import csv
import dataclasses
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from optuna.trial import TrialState

from solution import checkpoint, pipeline
from solution.compress.prune_layers import PruneLayers
from solution.contracts import InputError, Recipe, Stage
from solution.data.loaders import Data
from solution.evaluate.score import Scorer
from solution.models.shufflenet import ShuffleNet
from solution.pipeline import stages_to
from solution.recipes.catalogue import named
from solution.search.session import Search
from solution.search.study import Figures, TrialRejected, figures_of, is_rejected, latest, rungs_of, tried
from solution.search.trainer import Limits, foreseen_macs, total_epochs
from solution.search.worker import TrialQueue
from solution.train.distillation import Assist, Distill
from solution.train.step import Train


@pytest.fixture(scope="module")
def recipe(photos, tmp_path_factory):
    """Three epochs, a cut, six epochs. A third of the labels is wrong, so that no net is perfect; the val pictures
    cannot be read, and so cannot have been looked at."""
    blind = tmp_path_factory.mktemp("blind") / "colors"
    shutil.copytree(photos, blind)
    names = ("blue", "green", "red")
    for name, wrong in zip(names, (*names[1:], names[0]), strict=True):
        for number in range(0, 24, 3):
            (blind / "train" / name / f"{number}.png").rename(blind / "train" / wrong / f"was_{name}_{number}.png")
    for picture in (blind / "val").rglob("*.png"):
        picture.write_bytes(b"")
    train = Train(epochs=3, lr=0.05, warmup_epochs=0)
    return Recipe(
        name="colors",
        data=Data(path=str(blind), size=32, batch_size=16, workers=0, dev_share=0.25),
        model=ShuffleNet(units=(2, 2, 1), width=0.1),
        stages=(
            Stage(name="train", step=train),
            Stage(name="before", step=dataclasses.replace(train, epochs=1)),
            Stage(name="cut", step=PruneLayers(units=(1, 1, 1)), after="train"),
            Stage(name="after", step=dataclasses.replace(train, epochs=6, ema_decay=0.9)),
        ),
        before="before",
        after="after",
    )


SPACE = {
    "train.lr = after.lr": (0.01, 0.2, "log"),
    "cut.units": [(1, 1, 1), (2, 1, 1), (2, 2, 1)],  # the last one would cut nothing: it is refused
    "data.augment.color": (0.0, 0.3),
}


OWN = {"train.lr = after.lr": 0.05, "cut.units": "(1, 1, 1)", "data.augment.color": 0.3}


def quiet(_):
    pass


def search(recipe, folder, **settings):
    return Search(recipe=recipe, space=SPACE, folder=folder, **{"trials": 6, "first_epochs": 1, **settings})


@pytest.fixture(scope="module")
def found(recipe, tmp_path_factory):
    """A finished search whose worker was stopped in the middle of an epoch several times on its way."""
    one = search(recipe, tmp_path_factory.mktemp("found"))
    calls = iter(range(10**6))

    def stumbling(line):
        if next(calls) % 7 == 6:
            raise KeyboardInterrupt

    for _ in range(30):
        try:
            search(recipe, one.folder).work(log=stumbling)
            break
        except KeyboardInterrupt:
            continue
    one.outcome().write()
    return one


def epochs_in(folder):
    with folder.open() as file:
        return [int(row["epoch"]) for row in csv.DictReader(file)]


def test_every_trial_ends_and_none_is_trained_twice(found):
    trials = found.queue.study.get_trials(deepcopy=False)
    assert len(found.queue.counted()) == 6
    assert [trial for trial in trials if trial.state == TrialState.COMPLETE]
    assert not any(trial.state in (TrialState.RUNNING, TrialState.FAIL) for trial in trials)
    for trial in latest(trials).values():
        if is_rejected(trial):
            continue
        folder = found.queue.trial_folder(trial)
        told = [epochs_in(folder / name / "history.csv") for name in ("train", "after") if (folder / name).exists()]
        assert all(epochs == list(range(1, len(epochs) + 1)) for epochs in told)
        done = sum(map(len, told))
        assert done == (9 if trial.state == TrialState.COMPLETE else max(rungs_of(trial)))
        assert not (folder / "before").exists()


def test_the_first_trial_has_the_recipe_s_own_settings_and_no_other_one_has(found):
    first, *others = (trial.params for trial in latest(found.queue.study.get_trials(deepcopy=False)).values())
    assert first == OWN
    assert OWN not in others


def test_weak_trials_rest_with_their_state_and_finished_ones_drop_it(found):
    trials = latest(found.queue.study.get_trials(deepcopy=False)).values()
    resting = [trial for trial in trials if trial.state == TrialState.PRUNED and not is_rejected(trial)]
    assert resting
    for trial in resting:
        assert list(found.queue.trial_folder(trial).rglob("training.safetensors"))
        line = tried(trial)
        assert line.score == pytest.approx(Scorer()(line.macs, line.f1))
    for trial in trials:
        if trial.state == TrialState.COMPLETE:
            assert not list(found.queue.trial_folder(trial).rglob("training.safetensors"))


def test_what_cannot_be_built_is_refused_unpaid(found):
    refused = [trial for trial in found.queue.study.get_trials(deepcopy=False) if is_rejected(trial)]
    for trial in refused:
        reason = "nothing would be taken out" if trial.params["cut.units"] == "(2, 2, 1)" else "even macro F1 1"
        assert reason in trial.user_attrs["refused"]
        assert not (found.queue.trial_folder(trial) / "train").exists()


def test_the_recipe_that_is_found_gives_the_weights_of_the_trial(found, photos, tmp_path):
    path = found.folder / "best.py"
    recipe = named(str(path))
    shutil.copytree(Path(recipe.data.path) / "train", tmp_path / "data" / "train")
    shutil.copytree(photos / "val", tmp_path / "data" / "val")
    recipe = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, path=str(tmp_path / "data")))
    rows = list(pipeline.run(recipe, tmp_path / "run", log=quiet))
    trial = min(
        (trial for trial in found.queue.study.get_trials(deepcopy=False) if figures_of(trial)),
        key=lambda trial: figures_of(trial).score,
    )
    theirs, _ = checkpoint.load(found.queue.trial_folder(trial) / "after" / "model.safetensors")
    ours, _ = checkpoint.load(tmp_path / "run" / "after.safetensors")
    assert rows[-1].macs == figures_of(trial).macs
    assert all(torch.equal(a, b) for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True))


def test_the_files_of_the_outcome(found):
    names = {path.name for path in found.folder.iterdir()}
    assert {"best.py", "trials.csv", "history.svg", "front.svg", "journal.log"} <= names
    for name, shown in (("history.svg", "trials trained to the end, the best"), ("front.svg", "trials (dev split)")):
        assert shown in ElementTree.parse(found.folder / name).getroot().attrib["aria-label"]


def test_another_space_or_other_settings_need_another_study(recipe, found, photos):
    with pytest.raises(InputError, match="another space"):
        _ = dataclasses.replace(search(recipe, found.folder), space={"train.lr": (0.1, 0.2)}).queue
    other = dataclasses.replace(recipe, model=ShuffleNet(units=(2, 2, 1), width=0.2))
    with pytest.raises(InputError, match=r"another recipe \(model.width: 0.1 there, 0.2 here\)"):
        _ = search(other, found.folder).queue
    elsewhere = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, path=str(photos)))
    assert isinstance(search(elsewhere, found.folder).queue, TrialQueue)
    with pytest.raises(InputError, match="at least 1 trial, got 0"):
        search(recipe, found.folder, trials=0)


@pytest.mark.parametrize(
    ("units", "macs"), [((4, 6, 3), 1_439_700), ((3, 5, 3), 1_272_450), ((2, 5, 2), 1_083_210), ((2, 4, 2), 1_007_460)]
)
def test_macs_are_known_before_training(units, macs):
    recipe = named("waste_shufflenet")
    stages = tuple(
        dataclasses.replace(stage, step=PruneLayers(units=units)) if stage.name == "prune_layers" else stage
        for stage in recipe.stages
    )
    assert foreseen_macs(dataclasses.replace(recipe, stages=stages), 9) == macs


def test_an_assistant_is_paid_for():
    recipe = named("waste_shufflenet")
    alone = Stage(name="alone", step=Train(epochs=1))
    helped = Stage(name="helped", step=Assist(epochs=1, teachers=("x",), assistant=ShuffleNet(units=(2, 5, 2))))
    lone = foreseen_macs(dataclasses.replace(recipe, stages=(alone,), before="alone", after="alone"), 9)
    both = foreseen_macs(dataclasses.replace(recipe, stages=(alone, helped), before="alone", after="helped"), 9)
    assert (lone, both) == (1_688_940, 1_688_940 + 1_083_210)


def test_teachers_aside_from_the_way_to_after_must_be_there_before(recipe, tmp_path):
    distilled = tuple(
        dataclasses.replace(stage, step=Distill(epochs=1, teachers=("before",))) if stage.name == "after" else stage
        for stage in recipe.stages
    )
    with pytest.raises(InputError, match=r"which no trial trains.*--set after.teachers=RUN/before/model.safetensors"):
        search(dataclasses.replace(recipe, stages=distilled), tmp_path)
    with pytest.raises(InputError, match="use_all_train leaves none"):
        search(dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, use_all_train=True)), tmp_path)


def test_only_the_way_to_after_is_trained():
    recipe = named("waste_shufflenet")
    assert [stage.name for stage in stages_to(recipe, "after")] == ["train", "prune_layers", "after"]
    assert total_epochs(recipe) == sum(stage.step.epochs for stage in recipe.stages if stage.name in ("train", "after"))


def figures(macs, f1):
    return Figures(macs=macs, f1=f1, score=Scorer()(macs, f1))


def test_a_net_that_could_not_win_with_every_answer_right_is_refused():
    best = figures(1_000_000, 0.75)
    bound = round((best.score - Scorer().f1_term(1.0)) * Scorer().reference_macs)
    Limits().check(bound - 10, [best], "score")
    with pytest.raises(TrialRejected, match="even macro F1 1 would make score") as refused:
        Limits().check(bound + 100_000, [figures(5_000_000, 0.6), best], "score")
    assert refused.value.excess > 0
    with pytest.raises(TrialRejected, match=r"even macro F1 0\.8"):
        Limits(hope=0.8).check(bound - 10, [best], "score")


def test_nets_above_the_limit_are_refused_and_more_so_the_larger_they_are():
    excess = []
    for macs in (14_000_000, 20_000_000):
        with pytest.raises(TrialRejected, match="more than the limit of 13,863,553") as refused:
            Limits().check(macs, [], "score")
        excess.append(refused.value.excess)
    assert 0 < excess[0] < excess[1]


def test_nets_that_need_more_memory_than_a_chip_has_are_refused():
    net, images = torch.nn.Conv2d(3, 8, 3, padding=1), torch.zeros(2, 3, 32, 32)
    Limits(ram="16 KiB").check_ram(net, images)
    Limits().check_ram(net, images)
    with pytest.raises(TrialRejected, match="bytes of memory, more than 8 KiB") as refused:
        Limits(ram="8 KiB").check_ram(net, images)
    assert 0 < refused.value.excess < 1


def test_with_two_objectives_only_what_is_beaten_in_both_is_refused():
    done = [figures(1_000_000, 0.8)]
    Limits(hope=0.8).check(999_999, done, "front")
    Limits(hope=0.9).check(2_000_000, done, "front")
    with pytest.raises(TrialRejected):
        Limits(hope=0.8).check(1_000_000, done, "front")


@pytest.mark.parametrize("wrong", [{"macs": 0}, {"hope": 0.0}, {"hope": 61.0}, {"ram": "50%"}])
def test_limits_that_make_no_sense(wrong):
    with pytest.raises(InputError, match=f"got {next(iter(wrong.values()))}"):
        Limits(**wrong)
