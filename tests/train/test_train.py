import csv
import dataclasses
import itertools
import math
import os
import signal
import subprocess
import sys
import textwrap

import pytest
import torch

from solution.contracts import InputError
from solution.evaluate.classify import classify, predictor
from solution.losses.classification import Mixing
from solution.run_folder import RunFolder, read_history
from solution.runtime import ROOT
from solution.train import trainer
from solution.train.resume import save_state
from solution.train.settings import ema_decay, warmup_cosine
from solution.train.step import Train


def same(model, other):
    pairs = zip(model.state_dict().items(), other.state_dict().items(), strict=True)
    return all(name == twin and torch.equal(a, b) for (name, a), (twin, b) in pairs)


def test_training_learns_the_toy_task_and_leaves_its_input_untouched(small_net, toy):
    before = {name: tensor.clone() for name, tensor in small_net.state_dict().items()}
    trained = Train(epochs=10, lr=0.1)(small_net, toy)
    with torch.inference_mode():
        hits = [(trained(x).argmax(1) == y).float().mean() for x, y in toy.dev]
    assert sum(hits) / len(hits) > 0.9
    assert all(torch.equal(before[name], tensor) for name, tensor in small_net.state_dict().items())


def test_every_epoch_is_judged_and_the_last_kept_when_asked(small_net, toy, tmp_path):
    last = Train(epochs=3, lr=0.5, keep="last")(small_net, dataclasses.replace(toy, folder=tmp_path))
    with (tmp_path / "history.csv").open() as file:
        said = [float(row["dev_f1"]) for row in csv.DictReader(file)]
    assert len(said) == 3
    assert classify(predictor(last, "cpu"), toy.dev).f1 == pytest.approx(said[-1])


@pytest.mark.parametrize("settings", [{}, {"ema_decay": 0.9}, {"optimizer": "adamw", "lr": 1e-3}])
def test_the_same_seed_gives_the_same_weights(small_net, toy, settings):
    step = Train(epochs=2, **settings)
    assert same(step(small_net, toy), step(small_net, toy))


def test_a_classifier_fitted_alone_leaves_all_other_weights(small_net, toy):
    trained = Train(epochs=2, fitted="classifier")(small_net, toy)
    moved = {
        name for name, weight in trained.named_parameters() if not torch.equal(weight, small_net.get_parameter(name))
    }
    assert moved == {"output.weight"}
    assert all(weight.requires_grad for weight in trained.parameters())


@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_norms_keep_their_statistics_and_learn_their_weights(small_net, toy, frozen):
    trained = Train(epochs=1, frozen_norms=frozen)(small_net, toy).state_dict()
    same_as_before = {name: torch.equal(trained[name], tensor) for name, tensor in small_net.state_dict().items()}
    statistics = [same for name, same in same_as_before.items() if "running" in name]
    assert statistics == [frozen] * len(statistics) != []
    assert not same_as_before["features.init_block.bn.weight"]


class Stopped(Exception):
    pass


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"ema_decay": 0.9},
        {"optimizer": "adamw", "lr": 1e-3},
        {"mixing": Mixing(mixup=0.2, cutmix=1.0)},
        {"drop_path": 0.3, "first_size": 16},
        {"fitted": "classifier", "frozen_norms": True},
    ],
)
def test_a_stopped_training_goes_on_to_the_same_weights(small_net, toy, settings, tmp_path, monkeypatch):
    from dataclasses import replace

    from solution.train.progress import Bar

    step = Train(epochs=4, **settings)
    whole = step(small_net, toy)

    def stop_after_two(self, history):
        if len(history) == 2:
            raise Stopped

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(Bar, "show", stop_after_two)
        step(small_net, replace(toy, folder=tmp_path))
    lines = []
    resumed = step(small_net, replace(toy, folder=tmp_path, resume=True, log=lines.append))
    assert lines[0] == "going on after epoch 2 of 4"
    assert same(whole, resumed)
    with (tmp_path / "history.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2", "3", "4"]


@pytest.mark.long
def test_a_killed_process_goes_on_to_the_same_weights(tmp_path):
    code = textwrap.dedent("""
        import os, signal, sys, torch
        sys.path.insert(0, "tests")
        from dataclasses import replace
        from pathlib import Path
        from toy_batches import toy_batches
        from solution.contracts import StepContext
        from solution.models.shufflenet import ShuffleNet
        from solution.runtime import set_threads
        from solution.train.step import Train
        set_threads()
        folder, resume = Path(sys.argv[1]), sys.argv[2] == "resume"
        class Deadly(list):  # a training split that kills its reader in the third pass
            passes = 0
            def __iter__(self):
                Deadly.passes += 1
                for number, batch in enumerate(super().__iter__()):
                    if sys.argv[2] == "die" and Deadly.passes == 3 and number == 3:
                        os.kill(os.getpid(), signal.SIGKILL)
                    yield batch
        torch.manual_seed(0)
        net = ShuffleNet(units=(1, 2, 1), width=0.1, dropout=0.2).build(num_classes=3)
        context = StepContext(example=torch.zeros(1, 3, 32, 32), train=Deadly(toy_batches(6, 0)),
                              dev=toy_batches(2, 1), folder=folder, resume=resume)
        torch.save(Train(epochs=4, ema_decay=0.9)(net, context).state_dict(), folder / "result.pt")
    """)

    def run(folder, mode):
        folder.mkdir(exist_ok=True)
        return subprocess.run([sys.executable, "-c", code, str(folder), mode], cwd=ROOT, env=os.environ).returncode

    assert run(tmp_path / "whole", "fresh") == 0
    assert run(tmp_path / "cut", "die") == -signal.SIGKILL
    assert run(tmp_path / "cut", "resume") == 0
    whole, cut = (torch.load(tmp_path / name / "result.pt", weights_only=True) for name in ("whole", "cut"))
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


