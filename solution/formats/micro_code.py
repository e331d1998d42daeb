"""The C++ that goes beside a net on a microcontroller: array, header with preprocessing, program."""

from __future__ import annotations

import json
from pathlib import PurePath

from solution.formats.exported import Metadata
from solution.formats.tflite import Graph

_PER_LINE = 16


def source_text(data: bytes, header: str) -> str:
    """The model as an array of bytes. header: name of the file that declares it."""
    lines = [
        "  " + " ".join(f"0x{byte:02x}," for byte in data[start : start + _PER_LINE])
        for start in range(0, len(data), _PER_LINE)
    ]
    body = "\n".join(lines)
    return (
        f"// Written by featherweight. A net for TensorFlow Lite Micro, {len(data):,} bytes of flash.\n"
        f'#include "{header}"\n\n'
        f"namespace featherweight {{\n\n"
        f"alignas(16) const unsigned char kModel[] = {{\n{body}\n}};\n"
        f"const std::size_t kModelBytes = sizeof(kModel);\n\n"
        f"}}  // namespace featherweight\n"
    )


def header_text(graph: Graph, metadata: Metadata, arena: int, methods: list[str]) -> str:
    """Sizes, labels, operations and preprocessing of this very net.

    arena    bytes that the interpreter used, as measured where pointers have 64 bits
    methods  of the resolver, one for each kind of operation
    """
    given, gives = graph.places[graph.inputs[0]], graph.places[graph.outputs[0]]
    integers = given.type == "INT8"
    short = int(metadata.size / metadata.crop + 1e-4) if metadata.crop else metadata.size
    labels = ", ".join(json.dumps(label) for label in metadata.labels)
    about = "" if metadata.interpolation == "area" else f" The net was trained on {metadata.interpolation} resizing."
    values = {
        "guard": "FEATHERWEIGHT_NET_H_",
        "side": metadata.size,
        "short": short,
        "crop": "true" if metadata.crop else "false",
        "channels": len(metadata.mean),
        "outputs": len(metadata.labels),
        "arena": arena,
        "operations": len(methods),
        "value": "std::int8_t" if integers else "float",
        "mean": _floats(metadata.mean),
        "std": _floats(metadata.std),
        "scale": f"{given.scale if integers else 1.0!r}f",
        "zero": given.zero_point if integers else 0,
        "out_scale": f"{gives.scale if integers and gives.scale else 1.0!r}f",
        "out_zero": gives.zero_point if integers else 0,
        "store": _INTEGERS if integers else "  return normal;",
        "labels": labels,
        "added": "\n".join(f"  resolver.{method}();" for method in methods),
        "about": about,
    }
    text = _HEADER
    for name, value in values.items():
        text = text.replace(f"@{name}@", str(value))
    return text


def program_text(graph: Graph, header: str) -> str:
    """A program to start from: for Arduino, or any board with a main function. header: name of the net's header."""
    kind = "int8" if graph.places[graph.inputs[0]].type == "INT8" else "f"
    return _PROGRAM.replace("@header@", PurePath(header).name).replace("@data@", kind)


def _floats(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value!r}f" for value in values)


_INTEGERS = """  float step = normal / kInputScale;
  step = std::floor(step + 0.5f) + kInputZeroPoint;
  return static_cast<std::int8_t>(step < -128 ? -128 : step > 127 ? 127 : step);"""

