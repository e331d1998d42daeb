import io
import random
import tarfile
import warnings
import zipfile

import numpy as np
import pytest
from PIL import Image

from solution.contracts import InputError
from solution.data.readers import UnreadableImage, open_source


def _jpeg(shade=0):
    buffer = io.BytesIO()
    Image.new("RGB", (6, 4), (shade, 0, 0)).save(buffer, "JPEG")
    return buffer.getvalue()


def _tar(path, members, mode="w"):
    with tarfile.open(path, mode) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(data, bytes):
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
            else:
                info.type, info.linkname = data
                tar.addfile(info)
    return path


def _zip(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


GOOD = {f"photos/{split}/{name}/{i}.jpg": _jpeg(40 * i) for split in ("train", "val") for name in "AB" for i in (1, 2)}


@pytest.mark.parametrize("kind", ["set.tar", "set.tar.gz", "set.tgz", "set.zip", "folder"])
def test_same_items_and_pixels_whatever_the_container(tmp_path, kind):
    if kind == "folder":
        with tarfile.open(_tar(tmp_path / "t.tar", GOOD)) as tar:
            tar.extractall(tmp_path / kind, filter="data")
    elif kind == "set.zip":
        _zip(tmp_path / kind, GOOD)
    else:
        _tar(tmp_path / kind, GOOD, "w:" if kind.endswith(".tar") else "w:gz")
    source = open_source(tmp_path / kind)
    assert source.name == "photos"
    assert source.classes == ("A", "B")
    assert [(item.split, item.label, item.name) for item in source.items] == [
        (name.split("/")[1], "AB".index(name.split("/")[2]), name) for name in GOOD
    ]
    assert [source.read(item) for item in source.items] == list(GOOD.values())
    found = dict(source.each_image(source.items[::-1], 100))
    assert all((found[7 - i] == source.image(item)).all() for i, item in enumerate(source.items))
    assert source.image(source.items[1]).shape == (4, 6, 3)
    assert abs(int(source.image(source.items[1])[0, 0, 0]) - 80) < 5


def test_a_name_comes_from_the_file_when_there_is_no_root_folder(tmp_path):
    members = {name.removeprefix("photos/"): data for name, data in GOOD.items()}
    assert open_source(_tar(tmp_path / "waste.v2.tar.gz", members, "w:gz")).name == "waste.v2"
    assert open_source(_zip(tmp_path / "waste.zip", members)).name == "waste"


@pytest.mark.parametrize(
    "name", ["../evil.jpg", "photos/../../evil.jpg", "/etc/evil.jpg", "C:\\evil.jpg", "..\\evil.jpg"]
)
def test_members_that_point_outside_are_refused_by_name(tmp_path, name):
    for path in (_tar(tmp_path / "a.tar", {**GOOD, name: b"x"}), _zip(tmp_path / "a.zip", {**GOOD, name: b"x"})):
        with pytest.raises(InputError, match=r"evil\.jpg.*outside the archive"):
            open_source(path)


@pytest.mark.parametrize("target", ["/etc/passwd", "../../../../passwd"])
@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_links_out_of_a_tar_are_refused_by_name(tmp_path, kind, target):
    path = _tar(tmp_path / "a.tar", {**GOOD, "photos/train/A/link.jpg": (kind, target)})
    with pytest.raises(InputError, match=r"link\.jpg.*link to .*passwd.*outside the archive"):
        open_source(path)


def test_links_inside_a_tar_read_what_they_point_to(tmp_path):
    links = {
        "photos/train/B/hard.jpg": (tarfile.LNKTYPE, "photos/train/A/1.jpg"),
        "photos/train/B/soft.jpg": (tarfile.SYMTYPE, "../A/2.jpg"),
        "photos/train/B/twice.jpg": (tarfile.SYMTYPE, "soft.jpg"),
        "photos/train/B/loop.jpg": (tarfile.SYMTYPE, "loop.jpg"),
    }
    source = open_source(_tar(tmp_path / "a.tar", {**GOOD, **links}))
    data = {item.name: source.read(item) for item in source.items}
    assert data["photos/train/B/hard.jpg"] == data["photos/train/A/1.jpg"]
    assert data["photos/train/B/soft.jpg"] == data["photos/train/B/twice.jpg"] == data["photos/train/A/2.jpg"]
    assert "photos/train/B/loop.jpg" not in data


def test_devices_in_a_tar_and_links_and_secrets_in_a_zip_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"pipe.*neither a file nor a folder"):
        open_source(_tar(tmp_path / "a.tar", {**GOOD, "photos/pipe": (tarfile.FIFOTYPE, "")}))
    link = zipfile.ZipInfo("photos/train/A/link.jpg")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(_zip(tmp_path / "a.zip", GOOD), "a") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(InputError, match=r"link\.jpg.*is a link"):
        open_source(tmp_path / "a.zip")


