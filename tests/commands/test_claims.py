"""Commands that write claim where they write, before they write anything."""

import pytest

from solution.__main__ import main
from solution.contracts import Row
from solution.locks import claimed
from solution.run_folder import write_rows


@pytest.mark.parametrize(
    "words",
    [
        ["prepare", "{photos}", "{out}"],
        ["export", "net.safetensors", "--format", "onnx", "--out", "{out}"],
        ["compress", "net.safetensors", "--step", "prune_layers count=1", "--out", "{out}"],
        ["report", "{run}", "--html", "{out}"],
    ],
    ids=lambda words: words[0],
)
def test_what_another_one_writes_is_left_alone(photos, tmp_path, capsys, words):
    write_rows(tmp_path / "run", [Row(step="a", macs=1, params=1, bytes=1)])
    out = tmp_path / "out.onnx"
    with claimed(out):
        assert main([word.format(photos=photos, out=out, run=tmp_path / "run") for word in words]) == 2
    assert f"{out} is already being written by this process" in capsys.readouterr().err
    assert not out.exists()
