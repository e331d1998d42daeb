"""ONNX and OpenVINO files of strangers: a child process meets what they do, and this one prints a line."""

import contextlib
import os

import numpy as np
import pytest
import torch

from solution.contracts import InputError
from solution.export import files

onnx = pytest.importorskip("onnx", reason="the extra runtimes is not installed")
needs_openvino = pytest.mark.parametrize("suffix", [".onnx", ".xml"])
node, port = onnx.helper.make_node, onnx.helper.make_tensor_value_info
LOGITS = port("logits", 1, ["b", 4])


def constant(name, values, kind=7):
    return onnx.numpy_helper.from_array(np.array(values, np.float32 if kind == 1 else np.int64), name)


def saved(path, nodes, weights=(), images=("b", 3, 2, 2)):
    """A net of four classes whose graph does `nodes`."""
    graph = onnx.helper.make_graph(nodes, "net", [port("images", 1, images)], [LOGITS], list(weights))
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    if path.suffix == ".onnx":
        return path
    openvino = pytest.importorskip("openvino", reason="the extra runtimes is not installed")
    openvino.save_model(openvino.Core().read_model(model.SerializeToString()), path, compress_to_fp16=False)
    return path


PLAIN = [node("GlobalAveragePool", ["images"], ["mean"]), node("Flatten", ["mean"], ["flat"]),
         node("Concat", ["flat", "one"], ["joined"], axis=1), node("Identity", ["joined"], ["logits"])]  # fmt: skip


def refusal(path, open_=files.open_file):
    with pytest.raises(InputError, match=path.name) as caught:
        open_(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def endless():
    """A loop that adds to a matrix for more rounds than there are seconds."""
    body = onnx.helper.make_graph(
        [node("Identity", ["go"], ["on"]), node("MatMul", ["a", "a"], ["b"])],
        "body",
        [port("round", 7, []), port("go", 9, []), port("a", 1, [64, 64])],
        [port("on", 9, []), port("b", 1, [64, 64])],
    )
    return [
        node("ReduceMean", ["images"], ["m"], keepdims=0),
        node("Expand", ["m", "square"], ["start"]),
        node("Loop", ["rounds", "", "start"], ["end"], body=body),
        node("ReduceMean", ["end"], ["e"], keepdims=0),
        node("Expand", ["e", "four"], ["logits"]),
    ], [constant("square", [64, 64]), constant("rounds", 1 << 60), constant("four", [1, 4])]


def greedy():
    """More memory than a file of a kilobyte may take."""
    return [
        node("ReduceMean", ["images"], ["m"], keepdims=0),
        node("Expand", ["m", "many"], ["large"]),
        node("ReduceSum", ["large"], ["s"], keepdims=0),
        node("Expand", ["s", "four"], ["logits"]),
    ], [constant("many", [1 << 30]), constant("four", [1, 4])]


@needs_openvino
@pytest.mark.parametrize(("graph", "limit"), [(endless, "SECONDS"), (greedy, "MEMORY")])
def test_a_graph_that_never_ends_or_fills_the_memory_is_refused(tmp_path, monkeypatch, suffix, graph, limit):
    monkeypatch.setenv("SOLUTION_MAX_FILE_SECONDS", "2")
    path = saved(tmp_path / f"net{suffix}", *graph(), images=(1, 3, 2, 2))
    assert f"SOLUTION_MAX_FILE_{limit}" in refusal(path)
    assert files.listing(path).num_bytes > 0  # it is read, but not run, to be listed


def beside(path, location, nodes=PLAIN):
    """A net whose one number lies in another file."""
    weight = onnx.TensorProto(name="one", data_type=1, dims=[1, 1], data_location=onnx.TensorProto.EXTERNAL)
    for key, value in (("location", location), ("length", "4")):
        weight.external_data.add(key=key, value=value)
    return saved(path, nodes, [weight])


@pytest.mark.parametrize(
    "location",
    ["{out}/secret", "../secret", "link", "*/_ORT_MEM_ADDR_/*", "", ".", "pipe", "/dev/zero", "a\0b", "x" * 5000,
     "file://{out}/secret", "absent"],
)  # fmt: skip
def test_weights_that_lie_elsewhere_are_not_read(tmp_path, location):
    (tmp_path / "secret").write_bytes(np.float32(7).tobytes())
    (tmp_path / "in").mkdir()
    (tmp_path / "in/link").symlink_to("../secret")
    os.mkfifo(tmp_path / "in/pipe")
    path = beside(tmp_path / "in/net.onnx", location.format(out=tmp_path))
    assert "no file in its folder" in refusal(path)
    assert files.listing(path).lines == ()
    inner = [node("Constant", [], ["one"], value=onnx.load(path, load_external_data=False).graph.initializer[0])]
    assert "no file in its folder" in refusal(saved(path, [*inner, *PLAIN]))  # nor those of a tensor in a node


def test_weights_that_lie_in_the_folder_are_read(tmp_path):
    (tmp_path / "one").write_bytes(np.float32(7).tobytes())
    path = beside(tmp_path / "net.onnx", "one")
    assert files.open_file(path)(torch.zeros(1, 3, 2, 2)).tolist()[0][3] == 7


@needs_openvino
def test_a_reader_that_dies_costs_a_line(tmp_path, monkeypatch, suffix):
    """The library is planted."""
    library = {".onnx": "onnxruntime", ".xml": "openvino"}[suffix]
    path = saved(tmp_path / f"net{suffix}", PLAIN, [constant("one", [[1.0]], 1)])
    (tmp_path / "planted").mkdir()
    (tmp_path / f"planted/{library}.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "planted"))
    assert "died of it (SIGSEGV)" in refusal(path)


def test_a_description_without_its_weights_is_named(tmp_path):
    path = saved(tmp_path / "net.xml", PLAIN, [constant("one", [[1.0]], 1)])
    path.with_suffix(".bin").unlink()
    for place in (None, "/dev/zero", "pipe"):
        with contextlib.suppress(FileNotFoundError):
            path.with_suffix(".bin").unlink()
        if place == "pipe":
            os.mkfifo(path.with_suffix(".bin"))
        elif place:
            path.with_suffix(".bin").symlink_to(place)
        for read in (files.open_file, files.listing):
            assert "net.bin" in refusal(path, read)


def test_a_sound_file_is_tried_once_and_ones_own_never(tmp_path, monkeypatch):
    path = saved(tmp_path / "net.onnx", PLAIN, [constant("one", [[1.0]], 1)], images=("b", 3, 2, 2))
    files.open_file(path)
    monkeypatch.setattr("subprocess.Popen", None)
    files.open_file(path)
    path.write_bytes(path.read_bytes() + b"\x3a\0")
    with pytest.raises(TypeError):
        files.open_file(path)
    files.open_file(path, checked=True)
