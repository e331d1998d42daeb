import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from solution import checkpoint
from solution.contracts import InputError, StepContext
from solution.data.loaders import MEAN, STD, Data
from solution.data.views import Augment, Viewer
from solution.losses.classification import Mixing
from solution.losses.distillation import DistillLoss
from solution.models.shufflenet import ShuffleNet
from solution.train import distillation as teachers
from solution.train.distillation import Distill
from solution.train.step import Train


@pytest.fixture
def loaders(photos):
    return Data(path=str(photos), size=32, batch_size=16, workers=0, views=2).open(seed=3)


@pytest.fixture
def given_photos(loaders):
    return StepContext(
        example=torch.zeros(1, 3, 32, 32), train=loaders.train, dev=loaders.dev, classes=loaders.info.classes,
        counts=tuple(loaders.info.counts["train"].values()), load=checkpoint.load, log=lambda _: None,
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
    distilled = Distill(epochs=8, lr=0.1, teachers=(path,), share=1.0)(student, given_photos)
    with torch.inference_mode():
        pairs = [(distilled(x).argmax(1), teacher(x).argmax(1)) for x, _ in given_photos.dev]
    agreed = torch.cat([mine == its for mine, its in pairs]).float().mean()
    assert agreed > 0.8


def test_stored_answers_are_those_of_the_teacher_to_each_view(small_net, loaders):
    said = teachers.store_teacher_logits(small_net, loaders.train.dataset, 2, log=lambda _: None)
    assert said.shape == (2, len(loaders.train.dataset), 3)
    images, _ = loaders.train.dataset.__getitems__([(1, 5), (0, 7)])
    with torch.inference_mode():
        np.testing.assert_allclose(said[[1, 0], [5, 7]], small_net(images).numpy(), atol=2e-3)


def test_answers_in_bf16_are_close_to_those_in_float32_and_kept_apart(small_net, loaders):
    views = loaders.train.dataset
    exact, half = (
        np.array(teachers.store_teacher_logits(small_net, views, 1, log=lambda _: None, bf16=bf16))
        for bf16 in (False, True)
    )
    assert not np.array_equal(half, exact)
    np.testing.assert_allclose(half, exact, atol=0.05 * np.abs(exact).max())


@pytest.fixture
def is_asked(tmp_path, monkeypatch):
    """Whether a teacher answers these views now, instead of having done so before."""
    monkeypatch.setenv("SOLUTION_CACHE", str(tmp_path))

    def asked(teacher, views):
        lines = []
        teachers.store_teacher_logits(teacher, views, 2, lines.append)
        return lines == [f"the teacher answers 2 views of {len(views)} pictures, once"]

    return asked


def test_a_teacher_answers_once_at_each_size(small_net, loaders, is_asked):
    views = loaders.train.dataset
    larger = teachers.as_teacher_sees(views, 48, (MEAN, STD))
    assert [is_asked(small_net, some) for some in (views, views, larger, larger)] == [True, False, True, False]


@pytest.mark.parametrize(
    ("settings", "seed"),
    [
        ({}, 4),  # another augmentation seed
        ({"augment": Augment(flip=0.0)}, 3),
        ({"split_seed": 1}, 3),
        ({"folds": 2}, 3),
        ({"size": 24}, 3),
    ],
)
def test_answers_of_another_seed_set_or_view_are_not_taken_up(small_net, loaders, photos, is_asked, settings, seed):
    about = {"path": str(photos), "size": 32, "batch_size": 16, "workers": 0, "views": 2}
    other = Data(**about | settings).open(seed=seed)
    same = Data(**about).open(seed=3)
    assert [is_asked(small_net, one.train.dataset) for one in (loaders, other, same)] == [True, True, False]


def test_answers_of_another_teacher_are_not_taken_up(small_net, loaders, is_asked):
    views = loaders.train.dataset
    assert is_asked(small_net, views)
    with torch.no_grad():
        small_net.output.weight[0, 0] += 1e-3
    assert is_asked(small_net, views)


def test_damaged_answers_are_asked_for_again(small_net, loaders, tmp_path, monkeypatch):
    monkeypatch.setenv("SOLUTION_CACHE", str(tmp_path))
    views, lines = loaders.train.dataset, []
    said = np.array(teachers.store_teacher_logits(small_net, views, 1, lines.append))
    (path,) = tmp_path.glob("answers-*.npy")
    path.write_bytes(path.read_bytes()[:-7])
    np.testing.assert_array_equal(teachers.store_teacher_logits(small_net, views, 1, lines.append), said)
    assert lines == [f"the teacher answers 1 views of {len(views)} pictures, once"] * 2


def test_views_that_are_shown_again_are_made_once_and_are_the_same(loaders, photos, tmp_path, monkeypatch):
    monkeypatch.setenv("SOLUTION_CACHE", str(tmp_path))
    views, lines = loaders.train.dataset, []
    pairs = [(view, index) for view in range(2) for index in range(len(views))]
    kept = views.stored(2, lines.append)
    with monkeypatch.context() as patch:
        patch.setattr(Viewer, "__call__", lambda *_: pytest.fail("made again"))
        again = pickle.loads(pickle.dumps(views.stored(2, lines.append)))
    (path,) = tmp_path.glob("views-*.npy")
    assert lines == [f"2 views of {len(views)} pictures are made, once: 0.0 GB in {path}"]
    for batch in (kept.__getitems__(pairs), again.__getitems__(pairs)):
        for part, fresh in zip(batch, views.__getitems__(pairs), strict=True):
            assert torch.equal(part, fresh)
    path.write_bytes(path.read_bytes()[:-7])
    assert torch.equal(views.stored(2, lines.append).__getitems__(pairs)[0], views.__getitems__(pairs)[0])
    assert len(lines) == 2


def test_views_that_cannot_be_kept_are_made_each_time(loaders, tmp_path, monkeypatch):
    monkeypatch.setenv("SOLUTION_CACHE", str(tmp_path))
    views, lines = loaders.train.dataset, []
    with monkeypatch.context() as patch:
        patch.setattr("solution.data.views.MOST_STORED_BYTES", 1000)
        assert views.stored(2, lines.append).pixels is None
    assert lines == []

    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(np.lib.format, "write_array_header_1_0", full)
    assert views.stored(2, lines.append).pixels is None
    assert lines[-1] == "they cannot be kept (no space left on device), so each is made whenever it is shown"
    assert list(tmp_path.iterdir()) == []


def test_a_teacher_sees_views_of_its_own_size(loaders, tmp_path, monkeypatch):
    monkeypatch.setenv("SOLUTION_CACHE", str(tmp_path))
    small = loaders.train.dataset.stored(2, lambda _: None)
    large = teachers.as_teacher_sees(small, 48, (MEAN, STD))
    assert large.__getitems__([(0, 0)])[0].shape == (1, 3, 48, 48)


def test_batches_carry_the_answers_of_the_view_that_they_show(loaders):
    from solution.data.views import with_teacher_logits

    teacher_logits = np.random.default_rng(0).normal(size=(2, len(loaders.train.dataset), 3)).astype(np.float32)
    richer = with_teacher_logits(loaders.train, teacher_logits)
    for epoch in (0, 1, 2, 3):
        richer.set_epoch(epoch)
        pairs = [pair for batch in richer.batch_sampler for pair in batch]
        assert {view for view, _ in pairs} == {epoch % 2}
        assert richer.dataset.pixels is not None
        images, _, told = map(torch.cat, zip(*richer, strict=True))
        assert torch.equal(images, loaders.train.dataset.__getitems__(pairs)[0])
        np.testing.assert_array_equal(told.numpy(), [teacher_logits[view, index] for view, index in pairs])


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


@pytest.mark.parametrize(
    "distill_loss",
    [DistillLoss(hint=1.0), DistillLoss(logits=0.0, attention=100.0), DistillLoss(distance=5.0, angle=5.0)],
)
def test_a_live_teacher_shows_its_feature_maps(small_net, given_photos, tmp_path, distill_loss):
    path = saved(small_net, tmp_path / "teacher.safetensors", given_photos.classes)
    torch.manual_seed(1)
    student = ShuffleNet(units=(1, 1, 1), width=0.1).build(num_classes=3)
    step = Distill(epochs=1, teachers=(path,), live=True, distill_loss=distill_loss)
    distilled = step(student, replace(given_photos, folder=tmp_path))
    assert [*distilled.state_dict()] == [*student.state_dict()]
    plain = Distill(epochs=1, teachers=(path,), live=True)(student, given_photos)
    assert not torch.equal(distilled.output.weight, plain.output.weight)


def test_a_live_teacher_says_what_is_stored(small_net, given_photos, loaders, tmp_path):
    path = tmp_path / "teacher.safetensors"
    about = {"classes": given_photos.classes, "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.25), "size": 48}
    checkpoint.save(path, small_net, checkpoint.header_of(small_net, **about))
    images, _ = loaders.train.dataset.__getitems__([(0, 0), (0, 1)])
    teacher = teachers.LiveTeacher(str(path), given_photos)
    raw = images * torch.tensor(STD).view(1, 3, 1, 1) + torch.tensor(MEAN).view(1, 3, 1, 1)
    large = torch.nn.functional.interpolate(raw, size=(48, 48), mode="bilinear", antialias=True)
    wanted = (large - torch.tensor(about["mean"]).view(1, 3, 1, 1)) / torch.tensor(about["std"]).view(1, 3, 1, 1)
    with torch.inference_mode():
        torch.testing.assert_close(teacher(images, False).logits, small_net(wanted), rtol=1e-4, atol=1e-5)


def test_a_live_teacher_answers_mixed_images(small_net, given_photos, tmp_path):
    path = saved(small_net, tmp_path / "teacher.safetensors", given_photos.classes)
    Distill(epochs=1, teachers=(path, path), live=True, mixing=Mixing(mixup=0.2))(small_net, given_photos)
    with pytest.raises(InputError, match="live=True"):
        Distill(teachers=(path,), mixing=Mixing(mixup=0.2))
    with pytest.raises(InputError, match="live=True"):
        Distill(teachers=(path,), distill_loss=DistillLoss(hint=1.0))
