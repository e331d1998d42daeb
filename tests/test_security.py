"""Text in files is data: each way in which a file's text could reach an evaluator, with a payload planted there.

The pickles have tests where the files are read; a .pt2 has its own in `tests/export/test_pt2_payloads.py`.
"""

import ast
import contextlib
import io
import json
import re
import subprocess
import sys
import tarfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import yaml

from solution import checkpoint
from solution.__main__ import main
from solution.contracts import InputError
from solution.data.decode import decode
from solution.data.detection import open_scenes
from solution.data.readers import open_source
from solution.data.source import UnreadableImage
from solution.export import files
from solution.formats.exported import KEY, Metadata
from solution.models.shufflenet import ShuffleNet
from solution.models.yolo import Yolo
from solution.runtime import ROOT

needs_ultralytics = pytest.mark.skipif(find_spec("ultralytics") is None, reason="extra detection is not installed")
FILES = sorted((ROOT / "solution").rglob("*.py"))
EVALUATORS = {
    "eval", "exec", "compile", "execfile", "__import__", "getattr_static", "sympify", "parse_expr", "literal_eval",
    "import_module", "run_path", "run_module", "spec_from_file_location", "system", "popen", "unsafe_load", "full_load",
    "load_all", "loads", "load", "read_pickle", "from_string",
}  # fmt: skip
METHODS = ("eval", "compile")
"""Of nets and patterns; a function of such a name would evaluate."""
ALLOWED = {
    "json.loads", "ast.literal_eval", "np.load", "files.load", "checkpoint.load", "packed.load", "context.load",
    "image.load", "load", "runpy.run_path", "onnx.load", "torch.export.load",
    "importlib.import_module", "importlib.util.spec_from_file_location", "torch.load", "tomllib.loads",
    "path.load", "source.load",
}  # fmt: skip
"""Calls of these names that evaluate nothing, or what a test of its own is about."""


def calls(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def test_our_own_code_has_no_evaluator_but_those_that_are_listed():
    found = {}
    for path in FILES:
        for name, node in calls(path):
            last = name.rpartition(".")[2]
            method = last in METHODS and name != last
            if last in EVALUATORS and name not in ALLOWED and not method:
                found.setdefault(name, []).append(f"{path.relative_to(ROOT)}:{node.lineno}")
            assert not any(word.arg == "shell" for word in node.keywords), f"{path}:{node.lineno}: a shell"
    known = {
        "app.jinja_env.from_string",
        "Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string",
    }
    templates = {name for name in found if name.endswith("from_string")}
    assert templates <= known  # of our own constant pages; what they show is escaped
    assert {name: places for name, places in found.items() if name not in known} == {}


@pytest.mark.parametrize(("call", "place"), [("runpy.run_path", "recipes"), ("importlib.", "models/own_code.py")])
def test_recipes_and_nets_that_the_user_names_alone_are_run_as_code(call, place):
    places = {str(path.relative_to(ROOT / "solution")) for path in FILES for name, _ in calls(path)
              if name.startswith(call)}  # fmt: skip
    assert places
    assert all(one.startswith(place) for one in places)


def header_with(model, path, **fields):
    """A checkpoint whose header names another net."""
    checkpoint.save(path, model, checkpoint.header_of(model))
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    own = json.loads(header["__metadata__"]["featherweight"]) | {"version": 2} | fields
    header["__metadata__"] = {"featherweight": json.dumps(own)}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
    return path


@pytest.fixture
def small():
    return ShuffleNet(units=(1, 1, 1), width=0.1).build(num_classes=3).eval()


def evil_yaml(folder, flag):
    """A description of a YOLO whose activation is code."""
    package = Path(find_spec("ultralytics").origin).parent
    fields = yaml.safe_load((package / "cfg/models/v8/yolov8.yaml").read_text())
    code = f"__import__('pathlib').Path({str(flag)!r}).touch() or torch.nn.SiLU()"
    (folder / "yolov8.yaml").write_text(yaml.safe_dump({"activation": code} | fields))
    return folder / "yolov8n"


@needs_ultralytics
def test_a_header_cannot_name_a_description_of_its_own(small, tmp_path, monkeypatch):
    name, flag = evil_yaml(tmp_path, tmp_path / "flag"), tmp_path / "flag"
    monkeypatch.chdir(tmp_path)
    net = {"kind": "yolo", "settings": {"name": str(name)}, "num_classes": 3}
    with pytest.raises(InputError, match="ultralytics knows no net"):
        checkpoint.load(header_with(small, tmp_path / "net.safetensors", net=net))
    Yolo(name="yolov8n").build(3)  # nor does a file of its name in the folder that the process is in
    assert not flag.exists()


@needs_ultralytics
def test_that_description_would_be_evaluated(tmp_path):
    name = evil_yaml(tmp_path, tmp_path / "flag")
    code = f"from ultralytics.nn.tasks import DetectionModel; DetectionModel({str(name) + '.yaml'!r}, verbose=False)"
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, cwd=tmp_path,
                   env={"YOLO_OFFLINE": "1", "YOLO_CONFIG_DIR": str(tmp_path), "HOME": str(tmp_path)})  # fmt: skip
    assert (tmp_path / "flag").exists()


