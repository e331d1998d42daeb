import argparse
import json

import numpy as np
import pytest
from PIL import Image

from solution.commands import prepare
from solution.contracts import InputError
from solution.data.readers import open_source


@pytest.fixture
def download(tmp_path):
    root = tmp_path / "download"
    for seed in range(20):
        path = root / ("clothes" if seed % 2 else "trash") / f"{seed}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((200, 150), Image.Resampling.BICUBIC).save(path)
    return root


def run(*words):
    parser = argparse.ArgumentParser()
    prepare.add_arguments(parser)
    prepare.run(parser.parse_args([str(word) for word in words]))


def test_a_download_is_prepared(download, tmp_path, capsys):
    run(download, tmp_path / "out", "--max-side", 64, "--val-share", 0.3, "--classes", "clothes=Clothing,trash")
    said = capsys.readouterr().out
    assert "train: 14 images" in said
    assert "val: 6 images" in said
    assert "splits made here; 0 trimmed, 20 shrunk" in said
    assert f"written: {tmp_path / 'out'}" in said
    source = open_source(tmp_path / "out")
    assert source.classes == ("Clothing", "trash")
    assert source.splits == ("train", "val")
    record = json.loads((tmp_path / "out/prepare.json").read_text())
    assert record["arguments"]["classes"] == {"clothes": "Clothing", "trash": "trash"}


def test_the_side_is_128_unless_told_otherwise(download, tmp_path):
    run(download, tmp_path / "out.tar")
    source = open_source(tmp_path / "out.tar")
    assert source.image(source.items[0]).shape == (96, 128, 3)


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("", ()),
        ("A", (("A", "A"),)),
        ("clothes=Clothing, glass", (("clothes", "Clothing"), ("glass", "glass"))),
        (" a = b ,", (("a", "b"),)),
        ("a=", (("a", ""),)),
    ],
)
def test_class_names(text, pairs):
    assert prepare.class_names(text) == pairs


def test_unreadable_images_and_leaks_are_told():
    record = {
        "counts": {"train": {"A": 3}, "val": {"A": 1}},
        "splits": "of the source",
        "trimmed": 1,
        "shrunk": 2,
        "near_duplicate_groups": 4,
        "near_duplicate_groups_across_splits": 3,
        "copies_dropped": ["a", "b"],
        "unreadable": ["x.jpg: the file is empty"],
    }
    said = "\n".join(prepare.summary(record))
    assert "2 copies dropped" in said
    assert "4 groups of near-duplicates, 3 of them across splits (--resplit" in said
    assert "1 unreadable images skipped: x.jpg: the file is empty" in said


def test_bad_input_is_raised_before_anything_is_written(download, tmp_path):
    for words in ((download, tmp_path / "out", "--classes", "glass"), (download, tmp_path / "out", "--val-share", 2)):
        with pytest.raises(InputError):
            run(*words)
    assert not (tmp_path / "out").exists()