_HEADER = """// Written by featherweight: what a program needs to know of the net in the .cc file of the same name.
#ifndef @guard@
#define @guard@

#include <cmath>
#include <cstddef>
#include <cstdint>

namespace featherweight {

constexpr int kSide = @side@;  // pictures are kSide x kSide
constexpr int kShort = @short@;
constexpr bool kCrop = @crop@;  // the shorter side becomes kShort, and the middle is taken; else all is stretched
constexpr int kChannels = @channels@;
constexpr int kOutputs = @outputs@;
constexpr int kOperations = @operations@;
// Measured by tflite-micro's interpreter where pointers have 64 bits; where they have 32, less is used.
constexpr std::size_t kArenaBytes = @arena@;

extern const unsigned char kModel[];
extern const std::size_t kModelBytes;

constexpr const char* kLabels[kOutputs] = {@labels@};
constexpr float kMean[kChannels] = {@mean@};
constexpr float kStd[kChannels] = {@std@};
constexpr float kInputScale = @scale@;
constexpr int kInputZeroPoint = @zero@;
constexpr float kOutputScale = @out_scale@;
constexpr int kOutputZeroPoint = @out_zero@;

using Value = @value@;

// One number as the net takes it; pixel: 0 to 255.
inline Value Normalized(float pixel, int channel) {
  float normal = (pixel / 255.0f - kMean[channel]) / kStd[channel];
@store@
}

// Resize a picture, RGB bytes row by row, to the net's input. Each pixel is the mean of the area that it covers.@about@
// False, and nothing is written, when a side of the picture is smaller than kShort.
inline bool Prepare(const std::uint8_t* rgb, int width, int height, Value* input) {
  if (width < kShort || height < kShort) return false;
  const int rows = kCrop && height > width ? static_cast<int>(static_cast<float>(kShort) * height / width) : kShort;
  const int columns = kCrop && width > height ? static_cast<int>(static_cast<float>(kShort) * width / height) : kShort;
  const int first_row = (rows - kSide) / 2, first_column = (columns - kSide) / 2;
  for (int y = first_row; y < first_row + kSide; ++y) {
    const float top = static_cast<float>(y) * height / rows;
    const float bottom = static_cast<float>(y + 1) * height / rows;
    for (int x = first_column; x < first_column + kSide; ++x) {
      const float left = static_cast<float>(x) * width / columns;
      const float right = static_cast<float>(x + 1) * width / columns;
      float sums[kChannels] = {};
      float area = 0;
      for (int row = static_cast<int>(top); row < bottom - 1e-3f && row < height; ++row) {
        const float tall = std::fmin(bottom, row + 1.0f) - std::fmax(top, static_cast<float>(row));
        for (int column = static_cast<int>(left); column < right - 1e-3f && column < width; ++column) {
          const float wide = std::fmin(right, column + 1.0f) - std::fmax(left, static_cast<float>(column));
          const std::uint8_t* pixel = rgb + (static_cast<std::size_t>(row) * width + column) * kChannels;
          for (int channel = 0; channel < kChannels; ++channel) sums[channel] += tall * wide * pixel[channel];
          area += tall * wide;
        }
      }
      for (int channel = 0; channel < kChannels; ++channel) {
        *input++ = Normalized(std::floor(sums[channel] / area + 0.5f), channel);
      }
    }
  }
  return true;
}

inline float Logit(Value value) { return (static_cast<float>(value) - kOutputZeroPoint) * kOutputScale; }

// Only what this net uses goes into the program.
template <typename Resolver>
void AddOperations(Resolver& resolver) {
@added@
}

}  // namespace featherweight

#endif  // @guard@
"""

_PROGRAM = """// Written by featherweight: a program to start from. It needs TensorFlow Lite Micro and a camera.
#include "@header@"

#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"
#include "tensorflow/lite/schema/schema_generated.h"

#ifdef ARDUINO
#include <Arduino.h>
#else
#include <cstdio>
#endif

// Yours to write: the next picture, RGB bytes row by row; nullptr when there is none.
const std::uint8_t* NextPicture(int* width, int* height);

namespace {

alignas(16) std::uint8_t arena[featherweight::kArenaBytes];
tflite::MicroInterpreter* interpreter = nullptr;

bool Begin() {
  static tflite::MicroMutableOpResolver<featherweight::kOperations> resolver;
  featherweight::AddOperations(resolver);
  static tflite::MicroInterpreter own(tflite::GetModel(featherweight::kModel), resolver, arena, sizeof(arena));
  interpreter = &own;
  return own.AllocateTensors() == kTfLiteOk;
}

// The class of a picture; -1 when it is too small, or the net does not run.
int Classify(const std::uint8_t* rgb, int width, int height) {
  if (!featherweight::Prepare(rgb, width, height, interpreter->input(0)->data.@data@)) return -1;
  if (interpreter->Invoke() != kTfLiteOk) return -1;
  const featherweight::Value* values = interpreter->output(0)->data.@data@;
  int best = 0;
  for (int index = 1; index < featherweight::kOutputs; ++index) {
    if (values[index] > values[best]) best = index;
  }
  return best;
}

const char* NameOf(int found) { return found < 0 ? "nothing" : featherweight::kLabels[found]; }

}  // namespace

#ifdef ARDUINO
void setup() {
  Serial.begin(115200);
  if (!Begin()) Serial.println("the net does not fit into its arena");
}

void loop() {
  int width = 0, height = 0;
  const std::uint8_t* rgb = NextPicture(&width, &height);
  if (rgb != nullptr) Serial.println(NameOf(Classify(rgb, width, height)));
}
#else
int main() {
  if (!Begin()) return 1;
  int width = 0, height = 0;
  while (const std::uint8_t* rgb = NextPicture(&width, &height)) {
    std::printf("%s\\n", NameOf(Classify(rgb, width, height)));
  }
  return 0;
}
#endif
"""
