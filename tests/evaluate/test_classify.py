"""Figures against hand-counted ones, any callable, and answers that cannot be judged."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from sklearn.metrics import f1_score
from torch import nn

from solution.contracts import InputError
from solution.evaluate.classify import classify, predictor


def answering(predictions, num_classes):
    """A callable whose images are the numbers of their own predictions."""
    return lambda images: nn.functional.one_hot(images.long(), num_classes).float()


def judged(predictions, labels, num_classes=3, size=2):
    predictions, labels = torch.tensor(predictions), torch.tensor(labels)
    batches = zip(predictions.split(size), labels.split(size), strict=True)
    return classify(answering(predictions, num_classes), batches)


def test_figures_counted_by_hand():
    result = judged([0, 0, 1, 2, 2], [0, 1, 1, 2, 0])
    assert result.num_images == 5
    assert result.accuracy == pytest.approx(0.6)
    assert result.per_class_f1 == pytest.approx([1 / 2, 2 / 3, 2 / 3])
    assert result.f1 == pytest.approx((1 / 2 + 2 / 3 + 2 / 3) / 3)
    assert result.confusion.tolist() == [[1, 0, 1], [1, 1, 0], [0, 0, 1]]
    assert result.quality() == {"f1": result.f1, "accuracy": result.accuracy}
    assert result.labels.tolist() == [0, 1, 1, 2, 0]
    assert result.predictions.tolist() == [0, 0, 1, 2, 2]


def test_a_class_that_never_occurs_does_not_weigh():
    result = judged([0, 1], [0, 1], num_classes=4)
    assert result.f1 == 1
    assert result.per_class_f1.tolist() == [1, 1, 0, 0]


@settings(deadline=None, max_examples=30)
@given(pairs=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=30), size=st.integers(1, 7))
def test_batches_do_not_matter(pairs, size):
    predictions, labels = map(list, zip(*pairs, strict=True))
    result = judged(predictions, labels, num_classes=5, size=size)
    assert result.f1 == pytest.approx(f1_score(labels, predictions, average="macro", zero_division=0))
    assert result.confusion.sum() == len(pairs)
    assert np.trace(result.confusion) == pytest.approx(result.accuracy * len(pairs))


def test_top_five_is_told_for_many_classes():
    logits = torch.zeros(2, 20)
    logits[:, :6] = torch.tensor([6.0, 5.0, 4.0, 3.0, 2.0, 1.0])
    result = classify(lambda images: logits, [(torch.zeros(2), torch.tensor([4, 5]))])
    assert result.quality() == {"f1": 0.0, "accuracy": 0.0, "top5": 0.5}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_answers_that_are_not_numbers(value):
    logits = torch.zeros(3, 4)
    logits[1, 2] = value
    batches = [(torch.zeros(3), torch.zeros(3, dtype=torch.int64))]
    with pytest.raises(InputError, match="NaN or infinity for 1 of 3 images of batch 0"):
        classify(lambda images: logits, batches)


def test_answers_that_do_not_fit():
    labels = torch.tensor([0, 9])
    with pytest.raises(InputError, match="labels run from 0 to 9, but the model knows 4 classes"):
        classify(lambda images: torch.zeros(2, 4), [(torch.zeros(2), labels)])
    with pytest.raises(InputError, match=r"2 images need logits \(B, classes\), the model gave \(2,\)"):
        classify(lambda images: torch.zeros(2), [(torch.zeros(2), labels)])
    with pytest.raises(InputError, match="no images to judge on"):
        classify(lambda images: images, [])


def test_the_predictor_keeps_each_modules_mode():
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))
    net.train()
    net[2].eval()
    running = net[2].running_mean.clone()
    batches = [(torch.randn(2, 4), torch.tensor([0, 1]))] * 2
    first, second = (classify(predictor(net), batches) for _ in range(2))
    assert first.predictions.tolist() == second.predictions.tolist()
    assert [module.training for module in net] == [True, True, False, True]
    assert net.training
    assert torch.equal(net[2].running_mean, running)
