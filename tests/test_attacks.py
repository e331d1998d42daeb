"""An attacker's files and addresses, tried on the commands: each is refused, or read as the data that it is.

Evaluators have their own tests in `tests/test_security.py`; pt2 in `tests/export/test_pt2_payloads.py`.
"""

import contextlib
import gzip
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from solution import checkpoint
from solution.__main__ import main
from solution.contracts import InputError
from solution.data.detection import open_scenes
from solution.data.readers import open_source
from solution.export import files
from solution.locks import claimed
from solution.models.shufflenet import ShuffleNet
from solution.models.weights import read_state
from solution.opening import open_model
from solution.run_folder import read_run
from solution.runtime import ROOT
from solution.search.study import open_storage
from solution.shell import without_password
from solution.train.resume import load_state, save_state

EVIL = "\x1b]0;owned\x07\x1b[2J\u202egnp.exe\r\n"
"""It sets a terminal's title, clears it, and turns the direction of writing."""


def picture(number=0, size=(9, 11)):
    buffer = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


NAMES = [f"set/{split}/{name}/{number}.png" for split in ("train", "val") for name in "AB" for number in (0, 1)]


def tar_of(path, *more, mode="w"):
    """A sound data set with further members (TarInfo, bytes)."""
    with tarfile.open(path, mode) as tar:
        for number, name in enumerate(NAMES):
            data = picture(number)
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for info, data in more:
            tar.addfile(info, io.BytesIO(data))
    return path


