"""The blend is the sum of its parts, and bad settings are named."""

import pytest
import torch

from solution.contracts import InputError
from solution.losses.classification import Loss, class_weights, cross_entropy, focal, soft_macro_f1

LOGITS = torch.tensor([[2.0, -1.0, 0.0], [0.5, 0.5, -3.0], [-1.0, 0.0, 4.0]])
LABELS = torch.tensor([0, 2, 2])
COUNTS = (100, 10, 40)


def test_the_default_is_smoothed_cross_entropy_to_the_bit():
    expected = torch.nn.functional.cross_entropy(LOGITS, LABELS, label_smoothing=0.1)
    assert float(Loss()(LOGITS, LABELS)) == float(expected)


def test_a_blend_sums_its_weighted_parts():
    loss = Loss(cross_entropy=0.5, focal=2.0, macro_f1=0.25, smoothing=0.2, gamma=1.5, class_weights="balanced")
    weights = class_weights(COUNTS, "balanced")
    expected = (
        0.5 * cross_entropy(LOGITS, LABELS, smoothing=0.2, weights=weights)
        + 2.0 * focal(LOGITS, LABELS, gamma=1.5, smoothing=0.2, weights=weights)
        + 0.25 * soft_macro_f1(LOGITS, LABELS)
    )
    assert float(loss(LOGITS, LABELS, COUNTS)) == pytest.approx(float(expected))


def test_a_part_of_weight_0_is_absent():
    assert float(Loss(cross_entropy=0, macro_f1=1)(LOGITS, LABELS)) == float(soft_macro_f1(LOGITS, LABELS))


def test_a_few_descents_learn_the_labels():
    logits = torch.zeros(3, 3, requires_grad=True)
    for _ in range(50):
        loss = Loss(cross_entropy=0.5, focal=0.5, macro_f1=1.0)(logits, LABELS)
        logits.data -= 2 * torch.autograd.grad(loss, logits)[0]
    assert logits.argmax(1).tolist() == LABELS.tolist()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cross_entropy": 0}, "must not all be 0"),
        ({"focal": -1.0}, "focal must be at least 0 and finite, got -1.0"),
        ({"macro_f1": float("nan")}, "macro_f1 must be at least 0 and finite, got nan"),
        ({"cross_entropy": float("inf")}, "cross_entropy must be at least 0 and finite, got inf"),
        ({"gamma": -0.5}, "gamma must be at least 0 and finite, got -0.5"),
        ({"smoothing": 1.0}, r"smoothing must lie in \[0, 1\), got 1.0"),
        ({"class_weights": "sqrt"}, "none, balanced, effective, got 'sqrt'"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(InputError, match=message):
        Loss(**settings)


@pytest.mark.parametrize("counts", [None, (10, 20)])
def test_class_weights_need_counts_of_every_class(counts):
    with pytest.raises(InputError, match="images of each of 3 classes, got counts"):
        Loss(class_weights="balanced")(LOGITS, LABELS, counts)
