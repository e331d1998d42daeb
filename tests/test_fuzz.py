"""Tens of thousands of damaged inputs: each is read, or refused in one line; nothing crashes, hangs or swells.

Each kind of input is tried in a process of its own, so that the end of an interpreter is seen, with the number of the
input that ended it. Inputs are drawn from that number alone.
"""

import contextlib
import io
import json
import os
import random
import resource
import signal
import tarfile
import warnings
import zipfile
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from PIL import Image

from solution import checkpoint
from solution.contracts import InputError
from solution.data.decode import decode
from solution.data.detection import open_scenes
from solution.data.readers import open_source
from solution.data.source import UnreadableImage
from solution.export import files
from solution.formats.exported import Metadata
from solution.models.shufflenet import ShuffleNet
from solution.models.weights import read_state
from solution.opening import open_model
from solution.recipes.catalogue import RECIPES, named
from solution.registry import FORMATS, STEPS, step_from
from solution.run_folder import read_history, read_run
from solution.settings import settings_of, with_setting
from solution.text import printable
from solution.train.resume import load_state, save_state

MOST_SECONDS, MOST_KILOBYTES = 20, 1 << 20
"""Processor time that an input may take, and memory that all of a kind may add."""


def encoded(kind, number=0, **settings):
    buffer = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, kind, **settings)
    return buffer.getvalue()


CLASSES = [f"s/{split}/{name}" for split in ("train", "val") for name in "AB"]
MEMBERS = {f"{folder}/{k}.png": encoded("PNG", k) for folder in CLASSES for k in (0, 1)}
BOXES = {"b/images/train/1.png": encoded("PNG"), "b/labels/train/1.txt": b"0 .5 .5 .2 .2\n1 .5 .5 1 1\n",
         "b/data.yaml": b"names: {0: mug, 1: fork}\n", "b/images/val/2.png": encoded("PNG")}  # fmt: skip
ABOUT = {"classes": ("blue", "green", "red"), "mean": (0.5,) * 3, "std": (0.2,) * 3, "size": 32}


def archive(path, members):
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
            for name, data in members.items():
                packed.writestr(name, data)
    else:
        with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as tar:
            for name, data in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return path.read_bytes()


def arrays(path):
    images = np.random.default_rng(0).integers(0, 256, (12, 5, 4), dtype=np.uint8)
    np.savez_compressed(path, x_train=images, y_train=np.arange(12) % 3, classes=np.array(["a", "b", "c"]))
    return path.read_bytes()


def pictures():
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    kinds = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "AVIF")
    return [*map(encoded, kinds), encoded("JPEG", exif=exif), encoded("PNG", exif=exif), encoded("WEBP", exif=exif)]


def small_net():
    torch.manual_seed(0)
    return ShuffleNet(units=(1, 1, 1), width=0.1).build(num_classes=3).eval()


def saved(path):
    net = small_net()
    files.save(path, net, checkpoint.header_of(net, **ABOUT))
    return path.read_bytes()


def exported(format, path):
    graph = format.floating(small_net(), torch.zeros(2, 3, 32, 32), "fp32")
    format.write(graph, Metadata(**ABOUT, outputs=3), path)
    return path.read_bytes()


def damaged(data, chance):
    """Flipped bits, other bytes, cuts, repeats and insertions."""
    data = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 8))):
        place = chance.randrange(max(len(data), 1))
        match chance.randrange(5):
            case 0:
                data[place : place + 1] = bytes([data[place] ^ 1 << chance.randrange(8)]) if data else b""
            case 1:
                data[place : place + 4] = chance.choice(
                    (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"-1,,")
                )
            case 2:
                del data[place:]
            case 3:
                data[place:place] = data[: chance.randrange(64)]
            case 4:
                data[place:place] = chance.choice((b"\x1b]0;x\x07", b"../", b"\0", '"\u202e'.encode(), b"\n"))
    return bytes(data)


WORDS = ("1e9", "-1", "nan", "inf", "1_0", "0x1", "True", "None", "()", "(1,", "[]", "{}", "''", "__import__('os')",
         "\x1b[2J", "\u202e", "\0", "=", ".", ",", " ", "'", '"', "9" * 400, "1e400", "-", "lambda: 0", "*", "é",
         "a.b", "("  * 200)  # fmt: skip


