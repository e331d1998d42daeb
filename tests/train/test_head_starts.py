"""Pretraining on other pictures and as an autoencoder: the trunk has learnt, the rest is as it was."""

from dataclasses import replace

import pytest
import torch
from test_train import Stopped, same

from solution.contracts import InputError, StepContext, plans_of, spec_of
from solution.data.loaders import Data
from solution.data.views import Augment
from solution.losses.classification import Loss, Mixing
from solution.losses.margins import Margin
from solution.models.outputs import FeatureExtractor
from solution.train.pretraining import Autoencode, Pretrain
from solution.train.progress import Bar
from solution.train.step import Train


def head_starts(photos):
    return {"pretrain": Pretrain(path=str(photos), epochs=4, lr=0.1), "autoencode": Autoencode(epochs=4)}


@pytest.mark.parametrize("name", ["pretrain", "autoencode"])
def test_the_trunk_has_learnt_and_classifier_and_origin_are_as_they_were(small_net, toy, photos, name):
    started = head_starts(photos)[name](small_net, toy)
    assert str(started) == str(small_net)
    assert torch.equal(started.output.weight, small_net.output.weight)
    assert not torch.equal(started.features.init_block.conv.weight, small_net.features.init_block.conv.weight)
    assert (spec_of(started), plans_of(started)) == (spec_of(small_net), plans_of(small_net))
    assert not any(parameter.requires_grad is False for parameter in started.parameters())


@pytest.mark.parametrize("name", ["pretrain", "autoencode"])
def test_a_stopped_head_start_goes_on_to_the_same_weights(small_net, toy, photos, name, tmp_path, monkeypatch):
    def stop(self, history):
        if len(history) == 2:
            raise Stopped

    step = head_starts(photos)[name]
    whole = step(small_net, toy)
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(Bar, "show", stop)
        step(small_net, replace(toy, folder=tmp_path))
    assert same(whole, step(small_net, replace(toy, folder=tmp_path, resume=True)))


def test_a_trunk_that_has_seen_like_pictures_tells_classes_apart_sooner(small_net, photos):
    """Colors are learnt from three classes first; the classifier alone then needs one epoch."""
    loaders = Data(path=str(photos), size=32, batch_size=16, workers=0).open()
    context = StepContext(example=torch.zeros(1, 3, 32, 32), train=loaders.train, dev=loaders.val, log=lambda _: None,
                  classes=loaders.info.classes)  # fmt: skip

    def hits(net):
        with torch.inference_mode():
            return torch.cat([net(x).argmax(1) == y for x, y in loaders.val]).float().mean()

    short = Train(epochs=2, lr=0.05, warmup_epochs=0)
    started = Pretrain(path=str(photos), epochs=10, lr=0.1, batch_size=16)(small_net, context)
    assert hits(short(started, context)) > hits(short(small_net, context))


def test_other_pictures_are_seen_as_the_task_s_are(small_net, photos):
    half = ((0.5,) * 3, (0.25,) * 3)
    task = Data(path=str(photos), size=24, batch_size=16, workers=0, augment=Augment(color=0.0, flip=0.0))
    context = StepContext(
        example=torch.zeros(1, 3, 24, 24), train=task.open(splits=("train",), normalization=half).train
    )
    loaders = Pretrain(path=str(photos), batch_size=8)._open(context)
    views = loaders.train.dataset
    assert (views.view.augment, views.view.size, views.normalization) == (task.augment, 24, half)
    assert loaders.train.batch_sampler.batch_size == 8
    assert len(views) == 72  # all of train: nothing is chosen


def test_an_autoencoder_redraws_ever_better(small_net, toy, tmp_path):
    import csv

    Autoencode(epochs=8, doublings=1)(small_net, replace(toy, folder=tmp_path))
    with (tmp_path / "history.csv").open() as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert losses[-1] < 0.7 * losses[0]


def test_the_decoder_draws_on_the_last_map(small_net, toy):
    objective = Autoencode(doublings=2, channels=8).objective(small_net, toy)
    with FeatureExtractor(small_net, (objective.map,)) as features:
        small_net(toy.example)
    side = features.maps[objective.map].shape[2]
    assert objective.decoder(features.maps[objective.map]).shape == (2, 3, 4 * side, 4 * side)


def test_what_cannot_be_learnt_from_is_said(small_net, toy, tmp_path):
    with pytest.raises(InputError, match=r"name the pictures to learn from first: --set STAGE\.path"):
        Pretrain()(small_net, toy)
    with pytest.raises(InputError, match="nowhere"):
        Pretrain(path=str(tmp_path / "nowhere"))(small_net, toy)
    for wrong in (
        {"loss": Loss(smoothing=0.0)},
        {"mixing": Mixing(mixup=1.0)},
        {"margin": Margin()},
        {"auxiliary": 1.0},
    ):
        with pytest.raises(InputError, match="an autoencoder has no labels"):
            Autoencode(**wrong)
    with pytest.raises(InputError, match=r"doublings must lie in \[0, 8\], got 9"):
        Autoencode(doublings=9)
    with pytest.raises(InputError, match="channels must be at least 1, got 0"):
        Autoencode(channels=0)
