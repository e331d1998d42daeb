"""Thousands of damaged inputs: each is read, or refused in one line; nothing crashes, hangs or swells."""

import io
import random
import resource
import tarfile
import time
import warnings
import zipfile

import numpy as np
import pytest
from PIL import Image

from solution.contracts import InputError
from solution.data.decode import decode
from solution.data.detection import open_scenes
from solution.data.readers import open_source
from solution.data.source import UnreadableImage
from solution.text import printable

TRIALS = 3000
MOST_SECONDS, MOST_KILOBYTES = 20, 1 << 20


def _encoded(kind, number=0, **settings):
    buffer = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, kind, **settings)
    return buffer.getvalue()


CLASSES = [f"s/{split}/{name}" for split in ("train", "val") for name in "AB"]
MEMBERS = {f"{folder}/{k}.png": _encoded("PNG", k) for folder in CLASSES for k in (0, 1)}
BOXES = {"b/images/train/1.png": _encoded("PNG"), "b/labels/train/1.txt": b"0 .5 .5 .2 .2\n1 .5 .5 1 1\n",
         "b/data.yaml": b"names: {0: mug, 1: fork}\n", "b/images/val/2.png": _encoded("PNG")}  # fmt: skip
TABLE = b'file,label\n1.png,"A"\n2.png,B\n'


def _packed(path, members):
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in members.items():
                archive.writestr(name, data)
    else:
        with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as tar:
            for name, data in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return path.read_bytes()


def _array(path):
    images = np.random.default_rng(0).integers(0, 256, (12, 5, 4), dtype=np.uint8)
    np.savez_compressed(path, x_train=images, y_train=np.arange(12) % 3, classes=np.array(["a", "b", "c"]))
    return path.read_bytes()


def _damaged(data, chance):
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


def _every_picture(source):
    for _, image in source.each_image(source.items, 8):
        assert isinstance(image, UnreadableImage) or (image.ndim == 3 and image.dtype == np.uint8)
    assert all(name.isprintable() for name in source.classes)


def _try(kind, data, folder):
    match kind:
        case "picture":
            decode(data, "a", 8)
        case "table":
            (folder / "train.csv").write_bytes(data)
            _every_picture(open_source(folder))
        case "boxes.zip":
            path = folder / kind
            path.write_bytes(data)
            scenes = open_scenes(path)
            assert all(scene.boxes.shape[1] == 5 for scene in scenes.items)
        case _:
            path = folder / kind
            path.write_bytes(data)
            _every_picture(open_source(path))


def _sound(kind, folder):
    match kind:
        case "picture":
            kinds = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "AVIF")
            return [_encoded(name) for name in kinds] + [_encoded("JPEG", exif=_turned())]
        case "table":
            (folder / "train").mkdir()
            for number in "12":
                (folder / "train" / f"{number}.png").write_bytes(_encoded("PNG"))
            return [TABLE]
        case "boxes.zip":
            return [_packed(folder / kind, BOXES)]
        case "a.npz":
            return [_array(folder / kind)]
        case _:
            return [_packed(folder / kind, MEMBERS)]


def _turned():
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    return exif


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["picture", "table", "a.tar", "a.tar.gz", "a.zip", "a.npz", "boxes.zip"])
def test_damaged_input_is_read_or_refused(tmp_path, kind):
    chance, sound = random.Random(0), _sound(kind, tmp_path)
    before, outcomes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, set()
    for _ in range(TRIALS):
        data, start = _damaged(chance.choice(sound), chance), time.monotonic()
        with warnings.catch_warnings(action="ignore"):
            try:
                _try(kind, data, tmp_path)
                outcomes.add("read")
            except (InputError, UnreadableImage) as error:
                outcomes.add("refused" if printable(str(error), lines=True) == str(error) else "refused, not printable")
        assert time.monotonic() - start < MOST_SECONDS
    assert outcomes == {"read", "refused"}
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_KILOBYTES