def mangled(text, chance):
    """Words put in, taken out and repeated."""
    for _ in range(chance.choice((1, 1, 2, 4))):
        place = chance.randrange(len(text) + 1)
        match chance.randrange(3):
            case 0:
                text = text[:place] + chance.choice(WORDS) + text[place:]
            case 1:
                text = text[:place] + text[place + chance.randrange(1, 6) :]
            case 2:
                text = text[:place] + chance.choice(WORDS)
    return text


ODD = (None, True, -1, 0, 1.5, 1 << 40, 1e999, "", "x" * 300, "a b", "../x", "\x00", "\x1b[2J", [], {}, [[]], [1, "a"],
       {"kind": "yolo"}, {"a": {"b": "c"}}, "torch.os.system", "timm:hf-hub:a/b")  # fmt: skip


def changed(value, chance):
    """A value of JSON with one of its parts replaced, removed or renamed."""
    if isinstance(value, dict) and value and chance.random() < 0.9:
        name = chance.choice(sorted(value))
        if chance.random() < 0.15:
            return {key: item for key, item in value.items() if key != name}
        return value | {name: changed(value[name], chance)}
    if isinstance(value, list) and value and chance.random() < 0.9:
        place = chance.randrange(len(value))
        return [*value[:place], changed(value[place], chance), *value[place + 1 :]]
    return chance.choice(ODD)


def other_header(data, chance):
    """A checkpoint whose own description is another; of a version that had no checksum."""
    length = int.from_bytes(data[:8], "little")
    table = json.loads(data[8 : 8 + length])
    own = json.loads(table["__metadata__"]["featherweight"]) | {"version": 2}
    if chance.random() < 0.8:
        table["__metadata__"] = {"featherweight": json.dumps(changed(own, chance))}
    else:
        table = changed(table | {"__metadata__": {"featherweight": json.dumps(own)}}, chance)
    text = json.dumps(table).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


class Kind:
    """One kind of input: sound ones, how they are damaged, how they are read."""

    trials = 3000
    suffix = ""

    def __init__(self, folder):
        self.path = folder / f"a{self.suffix}"
        self.sound = self.inputs()

    def damage(self, sound, chance):
        return damaged(sound, chance)

    def read(self, data):
        self.path.write_bytes(data)
        self.open()

    def open(self):
        source = open_source(self.path)
        for _, image in source.each_image(source.items, 8):
            assert isinstance(image, UnreadableImage) or (image.ndim == 3 and image.dtype == np.uint8)
        assert all(name.isprintable() for name in source.classes)


class Picture(Kind):
    trials = 5000

    def inputs(self):
        return pictures()

    def read(self, data):
        decode(data, "a", 8)


class Tar(Kind):
    suffix = ".tar"

    def inputs(self):
        return [archive(self.path, MEMBERS)]


class TarGz(Tar):
    suffix = ".tar.gz"
    trials = 2000


class Zip(Tar):
    suffix = ".zip"


class Npz(Kind):
    suffix = ".npz"

    def inputs(self):
        return [arrays(self.path)]


class Boxes(Kind):
    suffix = ".zip"
    trials = 2000

    def inputs(self):
        return [archive(self.path, BOXES)]

    def damage(self, sound, chance):
        if chance.random() < 0.5:
            return damaged(sound, chance)
        name = chance.choice([name for name in BOXES if not name.endswith(".png")])
        text = mangled(BOXES[name].decode(), chance).encode(errors="surrogatepass")
        return archive(self.path, BOXES | {name: text})

    def open(self):
        assert all(scene.boxes.shape[1] == 5 for scene in open_scenes(self.path).items)


class Table(Kind):
    def inputs(self):
        (self.path / "train").mkdir(parents=True)
        for number in "12":
            (self.path / "train" / f"{number}.png").write_bytes(encoded("PNG"))
        return [b'file,label\n1.png,"A"\n2.png,B\n']

    def read(self, data):
        (self.path / "train.csv").write_bytes(data)
        self.open()


class Safetensors(Kind):
    suffix = ".safetensors"

    def inputs(self):
        return [saved(self.path)]

    def damage(self, sound, chance):
        return (damaged if chance.random() < 0.4 else other_header)(sound, chance)

    def open(self):
        with contextlib.suppress(InputError):
            files.listing(self.path)
        net, header = checkpoint.load(self.path)
        assert net(torch.zeros(1, 3, 32, 32)).shape[0] == 1
        assert all(name.isprintable() for name in header.classes)


