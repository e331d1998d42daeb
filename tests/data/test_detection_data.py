"""Pictures with boxes: what is read, how it is framed, what batches look like."""

import cv2
import numpy as np
import pytest
from hypothesis import given, strategies as st
from scenes import write_scenes, write_tar

from solution.contracts import InputError
from solution.data.detection import (
    COCO,
    GRAY,
    DetectionData,
    Placing,
    Vary,
    centered,
    corners,
    framed,
    open_scenes,
    visible,
)
from solution.recipes.catalogue import named
from solution.settings import with_setting


@pytest.fixture(scope="module")
def scenes_tar(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("scenes") / "shapes.tar")


def test_reads_splits_classes_and_boxes(scenes_tar):
    scenes = open_scenes(scenes_tar)
    assert scenes.classes == ("square", "disc")
    assert [item.split for item in scenes.items] == ["train"] * 8 + ["val"] * 4
    assert scenes.items[0].boxes.shape[1] == 5
    assert scenes.image(scenes.items[0]).shape == (48, 64, 3)


PICTURE = cv2.imencode(".png", np.zeros((40, 40, 3), np.uint8))[1].tobytes()


def test_names_are_cocos_where_none_are_given_and_a_picture_without_labels_has_no_boxes(tmp_path):
    path = write_tar(
        tmp_path / "a.tar", {"x/images/train2017/1.png": PICTURE, "x/labels/train2017/2.txt": b"0 .5 .5 1 1"}
    )
    scenes = open_scenes(path)
    assert scenes.classes == COCO
    assert len(COCO) == 80
    assert scenes.items[0].boxes.shape == (0, 5)
    with pytest.raises(InputError, match="no pictures in a val split"):
        DetectionData(path=str(path)).open()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"0 0.5 0.5 1", "five numbers a line"),
        (b"80 0.5 0.5 1 1", "names class 80; there are 80"),
        (b"0 0.5 0.5 20 1", "beyond its picture"),
        (b"dog 0.5 0.5 1 1", "five numbers a line"),
    ],
)
def test_bad_labels_are_named(tmp_path, line, message):
    path = write_tar(tmp_path / "a.tar", {"x/images/train/1.png": PICTURE, "x/labels/train/1.txt": line})
    with pytest.raises(InputError, match=message):
        open_scenes(path)


@pytest.mark.parametrize("names", ["[mug, fork]", "{1: fork, 0: mug}"])
def test_names_of_a_data_yaml_are_read(tmp_path, names):
    path = write_tar(tmp_path / "own.tar", {"own/images/train/a.png": b"", "own/data.yaml": f"names: {names}".encode()})
    assert open_scenes(path).classes == ("mug", "fork")


@pytest.mark.parametrize("text", ["names: {1: fork}", "path: here", "names: [", "- a"])
def test_a_data_yaml_without_names_is_refused(tmp_path, text):
    path = write_tar(tmp_path / "own.tar", {"own/images/train/a.png": b"", "own/data.yaml": text.encode()})
    with pytest.raises(InputError, match=r"own/data\.yaml must hold `names`"):
        open_scenes(path)


def test_a_picture_that_cannot_be_read_is_named(tmp_path):
    scenes = open_scenes(write_tar(tmp_path / "own.tar", {"own/images/train/a.png": b"no picture"}))
    with pytest.raises(InputError, match=r"own\.tar: own/images/train/a\.png: .*take it and its label file out"):
        scenes.image(scenes.items[0])


def test_other_layouts_and_no_path_are_refused(tmp_path):
    with pytest.raises(InputError, match="no pictures with boxes here"):
        open_scenes(write_tar(tmp_path / "a.tar", {"train/Glass/1.png": PICTURE}))
    with pytest.raises(InputError, match="no data set at"):
        open_scenes(tmp_path / "nowhere.tar")
    with pytest.raises(InputError, match="--data"):
        DetectionData().open()
    with pytest.raises(InputError, match=r"data\.size must be a multiple of 32, got 100"):
        DetectionData(size=100)
    for name in ("size", "workers"):
        with pytest.raises(InputError, match=rf"data\.{name} must be at most \d+, got 32000"):
            DetectionData(**{name: 32_000})
    with pytest.raises(InputError, match=r"data\.size must be at most \d+, got 32000"):
        with_setting(named("detector_ssdlite"), "smaller.size", 32_000)  # a later stage's, before the first one runs
    with pytest.raises(InputError, match=r"vary.flip must lie in \[0, 1\), got 2"):
        Vary(flip=2)


