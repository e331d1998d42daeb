import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from solution.contracts import InputError
from solution.evaluate.score import Scorer
from solution.report.classes import MAX_ROWS, class_f1, confusion, predictions
from solution.report.curves import training_curves
from solution.report.embedding import MAX_CLASSES, MAX_IMAGES, chosen, embed, embedding
from solution.report.front import PUBLISHED, Point, Series, front, pareto
from solution.report.published import AFTER, BEFORE, RESULTS, TOLERANCE
from solution.run_folder import read_history

POINTS = st.lists(st.tuples(st.integers(1, 50), st.integers(0, 50)), min_size=1, max_size=30)


@given(POINTS)
def test_the_front_is_what_no_point_beats(pairs):
    points = [Point(macs=macs, f1=f1 / 50) for macs, f1 in pairs]
    kept = front(points)
    for point in points:
        beaten = any(
            other.macs <= point.macs and other.f1 >= point.f1 and (other.macs, other.f1) != (point.macs, point.f1)
            for other in points
        )
        assert beaten == (point not in kept)
    assert [point.macs for point in kept] == sorted({point.macs for point in kept})


@pytest.mark.parametrize("result", RESULTS, ids=lambda result: f"{result.macs}-{result.f1}")
def test_published_results_follow_the_formula(result):
    assert Scorer()(result.macs, result.f1) == pytest.approx(result.score, abs=TOLERANCE)


def test_the_published_before_does_not():
    assert abs(Scorer()(BEFORE.macs, BEFORE.f1) - BEFORE.score) > 100 * TOLERANCE
    assert (AFTER.macs, BEFORE.macs) == (1_083_210, 1_688_940)


def test_the_front_says_its_points_and_counts_those_below_the_cliff():
    ours = Series(name="ours", points=(Point(macs=5e5, f1=0.7), Point(macs=4e5, f1=0.3, name="cut")))
    drawing = pareto([PUBLISHED, ours])
    assert "15 published results" in drawing.alt
    assert "ours: 500,000 MACs, F1 0.7000" in drawing.alt
    assert "cut" not in drawing.svg
    assert "2 below the cliff at F1 0.5" in drawing.caption
    assert "published After" in drawing.svg


def test_names_of_crowded_points_do_not_cover_one_another(monkeypatch):
    kept = []
    monkeypatch.setattr("solution.report.front.drawn", lambda figure, *_: kept.append(figure))
    points = tuple(Point(macs=1e6 + 2e4 * i, f1=0.7 + 0.001 * i, name=f"number {i}") for i in range(4))
    pareto([PUBLISHED, Series(name="crowd", points=points)])
    figure = kept[0]
    figure.draw_without_rendering()
    names = [text for text in figure.axes[0].texts if text.get_text().startswith("number")]
    boxes = [name.get_window_extent() for name in names]
    assert len(names) == 4
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])


def test_one_point_alone_can_be_drawn():
    assert "1,000 MACs" in pareto([Series(name="one", points=(Point(macs=1000, f1=0.9),))]).alt


def test_histories_are_read_and_drawn(tmp_path):
    path = tmp_path / "history.csv"
    path.write_text("epoch,loss,dev_f1\n1,2.5,0.3\n2,1.5,0.6\n")
    history = read_history(path)
    assert history == {"epoch": (1.0, 2.0), "loss": (2.5, 1.5), "dev_f1": (0.3, 0.6)}
    drawing = training_curves({"before": history, "warm": {"epoch": (1.0,), "loss": (3.0,)}})
    assert "before: 2 epochs, loss 1.500 at the end, best dev F1 0.6000" in drawing.alt
    assert "macro F1 on the dev split" in drawing.svg
    assert "dev" not in training_curves({"warm": {"epoch": (1.0,), "loss": (3.0,)}}).svg.split(">", 1)[1]


def test_a_damaged_history_is_named(tmp_path):
    path = tmp_path / "history.csv"
    path.write_text("epoch,loss\n1,much\n")
    with pytest.raises(InputError, match=r"history\.csv is not a table of numbers"):
        read_history(path)


def test_the_confusion_matrix_says_percent_of_each_label():
    drawing = confusion(np.array([[3, 1], [0, 5]]), ("Glass", "Metal"), "before")
    assert "8 of 9 images right; most often Glass taken for Metal 1 times" in drawing.alt
    for word in (">75<", ">25<", ">100<", ">Glass<"):
        assert word in drawing.svg
    assert ">0<" not in drawing.svg
    assert "no mistake" in confusion(np.eye(2, dtype=int), ("a", "b"), "after").alt


def test_many_classes_show_those_that_differ_most():
    classes = tuple(f"class {number}" for number in range(100))
    before, after = np.full(100, 0.5), np.full(100, 0.5)
    after[42] = 0.9
    drawing = class_f1({"before": before, "after": after}, classes)
    assert ">class 42<" in drawing.svg
    assert f"Of 100 classes, the {MAX_ROWS} that differ most" in drawing.caption
    counts = np.eye(100, dtype=int) * 5
    assert ">class 42<" not in confusion(counts, classes, "after").svg


def test_predictions_are_percent_with_the_labels_beside_them():
    shares = {"labels": np.array([0.25, 0.75]), "before": np.array([0.5, 0.5]), "after": np.array([0.3, 0.7])}
    drawing = predictions(shares, ("a", "b"))
    assert "a labels 25, before 50, after 30" in drawing.alt


def test_an_embedding_keeps_clusters_apart():
    chance = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 20)
    features = 20 * np.eye(3, 8)[labels] + chance.normal(size=(60, 8))
    points = embed(features)
    assert points.shape == (60, 2)
    drawing = embedding(points, labels, ("a", "b", "c"), "after")
    assert "For 100% of the images" in drawing.caption
    np.testing.assert_array_equal(points, embed(features))


@pytest.mark.parametrize("shape", [(1, 5), (5, 1), (12, 4)])
def test_few_images_or_features_are_laid_flat_too(shape):
    assert embed(np.random.default_rng(0).normal(size=shape)).shape == (shape[0], 2)


def test_what_is_embedded_is_a_fair_sample_of_the_frequent_classes():
    labels = np.repeat(np.arange(20), np.arange(20, 220, 10))
    places = chosen(labels)
    assert len(places) == MAX_IMAGES == len(set(places))
    assert len(set(labels[places])) == MAX_CLASSES
    assert labels[places].min() == 20 - MAX_CLASSES