@pytest.mark.parametrize("kind", ["a.tar", "a.tar.gz", "a.zip"])
def test_an_archive_cut_short_or_no_archive_at_all_is_refused(tmp_path, kind):
    path = tmp_path / kind
    if kind == "a.zip":
        _zip(path, GOOD)
    else:
        _tar(path, GOOD, "w:gz" if kind.endswith("gz") else "w:")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 3])
    with pytest.raises(InputError, match=r"a\.\S+: cannot be read as an archive .*fetch or pack it again"):
        open_source(path)
    path.write_bytes(b"no archive" * 100)
    with pytest.raises(InputError, match="cannot be read as an archive"):
        open_source(path)


def test_a_zip_with_a_damaged_member_is_refused(tmp_path):
    path = _zip(tmp_path / "a.zip", GOOD)
    data = bytearray(path.read_bytes())
    data[data.index(_jpeg(40)) + 50] ^= 255
    path.write_bytes(data)
    source = open_source(path)
    with pytest.raises(InputError, match=r"a\.zip: cannot be read as an archive \(photos/train/A/1\.jpg: .*again"):
        source.read(source.items[0])


def test_a_member_too_large_to_be_a_picture_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr("solution.data.source.MAX_FILE_BYTES", 100)
    for path in (_tar(tmp_path / "a.tar", GOOD), _zip(tmp_path / "a.zip", GOOD)):
        source = open_source(path)
        with pytest.raises(UnreadableImage, match="are more than 100: refused"):
            source.read(source.items[0])


def test_hidden_files_are_nobodys_data(tmp_path):
    junk = {"__MACOSX/photos/train/A/._1.jpg": b"x", "photos/.DS_Store": b"x", "photos/train/A/._1.jpg": b"x"}
    source = open_source(_tar(tmp_path / "a.tar", {**junk, **GOOD}))
    assert source.name == "photos"
    assert len(source.items) == len(GOOD)


def test_the_fingerprint_follows_the_content(tmp_path):
    path = _tar(tmp_path / "a.tar", GOOD)
    before = open_source(path).fingerprint()
    assert open_source(path).fingerprint() == before
    _tar(path, {**GOOD, "photos/train/A/1.jpg": _jpeg(99)})
    assert open_source(path).fingerprint() != before
    zipped = [
        open_source(_zip(tmp_path / "a.zip", members)).fingerprint()
        for members in (GOOD, {**GOOD, "photos/train/A/1.jpg": _jpeg(99)})
    ]
    assert zipped[0] != zipped[1]
    assert np.unique([before, *zipped]).size == 3


def _archive(path):
    """GOOD in the kind of archive that `path` ends in; .npz holds twelve numbered pictures."""
    if path.suffix == ".npz":
        save = np.savez if path.stem == "a" else np.savez_compressed
        save(path, x=np.random.default_rng(0).integers(0, 9, (12, 4, 4), dtype=np.uint8), y=np.arange(12) % 4)
    elif path.suffix == ".zip":
        _zip(path, GOOD)
    else:
        _tar(path, GOOD, "w:gz" if path.suffix == ".gz" else "w:")
    return path


