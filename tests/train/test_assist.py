"""Residual distillation: a second net beside a finished one."""

import pytest
import torch
from test_distill import given_photos, loaders, saved  # noqa: F401 - fixtures

from solution import checkpoint
from solution.contracts import InputError
from solution.losses.distillation import DistillLoss
from solution.models.shufflenet import ShuffleNet
from solution.train.distillation import Assist, AssistPlan
from solution.train.step import Train


@pytest.fixture
def small_assistant():
    return ShuffleNet(units=(1, 1, 1), width=0.1)


def test_a_fresh_assistant_says_nothing(small_net, small_assistant, toy):
    from dataclasses import asdict

    summed = AssistPlan(assistant=asdict(small_assistant), num_classes=3).apply(small_net)
    torch.testing.assert_close(summed(toy.example), small_net(toy.example))


def test_the_sum_comes_nearer_to_the_teacher_and_reloads(small_net, small_assistant, given_photos, tmp_path):  # noqa: F811
    teacher = Train(epochs=4, lr=0.1)(small_net, given_photos)
    path = saved(teacher, tmp_path / "teacher.safetensors", given_photos.classes)
    torch.manual_seed(1)
    student = ShuffleNet(units=(1, 1, 1), width=0.1).build(num_classes=3).eval()
    step = Assist(epochs=8, lr=0.01, teachers=(path,), assistant=small_assistant, share=1.0, keep="last")
    summed = step(student, given_photos)

    def distance(net):
        with torch.inference_mode():
            return sum(float((net(x) - teacher(x)).square().mean()) for x, _ in given_photos.dev)

    assert distance(summed) < 0.5 * distance(student)
    twins = zip(summed.student.state_dict().values(), student.state_dict().values(), strict=True)
    assert all(torch.equal(kept, was) for kept, was in twins)
    again, _ = checkpoint.load(saved(summed, tmp_path / "sum.safetensors", given_photos.classes))
    assert torch.equal(again(given_photos.example), summed(given_photos.example))


def test_what_an_assistant_cannot_learn_from_is_said():
    with pytest.raises(InputError, match="learns from logits"):
        Assist(live=True, distill_loss=DistillLoss(hint=1.0))
