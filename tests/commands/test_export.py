import pytest

from solution.__main__ import main
from solution.demo import PRETRAINED

NET = PRETRAINED / "rendered/after.safetensors"


def test_a_checkpoint_is_packed(tmp_path, capsys):
    out = tmp_path / "after.packed"
    assert main(["export", str(NET), "--format", "packed", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "tensors read back bit by bit" in said
    assert f"{out}: {out.stat().st_size:,} bytes ({NET}: {NET.stat().st_size:,})" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            (NET, "--format", "zip"),
            "format must be one of packed, web, onnx, openvino, pt2, litert, micro, executorch, got 'zip'",
        ),
        (("nowhere.safetensors", "--format", "packed"), "there is no checkpoint nowhere.safetensors"),
        ((NET, "--format", "onnx", "--out", "net.pt2"), "ends in .onnx, got net.pt2"),
    ],
)
def test_bad_input_is_explained(words, said, capsys):
    assert main(["export", *map(str, words)]) == 2
    assert said in capsys.readouterr().err