def _seen(path):
    """How many pictures can be read, or None where the archive is refused."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            source = open_source(path)
    except (InputError, UserWarning):
        return None
    return len(source.items), source.classes, source.splits


@pytest.mark.parametrize("kind", ["a.tar", "a.tar.gz", "a.zip", "a.npz", "b.npz"])
def test_a_damaged_archive_is_never_a_smaller_data_set(tmp_path, kind):
    """Cuts anywhere and flipped bits, in headers above all: it is refused, or all of it is there."""
    path, chance = _archive(tmp_path / kind), random.Random(0)
    data, whole = path.read_bytes(), _seen(path)
    assert whole is not None
    refused = 0
    for trial in range(150):
        damaged = bytearray(data)
        if trial % 3 == 0:
            del damaged[chance.randrange(len(data)) :]
        elif kind == "a.tar" and trial % 3 == 1:
            damaged[chance.randrange(len(data) // 512 - 20) * 512 + chance.randrange(512)] ^= 1 << chance.randrange(8)
        else:
            damaged[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        found = _seen(path)
        assert found in (None, whole), (trial, found)
        refused += found is None
    assert refused > 50


@pytest.mark.parametrize("place", [0, 100, 124, 148, 156, 257])
def test_one_flipped_bit_in_a_header_of_a_tar_is_found(tmp_path, place):
    path = _archive(tmp_path / "a.tar")
    data = bytearray(path.read_bytes())
    data[data.index(b"photos/train/B/1.jpg") + place] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"a\.tar: cannot be read as an archive"):
        open_source(path)


def test_what_follows_the_end_of_an_archive_is_not_passed_over(tmp_path):
    for kind in ("a.tar", "a.zip"):
        path = _archive(tmp_path / kind)
        path.write_bytes(path.read_bytes() * 2 if kind == "a.tar" else path.read_bytes() + b"more")
        with pytest.raises(InputError, match="something follows"):
            open_source(path)
    path = _archive(tmp_path / "b.tar")
    data = path.read_bytes()
    path.write_bytes(data[: data.rindex(_jpeg(80)) + 1024])
    with pytest.raises(InputError, match=r"its end is missing|something follows"):
        open_source(path)


@pytest.mark.parametrize("kind", ["a.tar", "a.zip"])
def test_archives_of_too_many_members_say_how_to_go_on(tmp_path, monkeypatch, kind):
    path = _archive(tmp_path / kind)
    monkeypatch.setenv("SOLUTION_MAX_MEMBERS", "7")
    with pytest.raises(InputError, match=r"more than 7 members.*unpack it and name the folder, or set SOLUTION_MAX"):
        open_source(path)
    monkeypatch.setenv("SOLUTION_MAX_MEMBERS", "8")
    assert len(open_source(path).items) == 8


NAMES = {
    "gbk": ("玻璃", "纸张", "塑料"),
    "shift_jis": ("ガラス", "紙", "ソーダ"),
    "big5": ("玻璃", "紙張", "塑膠"),
    "euc_kr": ("유리", "종이", "플라스틱"),
    "cp866": ("стекло", "бумага"),
    "cp1252": ("Gläser", "Müll"),
    "cp437": ("Gläser", "Müll"),
    "utf-8": ("Gläser", "玻璃"),
}


def _old_zip(path, names, encoding):
    """A zip whose names are in `encoding` and not marked, as packers of its time wrote them."""
    codes = [name.encode(encoding) for name in names]
    places = [chr(65 + number) * len(code) for number, code in enumerate(codes)]
    with zipfile.ZipFile(path, "w") as archive:
        for number, place in enumerate(places):
            for k in range(3):
                archive.writestr(f"set/{place}/{k}.jpg", _jpeg(30 * number + k))
    data = path.read_bytes()
    for place, code in zip(places, codes, strict=True):
        data = data.replace(f"set/{place}/".encode(), b"set/" + code + b"/")
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("encoding", NAMES)
def test_names_of_old_packers_are_recognized_or_named(tmp_path, encoding):
    path = _old_zip(tmp_path / "set.zip", NAMES[encoding], encoding)
    if encoding == "utf-8":
        with warnings.catch_warnings(action="error"):
            assert open_source(path).classes == tuple(sorted(NAMES[encoding]))
        return
    with pytest.warns(UserWarning, match="names are not in UTF-8 and are read as .*--zip-encoding"):
        assert open_source(path).classes == tuple(sorted(NAMES[encoding]))
    with warnings.catch_warnings(action="error"):
        source = open_source(path, zip_encoding=encoding)
    assert source.classes == tuple(sorted(NAMES[encoding]))
    assert [len(source.read(item)) > 0 for item in source.items] == [True] * 3 * len(NAMES[encoding])


def test_an_encoding_that_does_not_fit_is_refused_with_the_way_to_name_another(tmp_path):
    path = _old_zip(tmp_path / "set.zip", NAMES["gbk"], "gbk")
    for wrong in ("utf-8", "no_such_encoding"):
        with pytest.raises(InputError, match=f"cannot be read as {wrong}.*--zip-encoding gbk"):
            open_source(path, zip_encoding=wrong)


def test_letters_and_accents_written_apart_are_the_same_names(tmp_path):
    apart, composed = "Gla\u0308ser", "Gl\u00e4ser"
    members = {f"s/train/{apart}/1.jpg": _jpeg(1), f"s/val/{composed}/2.jpg": _jpeg(2), "s/train/Z/3.jpg": _jpeg(3)}
    for path in (_tar(tmp_path / "s.tar", members), _zip(tmp_path / "s.zip", members)):
        source = open_source(path)
        assert source.classes == (composed, "Z")
        assert [len(source.read(item)) > 0 for item in source.items] == [True] * 3
    with tarfile.open(tmp_path / "s.tar") as tar:
        tar.extractall(tmp_path / "out", filter="data")
    source = open_source(tmp_path / "out")
    assert source.classes == (composed, "Z")
    assert [source.image(item).shape for item in source.items] == [(4, 6, 3)] * 3


def test_a_table_names_files_in_either_form(tmp_path):
    for number, name in enumerate(("e\u0301.jpg", "\u00fc.jpg")):
        (tmp_path / "set/train").mkdir(parents=True, exist_ok=True)
        (tmp_path / "set/train" / name).write_bytes(_jpeg(number))
    (tmp_path / "set/train.csv").write_text("file,label\n\u00e9.jpg,A\nu\u0308.jpg,B\n", encoding="utf-8")
    source = open_source(tmp_path / "set")
    assert [source.classes[item.label] for item in source.items] == ["A", "B"]
    assert [source.image(item).shape for item in source.items] == [(4, 6, 3)] * 2
