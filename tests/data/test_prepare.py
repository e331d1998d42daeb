import json
import subprocess
import sys
import tarfile
import textwrap
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image

from solution.contracts import InputError
from solution.data.describe import across_splits, describe
from solution.data.prepare import Preparation, grouped_split, prepare, shrink
from solution.data.readers import open_source
from solution.runtime import ROOT


def save(path, seed=0, size=(48, 36)):
    """A picture (width, height) of large random blobs, like no other seed's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(path)


@pytest.fixture
def unsplit(tmp_path):
    """20 + 10 pictures without splits; five of the first class come at a second size, too."""
    root = tmp_path / "download"
    for number in range(20):
        save(root / f"glass/{number:02}.png", seed=number)
    for number in range(10):
        save(root / f"clothes/{number:02}.png", seed=100 + number)
    for number in range(5):
        save(root / f"glass/big{number:02}.png", seed=number, size=(240, 180))
    return root


@pytest.fixture
def split(tmp_path):
    root = tmp_path / "given"
    for number in range(6):
        save(root / f"train/A/{number}.png", seed=number)
        save(root / f"train/B/{number}.png", seed=50 + number)
    save(root / "val/A/0.png", seed=70)
    save(root / "val/B/0.png", seed=80)
    return root


def counts(path):
    return describe(open_source(path)).info.counts


def use_all_train(path):
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_a_stratified_split_is_made_and_can_be_read(unsplit, tmp_path):
    record = prepare(open_source(unsplit), tmp_path / "out", Preparation(val_share=0.2))
    assert record["counts"] == counts(tmp_path / "out")
    assert record["counts"]["val"]["clothes"] == 2
    assert record["counts"]["val"]["glass"] in (5, 6)
    assert sum(sum(classes.values()) for classes in record["counts"].values()) == 35
    assert record["splits"] == "made here"
    assert record["near_duplicate_groups"] == 5
    assert json.loads((tmp_path / "out/prepare.json").read_text()) == record


@pytest.mark.parametrize("seed", range(5))
def test_near_duplicates_stay_in_one_split(unsplit, tmp_path, seed):
    record = prepare(open_source(unsplit), tmp_path / "out", Preparation(val_share=0.3, seed=seed))
    described = describe(open_source(tmp_path / "out"))
    assert len(described.near) == 5
    assert across_splits(described.near) == []
    assert record["near_duplicate_groups_across_splits"] == 0


def test_the_seed_decides_alone(unsplit, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        prepare(open_source(unsplit), tmp_path / name, Preparation(seed=seed))
    assert use_all_train(tmp_path / "a") == use_all_train(tmp_path / "b")
    assert set(use_all_train(tmp_path / "a")) != set(use_all_train(tmp_path / "c"))


def test_splits_of_the_source_are_kept(split, tmp_path):
    record = prepare(open_source(split), tmp_path / "out", Preparation())
    assert record["splits"] == "of the source"
    assert counts(tmp_path / "out") == {"train": {"A": 6, "B": 6}, "val": {"A": 1, "B": 1}}
    assert (tmp_path / "out/val/B/0.jpg").is_file()


def test_resplit_pools_them(split, tmp_path):
    record = prepare(open_source(split), tmp_path / "out", Preparation(resplit=True, val_share=0.4))
    assert record["counts"] == {"train": {"A": 4, "B": 4}, "val": {"A": 3, "B": 3}}


def test_copies_across_splits_are_dropped_from_train(split, tmp_path):
    save(split / "val/A/copy.png", seed=3)
    record = prepare(open_source(split), tmp_path / "out", Preparation())
    assert [name.rpartition("given/")[2] for name in record["copies_dropped"]] == ["train/A/3.png"]
    assert record["counts"] == {"train": {"A": 5, "B": 6}, "val": {"A": 2, "B": 1}}


def test_copies_whose_classes_differ_are_all_dropped(split, tmp_path):
    save(split / "train/B/other.png", seed=3)
    record = prepare(open_source(split), tmp_path / "out", Preparation())
    assert len(record["copies_dropped"]) == 2
    assert record["counts"]["train"] == {"A": 5, "B": 6}


def test_near_duplicates_across_given_splits_are_counted(split, tmp_path):
    save(split / "val/A/rescaled.png", seed=3, size=(100, 75))
    assert prepare(open_source(split), tmp_path / "out", Preparation())["near_duplicate_groups_across_splits"] == 1


def test_classes_are_chosen_and_renamed(unsplit, tmp_path):
    record = prepare(open_source(unsplit), tmp_path / "out", Preparation(classes=(("clothes", "Clothing"),)))
    assert record["counts"] == {"train": {"Clothing": 8}, "val": {"Clothing": 2}}


def test_two_classes_can_become_one(unsplit, tmp_path):
    settings = Preparation(classes=(("clothes", "waste"), ("glass", "waste")))
    record = prepare(open_source(unsplit), tmp_path / "out", settings)
    assert sum(counts["waste"] for counts in record["counts"].values()) == 35
    assert len(list((tmp_path / "out").rglob("*.jpg"))) == 35


def test_large_images_are_shrunk_and_padding_is_trimmed(tmp_path):
    root = tmp_path / "photos"
    for number in range(8):
        save(root / f"A/{number}.png", seed=number, size=(300, 200))
        square = Image.new("RGB", (300, 300), (128, 128, 128))
        square.paste(Image.open(root / f"A/{number}.png"), (0, 50))
        square.save(root / f"A/{number}.png")
    record = prepare(open_source(root), tmp_path / "out", Preparation(trim_borders=True, max_side=96))
    assert (record["trimmed"], record["shrunk"]) == (8, 8)
    assert {Image.open(file).size for file in (tmp_path / "out").rglob("*.jpg")} == {(96, 64)}


def test_sizes_can_be_kept(unsplit, tmp_path):
    prepare(open_source(unsplit), tmp_path / "out", Preparation(max_side=0))
    assert {Image.open(file).size for file in (tmp_path / "out").rglob("*.jpg")} == {(48, 36), (240, 180)}


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 80), st.integers(1, 80), st.integers(8, 60))
def test_shrink_never_enlarges(height, width, max_side):
    shape = shrink(np.zeros((height, width, 3), np.uint8), max_side).shape[:2]
    assert max(shape) == min(max_side, max(height, width))
    assert abs(shape[0] * width - shape[1] * height) <= max(height, width)


def test_archives_in_and_out(unsplit, tmp_path):
    with zipfile.ZipFile(tmp_path / "download.zip", "w") as archive:
        for file in sorted(unsplit.rglob("*.png")):
            archive.write(file, file.relative_to(unsplit.parent))
    for name in ("out.tar", "again.tar"):
        prepare(open_source(tmp_path / "download.zip"), tmp_path / name, Preparation())
    prepare(open_source(unsplit), tmp_path / "out", Preparation())
    assert counts(tmp_path / "out.tar") == counts(tmp_path / "out")
    with tarfile.open(tmp_path / "out.tar") as first, tarfile.open(tmp_path / "again.tar") as second:
        names = [name.partition("/")[2] for name in first.getnames()]
        assert names == [name.partition("/")[2] for name in second.getnames()]
        assert set(names) == set(use_all_train(tmp_path / "out"))


def test_arrays_in(tmp_path):
    images = np.stack([np.asarray(Image.effect_noise((20, 20), 90)) for _ in range(12)])
    np.savez(tmp_path / "set.npz", x=images, y=np.arange(12) % 2)
    prepare(open_source(tmp_path / "set.npz"), tmp_path / "out", Preparation(val_share=0.34))
    assert counts(tmp_path / "out") == {"train": {"0": 4, "1": 4}, "val": {"0": 2, "1": 2}}


def test_names_that_meet_are_told_apart(tmp_path):
    root = tmp_path / "photos"
    for number, name in enumerate(("a.png", "a.jpg", "A.bmp", "a~2.png", "my photo (1).png")):
        save(root / "A" / name, seed=number)
    prepare(open_source(root), tmp_path / "out", Preparation(val_share=0.5))
    written = [file.stem.casefold() for file in (tmp_path / "out").rglob("*.jpg")]
    assert len(written) == 5
    assert "my_photo_1" in written


def test_unreadable_images_are_skipped_and_named(tmp_path):
    root = tmp_path / "photos"
    for number in range(120):
        save(root / f"A/{number:03}.png", seed=number)
    (root / "A/007.png").write_bytes(b"")
    record = prepare(open_source(root), tmp_path / "out", Preparation())
    assert len(record["unreadable"]) == 1
    assert "A/007.png" in record["unreadable"][0]
    assert sum(counts["A"] for counts in record["counts"].values()) == 119


def test_many_unreadable_images_are_an_error(unsplit, tmp_path):
    (unsplit / "glass/07.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"1 of 35 images are unreadable, more than 1%: .*glass/07.png"):
        prepare(open_source(unsplit), tmp_path / "out", Preparation())
    assert sorted(file.name for file in tmp_path.iterdir()) == ["download"]


def test_nothing_is_left_when_it_is_stopped(unsplit, tmp_path):
    def stop(images):
        yield from list(images)[:5]
        raise KeyboardInterrupt

    for name in ("out", "out.tar"):
        with pytest.raises(KeyboardInterrupt):
            prepare(open_source(unsplit), tmp_path / name, Preparation(), stop)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["download"]


def test_nothing_is_overwritten(unsplit, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("mine")
    (tmp_path / "full.tar").write_text("mine")
    for name in ("full", "full.tar"):
        with pytest.raises(InputError, match="exists already; nothing is overwritten"):
            prepare(open_source(unsplit), tmp_path / name, Preparation())
    assert (tmp_path / "full/mine.txt").read_text() == (tmp_path / "full.tar").read_text() == "mine"


def test_an_empty_folder_is_filled(unsplit, tmp_path):
    (tmp_path / "out").mkdir()
    prepare(open_source(unsplit), tmp_path / "out", Preparation())
    assert counts(tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "message"),
    [("out.zip", "ends in .tar"), ("out.tar.gz", "ends in .tar"), ("download/out", "inside the source")],
)
def test_targets_that_cannot_be(unsplit, tmp_path, name, message):
    with pytest.raises(InputError, match=message):
        prepare(open_source(unsplit), tmp_path / name, Preparation())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"val_share": 0.0}, "not 0.0"),
        ({"val_share": 1.5}, "not 1.5"),
        ({"max_side": 3}, "not 3"),
        ({"max_side": -1}, "not -1"),
        ({"classes": (("A", "../A"),)}, "'../A' cannot be the name"),
        ({"classes": (("A", ""),)}, "'' cannot be the name"),
    ],
)
def test_settings_that_cannot_be(fields, message):
    with pytest.raises(InputError, match=message):
        Preparation(**fields)


def test_an_unknown_class_is_answered_with_those_there_are(unsplit, tmp_path):
    with pytest.raises(InputError, match=r"no class 'metal'; its classes are clothes, glass"):
        prepare(open_source(unsplit), tmp_path / "out", Preparation(classes=(("metal", "Metal"),)))


def test_too_few_images_to_split(tmp_path):
    save(tmp_path / "photos/A/1.png")
    with pytest.raises(InputError, match="too few to split off 15% for val"):
        prepare(open_source(tmp_path / "photos"), tmp_path / "out", Preparation())


def test_rendered_data_stay_rendered(unsplit, tmp_path):
    (unsplit / "rendered.json").write_text("{}")
    prepare(open_source(unsplit), tmp_path / "out", Preparation())
    assert open_source(tmp_path / "out").rendered


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 30)), min_size=1, max_size=80), st.integers(0, 5))
def test_no_group_is_ever_torn(images, seed):
    labels, groups = np.array(images).T
    is_val = grouped_split(labels, groups, 0.3, seed)
    for group in set(groups.tolist()):
        assert len(set(is_val[groups == group].tolist())) == 1


@pytest.mark.parametrize("share", [0.1, 0.15, 0.5])
def test_single_images_are_split_exactly(share):
    labels = np.repeat([0, 1, 2], [200, 40, 3])
    is_val = grouped_split(labels, np.arange(len(labels)), share, 0)
    expected = [max(1, round(share * count)) for count in (200, 40, 3)]
    assert np.bincount(labels[is_val]).tolist() == expected


HOSTILE = ["../../escaped", "/tmp/absolute", "C:\\drive", "..", "NUL", "glass", "Glass", "a\x1b[31mred", "gpj\u202eexe"]


@pytest.mark.parametrize("kind", ["npz", "csv"])
def test_classes_are_names_and_never_paths(tmp_path, kind):
    """All that is written lies in the target, a folder for each class, whatever the classes are called."""
    images = np.random.default_rng(0).integers(0, 256, (4 * len(HOSTILE), 6, 6, 3), dtype=np.uint8)
    images = images.repeat(8, axis=1).repeat(8, axis=2)
    labels = np.repeat(HOSTILE, 4)
    if kind == "npz":
        path = tmp_path / "in" / "set.npz"
        path.parent.mkdir()
        np.savez(path, **{"x": images, "y": labels})
    else:
        path = tmp_path / "in"
        (path / "train").mkdir(parents=True)
        for number, image in enumerate(images):
            Image.fromarray(image).save(path / "train" / f"{number}.png")
        rows = [f'{number}.png,"{label}"' for number, label in enumerate(labels)]
        (path / "train.csv").write_text("\n".join(["file,label", *rows]), encoding="utf-8")
    source = open_source(path)
    assert all(name.isprintable() for name in source.classes)
    prepare(source, tmp_path / "deep" / "er" / "out", Preparation())
    assert sorted(file.name for file in tmp_path.iterdir()) == ["deep", "in"]
    assert [file.name for file in (tmp_path / "deep" / "er").iterdir()] == ["out"]
    written = {file.parent.name for file in (tmp_path / "deep" / "er" / "out").rglob("*.jpg")}
    assert written == {
        "_.._escaped", "_tmp_absolute", "C__drive", "unnamed", "NUL_", "glass~2", "Glass",
        "a_x1b[31mred", "gpj_u202eexe",
    }  # fmt: skip
    assert sum(map(sum, (split.values() for split in counts(tmp_path / "deep" / "er" / "out").values()))) == 36


def test_a_picture_called_like_a_device_and_one_in_either_unicode_form(tmp_path):
    for number, name in enumerate(("nul.png", "e\u0301.png", "\u00e9.jpg", "COM1.png")):
        save(tmp_path / "photos" / "A" / name, seed=number)
    prepare(open_source(tmp_path / "photos"), tmp_path / "out", Preparation(val_share=0.5))
    written = {file.stem for file in (tmp_path / "out").rglob("*.jpg")}
    assert len(list((tmp_path / "out").rglob("*.jpg"))) == 4
    assert written & {"nul", "COM1", "e\u0301"} == set()


def test_pictures_that_do_not_fit_are_an_error_and_leave_nothing(unsplit, tmp_path):
    code = f"""
    import resource, signal
    from solution.__main__ import main

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, resource.RLIM_INFINITY))
    raise SystemExit(main(["prepare", {str(unsplit)!r}, {str(tmp_path / "out")!r}]))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "the file is larger than is allowed" in done.stderr
    assert not (tmp_path / "out").exists()
