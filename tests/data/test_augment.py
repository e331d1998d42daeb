import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from solution.contracts import InputError
from solution.data.views import Augment, Viewer

IMAGE = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
NONE = Augment(crop_scale=(1, 1), flip=0, quarter_turn=0, color=0)
ALL = Augment(flip=0.5, quarter_turn=0.5, color=0.5, erase=0.5)


@given(st.integers(0, 2**31), st.integers(0, 999), st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_a_view_depends_on_seed_epoch_and_index_alone(seed, epoch, index):
    view, other = Viewer(ALL, 16, seed), Viewer(ALL, 16, seed)
    first = view(IMAGE, epoch, index)
    assert first.shape == (16, 16, 3)
    assert first.dtype == np.uint8
    other(IMAGE, epoch + 1, index + 3)
    assert (other(IMAGE, epoch, index) == first).all()
    assert (view(IMAGE, epoch, index) == first).all()


def test_another_seed_epoch_or_index_gives_another_view():
    large = np.random.default_rng(0).integers(0, 256, (100, 100, 3), dtype=np.uint8)
    views = set()
    for seed in (0, 1, 2**40):
        view = Viewer(ALL, 16, seed)
        views |= {view(large, epoch, index).tobytes() for epoch in range(10) for index in range(20)}
    assert len(views) == 600


def test_nothing_asked_for_changes_nothing_but_the_size():
    assert (Viewer(NONE, 20, 0)(IMAGE[:, :20], 3, 4) == IMAGE[:, :20]).all()
    assert Viewer(NONE, 10, 0)(IMAGE, 3, 4).shape == (10, 10, 3)


def test_flips_and_turns_happen_as_often_as_asked_and_independently():
    square = np.arange(16, dtype=np.uint8).reshape(4, 4, 1).repeat(3, axis=2)
    view = Viewer(Augment(crop_scale=(1, 1), flip=0.5, quarter_turn=0.4, color=0), 4, 0)
    names = {}
    for flip in (0, 1):
        for turn in range(4):
            names[np.rot90(square[:, ::-1] if flip else square, turn).tobytes()] = (flip, turn)
    seen = [names[view(square, 0, index).tobytes()] for index in range(3000)]
    flipped = np.array([flip for flip, _ in seen], dtype=bool)
    turned = np.array([turn > 0 for _, turn in seen])
    assert abs(flipped.mean() - 0.5) < 0.03
    assert abs(turned.mean() - 0.3) < 0.03
    assert abs(turned[flipped].mean() - turned[~flipped].mean()) < 0.05


def test_crops_keep_the_asked_share_of_the_area():
    rows = np.arange(200, dtype=np.uint8)[:, None, None].repeat(200, axis=1).repeat(3, axis=2)
    view = Viewer(Augment(crop_scale=(0.25, 0.25), crop_ratio=(1, 1), flip=0, quarter_turn=0, color=0), 50, 0)
    spans = [int(np.ptp(view(rows, 0, index)[:, 0, 0])) for index in range(50)]
    assert 96 <= min(spans) <= max(spans) <= 100


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("flip", 1.5, r"augment\.flip must lie between 0 and 1, got 1\.5"),
        ("erase", -0.1, r"augment\.erase must lie between 0 and 1, got -0\.1"),
        ("color", 2, r"augment\.color must lie between 0 and 1, got 2"),
        ("crop_scale", (0.8, 0.5), r"augment\.crop_scale .*got \(0\.8, 0\.5\)"),
        ("crop_scale", (0, 1), r"augment\.crop_scale .*got \(0, 1\)"),
        ("crop_ratio", (0, 1), r"augment\.crop_ratio .*got \(0, 1\)"),
        ("crop_ratio", (1e9, 1e9), r"augment\.crop_ratio .*<= 10, got"),
    ],
)
def test_impossible_settings_are_named(field, value, message):
    with pytest.raises(InputError, match=message):
        Augment(**{field: value})