def member(name, kind=tarfile.REGTYPE, link="", data=b""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(data)
    info.devmajor, info.devminor = 1, 3
    return info, data


@pytest.mark.parametrize(
    "info",
    [
        member("set/train/A/dev.png", tarfile.CHRTYPE),
        member("set/train/A/dev.png", tarfile.BLKTYPE),
        member("set/train/A/pipe.png", tarfile.FIFOTYPE),
        member("set/train/A/link.png", tarfile.SYMTYPE, "/etc/passwd"),
        member("set/train/A/link.png", tarfile.SYMTYPE, "../../../../etc/passwd"),
        member("set/train/A/link.png", tarfile.LNKTYPE, "/etc/passwd"),
        member("set/train/A/link.png", tarfile.LNKTYPE, "../outside.png"),
        member("/set/train/A/3.png", data=picture()),
        member("set/../../train/A/3.png", data=picture()),
        member("C:\\set\\train\\A\\3.png", data=picture()),
    ],
    ids=lambda info: f"{info[0].type.decode()} {info[0].name} {info[0].linkname}",
)
def test_members_that_are_no_files_inside_are_refused(tmp_path, info):
    with pytest.raises(InputError, match=r"outside the archive|neither a file nor a folder"):
        open_source(tar_of(tmp_path / "set.tar", info))


def test_links_that_lead_in_circles_are_nothing(tmp_path):
    circle = [member(f"set/train/A/{a}.png", tarfile.SYMTYPE, f"{b}.png") for a, b in (("x", "y"), ("y", "x"))]
    assert len(open_source(tar_of(tmp_path / "set.tar", *circle)).items) == len(NAMES)


def test_an_archive_inside_is_a_file_that_is_named_and_not_opened(tmp_path):
    inner = tar_of(tmp_path / "inner.tar").read_bytes()
    with pytest.warns(UserWarning, match=r"1 files are ignored .*inner\.tar"):
        source = open_source(tar_of(tmp_path / "set.tar", member("set/train/A/inner.tar", data=inner)))
    assert len(source.items) == len(NAMES)


def test_a_gzip_bomb_is_refused_before_it_is_unpacked(tmp_path):
    path = tar_of(tmp_path / "set.tar")
    header, _ = member("set/train/A/zeros.png")
    header.size = 60 << 30
    end = path.read_bytes().rstrip(b"\0")
    whole = end + b"\0" * (-len(end) % 512) + header.tobuf()
    (tmp_path / "set.tar.gz").write_bytes(gzip.compress(whole + b"\0" * 10_000_000))
    with pytest.raises(InputError, match=r"unpacks to more than .* bytes, far more than pictures do"):
        open_source(tmp_path / "set.tar.gz")


def test_zeros_behind_the_end_of_a_packed_archive_have_a_limit(tmp_path, monkeypatch):
    monkeypatch.setenv("SOLUTION_MAX_UNPACKED_BYTES", "20000000")
    path = tar_of(tmp_path / "set.tar")
    (tmp_path / "set.tar.gz").write_bytes(gzip.compress(path.read_bytes() + b"\0" * 30_000_000))
    with pytest.raises(InputError, match="unpacks to more than 20,000,000 bytes"):
        open_source(tmp_path / "set.tar.gz")
    monkeypatch.setenv("SOLUTION_MAX_UNPACKED_BYTES", "40000000")
    assert len(open_source(tmp_path / "set.tar.gz").items) == len(NAMES)


def zip_of(path, *more, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in [*((name, picture(number)) for number, name in enumerate(NAMES)), *more]:
            archive.writestr(name, data)
    return path


def test_a_zip_bomb_is_refused_by_what_its_members_claim(tmp_path, monkeypatch):
    monkeypatch.setenv("SOLUTION_MAX_UNPACKED_BYTES", "10000000")
    more = [(f"set/train/A/{number}.bmp", bytes(3_000_000)) for number in range(4)]
    with pytest.raises(InputError, match="unpacks to more than 10,000,000 bytes"):
        open_source(zip_of(tmp_path / "set.zip", *more, compression=zipfile.ZIP_DEFLATED))


def test_a_list_of_members_that_lost_its_first_is_no_smaller_data_set(tmp_path):
    """The rest of the list is sound, and where it begins fits: only the number of members does not."""
    path = zip_of(tmp_path / "set.zip")
    data = bytearray(path.read_bytes())
    start, end = data.index(b"PK\x01\x02"), data.index(b"PK\x05\x06")
    second = data.index(b"PK\x01\x02", start + 1)
    data[end + 12 : end + 20] = (end - second).to_bytes(4, "little") + second.to_bytes(4, "little")
    path.write_bytes(data)
    with zipfile.ZipFile(path) as archive:
        assert len(archive.namelist()) == len(NAMES) - 1
    with pytest.raises(InputError, match=f"{len(NAMES) - 1} of {len(NAMES)} members are listed"):
        open_source(path)


@pytest.mark.parametrize("place", [0, 1, 32])
def test_a_member_whose_own_header_is_damaged_is_refused_before_anything_is_read(tmp_path, place):
    path = zip_of(tmp_path / "set.zip")
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"the header of the member .* is damaged"):
        open_source(path)


def test_members_of_a_zip_that_lie_inside_each_other_are_refused(tmp_path):
    """The members of Fifield's bomb (2019) share their bytes: here a member's data are those of the next with it."""
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("set/train/A/9.png", picture())
    start = inner.getvalue()[: inner.getvalue().index(b"PK\x01\x02")]
    path = zip_of(tmp_path / "set.zip", ("set/train/A/8.png", start))
    data = path.read_bytes()
    place = data.index(start)
    assert place > 0
    with zipfile.ZipFile(path) as archive:
        outer = archive.getinfo("set/train/A/8.png")
    entry = bytearray(inner.getvalue()[inner.getvalue().index(b"PK\x01\x02") : inner.getvalue().index(b"PK\x05\x06")])
    entry[42:46] = place.to_bytes(4, "little")
    end = data.index(b"PK\x05\x06")
    changed = bytearray(data[:end] + entry + data[end:])
    at = end + len(entry)
    count = int.from_bytes(changed[at + 10 : at + 12], "little") + 1
    changed[at + 8 : at + 12] = count.to_bytes(2, "little") * 2
    size = int.from_bytes(changed[at + 12 : at + 16], "little") + len(entry)
    changed[at + 12 : at + 16] = size.to_bytes(4, "little")
    path.write_bytes(changed)
    with zipfile.ZipFile(path) as archive:
        assert archive.read("set/train/A/9.png") == picture()
        assert archive.getinfo("set/train/A/9.png").header_offset > outer.header_offset
    with pytest.raises(InputError, match="lies inside another one"):
        open_source(path)


@pytest.mark.parametrize("names", [("CON", "NUL"), ("Cat", "cat"), ("a.", "a"), ("..", "A"), ("COM1.x", "aux")])
def test_names_that_no_file_system_takes_are_written_apart_and_inside(tmp_path, names):
    (tmp_path / "in").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 16, 3), dtype=np.uint8)
    np.savez(tmp_path / "in/set.npz", x=pixels, y=np.array(names * 6))
    assert main(["prepare", str(tmp_path / "in/set.npz"), str(tmp_path / "in/out")]) == 0
    folders = sorted(path.name for path in (tmp_path / "in/out/train").iterdir())
    assert len({name.casefold() for name in folders}) == 2
    for name in folders:
        assert not re.fullmatch(r"(con|nul|aux|com1)(\..*)?|.*[. ]", name, re.IGNORECASE), name
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_a_picture_with_a_huge_or_senseless_exif_is_a_picture(tmp_path, kind):
    exif = Image.Exif()
    exif[0x0112], exif[0x9286], exif[0x010F] = 6, b"x" * 60_000, EVIL
    folder = tmp_path / "set/train/A"
    folder.mkdir(parents=True)
    for number in range(4):
        pixels = np.random.default_rng(number).integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.{kind.lower()}", kind, exif=exif)
    (folder.parent / "B").mkdir()
    (folder.parent / "B/0.png").write_bytes(picture())
    source = open_source(tmp_path / "set")
    shapes = {image.shape for _, image in source.each_image(source.items, 64)}
    assert (30, 20, 3) in shapes