class Packed(Kind):
    suffix = ".packed"
    trials = 2000

    def inputs(self):
        return [saved(self.path)]

    def open(self):
        files.listing(self.path)
        files.load(self.path)


class Pth(Kind):
    suffix = ".pth"

    def inputs(self):
        state = {"state_dict": small_net().state_dict(), "epoch": 3, "args": {"lr": 0.1}}
        torch.save(state, self.path)
        first = self.path.read_bytes()
        torch.save(state, self.path, _use_new_zipfile_serialization=False)
        return [first, self.path.read_bytes()]

    def open(self):
        assert all(isinstance(tensor, torch.Tensor) for tensor in read_state(self.path).values())


class State(Kind):
    suffix = ""
    trials = 1500

    def inputs(self):
        self.path.mkdir()
        save_state(self.path, {"epoch": 1, "settings": "s", "net": {"a": torch.zeros(9)}}, [{"epoch": 1}])
        return [(self.path / "training.safetensors").read_bytes()]

    def read(self, data):
        (self.path / "training.safetensors").write_bytes(data)
        load_state(self.path, "s")


class Run(Kind):
    """What a run leaves: rows, recipe, history."""

    def inputs(self):
        (self.path / "a").mkdir(parents=True)
        row = {"step": "a", "macs": 5, "params": 3, "bytes": 9, "quality": {"f1": 0.5}, "latency_ms": {"eager": 1.0},
               "exported": {"onnxruntime": {"bytes": 3}}}  # fmt: skip
        data = {"name": "p", "classes": ["x"], "counts": {"val": {"x": 3}}}
        recipe = {"name": "r", "seed": 0, "before": "a", "after": "a", "settings": {"data.path": "p", "a.lr": 0.1},
                  "data": data, "versions": {"torch": "2"}}  # fmt: skip
        return [json.dumps([[row], recipe]).encode()]

    def damage(self, sound, chance):
        rows, recipe = json.loads(sound)
        rows, recipe = (changed(rows, chance), recipe) if chance.random() < 0.5 else (rows, changed(recipe, chance))
        history = mangled("epoch,loss\n1,0.5\n2,0.25\n", chance)
        return json.dumps([rows, recipe, history]).encode()

    def read(self, data):
        rows, recipe, history = json.loads(data)
        (self.path / "rows.json").write_text(json.dumps(rows))
        (self.path / "recipe.json").write_text(json.dumps(recipe))
        (self.path / "a/history.csv").write_text(history)
        with contextlib.suppress(InputError):
            read_history(self.path / "a/history.csv")
        run = read_run(self.path)
        run.histories()
        run.plans()
        assert run.recipe.isprintable()


class Folder(Kind):
    """A folder of timm: config.json beside weights."""

    trials = 200

    def inputs(self):
        import timm

        self.path.mkdir()
        torch.save(timm.create_model("lcnet_035", num_classes=3).state_dict(), self.path / "pytorch_model.bin")
        config = {"architecture": "lcnet_035", "num_classes": 3, "label_names": ["a", "b", "c"],
                  "pretrained_cfg": {"input_size": [3, 32, 32], "mean": [0.5] * 3, "std": [0.2] * 3, "crop_pct": 0.9,
                                     "interpolation": "bicubic", "crop_mode": "center"}}  # fmt: skip
        return [json.dumps(config).encode()]

    def damage(self, sound, chance):
        return json.dumps(changed(json.loads(sound), chance)).encode()

    def read(self, data):
        (self.path / "config.json").write_bytes(data)
        open_model(str(self.path))


class Settings(Kind):
    """What --set takes."""

    trials = 4000

    def inputs(self):
        recipes = [named(name) for name in RECIPES]
        return [(recipe, key, value) for recipe in recipes for key, value in settings_of(recipe).items()]

    def damage(self, sound, chance):
        recipe, key, value = sound
        plain = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        return recipe, mangled(key, chance) if chance.random() < 0.2 else key, mangled(plain, chance)

    def read(self, data):
        with_setting(*data)


class Steps(Kind):
    """What --step takes."""

    def inputs(self):
        return [f"{name} ratio=0.5 epochs=3 units=2,5,2 bits=4 macs=50% layers=a,b" for name in STEPS]

    def damage(self, sound, chance):
        name, *words = sound.split()
        return mangled(" ".join([name, *chance.sample(words, chance.randrange(3))]), chance)

    def read(self, data):
        step_from(data)


