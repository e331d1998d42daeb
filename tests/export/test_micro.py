"""Exports to microcontrollers: quality and memory by their interpreter, C++ that compiles and prepares as we do."""

import re
import shutil
import subprocess

import numpy as np
import pytest
import torch
from torch import nn

from solution.contracts import InputError
from solution.data.decode import resize
from solution.data.loaders import Data
from solution.evaluate.classify import classify
from solution.export import files
from solution.export.exporter import ExportConfig, export, make
from solution.export.files import listing

pytest.importorskip("litert_torch", reason="needs the extra micro")
pytest.importorskip("ai_edge_quantizer", reason="needs the extra micro")
pytest.importorskip("tflite_micro.python.tflite_micro.runtime", reason="needs the extra micro")
pytestmark = pytest.mark.edge
COMPILER = shutil.which("g++") or shutil.which("clang++")
STUBS = {
    "tensorflow/lite/schema/schema_generated.h": "#pragma once\n",
    "tensorflow/lite/micro/micro_mutable_op_resolver.h": """#pragma once
namespace tflite { template <int N> struct MicroMutableOpResolver { METHODS int count = 0; }; }
""",
    "tensorflow/lite/micro/micro_interpreter.h": """#pragma once
#include <cstdint>
#include <cstdio>
#include <cstddef>
enum TfLiteStatus { kTfLiteOk, kTfLiteError };
struct TfLiteTensor { union { std::int8_t* int8; float* f; } data; };
namespace tflite {
inline const void* GetModel(const void* data) { return data; }
struct MicroInterpreter {
  std::int8_t in[SIDE * SIDE * 3], out[8] = {1, 5, 2};
  TfLiteTensor given, gives;
  template <typename R> MicroInterpreter(const void*, R& resolver, std::uint8_t*, std::size_t) {
    given.data.int8 = in;
    gives.data.int8 = out;
    std::printf("%d\\n", resolver.count);
  }
  TfLiteStatus AllocateTensors() { return kTfLiteOk; }
  TfLiteTensor* input(int) { return &given; }
  TfLiteTensor* output(int) { return &gives; }
  TfLiteStatus Invoke() { for (int value : in) std::printf("%d\\n", value); return kTfLiteOk; }
};
}
""",
    "Arduino.h": """#pragma once
struct Port { void begin(int) {} void println(const char*) {} };
static Port Serial;
""",
    "picture.cpp": """#include <cstdint>
static const std::uint8_t pixels[] = {PIXELS};
static int shown = 0;
const std::uint8_t* NextPicture(int* width, int* height) {
  *width = WIDTH;
  *height = HEIGHT;
  return shown++ ? nullptr : pixels;
}
""",
}


def quiet(_):
    return None


@pytest.fixture(scope="module")
def chip(color_net, photos, tmp_path_factory):
    """The color net for a microcontroller, and what its export said."""
    said = []
    out = tmp_path_factory.mktemp("micro") / "net.cc"
    return make(ExportConfig(file=color_net, format="micro", out=out, data=str(photos)), said.append), "\n".join(said)


def test_the_interpreter_for_chips_knows_the_classes_and_memory_is_told(chip, photos):
    path, said = chip
    exported = files.open_file(path)
    assert exported.metadata.precision == "int8"
    assert classify(exported, Data(path=str(photos), size=32).open(splits=("val",)).val).f1 > 0.9
    flash, arena = (
        int(found.replace(",", "")) for found in re.search(r"flash: (\S+) .* arena: (\S+) bytes", said).groups()
    )
    found = listing(path)
    assert (found.flash, found.ram) == (flash, arena)
    assert sum(line.num_bytes for line in found.lines) < flash < path.stat().st_size
    assert arena > 32 * 32 * 3
    assert f"kArenaBytes = {arena};" in path.with_suffix(".h").read_text()
    assert {file.name for file in path.parent.iterdir()} == {"net.cc", "net.h", "net.main.cpp"}


