import pytest
import torch

from solution.export.parity import TOLERANCES, Tolerance, compare, spread


def net(images):
    return images.mean((2, 3))


def batches(count=3):
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(20, 3, 4, 4, generator=generator) for _ in range(count)]
    return [(images, net(images).argmax(1)) for images in parts]


def test_the_same_answers_agree():
    parity = compare(net, net, batches(), TOLERANCES["fp32"])
    assert (parity.error, parity.agreement, parity.f1_drop, parity.failures) == (0, 1, 0, ())
    assert parity.num_images == 60
    assert "1.0000 in PyTorch, 1.0000 in the file" in str(parity)


@pytest.mark.parametrize(
    ("other", "failures"),
    [
        (lambda images: net(images) + 0.001 * torch.tensor([1.0, -1, 1]), ("logits",)),
        (lambda images: -net(images), ("logits", "top-1 agreement", "macro F1")),
    ],
)
def test_what_differs_is_named(other, failures):
    assert compare(net, other, batches(), TOLERANCES["fp32"]).failures[: len(failures)] == failures


def test_a_file_may_be_better_but_not_worse_than_allowed():
    strict = Tolerance(error=9, agreement=0, f1_drop=-0.1)
    assert compare(net, net, batches(), strict).failures == ("macro F1",)


def test_images_are_spread_over_sorted_batches():
    sorted_ = [(torch.full((10, 1, 1, 1), float(label)), torch.full((10,), label)) for label in range(5)]
    assert sorted(spread(sorted_, 10).flatten().tolist()) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert len(spread(iter(sorted_), 64)) == 50
