import numpy as np
import pytest
from PIL import Image

from solution.data.describe import across_classes, across_splits, describe, groups_of
from solution.data.readers import open_source


def save(path, seed=0, size=(40, 30), light=128):
    """A picture (width, height) of large random blobs around the gray level `light`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(light - 20, light + 20, (6, 6, 3)).astype(np.uint8)
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(path)


@pytest.fixture
def photos(tmp_path):
    """Two classes, two splits; a copy across splits, a rescaled one across classes, a broken and an empty file."""
    root = tmp_path / "photos"
    for number in range(4):
        save(root / f"train/Dark/{number}.png", seed=number, light=50)
        save(root / f"train/Light/{number}.png", seed=10 + number, light=200)
    save(root / "val/Dark/copy.png", seed=1, light=50)
    save(root / "val/Dark/tall.png", seed=30, light=50, size=(20, 80))
    save(root / "val/Light/mislabeled.png", seed=2, light=50, size=(80, 60))
    (root / "val/Light/empty.jpg").write_bytes(b"")
    (root / "val/Dark/broken.png").write_bytes((root / "train/Dark/0.png").read_bytes()[:60])
    return root


def names(groups):
    return [sorted(item.name for item in group) for group in groups]


def test_counts_sizes_and_brightness(photos):
    described = describe(open_source(photos))
    assert described.info.title == "photos"
    assert described.info.counts == {"train": {"Dark": 4, "Light": 4}, "val": {"Dark": 2, "Light": 1}}
    assert described.counts().tolist() == [[4, 2], [4, 1]]
    assert described.imbalance() == pytest.approx(6 / 5)
    assert described.sizes() == {
        "width": (20, 40, 80),
        "height": (30, 30, 80),
        "width / height": (0.25, pytest.approx(4 / 3), pytest.approx(4 / 3)),
    }
    dark, light = described.brightness()
    assert dark == pytest.approx(50 / 255, abs=0.04)
    assert light == pytest.approx((4 * 200 + 50) / 5 / 255, abs=0.04)


def test_unreadable_files_are_named_with_their_fault(photos):
    told = [str(error) for error in describe(open_source(photos)).unreadable]
    assert len(told) == 2
    assert "val/Dark/broken.png" in told[0]
    assert "val/Light/empty.jpg" in told[1]
    assert "empty" in told[1]


def test_duplicates_across_splits_and_classes(photos):
    described = describe(open_source(photos))
    copy, rescaled = ["train/Dark/1.png", "val/Dark/copy.png"], ["train/Dark/2.png", "val/Light/mislabeled.png"]
    assert names(described.copies) == [copy]
    assert names(described.near) == [copy, rescaled]
    assert names(across_splits(described.near)) == [copy, rescaled]
    assert names(across_classes(described.near)) == [rescaled]


def test_every_image_is_followed_once(photos):
    seen = []

    def follow(images):
        for image in images:
            seen.append(image)
            yield image

    describe(open_source(photos), follow)
    assert len(seen) == 13


def test_an_empty_class_is_described(photos):
    (photos / "train/Nothing").mkdir()
    described = describe(open_source(photos))
    assert described.counts()[2].tolist() == [0, 0]
    assert described.imbalance() == float("inf")
    assert np.isnan(described.brightness()[2])


def test_a_set_without_a_single_readable_image(tmp_path):
    for name in ("A/1.jpg", "B/1.jpg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"no picture")
    described = describe(open_source(tmp_path))
    assert len(described.unreadable) == 2
    assert described.sizes() == {}
    assert described.near == ()


def test_rendered_data_are_called_so(photos):
    (photos / "rendered.json").write_text("{}")
    assert describe(open_source(photos)).info.title == "rendered demo data"


def test_groups_of_numbers():
    assert groups_of(np.array([3, 1, 3, 0, 1, 3])) == [[1, 4], [0, 2, 5]]
    assert groups_of(np.array([], int)) == []
