from dataclasses import replace

import numpy as np
import pytest
import torch

from solution import checkpoint
from solution.contracts import Given, InputError
from solution.dataloader import MEAN, STD, Data
from solution.models.shufflenet import ShuffleNet
from solution.train import teachers
from solution.train.distill import Distill
from solution.train.step import Train


@pytest.fixture
def loaders(photos):
    return Data(path=str(photos), size=32, batch_size=16, workers=0, views=2).open(seed=3)


@pytest.fixture
def given_photos(loaders):
    return Given(
        example=torch.zeros(1, 3, 32, 32), train=loaders.train, choose=loaders.choose, classes=loaders.card.classes,
        counts=tuple(loaders.card.counts["train"].values()), load=checkpoint.load, say=lambda _: None,
    )  # fmt: skip


def saved(net, path, classes):
    about = {"classes": classes, "mean": MEAN, "std": STD, "size": 32}
    checkpoint.save(path, net, checkpoint.header_of(net, **about))
    return str(path)


def test_a_student_learns_what_only_its_teacher_knows(small_net, given_photos, tmp_path):
    teacher = Train(epochs=6, lr=0.1)(small_net, given_photos)
    path = saved(teacher, tmp_path / "teacher.safetensors", given_photos.classes)
    torch.manual_seed(1)
    student = ShuffleNet(units=(1, 1, 1), width=0.1).build(num_classes=3)
    taught = Distill(epochs=8, lr=0.1, teachers=(path,), share=1.0)(student, given_photos)
    with torch.inference_mode():
        pairs = [(taught(x).argmax(1), teacher(x).argmax(1)) for x, _ in given_photos.choose]
    agreed = torch.cat([mine == its for mine, its in pairs]).float().mean()
    assert agreed > 0.8


def test_stored_answers_are_those_of_the_teacher_to_each_view(small_net, loaders):
    said = teachers.answers(small_net, loaders.train.dataset, 2, say=lambda _: None)
    assert said.shape == (2, len(loaders.train.dataset), 3)
    images, _ = loaders.train.dataset.__getitems__([(1, 5), (0, 7)])
    with torch.inference_mode():
        np.testing.assert_allclose(said[[1, 0], [5, 7]], small_net(images).numpy(), atol=2e-3)


def test_a_teacher_answers_once(small_net, loaders, monkeypatch):
    views = loaders.train.dataset
    said = np.array(teachers.answers(small_net, views, 2, say=lambda _: None))
    monkeypatch.setattr(teachers, "_ask", lambda *_: pytest.fail("asked again"))
    np.testing.assert_array_equal(said, teachers.answers(small_net, views, 2))
    with pytest.raises(pytest.fail.Exception):
        teachers.answers(small_net, teachers.as_teacher_sees(views, 48, (MEAN, STD)), 2)


def test_answers_of_another_augmentation_seed_are_not_taken_up(small_net, loaders, photos):
    other = Data(path=str(photos), size=32, batch_size=16, workers=0, views=2).open(seed=4)
    keys = {teachers._key(small_net, one.train.dataset, 2) for one in (loaders, other)}
    assert len(keys) == 2


def test_batches_carry_the_answers_of_the_view_that_they_show(loaders):
    from solution.data.views import with_beside

    beside = np.random.default_rng(0).normal(size=(2, len(loaders.train.dataset), 3)).astype(np.float32)
    richer = with_beside(loaders.train, beside)
    for epoch in (0, 1, 2, 3):
        richer.set_epoch(epoch)
        pairs = [pair for batch in richer.batch_sampler for pair in batch]
        assert {view for view, _ in pairs} == {epoch % 2}
        told = torch.cat([values for _, _, values in richer])
        np.testing.assert_array_equal(told.numpy(), [beside[view, index] for view, index in pairs])


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        ({}, {}, "name at least one teacher"),
        ({"classes": ("a", "b", "c")}, {"teachers": ("{path}",)}, "knows the classes blue, green, red"),
        ({}, {"teachers": ("absent.safetensors",)}, "no checkpoint absent"),
        ({"train": [(torch.zeros(1, 3, 32, 32), torch.zeros(1))]}, {"teachers": ("{path}",)}, "data.views"),
    ],
)
def test_what_is_missing_is_said(small_net, given_photos, tmp_path, change, settings, message):
    path = saved(small_net, tmp_path / "teacher.safetensors", given_photos.classes)
    settings = {name: tuple(value.format(path=path) for value in values) for name, values in settings.items()}
    with pytest.raises(InputError, match=message):
        Distill(epochs=1, **settings)(small_net, replace(given_photos, **change))
