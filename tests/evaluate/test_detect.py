"""Precision, recall and mAP: by hand, and as pycocotools finds them."""

import contextlib
import io
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from solution.contracts import InputError
from solution.evaluate.detect import detect, judged, matched, overlaps, picked

BOX = [10, 10, 30, 30]


def answer(box, score, label=0):
    return [*box, score, label]


def test_a_perfect_detector():
    found = judged([np.array([answer(BOX, 0.9)])], [np.array([[0, *BOX]])])
    assert found.quality() == {"precision": 1, "recall": 1, "map50": 1, "map": 1}


def test_by_hand():
    # Of two boxes one is found at 0.9, then comes a miss at 0.8: precision is 1 up to recall 0.5, then 0.
    found = judged(
        [np.array([answer(BOX, 0.9), answer([50, 50, 60, 60], 0.8)])], [np.array([[0, *BOX], [0, 70, 70, 90, 90]])]
    )
    assert found.map50 == pytest.approx(51 / 101)
    assert (found.precision, found.recall) == (1, 0.5)


def test_a_box_is_found_once_and_overlap_counts():
    # Twenty pixels of which sixteen are shared: 16 / 24 are two thirds.
    near = [10, 14, 30, 34]
    assert overlaps(np.array([near]), np.array([BOX]))[0, 0] == pytest.approx(2 / 3)
    hits = matched(np.array([[2 / 3], [1.0]]))
    assert hits[:4].tolist() == [[True, False]] * 4
    assert hits[4:].tolist() == [[False, True]] * 6


def test_classes_that_do_not_occur_do_not_count():
    found = judged([np.array([answer(BOX, 0.9), answer(BOX, 0.9, label=5)])], [np.array([[0, *BOX]])])
    assert found.map == 1
    assert list(found.average_precision) == [0]


def test_overlapping_answers_of_one_class_are_sorted_out():
    candidates = torch.tensor([[*BOX, 0.9, 0.0], [10, 10, 30, 31, 0.8, 0.7], [60, 60, 80, 80, 0.0005, 0.0]]).T
    kept = picked(candidates)
    assert kept[:, 5].tolist() == [0, 1]
    assert kept[:, 4].tolist() == pytest.approx([0.9, 0.7])


def test_bad_answers_and_nothing_to_find_are_refused():
    images, targets = torch.zeros(1, 3, 8, 8), torch.tensor([[0.0, 0, *BOX]])
    with pytest.raises(InputError, match="1 images need candidates"):
        detect(lambda x: torch.zeros(1, 80), [(images, targets)])
    with pytest.raises(InputError, match="NaN or infinity"):
        detect(lambda x: torch.full((1, 6, 3), torch.nan), [(images, targets)])
    with pytest.raises(InputError, match="no boxes to judge on"):
        detect(lambda x: torch.zeros(1, 6, 3), [(images, targets[:0])])


def scattered(seed, num_images=12, num_classes=4):
    """True boxes, and answers that are some of them moved, and some noise."""
    chance = np.random.default_rng(seed)
    found, wanted = [], []
    for _ in range(num_images):
        count = chance.integers(0, 6)
        start = chance.uniform(0, 60, (count, 2))
        boxes = np.concatenate([start, start + chance.uniform(8, 40, (count, 2))], 1)
        labels = chance.integers(0, num_classes, count)
        wanted.append(np.concatenate([labels[:, None], boxes], 1))
        moved = np.repeat(boxes + chance.normal(0, 3, boxes.shape), 2, 0)
        moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
        said = np.where(
            chance.random(2 * count) < 0.8, np.repeat(labels, 2), chance.integers(0, num_classes, 2 * count)
        )
        own = np.concatenate([moved, chance.random((2 * count, 1)).round(2), said[:, None]], 1)
        found.append(own[np.argsort(-own[:, 4], kind="stable")])
    return found, wanted


def coco(found, wanted, num_classes=4):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def entry(image, label, box):
        sides = [float(value) for value in (*box[:2], *(box[2:] - box[:2]))]
        return {"image_id": image, "category_id": int(label), "bbox": sides, "area": sides[2] * sides[3], "iscrowd": 0}

    truth = [entry(image, box[0], box[1:]) for image, boxes in enumerate(wanted) for box in boxes]
    said = [entry(image, box[5], box[:4]) | {"score": box[4]} for image, boxes in enumerate(found) for box in boxes]
    with contextlib.redirect_stdout(io.StringIO()):
        data = COCO()
        data.dataset = {
            "images": [{"id": image} for image in range(len(wanted))],
            "categories": [{"id": label} for label in range(num_classes)],
            "annotations": [one | {"id": number} for number, one in enumerate(truth, start=1)],
        }
        data.createIndex()
        judge = COCOeval(data, data.loadRes(said), "bbox")
        judge.params.maxDets = [1, 10, 300]
        judge.evaluate()
        judge.accumulate()
    precision = judge.eval["precision"][:, :, :, 0, 2]  # (overlaps, recalls, classes)
    return precision[0][precision[0] > -1].mean(), precision[precision > -1].mean()


@pytest.mark.skipif(find_spec("pycocotools") is None, reason="pycocotools is not installed")
@pytest.mark.parametrize("seed", range(5))
def test_equals_pycocotools(seed):
    found, wanted = scattered(seed)
    own = judged(found, wanted)
    assert 0.1 < own.map < 0.9
    assert (own.map50, own.map) == pytest.approx(coco(found, wanted), abs=1e-9)
