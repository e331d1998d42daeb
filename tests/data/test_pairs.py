"""Pictures with masks: layouts, classes, views that move both alike, and what is wrong with them in one line."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import solution as fw
from solution.data.loaders import Data
from solution.data.rendered.pairs import SHAPES, write_pairs


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def bright(number, side=24):
    """A picture that is white where its mask is 1: a rectangle of its own."""
    rng = np.random.default_rng(number)
    mask = np.zeros((side, side), dtype=np.uint8)
    top, left = rng.integers(2, side // 2, 2)
    mask[top : top + 8, left : left + 6] = 1
    return np.repeat(255 * mask[..., None], 3, 2), mask


def pairs(folder, form="{split}/{kind}/{number}.png", value=1, splits=("train", "val"), names=("a", "b")):
    for split in splits:
        for number in range(12):
            picture, mask = bright(number)
            save(folder / form.format(split=split, kind="images", number=number), picture)
            save(folder / form.format(split=split, kind="masks", number=number), mask * np.uint8(value))
    if names:
        (folder / "classes.txt").write_text("\n".join(names))
    return folder


def opened(folder, **settings):
    return Data(path=str(folder), **{"size": 24, "batch_size": 4, "workers": 0, "dev_share": 0.2, **settings})


def test_rendered_pairs_are_read_with_their_names(tmp_path):
    folder = write_pairs(tmp_path / "shapes", {"train": 12, "val": 4}, size=32)
    data = opened(folder, size=32)
    assert data.info().classes == SHAPES
    assert data.info().counts == {"train": {"pictures": 10}, "dev": {"pictures": 2}, "val": {"pictures": 4}}
    images, masks = next(iter(data.open().val))
    assert (images.shape, masks.shape, masks.dtype) == ((4, 3, 32, 32), (4, 32, 32), torch.int64)
    assert set(masks.unique().tolist()) <= {0, 1, 2, 3}
    truth = np.asarray(Image.open(folder / "val" / "masks" / "0000.png"))
    assert torch.equal(masks[0], torch.from_numpy(truth.astype(np.int64)))


@pytest.mark.parametrize(
    ("form", "splits"),
    [
        ("{split}/{kind}/{number}.png", ("train", "val")),
        ("{kind}/{split}/{number}.png", ("train", "val")),
        ("{kind}/{number}.png", ("train",)),
    ],
)
def test_layouts(tmp_path, form, splits):
    loaders = opened(pairs(tmp_path / "set", form, splits=splits)).open()
    assert loaders.num_images("train") + loaders.num_images("dev") + loaders.num_images("val") == 12 * len(splits)
    for images, masks in loaders.val:
        assert torch.equal(images[:, 0] > 0, masks == 1)


def test_archives_are_read_in_place(tmp_path):
    pairs(tmp_path / "set")
    path = shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path / "set")
    images, masks = next(iter(opened(path).open().val))
    assert torch.equal(images[:, 0] > 0, masks == 1)


def test_a_mask_is_cut_and_turned_with_its_picture(tmp_path):
    train = opened(pairs(tmp_path / "set")).open().train
    seen = []
    for epoch in range(4):
        train.set_epoch(epoch)
        for images, masks in train:
            same = (images.amax(1) > 0) == (masks == 1)
            assert same.float().mean() > 0.93  # the edges of a scaled rectangle
            seen.append(masks)
    assert len({tuple(mask.flatten().tolist()) for batch in seen for mask in batch}) > 12  # they are varied


@pytest.mark.parametrize(
    ("value", "names", "classes"), [(255, (), ("0", "1")), (255, ("no", "yes"), ("no", "yes")), (7, (), ("0", "1"))]
)
def test_values_that_are_no_numbers_from_0_are_classes_in_their_order(tmp_path, value, names, classes):
    data = opened(pairs(tmp_path / "set", value=value, names=names))
    assert data.info().classes == classes
    images, masks = next(iter(data.open().val))
    assert torch.equal(images[:, 0] > 0, masks == 1)


def test_pixels_of_255_count_nowhere(tmp_path):
    folder = pairs(tmp_path / "set")
    for path in (folder / "val" / "masks").iterdir():
        mask = np.array(Image.open(path))
        mask[:4] = 255
        save(path, mask)
    _, masks = next(iter(opened(folder).open().val))
    assert (masks[:, :4] < 0).all()
    assert (masks[:, 4:] >= 0).all()


def wrong(folder, how):
    mask = folder / "train" / "masks" / "3.png"
    if how == "missing":
        mask.unlink()
    elif how == "size":
        save(mask, np.zeros((10, 24), dtype=np.uint8))
    elif how == "classes":
        save(mask, np.full((24, 24), 5, dtype=np.uint8))
    elif how == "colors":
        save(mask, np.zeros((24, 24, 3), dtype=np.uint8))
    else:
        mask.write_bytes(mask.read_bytes()[:40])


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", r"train/images/3.png has no mask: add"),
        ("size", r"masks/3.png has 24 x 10 pixels, and its picture 24 x 24"),
        ("classes", r"hold the value 5, and classes.txt names 2 classes"),
        ("colors", r"masks/3.png is no mask: it has colors \(RGB\)"),
        ("damaged", r"masks/3.png cannot be read"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path, how, message):
    folder = pairs(tmp_path / "set")
    wrong(folder, how)
    with pytest.raises(fw.InputError, match=message) as caught:
        opened(folder).open()
    assert "\n" not in str(caught.value)
