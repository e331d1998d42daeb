import warnings

import pytest
from hypothesis import given, strategies as st
from PIL import Image

from solution.contracts import InputError
from solution.data.loaders import Data
from solution.data.readers import UnreadableImage, open_source
from solution.data.source import in_order, sorted_classes
from solution.data.splits import split_called


def _put(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (5, 4), "red").save(path, "PNG")
    return root


def _told(source):
    return [(item.split, source.classes[item.label], item.name) for item in source.items]


def test_splits_and_classes_by_folder(tmp_path):
    root = _put(
        tmp_path / "waste", "Training/Glass/1.JPG", "Training/Metal/2.jpeg", "VALID/Glass/3.webp", "test/Metal/4.bmp"
    )
    source = open_source(root)
    assert (source.name, source.classes, source.splits) == ("waste", ("Glass", "Metal"), ("train", "val", "test"))
    assert _told(source) == [
        ("train", "Glass", "Training/Glass/1.JPG"),
        ("train", "Metal", "Training/Metal/2.jpeg"),
        ("val", "Glass", "VALID/Glass/3.webp"),
        ("test", "Metal", "test/Metal/4.bmp"),
    ]


def test_classes_without_a_split(tmp_path):
    source = open_source(_put(tmp_path / "waste", "Glass/1.jpg", "Metal/2.jpg"))
    assert _told(source) == [("", "Glass", "Glass/1.jpg"), ("", "Metal", "Metal/2.jpg")]


def test_one_root_folder_is_looked_through_and_names_the_set(tmp_path):
    root = _put(tmp_path / "download", "waste/train/Glass/1.jpg", "waste/val/Metal/2.jpg")
    (root / "waste" / "classes.txt").write_text("Glass")
    source = open_source(str(root))
    assert source.name == "waste"
    assert _told(source) == [("train", "Glass", "waste/train/Glass/1.jpg"), ("val", "Metal", "waste/val/Metal/2.jpg")]


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_set_with_one_split_alone(tmp_path, split):
    source = open_source(_put(tmp_path / "mine", f"{split}/Glass/1.jpg", f"{split}/Metal/2.jpg"))
    assert source.splits == (split,)
    assert source.classes == ("Glass", "Metal")


def test_a_class_may_be_called_train(tmp_path):
    source = open_source(_put(tmp_path / "vehicles", "bus/1.jpg", "train/2.jpg"))
    assert source.classes == ("bus", "train")


def test_an_empty_class_folder_is_still_a_class(tmp_path):
    root = _put(tmp_path / "waste", "train/Glass/1.jpg", "train/Metal/2.jpg")
    (root / "train" / "Paper").mkdir()
    assert open_source(root).classes == ("Glass", "Metal", "Paper")


def test_other_files_are_ignored_with_a_warning(tmp_path):
    root = _put(tmp_path / "waste", "train/Glass/1.jpg", "train/Glass/deep/2.jpg", "train/Metal/3.jpg")
    (root / "train" / "Glass" / "notes.txt").write_text("x")
    (root / "README.md").write_text("x")
    with pytest.warns(
        UserWarning, match=r"waste: 2 files are ignored \(such as train/Glass/deep/2\.jpg; 1 \.jpg, 1 \.txt\)"
    ):
        source = open_source(root)
    assert len(source.items) == 2


def test_two_folders_for_one_split_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"val and valid both stand for the val split; keep one"):
        open_source(_put(tmp_path, "train/A/1.jpg", "val/A/1.jpg", "valid/A/1.jpg"))


