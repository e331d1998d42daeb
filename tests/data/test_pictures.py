import numpy as np
import pytest
from PIL import Image

from solution.data.describe import contact_sheet, describe, save_overview
from solution.data.readers import open_source

COLORS = {"Blue": (0, 0, 255), "Green": (0, 255, 0), "Red": (255, 0, 0)}


@pytest.fixture
def source(tmp_path):
    for name, color in COLORS.items():
        for number in range(14 if name == "Red" else 3):
            path = tmp_path / "colors" / ("val" if number == 2 else "train") / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (60, 40), color).save(path)
    return open_source(tmp_path / "colors")


def test_each_class_has_its_row(source):
    sheet = contact_sheet(source, 3)
    height = len(sheet) // 3
    assert sheet.dtype == np.uint8
    for row, color in enumerate(COLORS.values()):
        band = sheet[row * height : (row + 1) * height]
        own = (band == color).all(axis=2)
        assert (own | (band == 255).all(axis=2)).all()
        pictures_across = own[height // 2].sum() / 96
        assert pictures_across == (12 if color == COLORS["Red"] else 3)


def test_the_aspect_is_kept(source):
    own = (contact_sheet(source, 3)[:102, :102] == COLORS["Blue"]).all(axis=2)
    assert (own.any(axis=1).sum(), own.any(axis=0).sum()) == (64, 96)


def test_unreadable_images_leave_a_gap(source):
    (source.path / "train/Blue/0.png").write_bytes(b"")
    sheet = contact_sheet(source, 3)
    assert (sheet[:102, :102] == 255).all()
    assert not (sheet[:102, 102:204] == 255).all()


def test_the_picture_is_a_png_of_its_own_folder(source, tmp_path):
    path = tmp_path / "deep" / "colors.png"
    save_overview(source, describe(source), path)
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert picture.width == 1800
    assert list(path.parent.iterdir()) == [path]


def test_equal_data_give_equal_pictures(source, tmp_path):
    for name in ("a.png", "b.png"):
        save_overview(source, describe(source), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_classes_without_images_are_drawn(source, tmp_path):
    (source.path / "train/Empty").mkdir()
    source = open_source(source.path)
    save_overview(source, describe(source), tmp_path / "empty.png")
    assert (tmp_path / "empty.png").stat().st_size > 1000
