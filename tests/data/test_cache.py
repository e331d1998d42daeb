import errno
import os
import subprocess
import sys
import tarfile
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from solution.contracts import InputError
from solution.data import decode
from solution.data.decode import decode_once, let_go, mapped, resize
from solution.data.readers import open_source
from solution.runtime import ROOT


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SOLUTION_CACHE", str(tmp_path / "cache"))


def _photos(root, count=8):
    for number in range(count):
        path = root / "train" / "AB"[number % 2] / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (7 + number % 5, 5), (number, 0, 255 - number)).save(path)
    return root


def test_pictures_labels_and_items_agree(tmp_path):
    source = open_source(_photos(tmp_path / "a"))
    cached = decode_once(source, source.items, 16)
    assert (cached.images.shape, cached.images.dtype) == ((8, 16, 16, 3), np.uint8)
    assert cached.labels.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert cached.images[:, 3, 3, 0].tolist() == [int(item.name[-7:-4]) for item in cached.items]
    assert isinstance(cached.images, np.memmap)
    assert not cached.images.flags.writeable
    assert cached.unreadable == ()


def test_a_second_call_decodes_nothing(tmp_path, monkeypatch):
    source = open_source(_photos(tmp_path / "a"))
    first = decode_once(source, source.items, 16)
    monkeypatch.setattr(type(source), "each_image", None)
    assert (decode_once(open_source(tmp_path / "a"), source.items, 16).images == first.images).all()


def test_size_items_and_content_have_caches_of_their_own(tmp_path):
    source = open_source(_photos(tmp_path / "a"))
    decode_once(source, source.items, 16)
    assert decode_once(source, source.items, 8).images.shape == (8, 8, 8, 3)
    assert len(decode_once(source, source.items[2:], 16).images) == 6
    Image.new("RGB", (9, 9), "white").save(tmp_path / "a" / "train" / "A" / "000.png")
    changed = open_source(tmp_path / "a")
    assert (decode_once(changed, changed.items, 16).images[0] == 255).all()


@pytest.mark.parametrize("kind", ["folder", "tar", "npz"])
def test_a_picture_that_changed_is_seen_though_size_and_time_are_as_before(tmp_path, kind):
    """As tools that copy with times leave it."""

    def written(color):
        pixels = np.full((2, 9, 9, 3), color, np.uint8)
        where = tmp_path / f"set.{kind}"
        if kind == "npz":
            np.savez(where, x_train=pixels, y_train=[0, 1])
            return where
        folder = tmp_path / "set"
        for name, image in zip("ab", pixels, strict=True):
            (folder / "train" / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / "train" / name / "0.bmp")
            os.utime(folder / "train" / name / "0.bmp", (10, 10))
        if kind == "folder":
            return folder
        with tarfile.open(where, "w") as archive:
            archive.add(folder, "set")
        return where

    def shown(color):
        path = written(color)
        if path.is_file():
            os.utime(path, (10, 10))
        source = open_source(path)
        return decode_once(source, source.items, 9).images

    assert (shown(10) == 10).all()
    assert (shown(20) == 20).all()


@pytest.mark.parametrize("damage", ["cut", "bit", "notes", "gone", "shape", "garbage"])
def test_a_damaged_cache_is_made_anew(tmp_path, damage):
    source = open_source(_photos(tmp_path / "a"))
    whole = np.array(decode_once(source, source.items, 16).images)
    (images,) = (tmp_path / "cache").glob("*.npy")
    notes = images.with_suffix(".json")
    data = images.read_bytes()
    if damage == "cut":
        images.write_bytes(data[:-100])
    elif damage == "bit":
        images.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    elif damage == "notes":
        notes.write_text('{"checksum"')
    elif damage == "gone":
        notes.unlink()
    elif damage == "shape":
        np.save(images, whole[:5])
    else:
        images.write_bytes(b"garbage")
        notes.write_text("[]")
    assert (decode_once(source, source.items, 16).images == whole).all()
    assert images.read_bytes() == data


def test_unreadable_pictures_are_named_counted_and_left_out(tmp_path):
    root = _photos(tmp_path / "a", 200)
    (root / "train" / "A" / "004.png").write_bytes(b"")
    source = open_source(root)
    for _ in range(2):  # decoded, then from the cache
        with pytest.warns(UserWarning, match=r"1 of 200 pictures cannot be read: train/A/004\.png: the file is empty"):
            cached = decode_once(source, source.items, 8)
        assert cached.unreadable == (("train/A/004.png", "the file is empty"),)
        assert len(cached.images) == len(cached.labels) == len(cached.items) == 199
        assert cached.images[:, 3, 3, 0].tolist() == [int(item.name[-7:-4]) for item in cached.items]