class Exported(Kind):
    """A format's own files, opened in its runtime and asked for an answer."""

    format = None

    def inputs(self):
        return [exported(self.format, self.path)]

    def open(self):
        with contextlib.suppress(InputError):
            files.listing(self.path)
        found = files.open_file(self.path)
        with contextlib.suppress(Exception):  # of a graph that is valid, but another
            found(torch.zeros(1, 3, 32, 32))


TRIALS = {"onnx": 300, "openvino": 100, "pt2": 1500}
KINDS = {kind.__name__.lower(): kind for kind in (
    Picture, Tar, TarGz, Zip, Npz, Boxes, Table, Safetensors, Packed, Pth, State, Run, Folder, Settings, Steps
)}  # fmt: skip
KINDS |= {
    name: type(name, (Exported,), {"format": format, "suffix": format.suffix, "trials": TRIALS.get(name, 60)})
    for name, format in FORMATS.items()
}
"""Formats that are read in a child process take a second each."""
NEEDED = {"onnx": "onnxscript", "openvino": "openvino", "litert": "litert_torch", "micro": "tflite_micro",
          "executorch": "executorch"}  # fmt: skip


def tried(kind, trials, folder):
    """In a child: try the inputs, note the number of each before it is tried, and what became of all."""
    made = kind(folder)
    before, outcomes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, set()
    checkpoint._SLACK_BYTES = 1 << 28
    warnings.simplefilter("ignore")
    for number in range(trials):
        (folder / "number").write_text(str(number))
        chance = random.Random(f"{kind.__name__} {number}")
        data = made.damage(chance.choice(made.sound), chance)
        signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)  # ends the process
        try:
            made.read(data)
            outcomes.add("read")
        except (InputError, UnreadableImage) as error:
            outcomes.add("refused" if printable(str(error), lines=True) == str(error) else "refused, not printable")
    signal.setitimer(signal.ITIMER_PROF, 0)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss  # of the largest: files may be read in one
    (folder / "found").write_text(json.dumps([sorted(outcomes), max(grown, children)]))


def fuzz(kind, trials, folder):
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.signal(signal.SIGPROF, signal.SIG_DFL)
            tried(kind, trials, folder)
            code = 0
        except BaseException:
            import traceback

            (folder / "raised").write_text(traceback.format_exc())
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    number = (folder / "number").read_text() if (folder / "number").exists() else "none"
    raised = (folder / "raised").read_text() if (folder / "raised").exists() else ""
    assert code == 0, f"input {number} ended the process: {code}\n{raised}"
    outcomes, kilobytes = json.loads((folder / "found").read_text())
    assert kilobytes < MOST_KILOBYTES
    return outcomes


def test_there_are_enough():
    assert sum(kind.trials for kind in KINDS.values()) >= 30_000


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_damaged_input_is_read_or_refused(tmp_path, name):
    if name in NEEDED and find_spec(NEEDED[name]) is None:
        pytest.skip(f"{NEEDED[name]} is not installed")
    outcomes = fuzz(KINDS[name], KINDS[name].trials, tmp_path)
    assert set(outcomes) <= {"read", "refused"}
    assert "refused" in outcomes


@pytest.mark.parametrize("name", ["picture", "tar", "npz", "table", "safetensors", "pth", "run", "settings", "steps"])
def test_a_hundred_of_a_kind(tmp_path, name):
    assert fuzz(KINDS[name], 100, tmp_path) == ["read", "refused"]


def test_no_damage_of_a_zip_passes(tmp_path):
    """Every byte of it is under some checksum."""
    assert fuzz(KINDS["zip"], 100, tmp_path) == ["refused"]


class Ends(Kind):
    """A reader that ends its process, or computes for ever, on one of its inputs."""

    how = staticmethod(lambda: os.kill(os.getpid(), signal.SIGSEGV))

    def inputs(self):
        return [b"abc"]

    def read(self, data):
        if len(data) > 60:
            self.how()


@pytest.mark.parametrize("how", [lambda: os.kill(os.getpid(), signal.SIGSEGV), lambda: signal.raise_signal(27)])
def test_the_end_of_a_process_is_seen(tmp_path, how):
    with pytest.raises(AssertionError, match=r"input \d+ ended the process: -(11|27)"):
        fuzz(type("Ends", (Ends,), {"how": staticmethod(how)}), 1000, tmp_path)
