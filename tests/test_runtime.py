"""Files are written whole or not at all; the machine is named."""

import os
import platform

import pytest

from solution import runtime
from solution.contracts import InputError
from solution.runtime import check_writable, write_text, written_whole


def test_a_write_that_fails_leaves_what_was_there(tmp_path):
    path = tmp_path / "new" / "rows.json"
    write_text(path, "grün\n")
    with pytest.raises(OSError, match="full"), written_whole(path) as temporary:
        temporary.write_text("half of")
        raise OSError("the disk is full")
    assert path.read_text(encoding="utf-8") == "grün\n"
    assert list(path.parent.iterdir()) == [path]


def test_places_that_cannot_be_written_are_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file/rows.json cannot be written \(.+\): name another place"):
        write_text(tmp_path / "file" / "rows.json", "")
    with pytest.raises(InputError, match="is a folder: name a file to write"):
        write_text(tmp_path, "")


def test_files_are_readable_as_the_user_wants(tmp_path, monkeypatch):
    monkeypatch.setattr("solution.runtime._umask", lambda: 0o027)
    write_text(tmp_path / "a.txt", "")
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o640


def test_a_place_is_asked_for_before_the_work(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    check_writable(tmp_path / "file")
    check_writable(tmp_path / "new" / "folder" / "rows.json")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    with pytest.raises(InputError, match=r"rows.json cannot be written \(nothing can be made in .*/file\)"):
        check_writable(tmp_path / "file" / "rows.json")
    with pytest.raises(InputError, match="is a folder: name a file to write"):
        check_writable(tmp_path)
    monkeypatch.setattr("os.access", lambda *_: False)  # as for those who may not
    with pytest.raises(InputError, match="nothing can be made in"):
        check_writable(tmp_path / "rows.json")


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"model name": "AMD EPYC", "flags": "fma avx2"}, "AMD EPYC, AVX2, "),
        ({"model name": "AMD EPYC", "flags": "avx2 avx512f avx512_vnni"}, "AMD EPYC, AVX-512 VNNI, "),
        ({"model name": "Xeon", "flags": "avx2"}, "Xeon, AVX2, "),
        ({"Features": "fp asimd asimddp"}, f"{platform.machine()}, DOTPROD, "),
        ({}, f"{platform.machine()}, {os.cpu_count()} cores"),
    ],
)
def test_the_processor_is_told_with_what_makes_its_int8_fast(monkeypatch, said, told):
    monkeypatch.setattr(runtime, "_about_processor", lambda: said)
    assert runtime.hardware().startswith(told)


@pytest.mark.parametrize(
    ("said", "imitates"),
    [
        ({"flags": "avx2"}, True),
        ({"flags": "avx2 avx512_bf16"}, False),
        ({"Features": "asimd bf16"}, False),
        ({}, False),
    ],
)
def test_bf16_is_imitated_where_the_processor_is_known_not_to_have_it(monkeypatch, said, imitates):
    monkeypatch.setattr(runtime, "_about_processor", lambda: said)
    assert runtime.imitates_bf16() == imitates