def test_more_than_one_percent_unreadable_is_an_error(tmp_path):
    root = _photos(tmp_path / "a", 200)
    for number in (4, 7, 9):
        (root / "train" / "AB"[number % 2] / f"{number:03d}.png").write_bytes(b"no picture")
    source = open_source(root)
    with pytest.raises(
        InputError, match=r"3 of 200 pictures cannot be read: train/A/004\.png: not an image.*More than 1%"
    ):
        decode_once(source, source.items, 8)


def test_nothing_readable_at_all(tmp_path):
    root = _photos(tmp_path / "a", 2)
    for path in root.rglob("*.png"):
        path.write_bytes(b"")
    source = open_source(root)
    with pytest.raises(InputError, match="2 of 2 pictures cannot be read"):
        decode_once(source, source.items, 8)


BUILD = """
import sys, hashlib
from solution.data.decode import decode_once
from solution.data.readers import open_source
source = open_source(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
print(hashlib.sha256(decode_once(source, source.items, 64).images.tobytes()).hexdigest())
"""


def test_two_processes_may_build_one_cache_at_once(tmp_path):
    root = _photos(tmp_path / "a", 300)
    command = [sys.executable, "-c", BUILD, str(root)]
    both = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) for _ in range(2)
    ]
    for process in both:
        assert process.stdout.readline() == "ready\n"
    for process in both:
        process.stdin.write("go\n")
        process.stdin.flush()
    first, second = (process.communicate()[0] for process in both)
    assert len(first) == 65
    assert first == second
    source = open_source(root)
    decode_once(source, source.items, 64)
    assert sorted(path.suffix for path in (tmp_path / "cache").iterdir()) == [".json", ".npy"]


def test_no_room_and_no_folder_say_what_to_do(tmp_path, monkeypatch):
    source = open_source(_photos(tmp_path / "a"))
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("SOLUTION_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(InputError, match="set SOLUTION_CACHE to a folder"):
        decode_once(source, source.items, 16)
    monkeypatch.setenv("SOLUTION_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(decode.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1_000_000})())
    with pytest.raises(InputError, match="has 1 MB left, but the decoded pictures take 24 MB; set SOLUTION_CACHE"):
        decode_once(source, source.items, 1000)


def test_a_picture_shrinks_by_area_and_grows_linearly():
    board = np.indices((8, 4)).sum(axis=0)[..., None].repeat(3, axis=2).astype(np.uint8) % 2 * 200
    assert (resize(board, 2) == 100).all()
    assert resize(board[:3], 6).shape == (6, 6, 3)
    ramp = np.arange(0, 80, 10, dtype=np.uint8)[None, :, None].repeat(3, axis=2)
    assert resize(ramp, 4)[:, :, 0].tolist() == [[5, 25, 45, 65]] * 4
    grown = resize(ramp[:, :2], 4)[0, :, 0].astype(float)
    assert np.abs(grown - [0, 2.5, 7.5, 10]).max() <= 0.5


def test_a_sound_set_warns_about_nothing(tmp_path):
    source = open_source(_photos(tmp_path / "a"))
    with warnings.catch_warnings(action="error"):
        decode_once(source, source.items, 16)


def test_a_disk_that_fills_up_is_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    source = open_source(_photos(tmp_path / "a"))
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(
        InputError, match=r"no room for 0 MB of decoded pictures \(No space left on device\); set SOLUTI"
    ):
        decode_once(source, source.items, 16)
    assert not list((tmp_path / "cache").iterdir())


def test_an_unreadable_picture_leaves_the_others_bytes_as_they_are(tmp_path):
    root = _photos(tmp_path / "a", 300)
    sound = np.array(decode_once(open_source(root), open_source(root).items, 8).images)
    for number in (0, 150, 299):
        (root / "train" / "AB"[number % 2] / f"{number:03d}.png").write_bytes(b"")
    source = open_source(root)
    names = [item.name for item in source.items]
    with pytest.warns(UserWarning, match="3 of 300 pictures cannot be read"):
        cached = decode_once(source, source.items, 8)
    left = [place for place, name in enumerate(names) if name in {item.name for item in cached.items}]
    assert len(left) == 297
    assert np.array_equal(cached.images, sound[left])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="measured by Linux alone")
def test_pages_of_a_mapped_array_that_were_read_leave_the_memory(tmp_path):
    def held():
        status = Path("/proc/self/status").read_text()
        return int(status.partition("RssFile:")[2].split()[0]) << 10

    np.save(tmp_path / "large.npy", np.ones(1 << 26, np.uint8))
    images, before = mapped(tmp_path / "large.npy"), held()
    assert images.sum() == 1 << 26
    assert held() - before > 1 << 25
    let_go(images)
    assert held() - before < 1 << 23
    assert images[-1] == 1  # they are read again
