"""Margins by hand, and the equality that folding promises."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from torch import nn

from solution.contracts import InputError
from solution.losses.margins import Margin, MarginHead, arcface, cosface
from solution.models.shufflenet import ShuffleNet

CLASSIFIERS = (
    lambda: nn.Conv2d(12, 5, 1, bias=False),
    lambda: nn.Linear(12, 5, bias=False),
    lambda: nn.Linear(12, 5),
)


def features_for(classifier, num_images=32, seed=0):
    x = torch.randn(num_images, 12, generator=torch.Generator().manual_seed(seed)).relu()
    return x[:, :, None, None] if isinstance(classifier, nn.Conv2d) else x


@settings(max_examples=40, deadline=None)
@given(angle=st.floats(0.01, math.pi - 0.01), margin=st.floats(0, 1.5))
def test_margins_by_hand(angle, margin):
    cosines = torch.tensor([[math.cos(angle), 0.3]], dtype=torch.float64)
    label = torch.tensor([0])
    harder = arcface(cosines, label, margin)
    assert float(harder[0, 1]) == pytest.approx(0.3)
    if angle + margin < math.pi - 1e-3:
        assert float(harder[0, 0]) == pytest.approx(math.cos(angle + margin), abs=1e-9)
    assert float(harder[0, 0]) <= math.cos(angle) + 1e-9
    assert float(cosface(cosines, label, margin)[0, 0]) == pytest.approx(math.cos(angle) - margin)


def test_a_wider_angle_is_never_rewarded():
    cosines = torch.linspace(1, -1, 2001)[:, None].expand(-1, 2)
    harder = arcface(cosines, torch.zeros(2001, dtype=torch.int64), 0.5)[:, 0]
    assert (harder.diff() < 0).all()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), margin=st.floats(0, 1.5))
def test_one_hot_probabilities_are_labels(seed, margin):
    generator = torch.Generator().manual_seed(seed)
    cosines = 2 * torch.rand(6, 5, generator=generator) - 1
    labels = torch.randint(5, (6,), generator=generator)
    for harder in (arcface, cosface):
        assert torch.equal(harder(cosines, labels, margin), harder(cosines, F.one_hot(labels, 5).float(), margin))


def test_a_mixed_target_gets_its_share_of_the_margin():
    cosines = torch.tensor([[math.cos(1.0), math.cos(1.2), 0.1]])
    harder = arcface(cosines, torch.tensor([[0.75, 0.25, 0.0]]), 0.4)
    assert harder[0].tolist() == pytest.approx([math.cos(1.3), math.cos(1.3), 0.1], abs=1e-6)


@pytest.mark.parametrize("make", CLASSIFIERS)
@pytest.mark.parametrize("kind", ["arcface", "cosface"])
def test_the_head_gives_scaled_cosines_and_folds_to_the_old_shape(make, kind):
    classifier = make()
    head, x = MarginHead(classifier, Margin(kind=kind, scale=10.0)), features_for(classifier)
    for _ in range(100):  # the running statistics of the norm become those of x
        head(x)
    head.eval()
    flat = x.flatten(1)
    mean, std = flat.mean(0), flat.std(0)
    aside = F.normalize(mean / std, dim=0)
    rows = classifier.weight.detach().flatten(1)
    rows = rows - rows.mean(0)
    rows = rows - (rows @ aside)[:, None] * aside
    normed = (flat - mean) / std
    assert torch.allclose(head(x), 10 * F.cosine_similarity(normed[:, None], rows, dim=2), atol=1e-2)
    plain = head.fold()
    assert type(plain) is type(classifier)
    assert {k: v.shape for k, v in plain.state_dict().items()} == {
        k: v.shape for k, v in classifier.state_dict().items()
    }
    logits, lengths = plain(x).flatten(1), normed.norm(dim=1, keepdim=True)
    assert torch.allclose(logits, head(x) * lengths / 10, atol=1e-2)
    assert torch.equal(logits.argmax(1), head(x).argmax(1))


def test_a_shufflenet_comes_back_with_its_keys_and_its_order():
    net = ShuffleNet(units=(1, 1, 1)).build(5).eval()
    keys, images = list(net.state_dict()), torch.randn(4, 3, 32, 32)
    net.output = MarginHead(net.output, Margin()).eval()
    net.output.norm.running_mean.uniform_()
    net.output.norm.running_var.uniform_(0.5, 2.0)
    trained = net(images)
    net.output = net.output.fold()
    assert trained.shape == (4, 5)
    assert list(net.state_dict()) == keys
    assert torch.equal(net(images).argmax(1), trained.argmax(1))


def test_features_that_all_point_one_way_are_told_apart():
    """What a ReLU and a mean over places leave: a large common part. Without the norm all cosines are the same."""
    torch.manual_seed(0)
    x = 10 + torch.randn(64, 12)
    classifier = nn.Linear(12, 5)
    without = 16 * F.cosine_similarity(x[:, None], classifier.weight, dim=2)
    assert without.std(0).max() < 1
    assert MarginHead(classifier, Margin())(x).std(0).min() > 3


def test_a_margin_is_learnt_from_where_all_angles_are_small():
    """All rows alike and all features alike: without norm and centering the margin costs least there, for ever."""
    torch.manual_seed(0)
    labels, looks = torch.arange(64) % 4, torch.randn(4, 12)
    x = 5 + looks[labels] + 0.3 * torch.randn(64, 12)
    classifier = nn.Linear(12, 4, bias=False)
    classifier.weight.data = 1 + 0.01 * torch.randn(4, 12)
    head = MarginHead(classifier, Margin(margin=0.5))
    for _ in range(60):
        loss = F.cross_entropy(head.with_margin(head(x), labels), labels)
        head.weight.data -= 0.02 * torch.autograd.grad(loss, head.weight)[0]
    assert (head.eval()(x).argmax(1) == labels).all()
    assert (head.fold()(x).argmax(1) == labels).all()


def test_one_image_alone_can_be_trained_on():
    head, x = MarginHead(nn.Linear(12, 5), Margin()), features_for(nn.Linear(12, 5))
    head(x)
    mean = head.norm.running_mean.clone()
    assert torch.isfinite(head(x[:1])).all()
    assert torch.equal(head.norm.running_mean, mean)


def test_the_margin_lowers_targets_alone():
    head = MarginHead(nn.Linear(12, 5), Margin(margin=0.4))
    logits, labels = head(features_for(nn.Linear(12, 5))), torch.arange(32) % 5
    harder, target = head.with_margin(logits, labels), F.one_hot(labels, 5).bool()
    assert (harder[target] < logits[target]).all()
    assert torch.allclose(harder[~target], logits[~target], atol=1e-5)
    without = MarginHead(nn.Linear(12, 5), Margin(margin=0.0)).with_margin(logits, labels)
    assert torch.allclose(without, logits, atol=1e-5)


def test_several_centers_fold_to_the_dominant_one():
    torch.manual_seed(0)
    classifier = nn.Linear(12, 5, bias=False)
    head, x = MarginHead(classifier, Margin(centers=3)).eval(), features_for(classifier, 60)
    assert head.weight.shape == (5, 3, 12)
    assert torch.equal(head.weight[:, 0], classifier.weight)
    labels = torch.arange(60) % 4  # class 4 has no images
    dominant = head.dominant(x, labels)
    rows = head.weight.detach() - head.weight.detach().mean((0, 1))
    nearest = F.cosine_similarity(x[:, None], rows[labels], dim=2).argmax(1)
    for c in range(4):
        assert dominant[c] == nearest[labels == c].bincount(minlength=3).argmax()
    assert dominant[4] == 0
    kept = F.normalize(rows[torch.arange(5), dominant])
    assert torch.equal(head.fold(dominant)(x).argmax(1), (x @ kept.T).argmax(1))
    with pytest.raises(InputError, match="one of 3 centers a class must be chosen"):
        head.fold()


def test_training_through_a_head_separates_two_looks_of_a_class():
    torch.manual_seed(0)
    looks = torch.tensor([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.2], [0.0, 1.0, 0.0], [0.0, -1.0, 0.2]])
    labels, head = torch.tensor([0, 0, 1, 1]), MarginHead(nn.Linear(3, 2, bias=False), Margin(centers=2))
    for _ in range(100):
        loss = F.cross_entropy(head.with_margin(head(looks), labels), labels)
        head.weight.data -= 0.2 * torch.autograd.grad(loss, head.weight)[0]
    assert head(looks).argmax(1).tolist() == labels.tolist()


@pytest.mark.parametrize("size", [0.0, 1e-8, 1.0, 1e6])
@pytest.mark.parametrize("kind", ["arcface", "cosface"])
def test_gradients_stay_finite(size, kind):
    head = MarginHead(nn.Linear(12, 5), Margin(kind=kind, margin=1.0, centers=2, scale=64.0))
    x, labels = torch.cat((head.weight[:, 0], -head.weight[:, 0])).detach() * size, torch.arange(10) % 5
    x.requires_grad_()
    F.cross_entropy(head.with_margin(head(x), labels), labels).backward()
    assert torch.isfinite(x.grad).all()
    assert torch.isfinite(head.weight.grad).all()


def test_a_head_copies_and_leaves_its_classifier_alone():
    classifier = nn.Conv2d(12, 5, 1, bias=False)
    before = classifier.weight.clone()
    head = copy.deepcopy(MarginHead(classifier, Margin()))
    head.weight.data.zero_()
    assert torch.equal(classifier.weight, before)


@pytest.mark.parametrize("wrong", [nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 1, groups=2), nn.ReLU()])
def test_what_is_no_classifier_is_refused(wrong):
    with pytest.raises(InputError, match=f"ungrouped 1x1 nn.Conv2d, got {type(wrong).__name__}"):
        MarginHead(wrong, Margin())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "sphereface"}, "arcface, cosface, none, got 'sphereface'"),
        ({"margin": -0.1}, "got -0.1"),
        ({"margin": 2.0}, "got 2.0"),
        ({"scale": 0.0}, "scale must be above 0 and finite, got 0.0"),
        ({"centers": 0}, "centers must be 1 to 64, got 0"),
        ({"centers": 10**9}, "centers must be 1 to 64, got 1000000000"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(InputError, match=message):
        Margin(**settings)
