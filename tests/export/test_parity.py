from types import SimpleNamespace

import pytest
import torch

from solution.compress.quantization.forms import FixedGrid, quantize_inputs
from solution.contracts import CLASSIFICATION
from solution.export.parity import COMPARED, Tolerance, compare, judged, spread, tolerance_for

TOLERANCES = {precision: COMPARED[CLASSIFICATION].tolerance(precision) for precision in ("fp32", "int8")}


def net(images):
    return images.mean((2, 3))


def batches(count=3):
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(20, 3, 4, 4, generator=generator) for _ in range(count)]
    return [(images, net(images).argmax(1)) for images in parts]


def compared(net, other, val, tolerance):
    """The parity of two nets on all of `val`, which is (images, labels) batches."""
    return judged(compare(net, other, spread(val, 64), tolerance), net, other, SimpleNamespace(val=val))


def test_the_same_answers_agree():
    parity = compared(net, net, batches(), TOLERANCES["fp32"])
    assert (parity.error, parity.agreement, parity.drop, parity.failures) == (0, 1, 0, ())
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
    assert compared(net, other, batches(), TOLERANCES["fp32"]).failures[: len(failures)] == failures


def test_a_file_may_be_better_but_not_worse_than_allowed():
    strict = Tolerance(error=9, agreement=0, drop=-0.1)
    assert compared(net, net, batches(), strict).failures == ("macro F1",)


def test_images_are_spread_over_sorted_batches():
    sorted_ = [(torch.full((10, 1, 1, 1), float(label)), torch.full((10,), label)) for label in range(5)]
    assert sorted(spread(sorted_, 10).flatten().tolist()) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert len(spread(iter(sorted_), 64)) == 50


def test_a_net_that_rounds_its_inputs_may_fall_to_the_other_side_of_a_step():
    torch.manual_seed(0)
    grids = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 3)).eval().requires_grad_(False)
    assert tolerance_for(grids, "fp32") == TOLERANCES["fp32"]
    quantize_inputs(grids[1], FixedGrid(8, -4.0, 4.0, qat=False))
    images, labels = batches(1)[0]
    step = grids[1].input_grid.scale
    images[0, 0, 0, 0] = 10.5 * step  # between two steps
    val = [(images, labels)]
    parity = compared(grids, lambda x: grids(x * (1 + 1e-6)), val, tolerance_for(grids, "fp32"))
    assert parity.error > TOLERANCES["fp32"].error
    assert parity.failures == ()
    assert tolerance_for(grids, "int8") == TOLERANCES["int8"]
