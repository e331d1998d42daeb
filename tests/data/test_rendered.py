import hashlib
import json
import multiprocessing
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings, strategies as st

from solution.contracts import InputError
from solution.data.rendered import build, ensure_rendered
from solution.data.rendered.build import draw_scene
from solution.data.rendered.objects import DRAWINGS, draw

SMALL = {"num_train": 27, "num_val": 9}
RECYCLE9 = ["Battery", "Biological", "Cardboard", "Clothing", "Glass", "Metal", "Paper", "Plastic", "Shoes"]
COMPETITION = ["Clothing", "Metal", "Paperpack", "Plasticbag", "Styrofoam"]


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return ensure_rendered(tmp_path_factory.mktemp("rendered") / "set", **SMALL)


def test_same_seed_gives_the_same_bytes_and_another_seed_others(small, tmp_path):
    again = digests(ensure_rendered(tmp_path / "again", **SMALL))
    other = digests(ensure_rendered(tmp_path / "other", seed=1, **SMALL))
    assert digests(small) == again
    assert other.keys() == again.keys()
    assert not set(other.values()) & set(again.values())


def test_no_image_occurs_twice(small):
    hashes = list(digests(small).values())
    assert len(set(hashes)) == len(hashes) == 27 + 9 + 1


def test_a_longer_set_begins_with_the_shorter_one(small, tmp_path):
    longer = digests(ensure_rendered(tmp_path / "longer", num_train=45, num_val=9))
    shorter = digests(small)
    assert all(longer[name] == shorter[name] for name in shorter if name != "rendered.json")


def test_layout(small):
    assert sorted(path.name for path in small.iterdir()) == ["rendered.json", "train", "val"]
    for split, total in (("train", 27), ("val", 9)):
        assert sorted(path.name for path in (small / split).iterdir()) == sorted(DRAWINGS)
        files = list((small / split).glob("*/*.jpg"))
        assert len(files) == total
        assert {cv2.imread(str(path)).shape for path in files} == {(96, 96, 3)}
    assert (small / "train" / "Bags" / "0000.jpg").exists()


def test_about_says_what_it_is_and_what_is_there(small):
    about = json.loads((small / "rendered.json").read_text())
    assert (about["title"], about["version"], about["seed"]) == ("rendered demo data", build.VERSION, 0)
    for split, counts in about["counts"].items():
        assert counts == {name: len(list((small / split / name).iterdir())) for name in DRAWINGS}


def test_class_names_are_nobody_elses():
    taken = {name.lower() for name in RECYCLE9 + COMPETITION}
    assert not {name.lower() for name in DRAWINGS} & taken
    assert list(build.CLASS_SHARES) == list(DRAWINGS) == sorted(DRAWINGS)
    assert len(DRAWINGS) == 9


@settings(deadline=None)
@given(st.integers(9, 5000))
def test_counts_add_up_and_are_mildly_imbalanced(total):
    counts = build.split_counts(total)
    assert sum(counts.values()) == total
    assert min(counts.values()) >= 1
    assert max(counts.values()) <= 2 * min(counts.values())


def test_full_set_counts():
    assert build.split_counts(2000)["Bottles"] == 294
    assert min(build.split_counts(500).values()) == 42


@pytest.mark.parametrize("counts", [{"num_train": 8}, {"num_val": 0}, {"num_val": -3}])
def test_too_few_images(tmp_path, counts):
    with pytest.raises(InputError, match="at least 9 images in a split, one a class; got"):
        ensure_rendered(tmp_path / "set", **counts)
    assert list(tmp_path.iterdir()) == []


def test_a_second_call_draws_nothing_and_only_the_first_speaks(small, tmp_path, capsys):
    folder = ensure_rendered(tmp_path / "set", **SMALL)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "rendered demo data" in captured.err
    before = (folder / "train" / "Cups" / "0000.jpg").stat().st_mtime_ns
    assert ensure_rendered(folder, **SMALL) == folder
    assert capsys.readouterr().err == ""
    assert (folder / "train" / "Cups" / "0000.jpg").stat().st_mtime_ns == before


