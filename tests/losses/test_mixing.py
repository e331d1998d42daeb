"""Targets always match what is seen, the same generator gives the same mix, and nothing handed in changes."""

import pytest
import torch
from hypothesis import given, settings, strategies as st

from solution.contracts import InputError
from solution.losses.classification import Mixing, cutmix, mixup

SETTINGS = (Mixing(), Mixing(mixup=0.4), Mixing(cutmix=1.0), Mixing(mixup=0.2, cutmix=1.0, share=0.5))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def coded(num_images, height=6, width=5):
    """Image i is one-hot in channel i, so that its mean over the pixels is its share of labels."""
    return torch.eye(num_images)[:, :, None, None].repeat(1, 1, height, width)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    num_images=st.integers(1, 6),
    alpha=st.floats(0.05, 5),
    mix=st.sampled_from((mixup, cutmix)),
)
def test_targets_are_the_shares_of_what_is_seen(seed, num_images, alpha, mix):
    images, targets = mix(coded(num_images), torch.eye(num_images), alpha, generator(seed))
    assert images.shape == (num_images, num_images, 6, 5)
    assert torch.allclose(images.mean((2, 3)), targets, atol=1e-5)
    assert torch.allclose(targets.sum(1), torch.ones(num_images), atol=1e-5)


def test_mixup_blends_everywhere_and_cutmix_nowhere():
    blended = [mixup(coded(4), torch.eye(4), 1.0, generator(seed))[0] for seed in range(20)]
    assert all((image == image[:, :, :1, :1]).all() for image in blended)
    assert any(((image > 0.01) & (image < 0.99)).any() for image in blended)
    cut = [cutmix(coded(4), torch.eye(4), 1.0, generator(seed))[0] for seed in range(20)]
    assert all(((image == 0) | (image == 1)).all() for image in cut)
    assert any((image != image[:, :, :1, :1]).any() for image in cut)


@pytest.mark.parametrize("mixing", SETTINGS)
def test_the_same_generator_gives_the_same_mix_and_leaves_the_batch_alone(mixing):
    images, labels = torch.randn(8, 3, 6, 6, generator=generator()), torch.arange(8) % 5
    before = images.clone()
    first, second = mixing(images, labels, 5, generator(3)), mixing(images, labels, 5, generator(3))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert torch.equal(images, before)
    assert first[1].shape == (8, 5)


def test_without_mixing_labels_become_one_hot():
    images, labels = coded(3), torch.tensor([2, 0, 1])
    mixed, targets = Mixing()(images, labels, 3, generator())
    assert mixed is images
    assert targets.argmax(1).tolist() == [2, 0, 1]
    assert not Mixing().on
    assert all(mixing.on for mixing in SETTINGS[1:])


def test_share_and_even_odds():
    source, kinds, images, labels = generator(), [], coded(4), torch.arange(4)
    for _ in range(400):
        mixed, _ = Mixing(mixup=1.0, cutmix=1.0, share=0.5)(images, labels, 4, source)
        kinds.append("none" if mixed is images else "mixup" if (mixed == mixed[:, :, :1, :1]).all() else "cutmix")
    # A cut of the whole image or of nothing looks like mixup: rarely.
    assert 160 < kinds.count("none") < 240
    assert 60 < kinds.count("cutmix") < 140


def test_a_generator_of_another_state_mixes_otherwise():
    first, second = (mixup(coded(4), torch.eye(4), 1.0, generator(seed))[1] for seed in (0, 1))
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mixup": -0.1}, "mixup must be at least 0 and finite, got -0.1"),
        ({"cutmix": float("nan")}, "cutmix must be at least 0 and finite, got nan"),
        ({"share": 0.0}, r"share must lie in \(0, 1\], got 0.0"),
        ({"share": 1.5}, r"share must lie in \(0, 1\], got 1.5"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(InputError, match=message):
        Mixing(**settings)
