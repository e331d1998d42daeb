import io
import tarfile

import pytest
from PIL import Image

from solution.contracts import InputError
from solution.data.readers import open_source


def _flat(root, tables, pictures):
    root.mkdir(exist_ok=True)
    for name, text in tables.items():
        (root / name).write_text(text)
    for name in pictures:
        (root / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (5, 4)).save(root / name)
    return root


TRAIN = "file,label\n1.jpg,Glass\n2.jpg,Metal\n"


def test_flat_folders_with_tables(tmp_path):
    tables = {"train.csv": TRAIN, "val.csv": "Label, File\nMetal,val/3.jpg\n"}
    root = _flat(tmp_path / "comp", tables, ["train/1.jpg", "train/2.jpg", "val/3.jpg"])
    expected = [("train", 0, "train/1.jpg"), ("train", 1, "train/2.jpg"), ("val", 1, "val/3.jpg")]
    source = open_source(root)
    assert source.classes == ("Glass", "Metal")
    assert [(item.split, item.label, item.name) for item in source.items] == expected
    with tarfile.open(tmp_path / "comp.tar.gz", "w:gz") as tar:
        tar.add(root, "comp")
    packed = open_source(tmp_path / "comp.tar.gz")
    assert (packed.name, packed.classes) == ("comp", source.classes)
    assert [item.name for item in packed.items] == [f"comp/{name}" for _, _, name in expected]


@pytest.mark.parametrize(
    ("table", "pictures", "message"),
    [
        (TRAIN + "9.jpg,Glass\n", [], r"train\.csv: row 4 \(9\.jpg\): name files that are not in train/"),
        (TRAIN, ["train/7.jpg"], r"train\.csv: train/7\.jpg: are not in the table; add their rows"),
        (TRAIN + "1.jpg,Metal\n", [], r"row 4 \(1\.jpg\): give a file a second, different label"),
        ("file,label\n1.jpg,Glass\n2.jpg,\n", [], r"row 3 \(2\.jpg\): have no label"),
        ("name,label\n1.jpg,Glass\n", [], r"train\.csv lacks the column file; it has name, label"),
        ("", [], r"train\.csv cannot be read as a table"),
        ("file,label\n1.jpg,Glass\n2.jpg,Metal,x,y\n", [], r"train\.csv cannot be read as a table"),
    ],
)
def test_tables_that_do_not_fit_name_the_rows(tmp_path, table, pictures, message):
    root = _flat(tmp_path / "comp", {"train.csv": table}, ["train/1.jpg", "train/2.jpg", *pictures])
    with pytest.raises(InputError, match=message):
        open_source(root)


def test_many_wrong_rows_are_counted(tmp_path):
    rows = "".join(f"no{i}.jpg,Glass\n" for i in range(12))
    root = _flat(tmp_path / "comp", {"train.csv": TRAIN + rows}, ["train/1.jpg", "train/2.jpg"])
    with pytest.raises(InputError, match=r"row 8 \(no4\.jpg\) and 7 more"):
        open_source(root)


def test_a_folder_without_a_table_and_a_table_without_a_folder(tmp_path):
    pictures = ["train/1.jpg", "train/2.jpg"]
    with pytest.raises(InputError, match=r"val/ has pictures but no table val\.csv beside it"):
        open_source(_flat(tmp_path / "a", {"train.csv": TRAIN}, [*pictures, "val/3.jpg"]))
    with pytest.raises(InputError, match=r"val\.csv has no folder val/"):
        open_source(_flat(tmp_path / "b", {"train.csv": TRAIN, "val.csv": TRAIN}, pictures))


def test_labels_that_look_like_missing_values_are_labels(tmp_path):
    root = _flat(tmp_path / "c", {"train.csv": "file,label\n1.jpg,None\n2.jpg,NA\n"}, ["train/1.jpg", "train/2.jpg"])
    assert open_source(root).classes == ("NA", "None")


def test_class_folders_win_over_a_table_beside_them(tmp_path):
    root = tmp_path / "d"
    for name in ("train/Glass/1.jpg", "train/Metal/2.jpg"):
        (root / name).parent.mkdir(parents=True)
        Image.new("RGB", (5, 4)).save(root / name)
    (root / "train.csv").write_bytes(io.BytesIO(b"id,target\n").getvalue())
    assert len(open_source(root).items) == 2


@pytest.mark.long
def test_a_table_of_forty_thousand_columns_is_refused_by_number(tmp_path, monkeypatch):
    wide = "file,label," + ",".join(f"c{number}" for number in range(40_000))
    root = _flat(tmp_path / "wide", {"train.csv": wide + "\n1.jpg,A"}, ["train/1.jpg"])
    with pytest.raises(InputError, match=r"40,002 columns are more than 1,000: set SOLUTION_MAX_COLUMNS"):
        open_source(root)
    row = ",".join(["1.jpg", "A", *"x" * 40_000])
    _flat(root, {"train.csv": f"{wide}\n{row}"}, ["train/1.jpg"])
    monkeypatch.setenv("SOLUTION_MAX_COLUMNS", "50000")
    assert open_source(root).classes == ("A",)
    monkeypatch.setenv("SOLUTION_MAX_COLUMNS", "many")
    with pytest.raises(InputError, match="SOLUTION_MAX_COLUMNS must be a whole number, got 'many'"):
        open_source(root)