def test_no_pictures_says_what_is_expected_and_what_is_there(tmp_path):
    with pytest.raises(InputError, match=r"<split>/<Class>/\*\.jpg.*no files at all"):
        open_source(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(InputError, match=r"It has 1 files, such as notes\.txt"):
        open_source(tmp_path)
    with pytest.raises(InputError, match=r"train/1\.jpg"):
        open_source(_put(tmp_path / "flat", "train/1.jpg", "val/2.jpg"))


def test_what_is_no_data_set_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no data set at nowhere\.tar: give a folder.*cifar10"):
        open_source("nowhere.tar")
    (tmp_path / "set.rar").write_bytes(b"x")
    with pytest.raises(InputError, match=r"set\.rar: a file of unknown kind.*\.zip"):
        open_source(tmp_path / "set.rar")


def test_rendered_data_know_that_they_are(tmp_path):
    root = _put(tmp_path / "waste", "train/Glass/1.jpg", "train/Metal/2.jpg")
    assert not open_source(root).rendered
    (root / "rendered.json").write_text("{}")
    with warnings.catch_warnings(action="error"):
        assert open_source(root).rendered


def test_a_file_that_went_away_is_unreadable_by_name(tmp_path):
    source = open_source(_put(tmp_path, "train/Glass/1.jpg", "train/Metal/2.jpg"))
    (tmp_path / "train" / "Glass" / "1.jpg").unlink()
    with pytest.raises(UnreadableImage, match=r"train/Glass/1\.jpg: cannot be read \(No such file"):
        source.image(source.items[0])


def test_the_fingerprint_of_a_folder_follows_its_files(tmp_path):
    root = _put(tmp_path / "a", "train/Glass/1.jpg", "train/Metal/2.jpg")
    seen = {open_source(root).fingerprint() for _ in range(2)}
    assert len(seen) == 1
    _put(root, "train/Metal/3.jpg")
    seen.add(open_source(root).fingerprint())
    (root / "train" / "Metal" / "3.jpg").write_bytes(b"")
    seen.add(open_source(root).fingerprint())
    assert len(seen) == 3


@given(st.permutations(["train/A/2.jpg", "train/A/10.jpg", "train/B/1.jpg", "val/A/1.jpg"]))
def test_the_order_of_items_does_not_depend_on_the_order_of_files(names):
    from solution.data.source import Item

    items = [Item(split=name.split("/")[0], label="AB".index(name.split("/")[1]), name=name) for name in names]
    assert [item.name for item in in_order(items)] == [
        "train/A/10.jpg",
        "train/A/2.jpg",
        "train/B/1.jpg",
        "val/A/1.jpg",
    ]


def test_numbered_classes_sort_by_value():
    assert sorted_classes(["10", "2", "0"]) == ("0", "2", "10")
    assert sorted_classes(["b", "10", "2"]) == ("10", "2", "b")


@pytest.mark.parametrize(
    ("folder", "split"),
    [
        ("Training", "train"), ("train2017", "train"), ("TRAIN_SET", "train"), ("trainset", "train"),
        ("valid", "val"), ("Validation_set", "val"), ("dev", "val"), ("val-2", "val"),
        ("Testing", "test"), ("evaluation", "test"), ("Eval", "test"), ("holdout", "test"), ("hold_out_1", "test"),
        ("training_data", "train"), ("val_images", "val"), ("Test Dataset 2", "test"), ("train-split", "train"),
        ("dataset", None), ("devices", None), ("trainer", None), ("tests", None), ("latest", None), ("set", None),
    ],
)  # fmt: skip
def test_splits_by_their_usual_names(folder, split):
    assert split_called(folder) == split


@pytest.mark.parametrize("judge", ["Testing", "evaluation", "dev", "holdout_set"])
def test_whatever_the_other_split_is_called_it_judges(tmp_path, judge):
    root = _put(tmp_path, *(f"Training/{name}/{k}.png" for name in "AB" for k in range(9)), f"{judge}/A/x.png")
    data = Data(path=str(root), size=8)
    with warnings.catch_warnings(action="error"):
        info = data.info()
    assert (info.split, info.counts["val"]) == ("as given", {"A": 1, "B": 0})


def test_with_val_and_test_it_is_said_which_one_judges(tmp_path):
    names = [f"{split}/{name}/{k}.png" for split in ("train", "val", "test") for name in "AB" for k in range(9)]
    assert Data(path=str(_put(tmp_path, *names)), size=8).info().split == "as given; val judges, test is not used"


def test_a_folder_that_is_no_known_split_is_named(tmp_path):
    root = _put(tmp_path, "train/A/1.png", "train/B/2.png", "Prüfung/A/3.png", "Prüfung/B/4.png")
    with pytest.warns(UserWarning, match="no split that is known") as caught:
        assert len(open_source(root).items) == 2
    (said,) = [str(warning.message) for warning in caught]
    assert "Prüfung/ (2 pictures) is no split that is known, and is not used; rename it: train, training" in said


def test_photos_of_kinds_that_are_not_read_are_counted_by_ending(tmp_path):
    root = _put(tmp_path, "train/A/1.png", "train/B/2.png", "train/A/3.heic", "train/A/4.HEIC", "train/B/5.cr2")
    said = r"3 files are ignored .*2 \.heic, 1 \.cr2\).*\.tiff, \.avif.*convert photos"
    with pytest.warns(UserWarning, match=said):
        open_source(root)


@pytest.mark.parametrize("ending", ["jfif", "gif", "tif", "TIFF", "avif"])
def test_pictures_of_other_endings_count(tmp_path, ending):
    for name in "AB":
        (tmp_path / "train" / name).mkdir(parents=True)
        kind = {"jfif": "JPEG", "tif": "TIFF"}.get(ending)
        Image.new("RGB", (16, 16), "red").save(tmp_path / f"train/{name}/1.{ending}", kind)
    source = open_source(tmp_path)
    assert [source.image(item).shape for item in source.items] == [(16, 16, 3)] * 2