def test_text_in_a_picture_cannot_fill_the_memory(tmp_path):
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    text.add_text("comment", "x" * 50_000_000, zip=True)
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG", pnginfo=text)
    more = [("set/train/A/bomb.png", buffer.getvalue())]
    source = open_source(zip_of(tmp_path / "set.zip", *more))
    found = {item.name: image for item, image in zip(source.items, source.each_image(source.items, 8), strict=True)}
    assert len(found) == len(NAMES) + 1


def test_aliases_of_yaml_that_multiply_are_refused_at_once(tmp_path):
    laughs = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    laughs += [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]" for k in range(1, 12)]
    text = "\n".join([*laughs, "names: *a11", "train: images/train", "val: images/val"])
    (tmp_path / "set/images/train").mkdir(parents=True)
    (tmp_path / "set/images/val").mkdir(parents=True)
    (tmp_path / "set/labels/train").mkdir(parents=True)
    for split in ("train", "val"):
        (tmp_path / f"set/images/{split}/1.png").write_bytes(picture())
    (tmp_path / "set/labels/train/1.txt").write_text("0 .5 .5 .2 .2\n")
    (tmp_path / "set/data.yaml").write_text(text)
    with pytest.raises(InputError, match=r"data\.yaml must hold `names`"):
        open_scenes(tmp_path / "set")


@pytest.mark.parametrize(
    "text", ["[2001-13-45]", "[[a], b]", "&a [*a]", "[" * 50_000, "{0: {a: b}}", "{1: a}", "7", "a"]
)
def test_other_names_in_a_yaml_are_refused_too(tmp_path, text):
    members = {"s/images/train/1.png": picture(), "s/data.yaml": f"names: {text}".encode()}
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    with pytest.raises(InputError, match=r"data\.yaml must hold `names`"):
        open_scenes(tmp_path / "set.zip")


def small_net(path, names=("a", "b", "c"), **about):
    net = ShuffleNet(units=(1, 1, 1), width=0.1).build(num_classes=3).eval()
    feed = {"classes": names, "mean": (0.5,) * 3, "std": (0.2,) * 3, "size": 32} | about
    files.save(path, net, checkpoint.header_of(net, **feed))
    return path


def assert_quiet(text):
    """Nothing but what a terminal shows as it is; rich may color."""
    left = re.sub(r"\x1b\[[\d;]*m", "", text)
    assert re.findall(r"[^\x20-\x7e\n\t\u00a0-\u2019\u2026-\u2029\u2030-\u2fff]", left) == []
    assert "\u202e" not in left


