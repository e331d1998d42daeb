import numpy as np
import pytest
from hypothesis import given, strategies as st

from solution.contracts import InputError
from solution.evaluate.score import Scorer
from solution.recipes.waste.report import AFTER, BEFORE, PUBLISHED, RESULTS, TOLERANCE
from solution.report.diagnostics import (
    MAX_CLASSES,
    MAX_IMAGES,
    MAX_ROWS,
    chosen,
    class_f1,
    confusion,
    embed,
    embedding,
    predictions,
)
from solution.report.plots import CostLine, Point, Series, costs_drawing, front, pareto, training_curves
from solution.run_folder import read_history

POINTS = st.lists(st.tuples(st.integers(1, 50), st.integers(0, 50)), min_size=1, max_size=30)


@given(POINTS)
def test_the_front_is_what_no_point_beats(pairs):
    points = [Point(macs=macs, quality=f1 / 50) for macs, f1 in pairs]
    kept = front(points)
    for point in points:
        beaten = any(
            other.macs <= point.macs
            and other.quality >= point.quality
            and (other.macs, other.quality) != (point.macs, point.quality)
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


def test_ones_own_points_are_always_there_and_published_ones_below_the_cliff_are_counted():
    ours = Series(name="ours", points=(Point(macs=5e5, quality=0.7), Point(macs=4e5, quality=0.3, name="cut")))
    drawing = pareto([PUBLISHED, ours], scorer=Scorer())
    assert "15 published results" in drawing.alt
    assert "ours: 500,000 MACs, F1 0.7000" in drawing.alt
    assert "ours cut: 400,000 MACs, F1 0.3000" in drawing.alt
    assert ">cut<" in drawing.svg
    assert "1 published below the cliff at F1 0.5" in drawing.caption
    assert "published After" in drawing.svg


def test_without_a_score_there_are_no_lines_of_it_and_the_axis_names_its_figure():
    ours = Series(name="ours", points=(Point(macs=5e5, quality=0.2), Point(macs=4e5, quality=0.1)))
    drawing = pareto([ours], quality="mAP50-95")
    assert ">mAP50-95<" in drawing.svg
    assert "score" not in drawing.caption
    assert (
        drawing.alt
        == "MACs against mAP50-95. ours: 500,000 MACs, mAP50-95 0.2000; ours: 400,000 MACs, mAP50-95 0.1000."
    )


def places_of(figure, index):
    """Fractions of the panel's width at which the marks of its `index`-th axes stand."""
    axes = figure.axes[index]
    marks = [tuple(offset) for mark in axes.collections for offset in mark.get_offsets()]
    return axes.transAxes.inverted().transform(axes.transData.transform(marks))[:, 0]


def test_the_axis_of_quality_is_cropped_so_that_differences_show(monkeypatch):
    kept = []
    monkeypatch.setattr("solution.report.plots.drawn", lambda figure, *_: kept.append(figure))
    costs_drawing([CostLine(name=str(n), megabytes=20.0, quality=55 + 0.1 * n) for n in range(5)], "error, %", "x")
    assert np.ptp(places_of(kept[0], 1)) > 0.8
    assert (places_of(kept[0], 0) > 0.9).all()


def test_names_of_crowded_points_do_not_cover_one_another(monkeypatch):
    kept = []
    monkeypatch.setattr("solution.report.plots.drawn", lambda figure, *_: kept.append(figure))
    points = tuple(Point(macs=1e6 + 2e4 * i, quality=0.7 + 0.001 * i, name=f"number {i}") for i in range(4))
    pareto([PUBLISHED, Series(name="crowd", points=points)], scorer=Scorer())
    figure = kept[0]
    figure.draw_without_rendering()
    names = [text for text in figure.axes[0].texts if text.get_text().startswith("number")]
    boxes = [name.get_window_extent() for name in names]
    assert len(names) == 4
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])


def test_one_point_alone_can_be_drawn():
    assert "1,000 MACs" in pareto([Series(name="one", points=(Point(macs=1000, quality=0.9),))]).alt


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


def test_marks_of_few_classes_are_whole(monkeypatch):
    kept = []
    monkeypatch.setattr("solution.report.diagnostics.drawn", lambda figure, *_: kept.append(figure))
    class_f1({"before": np.array([0.1, 0.5, 0.9]), "after": np.array([0.2, 0.6, 0.95])}, ("a", "b", "c"))
    axes = kept[0].axes[0]
    kept[0].draw_without_rendering()
    for marks in axes.collections[1:]:
        for _, row in marks.get_offsets():
            up = axes.transData.transform((0, row))[1]
            assert axes.bbox.y0 + 5 <= up <= axes.bbox.y1 - 5


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
