"""Exports of a small net, each opened in its runtime; those of the large one in `test_real_exports`."""

import io
import json
import re
import sys
import zipfile

import onnx
import pytest
import torch

from solution import checkpoint
from solution.compress.quantize import Quantize
from solution.contracts import InputError, StepContext
from solution.data.loaders import Data
from solution.evaluate.classify import classify
from solution.export import files
from solution.export.exporter import ExportConfig, make
from solution.export.files import listing
from solution.export.packed import packed
from solution.export.runtimes import case
from solution.formats.exported import KEY, Metadata
from solution.formats.onnx import Onnx


def made(net, photos, out, **wishes):
    said = []
    path = make(ExportConfig(file=net, out=out, data=str(photos), **wishes), said.append)
    return path, "\n".join(said)


def judge(net, photos, path):
    """Quality and the answers to a few batches of the file at `path`."""
    header = checkpoint.read_header(net)
    exported = files.open_file(path)
    val = Data(path=str(photos), size=header.size).open(splits=("val",)).val
    assert exported.metadata.classes == header.classes
    assert (exported.metadata.mean, exported.metadata.std, exported.metadata.size) == (
        header.mean,
        header.std,
        header.size,
    )
    for batch in (1, 5):
        assert exported(torch.zeros(batch, 3, header.size, header.size)).shape == (batch, len(header.classes))
    return classify(exported, val).f1


CASES = [
    ("onnx", "int8", ".onnx"),
    ("openvino", "fp16", ".xml"),
    ("pt2", "fp32", ".pt2"),
    *(
        pytest.param(format_, precision, suffix, marks=pytest.mark.slow)
        for format_, suffix in (("onnx", ".onnx"), ("openvino", ".xml"), ("pt2", ".pt2"))
        for precision in ("fp32", "fp16", "int8")
        if (format_, precision) not in (("onnx", "int8"), ("openvino", "fp16"), ("pt2", "fp32"))
    ),
]


@pytest.mark.parametrize(("format_", "precision", "suffix"), CASES)
def test_an_export_says_what_the_net_says(color_net, photos, tmp_path, format_, precision, suffix):
    path, said = made(color_net, photos, tmp_path / f"net{suffix}", format=format_, precision=precision)
    assert "top-1 agrees on" in said
    assert precision != "int8" or re.search(r"is calibrated on 6\d images of train\n.* dev split", said)
    assert judge(color_net, photos, path) > 0.9
    least_bits = min(line.bits for line in listing(path).lines if len(line.shape) == 4)
    assert least_bits == {"fp32": 32, "fp16": 16, "int8": 8}[precision]
    assert {file.name for file in tmp_path.iterdir()} <= {f"net{suffix}", "net.bin"}


@pytest.mark.parametrize("observer", ["mse", "dynamic"])
def test_inputs_are_rounded_once_in_int8(color_net, photos, tmp_path, observer):
    net, header = files.load(color_net)
    calibration = Data(path=str(photos), size=header.size).open(splits=("calibration",)).calibration
    context = StepContext(example=torch.zeros(1, 3, header.size, header.size), calibration=calibration)
    rounding = Quantize(activations=8, observer=observer, fold_norms=True)(net, context)
    metadata = {"classes": header.classes, "mean": header.mean, "std": header.std, "size": header.size}
    checkpoint.save(file := tmp_path / "net.safetensors", rounding, checkpoint.header_of(rounding, **metadata))

    path, said = made(file, photos, tmp_path / "net.onnx", format="onnx", precision="int8")
    assert "inputs that the net rounds itself are rounded by the int8 graph alone" in said
    assert judge(file, photos, path) > 0.9
    assert "Round" not in {node.op_type for node in onnx.load(path).graph.node}