def test_what_a_header_says_never_commands_the_terminal(tmp_path, capsys):
    path = small_net(tmp_path / "net.safetensors", (EVIL, "b", "c"), data=EVIL, recipe={"name": EVIL, EVIL: EVIL},
                     figures={EVIL: 1.0})  # fmt: skip
    (tmp_path / "photo.png").write_bytes(picture())
    for words in (["inspect", path], ["predict", path, tmp_path / "photo.png"], ["predict", path, tmp_path / EVIL],
                  ["compress", path, "--step", "prune_channels ratio=0.3", "--out", tmp_path / "small.packed"],
                  ["inspect", tmp_path / "small.packed"],
                  ["predict", tmp_path / "small.packed", tmp_path / "photo.png"],
                  ["export", path, "--format", "onnx", "--data", tmp_path]):  # fmt: skip
        assert main(list(map(str, words))) in (0, 2)
        captured = capsys.readouterr()
        assert_quiet(captured.out)
        assert_quiet(captured.err)


def test_names_of_tensors_never_command_the_terminal(tmp_path, capsys):
    onnx = pytest.importorskip("onnx", reason="the extra runtimes is not installed")
    weight = onnx.numpy_helper.from_array(np.zeros((2, 2), np.float32), EVIL)
    graph = onnx.helper.make_graph([], "net", [], [], [weight])
    onnx.save_model(onnx.helper.make_model(graph), tmp_path / "net.onnx")
    from safetensors.torch import save_file

    path = small_net(tmp_path / "net.safetensors")
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    about = json.loads(data[8 : 8 + length])["__metadata__"]["featherweight"]
    older = json.dumps(json.loads(about) | {"version": 2})
    save_file({EVIL: torch.zeros(3)}, path, metadata={"featherweight": older})
    for name in ("net.onnx", "net.safetensors"):
        assert main(["inspect", str(tmp_path / name)]) in (0, 2)
        assert main(["predict", str(tmp_path / name), str(tmp_path)]) == 2
        captured = capsys.readouterr()
        assert_quiet(captured.out)
        assert_quiet(captured.err)


ROW = {"step": "a", "macs": 5, "params": 3, "bytes": 10, "quality": {"f1": 0.5}}


DESCRIPTIONS = ["7", "[]", '"a"', '{"name": 7}', '{"settings": []}', '{"data": 3}', '{"seed": "x"}',
                '{"versions": [1]}', "[" * 100_000, '{"name": "\\u001b[2J"}', '{"before": {}}',
                '{"data": {"counts": 7}}', '{"settings": {"data.path": 7}}', '{"\\u202e": 1}']  # fmt: skip
ROWS = [{"macs": "5"}, {"step": 7}, {"step": "../../elsewhere"}, {"step": EVIL}, {"step": ""}, {"quality": 7},
        {"quality": {"f1": "x"}}, {"exported": {"onnxruntime": 7}}, {"latency_ms": {"eager": [1]}}, {"hardware": EVIL},
        {"seed": 1.5}, {"color": "blue"}]  # fmt: skip


@pytest.mark.parametrize("text", DESCRIPTIONS)
def test_a_forged_description_of_a_run_is_refused_by_a_line(tmp_path, text):
    (tmp_path / "rows.json").write_text(json.dumps([ROW]))
    assert read_run(tmp_path).rows[0].macs == 5
    (tmp_path / "recipe.json").write_text(text)
    with pytest.raises(InputError, match=r"recipe\.json is damaged"):
        read_run(tmp_path)
    (tmp_path / "recipe.json").unlink()
    (tmp_path / "rows.json").write_text(text)
    with pytest.raises(InputError, match=r"rows\.json"):
        read_run(tmp_path)


@pytest.mark.parametrize("changes", ROWS, ids=str)
def test_a_forged_row_is_refused_by_a_line(tmp_path, changes):
    (tmp_path / "rows.json").write_text(json.dumps([ROW | changes]))
    with pytest.raises(InputError, match=r"rows\.json is not a table of rows"):
        read_run(tmp_path)


