import warnings
import xml.etree.ElementTree as ET

from solution.evaluate.speed import Speed
from solution.report.plots import speed_drawing, speed_table
from solution.report.style import MARKERS


def speed(model, runtime, ms, threads=1, peak_bytes=1_500_000):
    times = {1: (ms, ms, 2 * ms), 64: (32 * ms,)}
    return Speed(model=model, runtime=runtime, precision="fp32", threads=threads, times_ms=times, load_ms=12.0,
                 peak_bytes=peak_bytes)  # fmt: skip


SPEEDS = [
    speed("before.safetensors", "eager", 8.0),
    speed("after.safetensors", "eager", 4.0),
    speed("after.safetensors", "onnxruntime", 0.25, threads=2, peak_bytes=None),
]


def test_the_table_has_a_line_for_each():
    table = speed_table(SPEEDS, "two cores")
    assert table.rows[0] == (
        "before.safetensors", "eager fp32", "1", "8.000", "15.200", "250 (batch 64)", "1.5", "12",
    )  # fmt: skip
    assert table.rows[2][1:4] == ("onnxruntime fp32", "2", "0.250")
    assert table.rows[2][6] == "-"
    assert table.headings[3:5] == ("p50 ms, batch 1", "p95 ms, batch 1")
    assert table.note.endswith("Load: from the file to the first answer. two cores")


def test_the_drawing_says_all_medians():
    drawing = speed_drawing(SPEEDS)
    assert "before.safetensors in eager fp32, 1 thread: 8.000 ms" in drawing.alt
    assert "after.safetensors in onnxruntime fp32, 2 threads: 0.250 ms" in drawing.alt
    assert "onnxruntime fp32, 2 threads" in drawing.svg
    assert "milliseconds, batch 1" in drawing.svg
    ET.fromstring(drawing.file_text().encode())


def test_two_files_of_one_role_look_different():
    twins = [speed("after.safetensors", "eager", 4.0), speed("after.packed", "eager", 4.1)]
    svg = speed_drawing(twins).svg
    assert "var(--hue1)" in svg
    assert "var(--hue2)" in svg
    assert "var(--after)" not in svg


def test_every_marker_is_drawn_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawing = speed_drawing([speed(f"net{index}.packed", "eager", 1.0 + index) for index in range(len(MARKERS))])
    assert all(f"net{index}.packed" in drawing.svg for index in range(len(MARKERS)))


def test_labels_of_the_axis_do_not_overlap(monkeypatch):
    kept = []
    monkeypatch.setattr("solution.report.plots.drawn", lambda figure, *_: kept.append(figure))
    for times in ((0.31, 0.42, 0.55), (0.05, 1.9, 4.0), (0.004, 3.0, 900.0)):
        speed_drawing([speed(f"net{index}.packed", "eager", ms) for index, ms in enumerate(times)])
        figure = kept[-1]
        figure.draw_without_rendering()
        axis = figure.axes[0].xaxis
        low, high = axis.get_view_interval()
        shown = [tick.label1 for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks())
                 if low <= tick.get_loc() <= high and tick.label1.get_text()]  # fmt: skip
        boxes = [label.get_window_extent() for label in shown]
        assert len(boxes) >= 2
        assert not any(one.overlaps(other) for at, one in enumerate(boxes) for other in boxes[:at])