def test_another_seed_counts_or_version_replaces_our_set(tmp_path, monkeypatch):
    folder = ensure_rendered(tmp_path / "set", num_train=9, num_val=9)
    ensure_rendered(folder, seed=3, num_train=9, num_val=9)
    assert json.loads((folder / "rendered.json").read_text())["seed"] == 3
    ensure_rendered(folder, seed=3, num_train=12, num_val=9)
    assert len(list(folder.glob("train/*/*.jpg"))) == 12
    monkeypatch.setattr(build, "VERSION", build.VERSION + 1)
    ensure_rendered(folder, seed=3, num_train=12, num_val=9)
    assert json.loads((folder / "rendered.json").read_text())["version"] == build.VERSION
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_an_empty_folder_is_filled(tmp_path):
    assert (ensure_rendered(tmp_path, num_train=9, num_val=9) / "val" / "Cans" / "0000.jpg").exists()


@pytest.mark.parametrize(
    "stranger", ["train/Glass/photo.jpg", "train/Cups/holiday.jpg", "notes.txt", "val/Cups/0000.jpg"]
)
def test_what_is_not_ours_is_left_alone(tmp_path, stranger):
    path = tmp_path / "set" / stranger
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    with pytest.raises(InputError, match="which is not rendered demo data; name another folder"):
        ensure_rendered(tmp_path / "set", **SMALL)
    assert path.read_text() == "mine"


def test_a_photo_laid_into_our_set_is_not_deleted(tmp_path):
    folder = ensure_rendered(tmp_path / "set", num_train=9, num_val=9)
    photo = folder / "train" / "Cups" / "IMG_1.jpg"
    photo.write_text("mine")
    with pytest.raises(InputError, match=r"holds train/Cups/IMG_1\.jpg"):
        ensure_rendered(folder, seed=1, num_train=9, num_val=9)
    assert photo.read_text() == "mine"


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "set").write_text("mine")
    with pytest.raises(InputError, match="holds a file of that name"):
        ensure_rendered(tmp_path / "set", **SMALL)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("No space left on device")])
def test_an_interrupted_build_leaves_nothing(tmp_path, monkeypatch, error):
    def fail_late(name: str, rng: np.random.Generator) -> np.ndarray:
        if name == "Cups":
            raise error
        return draw_scene(name, rng)

    monkeypatch.setattr("solution.data.rendered.build.draw_scene", fail_late)
    with pytest.raises((KeyboardInterrupt, OSError)):
        ensure_rendered(tmp_path / "set", **SMALL)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_rebuild_leaves_the_old_set(tmp_path, monkeypatch):
    folder = ensure_rendered(tmp_path / "set", num_train=9, num_val=9)
    before = digests(folder)
    monkeypatch.setattr(build, "_draw", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        ensure_rendered(folder, seed=1, num_train=9, num_val=9)
    assert digests(folder) == before
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_the_slower_of_two_builds_keeps_the_faster_ones_set(tmp_path, monkeypatch):
    draw_all = build._draw

    def overtaken(folder: Path, about: dict) -> None:
        draw_all(folder, about)
        monkeypatch.setattr(build, "_draw", draw_all)
        ensure_rendered(tmp_path / "set", **SMALL)
        (tmp_path / "set" / "faster").touch()

    monkeypatch.setattr(build, "_draw", overtaken)
    ensure_rendered(tmp_path / "set", **SMALL)
    assert (tmp_path / "set" / "faster").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_two_processes_at_once(small, tmp_path):
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=ensure_rendered, args=(tmp_path / "set",), kwargs=SMALL) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [0, 0]
    assert digests(tmp_path / "set") == digests(small)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


@pytest.mark.parametrize("name", DRAWINGS)
@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32 - 1))
@example(seed=3163)  # so deep a crease in a bag that its light falls below 0
def test_every_object_is_whole_and_fills_its_sheet(name, seed):
    pixels = draw(name, np.random.default_rng(seed)).pixels
    alpha = pixels[..., 3]
    border = np.concatenate([alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1]])
    assert border.max() == 0
    assert 0.08 < (alpha > 0).mean() < 0.9
    assert (pixels[..., :3] <= alpha[..., None]).all()


@pytest.mark.parametrize("name", DRAWINGS)
def test_scenes_show_more_than_flat_color(name):
    scenes = [draw_scene(name, np.random.default_rng([seed, 5])) for seed in range(8)]
    assert all(scene.shape == (96, 96, 3) and scene.dtype == np.uint8 for scene in scenes)
    assert all(scene.std() > 5 for scene in scenes)