def test_a_forged_state_of_a_training_is_refused_or_whole(tmp_path):
    state = {"epoch": 3, "settings": "s", "weights": {"a": torch.arange(50.0), 1: torch.ones(2, dtype=torch.bfloat16)}}
    save_state(tmp_path, state, [{"epoch": 1, "loss": 2.0}])
    path = tmp_path / "training.safetensors"
    data = path.read_bytes()
    for place in range(len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :])
        try:
            found = load_state(tmp_path, "s")
        except InputError:
            continue
        assert found["epoch"] == 3
        assert torch.equal(found["weights"]["a"], state["weights"]["a"])
        assert torch.equal(found["weights"][1], state["weights"][1])


@pytest.mark.parametrize(
    "config",
    [
        {"architecture": "resnet18", "num_classes": 10**12},
        {"architecture": "resnet18", "num_classes": "many"},
        {"architecture": "hf-hub:someone/else"},
        {"architecture": 7},
        {"architecture": "resnet18", "pretrained_cfg": 7},
        {"architecture": "resnet18", "pretrained_cfg": {"input_size": [3, 10**9, 10**9], "crop_pct": "x"}},
        {"architecture": "resnet18", "model_args": {"a": EVIL}},
        {"architectures": [7]},
        {"architectures": 7},
    ],
    ids=str,
)
def test_a_forged_folder_of_a_net_is_refused_by_a_line(tmp_path, config, monkeypatch):
    monkeypatch.setattr("socket.getaddrinfo", None)
    (tmp_path / "config.json").write_text(json.dumps(config))
    torch.save({"fc.weight": torch.zeros(1).expand(10**9, 512)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError):
        open_model(str(tmp_path))


def test_weights_that_claim_more_than_they_have_are_refused(tmp_path):
    torch.save({"a": torch.zeros(1 << 20)}, tmp_path / "net.pt")
    with zipfile.ZipFile(tmp_path / "net.pt") as archive, \
            zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as packed:  # fmt: skip
        for info in archive.infolist():
            packed.writestr(info.filename, archive.read(info))
    assert read_state(tmp_path / "net.pt")["a"].shape == (1 << 20,)
    with pytest.raises(InputError, match="claims 4,"):
        read_state(tmp_path / "bomb.pt")


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("postgresql://me:secret@host/db", "postgresql://me:***@host/db"),
        ("postgresql+psycopg://me:sec/ret@host:5432/db", "postgresql+psycopg://me:***@host:5432/db"),
        ("mysql://me:se@cret@host/db", "mysql://me:***@host/db"),
        ("redis://:secret@host:6379/0", "redis://:***@host:6379/0"),
        ("postgresql://host/db?user=me&password=secret&x=1", "postgresql://host/db?user=me&password=***&x=1"),
        ("https://host/api?access_token=secret", "https://host/api?access_token=***"),
        ("postgresql://host/db?sslpassword=secret", "postgresql://host/db?sslpassword=***"),
        ("https://secret@host:9/x", "https://***@host:9/x"),
        ("grpc://secret@host", "grpc://***@host"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        ("failed to resolve host 'ret@127.0.0.1'", "failed to resolve host '***@127.0.0.1'"),
        ("http://host:8000/path", "http://host:8000/path"),
        ("('sqlite:///a.db?x=1', 'mail@example.org')", "('sqlite:///a.db?x=1', 'mail@example.org')"),
    ],
)
def test_secrets_of_addresses_are_not_shown(address, shown):
    assert without_password(f"cannot reach {address}: why") == f"cannot reach {shown}: why"


