import argparse

import numpy as np
import pytest
from PIL import Image

from solution.commands import data
from solution.contracts import InputError


@pytest.fixture
def photos(tmp_path):
    root = tmp_path / "photos"
    for split, seeds in (("train", range(6)), ("val", (2, 20))):
        for seed in seeds:
            path = root / split / ("Cup" if seed % 2 else "Bowl") / f"{seed}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
            Image.fromarray(coarse).resize((40, 30), Image.Resampling.BICUBIC).save(path)
    (root / "val/Bowl/broken.jpg").write_bytes(b"")
    return root


def run(*words):
    parser = argparse.ArgumentParser()
    data.add_arguments(parser)
    data.run(parser.parse_args([str(word) for word in words]))


def test_a_set_is_described_and_drawn(photos, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    run(photos, "--out", tmp_path / "out")
    said = capsys.readouterr().out
    for words in (
        ("Bowl", "3", "2", "62.5%"),
        ("Cup", "3", "0", "37.5%"),
        ("all", "6", "2"),
        ("width", "40", "40", "40"),
        ("equal", "pixels", "1", "2", "1", "0"),
        ("Near-duplicates", "across", "splits", "(1)"),
        ("Unreadable", "files", "(1)"),
    ):
        assert any(list(words) == line.split()[: len(words)] for line in said.splitlines()), words
    assert "largest : smallest class = 1.7" in said
    assert "val/Bowl/broken.jpg" in said
    assert f"picture: {tmp_path / 'out' / 'photos.png'}" in said
    with Image.open(tmp_path / "out/photos.png") as picture:
        assert picture.format == "PNG"


def test_the_picture_goes_to_runs_by_default(photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(photos)
    assert (tmp_path / "runs/data/photos.png").is_file()


def test_brackets_in_names_are_no_markup(tmp_path, capsys):
    for number in range(2):
        path = tmp_path / f"set/[red]/{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20)).save(path)
    run(tmp_path / "set", "--out", tmp_path)
    assert "[red]" in capsys.readouterr().out


def test_many_lines_are_cut_short():
    table = data._list_table("Files", [f"file {number}" for number in range(25)])
    assert table.row_count == 11
    assert list(table.columns[0].cells)[-1] == "... and 15 more"


def test_no_data_set_is_bad_input(tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        run(tmp_path / "nowhere")


@pytest.mark.slow
@pytest.mark.real_data
def test_real_photos_are_described_in_place(real_data, tmp_path, capsys):
    run(real_data / "recycle9.tar", "--out", tmp_path)
    said = capsys.readouterr().out
    assert ["all", "8,261", "1,770"] in [line.split() for line in said.splitlines()]
    assert (tmp_path / "recycle9.png").stat().st_size > 100_000


def test_names_in_the_data_never_command_the_terminal(photos, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    (photos / "train/Cup").rename(photos / "train/C\x1b]0;title\x07up\u202e")
    (photos / "val/Bowl/broken.jpg").rename(photos / "val/Bowl/br\x1b[2Joken.jpg")
    (photos / "train/Bowl/0.png").rename(photos / "train/Bowl/\x1b[31m.png")
    (photos / "train/no\x1b[2Jtes.txt").write_text("x")
    with pytest.warns(UserWarning, match=r"ignored \(such as train/no\\x1b\[2Jtes\.txt; 1 \.txt\)"):
        run(photos, "--out", tmp_path / "out")
    said = capsys.readouterr().out
    assert "br\\x1b[2Joken" in said
    assert "C\\x1b]0;title\\x07up\\u202e" in said
    assert not {"\x1b", "\x07", "\u202e"} & set(said)