@pytest.mark.parametrize(
    "name",
    ["timm:hf-hub:someone/else", "timm:local-dir:/tmp", "torchvision:os.system", "pytorchcv:../x", "hub:someone/else"],
)
def test_names_of_nets_come_from_the_libraries_own_lists(small, tmp_path, name, monkeypatch):
    monkeypatch.setattr("socket.getaddrinfo", None)
    net = {"kind": "classifier", "settings": {"name": name}, "num_classes": 3}
    with pytest.raises(InputError, match=r"has no classifier called|has no model called|name must be"):
        checkpoint.load(header_with(small, tmp_path / "net.safetensors", net=net))


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("yolo", {"name": "yolov8n", "weights": "own"}),
        ("yolo", {"name": "yolov8n", "weights": "https://somewhere.org/weights.pt"}),
        ("yolo", {"name": "yolov8n", "weights": "../other.safetensors"}),
        ("classifier", {"name": "timm:lcnet_035", "pretrained": True}),
    ],
)
def test_a_header_cannot_have_weights_of_elsewhere_fetched(small, tmp_path, monkeypatch, kind, settings):
    monkeypatch.setattr("socket.getaddrinfo", None)
    net = {"kind": kind, "settings": settings, "num_classes": 3}
    with pytest.raises(InputError, match="names weights of elsewhere"):
        checkpoint.load(header_with(small, tmp_path / "net.safetensors", net=net))


def test_the_class_that_a_header_names_is_never_imported(small, tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'flag')!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    path = header_with(small, tmp_path / "net.safetensors", net=None, code="evil:Net")
    with pytest.raises(InputError, match="a net of your own"):
        checkpoint.load(path)
    assert not (tmp_path / "flag").exists()


def test_yaml_makes_no_objects(tmp_path):
    text = f"names: !!python/object/apply:os.mkdir [{tmp_path / 'flag'}]"
    with tarfile.open(tmp_path / "set.tar", "w") as archive:
        for name, data in (("own/images/train/a.png", b""), ("own/data.yaml", text.encode())):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    with pytest.raises(InputError, match=r"data\.yaml"):
        open_scenes(tmp_path / "set.tar")
    assert not (tmp_path / "flag").exists()
    yaml.unsafe_load(text)
    assert (tmp_path / "flag").exists()


class Bomb:
    """What a pickle of it does when it is read."""

    def __init__(self, flag):
        self.flag = flag

    def __reduce__(self):
        return open, (str(self.flag), "w")


def test_arrays_of_objects_are_not_unpickled(tmp_path):
    np.savez(tmp_path / "set.npz", images=np.array([Bomb(tmp_path / "flag")], dtype=object), labels=np.zeros(1, int))
    with pytest.raises(InputError, match=r"never unpickled|cannot be read"):
        open_source(tmp_path / "set.npz")
    assert not (tmp_path / "flag").exists()


@pytest.mark.parametrize("name", ["picture.eps", "picture.png"])
def test_pictures_that_are_programs_are_not_opened(name, monkeypatch):
    monkeypatch.setattr("subprocess.Popen", None)  # Pillow would start Ghostscript
    data = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(flag) (w) file closefile\n%%EOF\n"
    with pytest.raises(UnreadableImage, match="not an image"):
        decode(data, name)