@pytest.mark.parametrize(
    "storage",
    [
        "postgresql://me:hunter2@127.0.0.1:1/db",
        "mysql://me:hunter2@127.0.0.1:1/db",
        "nonsense://me:hunter2@127.0.0.1:1/db",
        "redis://:hun/ter2@127.0.0.1:1/0",
        "postgresql://127.0.0.1:1/db?password=hunter2",
        "sqlite://me:hunter2@/nowhere/at/all.db",
        "grpc://me:hunter2@127.0.0.1:1",
    ],
)
def test_a_storage_that_fails_never_shows_its_password(storage, photos, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOLUTION_STORAGE", storage)
    words = [
        "search",
        "waste_shufflenet",
        "--data",
        str(photos),
        "--trials",
        "1",
        "--out",
        "out",
        "--set",
        "data.size=32",
    ]
    assert main(words) == 2
    captured = capsys.readouterr()
    assert not re.search("hunter2|hun.ter2", captured.out + captured.err)
    assert not any(re.search("hun.?ter2", path.name) for path in tmp_path.rglob("*"))


@pytest.mark.parametrize(
    "spelling", ["{out}", "{folder}/../{name}/run", "{folder}/link", "{folder}/./run/", "{folder}/run/x/.."]
)
def test_one_place_is_claimed_once_however_it_is_spelled(tmp_path, spelling):
    folder = tmp_path / "runs"
    (folder / "run/x").mkdir(parents=True)
    (folder / "link").symlink_to(folder / "run")
    code = "import sys, pathlib\nfrom solution.locks import claimed\n"
    code += "with claimed(pathlib.Path(sys.argv[1])): print('taken')"
    place = spelling.format(out=folder / "run", folder=folder, name=folder.name)
    with claimed(folder / "run"):
        done = subprocess.run([sys.executable, "-c", code, place], cwd=ROOT, capture_output=True, text=True)
    assert "taken" not in done.stdout
    assert "is being written by process" in done.stderr


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),
        (b"GET / HTTP/1.0\r\n\r\n", b"400"),
        (b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: 127.0.0.1.evil.example\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: evil.example\r\nX-Forwarded-Host: 127.0.0.1\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: localhost:1\x00\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"x" * 400_000 + b"\r\n\r\n", b"431"),
        (b"BREW /../../etc/passwd HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", b"40"),
        (b"GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", b"404"),
        (b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99999999999999\r\n\r\n", b"413"),
        (b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -1\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", b"200"),
    ],
)  # fmt: skip
def test_requests_of_attackers_are_refused(tmp_path, request_, status):
    pytest.importorskip("waitress", reason="the extra web is not installed")
    import socket

    from solution.serve import web
    from solution.serve.view import Panel, open_nets

    nets = open_nets([small_net(tmp_path / "net.safetensors")], None, tmp_path)
    made = web.server(web.application(Panel(nets=nets), 100_000), "127.0.0.1", 0, 100_000)
    running = threading.Thread(target=made.run, daemon=True)
    running.start()
    try:
        with socket.create_connection(("127.0.0.1", made.effective_port), timeout=20) as connection:
            connection.sendall(request_.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
            answer = connection.recv(4096)
    finally:
        made.trigger.pull_trigger(made.close)  # in its own thread, which then ends
        running.join(20)
    assert answer.split(b" ")[1].startswith(status), answer[:200]
    assert b"root:" not in answer


@pytest.mark.parametrize("storage", ["postgresql://me:hunter2@127.0.0.1:1/db", "nonsense://me:hunter2@h/db"])
def test_nor_does_it_to_those_who_open_a_storage_in_python(storage):
    with pytest.raises(InputError) as caught:
        open_storage(storage)
    assert "hunter2" not in str(caught.value)
    assert "me:***@" in str(caught.value)


@pytest.mark.parametrize("typed", [False, True])
def test_workers_show_no_storage_in_a_list_of_processes(photos, tmp_path, typed):
    words = [sys.executable, "-m", "solution", "search", "waste_shufflenet", "--data", str(photos), "--trials", "1"]
    words += ["--out", str(tmp_path / "out"), "--set", "data.size=32"]
    storage = f"sqlite:///{tmp_path}/study.db?password=hunter2"
    named = ["--storage", storage] if typed else []
    process = subprocess.Popen([*words, *named], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               env=os.environ | ({} if typed else {"SOLUTION_STORAGE": storage}))  # fmt: skip
    shown, told = set(), ""
    try:
        while process.poll() is None and not (len(shown) == 2 and told):
            for place, line in command_lines():
                if str(tmp_path) in line:
                    shown.add(line)
                    told = told or (place / "environ").read_text() if " --worker" in line else told
    finally:
        process.terminate()
        said, _ = process.communicate(timeout=60)
    assert len(shown) == 2, said
    assert "hunter2" not in "".join(line for line in shown if not typed or " --worker" in line)
    assert f"SOLUTION_STORAGE={storage}" in told


def command_lines():
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            yield path.parent, path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