def test_the_best_epoch_is_kept(small_net, toy, tmp_path):
    from dataclasses import replace

    from solution.evaluate.classify import classify, predictor

    trained = Train(epochs=5, lr=0.05)(small_net, replace(toy, folder=tmp_path))
    with (tmp_path / "history.csv").open() as file:
        best = max(float(row["dev_f1"]) for row in csv.DictReader(file))
    assert classify(predictor(trained), toy.dev).f1 == pytest.approx(best)


def test_a_loss_that_is_no_number_stops_with_advice_and_keeps_the_last_good_state(small_net, toy, tmp_path):
    from dataclasses import replace

    poisoned = [*toy.train[:2], (toy.train[2][0] * math.nan, toy.train[2][1])]
    with pytest.raises(InputError, match=r"batch 3 of epoch 1.*the batch itself holds values that are no numbers"):
        Train(epochs=2)(small_net, replace(toy, train=poisoned, folder=tmp_path))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("settings", [{"momentum": 0.0}, {"momentum": 0.99}])
def test_a_rate_that_is_too_high_is_named_with_the_batch_where_it_shows(small_net, toy, settings):
    step = Train(epochs=20, lr=100.0, warmup_epochs=0, weight_decay=0.99, **settings)
    with pytest.raises(
        InputError, match=r"in batch \d of epoch \d, at learning rate .*too high; lower lr \(now 100.0\)"
    ):
        step(small_net, toy)


def test_answers_that_are_no_numbers_name_the_rate_though_all_losses_were_numbers(small_net, toy):
    huge = [(images * 1e38, labels) for images, labels in toy.dev]
    with pytest.raises(InputError, match=r"no numbers after epoch 1, at learning rate .*lower lr \(now 0.05\)"):
        Train(epochs=1, lr=0.05, warmup_epochs=0)(small_net, dataclasses.replace(toy, dev=huge))


def test_weights_that_are_no_numbers_are_not_blamed_on_the_rate(small_net, toy):
    small_net.output.weight.data[0] = math.nan
    with pytest.raises(InputError, match=r"batch 1 of epoch 1.*the net came with weights that are no numbers"):
        Train(epochs=1)(small_net, toy)


def test_state_of_other_settings_and_broken_state_are_refused(small_net, toy, tmp_path):
    from dataclasses import replace

    context = replace(toy, folder=tmp_path, resume=True)
    Train(epochs=1)(small_net, context)
    with pytest.raises(InputError, match="other settings"):
        Train(epochs=2)(small_net, context)
    (tmp_path / "training.safetensors").write_bytes(b"\x80\x04broken")
    with pytest.raises(InputError, match="delete it"):
        Train(epochs=1)(small_net, context)


def test_missing_batches_are_named(small_net, toy):
    from dataclasses import replace

    with pytest.raises(InputError, match="training needs train batches"):
        Train(epochs=1)(small_net, replace(toy, train=None))


def test_the_schedule_rises_then_falls_to_near_zero():
    factors = [warmup_cosine(step, 100, 10) for step in range(100)]
    assert factors[:10] == pytest.approx([0.1 * (step + 1) for step in range(10)])
    assert factors[10] == 1.0
    assert all(a > b for a, b in itertools.pairwise(factors[10:]))
    assert factors[-1] < 0.001


def test_the_average_forgets_the_start():
    assert ema_decay(0, 0.999) == pytest.approx(0.1)
    assert ema_decay(10**6, 0.999) == 0.999


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"lr": 0.0},
        {"momentum": 1.0},
        {"optimizer": "lion"},
        {"precision": "int8"},
        {"keep": "worst"},
        {"fitted": "trunk"},
    ],
)
def test_bad_settings_name_the_value(wrong):
    (value,) = wrong.values()
    with pytest.raises(InputError, match=str(value)):
        Train(**wrong)


@pytest.mark.parametrize(("precision", "imitated", "told"), [("bf16", True, 1), ("bf16", False, 0), ("fp32", True, 0)])
def test_bf16_that_is_imitated_is_told(small_net, toy, monkeypatch, precision, imitated, told):
    said = []
    monkeypatch.setattr(trainer, "imitates_bf16", lambda: imitated)
    Train(epochs=1, precision=precision)(small_net, dataclasses.replace(toy, log=said.append))
    assert sum("no bf16 instructions" in line for line in said) == told


def test_a_history_that_an_older_version_began_goes_on(tmp_path):
    folder = tmp_path / "train"
    save_state(folder, {"settings": ""}, [{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.0, "seconds": 4.5}])
    assert read_history(folder / "history.csv") == {"epoch": (1, 2), "loss": (2.0, 1.0), "seconds": (0, 4.5)}
    assert RunFolder(path=tmp_path).seconds_so_far("train") == 4.5
