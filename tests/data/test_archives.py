import io
import tarfile
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


def test_a_damaged_member_of_a_zip_is_unreadable_by_name(tmp_path):
    path = _zip(tmp_path / "a.zip", GOOD)
    data = bytearray(path.read_bytes())
    data[data.index(_jpeg(40)) + 50] ^= 255
    path.write_bytes(data)
    source = open_source(path)
    with pytest.raises(UnreadableImage, match=r"photos/train/A/1\.jpg: broken in the archive"):
        source.read(source.items[0])


def test_a_member_too_large_to_be_a_picture_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr("solution.data.archives.MAX_FILE_BYTES", 100)
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