@pytest.mark.parametrize("location", ["../secret", "{folder}/secret"])
def test_an_onnx_file_reads_nothing_outside_its_folder(tmp_path, location):
    onnx = pytest.importorskip("onnx")
    (tmp_path / "secret").write_bytes(np.arange(4, dtype=np.float32).tobytes())
    (tmp_path / "in").mkdir()
    weight = onnx.TensorProto(name="w", data_type=1, dims=[1, 4], data_location=onnx.TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value=location.format(folder=tmp_path))
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Flatten", ["images"], ["flat"]),
            onnx.helper.make_node("Add", ["flat", "w"], ["logits"]),
        ],
        "net",
        [onnx.helper.make_tensor_value_info("images", 1, ["b", 1, 2, 2])],
        [onnx.helper.make_tensor_value_info("logits", 1, ["b", 4])],
        [weight],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=9)
    onnx.helper.set_model_props(
        model, {KEY: Metadata(classes=tuple("abcd"), mean=(0.5,), std=(0.2,), size=2).to_text()}
    )
    (tmp_path / "in/net.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match="cannot be opened as an ONNX file"):
        files.open_file(tmp_path / "in/net.onnx")
    assert files.listing(tmp_path / "in/net.onnx").lines == ()


XML = '<?xml version="1.0"?><!DOCTYPE net [{entity}]><net name="&a;" version="11"><layers>{layer}</layers></net>'


@pytest.mark.parametrize(
    ("entity", "layer"),
    [
        ('<!ENTITY a SYSTEM "{secret}">', ""),
        ('<!ENTITY b "xxxxxxxxxx"><!ENTITY a "&b;&b;&b;&b;">', ""),
        ("", '<layer id="0" name="x" type="Evil" version="/tmp/evil.so"><output/></layer>'),
    ],
)
def test_an_openvino_file_reads_no_other_file(tmp_path, entity, layer):
    openvino = pytest.importorskip("openvino")
    (tmp_path / "secret").write_text("swordfish")
    text = XML.format(entity=entity.format(secret=(tmp_path / "secret").as_uri()), layer=layer)
    (tmp_path / "net.xml").write_text(text)
    (tmp_path / "net.bin").write_bytes(b"")
    with pytest.raises(InputError, match=r"net\.xml"):
        files.open_file(tmp_path / "net.xml")
    with contextlib.suppress(RuntimeError):
        name = openvino.Core().read_model(tmp_path / "net.xml").get_friendly_name()
        assert "swordfish" not in name
        assert "x" * 10 not in name


def test_names_in_a_page_are_text(small, tmp_path):
    pytest.importorskip("flask", reason="the extra web is not installed")
    from PIL import Image

    from solution.serve.view import Panel, open_nets
    from solution.serve.web import application

    names = ("{{ 7 * 191 }}", "<script>alert(1)</script>", "{% for a in b %}")
    about = {"classes": names, "mean": (0.5,) * 3, "std": (0.2,) * 3, "size": 32}
    checkpoint.save(tmp_path / "net.safetensors", small, checkpoint.header_of(small, **about))
    app = application(Panel(nets=open_nets([tmp_path / "net.safetensors"], None, tmp_path)), 1 << 20)
    photo = io.BytesIO()
    Image.new("RGB", (32, 32)).save(photo, "PNG")
    page = app.test_client().post("/", data={"photo": (io.BytesIO(photo.getvalue()), "{{ 7 * 191 }}.png")}).text
    assert "1337" not in page
    assert "{{ 7 * 191 }}" in page
    assert "<script>alert" not in page


@pytest.mark.parametrize("value", ["__import__('os').mkdir('flag')", "open('flag', 'w')", "(" * 5000, "{" + "1:" * 99])
def test_settings_are_literals(tmp_path, monkeypatch, capsys, value):
    monkeypatch.chdir(tmp_path)
    words = ["run", "waste_shufflenet", "--data", str(tmp_path), "--out", "run", "--set", f"every.step.epochs={value}"]
    assert main(words) == 2
    assert (
        main(["compress", "timm:lcnet_035", "--step", f"prune_channels ratio={value}", "--out", "x.safetensors"]) == 2
    )
    assert "Traceback" not in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_every_promise_of_the_page_on_security_names_tests_that_are_there():
    text = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", text)
    assert len(named) >= 15
    for path, test in named:
        assert (ROOT / path).is_file(), path
        assert not test or f"def {test}(" in (ROOT / path).read_text(), (path, test)
