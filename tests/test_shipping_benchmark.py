"""`benchmarks/shipping.py`: its tables stand, whatever form cannot be made."""

import shutil

import pytest

from benchmarks import shipping
from solution.contracts import InputError
from solution.evaluate.speed import Speed
from solution.report.tables import Table

MS = {"fp32": 4.0, "int8": 1.0}


@pytest.fixture
def made(monkeypatch):
    """The names of forms that cannot be made; all others are copies of the checkpoint, with times as if measured."""
    failing = set()

    def form_for(path, runtime, folder, precision, data):
        if f"{runtime} {precision}" in failing:
            raise InputError(f"{runtime} has no {precision}")
        folder.mkdir(parents=True, exist_ok=True)
        return shutil.copy(path, folder / f"{runtime}.{precision}.safetensors")

    def case(form, runtime, threads, model):
        return model, runtime, "int8" if ".int8." in form.name else "fp32"

    monkeypatch.setattr(shipping, "form_for", form_for)
    monkeypatch.setattr(shipping, "case", case)
    monkeypatch.setattr(shipping, "measure", lambda cases, turns, log: [speed(*names) for names in cases])
    return failing


def speed(model, runtime, precision):
    ms = MS[precision] * (8 if runtime == "eager" else 1) * (2 if model == "before" else 1)
    return Speed(model=model, runtime=runtime, precision=precision, threads=1,
                 times_ms={1: (ms,), shipping.MANY: (ms,)}, load_ms=1.0, peak_bytes=None)  # fmt: skip


def told(photos, folder, monkeypatch, capsys, *more):
    before, after = folder / "before.safetensors", folder / "after.safetensors"
    words = ["shipping", before, after, photos, "--packed", after, *more]
    monkeypatch.setattr("sys.argv", [str(word) for word in words])
    monkeypatch.setattr(shipping, "EXPORTING", ("onnxruntime", "openvino"))
    monkeypatch.setattr(shipping, "unpacking", lambda: Table(headings=("unpacking",), rows=()))
    shipping.main()
    return capsys.readouterr().out


def test_every_form_is_timed_and_int8_is_set_against_fp32(photos, finished, made, monkeypatch, capsys):
    text = told(photos, finished[0], monkeypatch, capsys, "--large", finished[0] / "before.safetensors", photos)
    assert "left out" not in text
    assert "| PyTorch eager's Before / After in onnxruntime int8 | 64.00x | 64.00x |" in text
    assert "| Before / After, both in onnxruntime int8 | 2.00x | 2.00x | aim 1.5x |" in text
    for runtime in ("onnxruntime", "openvino"):
        assert f"| {runtime} | 4.00 | 1.00 | 4.00x | 4.00x |" in text
    assert "| macro F1 on val |" in text


def test_forms_that_fail_are_left_out_with_a_word(photos, finished, made, monkeypatch, capsys):
    made |= {"openvino int8", "onnxruntime fp32"}
    text = told(photos, finished[0], monkeypatch, capsys, "--large", finished[0] / "before.safetensors", photos)
    for name in ("before", "after", "before.safetensors"):
        assert f"making {name}, openvino int8\nleft out: openvino has no int8" in text
    assert "| after | openvino fp32 | 1 | 4.000 |" in text
    assert "| wanted |" in text
    assert "4.00x | 4.00x" not in text


def test_where_no_form_can_be_made_eager_stands_alone(photos, finished, made, monkeypatch, capsys):
    made |= {f"{runtime} {precision}" for runtime in ("onnxruntime", "openvino") for precision in MS}
    text = told(photos, finished[0], monkeypatch, capsys)
    assert text.count("left out") == 8
    assert "| PyTorch eager's Before / After in eager fp32 | 2.00x | 2.00x |" in text


@pytest.mark.slow
def test_real_forms_are_made_and_measured(photos, finished, monkeypatch, capsys):
    monkeypatch.setattr(shipping, "EXPORTING", ("openvino",))
    text = told(photos, finished[0], monkeypatch, capsys, "--precisions", "fp32", "--rounds", "1")
    assert "left out" not in text
    assert "| after | openvino fp32 | 1 |" in text
    assert "Before / After, both in openvino fp32" in text
