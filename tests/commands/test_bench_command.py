"""``python -m solution bench``: files in, a table and a chart out."""

import json
import sys

import pytest
import torch
from torch._inductor import config as inductor

from solution import checkpoint
from solution.__main__ import main
from solution.commands import bench
from solution.export import files
from solution.export.runtimes import form_for
from solution.models.shufflenet import ShuffleNet


@pytest.fixture(scope="module")
def net_file(tmp_path_factory):
    torch.manual_seed(0)
    net = ShuffleNet(units=(1, 1, 1), width=0.1).build(num_classes=3).eval()
    about = {"classes": ("blue", "green", "red"), "mean": (0.5,) * 3, "std": (0.2,) * 3, "size": 32}
    path = tmp_path_factory.mktemp("nets") / "net.safetensors"
    checkpoint.save(path, net, checkpoint.header_of(net, **about))
    return path


@pytest.mark.long
def test_files_are_measured_in_their_runtimes(net_file, tmp_path, capsys):
    files.save(tmp_path / "net.packed", *files.load(net_file))
    onnx = form_for(net_file, "onnxruntime", tmp_path)
    words = ["--runtimes", "eager", "onnxruntime", "--threads", "1", "--batch", "1", "2", "--rounds", "1"]
    assert main(["bench", str(tmp_path / "net.packed"), str(onnx), *words, "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "loading net.packed, onnxruntime fp32, 1 thread(s)" in said
    assert "| net.onnx | onnxruntime fp32 | 1 |" in said
    speeds = json.loads((tmp_path / "out" / "speed.json").read_text())
    places = [(speed["model"], speed["runtime"]) for speed in speeds["speeds"]]
    assert places == [("net.packed", "eager"), ("net.packed", "onnxruntime"), ("net.onnx", "onnxruntime")]
    assert all(speed["p95_ms"] >= speed["p50_ms"] > 0 for speed in speeds["speeds"])
    assert "onnxruntime 1." in speeds["about"]
    assert "1 round(s) in turns" in speeds["about"]
    assert (tmp_path / "out" / "speed.svg").read_text().startswith("<?xml")


@pytest.mark.slow
def test_a_net_is_compiled(net_file, capsys):
    words = ["--runtimes", "compile", "openvino", "--threads", "1", "--rounds", "1"]
    assert main(["bench", str(net_file), *words]) == 0
    assert "| net.safetensors | compile fp32 | 1 |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--runtimes", "warp"), "runtime must be one of eager, compile, onnxruntime, openvino"),
        (("--precision", "int8", "--runtimes", "openvino"), "int8 is calibrated and proven on photos"),
        (("--precision", "int3", "--runtimes", "openvino"), "int8_full, int8_dynamic, got 'int3'"),
        (("--threads", "0"), "--threads must be 1 to 1024, got 0"),
        (("--threads", "1000000000"), "--threads must be 1 to 1024, got 1000000000"),
        (("--batch", "1000000000"), "batches must be 1 to 65,536, got (1000000000,)"),
        (("--rounds", "1000000000"), "rounds must be 1 to 100,000"),
        (("--rounds", "0"), "rounds must be 1 to 100,000"),
    ],
)
def test_bad_wishes_are_explained(net_file, words, message, capsys):
    assert main(["bench", str(net_file), *words]) == 2
    assert message in capsys.readouterr().err


def test_a_missing_runtime_is_named_with_the_extra(net_file, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert main(["bench", str(net_file), "--runtimes", "eager", "onnxruntime"]) == 2
    assert 'onnxruntime, which is not here: pip install -e ".[runtimes]"' in capsys.readouterr().err


def test_runtimes_that_nobody_asked_for_may_be_missing(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setattr(bench, "_check_compiler", lambda: None)
    assert list(bench._runtimes(None)) == ["eager", "compile", "openvino"]
    assert "onnxruntime is left out: the runtime onnxruntime needs onnxruntime" in capsys.readouterr().out


def test_without_a_compiler_nothing_is_compiled(net_file, capsys):
    with inductor.patch({"cpp.cxx": (None, "no-such-compiler")}):
        runtimes = list(bench._runtimes(None))
        assert main(["bench", str(net_file), "--runtimes", "compile"]) == 2
    assert runtimes == ["eager", "onnxruntime", "openvino"]
    message, said = "torch.compile needs a C++ compiler: install g++, or name yours in CXX", capsys.readouterr()
    assert f"compile is left out: {message}" in said.out
    assert message in said.err


def test_without_python_s_headers_nothing_is_compiled(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(bench.sysconfig, "get_path", lambda *_, **__: str(tmp_path))
    assert "compile" not in list(bench._runtimes(None))
    assert "compile is left out: torch.compile needs Python's headers" in capsys.readouterr().out


def test_a_file_that_runs_as_it_is_says_so_when_a_precision_is_asked_for(net_file, capsys):
    words = ["--runtimes", "eager", "--threads", "1", "--batch", "1", "--rounds", "1"]
    assert main(["bench", str(net_file), *words, "--precision", "int8"]) == 0
    said = capsys.readouterr().out
    assert "runs in eager as it is: --precision is for checkpoints in onnxruntime and openvino" in said
    assert "| net.safetensors | eager fp32 | 1 |" in said


def test_an_exported_file_needs_its_own_runtime(tmp_path, capsys):
    (tmp_path / "net.onnx").write_bytes(b"")
    assert main(["bench", str(tmp_path / "net.onnx"), "--runtimes", "eager"]) == 2
    assert "runs in onnxruntime, not in eager" in capsys.readouterr().err
    assert main(["bench", str(tmp_path / "absent.packed"), "--runtimes", "eager"]) == 2
    assert "absent.packed" in capsys.readouterr().err