def test_a_packed_export_is_the_checkpoint_itself(color_net, photos, tmp_path):
    path, said = made(color_net, photos, tmp_path / "net.packed", format="packed")
    assert "read back bit by bit" in said
    assert packed.read_header(path) == checkpoint.read_header(color_net)
    assert path.stat().st_size < 0.8 * color_net.stat().st_size
    again, _ = made(path, photos, tmp_path / "again.packed", format="packed")
    assert again.read_bytes() == path.read_bytes()
    with pytest.raises(InputError, match="quantize the net in a recipe"):
        made(color_net, photos, tmp_path / "net.packed", format="packed", precision="int8")


@pytest.mark.parametrize(("format_", "suffix"), [("onnx", ".onnx"), ("openvino", ".xml")])
def test_an_export_that_fails_parity_is_not_left_behind(color_net, photos, tmp_path, monkeypatch, format_, suffix):
    base = Onnx.base

    monkeypatch.setattr(Onnx, "base", lambda self, net, example: base(self, Swapped(net), example))
    with pytest.raises(InputError, match=r"fp32 fails parity \(logits, .*\) and was not kept: try another format$"):
        made(color_net, photos, tmp_path / f"net{suffix}", format=format_)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("taken", ["net.xml", "net.bin"])
def test_a_place_that_is_taken_is_named_before_the_work_and_nothing_is_left_there(tmp_path, monkeypatch, taken):
    monkeypatch.setattr(files, "load", None)
    (tmp_path / taken).mkdir()
    with pytest.raises(InputError, match=f"{taken} is a folder: name a file to write"):
        make(ExportConfig(file=tmp_path / "net.safetensors", format="openvino"))
    assert [path.name for path in tmp_path.iterdir()] == [taken]


