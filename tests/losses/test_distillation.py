"""Golden values, what each loss is blind to, and how DKD and KD are one."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from torch import nn

from solution.contracts import InputError
from solution.losses.distillation import (
    DistillLoss,
    NetOutput,
    attention_transfer,
    decoupled_kd,
    hint,
    relational_angle,
    relational_distance,
    residual_target,
    standardized_kd,
    temperature_kd,
)


def logits(seed, images=6, classes=5, spread=3.0):
    return spread * torch.randn(images, classes, generator=torch.Generator().manual_seed(seed))


def features(seed, channels=4, side=3, images=6):
    return torch.randn(images, channels, side, side, generator=torch.Generator().manual_seed(seed))


LABELS = torch.tensor([0, 1, 2, 3, 4, 0])


def test_temperature_kd_by_hand():
    student, teacher = torch.zeros(1, 2), torch.tensor([[2 * math.log(3.0), 0.0]])  # at T = 2: 1/2, 1/2; 3/4, 1/4
    expected = 4 * (0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5))
    assert float(temperature_kd(student, teacher, 2.0)) == pytest.approx(expected)


def test_decoupled_kd_by_hand():
    student = torch.zeros(1, 3)  # 1/3 each: target against rest 1/3, 2/3; the rest 1/2, 1/2
    teacher = torch.tensor([[0.5, 0.375, 0.125]]).log()
    target, others = decoupled_kd(student, teacher, torch.tensor([0]), 1.0)
    assert float(target) == pytest.approx(0.5 * math.log(0.5 / (1 / 3)) + 0.5 * math.log(0.5 / (2 / 3)))
    assert float(others) == pytest.approx(0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), temperature=st.floats(0.5, 10))
def test_kd_is_its_halves_with_the_second_weighed_by_the_teachers_doubt(seed, temperature):
    student, teacher = logits(seed), logits(seed + 1)
    for image, label in enumerate(LABELS[:3]):
        pair = student[image : image + 1], teacher[image : image + 1]
        target, others = decoupled_kd(*pair, label[None], temperature)
        doubt = 1 - float((pair[1] / temperature).softmax(1)[0, label])
        whole = float(temperature_kd(*pair, temperature))
        assert whole == pytest.approx(float(target) + doubt * float(others), rel=1e-3, abs=1e-4)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_agreement_costs_nothing_and_difference_something(seed):
    same, other, maps, finer = logits(seed), logits(seed + 1), features(seed), features(seed + 1)
    for loss in (lambda s: temperature_kd(s, same, 4.0), lambda s: standardized_kd(s, same, 2.0)):
        assert float(loss(same)) == pytest.approx(0, abs=1e-5)
        assert float(loss(other)) > 1e-3
    assert sum(decoupled_kd(same, same, LABELS, 4.0)) == pytest.approx(0, abs=1e-5)
    for loss in (hint, attention_transfer):
        assert float(loss(maps, maps)) == 0
        assert float(loss(finer, maps)) > 1e-3
    for loss in (relational_distance, relational_angle):
        assert float(loss(same, same)) == 0
        assert float(loss(other, same)) > 1e-3


def test_standardized_kd_sees_neither_size_nor_shift_of_logits():
    student, teacher = logits(0), logits(1)
    plain, moved = standardized_kd(student, teacher, 2.0), standardized_kd(5 * student + 7, 0.5 * teacher - 3, 2.0)
    assert float(plain) == pytest.approx(float(moved), rel=1e-3)


def test_dkd_takes_the_largest_of_mixed_targets():
    mixed = 0.6 * F.one_hot(LABELS, 5) + 0.4 * F.one_hot((LABELS + 2) % 5, 5)
    by_label = decoupled_kd(logits(0), logits(1), LABELS, 4.0)
    assert decoupled_kd(logits(0), logits(1), mixed, 4.0) == by_label


def test_hint_projects_and_pools_the_finer_map():
    student, teacher = features(0, channels=2, side=4), features(1, channels=3, side=2)
    projection = nn.Conv2d(2, 3, 1).requires_grad_(False)
    expected = F.mse_loss(F.avg_pool2d(projection(student), 2), teacher)
    assert float(hint(student, teacher, projection)) == pytest.approx(float(expected))
    with pytest.raises(InputError, match=r"got 2 and the teacher's 3.*nn.Conv2d\(2, 3, 1\)"):
        hint(student, teacher)


def test_attention_sees_where_not_how_much_nor_in_which_channels():
    maps = features(0, channels=4)
    assert float(attention_transfer(3 * maps, maps)) == pytest.approx(0, abs=1e-6)
    assert float(attention_transfer(maps.repeat(1, 2, 1, 1), maps)) == pytest.approx(0, abs=1e-6)
    left, right = torch.zeros(1, 1, 1, 2), torch.zeros(1, 1, 1, 2)
    left[..., 0], right[..., 1] = 1.0, 5.0
    assert float(attention_transfer(left, right)) == pytest.approx(2)


def test_relations_by_hand():
    corner = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])  # distances 3, 4, 5; mean 4
    line = torch.tensor([[0.0], [1.0], [2.0]])  # distances 1, 2, 1; mean 4/3
    gaps = [3 / 4 - 1 / (4 / 3), 4 / 4 - 2 / (4 / 3), 5 / 4 - 1 / (4 / 3)]
    expected = 2 * sum(gap**2 / 2 for gap in gaps) / 9
    assert float(relational_distance(line, corner)) == pytest.approx(expected)
    # Cosines at the corners: 0, 3/5, 4/5; on the line 1, -1, 1; each twice among the 27 triples.
    huber = [0.5, 1.6 - 0.5, (1 - 0.8) ** 2 / 2]
    assert float(relational_angle(line, corner)) == pytest.approx(2 * sum(huber) / 27, rel=1e-5)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), factor=st.floats(0.1, 10))
def test_relations_see_neither_place_nor_size(seed, factor):
    embeddings = logits(seed)
    for loss in (relational_distance, relational_angle):
        assert float(loss(factor * embeddings + 1, embeddings)) == pytest.approx(0, abs=1e-4)


def test_student_and_residual_make_the_teacher():
    student, teacher = logits(0).requires_grad_(), logits(1)
    target = residual_target(student, teacher)
    assert not target.requires_grad
    assert torch.allclose(student + target, teacher)


@pytest.mark.parametrize("size", [0.0, 1.0, 1e4])
@pytest.mark.parametrize("method", ["kd", "dkd", "standardized"])
def test_gradients_stay_finite(size, method):
    distill_loss = DistillLoss(method=method, hint=1.0, attention=1.0, distance=1.0, angle=1.0)
    x, maps = (size * logits(0)).requires_grad_(), (size * features(0)).requires_grad_()
    distill_loss(NetOutput(x, maps), NetOutput(size * logits(1), features(1)), LABELS).backward()
    assert torch.isfinite(x.grad).all()
    assert torch.isfinite(maps.grad).all()


def test_one_image_has_no_relations():
    one = logits(0, images=1).requires_grad_()
    (relational_distance(one, one.detach()) + relational_angle(one, one.detach())).backward()
    assert torch.isfinite(one.grad).all()


def test_a_blend_sums_its_weighted_parts():
    student, teacher = NetOutput(logits(0), features(0)), NetOutput(logits(1), features(1))
    pooled = student.features.mean((2, 3)), teacher.features.mean((2, 3))
    target, others = decoupled_kd(student.logits, teacher.logits, LABELS, 2.0)
    expected = (
        0.5 * (target + 3 * others)
        + 2 * hint(student.features, teacher.features)
        + 3 * attention_transfer(student.features, teacher.features)
        + 4 * relational_distance(*pooled)
        + 5 * relational_angle(*pooled)
    )
    distill_loss = DistillLoss(
        method="dkd", logits=0.5, hint=2.0, attention=3.0, distance=4.0, angle=5.0, temperature=2.0, alpha=1, beta=3
    )
    assert float(distill_loss(student, teacher, LABELS)) == pytest.approx(float(expected), rel=1e-5)


def test_logits_alone_need_no_features():
    assert not DistillLoss().needs_features
    assert float(DistillLoss()(NetOutput(logits(0)), NetOutput(logits(0)), LABELS)) == pytest.approx(0, abs=1e-5)
    assert DistillLoss(logits=0, angle=1).needs_features
    with pytest.raises(InputError, match="need feature maps of both nets"):
        DistillLoss(angle=1)(NetOutput(logits(0), features(0)), NetOutput(logits(1)), LABELS)


def test_a_teacher_of_other_classes_is_refused():
    with pytest.raises(InputError, match=r"teacher's logits \(6, 9\) do not fit the student's \(6, 5\)"):
        DistillLoss()(NetOutput(logits(0)), NetOutput(logits(0, classes=9)), LABELS)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "hinton"}, "kd, dkd, standardized, got 'hinton'"),
        ({"hint": -2.0}, "hint must be at least 0 and finite, got -2.0"),
        ({"logits": 0.0}, "must not all be 0"),
        ({"temperature": 0.0}, "temperature must be above 0 and finite, got 0.0"),
        ({"temperature": float("nan")}, "temperature must be above 0 and finite, got nan"),
        ({"method": "dkd", "alpha": 0, "beta": 0}, "alpha and beta must not both be 0"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(InputError, match=message):
        DistillLoss(**settings)
