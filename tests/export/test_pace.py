"""Whether int8 pays on this machine is printed."""

import re
import time
from types import SimpleNamespace

import pytest

from solution.export.exporter import export
from solution.export.pace import medians_ms, verdict
from solution.input_spec import InputSpec


@pytest.mark.parametrize(
    ("times", "line"),
    [
        ((0.15, 0.1), "int8 does not pay on this machine, but for its bytes: it is 50 % slower than fp32"),
        ((0.1, 0.2), "int8 is 2.00 times as fast as fp32 on this machine"),
        ((0.1, 0.101), "int8 is as fast as fp32 on this machine"),
    ],
)
def test_the_verdict_follows_the_times(times, line):
    assert verdict(*times).startswith(f"{line} ({times[0]:.3g} ms an image in int8")


def test_both_are_called_in_turns():
    calls, spec = [], InputSpec(mean=(0.5,) * 3, std=(0.5,) * 3, size=8)

    def net(name, seconds):
        def run(images):
            calls.append((name, images.shape))
            time.sleep(seconds)

        return SimpleNamespace(metadata=spec, run=run)

    slow, quick = medians_ms(net("slow", 0.02), net("quick", 0.001))
    assert slow > quick > 0
    names, shapes = zip(*calls, strict=True)
    assert set(shapes) == {(1, 3, 8, 8)}
    rounds = [names[at : at + 2] for at in range(0, len(names), 2)]
    assert rounds == [(("slow", "quick"), ("quick", "slow"))[number % 2] for number in range(len(rounds))]


@pytest.mark.long
def test_an_int8_export_says_whether_it_pays(color_net, photos, tmp_path):
    said = []
    export(color_net, "onnx", tmp_path / "net.onnx", precision="int8", data=str(photos), log=said.append)
    assert re.search(r"int8 (does not pay|is [\d.]+ times as fast|is as fast).*\d ms an image in int8", said[-1])
    said.clear()
    export(color_net, "onnx", tmp_path / "net.onnx", data=str(photos), log=said.append)
    assert "int8" not in "\n".join(said)