def test_a_picture_lies_in_the_middle_on_grey_and_its_boxes_with_it():
    image = np.full((40, 80, 3), 255, np.uint8)
    placing = centered(image.shape, 160)
    assert placing == Placing(width=160, height=80, left=0, top=40)
    square = framed(image, placing, 160)
    assert (square[40:120] == 255).all()
    assert (square[:40] == GRAY).all()
    assert (square[120:] == GRAY).all()
    assert corners(np.array([[3, 0.5, 0.5, 1, 1]]), placing).tolist() == [[3, 0, 40, 160, 120]]


@given(st.integers(20, 90), st.integers(20, 90), st.integers(0, 2**31))
def test_boxes_stay_on_what_they_box(width, height, seed):
    image = np.zeros((height, width, 3), np.uint8)
    left, top, right, bottom = width // 4, height // 3, width * 3 // 4, height * 2 // 3
    image[top:bottom, left:right] = 255
    box = [0, (left + right) / 2 / width, (top + bottom) / 2 / height, (right - left) / width, (bottom - top) / height]
    placing = Vary(zoom=0.5).placing(image.shape, 96, np.random.default_rng(seed))
    boxes = visible(corners(np.array([box]), placing), 96)
    square = framed(image, placing, 96)
    bright = np.argwhere((square > 200).all(2))
    if len(boxes) and len(bright):
        found = [bright[:, 1].min(), bright[:, 0].min(), bright[:, 1].max() + 1, bright[:, 0].max() + 1]
        assert np.abs(np.array(found) - boxes[0, 1:]).max() <= 2.5
        assert (boxes[0, 1:] >= 0).all()
        assert (boxes[0, 1:] <= 96).all()


def test_what_is_hardly_to_be_seen_is_left_out():
    boxes = np.array([[0, -90, 0, 10, 50], [1, 60, 60, 80, 80], [2, 95, 0, 140, 50]], dtype=float)
    assert visible(boxes, 96).tolist() == [[1, 60, 60, 80, 80]]


def test_batches(scenes_tar):
    loaders = DetectionData(path=str(scenes_tar), size=64, batch_size=4, calibration_images=3).open(seed=1)
    assert loaders.info.counts["train"]["square"] == loaders.info.counts["train"]["disc"] == 8
    images, targets = next(iter(loaders.val))
    assert images.shape == (4, 3, 64, 64)
    assert (float(images.min()), float(images.max())) == (0, 1)
    assert targets.shape == (8, 6)
    assert targets[:, 0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert len(loaders.calibration.dataset) == 3
    assert len(loaders.seen.dataset) == 8


def test_training_batches_depend_on_seed_and_epoch_alone(scenes_tar):
    def epoch(seed, number):
        loaders = DetectionData(path=str(scenes_tar), size=64, batch_size=4).open(seed=seed)
        loaders.train.set_epoch(number)
        return [images.sum().item() for images, _ in loaders.train]

    assert epoch(0, 1) == epoch(0, 1)
    assert epoch(0, 1) != epoch(0, 2)
    assert epoch(0, 1) != epoch(1, 1)


def test_splits_by_other_names_and_names_that_command_a_terminal(tmp_path):
    pictures = {"x/images/Training/1.png": PICTURE, "x/images/testing/2.png": PICTURE}
    path = write_tar(tmp_path / "a.tar", pictures | {"x/classes.txt": b"cup\nk\x1b[2J\xff"})
    assert open_scenes(path).classes == ("cup", "k\\x1b[2J\\udcff")
    loaders = DetectionData(path=str(path), size=32).open()
    assert (loaders.num_images("train"), loaders.num_images("val"), loaders.dev) == (1, 1, None)
    assert loaders.context().example.shape == (1, 3, 32, 32)