class Swapped(torch.nn.Module):
    """A net whose answers are in another order."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x).roll(1, 1)


@pytest.mark.parametrize(
    ("wishes", "match"),
    [
        ({"format": "tflite"}, "format must be one of packed, web, onnx, openvino, pt2, .*, got 'tflite'"),
        ({"format": "onnx", "precision": "int4"}, "precision must be one of fp32, fp16, int8, .*, got 'int4'"),
        ({"format": "onnx", "out": "net.xml"}, r"ends in \.onnx, got .*net\.xml"),
        ({"format": "onnx", "calibration_images": 0}, "at least 1, got 0"),
        ({"format": "onnx", "precision": "int8", "calibration_images": 500}, "500 calibration images .* has 6[0-9]"),
    ],
)
def test_wishes_that_cannot_be_met(color_net, photos, tmp_path, wishes, match):
    out = tmp_path / wishes.pop("out") if "out" in wishes else None
    with pytest.raises(InputError, match=match):
        made(color_net, photos, out, **wishes)


def test_other_data_are_refused(color_net, photos, tmp_path):
    (tmp_path / "other/val").mkdir(parents=True)
    for name in ("dog", "cat"):
        (tmp_path / "other/val" / name).mkdir()
        for number in range(3):
            source = next((photos / "val").rglob("*.png"))
            (tmp_path / "other/val" / name / f"{number}.png").write_bytes(source.read_bytes())
    with pytest.raises(InputError, match="has the classes cat, dog, and the net blue, green, red: name data"):
        made(color_net, tmp_path / "other", tmp_path / "net.onnx", format="onnx")


def test_a_missing_runtime_is_named_with_the_extra(color_net, photos, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(InputError, match=r'onnxscript, which is not here: pip install -e "\.\[runtimes\]"'):
        made(color_net, photos, tmp_path / "net.onnx", format="onnx")


def test_names_follow_the_checkpoint(tmp_path):
    file = tmp_path / "after.safetensors"
    assert ExportConfig(file=file, format="onnx").path == tmp_path / "after.onnx"
    assert ExportConfig(file=file, format="openvino", precision="int8").path == tmp_path / "after.int8.xml"
    assert ExportConfig(file=file, format="packed").path == tmp_path / "after.packed"


@pytest.fixture(scope="module")
def onnx_file(color_net, photos, tmp_path_factory):
    return made(color_net, photos, tmp_path_factory.mktemp("onnx") / "net.onnx", format="onnx")[0]


def test_pictures_may_be_bytes(onnx_file):
    exported = files.open_file(onnx_file)
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    mean, std = (torch.tensor(values)[:, None, None] for values in (exported.metadata.mean, exported.metadata.std))
    assert torch.allclose(exported(images), exported((images / 255 - mean) / std), atol=1e-4)
    with pytest.raises(InputError, match=r"takes images \(B, 3, 32, 32\), got \(3, 3, 40, 40\)"):
        exported(torch.zeros(3, 3, 40, 40))


def test_an_exported_net_cannot_be_exported_again(onnx_file, photos, tmp_path):
    with pytest.raises(InputError, match=r"what can be made of one is int8 of an \.onnx file"):
        made(onnx_file, photos, tmp_path / "net.xml", format="openvino")


def test_files_of_others_are_refused(onnx_file, tmp_path):
    import onnx

    model = onnx.load(onnx_file)
    model.graph.output.append(onnx.helper.make_tensor_value_info(model.graph.node[0].output[0], 1, None))
    onnx.save(model, tmp_path / "detector.onnx")
    with pytest.raises(InputError, match=r"to 2 output.*it is a file for another task"):
        files.open_file(tmp_path / "detector.onnx")
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "nameless.onnx")
    assert files.open_file(tmp_path / "nameless.onnx").metadata.classes == ()  # anyone's file may be asked
    (tmp_path / "noise.onnx").write_bytes(b"noise")
    with pytest.raises(InputError, match="cannot be opened as an ONNX file"):
        files.open_file(tmp_path / "noise.onnx")
    with pytest.raises(InputError, match="there is no file"):
        files.open_file(tmp_path / "nowhere.onnx")


@pytest.mark.parametrize(
    ("said", "match"),
    [
        ({"size": "48"}, r"net\.onnx: size must be the side of the input in pixels, 1 to 4096, got '48'"),
        ({"size": -4}, "got -4"),
        ({"size": 48}, r"takes images \(B, 3, 48, 48\).*but its net maps \('.*', 3, 32, 32\)"),
        ({"classes": ["a"]}, "names 1 classes, and its net has 3"),
        ({"classes": ["a"], "outputs": 1}, "gives 1 numbers each, but its net maps"),
        ({"classes": "abc"}, "classes must be names"),
        ({"std": [0.2, 0.2, "x"]}, "mean and std must be a number of each channel"),
        ({"std": [0.2, 0.2, 0]}, "mean and std must be"),
        ({"mean": []}, "mean has 0 number"),
        ({"task": "detection"}, "it is a file for another task"),
    ],
)
def test_an_exported_net_must_be_what_its_description_says(onnx_file, tmp_path, said, match):
    import onnx

    model = onnx.load(onnx_file)
    text = json.dumps(json.loads(model.metadata_props[0].value) | said)
    onnx.helper.set_model_props(model, {KEY: text})
    onnx.save(model, tmp_path / "net.onnx")
    with pytest.raises(InputError, match=match):
        files.open_file(tmp_path / "net.onnx", task=None)


def test_nobody_times_a_net_of_another_task_that_says_it_classifies(onnx_file, tmp_path):
    import onnx

    model = onnx.load(onnx_file)
    last = model.graph.output[0].name
    model.graph.node.append(onnx.helper.make_node("Unsqueeze", [last, "axis"], ["boxes"]))
    model.graph.initializer.append(onnx.helper.make_tensor("axis", onnx.TensorProto.INT64, [1], [2]))
    model.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("boxes", 1, ["batch", 3, 1]))
    onnx.save(model, tmp_path / "net.onnx")
    with pytest.raises(InputError, match="it is a file for another task"):
        case(tmp_path / "net.onnx", "onnxruntime", threads=1, model="net")


def test_openvino_files_need_their_weights_and_must_be_sound(tmp_path):
    path = tmp_path / "net.xml"
    path.write_text("<net/>")
    with pytest.raises(InputError, match=r"there is no net\.bin"):
        files.open_file(path)
    path.with_suffix(".bin").write_bytes(b"")
    with pytest.raises(InputError, match="cannot be opened as an OpenVINO file"):
        files.open_file(path)


def archive(entries, method=zipfile.ZIP_STORED):
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", method) as zipped:
        for name, text in entries.items():
            zipped.writestr(name if name == "version" else f"net/{name}", text)
    return whole.getvalue()


MODEL = {"models/model.json": "{}"}


@pytest.mark.parametrize(
    ("entries", "match"),
    [
        (MODEL | {"data/sample_inputs/model.pt": b"\x80\x02"}, "holds a pickle .*sample_inputs"),
        (MODEL | {"data/weights/model.pt": b"\x80\x02"}, "holds a pickle .*weights"),
        (MODEL | {"data/constants/custom_obj_0": b"x"}, "holds a pickle"),
        (MODEL | {"data/weights/model_weights_config.json": json.dumps({"config": {"w": {"use_pickle": True}}})},
         "holds a pickle"),
        (MODEL | {"data/weights/model_weights_config.json": "[]"}, "damaged"),
        ({"readme": "x"}, "holds no model"),
        (MODEL | {"version": "8.0"}, "holds no model"),
    ],
)  # fmt: skip
def test_pt2_files_with_pickles_are_never_loaded(tmp_path, entries, match):
    (tmp_path / "net.pt2").write_bytes(archive(entries))
    with pytest.raises(InputError, match=match):
        files.open_file(tmp_path / "net.pt2")


def test_a_pickle_in_disguise_is_no_pt2(tmp_path):
    (tmp_path / "net.pt2").write_bytes(archive(MODEL | {"bomb": bytes(1 << 20)}, zipfile.ZIP_DEFLATED))
    with pytest.raises(InputError, match="is compressed"):
        files.open_file(tmp_path / "net.pt2")
    torch.save({"w": torch.zeros(3)}, tmp_path / "net.pt2")
    with pytest.raises(InputError, match=r"holds no model|holds a pickle"):
        files.open_file(tmp_path / "net.pt2")
    (tmp_path / "net.pt2").write_bytes(b"noise")
    with pytest.raises(InputError, match="not a pt2 file"):
        files.open_file(tmp_path / "net.pt2")


ABOUT = Metadata(classes=("a",), mean=(0.5,) * 3, std=(0.2,) * 3, size=32)


def test_what_a_file_says_of_itself_survives(tmp_path):
    assert Metadata.from_text(ABOUT.to_text(), tmp_path) == ABOUT
    assert KEY == "featherweight"


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"task": "detection"}, "a file for detection, not for classification"),
        ({"version": 9}, "version 9, newer than 3: update the project"),
        ({"version": "9", "shade": 1}, "version 9, newer than 3: update the project"),
        ({"color": 1}, "broken description"),
    ],
)
def test_what_a_file_should_not_say(tmp_path, change, match):
    with pytest.raises(InputError, match=match):
        Metadata.from_text(json.dumps(json.loads(ABOUT.to_text()) | change), tmp_path)


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.parametrize(("format_", "suffix"), [("onnx", ".onnx"), ("openvino", ".xml")])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_real_exports(real_data, tmp_path, format_, suffix, precision):
    from solution.demo import PRETRAINED

    net, data = PRETRAINED / "recycle9/after.safetensors", real_data / "recycle9.tar"
    path, said = made(net, data, tmp_path / f"after{suffix}", format=format_, precision=precision)
    stored = checkpoint.read_header(net).figures["quality"]["f1"]
    assert judge(net, data, path) == pytest.approx(stored, abs=0.02 if precision == "int8" else 0.003)
    assert "on 64 images" in said