def test_phones_and_chips_give_the_same_integers(chip, color_net, photos, tmp_path):
    config = ExportConfig(file=color_net, format="litert", precision="int8_full", out=tmp_path / "net.tflite",
                          data=str(photos))  # fmt: skip
    val = Data(path=str(photos), size=32).open(splits=("val",)).val
    images = torch.cat([batch for batch, _ in val])
    phone, other = files.open_file(make(config, quiet))(images), files.open_file(chip[0])(images)
    assert (phone.argmax(1) == other.argmax(1)).float().mean() >= 0.99
    assert (phone == other).float().mean() > 0.8


@pytest.mark.skipif(COMPILER is None, reason="needs a C++ compiler")
def test_the_program_compiles_and_prepares_a_picture_as_we_do(chip, tmp_path):
    path, _ = chip
    methods = re.findall(r"resolver\.(\w+)\(\)", path.with_suffix(".h").read_text())
    picture = np.random.default_rng(0).integers(0, 256, (71, 90, 3), dtype=np.uint8)
    replaced = {
        "METHODS": " ".join(f"void {method}() {{ ++count; }}" for method in methods),
        "SIDE": "32",
        "PIXELS": ",".join(map(str, picture.ravel())),
        "WIDTH": "90",
        "HEIGHT": "71",
    }
    for name, stub in STUBS.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(re.sub(rf"\b({'|'.join(replaced)})\b", lambda found: replaced[found[1]], stub))
    flags = [COMPILER, "-std=c++14", "-Wall", "-Wextra", "-Werror", f"-I{tmp_path}"]
    sources = [str(path), str(path.with_suffix(".main.cpp"))]
    subprocess.run([*flags, *sources, str(tmp_path / "picture.cpp"), "-o", str(tmp_path / "run")], check=True)
    subprocess.run([*flags, "-DARDUINO", "-c", sources[1], "-o", str(tmp_path / "arduino.o")], check=True)
    count, *values, name = subprocess.run([tmp_path / "run"], check=True, capture_output=True, text=True).stdout.split()
    assert int(count) == len(methods) > 4
    assert name == "green"
    exported = files.open_file(path)
    metadata = exported.metadata
    scale = re.search(r"kInputScale = (\S+)f;", path.with_suffix(".h").read_text())[1]
    zero = int(re.search(r"kInputZeroPoint = (\S+);", path.with_suffix(".h").read_text())[1])
    normal = (resize(picture, 32) / 255 - np.array(metadata.mean)) / np.array(metadata.std)
    wanted = np.clip(np.round(normal / float(scale)) + zero, -128, 127).ravel()
    gray = 1 / 255 / min(metadata.std) / float(scale)
    assert np.abs(np.array(values, int) - wanted).max() <= np.ceil(gray)


def test_a_net_too_large_for_the_chip_is_refused_by_how_much_and_where(color_net, photos, tmp_path):
    config = ExportConfig(file=color_net, format="micro", out=tmp_path / "net.cc", data=str(photos), ram="2 KiB",
                          precision="fp32")  # fmt: skip
    with pytest.raises(InputError, match=r"needs [\d,]+ bytes of ram, [\d,]+ more than 2 KiB, most of it at \S+"):
        make(config, quiet)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="flash is what a microcontroller has: give it with --format micro"):
        ExportConfig(file=color_net, format="onnx", flash="2 KiB")


class Odd(nn.Module):
    """A layer that LiteRT has, and chips lack."""

    def forward(self, x):
        return torch.atan2(x, x.abs() + 1)


def test_an_operation_that_chips_lack_is_named_with_its_place(tmp_path):
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), Odd(), nn.Flatten())
    with pytest.raises(InputError, match=r"(tflite-micro|the format) has no \S*atan2.*; write|has no \S*atan2.*write"):
        export(net.eval(), "micro", tmp_path / "net.cc", example=torch.randn(2, 3, 8, 8), precision="fp32", log=quiet)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("part", [0.0, 0.5, 0.98])
def test_a_damaged_array_is_refused_by_a_line(chip, tmp_path, part):
    text = chip[0].read_text()
    broken = tmp_path / "broken.cc"
    broken.write_text(text[: int(part * len(text))] + "};")
    for read in (files.open_file, listing):
        with pytest.raises(InputError, match="broken"):
            read(broken)
